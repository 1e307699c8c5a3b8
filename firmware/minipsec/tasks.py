"""The one place that runs tasks, and what the watchdog goes by: nothing ends in silence.

    start(work(), failed)   a task; an exception that ends it goes to failed(error)
    spare(work, *args)      what readings do not need: counted in `skipped` where it raises
    alive(who, ms)          `who` is heard of again within `ms`, or the watchdog bites
    alive(who, None)        `who` has ended, as it should

An application's own loop does the same: `start` for each of its tasks, `alive` before each wait
that readings depend on.
"""

import asyncio
import time
from micropython import const

_LONGEST = const(1 << 28)  # ms: what ticks can tell

skipped = 0  # calls of `spare` that failed
_due = {}  # {a name or an id: ticks until which it need not be heard of}


def start(work, failed):
    """Return a task that runs a coroutine; an Exception that ends it goes to failed(error)."""
    return asyncio.create_task(_run(work, failed))


async def _run(work, failed):
    try:
        await work
        return
    except Exception as e:
        error = e
    work = None  # whose memory `failed` may need
    failed(error)


def spare(work, *args):
    """Return work(*args), or None where it raises: the LED, the log, power saving."""
    global skipped
    try:
        return work(*args)
    except Exception:
        skipped += 1


def alive(who, ms):
    """Promise that `who` calls this again within `ms`; None when it has ended."""
    _due.pop(who, None)
    if ms is not None:
        _due[who] = time.ticks_add(time.ticks_ms(), min(ms, _LONGEST))


def all_alive():
    """Has each who promised been heard of in time?"""
    now = time.ticks_ms()
    return all([time.ticks_diff(due, now) >= 0 for due in _due.values()])
