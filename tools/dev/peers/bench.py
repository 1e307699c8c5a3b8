"""The firmware's IKE SA on a bench: a scripted peer that makes and reads any message by hand.

The peer is this file and messages.py, and shares nothing with firmware/ but the cipher's
shape. Ciphers are the simulation's null cipher unless a test asks for AES-CCM.
"""

import struct
from typing import NamedTuple

from minipsec.ike.sa import IkeSa

from tools.dev.peers import messages
from tools.dev.sim.null import Null

AUTH, CREATE_CHILD_SA, INFORMATIONAL, INTERMEDIATE = 35, 36, 37, 43
UP = 4
I, R = 0x08, 0x20
N, VENDOR, SK, SKF = 41, 43, 46, 53
SUPPORTED, REQ, RES = 50201, 50202, 50203
MARKER = bytes(4)

PROFILE = {
    "port": 4500,
    "natt_port": 4500,
    "fragment_size": 200,
    "fragment_gap_ms": 2,
    "frag_ack": "02",
    "frag_ack_policy": "eager",
    "retransmit_ms": 1000,
    "retransmit_tries": 5,
}


class Message(NamedTuple):
    """What one datagram of the sensor says. `number` and `total` are 0 in an SK payload."""

    payload: int
    exchange: int
    flags: int
    mid: int
    number: int
    total: int
    first: int
    iv: bytes
    plain: bytes


class Sensor(IkeSa):
    """An IkeSa that keeps what its handlers get: `requests` and `responses` as (exchange, octets).

    Each request is answered by `answer`, a list of payloads.
    """

    def __init__(self, profile, rand):
        super().__init__(profile, rand)
        self.requests = []
        self.responses = []
        self.answer = []
        self.table = {}
        for exchange in (AUTH, CREATE_CHILD_SA, INFORMATIONAL, INTERMEDIATE):
            self.table[UP, exchange, True] = "on_response"
            self.table[UP, exchange, False] = "on_request"

    def handle(self, name, payloads, now):
        return getattr(self, name)(payloads, now)

    def on_response(self, payloads, now):
        self.responses.append([(kind, bytes(body)) for kind, _, body in payloads])
        self.answer_came(now)

    def on_request(self, payloads, now):
        self.requests.append([(kind, bytes(body)) for kind, _, body in payloads])
        return self.answer


