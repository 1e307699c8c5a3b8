"""A sensor without sockets: the core's IkeSa with the ESP halves that its SA asks for.

What tunnel.py does between socket and core, in the least lines, for tests on both interpreters.
"""

from hashlib import sha256

from minipsec.config import profile as store
from minipsec.errors import Drop
from minipsec.handshake.sa_init import Handshake
from minipsec.kex import methods
from minipsec.esp.sa import Receiver, Sender
from minipsec.ike.sa import STATES, IkeSa
from minipsec.esp.sequence import Sequence

X25519 = 31

PROFILE = {
    "gateway": "10.77.0.1",
    "gateway_id": "gw.example.org",
    "id": "sensor-1.example.org",
    "server": "10.3.0.10",
}
SECRETS = {"psk": "0x" + bytes(range(7, 39)).hex()}
LOCAL = (bytes((10, 77, 0, 2)), 40500)
REMOTE = (bytes((10, 77, 0, 1)), 500)


def profile(secrets=None, **changes):
    """Return a checked profile as load_profile gives it; a change to None leaves the key out."""
    values = dict(PROFILE)
    values.update(changes)
    checked = store.check_profile({k: v for k, v in values.items() if v is not None})
    checked.update(store.check_secrets(secrets or SECRETS))
    return checked


class Rand:
    """A `rand(n)` that gives the same octets for the same seed on every interpreter.

    Each size has a stream of its own, so that a request for n more octets of one size leaves
    those of the other sizes as they were.
    """

    def __init__(self, seed):
        self._seed = seed
        self._counts = {}

    def __call__(self, n):
        count = self._counts.get(n, 0)
        self._counts[n] = count + 1
        out = b""
        while len(out) < n:
            label = b"%d %d %d" % (n, count, len(out))
            out += sha256(self._seed + label).digest()
        return out[:n]


class Node:
    """An IkeSa and, once it is UP, a Sender and a Receiver.

    `out` collects the datagrams to send, `events` the events, `got` what ESP brought.
    """

    def __init__(self, profile, rand):
        self.profile = profile
        self.ike = IkeSa(profile, rand)
        self.out = []
        self.events = []
        self.got = []
        self.drops = {}  # of ESP; those of IKE are counted by the core
        self.child = self.sender = self.receiver = None
        self.picked = self.nat = self.peer_nat = None  # see IkeSa's event "up"
        self.with_ppk = False

    def start(self, now=0, local=LOCAL, remote=REMOTE, **more):
        """Begin the handshake; `more` are further arguments of Handshake."""
        more.setdefault("encap", self.profile["encap"])
        self.ike.start(now, Handshake(self.ike, local, remote, **more))
        return self._pump(now)

    def receive(self, datagram, now=0):
        """Hand in a datagram; return the datagrams that it led to."""
        if datagram[:4] == b"\0\0\0\0" or datagram[:8] == self.ike.spi_i:
            self.ike.receive(datagram, now)
            return self._pump(now)
        if self.receiver is None:
            self.count("UNEXPECTED_ESP")
            return []
        try:
            self.got.append(self.receiver.open(datagram))
        except Drop as e:
            self.count(e.args[0])
        return []

    def timer(self, now):
        self.ike.timer(now)
        return self._pump(now)

    def call(self, function, now=0):
        """Call a function of `established` and return the datagrams that it led to."""
        function(self.ike, now)
        return self._pump(now)

    def send(self, payload, now=0):
        """Return one ESP datagram, None when the SA is used up."""
        try:
            packet = self.sender.seal(payload, now)
        except Drop:
            return None
        self.out.append(bytes(packet))
        return self.out[-1]

    def count(self, reason):
        self.drops[reason] = self.drops.get(reason, 0) + 1

    @property
    def state(self):
        return STATES[self.ike.state]

    def all(self, kind):
        """Every event of a kind so far, without the kind itself where there is more."""
        return [event for event in self.events if event[0] == kind]

    def _pump(self, now):
        new = []
        while (datagram := self.ike.poll_out()) is not None:
            new.append(bytes(datagram))
        self.out += new
        while (event := self.ike.next_event()) is not None:
            self.events.append(event)
            if event[0] == "up":
                self._up(event[1], now)
                self.picked, self.nat, self.peer_nat, self.with_ppk = event[2:]
        return new

    def _up(self, child, now):
        p = self.profile
        inner, server = child["inner"], child.get("server", p["server"])
        ends = (inner, server, p["inner_port"], p["server_port"])
        back = (server, inner, p["server_port"], p["inner_port"])
        self.child = child
        self.sender = Sender(child, ends, Sequence(now, p["sn_tick_ms"]))
        self.receiver = Receiver(child, back, p["replay_window"])


computed = methods.method  # whatever is remembered in its place


def remember_exchanges():
    """Compute each X25519 value once: pure Python is slow and replays need the same ones.

    Returns a callable that puts the real class back.
    """
    real = methods.method
    known = {}

    class Remembered:
        size = 32

        def __init__(self, rand, *_):
            self._key = bytes(rand(32))
            if self._key not in known:
                known[self._key] = real(X25519)(lambda n: self._key)
            self._pair = known[self._key]
            self.public = self._pair.public

        def shared(self, peer):
            at = self._key + peer
            if at not in known:
                known[at] = self._pair.shared(peer)
            return known[at]

    methods.method = lambda ident: Remembered if ident == X25519 else real(ident)

    def restore():
        methods.method = real

    return restore
