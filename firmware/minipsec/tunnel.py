"""The public tunnel: brings it up, keeps it up, replaces it before it ends, brings it back.

A `Tunnel` holds one `Link` that carries the readings and, while that is being replaced, the next
one beside it and the last one behind it.
"""

import asyncio
from micropython import const

from . import forget, tasks
from .board import port
from .errors import Failure, ProfileError, UsageError, describe, typed
from .link import Link
from .tasks import alive, spare

_LOOK_MS = const(10000)  # the longest wait between two looks at an attempt under way
_MAX_PAYLOAD = const(1200)  # esp.MAX_PAYLOAD, which is loaded late
_MAX_WAITING = const(16)  # sends that wait for the tunnel; one more is refused and counted
# Bounds on the downlink messages that wait for receive(); a later one is discarded.  The larger
# bound holds while readings are without an answer.
_MIN_INBOX = const(8)
_MAX_INBOX = const(32)
_RETRY_MS = const(8000)  # bound on the first pause; each further pause may be twice as long
_FORGIVEN = const(2)  # after so many longest pauses of life, begin with the first pause again
_MIN_AGE_MS = const(1000)  # a younger link is not replaced
_SILENT = const(4)  # attempts in a row without any datagram; then restart the network
_AGAIN = const(4)  # turns of asyncio's loop; two are enough
_ONLINE_MS = const(60000)  # more than bringing it up takes
_S_AUTH = const(3)
_LONG = const(1 << 28)  # ms, over three days: no timer is set for longer


