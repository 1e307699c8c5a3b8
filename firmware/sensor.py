"""The application: sample, queue, send, sleep.  `sample` is the one place that must be edited.

On a board it reads profile.json and runs for ever; on the unix port
`micropython firmware/main.py PROFILE.json [READINGS]` runs any profile.
"""

import asyncio
import gc
import json
import sys
import time

from minipsec import ProfileError, load_profile
from minipsec.app.queue import Backlog, as_octets
from minipsec.app.log import reporter
from minipsec.tasks import alive, spare

LED = None  # a pin's name or number, "LED" on a Pico W: on while the tunnel is up
QUEUE = 32  # readings that wait in RAM while the gateway is away
SPOOL = None  # a file like "spool.bin": what QUEUE has no room for goes there, and outlives sleep
SPOOL_OCTETS = 16384


def sample(n):
    """Return the n-th reading as octets, up to 1200 of them.  Put your sensor here."""
    return json.dumps({"n": n, "uptime_ms": time.ticks_ms()}).encode()


def command(octets):
    """Take a message that came down the tunnel.  Octets that are returned go back up."""


_LAST_REPLY_MS = 1000
_PAUSE_MS = 4000  # before the tunnel is tried anew, doubled up to retry_max_ms
_AGAIN_MS = 60000  # before a board with a bad profile looks at it again
_LONG_MS = 1 << 27  # asyncio's clock cannot tell more than four times that


def _failed(log, what, e):
    """Say that something of the owner's, or below it, raised; all else goes on."""
    from minipsec.errors import Failure, describe

    sys.print_exception(e)
    log("error", describe(Failure("%s: %r" % (what, e))))


def _take(backlog, n, log):
    """Put the n-th reading into the backlog; a sensor that fails once is asked again."""
    try:
        reading = sample(n)
        if reading is not None:
            backlog.put(reading)
    except Exception as e:
        backlog.fail()
        spare(_failed, log, "sample(%d)" % n, e)


async def sampling(backlog, profile, readings, up, log):
    """Put `readings` readings into the backlog, one each interval; 0 for no end.

    What raises between two of them is said, and after a pause sampling goes on.
    """
    if sys.argv:  # on a PC not before there is a tunnel
        await up.wait()
    while True:
        try:
            return await _each_interval(backlog, profile, readings, log)
        except Exception as e:
            spare(_failed, log, "sampling", e)
            await asyncio.sleep_ms(_PAUSE_MS)


async def _each_interval(backlog, profile, readings, log):
    interval = min(profile["interval_ms"], 4 * _LONG_MS - 1)
    due = time.ticks_ms()
    n = backlog.sampled + backlog.failed
    while True:
        n += 1
        _take(backlog, n, log)
        if n == readings:
            alive("sampling", None)
            backlog.end()
            return
        due = time.ticks_add(due, interval)
        left = time.ticks_diff(due, time.ticks_ms())
        if left < 0 < interval:  # too late for some: wait for the next one's time
            left %= interval
            due = time.ticks_add(time.ticks_ms(), left)
        while left > _LONG_MS:
            alive("sampling", 2 * _LONG_MS)
            await asyncio.sleep_ms(_LONG_MS)
            left = time.ticks_diff(due, time.ticks_ms())
        alive("sampling", max(left, 0) + _PAUSE_MS)
        await asyncio.sleep_ms(max(left, 0))
        while not interval and backlog.waiting():
            alive("sampling", _PAUSE_MS)
            await asyncio.sleep_ms(1)


async def sending(tunnel, backlog, batch):
    """Send what the backlog has, up to `batch` readings at once, until it ends."""
    while True:
        readings = await backlog.next(batch)
        if not readings:
            return
        try:
            await tunnel.send(b"\n".join(readings))
        except Exception as e:
            if e is tunnel.error:  # session gets it, too
                return
            raise
        backlog.drop(readings)


async def obeying(tunnel, octets, log):
    """Give what came down to `command`, and send what it returns."""
    try:
        answer = command(octets)
        if answer:
            await tunnel.send(as_octets(answer))
    except Exception as e:
        if e is tunnel.error:
            raise
        spare(_failed, log, "command", e)


