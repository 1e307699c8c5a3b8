"""The IKE SA after IKE_AUTH: peer requests, liveness, DELETE (RFC 7815 §2.1-2.2, appendix B.1).

Loaded when IKE_AUTH is done; `sa.TABLE` names its handlers from then on.  An IKE SA of ours is
never rekeyed: a new one replaces it before it ends.  So each request to rekey is refused.
"""

import struct
from micropython import const

from . import wire

# RFC 7296 §3.1, §3.2
_INFORMATIONAL = const(37)
_N = const(41)
_D = const(42)
_TSI = const(44)
# §3.10.1; AUTH_LIFETIME: RFC 4478
_NO_ADDITIONAL_SAS = const(35)
_REKEY_SA = b"\x40\x09"
_AUTH_LIFETIME = const(16403)
# §3.3.1
_IKE = const(1)
_ESP = const(3)

# Ours: states, see `sa`.
_S_UP = const(4)
_S_DELETING = const(5)


def check(sa, now):
    """Ask the peer whether it is alive (RFC 7296 §2.4); False while another request is out."""
    return sa.state == _S_UP and sa.ask(_INFORMATIONAL, [], now)


def delete(sa, now):
    """Delete this IKE SA at the peer; False while another request is out."""
    if sa.state != _S_UP or not sa.ask(
        _INFORMATIONAL, [(_D, struct.pack(">BBH", _IKE, 0, 0))], now
    ):
        return False
    sa.go(_S_DELETING)
    return True


def lifetime_in(kind, data):
    """Return the seconds of an AUTH_LIFETIME notify (RFC 4478), None for any other notify."""
    return int.from_bytes(data, "big") or 1 if kind == _AUTH_LIFETIME and len(data) == 4 else None


def on_informational(sa, payloads, now):
    """Answer liveness checks, DELETE and a lifetime with an empty message (RFC 7296 §1.4)."""
    answer = ()
    for kind, _, body in payloads:
        if kind == _D and _deletes(sa, body):
            answer = None
        elif kind == _N and len(body) == 8:
            seconds = lifetime_in(body[2] << 8 | body[3], body[4:])
            if seconds:
                sa.event("lifetime", seconds)
    return answer


def _deletes(sa, body):
    """Does this Delete payload end our IKE SA, or its only Child SA?"""
    if len(body) < 4:
        return False
    protocol, size, count = struct.unpack_from(">BBH", body)
    if protocol == _IKE:
        return True
    if protocol != _ESP or size != 4 or len(body) != 4 + 4 * count:
        return False
    return any(bytes(body[i : i + 4]) == sa.spi_out for i in range(4, len(body), 4))


def on_create_child(sa, payloads, now):
    """Refuse each request for another Child SA, and to rekey (RFC 7815 §2.2)."""
    # A rekey of the Child SA has REKEY_SA; one of the IKE SA has no traffic selectors.
    names = [bytes(body[2:4]) for kind, _, body in payloads if kind == _N]
    if _REKEY_SA in names or all([kind != _TSI for kind, _, _ in payloads]):
        sa.event("rekey")
    return [(_N, wire.notify(_NO_ADDITIONAL_SAS))]


def on_answer(sa, payloads, now):
    """The peer is alive."""
    sa.answer_came(now)
    sa.event("answered")


def on_deleted(sa, payloads, now):
    """The peer has answered our DELETE."""
    sa.end()
    sa.event("ended")
