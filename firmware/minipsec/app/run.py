"""The loop around sensor.py: sample, queue, send, obey commands, sleep, recover from errors.

On a board `run` reads profile.json and runs for ever.  On the unix port
`micropython firmware/main.py PROFILE.json [READINGS]` runs any profile.
"""

import asyncio
import gc
import sys
import time
from micropython import const

from .. import load_profile
from ..board import port
from ..errors import Failure, ProfileError, describe, typed
from ..tasks import alive, spare
from .log import reporter
from .queue import Queue, as_octets

_LAST_REPLY_MS = const(1000)
PAUSE_MS = 4000  # before the tunnel is tried anew, doubled up to retry_max_ms
AGAIN_MS = 60000  # before a board with a bad profile reads it again
_LONG_MS = const(1 << 27)  # asyncio's clock can tell up to four times that


def run(sensor, argv):
    """Run a profile; return 0 when all readings went out, 1 on an error, 2 on a bad profile.

    `sensor` is the owner's module.  After an error or with a bad profile, a board says so, pauses
    and starts anew.
    """
    try:
        profile, readings = _profile(sensor, argv)
    except Exception as e:
        known = isinstance(e, ProfileError)
        if sys.argv and not known:
            raise
        print(e if known else repr(e), file=sys.stderr)
        port.restart(AGAIN_MS)
        return 2
    log = reporter(profile["log"])
    led = getattr(sensor, "LED", None)
    if led is not None:
        from .led import with_led

        log = with_led(led, log)
    try:
        code = asyncio.run(_work(sensor, profile, readings, log))
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            raise
        code = None
        spare(_say, log, e, "sensor.py")
    if profile["sleep"] != "off":
        # Returns only on a PC, where the end of the process stands for the sleep.
        port.deep_sleep(profile["interval_ms"])
    if code is None:
        port.restart(PAUSE_MS)
        code = 1
    return code


def _profile(sensor, argv):
    """Return (profile, number of readings) for the command line; ProfileError if it is bad."""
    if len(argv) > 2:
        raise ProfileError("usage: main.py [PROFILE.json [READINGS]]")
    profile = load_profile(*argv[:1])
    readings = profile["readings"]
    if len(argv) == 2:
        if not argv[1].isdigit():
            raise ProfileError("readings: expected a count, 0 for no end, got " + argv[1])
        readings = int(argv[1])
    if profile["sleep"] != "off" and not readings:
        readings = 1  # a wake-up
    interval = getattr(sensor, "INTERVAL_MS", None)
    if interval is not None:
        if not isinstance(interval, int) or interval < 0:
            raise ProfileError("INTERVAL_MS: expected milliseconds, got %r" % (interval,))
        profile["interval_ms"] = interval
    return profile, readings


def _say(log, e, where=None):
    """Log an error; with `where`, the place in the owner's code, print a traceback, too."""
    if where:
        sys.print_exception(e)
        e = Failure("%s: %r" % (where, e))
    log("error", describe(typed(e)))


async def _value(found):
    """Return the result of a function of the owner's, which may be async."""
    return await found if hasattr(found, "send") else found


async def _work(sensor, profile, readings, log):
    """Run the owner's module with a checked profile; return an exit code."""
    # The checker of profiles has left the heap: free its memory first.
    gc.collect()
    most = getattr(sensor, "QUEUE", 32)
    path = getattr(sensor, "SPOOL", None)
    sleeps = profile["sleep"] != "off"
    if path:
        from .spool import Spool

        queue = Spool(most, path, getattr(sensor, "SPOOL_OCTETS", 16384), sleeps)
    else:
        queue = Queue(most)
    # Called for a task whose end nobody awaits.
    asyncio.get_event_loop().set_exception_handler(lambda _, what: _say(log, what["exception"]))
    command = getattr(sensor, "command", None)
    runner = Runner(profile, sensor.sample, command, queue, log)
    if not sys.argv:
        runner.begin(readings)
        if not sleeps:
            return await runner.for_ever()
        if path:
            return await runner.when_full()
    return await runner.once(readings)


