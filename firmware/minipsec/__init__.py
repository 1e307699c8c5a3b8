"""minipsec: IPsec for MicroPython sensors.

The public names are loaded when they are first used, so that `import minipsec` costs little.
"""

import gc
import sys

__version__ = "0.1.0"

_HOME = {
    "Tunnel": "tunnel",
    "ProfileError": "store",
    "PeerError": "errors",
    "MinipsecError": "faults",
    "LinkDown": "faults",
    "UsageError": "faults",
}


# MicroPython's table of names grows once in a session by 640 names, in one piece: too large for what
# modules leave of a small heap, so that piece is set apart before the first of them.
_ROOM = 7680


def load_profile(path="profile.json"):
    """Return the profile of a file; see store.load_profile.

    The module that checks profiles is by far the largest, and is forgotten when it is done.
    """
    room = bytearray(_ROOM)
    from . import store

    profile = store.load_profile(path)
    forget("store")
    del store
    if profile["sleep"] == "off":
        # What a handshake takes, the largest first: a small heap has room for them in this order.
        names = ["tunnel", "ike", "keeper", "machine"]
        if __file__.endswith(".py"):
            # Sources: to compile this one beside all of the others would take too much.
            names = ["established", "child"] + names
        while names:
            gc.collect()
            try:
                __import__("minipsec." + names[-1])
            except MemoryError:
                if room and _is_full("a name that is new"):
                    room = None
                    gc.collect()
                    _is_full(
                        "another name that is new"
                    )  # it takes that piece, before anything else can
                    continue
            names.pop()  # what did not fit says so when it is needed
    return profile


def _is_full(name):
    """Is MicroPython's table of names full, and no room for a larger one?"""
    try:
        getattr(None, name, None)
    except MemoryError:
        return True


def forget(*names):
    """Let go of modules of ours, whose memory is free once nothing refers to them any more."""
    for name in names:
        sys.modules.pop(__name__ + "." + name, None)
        globals().pop(name, None)


def __getattr__(name):
    home = _HOME.get(name, name)
    try:
        module = __import__("minipsec." + home, None, None, (name,))
    except ImportError:
        if home is not name:
            raise
        raise AttributeError(name)
    return module if home is name else getattr(module, name)
