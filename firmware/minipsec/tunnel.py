"""The public tunnel: up, kept up, replaced before it ends, brought back when it was lost.

A `Tunnel` holds one `Link` that carries the readings and, while that is being replaced, the next
one beside it and the last one behind it.
"""

import asyncio
from micropython import const

from . import port
from .faults import NO_MEMORY, LinkDown, OutOfMemory, UsageError
from .link import Link

_MAX_INBOX = const(8)  # downlink messages that wait for receive(); later ones are discarded
_MAX_WAITING = const(16)  # sends that wait for the tunnel; one more is refused and counted
_RETRY_MS = const(8000)  # the first pause is shorter than this, each further one twice as long
_FORGIVEN = const(2)  # a tunnel that lives this many longest pauses starts again with the first
_MIN_AGE_MS = const(1000)  # nothing makes a tunnel replace itself more often
_LONG = const(1 << 28)  # ms, over three days: no timer is set for longer


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
        port.begin(profile)
        self.clock = port.Clock()
        self.memory = None
        if profile["sleep"] != "off":
            from .memory import Memory

            self.memory = Memory(profile["directory"], profile["sleep"] == "mark")
        self.drops = {}
        self.counters = {}
        for key in (
            "sent", "received", "datagrams_out", "datagrams_in", "octets_out", "octets_in",
            "attempts", "failed", "replaced", "lost",
        ):  # fmt: skip
            self.counters[key] = 0
        self.log = log or _silent
        self._link = self._next = None
        self._old = []
        self._end = 0  # when the link is to be replaced
        self._turn = 0  # which gateway is next
        self._failed = None  # the last attempt's error
        self._tries = 0  # attempts since the tunnel was lost
        self._longest = _RETRY_MS  # that the next pause may be
        self._keeper = self._awake = None
        self._inbox = []
        self._waiting = 0
        self._changed = asyncio.Event()  # another one each time, so that no waiter can miss it

    @staticmethod
    def resume(profile, log=None):
        """Return a tunnel that goes on where `suspend` left it, without any exchange, or None.

        To be called inside asyncio, as is the first `Tunnel`.
        """
        tunnel = Tunnel(profile, log)
        if tunnel.memory:
            from .memory import wall
            from .snapshot import load

            tunnel._awake = load(profile, tunnel.memory, tunnel.clock.now(), wall())
            if tunnel._awake and profile["network"] == "up":
                tunnel._take_up()
        return tunnel if tunnel._awake or tunnel._link else None

    def _take_up(self):
        """Go on with the SA that outlived the sleep; where that fails a new one is made."""
        awake, self._awake = self._awake, None
        try:
            Link(self, awake.host, awake)
        except OSError:
            pass  # its port is taken, or there is no network

    async def suspend(self):
        """Put the SA away for a sleep and let go of everything, without a word to the gateway.

        True when `resume` can take it up; otherwise the tunnel is closed as by `close`.
        """
        link = self._link
        if link and self.memory and not self._next:
            clock = self.memory.clock(self.clock.now() - link.born)
            window = link.receiver.window
            # Answers used to come, and now they don't: the gateway may have lost the SA, or the
            # link a datagram.  One time in four the next wake-up makes a new SA.
            silent = link.waiting is not None and window.top and not link.heard
            if silent and port.noise(1)[0] < 64:
                self.memory.erase()
            elif link.snapshot.save(link.sender.packets, window, clock):
                self._link = None
                link.close()
                await self.close()
                return True
        await self.close()
        return False

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
        self.error = None
        if self._awake:
            await port.online(self.profile)
            self._take_up()
        if self.profile.get("warning") and not self._link:
            self.log("warning", {"text": self.profile["warning"]})
        try:
            for _ in self.profile["gateways"]:
                if self._link:
                    break
                self._attempt(await port.online(self.profile))
                while self._next:
                    await self._changed.wait()
            if not self._link:
                self.error = self._failed
                raise self.error
            self._keeper = asyncio.create_task(self._keep())
        finally:
            if not self._keeper:
                await self.close()

    async def send(self, payload):
        """Send one reading as one ESP datagram; it is on the wire on return.

        Waits while there is no tunnel, while it is being replaced and while there is no network.
        Raises UsageError for a payload too large or when too many sends wait already, and the
        error that ended the tunnel.
        """
        while True:
            link = self._link if self._ready() else None
            try:
                octets = link.send(payload) if link else 0
            except ValueError:
                from .esp import MAX_PAYLOAD

                raise UsageError("a payload has at most %d octets" % MAX_PAYLOAD)
            if octets:
                break
            if octets is None:
                await asyncio.sleep_ms(2)
                continue
            if self.error:
                raise self.error
            if self._waiting >= _MAX_WAITING:
                self.counters["lost"] += 1
                raise UsageError("%d sends wait for the tunnel already" % _MAX_WAITING)
            self._waiting += 1
            try:
                await _within(self._changed, self.profile["retransmit_ms"] if link else None)
            finally:
                self._waiting -= 1
        self.counters["sent"] += 1
        sn = link.sender.numbers.last
        self.log("sent", {"n": self.counters["sent"], "sn": sn, "octets": octets, "data": payload})

    async def receive(self, timeout_ms=None):
        """Return the next downlink message, or None after `timeout_ms` milliseconds."""
        until = None if timeout_ms is None else self.clock.now() + timeout_ms
        left = timeout_ms
        while not self._inbox:
            if self.error:
                raise self.error
            if until is not None:
                left = until - self.clock.now()
                if left <= 0:
                    return None
            await _within(self._changed, left)
        return self._inbox.pop(0)

    async def close(self):
        """Delete the SA at the gateway, wait shortly for its answer, let go of everything.

        Whoever still waits for the tunnel gets a UsageError.
        """
        if self._keeper:
            self._keeper.cancel()
            self._keeper = None
        if not self.error:
            self.error = UsageError("the tunnel is closed")
        self._tell()
        until = self.clock.now() + self.profile["retransmit_ms"]
        # While IKE_AUTH is out the gateway may have an SA that we cannot delete yet.
        await self._while(self._handing_over, until)
        if self._next:
            self._next.close()
        link = self._link
        self._link = self._next = None
        self._tell()
        if link:
            self._retire(link)
        await self._while(lambda: self._old, until)
        for link in self._old[:]:
            link.close()

    def stats(self):
        """Return counters: readings and datagrams, and what was dropped, by reason."""
        drops = dict(self.drops)
        for link in [self._link, self._next] + self._old:
            if link:
                _add(drops, link.ike.drops)
        return dict(self.counters, drops=drops)

    # What a link asks and tells.

    def alone(self):
        """Is there no SA with the gateway at present?"""
        return self._link is None

    def spis(self):
        """Return the inbound SPIs in use."""
        return [link.child["spi_in"] for link in [self._link] + self._old if link and link.child]

    def on_up(self, link):
        """The link carries from now on; its predecessor is deleted."""
        port.hurry(False)
        old = self._link
        self._link = link
        self._next = self._failed = None
        if self.up.is_set():
            self.counters["replaced"] += 1
        if old:
            self._retire(old)
        p = self.profile
        # A fleet that started together must not renew together.
        self._end = link.born + _jittered(p["lifetime_ms"] * 9 // 10, p["lifetime_ms"] // 10)
        self._tell()

    def on_down(self, link, error):
        """The link is gone, and we did not want it so."""
        port.hurry(False)
        if link is self._next:
            self._next = None
            self.counters["failed"] += 1
            self._turn += 1
        else:
            self._link = None
            self._tries = 0
            if self.clock.now() - link.born > _FORGIVEN * self._longest:
                self._longest = _RETRY_MS
            if self._handing_over():
                return  # the gateway made room for the new SA, whose answer is on its way
            if error.notify is None:
                self._turn += 1  # it was silence
        self._failed = error
        self.log("error", describe(error))
        self._tell()

    def on_stale(self, link):
        """The link holds, but a new one is wanted in its place."""
        end = max(self.clock.now(), link.born + _MIN_AGE_MS)
        # Said again and again while it waits: that must not wake the keeper each time.
        if link is self._link and not self._next and end < self._end:
            self._end = end
            self._tell()

    def on_closed(self, link):
        """Keep what the link counted."""
        _add(self.drops, link.ike.drops)
        link.ike.drops.clear()
        if link in self._old:
            self._old.remove(link)
            self._tell()

    def on_payload(self, payload, octets):
        """A downlink message came."""
        if len(self._inbox) >= _MAX_INBOX:
            self.count("INBOX_FULL")
            return
        self.counters["received"] += 1
        self.log("reply", {"octets": octets, "data": payload})
        self._inbox.append(payload)
        self._tell()

    def count(self, reason):
        """Count one dropped datagram."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    # Keeping it up.

    def _tell(self):
        """Wake whoever waits for something to happen."""
        if self._link:
            self.down.clear()
            self.up.set()
        elif not self._handing_over():
            self.up.clear()
            self.down.set()
        self._changed.set()
        self._changed = asyncio.Event()

    def _handing_over(self):
        return self._next and self._next.ike.authenticating()

    def _ready(self):
        """May a reading go out now?

        Not from the moment on when the next SA's IKE_AUTH is out: the gateway may already have
        replaced the SA that would carry it.
        """
        return self._link and not self._handing_over()

    def _attempt(self, online=True):
        """Start a link with the gateway whose turn it is."""
        hosts = self.profile["gateways"]
        host = hosts[self._turn % len(hosts)]
        self.counters["attempts"] += 1
        self._tries += 1
        try:
            if not online:
                raise OSError("no network")
            port.hurry(True)
            self._next = Link(self, host)
        except (OSError, MemoryError) as e:
            self.counters["failed"] += 1
            self._turn += 1
            if isinstance(e, OSError):
                self._failed = LinkDown("cannot reach %s: %r" % (host, e))
            else:
                self._failed = OutOfMemory(NO_MEMORY)
            self.log("error", describe(self._failed))

    def _retire(self, link):
        self._old.append(link)
        link.delete()

    async def _while(self, condition, until):
        while condition() and until > self.clock.now():
            await _within(self._changed, until - self.clock.now())

    async def _keep(self):
        """Watch over the tunnel for as long as it lives."""
        p = self.profile
        while True:
            changed = self._changed
            wait = None
            if self._link:
                wait = self._look_after(self._link)
            elif not self._next:
                if 0 <= p["retries"] <= self._tries:
                    self.error = self._failed
                    self._tell()
                    return
                await asyncio.sleep_ms(self._pause())
                self._attempt(await port.online(p))
                continue
            await _within(changed, wait)

    def _pause(self):
        """Return ms to wait before an attempt: at random, and longer after each failure.

        A fleet whose gateway deleted all SAs at once comes back spread over most of _RETRY_MS.
        """
        top = min(self._longest, self.profile["retry_max_ms"], _LONG)
        self._longest = 2 * top
        return _jittered(top // 8, top - top // 8)

    def _look_after(self, link):
        """Do what is due for the link that carries; return ms until the next look."""
        p = self.profile
        now = self.clock.now()
        wait = _LONG
        if not self._next:
            if now >= self._end:
                # If that fails, again after a while, as long as the old one holds.
                self._end = now + _jittered(p["retry_max_ms"] // 2, p["retry_max_ms"])
                self._attempt()
            wait = min(wait, self._end - now)
        ms = p["keepalive_ms"]
        if ms and link.ike.nat is not False:
            if now - link.sent >= ms:
                link.keepalive()
            wait = min(wait, link.sent + ms - now)
        ms = p["liveness_ms"]
        if ms:
            # Only where an answer is owed to us: something went out and nothing came since.
            since = now if link.waiting is None else link.waiting
            if now - since >= ms:
                link.check()
                since = now
            wait = min(wait, since + ms - now)
        return max(wait, 1)


async def _within(event, timeout_ms):
    """Wait for an event, not longer than `timeout_ms` where that is given."""
    if timeout_ms is None:
        await event.wait()
    else:
        try:
            await asyncio.wait_for_ms(event.wait(), timeout_ms)
        except asyncio.TimeoutError:
            pass


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
    return least + int.from_bytes(port.noise(4), "big") % (spread + 1)


def _add(total, drops):
    for reason, n in drops.items():
        total[reason] = total.get(reason, 0) + n


def _silent(event, fields):
    pass
