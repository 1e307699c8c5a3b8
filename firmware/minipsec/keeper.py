"""What keeps a tunnel up: the next gateway's turn, the pause before it, liveness, replacement."""

import asyncio
from micropython import const

from . import forget
from . import tasks
from .board import port
from .errors import Failure, describe, typed
from .link import Link
from .owner import LONG, RETRY_MS, Owner, jittered
from .tasks import alive

_SILENT = const(4)  # attempts that nothing came for; then the network is brought up afresh
_AGAIN = const(4)  # turns of asyncio's loop; two are enough
_ONLINE_MS = const(60000)  # more than bringing it up takes


class Keeper(Owner):
    """What a Tunnel does by itself; see there."""

    def _typed(self, error, host=None):
        """Return the MinipsecError that stands for an exception, counted where nobody expects it."""
        if host and isinstance(error, OSError):
            from .explain import unreachable

            error = unreachable(host, error)
            forget("explain")
            return error
        error = typed(error)
        self.counters["faults"] += isinstance(error, Failure)
        return error

    async def _online(self):
        """Bring the network up; afresh where it seems to be up and nothing comes through."""
        alive(id(self), _ONLINE_MS + port.look_ms)
        if self._silent < _SILENT:
            return await port.online(self.profile)
        self._silent = 0
        return await port.online(self.profile, True)

    def _attempt(self, online=True):
        """Start a link with the gateway whose turn it is."""
        hosts = self.profile["gateways"]
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
        self._failed = error
        self.log("error", describe(error))

    def _start(self, pause=0):
        """Have a task keep the tunnel up, after so many milliseconds."""
        self._keeper = tasks.start(self._keep(pause), self._fell)

    def _fell(self, error):
        self.on_rare("fell", None, error)

    async def _keep(self, pause):
        """Watch over the tunnel for as long as it lives."""
        p = self.profile
        alive(id(self), pause + port.look_ms)
        await asyncio.sleep_ms(pause)
        while True:
            changed = self._changed
            wait = LONG
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
        """Wait for a change, and say that all goes well: a link that stands still is closed."""
        for link in self._links():
            if not link.moves():
                link.safely(int, "a task of the link has ended")
        wait = min(wait, port.look_ms)
        alive(id(self), wait + port.look_ms)
        await within(changed, wait)

    def _pause(self):
        """Return ms to wait before an attempt: at random, and longer after each failure.

        A fleet whose gateway deleted all SAs at once comes back spread over most of RETRY_MS.
        """
        top = min(self._longest, self.profile["retry_max_ms"], LONG)
        self._longest = 2 * top
        return jittered(top // 8, top - top // 8)

    def _look_after(self, link):
        """Do what is due for the link that carries; return ms until the next look."""
        p = self.profile
        now = self.clock.now()
        wait = LONG
        if not self._next:
            if now >= self._end:
                # If that fails, again after a while, as long as the old one holds.
                self._end = now + jittered(p["retry_max_ms"] // 2, p["retry_max_ms"])
                self._attempt()
            wait = min(wait, self._end - now)
        ms = p["keepalive_ms"]
        if ms and link.ike.nat is not False:
            if now - link.sent >= ms:
                link.safely(link.keepalive)
            wait = min(wait, link.sent + ms - now)
        ms = p["liveness_ms"]
        since = link.waiting
        if ms and since is not None:
            # Only where an answer is owed to us: something went out and nothing came since.
            if now - since >= ms:
                link.safely(link.check)
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
        except asyncio.CancelledError:
            await _settle()
            raise


async def _settle():
    """Let MicroPython's wait_for cancel its caller a second time, as it does some tasks later.

    It is to come here, and not in the midst of what the caller does at its end.
    """
    try:
        for _ in range(_AGAIN):
            await asyncio.sleep_ms(0)
    except asyncio.CancelledError:
        pass
