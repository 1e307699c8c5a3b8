"""Run tasks so that none ends in silence, and know which are alive, for the watchdog.

    start(work(), failed)   a task; an exception that ends it goes to failed(error), which is called
                            again, later, if there was no memory for it
    spare(work, *args)      work that readings do not need; if it raises, `skipped` counts it
    alive(who, ms)          `who` calls this again within `ms`, else the watchdog resets
    alive(who, None)        `who` has ended, as it should

An application's own loop does the same: `start` for each of its tasks, `alive` before each wait
that readings depend on.
"""

import asyncio
import time
from micropython import const

_LONGEST = const(1 << 28)  # ms, within what ticks_diff can tell
_AGAIN_MS = const(1000)  # others may have let go of memory by then

skipped = 0  # calls of `spare` that failed
_due = {}  # {name or id: ticks by which it must call `alive` again}


def start(work, failed):
    """Return a task that runs a coroutine; an Exception that ends it goes to failed(error)."""
    return asyncio.create_task(_run(work, failed))


async def _run(work, failed):
    try:
        await work
        return
    except Exception as e:
        error = e
    work = None  # frees memory that `failed` may need
    while True:
        try:
            return failed(error)
        except MemoryError:
            await asyncio.sleep_ms(_AGAIN_MS)


def spare(work, *args):
    """Return work(*args), or None if it raises.  For the LED, the log, power saving."""
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
    """Has everyone called `alive` again in time?"""
    now = time.ticks_ms()
    return all([time.ticks_diff(due, now) >= 0 for due in _due.values()])