async def session(tunnel, profile, backlog, log):
    """Bring the tunnel up and be its both ends until the backlog ends."""
    async with tunnel:
        sender = asyncio.create_task(sending(tunnel, backlog, profile["batch"]))
        try:
            heard = 0
            while heard < tunnel.counters["sent"] or not sender.done():
                octets = await tunnel.receive(timeout_ms=_LAST_REPLY_MS)
                if octets is not None:
                    heard += 1
                    await obeying(tunnel, octets, log)
                elif sender.done():
                    break
            await sender
        finally:
            sender.cancel()
        if profile["sleep"] != "off":
            await tunnel.suspend()


async def work(profile, readings, log):
    """Run sessions: one on a PC or before a sleep; on a board until one ends well."""
    # Only now, when the checker of profiles has left the heap again.
    gc.collect()
    from minipsec.board import port
    from minipsec.errors import describe, typed
    from minipsec.tunnel import Tunnel, jittered

    def report(e):
        log("error", describe(typed(e)))

    # A task of which nobody asks how it ended.
    asyncio.get_event_loop().set_exception_handler(lambda _, what: report(what["exception"]))
    sleeps = profile["sleep"] != "off"
    if SPOOL:
        from minipsec.app.spool import Spool

        backlog = Spool(QUEUE, SPOOL, SPOOL_OCTETS, sleeps)
    else:
        backlog = Backlog(QUEUE)
    pause = _PAUSE_MS
    sampler = None
    if not sys.argv:
        sampler = asyncio.create_task(sampling(backlog, profile, readings, None, log))
    if sleeps and SPOOL and sampler:
        await sampler
        if backlog.waiting() < profile["batch"] and backlog.save():
            log("stats", backlog.stats())
            return 0  # not enough yet to switch the radio on
    while True:
        code = 0
        tunnel = None
        try:
            if sleeps:
                await port.online(profile)  # for `resume`, which does not wait
            tunnel = Tunnel.resume(profile, log) or Tunnel(profile, log)
            if not sampler:
                up = tunnel.up
                sampler = asyncio.create_task(sampling(backlog, profile, readings, up, log))
            await session(tunnel, profile, backlog, log)
        except Exception as e:
            code = 1
            if not tunnel or e is not tunnel.error:  # that one was reported when it came
                report(e)
        last = not code or sys.argv or sleeps
        if last:
            if sampler:
                sampler.cancel()
            backlog.close(not tunnel or not tunnel.missed)
        stats = tunnel.stats() if tunnel else {}
        stats.update(backlog.stats())
        log("stats", stats)
        if last:
            return code
        await asyncio.sleep_ms(jittered(pause // 2, pause))
        pause = min(2 * pause, profile["retry_max_ms"])


def _profile(argv):
    """Return (profile, readings) of the command line; ProfileError where that is no good."""
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
    return profile, readings


def run(argv):
    """Run a profile; return 0 when all readings went out, 1 on an error, 2 on a bad profile.

    On a board an error or a bad profile is said, and after a pause the board starts anew.
    """
    try:
        profile, readings = _profile(argv)
    except Exception as e:
        if sys.argv and not isinstance(e, ProfileError):
            raise
        print(e if isinstance(e, ProfileError) else repr(e), file=sys.stderr)
        _restart(_AGAIN_MS)
        return 2
    log = reporter(profile["log"])
    if LED is not None:
        from minipsec.app.led import lamp

        log = lamp(LED, log)
    try:
        code = asyncio.run(work(profile, readings, log))
    except Exception as e:
        code = None
        spare(_failed, log, "sensor.py", e)
    if profile["sleep"] != "off":
        # Returns on a PC only, where the end of the process stands for the sleep.
        from minipsec.board.port import deep_sleep

        deep_sleep(profile["interval_ms"])
    if code is None:
        _restart(_PAUSE_MS)
        code = 1
    return code


def _restart(ms):
    from minipsec.board.port import restart

    restart(ms)
