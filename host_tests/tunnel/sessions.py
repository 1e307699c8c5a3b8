"""Whole sessions on what a board runs, and an oracle on the wire for what must never repeat.

`Oracle` looks at each datagram that leaves the sensor: under one IKE key no IV comes twice and
under one ESP key no SN, but in the same octets. It knows the wire alone, no object of the
firmware. The sessions have in them whatever a session may: fragments and acknowledgments both
ways, liveness with loss, requests before and across IKE_AUTH and again, refused rekeys,
replacement, DELETE from either side, sleep. Each raises AssertionError unless all of it was right.

Run alone, a word has that attribute of each IkeSa begin anew when it is UP, as if another object went
on then: `micropython -m host_tests.tunnel.sessions [WORD]`; it ends with 1 when a session noticed.
With "held" the last line of its output names the attributes that an IkeSa has then and a new one has
not.
"""

import asyncio
import struct
import sys

from tools.dev.peers import primitives
from tools.dev.peers.responder import (
    CREATE_CHILD_SA,
    FRAGMENTATION,
    I,
    IKE_SA_INIT,
    INFORMATIONAL,
    MARKER,
    N,
    R,
    Responder,
    V,
    message,
    notify,
    payload_chain,
    split,
)
from tools.dev.peers.node import SECRETS
from tools.dev.sim import virtual as world
from tools.dev.sim.virtual import LATENCY_MS, Log, Net, profile, run
from minipsec import sleep
from minipsec.board import port, raw_esp
from minipsec.handshake.sa_init import VENDOR_ID
from minipsec.tunnel import Tunnel

SK, SKF = 46, 53
SUPPORTED, REQ, RES = 50201, 50202, 50203
USE_PPK, PPK_IDENTITY = 16435, 16436
PPK = bytes(range(32, 64))
LIVENESS_MS = 5000
UP = 4


class Oracle:
    """The wire's witness: `ike` and `esp` are how many ciphertexts it has seen."""

    def __init__(self):
        self.ivs = {}  # (key, IV or SN): octets
        self.mids = {}  # SPIs of an IKE SA: (Message ID, exchange) of its last request
        self.ike = self.esp = self.fragments = self.acks = self.resends = 0

    def look(self, datagram, number):
        """Take what the sensor sent to a port of the gateway, 0 for ESP straight on IP."""
        if datagram == b"\xff":
            return
        marked = datagram[:4] == MARKER
        if number != 500 and not marked:
            self.esp += 1
            spi, sn, iv = struct.unpack(">4sI8s", datagram[:16])
            assert spi != bytes(4) and int.from_bytes(iv, "big") == sn
            self._once(("esp", spi, sn), datagram)
            return
        octets = datagram[4:] if marked else datagram
        spis = octets[:16]
        kind, exchange, flags, mid = struct.unpack(">BxBBI", octets[16:24])
        if exchange == IKE_SA_INIT:
            return
        # Both ends do NAT traversal: all that comes after IKE_SA_INIT goes there.
        assert marked and number == 4500, "without a marker, or to port %d" % number
        assert kind in (SK, SKF)
        at = 36 if kind == SKF else 32
        iv = octets[at : at + 8]
        self.ike += 1
        self.fragments += kind == SKF
        self._once(("ike", spis, iv), octets)
        if kind == SKF or not flags & R:
            if flags == I:
                last = self.mids.get(spis, (0, 0))
                assert mid in (last[0], last[0] + 1), "Message ID %d after %d" % (mid, last[0])
                self.mids[spis] = mid, exchange

    def _once(self, key, octets):
        if key in self.ivs:
            assert self.ivs[key] == octets, "twice under one key: %r" % (key,)
            self.resends += 1
        self.ivs[key] = octets


