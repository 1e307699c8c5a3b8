"""The application: sample, send, wait.  `sample` is the one place to edit.

On a board it reads profile.json and runs for ever; on the unix port
`micropython firmware/main.py PROFILE.json [READINGS]` runs any profile.
"""

import asyncio
import gc
import json
import sys
import time

from minipsec import ProfileError, load_profile
from minipsec.report import reporter

_LAST_REPLY_MS = 1000


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


def run(argv):
    """Run a profile; return 0 when all readings went out, 1 on an error, 2 on a bad profile."""
    try:
        if len(argv) > 2:
            raise ProfileError("usage: main.py [PROFILE.json [READINGS]]")
        profile = load_profile(*argv[:1])
        readings = profile["readings"]
        if len(argv) == 2:
            if not argv[1].isdigit():
                raise ProfileError("readings: expected a count, 0 for no end, got " + argv[1])
            readings = int(argv[1])
        # Only now, when the checker of profiles has left the heap again.
        gc.collect()
        from minipsec.tunnel import Tunnel, describe

        log = reporter(profile["log"])
        tunnel = Tunnel(profile, log)
        code = 0
        try:
            asyncio.run(session(tunnel, profile, readings))
        except Exception as e:
            from minipsec import MinipsecError

            if not isinstance(e, MinipsecError):
                raise
            if e is not tunnel.error:  # that one was reported when it came
                log("error", describe(e))
            code = 1
        log("stats", tunnel.stats())
        return code
    except ProfileError as e:
        print(e, file=sys.stderr)
        return 2
