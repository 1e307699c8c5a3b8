"""What a fuzzer feeds: octets in, and an AssertionError when something happened that must not.

`check(octets)` takes any octets. The first says what the rest is, the second where it arrives:

    stranger   a datagram at one step of a recorded session: dropped and counted, nothing else;
               before there are keys it may end in one more request, never in a tunnel
    plaintext  what a gateway that has the keys protects: no exception, bounded in each way
    esp        the same inside of ESP
    turns      many datagrams, timers and genuine ones in turn, at one SA
    codec      octets into each decoder, and a snapshot out of flash

Each call may allocate so much and no more.
"""

import struct
import tracemalloc

from tools.dev.peers.stage import IN_STATE, UNDER_KEYS, picture
from tools.dev.peers.node import profile, remember_exchanges
from tools.dev.peers.responder import CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL, R
from tools.dev.peers.replay import Replay, load, names
from minipsec import refusals, explain
from minipsec.crypto import cbc
from minipsec.esp import inner, snapshot
from minipsec.handshake import intermediate, ppk
from minipsec.ike import established, fragack, fragment, wire
from minipsec.ike.wire import Drop

# What one datagram may make the core allocate at its peak, beyond what it then keeps: a few
# copies of it, and the work space of AES-CCM. CPython's objects are several times a board's.
OCTETS = 48 * 1024
HANDSHAKE_OCTETS = 512 * 1024  # a key exchange in Python integers
SENT = 24  # datagrams that one may bring forth
LARGEST = 4096
_IKE_SA_INIT = 34


class Steps:
    """Recorded sessions, each with a Replay at one of its incoming datagrams."""

    def __init__(self):
        self.restore = remember_exchanges()
        self.places = []
        self.genuine = set()
        self._at = {}
        for name in names():
            if name == "charon-invalid-ke":
                continue  # P-256 in Python is slow
            session = load(name)
            replay = Replay(session)
            for index in replay.inputs:
                self.places.append((session, index))
                self.genuine.add(_unmarked(replay.datagram(index)))

    def replay(self, number):
        number %= len(self.places)
        if number not in self._at:
            session, index = self.places[number]
            self._at[number] = Replay(session).to(index)
        return self._at[number]

    def spoil(self, number):
        """The replay at this place was moved: make it anew next time."""
        self._at.pop(number % len(self.places), None)


_steps = None


def steps():
    global _steps
    if _steps is None:
        _steps = Steps()
    return _steps


class Allocating:
    """Assert that a block allocates at most so many octets at its peak; every n-th time.

    Tracing costs more than all that it watches.
    """

    every = 4
    _count = 0

    def __init__(self, limit):
        self.limit = limit

    def __enter__(self):
        Allocating._count += 1
        self.traced = Allocating._count % self.every == 0
        if self.traced:
            tracemalloc.start()

    def __exit__(self, kind, *_):
        if self.traced:
            taken = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert kind or taken <= self.limit, f"{taken} octets at the peak"


def stranger(where, data):
    """A datagram that nobody protected, at a step of a recorded session."""
    if _unmarked(data) in steps().genuine:
        return  # the marker is not part of what is protected
    replay = steps().replay(where)
    node = replay.node
    now = replay.steps[replay.at][1]
    before, counted = picture(node), _counted(node)
    early = node.state == "IKE_SA_INIT"
    with Allocating(HANDSHAKE_OCTETS if early else OCTETS):
        out = node.receive(data, now)
    if not out and picture(node) == before:
        assert _counted(node) == counted + 1
        return
    steps().spoil(where)
    if len(node.events) > 0 and node.events[-1][0] == "hint":
        assert not out and node.state == "IKE_SA_INIT"
        return
    # Nobody can tell a forged IKE_SA_INIT answer from a genuine one.
    assert early and node.state in ("IKE_SA_INIT", "IKE_AUTH"), node.state
    assert 0 < len(out) <= SENT and not node.all("up") and not node.all("failed")


def _unmarked(datagram):
    return datagram[4:] if datagram[:4] == bytes(4) else datagram


def _counted(node):
    return sum(node.ike.drops.values()) + sum(node.drops.values())


_STATES = [state for state in UNDER_KEYS if state != "IKE_INTERMEDIATE"]
_made = {}


def _in_state(state):
    """A node and its gateway in a state, kept until a datagram changed more than a counter."""
    if state not in _made:
        node, gateway = IN_STATE[state]()
        node.ike.fragmentation = True  # as it is with most gateways
        _made[state] = node, gateway
    return _made[state]


