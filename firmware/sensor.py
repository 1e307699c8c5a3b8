"""The application: sample, queue, send, sleep.  `sample` is the one place that must be edited.

On a board it reads profile.json and runs for ever; on the unix port
`micropython firmware/main.py PROFILE.json [READINGS]` runs any profile.
"""

import asyncio
import gc
import json
import os
import sys
import time

from minipsec import ProfileError, load_profile
from minipsec.backlog import Backlog
from minipsec.report import reporter

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


def _safely(work, *args):
    """Return work(*args), or None: a sensor that fails once is asked again the next time."""
    try:
        return work(*args)
    except Exception as e:
        sys.print_exception(e)


async def sampling(backlog, profile, readings, up):
    """Put `readings` readings into the backlog, one each interval; 0 for no end."""
    if sys.argv:  # on a PC not before there is a tunnel
        await up.wait()
    interval = profile["interval_ms"]
    due = time.ticks_ms()
    n = 0
    while True:
        n += 1
        reading = _safely(sample, n)
        if reading is not None:
            _safely(backlog.put, reading)
        if n == readings:
            backlog.end()
            return
        due = time.ticks_add(due, interval)
        left = time.ticks_diff(due, time.ticks_ms())
        if left < 0 < interval:  # too late for some: wait for the next one's time
            left %= interval
            due = time.ticks_add(time.ticks_ms(), left)
        await asyncio.sleep_ms(max(left, 0))
        while not interval and backlog.oldest(1):
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


async def session(tunnel, profile, backlog):
    """Bring the tunnel up and be its both ends until the backlog ends."""
    async with tunnel:
        sender = asyncio.create_task(sending(tunnel, backlog, profile["batch"]))
        try:
            heard = 0
            while heard < tunnel.counters["sent"] or not sender.done():
                octets = await tunnel.receive(timeout_ms=_LAST_REPLY_MS)
                if octets is not None:
                    heard += 1
                    answer = _safely(command, octets)
                    if answer:
                        await tunnel.send(answer)
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
    from minipsec import port
    from minipsec.tunnel import Tunnel, describe

    backlog = Backlog(QUEUE)
    if SPOOL:
        from minipsec.spool import Spool

        backlog = Spool(QUEUE, SPOOL, SPOOL_OCTETS)
    sleeps = profile["sleep"] != "off"
    pause = _PAUSE_MS
    sampler = None
    if sleeps and SPOOL and not sys.argv:
        sampler = asyncio.create_task(sampling(backlog, profile, readings, None))
        await sampler
        if sum([1 for _ in backlog.all()]) < profile["batch"] and backlog.save():
            return 0  # not enough yet to switch the radio on
    while True:
        if sleeps:
            await port.online(profile)  # for `resume`, which does not wait
        tunnel = Tunnel.resume(profile, log) or Tunnel(profile, log)
        if not sampler:
            sampler = asyncio.create_task(sampling(backlog, profile, readings, tunnel.up))
        code = 0
        try:
            await session(tunnel, profile, backlog)
        except Exception as e:
            from minipsec import MinipsecError

            if not isinstance(e, MinipsecError):
                raise
            if e is not tunnel.error:  # that one was reported when it came
                log("error", describe(e))
            code = 1
        stats = tunnel.stats()
        if backlog.lost:
            stats["unsent"] = backlog.lost
        log("stats", stats)
        if not code or sys.argv or sleeps:
            sampler.cancel()
            backlog.save()
            return code
        await asyncio.sleep_ms(pause // 2 + int.from_bytes(os.urandom(3), "big") % pause)
        pause = min(2 * pause, profile["retry_max_ms"])


def run(argv):
    """Run a profile; return 0 when all readings went out, 1 on an error, 2 on a bad profile."""
    try:
        if len(argv) > 2:
            raise ProfileError("usage: main.py [PROFILE.json [READINGS]]")
        profile = load_profile(*argv[:1])
    except ProfileError as e:
        print(e, file=sys.stderr)
        return 2
    readings = profile["readings"]
    if len(argv) == 2:
        if not argv[1].isdigit():
            print("readings: expected a count, 0 for no end, got " + argv[1], file=sys.stderr)
            return 2
        readings = int(argv[1])
    sleeps = profile["sleep"] != "off"
    if sleeps and not readings:
        readings = 1  # a wake-up
    log = reporter(profile["log"])
    if LED is not None:
        from minipsec.lamp import lamp

        log = lamp(LED, log)
    code = asyncio.run(work(profile, readings, log))
    if sleeps:
        # Returns on a PC only, where the end of the process stands for the sleep.
        from minipsec.port import deep_sleep

        deep_sleep(profile["interval_ms"])
    return code
