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


def load_profile(path="profile.json"):
    """Return the profile of a file; see store.load_profile.

    The module that checks profiles is by far the largest, and is forgotten when it is done.
    """
    from . import store

    profile = store.load_profile(path)
    forget("store")
    del store
    if profile["sleep"] == "off":
        # What a handshake takes, the largest first: nothing needs more of the heap in one piece
        # than the compiler does, where these are sources.
        for name in ("machine", "tunnel", "ike", "fragack"):
            gc.collect()
            __import__("minipsec." + name)
    return profile


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