def _bounded(node, out):
    ike = node.ike
    assert len(out) <= SENT
    assert sum(queue.octets for queue in ike.incoming.values()) <= fragment.MAX_OCTETS
    assert node.state in ("IKE_AUTH", "UP", "DELETING", "DOWN"), node.state
    for event in node.events:
        if event[0] in ("failed", "deleted"):
            assert isinstance(explain.failure(event), refusals.MinipsecError)
    due = ike.next_timer()
    assert due is None or due >= 0


def plaintext(where, data):
    """What comes under the right keys: first payload, exchange, flags and place are fuzzed, too."""
    if len(data) < 4:
        return
    state = _STATES[where % len(_STATES)]
    node, gateway = _in_state(state)
    response = bool(data[0] & 1)
    exchange = (IKE_AUTH, INFORMATIONAL, CREATE_CHILD_SA, data[0])[data[0] >> 1 & 3]
    mid = node.ike.mid if response else node.ike.peer_mid
    chain = data[1], data[4:]
    options = {"pad_length": 0}
    if data[0] & 0x10:
        options = {"kind": 53, "place": struct.pack(">HH", data[2], data[3])}
    datagram = gateway.bend(exchange, R if response else 0, mid, chain=chain, **options)
    before = picture(node.ike)
    with Allocating(OCTETS):
        out = node.receive(datagram, 0)
    _bounded(node, out)
    if picture(node.ike) != before:
        del _made[state]


def esp(where, data):
    """What comes inside of ESP: padding, next header and all."""
    node, gateway = _in_state("UP")
    padding = -len(data) & 3
    text = data + bytes(padding)
    gateway.sn += 1 + where % 64
    iv = struct.pack(">Q", gateway.sn)
    head = gateway.spi_sensor + struct.pack(">I", gateway.sn)
    got = len(node.got)
    with Allocating(OCTETS):
        out = node.receive(head + iv + gateway._esp_out.seal(iv, text, head), 0)
    assert out == [] and len(node.got) <= got + 1
    assert all(isinstance(payload, bytes) for payload in node.got[got:])
    del node.got[got:]


def turns(where, data):
    """Many datagrams at one SA: strange ones, protected ones, and time that passes."""
    state = _STATES[where % len(_STATES)]
    node, gateway = IN_STATE[state]()
    node.ike.fragmentation = True
    now = at = sent = 0
    while at + 2 <= len(data) and at < LARGEST:
        op, size = data[at], data[at + 1]
        piece = data[at + 2 : at + 2 + size]
        at += 2 + size
        out = []
        if op < 64:
            out = node.receive(piece, now)
        elif op < 96:
            head = struct.pack(">8s8s", node.ike.spi_i, node.ike.spi_r)
            out = node.receive(bytes(4) + head + piece, now)
        elif op < 192:
            response = op & 1
            exchange = (IKE_AUTH, INFORMATIONAL, CREATE_CHILD_SA, 43)[op >> 1 & 3]
            options = {}
            if op & 8 and len(piece) >= 4:
                options = {"kind": 53, "place": bytes((0, piece[2], 0, piece[3]))}
            mid = node.ike.mid if response else node.ike.peer_mid
            chain = (piece[0] if piece else 0), piece[4:]
            datagram = gateway.bend(exchange, R * response, mid, chain=chain, **options)
            out = node.receive(datagram, now)
        elif op < 224:
            now += size * size
            due = node.ike.next_timer()
            if due is not None and due <= now:
                out = node.timer(now)
        elif op < 240:
            out = node.call(established.check if op & 1 else established.delete, now)
        elif node.sender and node.state == "UP":
            packet = node.send(piece, now)
            assert packet is None or len(packet) <= 1300
        _bounded(node, out)
        sent += len(out)
    assert sent <= 64 + at


_DECODERS = (
    lambda data: wire.parse_header(data),
    lambda data: wire.payloads(data[0] if data else 0, memoryview(data), 0),
    lambda data: wire.payloads(33, memoryview(bytes(28) + data), 28),
    lambda data: wire.parse_notify(data),
    lambda data: wire.parse_sa(data),
    lambda data: wire.parse_ts(data),
    lambda data: wire.parse_cp(data),
    lambda data: fragack.decode(data, 64),
    lambda data: inner.parse(data, None, bytes(4)),
    lambda data: inner.parse_udp(data),
    lambda data: snapshot.load(_profile("mark"), _Memory(data), 0, 10**12),
    lambda data: snapshot.load(_profile("clock"), _Memory(data), 0, 10**12),
)
_checked = {}