class Peer(Responder):
    """A responder that fragments, acknowledges fragments and has a PPK where it is told so."""

    fragments = True
    ppk = None

    def __init__(self):
        super().__init__()
        self.parts = {}
        self.joined = None
        self.acked = []  # what the sensor's acknowledgments named: [(kind, data)]

    def init(self, datagram, edit=None):
        more = []
        if self.fragments:
            more = [notify(FRAGMENTATION), notify(SUPPORTED), (V, VENDOR_ID)]
        if self.ppk:
            more.append(notify(USE_PPK))
        return super().init(datagram, lambda payloads: edit(payloads) + more)

    def _keys(self, shared, cipher):
        super()._keys(shared, cipher)
        if self.ppk:
            keys = self.sk_d, self.sk_pi, self.sk_pr
            keys = [primitives.prf_plus(self.ppk, key, 32) for key in keys]
            self.sk_d, self.sk_pi, self.sk_pr = keys

    def auth_payloads(self):
        more = [notify(PPK_IDENTITY)] if self.ppk else []
        return super().auth_payloads() + more

    def gather(self, octets):
        """Take a fragment of the sensor's; is the message whole?"""
        first, _, _, number, total = struct.unpack(">BBHHH", octets[28:36])
        text = self._in.open(octets[36:44], octets[44:], octets[:36])
        assert text is not None and text[-1] == 0
        mid = octets[20:24]
        if number == 1:
            self.first = first
        parts = self.parts.setdefault((mid, total), {})
        parts[number] = text[:-1]
        if len(parts) < total:
            return False
        plain = b"".join(parts.pop(n) for n in range(1, total + 1))
        self.joined = octets[18], octets[19], octets[23], split(self.first, plain)
        return True

    def read(self, datagram):
        if self.joined:
            found, self.joined = self.joined, None
            return found
        return super().read(datagram)

    def pieces(self, exchange, flags, mid, payloads, total):
        """The datagrams of a message in `total` fragments."""
        first, plain = payload_chain(payloads)
        size = -(-len(plain) // total)
        made = []
        for number in range(1, total + 1):
            text = plain[(number - 1) * size : number * size] + b"\0"
            begins = first if number == 1 else 0
            place = struct.pack(">HH", number, total)
            made.append(self.protect(text, exchange, flags, mid, begins, kind=SKF, place=place))
        return made


class Gateway(world.Gateway):
    """One whose SAs are `Peer`s; `answered` are the datagrams that answer requests of its own."""

    def __init__(self, net, address):
        super().__init__(net, address)
        self.oracle = Oracle()
        self.answered = []

    def receive(self, datagram, source, number):
        self.oracle.look(datagram, number)
        return super().receive(datagram, source, number)

    def _ike(self, octets, datagram, source, number):
        sa = self.sas.get(octets[:8])
        if sa and octets[18] != IKE_SA_INIT:
            flags = octets[19]
            if octets[16] == SKF:
                if not sa.responder.gather(octets):
                    return []
            elif flags & R or octets[18] == INFORMATIONAL:
                found = sa.responder.read(datagram)[3]
                for kind, _, body in found:
                    if kind == N and body[2] << 8 | body[3] in (REQ, RES):
                        self.oracle.acks += 1
                        sa.responder.acked.append((body[2] << 8 | body[3], bytes(body[4:])))
                        return []
            if flags & R:
                self.answered.append(octets)
        return super()._ike(octets, datagram, source, number)


def connected(**changes):
    """(network, gateway, log, tunnel), the sensor's ESP keys and IVs under the oracle's eyes."""
    net = Net()
    gateway = Gateway(net, world.GATEWAY)
    net.gateways[world.GATEWAY] = gateway
    world.Responder = Peer
    port.UDP = lambda target, number=0, *_: _socket(net, target, number)
    log = Log()
    values = {"fragment_size": 200, "liveness_ms": LIVENESS_MS}
    values.update(changes)
    checked = dict(profile(**values), directory="")
    return net, gateway, log, Tunnel(checked, log)


def _socket(net, target, number):
    socket = world.Socket(net, target)
    if number:
        # A NAT and the gateway know the sensor by this one.
        net.outers[socket.outer[0], number] = net.outers.pop(socket.outer)
        socket.outer = socket.outer[0], number
        socket.port = number
    return socket


async def until(condition, ms=3000):
    """Wait for a condition; AssertionError when it does not come about."""
    for _ in range(ms // 5):
        if condition():
            return
        await asyncio.sleep_ms(5)
    raise AssertionError("waited %d ms in vain" % ms)


async def _talk(tunnel, gateway, count=3):
    """Readings go up and their echoes come down."""
    while await tunnel.receive(5 * LATENCY_MS) is not None:
        pass  # what an echo sent last before it was told to be silent
    for n in range(count):
        before = len(gateway.readings)
        text = b"reading %d" % before
        await tunnel.send(text)
        assert await tunnel.receive(1000) == text
        assert len(gateway.readings) == before + 1


BIG = [(V, bytes(250))]


def whole_session():
    """Everything that an SA over UDP can meet, from IKE_SA_INIT to a DELETE of the Child SA."""
    net, gateway, log, tunnel = connected(
        ppk_id="ppk-1", ppk_required=True, secrets=dict(SECRETS, ppk="0x" + PPK.hex())
    )
    Peer.ppk = PPK
    first = []

    def before_auth(sa):
        """What comes before the answer to IKE_AUTH: a request, and the first part of another."""
        if first:
            return
        first.append(sa)
        peer = sa.responder
        first.append(peer.request(INFORMATIONAL, []))
        gateway.send(sa, first[1])
        first.append(peer.pieces(INFORMATIONAL, 0, peer.mid, BIG, 2))
        gateway.send(sa, first[2][0])

    gateway.on_auth = before_auth

    def forge(datagram, up):
        """An error of a stranger's, in front of the first answer; it is counted, for good."""
        if not up and datagram[18] == IKE_SA_INIT and not forged:
            forged.append(1)
            no = message(datagram[:8], bytes(8), IKE_SA_INIT, R, 0, [notify(14)])
            net.answer(gateway, gateway.history[0].where[0], 500, no)

    forged = []
    net.drop = forge

    async def main():
        await tunnel.connect()
        net.drop = None
        sa = first[0]
        peer = sa.responder
        await _talk(tunnel, gateway)
        agreed = log.all("agreed")[0]
        assert agreed["ppk"] is True and agreed["ike"].startswith("aes128ccm16"), agreed
        assert tunnel.stats()["drops"].get("UNAUTHENTICATED_ERROR") == 1
        assert log.all("up")[0]["nat"] is False
        # The request that came before UP, again: the same octets answer it.
        answers = [octets for octets in gateway.answered if octets[20:24] == bytes(4)]
        assert len(answers) == 1, gateway.answered
        gateway.send(sa, first[1])
        await until(lambda: len(gateway.answered) == 2)
        assert gateway.answered[1] == answers[0]
        # The other half of one that began before UP.
        gateway.send(sa, first[2][1])
        peer.mid += 1
        await until(lambda: len(gateway.answered) == 3)
        # One in fragments of which the middle is lost: the sensor says so.
        peer.acked.clear()
        pieces = peer.pieces(INFORMATIONAL, 0, peer.mid, BIG, 4)
        for n in (0, 1, 3):
            gateway.send(sa, pieces[n])
        await until(lambda: peer.acked)
        assert peer.acked[0] == (REQ, b"\0\3\0\3"), peer.acked
        gateway.send(sa, pieces[2])
        peer.mid += 1
        await until(lambda: len(gateway.answered) == 4)
        # Alive? The question is lost, and asked again by the round trip that is known.
        lost = []

        def drop(datagram, up):
            if up and datagram[:4] == MARKER and datagram[22] == INFORMATIONAL and not lost:
                lost.append(world.Time.now)
                return True

        gateway.echo = False
        await tunnel.send(b"unanswered")
        net.drop = drop
        await until(lambda: lost, 3 * LIVENESS_MS)
        await until(lambda: gateway.count("ALIVE") == 1)
        assert gateway.times("ALIVE")[0] - lost[0] < 500
        net.drop = None
        gateway.echo = True
        await _talk(tunnel, gateway)
        # No NAT is between us: nothing keeps one open.
        gateway.echo = False
        for _ in range(5):
            await asyncio.sleep_ms(10000)
            await tunnel.send(b"now and then")
        assert gateway.count("KEEPALIVE") == 0
        gateway.echo = True
        # What was unanswered had the sensor replace its SA, more than once.
        await until(lambda: len(gateway.established()) == 1)
        assert len(gateway.history) == gateway.count("DELETE") + 1
        # A rekey is refused and brings a new SA; the old one ends by our DELETE.
        (sa,) = gateway.established()
        made = len(gateway.history)
        rekey = (N, b"\3\4\x40\x09" + sa.responder.spi_sensor)
        gateway.ask(sa, CREATE_CHILD_SA, [rekey, (44, b"")])
        await until(lambda: gateway.count("DELETE") == made)
        assert len(gateway.history) == made + 1 and sa.answers[-1][0][2][2:] == b"\0\x23"
        await _talk(tunnel, gateway)
        # The gateway deletes our Child SA by its SPI: another one.
        gateway.delete(gateway.history[-1], 3)
        await until(lambda: len(log.all("up")) == made + 2, 20000)
        await _talk(tunnel, gateway)
        await tunnel.close()
        assert gateway.count("DELETE") == made + 1 and gateway.sas == {}

    run(main())
    oracle = gateway.oracle
    assert oracle.ike > 10 and oracle.esp > 10 and oracle.acks and oracle.fragments > 2
    assert oracle.resends > 0


def half_a_request():
    """A fragment that came before UP and stays alone is let go of after 30 s."""
    _, gateway, _, tunnel = connected(frag_ack="off")
    Peer.ppk = None
    pieces = []

    def before_auth(sa):
        peer = sa.responder
        pieces.extend(peer.pieces(INFORMATIONAL, 0, peer.mid, BIG, 2))
        gateway.send(sa, pieces[0])

    gateway.on_auth = before_auth

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(31000)
        (sa,) = gateway.sas.values()
        gateway.send(sa, pieces[1])
        await asyncio.sleep_ms(10 * LATENCY_MS)
        assert gateway.answered == []
        gateway.send(sa, pieces[0])
        await until(lambda: len(gateway.answered) == 1)
        await tunnel.close()

    run(main())


def paced():
    """An answer that waits its turn behind fragments when UP comes is sent all the same."""
    net, gateway, _, tunnel = connected(frag_ack="off", fragment_gap_ms=100)
    Peer.ppk = None
    lost = []

    def drop(datagram, up):
        """The first fragment of IKE_AUTH, once: the resent one completes it, others wait."""
        if up and datagram[:4] == MARKER and datagram[20] == SKF and not lost:
            lost.append(datagram)
            return True

    net.drop = drop
    gateway.on_auth = lambda sa: gateway.ask(sa, INFORMATIONAL, [])

    async def main():
        await tunnel.connect()
        assert lost and gateway.answered == []
        await until(lambda: gateway.answered)
        await tunnel.close()

    run(main())


class Straight:
    """rawip.ESP: no UDP around it."""

    made = []

    def __init__(self, target):
        self.open = True
        self.made.append(self)

    def send(self, packet, target):
        net, gateway = self.net
        gateway.oracle.look(bytes(packet), 0)
        net.carry((net.sensor, 0), (world.GATEWAY, 0), bytes(packet))
        return True

    def receive(self):
        return None

    def close(self):
        self.open = False


def without_udp():
    """No NAT at either end: ESP goes straight on IP, and IKE as before."""
    net, gateway, log, tunnel = connected(encap=False)
    Peer.ppk = None
    Straight.made = []
    Straight.net = net, gateway
    raw_esp.ESP = Straight
    # A socket of this kind says nothing here; only UDP ones are waited for.
    readable = port.readable

    async def either(end):
        if isinstance(end, Straight):
            await asyncio.sleep_ms(1 << 28)
        await readable(end)

    port.readable = either
    init = Peer.init

    def honest(self, datagram, edit=None):
        """Both hashes as they are (RFC 7296 §2.23)."""

        def both(payloads):
            payloads = edit(payloads)
            source = world.nat_hash(self.spi_i, self.spi_r, bytes((10, 77, 0, 1)), 500)
            return payloads + [notify(16388, source)]

        return init(self, datagram, both)

    Peer.init = honest

    async def main():
        await tunnel.connect()
        gateway.echo = False
        for n in range(5):
            await tunnel.send(b"reading %d" % n)
        await until(lambda: gateway.oracle.esp == 5)
        assert Straight.made and Straight.made[0].open
        await tunnel.close()
        assert gateway.count("DELETE") == 1

    try:
        run(main())
    finally:
        Peer.init = init


_Memory = sleep.Memory


class Ram(_Memory):
    """A sleep.Memory whose files are in RAM and outlive a sleep."""

    pieces = {}

    def __init__(self, *_):
        super().__init__("", True)

    def read(self, name):
        return self.pieces.get(name)

    def write(self, name, octets):
        self.pieces[name] = bytes(octets)
        return True

    def erase(self):
        self.pieces.pop("bin", None)


def sleeping(**changes):
    """As `connected`, for a sensor that sleeps; its SA lies in a `Ram`."""
    sleep.Memory = Ram
    Ram.pieces = {}
    return connected(sleep="mark", interval_ms=1000, **changes)


def with_sleep():
    """Deep sleeps between readings, silence, and one reset without a farewell."""
    net, gateway, log, tunnel = sleeping()
    Peer.ppk = None
    p = tunnel.profile

    async def main():
        nonlocal tunnel
        await tunnel.connect()
        for wake in range(12):
            gateway.echo = wake not in (3, 6)  # behind a reset it hears nothing
            await tunnel.send(b"reading %d" % wake)
            if gateway.echo:
                assert await tunnel.receive(1000)
            if wake == 5:
                # Power is gone: nothing was put away. The gateway goes on as before.
                link = tunnel._link
                tunnel._keeper.cancel()
                link._let_go()
            else:
                await tunnel.suspend()
            await asyncio.sleep_ms(1000)
            tunnel = Tunnel.resume(p, log) or Tunnel(p, log)
            await tunnel.connect()
        await tunnel.close()

    run(main())
    assert len(gateway.readings) == 12 and gateway.oracle.esp == 12
    assert len(log.all("resumed")) >= 8


SESSIONS = (whole_session, half_a_request, paced, without_udp, with_sleep)


def begin_anew(word):
    """Have one attribute of each IkeSa be as in a new one once UP is reached."""

    def change(sa, new):
        setattr(sa, word, getattr(new, word, 0))

    _at_up(change)


def note_held():
    """Return a set that collects the attributes which an IkeSa has at UP and a new one has not."""
    found = set()

    def note(sa, new):
        for name, value in sa.__dict__.items():
            if value != getattr(new, name, None):
                found.add(name)

    _at_up(note)
    return found


def _at_up(do):
    from minipsec.ike.sa import IkeSa

    go = IkeSa.go

    def going(sa, state):
        go(sa, state)
        if state == UP:
            do(sa, IkeSa(sa.profile, sa.rand, sa.step))

    IkeSa.go = going


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else None
    held = None
    if word == "held":
        held = note_held()
    elif word:
        begin_anew(word)
    noticed = False
    for session in SESSIONS:
        try:
            session()
            print("right", session.__name__)
        except BaseException as e:  # whatever it is: the sensor or its peer is stuck or wrong
            noticed = True
            print("noticed", session.__name__, repr(e))
            if word is None:
                sys.print_exception(e)
    if held is not None:
        print(*sorted(held))
    sys.exit(int(noticed))
