"""A world for tunnels under MicroPython: a clock that leaps, a network and gateways in one process.

firmware/ runs as it is, asyncio included. Only time and sockets are made up: asyncio's clock
leaps to the next timer instead of waiting, so that an hour of silence takes no time and gives the
same result each run.

    net = Net()
    gateway = net.gateway()
    async def main():
        tunnel = Tunnel(profile(), log := Log())
        await tunnel.connect()
        ...
    run(main())
"""

import asyncio
import asyncio.core as core
import gc
import time
from hashlib import sha256

from tools.dev.peers import node
from tools.dev.peers.responder import (
    D,
    IKE_AUTH,
    IKE_SA_INIT,
    INFORMATIONAL,
    MARKER,
    NAT_DESTINATION,
    R,
    Responder,
    nat_hash,
    notify,
)
from minipsec import link, tunnel
from minipsec.board import port
from minipsec.kex import methods

X25519 = 31
GATEWAY = "10.77.0.1"
SENSOR = "10.77.0.2"
LATENCY_MS = 10  # each way

# What tests keep lies close together then, and leaves room for what is large.
gc.threshold(1 << 18)


class Time:
    """Far ahead of the real clock, which asyncio's own queue still asks: what is due now is due."""

    now = time.ticks_ms() + (1 << 40)
    leaps = 0  # how often asyncio woke up


class _Poll:
    """In place of asyncio's IOQueue: instead of waiting for sockets it lets time pass."""

    map = {0: 0}

    def wait_io_event(self, ms):
        if _broken:
            raise _broken[0]
        if ms < 0:
            raise RuntimeError("everything waits, and nothing will ever happen")
        if ms:
            Time.leaps += 1
            Time.now += ms

    def remove(self, task):
        pass


_broken = []


def run(main):
    """Run a coroutine to its end on a new event loop; an exception in any task is an error."""
    core.new_event_loop()
    core._io_queue = _Poll()
    core.ticks = lambda: Time.now
    core.Loop.set_exception_handler(_note)
    _broken.clear()
    result = asyncio.run(main)
    if _broken:
        raise _broken[0]
    return result


def _note(loop, context):
    _broken.append(context["exception"])


class Clock:
    """port.Clock"""

    def __init__(self):
        self._start = Time.now

    def now(self):
        return Time.now - self._start


class Rand:
    """Octets that are the same each run."""

    def __init__(self, seed=b"world"):
        self._seed = seed
        self._count = 0

    def __call__(self, n):
        out = b""
        while len(out) < n:
            self._count += 1
            out += sha256(self._seed + str(self._count).encode()).digest()
        return out[:n]


class QuickExchange:
    """In place of X25519, which in Python takes longer than all the rest."""

    size = 32

    def __init__(self, rand, *_):
        self.public = bytes(rand(32))

    def shared(self, peer):
        peer = bytes(peer)
        return sha256(min(self.public, peer) + max(self.public, peer)).digest()


class Net:
    """Sockets and names. `up`: has the sensor a network? `hosts`: {name: address or None}."""

    def __init__(self, seed=b"world"):
        self.up = True
        self.hosts = {}
        self.gateways = {}
        self.sockets = []  # open ones
        self.outers = {}  # how the world sees them: {(address, port): Socket}
        self.ports = 0
        self.lost = 0  # datagrams on their way to nowhere
        self.drop = None  # called as drop(datagram, to_gateway); true: it is lost
        self.latency = LATENCY_MS
        self.sensor = SENSOR
        port.Clock = Clock
        port.rand = port.noise = Rand(seed)
        port.resolve = self.resolve
        port.readable = readable
        port.UDP = lambda target, *_: Socket(self, target)
        methods.METHODS[X25519] = QuickExchange
        # Which would compile them anew for each handshake.
        link.forget = tunnel.forget = lambda *names: None

    def gateway(self, address=GATEWAY):
        self.gateways[address] = gateway = Gateway(self, address)
        return gateway

    def resolve(self, host, number):
        address = self.hosts.get(host, host)
        if address is None or not self.up:
            raise OSError(-2)
        return address, number

    def carry(self, source, target, datagram):
        if self.drop and self.drop(datagram, True):
            return
        core.create_task(self._arrive(source, target, datagram))

    async def _arrive(self, source, target, datagram):
        await asyncio.sleep_ms(self.latency)
        gateway = self.gateways.get(target[0])
        if not gateway or not gateway.up:
            self.lost += 1
            return
        for answer in gateway.receive(datagram, source, target[1]):
            self.answer(gateway, source, target[1], answer)

    def answer(self, gateway, target, number, datagram):
        """Bring a datagram from a gateway's port to a sensor's socket address."""
        if not (self.drop and self.drop(datagram, False)):
            core.create_task(self._return(target, (gateway.address, number), datagram))

    async def _return(self, target, source, datagram):
        await asyncio.sleep_ms(self.latency)
        socket = self.outers.get(target)
        if not socket:
            self.lost += 1
        elif self.up:
            socket.inbox.append((datagram, source))
            socket.came.set()

    def remap(self):
        """A NAT forgets what it knew: every socket has another outer port."""
        self.outers.clear()
        for socket in self.sockets:
            self.map(socket)

    def map(self, socket):
        self.ports += 1
        socket.outer = (self.sensor, 1 + self.ports % 65535)
        self.outers[socket.outer] = socket