class Tunnel:
    """An IKE SA and a Child SA with a gateway of the profile.

    `log` is called as log(event, {field: value}) and may print or ignore it.  `up` and `down` are
    Events.  Once up, a tunnel that is lost comes back by itself.
    """

    _begun = False  # is it connected, or about to be?

    def __init__(self, profile, log=None):
        if not isinstance(profile, dict) or "words" not in profile:
            raise ProfileError("profile: expected what load_profile() or profile(..) returns")
        self.profile = profile
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.down.set()
        self.error = None  # the error that ended the tunnel for good
        port.begin(profile)
        self.clock = port.Clock()
        self.memory = None
        if profile["sleep"] != "off":
            from .sleep import Memory

            # If it fails, each wake-up makes a new SA.
            self.memory = spare(Memory, profile["directory"], profile["sleep"] == "mark")
        self.drops = {}
        self.counters = {}
        for key in (
            "sent", "received", "datagrams_out", "datagrams_in", "octets_out", "octets_in",
            "attempts", "failed", "replaced", "lost", "unconfirmed", "faults",
        ):  # fmt: skip
            self.counters[key] = 0
        self._log = log
        self.mute = False  # was the warning given that nothing comes back?
        self._heard = self._silent = 0  # datagrams that came, and attempts since the last one
        self._link = self._next = None
        self._old = []
        self._end = 0  # when the link is to be replaced
        self._turn = 0  # which gateway is next
        self._failed = None  # the last attempt's error
        self._tries = 0  # attempts since the tunnel was lost
        self._longest = _RETRY_MS  # bound on the next pause
        self._keeper = self._awake = None
        self.missed = False  # answers used to come, and none came in this wake-up
        self._inbox = []
        self._waiting = 0
        self._changed = asyncio.Event()  # a new one for each change, so that no waiter misses it

    @staticmethod
    def resume(profile, log=None):
        """Return a tunnel that goes on where `suspend` left it, without any exchange, or None.

        Call it inside asyncio, as `Tunnel` itself.
        """
        tunnel = Tunnel(profile, log)
        return tunnel if tunnel.load() else None

    def load(self):
        """Find what `suspend` put away; False where there is nothing to go on with."""
        if self.memory:
            from .sleep import load

            # What cannot be taken up is made anew.
            self._awake = spare(load, self)
            if self._awake and self.profile["network"] == "up":
                self._take_up()
        return self._awake or self._link

    def _take_up(self):
        from .sleep import take_up

        awake, self._awake = self._awake, None
        spare(take_up, self, awake)

    async def suspend(self):
        """Put the SA away for a sleep and let go of everything, without a word to the gateway.

        True when `resume` can take it up; otherwise the tunnel is closed as by `close`.
        """
        kept = False
        if self.memory:
            from .sleep import put_away

            link = None if self._next else self._link
            kept, self.missed = spare(put_away, self, link) or (False, self.missed)
            if kept:
                self._link = None
                spare(link.close)
        await self.close()
        return kept

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
        if self._begun:
            raise UsageError("the tunnel is connected already, or about to be")
        self.error = None
        self._begun = True
        try:
            if self._awake:
                await self._online()
                self._take_up()
            if self.profile.get("warning") and not self._link:
                self.log("warning", {"text": self.profile["warning"]})
            for _ in self.profile["gateway"]:
                if self._link:
                    break
                online = await self._online()
                if self._begun:
                    self._attempt(online)
                while self._next:
                    await self._look(self._changed, _LOOK_MS)
            if not self._begun:  # closed meanwhile
                raise self.error
            if not self._link:
                raise self._failed
            self._start()
        except Exception as e:
            self.error = self._typed(e)
            raise self.error
        finally:
            if not self._keeper:
                await self.close()

    async def send(self, payload):
        """Send one reading as one ESP datagram; it is on the wire on return.

        Waits while there is no tunnel, while it is being replaced and while there is no network.
        Raises UsageError for a payload too large or when too many sends wait already, and the
        error that ended the tunnel; TypeError for what are no octets.
        """
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise TypeError("send takes bytes, not " + type(payload).__name__)
        # Copied: the caller may change the buffer, and items of a memoryview may be larger than 1.
        payload = bytes(payload)
        self._check_begun()
        if len(payload) > _MAX_PAYLOAD:
            raise UsageError("a payload has at most %d octets" % _MAX_PAYLOAD)
        while True:
            # Wait from the moment when the next SA's IKE_AUTH is out: the gateway may already have
            # replaced this SA.  Wait also while it is in doubt that the gateway lives.
            link = self._link
            if link and (self._handing_over() or link.doubtful()):
                link = None
            early = link and link.safely(link.early)
            if early:
                await asyncio.sleep_ms(early)
                continue
            octets = link.safely(link.send, payload) if link else 0
            if octets:
                break
            if self.error:
                raise self.error
            if self._waiting >= _MAX_WAITING:
                self.counters["lost"] += 1
                raise UsageError("%d sends wait for the tunnel already" % _MAX_WAITING)
            self._waiting += 1
            try:
                await within(self._changed, self.profile["retransmit_ms"] if link else None)
            finally:
                self._waiting -= 1
        self.counters["sent"] += 1
        sn = link.sender.numbers.last
        self.log("sent", {"n": self.counters["sent"], "sn": sn, "octets": octets, "data": payload})

    async def receive(self, timeout_ms=None):
        """Return the next downlink message, or None after `timeout_ms` milliseconds.

        Raises the error that ended the tunnel.
        """
        self._check_begun()
        until = None if timeout_ms is None else self.clock.now() + timeout_ms
        left = timeout_ms
        while not self._inbox:
            if self.error:
                raise self.error
            if until is not None:
                left = until - self.clock.now()
                if left <= 0:
                    return None
                left = min(left, _LONG)
            await within(self._changed, left)
        return self._inbox.pop(0)

    def _check_begun(self):
        if not (self._begun or self._link or self.error):
            raise UsageError("the tunnel is not connected: call connect(), or use `async with`")

    async def close(self):
        """Delete the SA at the gateway, wait shortly for its answer, let go of everything.

        A call of `send` or `receive` that still waits raises UsageError.
        """
        if self._keeper:
            self._keeper.cancel()
            self._keeper = None
        self._begun = False
        alive(id(self), None)
        if not self.error:
            self.error = UsageError("the tunnel is closed")
        self._tell()
        until = self.clock.now() + self.profile["retransmit_ms"]
        # Take each step even if the caller is cancelled in a wait.
        try:
            try:
                # While IKE_AUTH is out, the gateway may have an SA that we cannot delete yet.
                await self._while(self._handing_over, until)
            finally:
                self._delete()
            await self._while(lambda: self._old, until)
        finally:
            for link in self._old[:]:
                spare(link.close)

    def _delete(self):
        if self._next:
            spare(self._next.close)
        link = self._link
        self._link = self._next = None
        self._tell()
        if link:
            self._old.append(link)
        for link in self._old[:]:
            link.safely(link.delete)

    async def _while(self, condition, until):
        while condition() and until > self.clock.now():
            await within(self._changed, until - self.clock.now())

    # Keeping it up.

    def _typed(self, error, host=None):
        """Return the MinipsecError for an exception; count an unexpected one in `faults`."""
        if host and isinstance(error, OSError):
            from .explain import unreachable

            error = unreachable(host, error)
            forget("explain")
            return error
        error = typed(error)
        self.counters["faults"] += isinstance(error, Failure)
        return error

    async def _online(self):
        """Bring the network up; restart it when nothing came in for several attempts."""
        alive(id(self), _ONLINE_MS + port.look_ms)
        if self._silent < _SILENT:
            return await port.online(self.profile)
        self._silent = 0
        return await port.online(self.profile, True)

    def _attempt(self, online=True):
        """Start a link with the next gateway of the profile."""
        hosts = self.profile["gateway"]
        host = hosts[self._turn % len(hosts)]
        self.counters["attempts"] += 1
        self._tries += 1
        try:
            if not online:
                from .explain import no_network

                error = no_network(self.profile, port.why)
                forget("explain")
                raise error
            port.hurry(True)
            self._next = Link(self, host)
            return
        except Exception as e:
            error = e
        error = self._typed(error, host)
        port.hurry(False)
        self._count_failed()
        self._fail(error)

    def _start(self, pause=0):
        """Start the task that keeps the tunnel up, after `pause` milliseconds."""
        self._keeper = tasks.start(self._keep(pause), self._fell)

    def _fell(self, error):
        """The task that keeps the tunnel up has failed: close all links and start it anew.

        Starting is the last step: where memory ends before it, `tasks` calls this again.
        """
        for link in self._links():
            spare(link.close)
        self._link = self._next = None
        self._old = []
        self._fail(self._typed(error))
        self._start(self._pause())

    def _fail(self, error):
        """Keep the error and tell of it."""
        self._failed = error
        # Before the log, for which there may be no memory.
        self._tell()
        self.log("error", describe(error))

    async def _keep(self, pause):
        """Watch over the tunnel for as long as it lives."""
        p = self.profile
        alive(id(self), pause + port.look_ms)
        await asyncio.sleep_ms(pause)
        while True:
            changed = self._changed
            wait = _LONG
            if self._link:
                wait = self._look_after(self._link)
            elif not self._next:
                if 0 <= p["retries"] <= self._tries:
                    self.error = self._failed
                    alive(id(self), None)
                    self._tell()
                    return
                pause = self._pause()
                alive(id(self), pause + port.look_ms)
                await asyncio.sleep_ms(pause)
                self._attempt(await self._online())
                continue
            await self._look(changed, wait)

    async def _look(self, changed, wait):
        """Close links whose tasks have ended, report that we are alive, wait for a change."""
        for link in self._links():
            if not link.moves():
                link.safely(int, "a task of the link has ended")
        wait = min(wait, port.look_ms)
        alive(id(self), wait + port.look_ms)
        await within(changed, wait)

    def _pause(self):
        """Return ms to wait before an attempt: random, and longer after each failure.

        So a fleet whose gateway deleted all SAs at once comes back spread over most of _RETRY_MS.
        """
        top = min(self._longest, self.profile["retry_max_ms"], _LONG)
        self._longest = 2 * top
        return jittered(top // 8, top - top // 8)

    def _look_after(self, link):
        """Do what is due for the link that carries; return ms until the next look."""
        p = self.profile
        now = self.clock.now()
        wait = _LONG
        if not self._next:
            if now >= self._end:
                # If this attempt fails, try again later; the old link carries meanwhile.
                self._end = now + jittered(p["retry_max_ms"] // 2, p["retry_max_ms"])
                self._attempt()
            wait = min(wait, self._end - now)
        ms = p["keepalive_ms"]
        if ms and link.child["nat"]:
            if now - link.sent >= ms:
                link.safely(link.keepalive)
            wait = min(wait, link.sent + ms - now)
        ms = p["liveness_ms"]
        since = link.waiting
        if ms and since is not None:
            # `waiting` is set: something went out, and nothing has come since.
            if now - since >= ms:
                link.safely(link.check)
                since = now
            wait = min(wait, since + ms - now)
        return max(wait, 1)

    def stats(self):
        """Return counters: readings and datagrams, and what was dropped, by reason."""
        return self.on_rare("stats", self._links())

    def log(self, event, fields):
        """Tell the application what happened; an exception of its log is only counted."""
        if self._log:
            spare(self._log, event, fields)

    # What a link asks and tells.

    def alone(self):
        """Is there no SA with the gateway at present?"""
        return self._link is None

    def spis(self):
        """Return the inbound SPIs in use."""
        return [link.child["spi_in"] for link in [self._link] + self._old if link and link.child]

    def replaces(self, link):
        """Is another SA in place of this one, or about to be?"""
        return link in self._old or (link is self._link and self._handing_over())

    def on_up(self, link):
        """The link is up and carries readings from now on; delete its predecessor."""
        port.hurry(False)
        old = self._link
        self._link = link
        self._next = self._failed = None
        self._silent = 0
        if self.up.is_set():
            self.counters["replaced"] += 1
        if old:
            self._retire(old)
        ms = link.snapshot.life if link.snapshot else self.profile["lifetime_ms"]
        # A fleet that started together must not renew together.
        self._end = link.born + jittered(ms * 9 // 10, ms // 10)
        self._tell()

    def on_waiting(self):
        """An answer has become due, or has come: wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def on_rare(self, what, link, *values):
        """Call a function of `rare`, which is loaded for this call and forgotten."""
        from . import rare

        forget("rare")
        self.mute = self.mute or what == "mute"  # one warning is enough
        return getattr(rare, what)(self, link, *values)

    def on_down(self, link, error):
        """The link has failed, or the gateway ended it."""
        port.hurry(False)
        if link is not self._link:
            if link is self._next:
                self._next = None
            self._count_failed()
        else:
            self._link = None
            # A link that is being made beside it counts as the first attempt.
            self._tries = 1 if self._next else 0
            if self.clock.now() - link.born > _FORGIVEN * self._longest:
                self._longest = _RETRY_MS
            if self._handing_over():
                return  # the gateway replaced it by the new SA, whose answer is on its way
            if error.notify is None:
                self._turn += 1  # no answer at all: the next gateway's turn
        self._fail(error)

    def on_broken(self, link, error):
        """The link has closed itself after an exception, perhaps a MemoryError."""
        self.on_closed(link)
        error = self._typed(error)
        if link.retired:
            self.log("error", describe(error))
        else:
            self.on_down(link, error)

    def on_stale(self, link, end=None):
        """The link still works, but a new one has to replace it by `end`; True if that is news."""
        if link is self._link and (end or not self._next):
            end = end or max(self.clock.now(), link.born + _MIN_AGE_MS)
            # A link calls this repeatedly while it waits; wake the keeper only on a change.
            if end < self._end:
                self._end = end
                self._tell()
                return True

    def on_closed(self, link):
        """The link is closed: add its drops to ours."""
        if link.ike:
            for reason, n in link.ike.drops.items():
                self.count(reason, n)
            link.ike.drops.clear()
        if link in self._old:
            self._old.remove(link)
            self._tell()

    def on_payload(self, data, octets):
        """A downlink message came."""
        owed = self.counters["sent"] > self.counters["received"]
        if len(self._inbox) >= (_MAX_INBOX if owed else _MIN_INBOX):
            self.count("INBOX_FULL")
            return
        self.counters["received"] += 1
        self.log("reply", {"octets": octets, "data": data})
        self._inbox.append(data)
        self._tell()

    def count(self, reason, n=1):
        """Count dropped datagrams."""
        self.drops[reason] = self.drops.get(reason, 0) + n

    # What both parts need.

    def _tell(self):
        """Wake whoever waits for something to happen."""
        if self._link:
            self.down.clear()
            self.up.set()
        elif not self._handing_over():
            self.up.clear()
            self.down.set()
        self.on_waiting()

    def _handing_over(self):
        return self._next and self._next.ike.state == _S_AUTH

    def _count_failed(self):
        """Count a failed attempt, and whether any datagram came in meanwhile."""
        self.counters["failed"] += 1
        self._turn += 1
        self._silent += 1
        if self._heard != self.counters["datagrams_in"]:
            self._heard = self.counters["datagrams_in"]
            self._silent = 0

    def _retire(self, link):
        self._old.append(link)
        link.safely(link.retire)

    def _links(self):
        return [link for link in [self._link, self._next] + self._old if link]


async def within(event, timeout_ms):
    """Wait for an event, but not longer than `timeout_ms` if that is given."""
    if timeout_ms is None:
        await event.wait()
    else:
        try:
            await asyncio.wait_for_ms(event.wait(), timeout_ms)
        except asyncio.TimeoutError:
            pass
        except asyncio.CancelledError:
            await _settle()
            raise


async def _settle():
    """Wait for the second cancellation that MicroPython's wait_for sends its caller a little later.

    It must arrive here, and not while the caller cleans up.
    """
    try:
        for _ in range(_AGAIN):
            await asyncio.sleep_ms(0)
    except asyncio.CancelledError:
        pass


def jittered(least, spread):
    """Return a random number of milliseconds from `least` on, `spread` wide."""
    noise = spare(port.noise, 4) or b"\x80"
    return least + int.from_bytes(noise, "big") % (spread + 1)
