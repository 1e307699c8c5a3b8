"""What moves the datagrams of a link: its sockets, the core's timer, a pace."""

import asyncio
import gc
from micropython import const

from . import forget
from .board import port
from .tasks import spare, start

_NO_MEMORY_MS = const(50)  # until the next try
_QUIET_MS = const(1000)  # without ESP, until an SA that is replaced may end
_MAX_QUIET = const(4)  # times that; a gateway waits as long for an answer to its DELETE
_S_DEAD = const(6)
_MAX_DRAIN = const(8)  # datagrams read in one go: as many as Tunnel keeps for the application


class Traffic:
    """The part of a Link between its sockets and its core; see there."""

    busy = -_QUIET_MS  # when ESP went or came last

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
        """Do its tasks run that bring datagrams in and see to its timer?"""
        timer = self._timer
        return not self._reader.done() and (
            self.ike.next_timer() is None or (timer is not None and not timer.done())
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
                # Too fragmented for a buffer at present.
                self.owner.count("NO_MEMORY")
                await asyncio.sleep_ms(_NO_MEMORY_MS)

    def _take(self, end, datagram, source):
        owner = self.owner
        owner.counters["datagrams_in"] += 1
        owner.counters["octets_in"] += len(datagram)
        # To IKE or to ESP: by the non-ESP marker or our SPIi, never by address.
        marked = datagram[:4] == b"\0\0\0\0"
        if end is not self._udp:
            self._on_esp(datagram)
        elif not datagram:
            owner.count("BAD_LENGTH")
        elif marked and self.ike.asleep:
            owner.count("NO_IKE_SA")
        elif marked or datagram[:8] == self.ike.spi_i:
            self.ike.receive(datagram, owner.clock.now())
            self._pump(source)
        elif datagram == b"\xff":
            owner.count("KEEPALIVE")
        else:
            self._on_esp(datagram)

    def _pump(self, source=None):
        """Take what the core has for us: datagrams, events, its timer."""
        # A gateway that replaces an SA deletes the old one, and ends it as soon as we answer.
        if self.ike.state == _S_DEAD and self.owner.replaces(self) and self._drains():
            return
        gap = self.owner.profile["fragment_gap_ms"]
        while not self._pacer and self._send_next(source):
            # Radios and short queues drop what comes in bursts.
            if gap and self.ike._out:
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
        """Is something still on its way by this SA, for all we know?  Then it ends by itself later.

        A gateway that is busy decrypts late, and lets replies out late.
        """
        if not self._drainer and self._restless() > 0:
            self._drainer = start(self._drain(), self._broken)
        return self._drainer

    def _restless(self):
        return self.busy + _QUIET_MS - self.owner.clock.now()

    async def _drain(self):
        for _ in range(_MAX_QUIET):
            await asyncio.sleep_ms(max(self._restless(), 0))
        self._drainer = None
        self._rest()
        self.safely(self.delete if self.retired else self._pump)

    def _rest(self):
        """Wait for nothing that is on its way."""
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
        """Was a question to the gateway sent more than once, and is still without an answer?"""
        return self.child is not None and not self.ike.asleep and self.ike.unanswered() > 1

    def keepalive(self):
        """Send a NAT keepalive (RFC 3948 §2.3)."""
        self._transmit(b"\xff", self._natt)

    def safely(self, work, *args):
        """Return work(*args), or None: what it raises ends the link, as half done is of no use."""
        try:
            return work(*args)
        except Exception as e:
            error = e
        # Only here, where nothing holds the half-done work any more, is there memory for the rest.
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
        if self.receiver is None:
            owner.count("UNEXPECTED_ESP")
        else:
            payload = self.receiver.open(datagram)
            if isinstance(payload, str):
                owner.count(payload)
            else:
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
