"""The IKE SA after IKE_AUTH: peer requests, liveness, DELETE (RFC 7815 §2.1-2.2, appendix B.1).

Loaded when IKE_AUTH is done.  An IKE SA of ours is never rekeyed: a new one replaces it before
it ends, so each request to rekey is refused.
"""

import struct
from micropython import const

from . import wire
from .sa import Machine

_CREATE_CHILD_SA = const(36)
_INFORMATIONAL = const(37)
_N = const(41)
_D = const(42)
_TSI = const(44)
_NO_ADDITIONAL_SAS = const(35)
_AUTH_LIFETIME = const(16403)
_REKEY_SA = b"\x40\x09"
_IKE = const(1)
_ESP = const(3)

_S_UP = const(4)
_S_DELETING = const(5)
_S_DEAD = const(6)


# What an SA is, after IKE_AUTH; all else is a handshake's, or as in a new Machine again.  For each
# of them a session of host_tests/tunnel/sessions goes wrong without it.
_KEPT = (
    "state nat peer_nat with_ppk floated fragmentation room spi_i spi_r spi_out picked rtt drops "
    "_acks _table _out _mid _peer_mid _answered _queues _queue_due _iv _tx _rx"
)


def adopt(sa):
    """Return the established SA as a plain Machine, so that what made it can be forgotten."""
    machine = Machine(sa.profile, sa.rand)
    for name in _KEPT.split():
        value = getattr(sa, name)
        if value != getattr(machine, name):
            setattr(machine, name, value)
    return machine


def check(sa, now):
    """Ask the peer whether it is alive (RFC 7296 §2.4); False while another request is out."""
    return sa.state == _S_UP and sa.request(_INFORMATIONAL, [], now)


def delete(sa, now):
    """Delete this IKE SA at the peer; False while another request is out."""
    if sa.state != _S_UP or not sa.request(
        _INFORMATIONAL, [(_D, struct.pack(">BBH", _IKE, 0, 0))], now
    ):
        return False
    sa.go(_S_DELETING)
    return True


def lifetime_in(kind, data):
    """Return the seconds that the peer lets this SA live, where a notify says so (RFC 4478)."""
    return int.from_bytes(data, "big") or 1 if kind == _AUTH_LIFETIME and len(data) == 4 else None


def _on_informational(sa, payloads, now):
    for kind, _, body in payloads:
        if kind == _D and _deletes(sa, body):
            sa._ending = ("deleted",)
        elif kind == _N and len(body) == 8:
            seconds = lifetime_in(body[2] << 8 | body[3], body[4:])
            if seconds:
                sa.event("lifetime", seconds)
    return []


def _deletes(sa, body):
    """Does this Delete payload end our IKE SA, or the Child SA that it is there for?"""
    if len(body) < 4:
        return False
    protocol, size, count = struct.unpack_from(">BBH", body)
    if protocol == _IKE:
        return True
    if protocol != _ESP or size != 4 or len(body) != 4 + 4 * count:
        return False
    return any(bytes(body[i : i + 4]) == sa.spi_out for i in range(4, len(body), 4))


def _on_create_child(sa, payloads, now):
    # A rekey of the Child SA names it, one of the IKE SA has no traffic selectors.
    names = [bytes(body[2:4]) for kind, _, body in payloads if kind == _N]
    if _REKEY_SA in names or all([kind != _TSI for kind, _, _ in payloads]):
        sa.event("rekey")
    return [(_N, wire.notify(_NO_ADDITIONAL_SAS))]


def _on_answer(sa, payloads, now):
    sa.answer_came(now)
    sa.event("answered")


def _on_deleted(sa, payloads, now):
    sa.end()
    sa.event("ended")


TABLE = {
    (_S_UP, _INFORMATIONAL, False): (_on_informational, (_S_UP, _S_DEAD)),
    (_S_UP, _CREATE_CHILD_SA, False): (_on_create_child, (_S_UP,)),
    (_S_UP, _INFORMATIONAL, True): (_on_answer, (_S_UP, _S_DEAD)),  # dead: beyond our bounds
    (_S_DELETING, _INFORMATIONAL, False): (_on_informational, (_S_DELETING, _S_DEAD)),
    (_S_DELETING, _CREATE_CHILD_SA, False): (_on_create_child, (_S_DELETING,)),
    (_S_DELETING, _INFORMATIONAL, True): (_on_deleted, (_S_DEAD,)),
}
