"""A whole handshake in the simulation: the firmware's IkeSa against the development gateway.

Both sides are the real ones, ciphers included; neither shares code with the other. Loss
begins with the first fragment, since IKE_SA_INIT can be neither split nor acknowledged, or with
the first datagram of all where `from_start` asks for it.
"""

import functools
import random
from dataclasses import dataclass, field

from tools.devgateway import Config, Endpoint, Gateway, Secrets

from minipsec.handshake import sa_init

from tools.dev.peers.node import SECRETS, Node, Rand, profile

from .link import Link, nothing
from .world import Port, World

SENSOR = {natt: Endpoint("10.77.0.2", 40500, natt, "10.77.0.1", 4500 if natt else 500)
          for natt in (False, True)}  # fmt: skip
GATEWAY = bytes((10, 77, 0, 1))
MARKER = bytes(4)
SKF, SK = 53, 46


class Sensor(Node):
    """A node of core/ as a party of the simulation."""

    def __init__(self, p, rand):
        super().__init__(p, rand)
        self.when = {}  # of the first event of each name
        self.next_timer = self.ike.next_timer
        self.poll_out = self.ike.poll_out

    def receive(self, datagram, now):
        self.ike.receive(datagram, now)
        self._take_events(now)

    def timer(self, now):
        self.ike.timer(now)
        self._take_events(now)

    def _take_events(self, now):
        while (event := self.ike.next_event()) is not None:
            self.events.append(event)
            self.when.setdefault(event[0], now)


class Responder:
    """The gateway as a party of the simulation."""

    def __init__(self, **settings):
        self.events = []
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        self.gateway = Gateway(
            _config(**settings),
            Rand(b"gateway"),
            lambda name, fields: self.events.append((name, fields)),
        )
        self.next_timer = self.gateway.next_timer
        self._out = []

    def receive(self, datagram, now):
        end = SENSOR[datagram[:4] == MARKER]
        self._out += [data for data, _ in self.gateway.receive(datagram, end, now)]

    def timer(self, now):
        self._out += [data for data, _ in self.gateway.timer(now)]

    def poll_out(self):
        return self._out.pop(0) if self._out else None


@functools.cache
def _config(**settings):
    return Config(Secrets({"any": SECRETS["psk"]}), **settings)


@dataclass
class Handshake:
    """A finished run: the two sides, when it ended, and [(side, ms, datagram)] of all sent.

    `ways` are the links from and to the sensor.
    """

    sensor: Sensor
    gateway: Responder
    ms: float
    sent: list = field(repr=False)
    ways: tuple = field(repr=False)

    @property
    def up(self):
        return any(event[0] == "up" for event in self.sensor.events)


def run(seed, loss=None, policy="eager", settings=None, until=40000, gap_ms=2, rtt=100, bend=None,
        from_start=False, **changes):  # fmt: skip
    """Bring an SA up; `changes` go into the sensor's profile, `settings` to the gateway.

    `loss(rng)` makes one direction's loss, or a pair of such the one's from the sensor and the
    one's to it; `bend` goes to both links, or is such a pair as well.
    """
    rng = random.Random(f"handshake {seed}")
    world = World()
    values = {
        "port": 4500, "fragment_size": 128, "fragment_gap_ms": gap_ms, "frag_ack_policy": policy,
    }  # fmt: skip
    checked = profile(**{**values, **changes})
    sensor = Sensor(checked, Rand(b"sensor %d" % seed))
    settings = {
        "fragment_size": 128, "fragment_gap_ms": gap_ms, "frag_ack": policy, "ack_gap_ms": 25,
        **(settings or {}),
    }  # fmt: skip
    responder = Responder(**settings)
    sent = []
    lossy = from_start

    def tap(side):
        def note(now, datagram):
            nonlocal lossy
            lossy = lossy or (datagram[20] == SKF and datagram[:4] == MARKER)
            sent.append((side, now, bytes(datagram)))

        return note

    def late(lost):
        return lambda now: lossy and lost(now)

    ends = Port(world, sensor, gap_ms, tap("sensor")), Port(world, responder, 0, tap("gateway"))
    losses = loss if isinstance(loss, tuple) else (loss, loss)
    bends = bend if isinstance(bend, tuple) else (bend, bend)
    for here, there, make, more in zip(ends, ends[::-1], losses, bends):
        way = random.Random(rng.random())
        lost = make(way) if make else nothing
        here.connect(Link(way, (rtt - 4) / 2, 4.0, late(lost), **(more or {})), there)
    sensor.ike.start(0, sa_init.Handshake(sensor.ike, None, (GATEWAY, checked["port"])))
    ends[0].pump()

    def over():
        return any(event[0] in ("up", "failed") for event in sensor.events)

    world.run(until, over)
    return Handshake(sensor, responder, world.now, sent, (ends[0].link, ends[1].link))
