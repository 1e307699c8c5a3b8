"""One IKE SA on the network: a socket, the core, its timer, ESP both ways.

A `Link` moves datagrams between socket and core and tells its owner, a Tunnel, what happened:
`on_up(link)`, `on_stale(link)`, `on_down(link, error)`, `on_closed(link)`, `on_waiting()`,
`on_payload(payload, octets)`, `on_broken(link, error)`, `on_rare(what, link, ..)`.  It decides
nothing; that is the Tunnel's part.
"""

import asyncio
import gc
from micropython import const

from . import forget
from .board import port
from .errors import Drop
from .tasks import spare, start

_PROMPT = const(3)  # retransmit_ms without an answer of a server that used to answer
_NO_MEMORY_MS = const(50)  # until the next try
_QUIET_MS = const(1000)  # an SA that was replaced may end after so long without ESP
_MAX_QUIET = const(4)  # times _QUIET_MS at most; a gateway waits as long for an answer to DELETE
_S_DEAD = const(6)
_MAX_DRAIN = const(8)  # datagrams read in one go: as many as Tunnel keeps for the application


class Link:
    """The driver of one IKE SA with the gateway `host`.

    With `awake`, a snapshot.Snapshot, it goes on with the Child SA alone, at once:
    `ike` is None then.
    """

    def __init__(self, owner, host, awake=None):
        self.owner = owner
        self.host = host
        self.child = self.ike = None  # the Child SA once it is up
        self.sender = self.receiver = self.snapshot = None
        self.born = self.sent = owner.clock.now()
        self.busy = -_QUIET_MS  # when ESP went or came last
        self.waiting = None  # when we first sent something that is still without an answer
        self.heard = False  # did ESP ever come?
        self.prompt = False  # did an answer of the server end the last wait?
        self.silent = 0  # readings sent since the gateway's last sign of life
        self._spent = self.retired = False
        self.hint = self._timer = self._pacer = self._drainer = None
        self._esp = self._esp_reader = None  # a socket for ESP straight on IP
        self._timer_due = 0
        p = owner.profile
        self._gateway = port.resolve(host, p["port"])
        # Derived from the same address, because a name may have several.
        self._natt = port.with_port(self._gateway, p["natt_port"])
        # After a sleep we need the same port: a NAT and the gateway know us by it.
        number = awake.child["port"] if awake else 0
        self._udp = port.UDP(self._gateway, number, p["datagram"])
        if awake and self._udp.port != number:
            # Another wake-up with this SA may have the port: only that one may go on.
            self._udp.close()
            raise OSError
        self._reader = start(self._read(self._udp), self._broken)
        try:
            self._begin(p, awake)
        except Exception:
            self._let_go()
            raise

    def _begin(self, p, awake):
        owner = self.owner
        if not p["encap"]:
            from .board.raw_esp import opened

            self._esp = opened(self._gateway)  # None means UDP encapsulation
            if self._esp:
                self._esp_reader = start(self._read(self._esp), self._broken)
        if awake:
            from .esp.child import resume

            forget("esp.child")
            self.snapshot = awake
            self.child = awake.child
            self.born -= awake.age
            self.sender, self.receiver = resume(self)
            owner.on_up(self)
            return
        from .handshake.sa_init import Handshake
        from .ike.sa import IkeSa

        self.ike = ike = IkeSa(p, port.rand, port.feed)
        local, remote = self._udp.local, port.packed(self._gateway)
        if p["mode"] == "transport" and not remote:
            owner.on_rare("no_address", self)
        # Only an SA without a predecessor may ask the gateway to forget the others.
        first = owner.alone()
        ike.start(self.born, Handshake(ike, local, remote, not self._esp, first, owner.spis()))
        self._pump()

    def early(self):
        """Return the milliseconds until `send` may send, 0 for at once; see sequence.Sequence."""
        return self.sender.numbers.early(self.owner.clock.now())

    def send(self, payload):
        """Send one ESP packet; return its octets on the wire, or 0 if it was not sent.

        It is not sent without a network, while the gateway ends the SA, and when the SA must send
        no more and has closed itself.
        """
        owner = self.owner
        now = owner.clock.now()
        if self._drainer:
            return 0
        try:
            packet = self.sender.seal(payload, now)
        except Drop:
            self._handle(("failed", "spent", None))
            return 0
        self.busy = now
        if self.waiting is None:
            self.waiting = now
            owner.on_waiting()
        elif (
            self.prompt
            and self.silent
            and now - self.waiting >= _PROMPT * owner.profile["retransmit_ms"]
        ):
            self.check()
        if not self._spent and self.sender.spent(owner.profile["max_packets"]):
            self._spent = True
            owner.on_stale(self)
        if not self._transmit(packet, self._natt, self._esp):
            return 0
        self.silent += 1
        return len(packet)

    def check(self):
        """Ask the gateway whether it is alive; without an IKE SA, only a new one can tell."""
        if not self.ike:
            self.owner.on_stale(self)
            return
        from .ike.established import check

        check(self.ike, self.owner.clock.now())
        self._pump()

    def retire(self):
        """Delete the SA once nothing moves on it any more: its successor is up."""
        self.retired = True
        if not self._drains():
            self.delete()

    def delete(self):
        """Delete the SA at the gateway; `on_closed` follows, with or without its answer."""
        from .ike.established import delete

        self.retired = True
        self._rest()
        if not self.ike:
            self.close()
            return
        # A liveness check that is out is waited for first.
        delete(self.ike, self.owner.clock.now())
        self._pump()

    def close(self):
        """Let go of everything at once, without telling the gateway."""
        while self._pacer and self._send_next():
            pass  # send what is left without pauses
        if self.child and self.ike and self.ike.unanswered():
            self.unconfirmed()
        self._let_go()
        self.owner.on_closed(self)

    def unconfirmed(self):
        """The gateway has fallen silent: count what went out since its last sign of life."""
        self.owner.counters["unconfirmed"] += self.silent
        self.silent = 0

    # Events of the IKE SA; see ike.sa.

    def _handle(self, event):
        handler = getattr(self, "_on_" + event[0], None)
        if handler:
            handler(*event[1:])
        elif event[0] != "agreed":  # `rare` has a function for each of the others
            self.owner.on_rare(event[0], self, *event[1:])

    def _on_state(self, name):
        self.owner.log("state", {"state": name, "t": self.owner.clock.now() - self.born})
        if name == "DOWN":
            self.sender = self.receiver = None
        elif name == "IKE_AUTH":
            forget("kex.methods", "kex.groups")  # makes room for what comes after IKE_AUTH

    def _on_answered(self):
        owner = self.owner
        # ESP used to come, and what we sent last is unanswered though the gateway is there:
        # it still sends to where a NAT had us before.
        deaf = self.heard and self.waiting is not None
        self.silent = 0
        if self.retired:
            self.retire()
        elif self.prompt and self.waiting is not None:
            self.prompt = False  # it was asked early: the server has liveness_ms to answer
        else:
            self.waiting = None
            if deaf:
                owner.on_stale(self)
            elif not self.heard and not owner.mute:
                owner.on_rare("mute", self)
        owner.on_waiting()

    def _on_hint(self, kind):
        if self.hint != kind:
            self.hint = kind
            self.owner.on_rare("hint", self, kind)

    def _on_rekey(self):
        self.owner.on_stale(self)

    def _on_up(self, child, picked, nat, peer_nat, with_ppk):
        # Forget the handshake's code first: ESP's needs the memory.
        forget_handshake()
        if nat is not False or peer_nat:
            self._drop_esp()
        from .esp.child import up

        forget("esp.child")
        now = self.owner.clock.now()
        child["port"] = self._udp.port
        self.snapshot, self.sender, self.receiver = up(self, child, picked, nat, with_ppk, now)
        self.child = child
        self.born = now
        self.hint = None
        self.owner.on_up(self)
        if child.get("lifetime"):
            self.owner.on_rare("lifetime", self, child["lifetime"])

    # Datagrams.

    def _let_go(self):
        for task in (self._reader, self._timer, self._esp_reader, self._pacer, self._drainer):
            if task and task is not asyncio.current_task():
                task.cancel()
        self._timer = self._pacer = self._drainer = None
        if self._udp:
            self._udp.close()
            self._udp = None
        self._drop_esp()

    def _drop_esp(self):
        if self._esp:
            self._esp.close()
            self._esp = None

    def moves(self):
        """Are the tasks alive that read its datagrams and run its timer?"""
        timer = self._timer
        return not self._reader.done() and (
            not self.ike
            or self.ike.next_timer() is None
            or (timer is not None and not timer.done())
        )

    async def _read(self, end):
        while end is self._udp or end is self._esp:
            try:
                await port.readable(end)
                for _ in range(_MAX_DRAIN):
                    got = (end is self._udp or end is self._esp) and end.receive()
                    if not got:
                        break
                    self.safely(self._take, end, *got)
                else:
                    await asyncio.sleep_ms(0)
            except MemoryError:
                # The heap has no piece for a buffer at present.
                self.owner.count("NO_MEMORY")
                await asyncio.sleep_ms(_NO_MEMORY_MS)

    def _take(self, end, datagram, source):
        owner = self.owner
        owner.counters["datagrams_in"] += 1
        owner.counters["octets_in"] += len(datagram)
        # Tell IKE from ESP by the non-ESP marker or our SPIi, never by address.
        marked = datagram[:4] == b"\0\0\0\0"
        if end is not self._udp:
            self._on_esp(datagram)
        elif not datagram:
            owner.count("BAD_LENGTH")
        elif marked and not self.ike:
            owner.count("NO_IKE_SA")
        elif self.ike and (marked or datagram[:8] == self.ike.spi_i):
            self.ike.receive(datagram, owner.clock.now())
            self._pump(source)
        elif datagram == b"\xff":
            owner.count("KEEPALIVE")
        else:
            self._on_esp(datagram)

    def _pump(self, source=None):
        """Take from the core its datagrams, its events and the time of its timer."""
        # A gateway that replaces an SA deletes the old one, which ends as soon as we answer: wait.
        if self.ike.state == _S_DEAD and self.owner.replaces(self) and self._drains():
            return
        gap = self.owner.profile["fragment_gap_ms"]
        while not self._pacer and self._send_next(source):
            # Pause after each: radios and short queues drop bursts.
            if gap and self.ike.out:
                self._pacer = start(self._pace(gap), self._broken)
        while True:
            event = self.ike.next_event()
            if event is None:
                break
            self._handle(event)
        self._arm()

    def _send_next(self, source=None):
        datagram = self.ike.poll_out()
        if datagram is not None:
            target = self._natt if self.ike.floated else self._gateway
            self._transmit(datagram, source if source and self.ike.reply else target)
        return datagram

    async def _pace(self, ms):
        await asyncio.sleep_ms(ms)
        self._pacer = None
        self.safely(self._pump)

    def _drains(self):
        """May something still be on its way on this SA?  Then a task ends it later.

        A busy gateway decrypts late and sends replies late.
        """
        if not self._drainer and self.busy + _QUIET_MS > self.owner.clock.now():
            self._drainer = start(self._drain(), self._broken)
        return self._drainer

    async def _drain(self):
        for _ in range(_MAX_QUIET):
            await asyncio.sleep_ms(max(self.busy + _QUIET_MS - self.owner.clock.now(), 0))
        self._drainer = None
        self._rest()
        self.safely(self.delete if self.retired else self._pump)

    def _rest(self):
        """Stop waiting for what may be on its way."""
        if self._drainer:
            self._drainer.cancel()
            self._drainer = None
        self.busy = -_QUIET_MS

    def _transmit(self, datagram, target, end=None):
        owner = self.owner
        owner.counters["datagrams_out"] += 1
        owner.counters["octets_out"] += len(datagram)
        self.sent = owner.clock.now()
        end = end or self._udp
        if end and end.send(datagram, target):
            return True
        owner.count("SEND_FAILED")
        return False

    def _arm(self):
        due = self.ike.next_timer()
        if due is None or not self._udp or (self._timer and self._timer_due <= due):
            return
        if self._timer:
            self._timer.cancel()
        self._timer_due = due
        self._timer = start(self._wake(due - self.owner.clock.now()), self._broken)

    async def _wake(self, ms):
        await asyncio.sleep_ms(max(ms, 0))
        self._timer = None
        self.safely(self._tick)

    def _tick(self):
        self.ike.timer(self.owner.clock.now())
        self._pump()
        if self.doubtful() and not self.retired:
            self.owner.on_rare("doubt", self)

    def doubtful(self):
        """Did we ask the gateway more than once, without an answer so far?"""
        return self.child is not None and self.ike is not None and self.ike.unanswered() > 1

    def keepalive(self):
        """Send a NAT keepalive (RFC 3948 §2.3)."""
        self._transmit(b"\xff", self._natt)

    def safely(self, work, *args):
        """Return work(*args); an exception ends the link and returns None."""
        try:
            return work(*args)
        except Exception as e:
            error = e
        # The failed call's objects are free only now: handle the error here.
        work = args = None
        self._broken(error)

    def _broken(self, error):
        spare(self.close)
        self._let_go()
        self.ike = self.sender = self.receiver = None
        forget_handshake()
        self.owner.on_broken(self, error)

    def _on_esp(self, datagram):
        owner = self.owner
        try:
            if self.receiver is None:
                raise Drop("UNEXPECTED_ESP")
            payload = self.receiver.open(datagram)
        except Drop as e:
            owner.count(e.args[0])
            return
        self.heard = self.prompt = True
        self.busy = owner.clock.now()
        self.waiting = None
        self.silent = 0
        owner.on_payload(payload, len(datagram))


def forget_handshake():
    """Let go of the code that only a handshake needs."""
    forget("handshake", "kex.methods", "kex.groups", "ike.fragment")
    if port.FORGETS_NATIVE:
        forget("kex")
    gc.collect()
