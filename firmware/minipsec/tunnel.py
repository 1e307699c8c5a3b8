"""The public tunnel: up, kept up, replaced before it ends, brought back when it was lost.

A `Tunnel` holds one `Link` that carries the readings and, while that is being replaced, the next
one beside it and the last one behind it.
"""

import asyncio

from . import port
from .link import Link

_MAX_INBOX = 8  # downlink messages that wait for receive(); later ones are discarded and counted
_MAX_WAITING = 16  # sends that wait for the tunnel; one more is refused and counted
_RETRY_MS = 1000  # the first pause before a new attempt; doubled up to retry_max_ms


class Tunnel:
    """An IKE SA and a Child SA with a gateway of the profile.

    `log` is called as log(event, {field: value}) and may print or ignore it.  `up` and `down` are
    Events.  Once up, a tunnel that is lost comes back by itself.
    """

    def __init__(self, profile, log=None):
        self.profile = profile
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.down.set()
        self.error = None  # the error that ended the tunnel for good
        self.clock = port.Clock()
        self.drops = {}
        self.counters = {}
        for key in ("sent", "received", "datagrams_out", "datagrams_in", "octets_out"):
            self.counters[key] = 0
        for key in ("octets_in", "attempts", "failed", "replaced", "lost"):
            self.counters[key] = 0
        self.log = log or _silent
        self._link = self._next = None
        self._old = []
        self._end = 0  # when the link is to be replaced
        self._turn = 0  # which gateway is next
        self._failed = None  # the last attempt's error
        self._tasks = []
        self._kick = asyncio.Event()  # for the keeper: look again
        self._inbox = []
        self._waiting = 0
        self._changed = asyncio.Event()

    async def __aenter__(self):
        await self.connect()
        return self

    async def __aexit__(self, *exc):
        await self.close()

    async def connect(self):
        """Bring the tunnel up, with each gateway of the profile in turn.

        Raises the MinipsecError of the last gateway, after at most
        retransmit_ms * (2 ** retransmit_tries - 1) for each of them.
        """
        for _ in self.profile["gateways"]:
            self._attempt()
            while self._next:
                await self._wait(None)
            if self._link:
                break
        else:
            self.error = self._failed
            await self.close()
            raise self.error
        self._tasks.append(asyncio.create_task(self._keep()))

    async def send(self, payload):
        """Send one reading as one ESP datagram; it is on the wire on return.

        Waits while there is no tunnel or while it is being replaced.  Raises UsageError for a
        payload too large or when too many sends wait already, and the error that ended the tunnel.
        """
        from .esp import MAX_PAYLOAD

        if len(payload) > MAX_PAYLOAD:
            self._misuse("a payload has at most %d octets" % MAX_PAYLOAD)
        octets = None
        while octets is None:
            if self._ready():
                link = self._link
                octets = link.send(payload)
                continue
            if self.error:
                raise self.error
            if self._waiting >= _MAX_WAITING:
                self.counters["lost"] += 1
                self._misuse("%d sends wait for the tunnel already" % _MAX_WAITING)
            self._waiting += 1
            try:
                await self._wait(None)
            finally:
                self._waiting -= 1
        self.counters["sent"] += 1
        sn = link.sender.numbers.last
        self.log("sent", {"n": self.counters["sent"], "sn": sn, "octets": octets, "data": payload})

    async def receive(self, timeout_ms=None):
        """Return the next downlink message, or None after `timeout_ms` milliseconds."""
        until = None if timeout_ms is None else self.clock.now() + timeout_ms
        while not self._inbox:
            if self.error:
                raise self.error
            left = None if until is None else until - self.clock.now()
            if left is not None and left <= 0:
                return None
            await self._wait(left)
        return self._inbox.pop(0)

    async def close(self):
        """Delete the SA at the gateway, wait shortly for its answer, let go of everything."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        if self._next:
            self._next.close()
        until = self.clock.now() + self.profile["retransmit_ms"]
        if self._link:
            self._retire(self._link)
        while self._old and until > self.clock.now():
            await self._wait(until - self.clock.now())
        for link in self._old[:]:
            link.close()

    def stats(self):
        """Return counters: readings and datagrams, and what was dropped, by reason."""
        drops = dict(self.drops)
        for link in [self._link, self._next] + self._old:
            if link:
                _add(drops, link.ike.drops)
        result = dict(self.counters)
        result["drops"] = drops
        return result

    # What a link tells.

    def alone(self):
        """Is there no SA with the gateway at present?"""
        return self._link is None

    def spis(self):
        """Return the inbound SPIs in use."""
        return [link.child["spi_in"] for link in [self._link] + self._old if link and link.child]

    def on_up(self, link):
        """The link carries from now on; its predecessor is deleted."""
        old = self._link
        self._link = link
        self._next = self._failed = None
        if old:
            self.counters["replaced"] += 1
            self._retire(old)
        p = self.profile
        # A fleet that started together must not renew together.
        self._end = link.born + _jittered(p["lifetime_ms"] * 9 // 10, p["lifetime_ms"] // 10)
        self.down.clear()
        self.up.set()
        self._notify()

    def on_down(self, link, error):
        """The link is gone, and we did not want it so."""
        self.log("error", describe(error))
        if link is self._next:
            self._next = None
            self._failed = error
            self.counters["failed"] += 1
        elif link is self._link:
            self._link = None
            self._failed = error
            self.up.clear()
            self.down.set()
        self._notify()

    def on_closed(self, link):
        """Keep what the link counted."""
        _add(self.drops, link.ike.drops)
        link.ike.drops.clear()
        if link in self._old:
            self._old.remove(link)
            self._notify()

    def on_payload(self, link, payload, octets):
        """A downlink message came."""
        if len(self._inbox) >= _MAX_INBOX:
            self.count("INBOX_FULL")
            return
        self.counters["received"] += 1
        self.log("reply", {"octets": octets, "data": payload})
        self._inbox.append(payload)
        self._changed.set()

    def on_answer(self, link):
        """The gateway is alive.

        If ESP used to come and what we sent is unanswered, then the gateway still sends to where
        a NAT had us before: only a new SA mends that.
        """
        deaf = link.waiting is not None and link.heard_esp > link.born
        link.waiting = None
        if deaf and link is self._link and not self._next:
            self._attempt()

    def count(self, reason):
        """Count one dropped datagram."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    # Keeping it up.

    def _ready(self):
        """May a reading go out now?

        Not from the moment on when the next SA's IKE_AUTH is out: the gateway may already have
        replaced the SA that would carry it.
        """
        return self._link and not (self._next and self._next.ike.authenticating())

    def _attempt(self):
        """Start a link with the next gateway in turn."""
        hosts = self.profile["gateways"]
        host = hosts[self._turn % len(hosts)]
        self._turn += 1
        self.counters["attempts"] += 1
        try:
            self._next = Link(self, host)
        except OSError:
            from .errors import LinkDown

            self.counters["failed"] += 1
            self._failed = LinkDown("cannot find or reach " + host)
            self.log("error", describe(self._failed))

    def _retire(self, link):
        if link is self._link:
            self._link = None
            self.up.clear()
            self.down.set()
        self._old.append(link)
        link.delete()

    async def _keep(self):
        """Watch over the tunnel for as long as it lives."""
        fails = 0
        p = self.profile
        while True:
            if self._link:
                fails = 0
                wait = self._look_after(self._link)
            elif self._next:
                wait = None
            elif 0 <= p["retries"] <= fails:
                self.error = self._failed
                self._notify()
                return
            else:
                pause = min(_RETRY_MS << min(fails, 20), p["retry_max_ms"])
                fails += 1
                await asyncio.sleep_ms(_jittered(pause // 2, pause))
                self._attempt()
                continue
            self._kick.clear()
            if wait is None:
                await self._kick.wait()
            else:
                try:
                    await asyncio.wait_for_ms(self._kick.wait(), max(wait, 1))
                except asyncio.TimeoutError:
                    pass

    def _look_after(self, link):
        """Do what is due for the link that carries; return ms until the next look, or None."""
        p = self.profile
        now = self.clock.now()
        waits = []
        if p["keepalive_ms"] and link.ike.nat is not False:
            if now - link.sent >= p["keepalive_ms"]:
                link.keepalive()
            waits.append(link.sent + p["keepalive_ms"] - now)
        if p["liveness_ms"]:
            # Only where an answer is owed to us: something went out and nothing came since.
            if link.waiting is None:
                waits.append(p["liveness_ms"])
            elif now - link.waiting >= p["liveness_ms"]:
                link.check()
                waits.append(p["liveness_ms"])
            else:
                waits.append(link.waiting + p["liveness_ms"] - now)
        if now >= self._end or link.sender.spent(p["max_packets"]):
            if not self._next:
                self._attempt()
                # If that fails, again after a while, as long as the old one holds.
                self._end = now + _jittered(p["retry_max_ms"] // 2, p["retry_max_ms"])
        waits.append(self._end - now)
        return min(waits)

    def _notify(self):
        self._changed.set()
        self._kick.set()

    async def _wait(self, timeout_ms):
        """Wait until something happened, or until the time is over."""
        self._changed.clear()
        if timeout_ms is None:
            await self._changed.wait()
        else:
            try:
                await asyncio.wait_for_ms(self._changed.wait(), timeout_ms)
            except asyncio.TimeoutError:
                pass

    def _misuse(self, text):
        from .errors import UsageError

        raise UsageError(text)


def describe(error):
    """Return the log fields of an error."""
    return {
        "error": type(error).__name__,
        "notify": error.notify,
        "text": str(error),
        "check": error.check,
    }


def _jittered(least, spread):
    """Return a random number of milliseconds from `least` on, `spread` wide."""
    return least + int.from_bytes(port.rand(4), "big") % (spread + 1)


def _add(total, drops):
    for reason, n in drops.items():
        total[reason] = total.get(reason, 0) + n


def _silent(event, fields):
    pass
