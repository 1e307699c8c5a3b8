"""A sensor and its scripted gateway, brought into any state; and what "nothing changed" means."""

import struct

from tools.dev.peers.node import SECRETS, Node, Rand, profile
from tools.dev.peers.messages import DELETE_IKE, UNKNOWN
from tools.dev.peers.responder import (
    INFORMATIONAL,
    MARKER,
    SK,
    D,
    Responder,
    notify,
    payload_chain,
)
from minipsec.handshake.sa_init_retry import Retry
from minipsec.ike import established
from minipsec.crypto.ccm import CCM

PPK_ID = b"\x02ppk-1"
WITH_PPK = {"secrets": {**SECRETS, "ppk": "0x" + "77" * 32}, "ppk_id": "ppk-1"}
PPK_IN_AUTH = (notify(16435),)
PPK_IN_INTERMEDIATE = (notify(16438), notify(16445))


class Gateway(Responder):
    """The scripted responder, with messages that are bent before they are protected."""

    def bend(
        self,
        exchange=INFORMATIONAL,
        flags=0,
        mid=None,
        payloads=(),
        chain=None,
        pad_length=0,
        **bent,
    ):
        """A message under the right ICV, whatever else is wrong with it.

        `chain` is (first, octets) in place of well-formed payloads; `pad_length` is written as
        it stands, behind no padding; `bent` is for `messages.protected`.
        """
        first, plain = chain or payload_chain(list(payloads) or [(0, b"")])[:2]
        if chain is None and not payloads:
            first, plain = 0, b""
        if mid is None:
            mid = self.mid
            self.mid += 1
        return self.protect(plain + bytes((pad_length,)), exchange, flags, mid, first, **bent)

    def answers(self, datagram):
        """[(type, body)] of what the sensor answered under protection."""
        return [(kind, body) for kind, _, body in self.read(datagram)[3]]


def spoilt(datagram):
    """The same with a wrong ICV."""
    return datagram[:-1] + bytes((datagram[-1] ^ 1,))


def without(*kinds):
    """An edit for `init` and `auth` that leaves payloads out."""
    return lambda payloads: [payload for payload in payloads if payload[0] not in kinds]


def behind(*more):
    """An edit that adds payloads."""
    return lambda payloads: payloads + list(more)


def replaced(kind, change):
    """An edit that changes the body of one type of payload."""
    return lambda payloads: [(k, change(body) if k == kind else body) for k, body in payloads]


# States.


def started(gateway=None, secrets=None, seed=b"sensor", more=(), **changes):
    """A sensor that sent IKE_SA_INIT.

    `changes` are profile keys, `more` are transforms that it offers besides.
    """
    checked = profile(secrets, **changes)
    checked["ike"] = [(name, [*transforms, *more]) for name, transforms in checked["ike"]]
    node = Node(checked, Rand(seed))
    node.start()
    return node, gateway or Gateway()


def waiting(gateway=None, **changes):
    """The same, its gateway having keys already although it said nothing yet."""
    node, gateway = started(gateway, **changes)
    gateway.init(node.out[-1])
    return node, gateway


def halfway(gateway=None, edit=None, **changes):
    """A sensor that sent IKE_AUTH."""
    node, gateway = started(gateway, **changes)
    node.receive(gateway.init(node.out[-1], edit))
    assert node.state == "IKE_AUTH", node.ike.drops
    return node, gateway


def between(gateway=None, edit=None, **changes):
    """A sensor that sent IKE_INTERMEDIATE, in which a PPK is to be agreed on."""
    node, gateway = started(gateway, **{**WITH_PPK, **changes})
    node.receive(gateway.init(node.out[-1], edit or behind(*PPK_IN_INTERMEDIATE)))
    assert node.state == "IKE_INTERMEDIATE", node.ike.drops
    return node, gateway


def up(gateway=None, **changes):
    """A sensor whose tunnel is up."""
    node, gateway = halfway(gateway, **changes)
    node.receive(gateway.auth(node.out[-1]))
    assert node.state == "UP", (node.ike.drops, node.events)
    return node, gateway


def checking(gateway=None, **changes):
    """A sensor that asks whether the gateway is alive."""
    node, gateway = up(gateway, **changes)
    node.call(established.check)
    return node, gateway


def deleting(gateway=None, **changes):
    """A sensor that sent DELETE."""
    node, gateway = up(gateway, **changes)
    node.call(established.delete)
    assert node.state == "DELETING"
    return node, gateway


def down(gateway=None, **changes):
    """A sensor whose SA the gateway deleted."""
    node, gateway = up(gateway, **changes)
    node.receive(gateway.request(INFORMATIONAL, [DELETE_IKE]))
    assert node.state == "DOWN"
    return node, gateway


def idle(gateway=None, **changes):
    """A sensor that did nothing yet; its gateway knows keys that it would have."""
    _, gateway = halfway(gateway, **changes)
    return Node(profile(None, **changes), Rand(b"sensor")), gateway


IN_STATE = {
    "IDLE": idle,
    "IKE_SA_INIT": waiting,
    "IKE_INTERMEDIATE": between,
    "IKE_AUTH": halfway,
    "UP": up,
    "DELETING": deleting,
    "DOWN": down,
}
# The drop counters; what says of which kind the last datagram of poll_out was; the rest is no state,
# or leads back to where one came from.
OUTSIDE = ("drops", "reply", "rand", "profile", "sa", "_handshake")
UNDER_KEYS = ("IKE_INTERMEDIATE", "IKE_AUTH", "UP", "DELETING")
AUTHENTICATED = ("UP", "DELETING")


# Nothing changed.


def picture(thing, depth=0):
    """Everything that an object holds, as comparable values.

    Drop counters are left out, and what ciphers keep between two calls.
    """
    if isinstance(thing, (bytearray, memoryview)):
        return bytes(thing)
    if isinstance(thing, dict):
        return {key: picture(value, depth + 1) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [picture(value, depth + 1) for value in thing]
    if isinstance(thing, CCM):
        return id(thing)
    if depth < 8 and type(thing).__module__.startswith(("minipsec", "host_tests", "tools.dev.")):
        # None is what a class has where its object has nothing yet, as a Retry that was just loaded.
        kept = {k: v for k, v in vars(thing).items() if k not in OUTSIDE and v is not None}
        kept = {k: v for k, v in kept.items() if type(v) is not Retry or vars(v)}
        return type(thing).__name__, picture(kept, depth + 1)
    return thing if isinstance(thing, (int, str, bytes, set, type(None))) else id(thing)


def drops(node):
    """How many datagrams the sensor dropped and counted."""
    return sum(node.ike.drops.values()) + sum(node.drops.values())


def assert_dropped(node, datagram, now=0):
    """Hand it in: it must be counted once and change nothing else; return the reason."""
    before, counted, reasons = picture(node), drops(node), dict(node.ike.drops)
    assert node.receive(datagram, now) == []
    assert picture(node) == before
    assert drops(node) == counted + 1
    changed = [r for r, n in node.ike.drops.items() if n != reasons.get(r, 0)]
    return changed[0] if changed else None
