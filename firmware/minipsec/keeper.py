"""The links of a tunnel: one carries the readings, it is replaced before it ends and when it is lost.

A `Keeper` holds one `Link` that carries and, while that is being replaced, the next one beside it
and the last one behind it.
"""

import asyncio
from micropython import const

from . import port
from .faults import NO_MEMORY, LinkDown, OutOfMemory, ProfileError, describe
from .link import Link

_MAX_INBOX = const(8)  # downlink messages that wait for receive(); later ones are discarded
_RETRY_MS = const(8000)  # the first pause is shorter than this, each further one twice as long
_FORGIVEN = const(2)  # a tunnel that lives this many longest pauses starts again with the first
_MIN_AGE_MS = const(1000)  # nothing makes a tunnel replace itself more often
_S_AUTH = const(3)
_LONG = const(1 << 28)  # ms, over three days: no timer is set for longer


class Keeper:
    """What a Tunnel knows, and what it does by itself; see there."""

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
            from .memory import Memory

            self.memory = Memory(profile["directory"], profile["sleep"] == "mark")
        self.drops = {}
        self.counters = {}
        for key in (
            "sent", "received", "datagrams_out", "datagrams_in", "octets_out", "octets_in",
            "attempts", "failed", "replaced", "lost", "unconfirmed",
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
        self.missed = False  # was the SA put away without the answers that used to come?
        self._inbox = []
        self._waiting = 0
        self._changed = asyncio.Event()  # another one each time, so that no waiter can miss it

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

    def replaces(self, link):
        """Is another SA there or about to be in place of this one?"""
        return link in self._old or (link is self._link and self._handing_over())

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
        # Even where there is no memory for a line of the log.
        self._tell()
        self.log("error", describe(error))

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

    def on_payload(self, data, octets):
        """A downlink message came."""
        if len(self._inbox) >= _MAX_INBOX:
            self.count("INBOX_FULL")
            return
        self.counters["received"] += 1
        self.log("reply", {"octets": octets, "data": data})
        self._inbox.append(data)
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
        return self._next and self._next.ike.state == _S_AUTH

    def _attempt(self, online=True):
        """Start a link with the gateway whose turn it is."""
        hosts = self.profile["gateways"]
        host = hosts[self._turn % len(hosts)]
        self.counters["attempts"] += 1
        self._tries += 1
        try:
            if not online:
                raise OSError("there is no network")
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
        link.retire()

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
            await within(changed, wait)

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


async def within(event, timeout_ms):
    """Wait for an event, not longer than `timeout_ms` where that is given."""
    if timeout_ms is None:
        await event.wait()
    else:
        try:
            await asyncio.wait_for_ms(event.wait(), timeout_ms)
        except asyncio.TimeoutError:
            pass


def _jittered(least, spread):
    """Return a random number of milliseconds from `least` on, `spread` wide."""
    return least + int.from_bytes(port.noise(4), "big") % (spread + 1)


def _add(counters, drops):
    for reason, n in drops.items():
        counters[reason] = counters.get(reason, 0) + n


def _silent(*_):
    pass