class Socket:
    """port.UDP"""

    def __init__(self, net, target):
        self.net = net
        net.map(self)
        self.local = port.packed(self.outer)
        self.port = self.local[1]
        self.inbox = []
        self.came = asyncio.Event()
        net.sockets.append(self)

    def send(self, datagram, target):
        if self.net.up:
            self.net.carry(self.outer, target, bytes(datagram))
        return self.net.up

    def receive(self):
        return self.inbox.pop(0) if self.inbox else None

    def close(self):
        self.net.sockets.remove(self)
        if self.net.outers.get(self.outer) is self:
            del self.net.outers[self.outer]


async def readable(socket):
    """port.readable"""
    await asyncio.sleep_ms(0)
    while not socket.inbox:
        socket.came.clear()
        await socket.came.wait()


class Gateway:
    """Any number of `Responder`s behind one address, one for each IKE SA.

    `seen` is [(ms, what)] of what arrived and was taken: "INIT", "AUTH", "ALIVE" (an empty
    INFORMATIONAL), "DELETE", "ESP", "KEEPALIVE", "ANSWER" (to a request of its own).
    `readings` is [(ms, octets)]. `up`: does it receive at all?
    """

    def __init__(self, net, address):
        self.net = net
        self.address = address
        self.up = True
        self.echo = True
        self.behind_nat = False  # does it tell sensors that a NAT hides them?
        self.moves = True  # does it follow a sensor to a new outer port?
        self.refuses = None  # the notify type that IKE_AUTH is refused with
        self.seen = []
        self.readings = []
        self.sas = {}  # SPIi: Sa
        self.spis = {}  # the SPI of its ESP: Sa
        self.history = []
        self.says = []  # payloads that its IKE_AUTH has besides
        self.on_auth = None  # called with an Sa before its IKE_AUTH is answered
        self.slow = 0  # ms that an ESP packet waits to be decrypted, and another one to go out
        self.unique = False  # does it delete an SA whose sensor has a new one, as strongSwan does?

    def count(self, what):
        return len([1 for _, seen in self.seen if seen == what])

    def times(self, what):
        return [at for at, seen in self.seen if seen == what]

    def note(self, what):
        self.seen.append((Time.now, what))

    def receive(self, datagram, source, number):
        if datagram == b"\xff":
            self.note("KEEPALIVE")
            return []
        if number == 500 or datagram[:4] == MARKER:
            octets = datagram[4:] if datagram[:4] == MARKER else datagram
            return self._ike(octets, datagram, source, number)
        sa = self.spis.get(datagram[:4])
        if sa and self.slow:
            core.create_task(self._later(sa, datagram, source))
            return []
        return self._esp(sa, datagram, source)

    async def _later(self, sa, datagram, source):
        await asyncio.sleep_ms(self.slow)
        self._esp(sa, datagram, source)

    def _ike(self, octets, datagram, source, number):
        sa = self.sas.get(octets[:8])
        exchange, flags = octets[18], octets[19]
        if exchange == IKE_SA_INIT:
            self.note("INIT")
            if not sa:
                sa = self.sas[octets[:8]] = Sa(source, number)
                self.spis[sa.responder.spi_esp] = sa
                self.history.append(sa)
                sa.answer = sa.responder.init(datagram, self._honest(sa))
            return [sa.answer]
        if not sa:
            self.note("STRANGE")
            return []
        if self.moves:
            sa.where = source, number
        if flags & R:
            self.note("ANSWER")
            sa.answers.append(sa.responder.read(datagram)[3])
            if sa.ends:
                del self.sas[octets[:8]]
            return []
        if sa.request == octets:
            return [sa.answer]
        sa.request = octets
        sa.answer = self._request(sa, exchange, datagram)
        return [sa.answer] if sa.answer else []

    def _honest(self, sa):
        """An edit of the IKE_SA_INIT answer: tell the sensor how we see it (RFC 7296 §2.23)."""

        def edit(payloads):
            if self.behind_nat:
                return payloads  # whose hashes are right for nobody
            address, number = port.packed(sa.where[0])
            spis = sa.responder.spi_i, sa.responder.spi_r
            seen = nat_hash(spis[0], spis[1], address, number)
            return payloads[:-1] + [notify(NAT_DESTINATION, seen)]

        return edit

    def _request(self, sa, exchange, datagram):
        responder = sa.responder
        if exchange == IKE_AUTH:
            self.note("AUTH")
            if self.on_auth:
                self.on_auth(sa)
            if self.refuses:
                responder.read_auth(datagram)
                del self.sas[responder.spi_i]
                return responder.send(IKE_AUTH, R, 1, [(41, b"\0\0" + bytes((0, self.refuses)))])
            if self.unique:
                for old in self.established():
                    old.ends = True
                    self.ask(old, INFORMATIONAL, [(D, b"\1\0\0\0")])
            sa.up = True
            return responder.auth(datagram, lambda payloads: payloads + self.says)
        _, _, mid, payloads = responder.read(datagram)
        kinds = [kind for kind, _, _ in payloads]
        self.note("DELETE" if D in kinds else "ALIVE")
        if D in kinds:
            del self.sas[responder.spi_i]
        return responder.send(INFORMATIONAL, R, mid, [])

    def _esp(self, sa, datagram, source):
        if not sa or self.sas.get(sa.responder.spi_i) is not sa:
            self.note("STRANGE")
            return []
        self.note("ESP")
        _, _, packet = sa.responder.read_esp(datagram)
        sa.packets += 1
        self.readings.append((Time.now, packet[28:]))
        if self.echo:
            if self.slow:
                core.create_task(self._reply(sa, packet[28:]))
            else:
                self.down(sa, packet[28:])
        return []

    async def _reply(self, sa, payload):
        await asyncio.sleep_ms(self.slow)
        if self.sas.get(sa.responder.spi_i) is sa:
            self.down(sa, payload)

    def down(self, sa, payload):
        """Send octets down to the sensor's UDP port."""
        from minipsec.esp import inner

        template = inner.header(sa.inner("server"), sa.inner("sensor"), 5000, 5000)
        packet = bytearray(len(template) + len(payload))
        inner.complete(packet, 0, template, payload)
        self.send(sa, sa.responder.esp(bytes(packet)))

    def send(self, sa, datagram):
        if self.up:
            self.net.answer(self, sa.where[0], sa.where[1], datagram)

    def delete(self, sa, protocol=1):
        """Tell the sensor that an SA is gone, and forget it."""
        spis = sa.responder.spi_esp if protocol == 3 else b""
        body = bytes((protocol, len(spis), 0, len(spis) // 4)) + spis
        self.ask(sa, INFORMATIONAL, [(D, body)])
        self.sas.pop(sa.responder.spi_i, None)

    def ask(self, sa, exchange, payloads):
        self.send(sa, sa.responder.request(exchange, payloads))

    def forget(self):
        """Lose every SA, as in a reboot."""
        self.sas.clear()

    def established(self):
        return [sa for sa in self.sas.values() if sa.up]


class Sa:
    """What a `Gateway` knows of one IKE SA."""

    _made = 0

    def __init__(self, source, number):
        Sa._made += 1
        self.responder = responder = Responder()
        responder.spi_r = b"gate" + Sa._made.to_bytes(4, "big")
        responder.spi_esp = b"\xc0" + Sa._made.to_bytes(3, "big")
        responder._pair = QuickExchange(port.rand)
        self.where = source, number
        self.up = self.ends = False
        self.request = self.answer = None
        self.answers = []
        self.packets = 0

    def inner(self, which):
        return bytes((10, 3, 0, 10) if which == "server" else (10, 9, 0, 1))


class Log:
    """What a tunnel logs: `all(event)` is [fields, with "t", ms of the world's clock]."""

    def __init__(self):
        self.lines = []

    def __call__(self, event, fields):
        self.lines.append((event, Time.now, fields))

    def all(self, event):
        return [fields for name, _, fields in self.lines if name == event]

    def times(self, event):
        return [at for name, at, _ in self.lines if name == event]


def profile(**changes):
    return node.profile(**dict({"gateway": GATEWAY}, **changes))