class Runner:
    """Brings a sensor's readings into `queue`, and through tunnels to the server.

    `sample` and `command` are the owner's functions.  `log(event, fields)` is told what happens.
    """

    def __init__(self, profile, sample, command, queue, log):
        self.profile = profile
        self.sample = sample
        self.command = command
        self.queue = queue
        self.log = log
        self.tunnel = self.sampler = None
        self.ended = False

    def begin(self, readings, up=None):
        """Start to take `readings` readings, 0 for no end; with `up`, once that Event is set."""
        self.sampler = asyncio.create_task(self._sampling(readings, up))

    async def once(self, readings):
        """Run one session, on a PC or before a sleep; return its exit code.

        If sampling has not begun yet, it begins when the tunnel is up.
        """
        return self._end(await self._session(readings))

    async def when_full(self):
        """Run one session if the spool holds a batch; otherwise leave the radio off."""
        await self.sampler
        if self.queue.waiting() < self.profile["batch"] and self.queue.save():
            self._tell()
            return 0
        return await self.once(0)

    async def for_ever(self):
        """Run sessions on a board, with a longer pause after each, until one ends well."""
        from ..tunnel import jittered

        pause = PAUSE_MS
        while await self._session():
            self._tell()
            await asyncio.sleep_ms(jittered(pause // 2, pause))
            pause = min(2 * pause, self.profile["retry_max_ms"])
        return self._end(0)

    async def _session(self, readings=0):
        """Make a tunnel, or resume the one from before a sleep; return 1 if an error ends it."""
        from ..tunnel import Tunnel

        p = self.profile
        sleeps = p["sleep"] != "off"
        self.tunnel = tunnel = None
        try:
            if sleeps:
                await port.online(p)  # `resume` does not wait for the network
            tunnel = Tunnel.resume(p, self.log) or Tunnel(p, self.log)
            self.tunnel = tunnel
            if not self.sampler:
                self.begin(readings, tunnel.up)
            async with tunnel:
                await self._both_ways(tunnel)
                if sleeps:
                    await tunnel.suspend()
        except Exception as e:
            if not tunnel or e is not tunnel.error:  # the tunnel has logged its own error
                _say(self.log, e)
            return 1
        return 0

    async def _both_ways(self, tunnel):
        """Send readings and obey what comes down, until the queue ends."""
        sender = asyncio.create_task(self._sending(tunnel))
        try:
            heard = 0
            while heard < tunnel.counters["sent"] or not sender.done():
                octets = await tunnel.receive(timeout_ms=_LAST_REPLY_MS)
                if octets is not None:
                    heard += 1
                    await self._obey(tunnel, octets)
                elif sender.done():
                    break
            await sender
        finally:
            sender.cancel()

    async def _sending(self, tunnel):
        """Send readings, up to `batch` of them at once."""
        while True:
            readings = await self.queue.next(self.profile["batch"])
            if not readings:
                return
            try:
                await tunnel.send(b"\n".join(readings))
            except Exception as e:
                if e is tunnel.error:  # `receive` raises it, too
                    return
                raise
            self.queue.drop(readings)

    async def _obey(self, tunnel, octets):
        """Give what came down to `command`, and send what it returns."""
        try:
            answer = self.command and await _value(self.command(octets))
            if answer:
                await tunnel.send(as_octets(answer))
        except BaseException as e:
            if e is tunnel.error or isinstance(e, KeyboardInterrupt):
                raise
            spare(_say, self.log, e, "command")

    async def _sampling(self, readings, up):
        """Put readings into the queue, one each interval.

        After an exception between two of them it logs that, pauses and goes on.
        """
        if up:
            await up.wait()
        n = 0
        due = None
        while True:
            try:
                if due is None:
                    due = time.ticks_ms()
                n += 1
                await self._take(n)
                if n == readings:
                    break
                due = await self._next_due(due)
            except BaseException as e:
                if self._ends(e):
                    raise
                due = None
                spare(_say, self.log, e, "sampling")
                await asyncio.sleep_ms(PAUSE_MS)
        alive("sampling", None)
        self.queue.end()

    async def _take(self, n):
        """Put the n-th reading into the queue; count it as failed if `sample` raises."""
        try:
            alive("sampling", None)  # an async sample() may wait for its sensor
            reading = await _value(self.sample(n))
            if reading is not None:
                self.queue.put(reading)
        except BaseException as e:
            if self._ends(e):
                raise
            self.queue.fail()
            spare(_say, self.log, e, "sample(%d)" % n)

    def _ends(self, e):
        """Does this end sampling?  A CancelledError or SystemExit of the owner's code does not."""
        return self.ended or isinstance(e, KeyboardInterrupt)

    async def _next_due(self, due):
        """Wait for the next reading's time; return it, in ticks."""
        interval = min(self.profile["interval_ms"], 4 * _LONG_MS - 1)
        due = time.ticks_add(due, interval)
        left = time.ticks_diff(due, time.ticks_ms())
        if left < 0 < interval:  # some are missed: wait for the next one's time
            left %= interval
            due = time.ticks_add(time.ticks_ms(), left)
        while left > _LONG_MS:
            alive("sampling", 2 * _LONG_MS)
            await asyncio.sleep_ms(_LONG_MS)
            left = time.ticks_diff(due, time.ticks_ms())
        left = max(left, 0)
        alive("sampling", left + PAUSE_MS)
        await asyncio.sleep_ms(left)
        while not interval and self.queue.waiting():
            alive("sampling", PAUSE_MS)
            await asyncio.sleep_ms(1)
        return due

    def _end(self, code):
        """Save what waits, log the counters, return `code`."""
        self.ended = True
        if self.sampler:
            self.sampler.cancel()
        self.queue.close(not self.tunnel or not self.tunnel.missed)
        self._tell()
        return code

    def _tell(self):
        stats = self.tunnel.stats() if self.tunnel else {}
        stats.update(self.queue.stats())
        self.log("stats", stats)
