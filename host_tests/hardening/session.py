"""A whole session on a virtual clock, each of whose datagrams one fault can happen to.

The sensor is the firmware's core, the gateway tools/devgateway; neither shares code with the
other. The n-th datagram that leaves, whoever sent it, is the one that suffers; all others arrive
after DELAY_MS.

    session = Session(*VARIANTS["plain"])
    session.run()                                # without a fault: session.sent is its datagrams
    Session(*VARIANTS["plain"], at=3, fault=FAULTS["drop"]).run()
"""

from tools.dev.peers.node import LOCAL, REMOTE, SECRETS, Node, Rand, profile
from tools.dev.sim.world import Port, World
from minipsec.ike import established
from tools.devgateway import Config, Endpoint, Gateway, Secrets

SENSOR, GATEWAY = "sensor", "gateway"
DELAY_MS = 20
HELD_MS = 2000  # a datagram that waits for one to overtake it waits no longer
PPK = bytes(range(64, 96))
READINGS = 3

# name: (changes of the profile, settings of the gateway)
_SMALL = {"fragment_size": 128, "fragment_gap_ms": 0}
VARIANTS = {
    "plain": ({}, {}),
    "port-4500": ({"port": 4500}, {}),
    "cookie": ({}, {"cookie": True}),
    "cbc": (
        {"ike": ["aes128-sha256-prfsha256-x25519"]},
        {"ike": ("aes128-sha256-prfsha256-x25519",)},
    ),
    "ppk": ({"ppk_id": "ppk-1"}, {}),
    "intermediate-fragments": ({"ppk_id": "ppk-1", "frag_ack": "off", **_SMALL}, _SMALL),
    "acknowledged-fragments": (_SMALL, {**_SMALL, "frag_ack": "eager"}),
    "deleted-by-the-gateway": ({}, {}),
}


def gave_up_ms(p):
    """How long one exchange may take, by the profile's documentation."""
    return p["retransmit_ms"] * (2 ** p["retransmit_tries"] - 1)


class _Sensor(Node):
    """A Node as a party of the simulation."""

    def __init__(self, session, p, rand):
        super().__init__(p, rand)
        self.session = session
        self.next_timer = self.ike.next_timer
        self.queue = []

    def receive(self, datagram, now=0):
        self.queue += super().receive(datagram, now)
        self.session.note()

    def timer(self, now):
        self.queue += super().timer(now)
        self.session.note()

    def poll_out(self):
        return self.queue.pop(0) if self.queue else None


class _Gateway:
    """The development gateway as a party of the simulation."""

    def __init__(self, session, settings, secrets):
        self.session = session
        self.core = Gateway(Config(secrets, **settings), Rand(b"gateway"), session.told)
        self.next_timer = self.core.next_timer
        self.queue = []

    def receive(self, datagram, now):
        natt = self.session.node.ike.spi_i != datagram[:8]
        end = Endpoint("10.77.0.2", LOCAL[1], natt, "10.77.0.1", 4500 if natt else REMOTE[1])
        self.add(self.core.receive(datagram, end, now))

    def timer(self, now):
        self.add(self.core.timer(now))

    def add(self, datagrams):
        self.queue += [octets for octets, _ in datagrams]

    def poll_out(self):
        return self.queue.pop(0) if self.queue else None


class _Way:
    """What a `Port` sends through: one direction."""

    def __init__(self, session, side):
        self.session = session
        self.side = side

    def carry(self, datagram, now):
        self.session.carry(self.side, bytes(datagram), now)
        return []


