"""Load modules in an order that fits a session into a small heap.  Forgotten after that.

While modules are loaded, garbage is collected early.  What stays then lies close together, and
whatever needs one large piece finds one.  Above all that is MicroPython's table of names: it doubles
at the 620th name, 4.5 KB on a board, 7 KB on the 64-bit port.  This saves 12 KiB of 128 on that
port, and a few names more or fewer no longer decide: host_tests/tunnel/test_heap.py.
"""

import gc
from micropython import const

from . import forget

_OFTEN = const(16)  # collect whenever this part of the free heap was allocated

# What a handshake needs, the largest first: in this order a small heap has room.
_ORDER = ("ike.sa", "handshake.sa_init", "link", "tunnel")
# Sources: their compiler needs several times what it leaves, so load all of them now.
_SOURCES = (
    "tunnel", "ike.sa", "handshake.sa_init", "esp.sa", "esp.child", "ike.established", "board.address"
)  # fmt: skip


def read(function, given):
    """Return config.profile's function(given); forget that module, load the next ones."""
    # Garbage that is collected soon leaves no holes between what stays.
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
    if profile["sleep"] == "off":  # a wake-up needs no handshake
        for name in _SOURCES if __file__.endswith(".py") else _ORDER:
            gc.collect()
            try:
                __import__("minipsec." + name)
            except MemoryError:
                pass  # a module that did not fit raises when it is needed
    return profile