def _profile(sleep):
    if sleep not in _checked:
        _checked[sleep] = profile(sleep=sleep)
    return _checked[sleep]


class _Memory:
    """What a sleep left behind, or somebody put there."""

    def __init__(self, data):
        half = len(data) // 2
        self._pieces = {"bin": data[:half], "mark": data[half:]}

    def read(self, name):
        return self._pieces[name]


def codec(where, data):
    """Octets into a decoder: a value, `Drop`, or a snapshot `Refused`."""
    with Allocating(OCTETS):
        try:
            _DECODERS[where % len(_DECODERS)](data)
        except (Drop, snapshot.Refused) as reason:
            assert reason.args[0].isupper()


KINDS = (stranger, plaintext, esp, turns, codec)


def check(octets):
    """Run one input."""
    if len(octets) >= 2:
        KINDS[octets[0] % len(KINDS)](octets[1], bytes(octets[2 : 2 + LARGEST]))


def corpus():
    """Yield inputs that real sessions give."""
    made = steps()
    for number in range(min(len(made.places), 256)):
        session, index = made.places[number]
        replay = Replay(session)
        yield bytes((0, number)) + replay.datagram(index)
        yield bytes((4, number)) + replay.datagram(index)[28:]
    for state in range(len(_STATES)):
        for first, body in PLAIN:
            for flags in (0, 1, 2, 3, 4, 0x12, 0x13):
                yield bytes((1, state, flags, first, 1, 1)) + body
                yield bytes((3, state, 100 | flags, 4 + len(body), first, 0, 1, 2)) + body
    for packet in INSIDE:
        yield bytes((2, 0)) + packet


_TELLING = (0, 1, 2, 3, 4, 8, 0x10, 0x20, 0x28, 0x7F, 0x80, 0xFE, 0xFF)


def bent(random, seeds):
    """Return a seed of which some octets are others, that lost, got or swapped a piece."""
    seed = random.choice(seeds)
    made = bytearray(seed)
    for _ in range(random.choice((0, 1, 1, 2, 3, 6))):
        at = random.randrange(1, len(made) + 1)
        change = random.randrange(6)
        if change == 0:
            made[at : at + 1] = bytes((random.choice(_TELLING),))
        elif change == 1:
            made[at : at + 1] = (
                bytes((made[at] ^ 1 << random.randrange(8),)) if at < len(made) else b""
            )
        elif change == 2:
            del made[at : at + random.randrange(1, 40)]
        elif change == 3:
            made[at:at] = random.randbytes(random.randrange(24))
        elif change == 4:
            other = random.choice(seeds)
            start = random.randrange(len(other))
            made[at : at + 8] = other[start : start + random.randrange(1, 64)]
        else:
            made[at : at + 2] = random.choice((0, 1, 4, 8, 28, 255, 65535)).to_bytes(2, "big")
    if not random.randrange(16):
        made[2:] = random.randbytes(random.randrange(600))
    made[0] = seed[0]
    return bytes(made)


def _padded(packet, kind):
    pad = -(len(packet) + 2) & 3
    return packet + bytes(range(1, pad + 1)) + bytes((pad, kind))


def _packet(payload):
    template = inner.header(bytes((10, 3, 0, 10)), bytes((10, 9, 0, 1)), 5000, 5000)
    packet = bytearray(len(template) + len(payload))
    inner.complete(packet, 0, template, payload)
    return bytes(packet)


INSIDE = [
    _padded(_packet(b"downlink"), 4),
    _padded(_packet(b""), 4),
    _padded(b"", 59),
    _padded(b"\x60" + bytes(50), 41),
]
# (first payload type, chain): DELETE, notifies, fragment acknowledgments, traffic selectors.
PLAIN = [
    (0, b""),
    (42, struct.pack(">BBHBBH", 0, 0, 8, 1, 0, 0)),
    (42, struct.pack(">BBHBBH", 0, 0, 12, 3, 4, 1) + b"\xc0\xff\xee\x01"),
    (41, struct.pack(">BBHBBH", 0, 0, 8, 0, 0, 14)),
    (41, struct.pack(">BBHBBHHH", 0, 0, 12, 0, 0, 50203, 1, 2)),
    (41, struct.pack(">BBHBBH", 0, 0, 8, 3, 4, 16393)),
    (44, struct.pack(">BBHB3xBBHHH", 0, 0, 24, 1, 7, 0, 16, 0, 65535) + bytes(4) + b"\xff" * 4),
    (33, struct.pack(">BBH", 36, 0, 4) + struct.pack(">BBH", 39, 0, 8) + b"\2\0\0\0" + bytes(4)),
]
