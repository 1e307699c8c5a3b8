"""Hypothesis: round trips of every codec, and octets of no meaning into everything that reads."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minipsec.ike import established as calls
from minipsec.esp import inner
from minipsec.ike import wire
from minipsec.ike.sa import STATES
from minipsec.esp.sequence import ReplayWindow

from tools.dev.peers.node import SECRETS, Node, Rand, profile, remember_exchanges
from tools.dev.peers.pair import authenticating, starting
from tools.dev.peers.pair import established as brought_up
from tools.dev.peers.responder import (
    COOKIE, CREATE_CHILD_SA, FRAGMENTATION, IKE_AUTH, INFORMATIONAL, MARKER, D, N, R, Responder,
    notify,
)  # fmt: skip
from host_tests.esp.test_esp import receiver, sealed

pytestmark = pytest.mark.long

# The same examples each time: a failure on one machine is one on all.
few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
many = settings(max_examples=200, deadline=None, derandomize=True, database=None)

octets = st.binary(max_size=400)
u8, u16 = st.integers(0, 255), st.integers(0, 0xFFFF)


@pytest.fixture(scope="module", autouse=True)
def quick():
    restore = remember_exchanges()
    yield
    restore()


# Round trips


@many
@given(st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8), u8, u8, u8, octets)
def test_headers(spi_i, spi_r, first, exchange, flags, body):
    made = wire.header(spi_i, spi_r, first, exchange, flags, 0xFFFFFFFE, 28 + len(body)) + body
    assert wire.parse_header(made) == (spi_i, spi_r, first, exchange, flags, 0xFFFFFFFE)


kinds = st.integers(1, 255).filter(lambda kind: kind not in (46, 53))


@many
@given(st.lists(st.tuples(kinds, st.binary(max_size=60)), max_size=40))
def test_chains(payloads):
    first, made = wire.chain(payloads)
    assert [(kind, bytes(body)) for kind, _, body in wire.payloads(first, made, 0)] == payloads


@many
@given(u16, octets, u8, st.binary(max_size=255))
def test_notifies(kind, data, protocol, spi):
    made = wire.notify(kind, data, protocol, spi)
    assert wire.parse_notify(made) == (kind, data, protocol, len(spi))


transform = st.tuples(u8, u16, st.integers(0, 0xFFFF))
a_proposal = st.tuples(u8, st.binary(max_size=8), st.lists(transform, max_size=24))


@many
@given(st.lists(a_proposal, min_size=1, max_size=8))
def test_proposals(proposals):
    made = wire.parse_sa(wire.sa_body(proposals))
    assert [entry[0] for entry in made] == list(range(1, len(proposals) + 1))
    assert [entry[1:] for entry in made] == proposals


@many
@given(st.lists(a_proposal, min_size=1, max_size=3), st.data())
def test_what_is_chosen_is_one_of_the_offer(offer, data):
    number = data.draw(st.integers(0, len(offer) - 1))
    protocol, _, transforms = offer[number]
    one = {kind: (kind, ident, bits) for kind, ident, bits in transforms}
    body = bytearray(wire.sa_body([(protocol, b"theirs", list(one.values()))]))
    body[4] = number + 1
    spi, picked = wire.chosen(offer, bytes(body), protocol)
    assert spi == b"theirs"
    assert picked == {kind: (ident, bits) for kind, ident, bits in one.values()}
    for kind, ident, bits in one.values():
        other = dict(one, **{})
        other[kind] = (kind, ident ^ 0x8000, bits)
        if other[kind] not in transforms:
            body = bytearray(wire.sa_body([(protocol, b"", list(other.values()))]))
            body[4] = number + 1
            with pytest.raises(wire.Drop):
                wire.chosen(offer, bytes(body), protocol)


addresses = st.sampled_from((4, 16)).flatmap(
    lambda n: st.tuples(st.binary(min_size=n, max_size=n), st.binary(min_size=n, max_size=n))
)


@many
@given(st.lists(addresses, max_size=8))
def test_selectors(selectors):
    made = wire.parse_ts(wire.ts_body(selectors))
    assert made == [(0, 0, 65535, first, last) for first, last in selectors]


@many
@given(u8, st.lists(st.tuples(st.integers(0, 0x7FFF), st.binary(max_size=40)), max_size=24))
def test_configurations(kind, attributes):
    assert wire.parse_cp(wire.cp_body(kind, attributes)) == (kind, attributes)


@many
@given(st.binary(max_size=300), u16, u16)
def test_inner_packets(payload, source_port, destination_port):
    for n in (4, 16):
        ends = bytes(range(n)), bytes(range(n, 2 * n))
        template = inner.header(*ends, source_port, destination_port)
        buf = bytearray(len(template) + len(payload))
        inner.complete(buf, 0, template, payload)
        assert inner.parse(memoryview(buf), *ends) == (source_port, destination_port, payload)


# Octets of no meaning


DECODERS = {
    "header": wire.parse_header,
    "notify": wire.parse_notify,
    "sa": wire.parse_sa,
    "ts": wire.parse_ts,
    "cp": wire.parse_cp,
    "outer chain": lambda view: wire.payloads(33, view, 28),
    "inner chain": lambda view: wire.payloads(41, view, 0),
    "choice": lambda view: wire.chosen([(1, b"", [(1, 16, 128), (2, 5, 0)])], view, 1),
}


def bent(seed, given):
    """The octets with a few of them changed: more often than not they get past the first check."""
    rng = random.Random(seed)
    made = bytearray(given)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(made))
        made[at] = rng.choice((0, 1, 4, 8, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(made[: rng.choice((len(made), len(made), rng.randrange(len(made) + 1)))])


@many
@given(octets, st.integers(0, 1 << 30))
def test_decoders_raise_nothing_but_drop(noise, seed):
    offer = [(1, b"", [(1, 16, 128), (2, 5, 0), (4, 31, 0)])] * 2
    good = (
        wire.sa_body(offer),
        wire.ts_body([(bytes(4), bytes(4)), (bytes(16), bytes(16))]),
        wire.cp_body(2, [(1, bytes(4)), (3, bytes(4))]),
        wire.notify(16388, bytes(20)),
        wire.chain([(33, bytes(20)), (41, bytes(8)), (43, b"")])[1],
    )
    for given_octets in (noise, *(bent(seed + i, body) for i, body in enumerate(good))):
        for decode in DECODERS.values():
            try:
                decode(memoryview(given_octets))
            except wire.Drop as drop:
                assert isinstance(drop.args[0], str)


def staged():
    """A sensor in each state, with the responder that knows its keys."""
    found = {"IDLE": (Node(profile(SECRETS), Rand(b"idle")), None)}
    node, gateway, _ = starting()
    found["IKE_SA_INIT"] = node, gateway
    gateway = Responder()
    gateway.notifies = [(FRAGMENTATION, b"")]
    node, gateway, _ = authenticating(gateway)
    found["IKE_AUTH"] = node, gateway
    found["UP"] = brought_up()
    node, gateway = brought_up()
    node.call(calls.delete)
    found["DELETING"] = node, gateway
    node, gateway = brought_up()
    node.receive(gateway.request(INFORMATIONAL, [(D, b"\1\0\0\0")]))
    found["DOWN"] = node, gateway
    assert all(node.state == state for state, (node, _) in found.items())
    return found


def feed(node, datagram):
    """Feed and assert what always holds."""
    before = node.state, sum(node.ike.drops.values()) + sum(node.drops.values())
    out = node.receive(datagram)
    after = node.state, sum(node.ike.drops.values()) + sum(node.drops.values())
    assert node.state in STATES and len(out) <= 3
    return before, after, out


@many
@given(octets, st.integers(0, 1 << 30))
def test_the_initiator_drops_noise_in_every_state(noise, seed):
    rng = random.Random(seed)
    for node, _ in STAGED.values():
        spis = node.ike.spi_i + node.ike.spi_r
        exchange, flags = rng.choice((34, 35, 36, 37, 43)), rng.choice((0, 0x20, 0x08, 0x28))
        for first in (0, 33, 41, 46, 53):
            head = spis + bytes((first, 0x20, exchange, flags, 0, 0, 0, rng.randrange(3)))
            size = (28 + len(noise)).to_bytes(4, "big")
            for datagram in (noise, MARKER + noise, head + size + noise):
                before, after, out = feed(node, datagram)
                assert after == (before[0], before[1] + 1) and out == []


STAGED = {}


@pytest.fixture(autouse=True)
def fresh():
    STAGED.update(staged())


@many
@given(u8, octets, st.integers(0, 3))
def test_any_plaintext_in_a_request_is_answered_once_and_ends_nothing_but_by_delete(
    first, plain, extra
):
    node, gateway = brought_up()
    exchange = (INFORMATIONAL, CREATE_CHILD_SA)[extra & 1]
    before, after, out = feed(node, gateway.seal(exchange, 0, 0, first, plain))
    assert len(out) <= 1
    if out:
        got = gateway.read(out[0])
        assert got[:3] == (exchange, 0x28, 0)
    if node.state != "UP":
        assert node.state == "DOWN" and node.all("deleted")


@many
@given(u8, octets)
def test_any_plaintext_in_the_answer_to_ike_auth_never_brings_us_up(first, plain):
    gateway = Responder()
    gateway.notifies = [(FRAGMENTATION, b"")]
    node, gateway, request = authenticating(gateway)
    gateway.read_auth(request)
    before, after, out = feed(node, gateway.seal(IKE_AUTH, R, 1, first, plain))
    assert node.state in ("IKE_AUTH", "DOWN") and not node.all("up")
    if node.state == "DOWN":
        assert len(node.all("failed")) == 1


@many
@given(st.integers(0, 1 << 30))
def test_a_bent_plaintext_of_ike_auth_ends_as_a_named_failure(seed):
    rng = random.Random(seed)
    node, gateway, request = authenticating()
    gateway.read_auth(request)
    gateway.child_keys()
    good = gateway.auth_payloads()
    i = rng.randrange(2, len(good))  # IDr and AUTH stay
    payloads = [*good[:i], (good[i][0], bent(seed, good[i][1])), *good[i + 1 :]]
    feed(node, gateway.send(IKE_AUTH, R, 1, payloads))
    assert node.state in ("UP", "DOWN")
    assert len(node.all("up")) + len(node.all("failed")) == 1
    for _, kind, detail, *_ in node.all("failed"):
        assert (kind, isinstance(detail, str)) == ("peer", True)


@many
@given(octets, st.integers(0, 1 << 30), u8)
def test_the_receiver_names_what_it_does_not_take(noise, sn, next_header):
    into = receiver()
    for packet in (noise, into.spi + noise, into.spi + sn.to_bytes(4, "big") + noise):
        assert isinstance(into.open(packet), str)
    size = len(noise) + -(len(noise) + 2) % 4
    inside = noise.ljust(size, b"\0")
    assert isinstance(into.open(sealed(inside, sn + 1, next_header)), str)


@many
@given(st.lists(st.integers(0, 200), max_size=60), st.sampled_from((1, 16, 32, 64, 128)))
def test_the_replay_window_lets_each_number_in_once(numbers, size):
    window = ReplayWindow(size)
    seen = set()
    top = 0
    for sn in numbers:
        good = sn > 0 and sn not in seen and top - sn < size
        assert window.check(sn) == good, (sn, top)
        if good:
            window.commit(sn)
            seen.add(sn)
            top = max(top, sn)


# Whatever happens, in whatever order


EVENTS = (
    "cookie", "invalid ke", "refusal", "init", "init again", "noise", "reflect", "timer",
    "time", "auth", "auth bad", "auth refused", "liveness", "delete", "create", "check",
    "our delete", "answer", "esp", "marker", "fragment",
)  # fmt: skip


class Life:
    """One sensor, and a network on which the events of a list happen in their order."""

    def __init__(self):
        self.node, self.gateway, self.request = starting(
            Responder(), ike=["aes128ccm16-prfsha256-x25519", "aes128ccm8-prfsha256-x25519"]
        )
        self.gateway.notifies = [(FRAGMENTATION, b"")]
        self.gateway.read_init(self.request)
        self.now = 0
        self.sent = 1

    def happen(self, event, seed):
        node, gateway = self.node, self.gateway
        keys = hasattr(gateway, "sk_d")
        datagram = None
        if event == "cookie":
            datagram = gateway.refuse_init(self.request, notify(COOKIE, b"c%d" % seed))
        elif event == "invalid ke":
            group = (31, 19, 14)[seed % 3]
            datagram = gateway.refuse_init(self.request, notify(17, group.to_bytes(2, "big")))
        elif event == "refusal":
            datagram = gateway.refuse_init(self.request, notify(14))
        elif event in ("init", "init again"):
            datagram = gateway.init(self.request)
        elif event == "noise":
            datagram = bent(seed, node.out[seed % len(node.out)])
        elif event == "reflect":
            datagram = node.out[seed % len(node.out)]
        elif event == "timer":
            self.now = max(self.now, node.ike.next_timer() or 0)
            return node.timer(self.now)
        elif event == "time":
            self.now += seed % 20_000
            return node.timer(self.now)
        elif event == "check":
            return node.call(calls.check, self.now)
        elif event == "our delete":
            return node.call(calls.delete, self.now)
        elif event == "marker":
            datagram = MARKER
        elif not keys:
            return []
        elif event.startswith("auth"):
            try:
                gateway.read_auth(node.out[-1])
            except AssertionError:
                return []
            gateway.child_keys()
            payloads = gateway.auth_payloads()
            if event == "auth bad":
                payloads[1] = (payloads[1][0], b"\2\0\0\0" + bytes(32))
            if event == "auth refused":
                payloads = payloads[:2] + [notify(38)]
            datagram = gateway.send(IKE_AUTH, R, 1, payloads)
        elif event == "liveness":
            datagram = gateway.send(INFORMATIONAL, 0, seed % 3, [])
        elif event == "delete":
            datagram = gateway.send(INFORMATIONAL, 0, seed % 3, [(D, b"\1\0\0\0")])
        elif event == "create":
            datagram = gateway.send(CREATE_CHILD_SA, 0, seed % 3, [(N, b"")])
        elif event == "answer":
            datagram = gateway.send(INFORMATIONAL, R, 2 + seed % 3, [])
        elif event == "esp" and node.receiver:
            datagram = node.receiver.spi + bytes(40)
        elif event == "fragment":
            datagram = gateway.seal(IKE_AUTH, R, 1, 36, bytes(seed % 90))
            datagram = datagram[:20] + b"\x35" + datagram[21:]
        if datagram is None:
            return []
        return node.receive(datagram, self.now)


@settings(parent=many, max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 1 << 20)), max_size=25))
def test_a_life_of_any_events_keeps_its_word(events):
    life = Life()
    node = life.node
    allowed = {
        "IDLE": ("IKE_SA_INIT",),
        "IKE_SA_INIT": ("IKE_AUTH", "DOWN"),
        "IKE_AUTH": ("UP", "DOWN"),
        "UP": ("DELETING", "DOWN"),
        "DELETING": ("DOWN",),
        "DOWN": (),
    }
    for event, seed in events:
        was = node.state
        out = life.happen(event, seed)
        assert len(out) <= 3, event
        if was == "DOWN":
            assert out == [] and node.state == "DOWN"
        for datagram in out:
            assert datagram[:4] == MARKER or datagram[:8] == node.ike.spi_i
        if out and node.state == "IKE_SA_INIT":
            life.request = out[-1]
            life.gateway.read_init(life.request)
    states = ["IDLE"] + [event[1] for event in node.all("state")]
    for before, after in zip(states, states[1:], strict=False):
        assert after in allowed[before], states
    assert len(node.all("up")) == states.count("UP") <= 1
    assert len(node.all("failed")) <= 1
    if node.state == "DOWN":
        assert node.ike.next_timer() is None