class Session:
    """`sent` is [(side, ms, datagram)]; `times` {state: ms when the sensor entered it}."""

    def __init__(self, changes, settings, at=None, fault=None, deleter=SENSOR):
        self.world = World()
        self.at, self.fault, self.deleter = at, fault, deleter
        self.sent = []
        self.readings = []  # that the gateway's server got
        self.times = {}
        self._held = {}  # side: a datagram that waits to be overtaken
        settings, own = dict(settings), dict(SECRETS)
        if "ppk_id" in changes:
            settings["ppks"] = {changes["ppk_id"].encode(): PPK}
            own["ppk"] = "0x" + PPK.hex()
        self.profile = profile(own, **changes)
        self.node = _Sensor(self, self.profile, Rand(b"sensor"))
        secrets = Secrets({"sensor-1.example.org": SECRETS["psk"]})
        self.gateway = _Gateway(self, settings, secrets)
        self.ports = {SENSOR: Port(self.world, self.node), GATEWAY: Port(self.world, self.gateway)}
        self.ports[SENSOR].connect(_Way(self, SENSOR), self.ports[GATEWAY])
        self.ports[GATEWAY].connect(_Way(self, GATEWAY), self.ports[SENSOR])

    @property
    def up(self):
        return bool(self.node.all("up"))

    def told(self, name, fields):
        if name == "reading":
            self.readings.append(fields["text"].encode())

    def note(self):
        if self.node.state not in self.times:
            self.times[self.node.state] = self.world.now
        if self.node.state == "UP" and len(self.times) and "script" not in self.times:
            self.times["script"] = self.world.now
            self._script()

    # What the two ends do once the tunnel is up.

    def _script(self):
        now = self.world.now
        for n in range(READINGS):
            self.world.at(now + 100 + 100 * n, self._reading, b"reading %d" % n)
        self.world.at(now + 1000, self._ask, "liveness")
        self.world.at(now + 2000, self._call, established.check)
        if self.deleter == SENSOR:
            self.world.at(now + 40000, self._call, established.delete)
        else:
            self.world.at(now + 40000, self._ask, "delete")

    def _reading(self, payload):
        if self.node.state == "UP":
            self.node.queue.append(self.node.send(payload, int(self.world.now)))
            self.ports[SENSOR].pump()

    def _ask(self, method):
        for sa in self.gateway.core.established_sas():
            self.gateway.add(getattr(self.gateway.core, method)(sa, int(self.world.now)))
            self.ports[GATEWAY].pump()

    def _call(self, function):
        if self.node.state == "UP":
            self.node.queue += self.node.call(function, int(self.world.now))
            self.ports[SENSOR].pump()

    # The network.

    def carry(self, side, datagram, now):
        number = len(self.sent)
        self.sent.append((side, now, datagram))
        if number == self.at:
            self.fault(self, side, datagram, now)
        else:
            self.arrive(side, datagram, DELAY_MS)
        held = self._held.pop(side, None)
        if held and number != self.at:
            self.arrive(side, held, DELAY_MS + 1)
        elif held:
            self._held[side] = held

    def arrive(self, side, datagram, ms, at_sender=False):
        """Have what `side` sent arrive after so many milliseconds."""
        other = GATEWAY if side == SENSOR else SENSOR
        port = self.ports[side if at_sender else other]
        self.world.at(self.world.now + ms, port.deliver, datagram)

    def hold(self, side, datagram):
        """Keep it until the next one of this direction has overtaken it."""
        self._held[side] = datagram
        self.world.at(self.world.now + HELD_MS, self._release, side)

    def _release(self, side):
        held = self._held.pop(side, None)
        if held:
            self.arrive(side, held, 0)

    def run(self):
        """Run to the end of everything that is due; return self."""
        self.node.queue += self.node.start(0, LOCAL, REMOTE)
        self.note()
        self.ports[SENSOR].pump()
        # Longer than each of its exchanges may take, and than each datagram may be late.
        self.world.run(1000000)
        return self


# Faults: each is called as fault(session, side, datagram, now) in place of delivery.


def drop(session, side, datagram, now):
    pass


def duplicate(session, side, datagram, now):
    for ms in (0, 0, 1):
        session.arrive(side, datagram, DELAY_MS + ms)


def repeated_late(session, side, datagram, now):
    for ms in (0, 900, 5000, 35000, 100000):
        session.arrive(side, datagram, DELAY_MS + ms)


def reorder(session, side, datagram, now):
    session.hold(side, datagram)


def delay(ms):
    def fault(session, side, datagram, now):
        session.arrive(side, datagram, DELAY_MS + ms)

    return fault


def flip(numerator):
    """Flip a bit of the octet at so many sixteenths of the datagram's length."""

    def fault(session, side, datagram, now):
        bent = bytearray(datagram)
        bent[min(len(bent) * numerator // 16, len(bent) - 1)] ^= 1 << numerator % 8
        session.arrive(side, bytes(bent), DELAY_MS)

    return fault


def cut(session, side, datagram, now):
    session.arrive(side, datagram[: len(datagram) // 2], DELAY_MS)


def grown(session, side, datagram, now):
    session.arrive(side, datagram + b"\0", DELAY_MS)


def reflect(session, side, datagram, now):
    """It comes back to who sent it, and arrives as well."""
    session.arrive(side, datagram, DELAY_MS // 2, at_sender=True)
    session.arrive(side, datagram, DELAY_MS)


def turned_back(session, side, datagram, now):
    """It comes back to who sent it, and does not arrive."""
    session.arrive(side, datagram, DELAY_MS, at_sender=True)


FAULTS = {
    "drop": drop,
    "duplicate": duplicate,
    "repeat": repeated_late,
    "reorder": reorder,
    "delay-700": delay(700),  # less than the first retransmission interval
    "delay-2500": delay(2500),  # more
    "delay-for-long": delay(200000),  # until after everything
    "corrupt-first": flip(0),
    "corrupt-3": flip(3),
    "corrupt-6": flip(6),
    "corrupt-9": flip(9),
    "corrupt-12": flip(12),
    "corrupt-last": flip(16),
    "cut": cut,
    "grown": grown,
    "reflect": reflect,
    "turned-back": turned_back,
}
