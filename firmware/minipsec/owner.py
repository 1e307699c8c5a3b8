"""What a tunnel knows: its links, its counters, and what the links tell it.

It holds one `Link` that carries the readings and, while that is being replaced, the next one beside
it and the last one behind it.  `keeper` acts on it.
"""

import asyncio
from micropython import const

from . import forget
from .board import port
from .errors import ProfileError, describe
from .tasks import spare

# Downlink messages that wait for receive(), later ones are discarded: as many as readings are out,
# within these bounds.
_MIN_INBOX = const(8)
_MAX_INBOX = const(32)
RETRY_MS = 8000  # the first pause is shorter than this, each further one twice as long
_FORGIVEN = const(2)  # a tunnel that lives this many longest pauses starts again with the first
_MIN_AGE_MS = const(1000)  # nothing makes a tunnel replace itself more often
_S_AUTH = const(3)
LONG = 1 << 28  # ms, over three days: no timer is set for longer


class Owner:
    """What a Tunnel knows, and what it hears from its links; see there."""

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

            # Without it each wake-up makes a new SA.
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
        self._longest = RETRY_MS  # that the next pause may be
        self._keeper = self._awake = None
        self.missed = False  # was the SA put away without the answers that used to come?
        self._inbox = []
        self._waiting = 0
        self._changed = asyncio.Event()  # another one each time, so that no waiter can miss it

    def stats(self):
        """Return counters: readings and datagrams, and what was dropped, by reason."""
        return self.on_rare("stats", self._links())

    def log(self, event, fields):
        """Tell the application what happened; what it does with that is its own affair."""
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
        """Is another SA there or about to be in place of this one?"""
        return link in self._old or (link is self._link and self._handing_over())

    def on_up(self, link):
        """The link carries from now on; its predecessor is deleted."""
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
        """An answer is owed to us from now on, or has come: wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def on_rare(self, what, link, value=None):
        """What happens seldom: see rare, which is loaded for it and forgotten."""
        from . import rare

        forget("rare")
        return getattr(rare, what)(self, link, value)

    def on_down(self, link, error):
        """The link is gone, and we did not want it so."""
        port.hurry(False)
        if link is not self._link:
            if link is self._next:
                self._next = None
            self._count_failed()
        else:
            self._link = None
            # What is under way beside it counts as the first attempt.
            self._tries = 1 if self._next else 0
            if self.clock.now() - link.born > _FORGIVEN * self._longest:
                self._longest = RETRY_MS
            if self._handing_over():
                return  # the gateway made room for the new SA, whose answer is on its way
            if error.notify is None:
                self._turn += 1  # it was silence
        self._failed = error
        # Even where there is no memory for a line of the log.
        self._tell()
        self.log("error", describe(error))

    def on_broken(self, link, error):
        """The link has closed itself over what was raised in it, maybe for want of memory."""
        self.on_closed(link)
        error = self._typed(error)
        if link.retired:
            self.log("error", describe(error))
        else:
            self.on_down(link, error)

    def on_stale(self, link):
        """The link holds, but a new one is wanted in its place."""
        end = max(self.clock.now(), link.born + _MIN_AGE_MS)
        # Said again and again while it waits: that must not wake the keeper each time.
        if link is self._link and not self._next and end < self._end:
            self._end = end
            self._tell()

    def on_closed(self, link):
        """Keep what the link counted."""
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
        """Count an attempt that failed, and whether anything came from anywhere meanwhile."""
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


def jittered(least, spread):
    """Return a random number of milliseconds from `least` on, `spread` wide."""
    noise = spare(port.noise, 4) or b"\x80"
    return least + int.from_bytes(noise, "big") % (spread + 1)
