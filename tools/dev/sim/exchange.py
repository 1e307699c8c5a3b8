"""One exchange with n fragments each way, over a bad link: the firmware against a responder.

What is measured starts when the first fragment of the request leaves and ends when the
response is whole. Both ends know the round trip from IKE_SA_INIT, which is not part of it.
"""

import random
from dataclasses import dataclass, field

from minipsec.ike.sa import IkeSa

from .link import Link, nothing
from .null import Null
from .responder import Policy, Responder
from .world import Port, World

IKE_INTERMEDIATE = 43
_S_INTERMEDIATE = 2
_N = 41
VENDOR = 43
SIZE = 200  # octets of an IP datagram with a fragment
PIECE = SIZE - 28 - 4 - 36 - Null().size(0)
RTT_MS = 100
UDP_IP = 28

PROFILE = {
    "port": 4500,
    "natt_port": 4500,
    "fragment_size": SIZE,
    "fragment_gap_ms": 2,
    "frag_ack": "02",
    "frag_ack_policy": "eager",
    "retransmit_ms": 1000,
    "retransmit_tries": 5,
}
GIVE_UP_MS = 31000


class Initiator(IkeSa):
    """The firmware's IKE SA with one exchange to make."""

    def __init__(self, profile, rand, rtt):
        super().__init__(profile, rand)
        self.table = {(_S_INTERMEDIATE, IKE_INTERMEDIATE, True): "on_response"}
        self.state = _S_INTERMEDIATE
        self.fragmentation = True
        self.room = profile["fragment_size"] - UDP_IP
        self.spi_r = bytes(rand(8))
        self.rtt = rtt
        self.done = self.failed = False
        self.joined = None
        self.use(Null(), Null())
        self.acks = profile["frag_ack"] != "off"

    def handle(self, name, payloads, now):
        return getattr(self, name)(payloads, now)

    def on_response(self, payloads, now):
        self.joined = b"".join(bytes(body) for _, _, body in payloads)
        self.answer_came(now)
        self.done = True

    def fail(self, kind, detail):
        super().fail(kind, detail)
        self.failed = True


def body(fragments):
    """Octets of one payload that make so many fragments."""
    return bytes(i & 255 for i in range(fragments * PIECE - 4))


@dataclass
class Result:
    success: bool
    ms: float
    datagrams: int
    octets: int
    acks: int
    drops: dict = field(default_factory=dict)


def profile(mode, **changes):
    """The profile of a mode of the benchmark: rfc7383, conservative or eager."""
    ack = {"frag_ack": "off"} if mode == "rfc7383" else {"frag_ack_policy": mode}
    return {**PROFILE, **ack, **changes}


def run(mode, fragments, seed, loss=None, rtt=RTT_MS, jitter=4.0, gap_ms=2, peer_gap_ms=None,
        known_rtt=None, first_timer=True, copies=True, changes=None, tap=None, **bend):  # fmt: skip
    """Make one exchange; return a `Result`.

    `loss(rng)` makes one direction's loss. The responder paces its fragments by `peer_gap_ms`, or
    as we do. `known_rtt` is what both ends take the round
    trip for, as measured in IKE_SA_INIT; with `first_timer` False our timer starts at
    retransmit_ms all the same; with `copies` False each acknowledgment is sent once. `bend`
    goes to both links.
    """
    rng = random.Random(f"{mode} {fragments} {seed}")
    world = World()
    delay = (rtt - jitter) / 2
    ways = []
    for _ in range(2):
        way = random.Random(rng.random())
        lost = loss(way) if loss else nothing
        ways.append(Link(way, delay, jitter, lost, **bend))
    if known_rtt is None:
        known_rtt = rtt
    p = profile(mode, fragment_gap_ms=gap_ms, **(changes or {}))
    initiator = Initiator(p, rng.randbytes, known_rtt)
    if not first_timer:
        initiator.first_interval = lambda ms, datagrams: ms
    if not copies:
        send = initiator.send
        initiator.send = lambda sent, reply=False: send(list(dict.fromkeys(sent)), reply)
    octets = body(fragments)
    policy = Policy("off" if mode == "rfc7383" else mode, known_rtt, gap_ms)
    plain = b"\0\0" + (len(octets) + 4).to_bytes(2, "big") + octets
    responder = Responder(
        initiator.spi_i, initiator.spi_r, IKE_INTERMEDIATE, 0, (Null(), Null()),
        (VENDOR, plain), PIECE, policy,
    )  # fmt: skip
    responder.copies = copies
    acks = 0

    def count(now, datagram):
        nonlocal acks
        acks += datagram[20] == 46
        if tap:
            tap("initiator", now, datagram)

    near = Port(world, initiator, gap_ms, count)
    far = Port(
        world,
        responder,
        gap_ms if peer_gap_ms is None else peer_gap_ms,
        tap and (lambda now, datagram: tap("responder", now, datagram)),
    )
    near.connect(ways[0], far)
    far.connect(ways[1], near)
    initiator.ask(IKE_INTERMEDIATE, [(VENDOR, octets)], 0)
    near.pump()
    world.run(2 * GIVE_UP_MS, lambda: initiator.done or initiator.failed)
    if initiator.done:
        assert initiator.joined == octets and responder.joined[4:] == octets
    datagrams = sum(way.sent for way in ways)
    return Result(
        initiator.done, world.now, datagrams,
        sum(way.octets for way in ways) + UDP_IP * datagrams, acks + responder.acks,
        {"initiator": initiator.drops, "responder": responder.drops},
    )  # fmt: skip


def limit(fragments, seed, loss=None, rtt=RTT_MS, jitter=4.0, gap_ms=2):
    """The same for an oracle: each datagram that is lost is sent again one round trip later.

    It knows at once what was lost, needs no acknowledgment, and never sends in vain.
    """
    rng = random.Random(f"limit {fragments} {seed}")
    now = 0.0
    datagrams = octets = 0
    size = SIZE - UDP_IP
    for _ in range(2):
        way = random.Random(rng.random())
        link = Link(way, (rtt - jitter) / 2, jitter, loss(way) if loss else nothing)
        last = now
        burst = [now + gap_ms * i for i in range(fragments)]
        while burst and burst[0] < GIVE_UP_MS:
            free = 0.0
            again = []
            for due in burst:
                time = max(due, free)
                free = time + gap_ms
                arrived = link.carry(bytes(size), time)
                if arrived:
                    last = max(last, arrived[0][0])
                else:
                    again.append(time + rtt)
            burst = again
        if burst:
            return Result(False, GIVE_UP_MS, datagrams, octets, 0)
        now = last
        datagrams += link.sent
        octets += link.octets
    return Result(True, now, datagrams, octets + UDP_IP * datagrams, 0)
