"""The driver: one tunnel to one gateway, on asyncio.

The only module that knows both the sans-IO core and the board.  It moves datagrams between the
socket and the core, keeps one timer armed, and turns events into what its owner awaits.
"""

import asyncio

from . import port
from .ike import Initiator

_MAX_INBOX = 8  # downlink messages that wait for receive(); later ones are discarded and counted
_MAX_DRAIN = 16  # datagrams read in one go, so that a flood cannot starve the application


class Tunnel:
    """An IKE SA and a Child SA with the gateway of a profile.

    `log` is called as log(event, {field: value}) and may print or ignore it.
    """

    def __init__(self, profile, log=None):
        self.profile = profile
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.error = None
        self.drops = {}
        self.counters = {"sent": 0, "received": 0, "datagrams_out": 0, "datagrams_in": 0}
        self.counters["octets_out"] = self.counters["octets_in"] = 0
        self._log = log or _silent
        self._clock = port.Clock()
        self._udp = self._ike = self._sender = self._receiver = None
        self._tasks = []
        self._timer = None
        self._timer_due = 0
        self._hint = None
        self._inbox = []
        self._arrived = asyncio.Event()

    async def __aenter__(self):
        await self.connect()
        return self

    async def __aexit__(self, *exc):
        await self.close()

    async def connect(self):
        """Bring the tunnel up: IKE_SA_INIT and IKE_AUTH.

        Raises a MinipsecError after retransmit_ms * (2 ** retransmit_tries - 1) at the latest.
        """
        p = self.profile
        try:
            self._gateway = port.resolve(p["gateway"], p["port"])
            self._gateway_natt = port.resolve(p["gateway"], p["natt_port"])
            self._udp = port.UDP(self._gateway)
        except OSError:
            from .errors import LinkDown

            self._stop(LinkDown("cannot find %s" % p["gateway"]))
            raise self.error
        self._ike = Initiator(p, port.rand)
        self._began = self._clock.now()
        self._ike.start(self._began, None, port.packed(self._gateway))
        self._tasks.append(asyncio.create_task(self._read()))
        self._pump()
        while not (self.up.is_set() or self.error):
            await self._wait(None)
        if self.error:
            await self.close()
            raise self.error

    async def send(self, payload):
        """Send one reading as one ESP datagram; its octets are on the wire on return.

        Raises UsageError for a payload too large, and the error that ended the tunnel.
        """
        if self.error:
            raise self.error
        from .esp import MAX_PAYLOAD

        if len(payload) > MAX_PAYLOAD:
            from .errors import UsageError

            raise UsageError("a payload has at most %d octets" % MAX_PAYLOAD)
        packet = self._sender.seal(payload, self._clock.now())
        if packet is None:
            from .errors import SaEnded

            self._stop(SaEnded("the sequence numbers of this SA are used up"))
            raise self.error
        self.counters["sent"] += 1
        sn = self._sender.numbers.last
        self._log(
            "sent", {"n": self.counters["sent"], "sn": sn, "octets": len(packet), "data": payload}
        )
        self._transmit(packet, self._gateway_natt)

    async def receive(self, timeout_ms=None):
        """Return the next downlink message, or None after `timeout_ms` milliseconds."""
        until = None if timeout_ms is None else self._clock.now() + timeout_ms
        while not self._inbox:
            if self.error:
                raise self.error
            left = None if until is None else until - self._clock.now()
            if left is not None and left <= 0:
                return None
            await self._wait(left)
        return self._inbox.pop(0)

    async def close(self):
        """Delete the SA at the gateway, wait shortly for its answer, let go of everything."""
        if self._ike and self.up.is_set() and not self.error:
            from . import established

            now = self._clock.now()
            until = now + self.profile["retransmit_ms"]
            established.delete(self._ike, now)
            self._pump()
            while not self.down.is_set() and until > self._clock.now():
                await self._wait(until - self._clock.now())
        self._stop(self.error)
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        if self._udp:
            self._udp.close()
            self._udp = None

    def stats(self):
        """Return counters: readings and datagrams, and what was dropped, by reason."""
        drops = dict(self.drops)
        if self._ike:
            for reason, n in self._ike.drops.items():
                drops[reason] = drops.get(reason, 0) + n
        result = dict(self.counters)
        result["drops"] = drops
        return result

    # Between socket and core.

    async def _read(self):
        while True:
            await port.readable(self._udp)
            for _ in range(_MAX_DRAIN):
                got = self._udp.receive()
                if got is None:
                    break
                self._dispatch(*got)
            else:
                await asyncio.sleep_ms(0)

    def _dispatch(self, datagram, source):
        """Give a datagram to IKE or to ESP: by the non-ESP marker or our SPIi, never by address."""
        self.counters["datagrams_in"] += 1
        self.counters["octets_in"] += len(datagram)
        if datagram[:4] == b"\0\0\0\0" or datagram[:8] == self._ike.spi_i:
            self._ike.receive(datagram, self._clock.now())
            self._pump(source)
        elif datagram == b"\xff":
            self._count("KEEPALIVE")
        elif self._receiver is None:
            self._count("UNEXPECTED_ESP")
        else:
            payload = self._receiver.open(datagram)
            if isinstance(payload, str):
                self._count(payload)
            elif len(self._inbox) >= _MAX_INBOX:
                self._count("INBOX_FULL")
            else:
                self.counters["received"] += 1
                self._log("reply", {"octets": len(datagram), "data": payload})
                self._inbox.append(payload)
                self._arrived.set()

    def _pump(self, source=None):
        """Take what the core has for us: datagrams, events, its timer."""
        ike = self._ike
        while True:
            datagram = ike.poll_out()
            if datagram is None:
                break
            if ike.reply:
                self._transmit(datagram, source)
            else:
                self._transmit(datagram, self._gateway_natt if ike.floated else self._gateway)
        while True:
            event = ike.next_event()
            if event is None:
                break
            self._handle(event)
        self._arm()

    def _transmit(self, datagram, target):
        self.counters["datagrams_out"] += 1
        self.counters["octets_out"] += len(datagram)
        if not self._udp.send(datagram, target):
            self._count("SEND_FAILED")

    def _arm(self):
        due = self._ike.next_timer()
        if due is None or (self._timer and self._timer_due <= due):
            return
        if self._timer:
            self._timer.cancel()
        self._timer_due = due
        self._timer = asyncio.create_task(self._wake(due - self._clock.now()))

    async def _wake(self, ms):
        await asyncio.sleep_ms(max(ms, 0))
        self._timer = None
        self._ike.timer(self._clock.now())
        self._pump()

    def _handle(self, event):
        kind = event[0]
        if kind == "state":
            self._log("state", {"state": event[1], "t": self._clock.now() - self._began})
            if event[1] == "DOWN":
                self._stop(self.error)
        elif kind == "agreed":
            self._agreed = event[1]
        elif kind == "up":
            self._on_up(event[1])
        elif kind == "hint":
            from .errors import notify_name

            if self._hint != event[1]:
                self._hint = event[1]
                self._log("hint", {"notify": notify_name(event[1])})
        elif kind == "failed":
            from .errors import failure

            self._stop(failure(event[1], event[2], self._hint))
        elif kind == "deleted":
            from .errors import SaEnded

            self._stop(SaEnded("the gateway deleted the SA"))
        elif kind == "keys":
            from .store import write_keylog

            write_keylog(self.profile["keylog"], event[1:])

    def _on_up(self, child):
        from .esp import Receiver, Sender
        from .sequence import Sequence
        from .store import proposal_name

        p = self.profile
        now = self._clock.now()
        ends = (child["inner"], p["server"], p["inner_port"], p["server_port"])
        back = (p["server"], child["inner"], p["server_port"], p["inner_port"])
        self._sender = Sender(child, ends, Sequence(now, p["sn_tick_ms"]))
        self._receiver = Receiver(child, back, p["replay_window"])
        self._log(
            "agreed", {"ike": proposal_name(self._agreed), "esp": proposal_name(child["picked"])}
        )
        fields = {
            "spi_i": self._ike.spi_i.hex(),
            "spi_r": self._ike.spi_r.hex(),
            "spi_in": child["spi_in"].hex(),
            "spi_out": child["spi_out"].hex(),
            "inner": port.text(child["inner"]),
            "gateway": p["gateway"],
            "nat": self._ike.nat,
            "ms": now - self._began,
        }
        for key in ("octets_out", "octets_in", "datagrams_out", "datagrams_in"):
            fields[key] = self.counters[key]
        self._log("up", fields)
        self.up.set()
        self._arrived.set()

    def _stop(self, error):
        if error and not self.error:
            self.error = error
        self.up.clear()
        self.down.set()
        self._sender = self._receiver = None
        self._arrived.set()

    async def _wait(self, timeout_ms):
        """Wait until something happened, or until the time is over."""
        self._arrived.clear()
        if timeout_ms is None:
            await self._arrived.wait()
        else:
            try:
                await asyncio.wait_for_ms(self._arrived.wait(), timeout_ms)
            except asyncio.TimeoutError:
                pass

    def _count(self, reason):
        self.drops[reason] = self.drops.get(reason, 0) + 1


def _silent(event, fields):
    pass
