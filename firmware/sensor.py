"""The application: sample, send, wait.  `sample` is the one place to edit.

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
from minipsec.report import reporter

_LAST_REPLY_MS = 1000
_PAUSE_MS = 4000  # before the tunnel is tried anew, doubled up to retry_max_ms


def sample(n):
    """Return the n-th reading as octets, up to 1200 of them.  Put your sensor here."""
    return json.dumps({"n": n, "uptime_ms": time.ticks_ms()}).encode()


async def session(tunnel, profile, readings):
    """Bring the tunnel up and send `readings` readings, 0 for no end."""
    interval = profile["interval_ms"]
    async with tunnel:
        n = 0
        while n < readings or not readings:
            n += 1
            due = time.ticks_add(time.ticks_ms(), interval)
            await tunnel.send(sample(n))
            # Answers are taken as they come, until it is time for the next reading.
            while n != readings:
                left = time.ticks_diff(due, time.ticks_ms())
                if left <= 0:
                    await asyncio.sleep_ms(0)
                    break
                await tunnel.receive(timeout_ms=left)
        while tunnel.counters["received"] < n:
            if await tunnel.receive(timeout_ms=_LAST_REPLY_MS) is None:
                break
        if profile["sleep"] != "off":
            await tunnel.suspend()


async def work(profile, readings, log):
    """Run sessions: one on a PC, returning its exit code; on a board until one ends well."""
    # Only now, when the checker of profiles has left the heap again.
    gc.collect()
    from minipsec.tunnel import Tunnel, describe

    pause = _PAUSE_MS
    while True:
        tunnel = Tunnel.resume(profile, log) or Tunnel(profile, log)
        code = 0
        try:
            await session(tunnel, profile, readings)
        except Exception as e:
            from minipsec import MinipsecError

            if not isinstance(e, MinipsecError):
                raise
            if e is not tunnel.error:  # that one was reported when it came
                log("error", describe(e))
            code = 1
        log("stats", tunnel.stats())
        if not code or sys.argv:
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
    code = asyncio.run(work(profile, readings, reporter(profile["log"])))
    if sleeps:
        # Returns on a PC only, where the end of the process stands for the sleep.
        from minipsec.port import deep_sleep

        deep_sleep(profile["interval_ms"])
    return code
