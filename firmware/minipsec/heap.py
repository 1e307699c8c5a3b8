"""What is loaded in which order, so that a session fits into a small heap; forgotten after that.

While modules are loaded garbage is collected early: what stays then lies close together, and what
needs one piece finds one, above all MicroPython's table of names, which doubles at the 620th name:
4.5 KB on a board, 7 KB on the 64-bit port.  That saves 12 KiB of 128 on that port, and makes
a heap that is large enough for some number of names large enough for a few more or fewer:
host_tests/tunnel/test_heap.py.
"""

import gc
from micropython import const

from . import forget

_OFTEN = const(16)  # collections while all of the free heap is given out once

# What a handshake loads, the largest first: a small heap has room for them in this order.
_ORDER = ("ike.sa", "handshake.sa_init", "link", "tunnel")
# Sources, whose compiler takes several times what it leaves: now or never.
_SOURCES = (
    "tunnel", "ike.sa", "handshake.sa_init", "esp.sa", "esp.child", "ike.established", "board.address"
)  # fmt: skip


def read(function, given):
    """Return config.profile's function(given), with that module forgotten and the next ones loaded."""
    # What is collected soon leaves no holes between what stays.
    threshold = gc.threshold()
    gc.threshold(gc.mem_free() // _OFTEN)
    try:
        return _read(function, given)
    finally:
        gc.threshold(threshold)


def _read(function, given):
    try:
        module = __import__("minipsec.config.profile", None, None, (function,))
        profile = getattr(module, function)(given)
    finally:
        module = None
        forget("config")
    if profile["sleep"] == "off":  # else a wake-up, which needs no handshake
        for name in _SOURCES if __file__.endswith(".py") else _ORDER:
            gc.collect()
            try:
                __import__("minipsec." + name)
            except MemoryError:
                pass  # what does not fit says so when it is needed
    return profile
