"""After IKE_AUTH: the peer's INFORMATIONAL and CREATE_CHILD_SA requests (RFC 7296 §1.3-§1.4)."""

from . import wire
from .numbers import N, P, Protocol
from .wire import Notify, Payload


def handle(sa, payloads, now):
    """Answer liveness checks and DELETE; other contents are noted and ignored."""
    gateway = sa.gateway
    answer = []
    for payload in payloads:
        if payload.type == P.NOTIFY:
            notify = wire.parse_notify(payload.body)
            if notify.type < 16384:
                gateway.error(notify.type, sa.endpoint, "told by the peer", sa.identity)
        if payload.type != P.DELETE:
            continue
        protocol, spis = wire.parse_delete(payload.body)
        if protocol == Protocol.IKE:
            gateway.closed(sa, "deleted by the peer")
            sa.die(now)
            return []
        # The other direction of the pair is deleted in the answer (§1.4.1).
        ours = []
        for child in list(sa.children.values()):
            if protocol == Protocol.ESP and child.spi_out in spis:
                gateway.remove_child(child, "deleted by the peer")
                ours.append(child.spi_in)
        if ours:
            answer.append(Payload(P.DELETE, wire.encode_delete(Protocol.ESP, ours)))
    return answer


def refuse_child(sa, payloads, now):
    """One Child SA an IKE SA, no rekeying: peers set up a new IKE SA instead."""
    return [Notify(N.NO_ADDITIONAL_SAS).payload()]
