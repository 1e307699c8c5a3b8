"""A sensor and the development gateway on a link that a third party listens to and bends.

Both ends are sans-IO and the clock is virtual. Every datagram is recorded; `Link` delivers them
one by one, and a test may deliver any of them again, to either end, in any order.
"""

import random

from tools.dev.peers.node import LOCAL, REMOTE, SECRETS, Node, Rand, profile
from tools.devgateway import Config, Endpoint, Gateway, Secrets

SENSOR, GATEWAY = "sensor", "gateway"
PPK = bytes(range(32))
STRANGER = ("203.0.113.66", 666)


class Link:
    """`recorded` is [(sender, datagram)]; `waiting` what is under way, [(to, datagram)].

    With the profile key `ppk_id` both ends know a PPK of that name, unless `settings` has others.
    """

    def __init__(self, changes=None, settings=None, seed=b"link"):
        self.now = 0
        self.recorded = []
        self.waiting = []
        self.readings = []  # that the gateway's server saw
        secrets = Secrets({"sensor-1.example.org": SECRETS["psk"]})
        changes, settings, own = changes or {}, dict(settings or {}), dict(SECRETS)
        if "ppk_id" in changes:
            settings.setdefault("ppks", {changes["ppk_id"].encode(): PPK})
            own["ppk"] = "0x" + PPK.hex()
        self.gateway = Gateway(Config(secrets=secrets, **settings), Rand(seed + b"g"), self._told)
        self.node = Node(profile(own, **changes), Rand(seed))
        self.started = False

    def _told(self, name, fields):
        if name == "reading":
            self.readings.append(fields["text"].encode())

    # What the two ends do by themselves.

    def start(self):
        self._from_sensor(self.node.start(self.now))

    def send(self, payload):
        self._from_sensor([self.node.send(payload, self.now)])

    def call(self, function):
        self._from_sensor(self.node.call(function, self.now))

    def ask(self, method):
        """Have the gateway send a request: `liveness` or `delete`."""
        (sa,) = self.gateway.established_sas()
        self._from_gateway(getattr(self.gateway, method)(sa, self.now))

    def _from_sensor(self, datagrams):
        for datagram in datagrams:
            self.recorded.append((SENSOR, datagram))
            self.waiting.append((GATEWAY, datagram))

    def _from_gateway(self, datagrams):
        for datagram, *_ in datagrams:
            self.recorded.append((GATEWAY, datagram))
            self.waiting.append((SENSOR, datagram))

    # The link.

    def give(self, to, datagram, source=None):
        """Deliver one datagram; return what came of it."""
        before = len(self.recorded)
        if to == SENSOR:
            self._from_sensor(self.node.receive(datagram, self.now))
        else:
            natt = datagram[:8] != self.node.ike.spi_i  # else IKE without a marker, for port 500
            host, port = source or ("10.77.0.2", LOCAL[1])
            end = Endpoint(host, port, natt, "10.77.0.1", 4500 if natt else REMOTE[1])
            self._from_gateway(self.gateway.receive(datagram, end, self.now))
        return self.recorded[before:]

    def deliver(self, pick=lambda n: 0):
        """Deliver one of what is under way, by default the oldest."""
        return self.give(*self.waiting.pop(pick(len(self.waiting))))

    def settle(self):
        """Deliver everything in order until nothing is under way."""
        while self.waiting:
            self.deliver()
            self.now += 1

    def due(self):
        """When one of the two ends has something to do, or None."""
        times = (end.next_timer() for end in (self.node.ike, self.gateway))
        return min((time for time in times if time is not None), default=None)

    def pass_time(self, ms=None):
        """Let the clock run to the next thing that is due, at most so long; False if none is."""
        due = self.due()
        if ms is not None:
            self.now += ms
        if due is None or (ms is not None and due > self.now):
            return False
        self.now = max(self.now, due)
        self._from_sensor(self.node.timer(self.now))
        self._from_gateway(self.gateway.timer(self.now))
        return True


class Chaos:
    """Delivers in any order, twice or more often, to both ends, and loses some; seeded."""

    def __init__(self, link, seed, loss=0.0, copies=0.3, reflections=0.2, old=0.3):
        self.link = link
        self.random = random.Random(seed)
        self.loss, self.copies, self.reflections, self.old = loss, copies, reflections, old

    def run(self, done, limit=20000):
        """Go on until `done()`; nothing may be lost for good by then."""
        link, chance = self.link, self.random.random
        for _ in range(limit):
            if done():
                return
            if link.waiting:
                to, datagram = link.waiting.pop(self.random.randrange(len(link.waiting)))
                if chance() < self.loss:
                    continue
                link.give(to, datagram)
                if chance() < self.copies:
                    link.give(to, datagram)
                if chance() < self.reflections:
                    link.give(GATEWAY if to == SENSOR else SENSOR, datagram)
                if chance() < self.old:
                    sender, datagram = self.random.choice(link.recorded)
                    to = self.random.choice((SENSOR, GATEWAY))
                    link.give(to, datagram, STRANGER if chance() < 0.5 else None)
                link.pass_time(self.random.randrange(20))
            elif not link.pass_time():
                return
        raise AssertionError(
            f"no end after {limit} steps: {link.node.state}, {link.node.ike.drops}"
        )
