"""A sensor and a scripted responder, brought as far as a test needs them."""

from tools.dev.peers.node import SECRETS, Node, Rand, profile
from tools.dev.peers.responder import Responder


def starting(gateway=None, seed=b"pair", secrets=None, now=0, **changes):
    """(sensor, responder, the sensor's IKE_SA_INIT request)."""
    node = Node(profile(secrets or SECRETS, **changes), Rand(seed))
    (request,) = node.start(now)
    return node, gateway or Responder(), request


def authenticating(gateway=None, now=0, **changes):
    """(sensor, responder, the sensor's IKE_AUTH request)."""
    node, gateway, request = starting(gateway, now=now, **changes)
    (request,) = node.receive(gateway.init(request), now)
    assert node.state == "IKE_AUTH"
    return node, gateway, request


def established(gateway=None, now=0, **changes):
    """(sensor, responder) with everything up."""
    node, gateway, request = authenticating(gateway, now, **changes)
    assert node.receive(gateway.auth(request), now) == []
    assert node.state == "UP", node.events
    return node, gateway


def dropped(node, datagram, reason, now=0):
    """Assert that the datagram is dropped under this reason and changes nothing."""

    def standing():
        events = [event for event in node.events if event[0] != "hint"]
        return node.state, node.ike.next_timer(), events

    def count():
        return node.ike.drops.get(reason, 0) + node.drops.get(reason, 0)

    before, counted = standing(), count()
    out = node.receive(datagram, now)
    assert out == [], (reason, out)
    assert count() == counted + 1, (reason, node.ike.drops, node.drops)
    assert standing() == before, (reason, node.events)


def with_body(payloads, kind, body):
    """Return payloads with the body of each of one type replaced (None: left out)."""
    made = []
    for payload in payloads:
        if payload[0] != kind:
            made.append(payload)
        elif body is not None:
            made.append((kind, body))
    return made


def changed(octets, at, *values):
    return octets[:at] + bytes(values) + octets[at + len(values) :]