class Bench:
    """A sensor in the middle of an IKE SA, and the peer's side of it.

    `now` is the clock; `send` and `wait` move it and return what the sensor sent, as datagrams.
    """

    def __init__(self, acks=True, fragmentation=True, rtt=100, ciphers=None, state=UP, **profile):
        self.profile = {**PROFILE, **profile}
        self.now = 1000
        self.iv = 0
        sa = self.sa = Sensor(self.profile, lambda n: bytes(range(1, n + 1)))
        sa.state = state
        sa.spi_r = bytes(range(101, 109))
        sa.fragmentation = fragmentation
        sa.room = self.profile["fragment_size"] - 28
        sa.rtt = rtt
        sa.use(*(ciphers[0] if ciphers else (Null(), Null())))
        self.opener, self.sealer = ciphers[1] if ciphers else (Null(), Null())
        sa.acks = acks
        self.spis = sa.spi_i + sa.spi_r

    # The clock and the wire.

    def out(self):
        """Every datagram that the sensor has to send."""
        sent = []
        while (datagram := self.sa.poll_out()) is not None:
            sent.append(bytes(datagram))
        return sent

    def send(self, *datagrams, after=0):
        """Deliver datagrams, `after` ms from one to the next."""
        sent = []
        for datagram in datagrams:
            self.sa.receive(datagram, self.now)
            sent += self.out()
            self.now += after
        return sent

    def wait(self, ms):
        """Let time pass, with the sensor's timer; return what it sent."""
        until = self.now + ms
        sent = []
        while (due := self.sa.next_timer()) is not None and due <= until:
            self.now = max(self.now, due)
            self.sa.timer(self.now)
            sent += self.out()
        self.now = until
        return sent

    def request(self, octets=0, exchange=INFORMATIONAL):
        """Have the sensor make a request with one payload of so many octets."""
        body = bytes(i & 255 for i in range(octets))
        assert self.sa.ask(exchange, [(VENDOR, body)] if octets else [], self.now)
        return self.out()

    @property
    def drops(self):
        return self.sa.drops

    # What the peer says.

    def seal(self, payload, exchange, flags, mid, first, plain, place=b"", clear=()):
        """One datagram; `clear` are unprotected payloads (type, body) in front."""
        self.iv += 1
        iv = struct.pack(">Q", self.iv)
        return MARKER + messages.protected(
            self.spis[:8], self.spis[8:], exchange, flags, mid, first,
            self.sealer.size(len(plain)), lambda aad: bytes(self.sealer.seal(aad, iv, plain)),
            kind=payload, place=place, outer=clear,
        )  # fmt: skip

    def message(self, payloads, exchange=INFORMATIONAL, mid=0, flags=R):
        """A whole message in an SK payload."""
        first, plain = messages.payload_chain(payloads)
        return self.seal(SK, exchange, flags, mid, first, plain)

    def fragment(self, number, total, plain, first=0, exchange=INFORMATIONAL, mid=0, flags=R,
                 clear=()):  # fmt: skip
        place = struct.pack(">HH", number, total)
        return self.seal(SKF, exchange, flags, mid, first, plain, place, clear)

    def fragments(self, payloads, count, **where):
        """A whole message in `count` fragments."""
        first, plain = messages.payload_chain(payloads)
        size = -(-len(plain) // count)
        pieces = [plain[at : at + size] for at in range(0, len(plain), size)]
        assert len(pieces) == count
        return [
            self.fragment(n, count, piece, 0 if n > 1 else first, **where)
            for n, piece in enumerate(pieces, 1)
        ]

    def ack(self, *pairs, kind=REQ, data=None, protocol=0, spi=b"", beside=(), **where):
        """A FRAGMENT_ACK message that names `pairs` as missing."""
        if data is None:
            data = b"".join(struct.pack(">HH", *pair) for pair in pairs)
        return self.message([messages.notify(kind, data, protocol, spi), *beside], **where)

    # What the sensor says.

    def read(self, datagram):
        assert datagram[:4] == MARKER
        message = datagram[4:]
        assert message[:16] == self.spis
        _, _, payload, version, exchange, flags, mid, length = messages.parsed(message)
        first, _, size = struct.unpack_from(">BBH", message, 28)
        assert version == 0x20 and length == len(message) and size == length - 28
        aad = 36 if payload == SKF else 32
        number, total = struct.unpack_from(">HH", message, 32) if payload == SKF else (0, 0)
        plain = self.opener.open(message[:aad], message[aad:])
        assert plain is not None
        iv = message[aad : aad + 8]
        return Message(payload, exchange, flags, mid, number, total, first, iv, bytes(plain))

    def numbers(self, datagrams):
        """The fragment numbers of these datagrams."""
        return [self.read(datagram).number for datagram in datagrams]

    def asked(self, datagrams):
        """[(notify type, [pair])] of the acknowledgments among these datagrams."""
        found = []
        for message in map(self.read, datagrams):
            if message.payload == SK and message.first == N:
                kind = int.from_bytes(message.plain[6:8], "big")
                if kind in (REQ, RES):
                    found.append((kind, pairs_of(message.plain[8:])))
        return found


def pairs_of(data):
    numbers = struct.unpack(f">{len(data) // 2}H", data)
    return list(zip(numbers[::2], numbers[1::2]))


def octets(count):
    """The body of one payload that a message in `count` fragments carries."""
    return bytes(7 * i & 255 for i in range(20 * count - 4))
