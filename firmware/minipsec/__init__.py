"""minipsec: IPsec for MicroPython sensors.

The public names are loaded when they are first used, so that `import minipsec` costs little.
"""

import gc
import sys

__version__ = "0.1.0"

if sys.platform == "esp32":
    from .board import nvram  # noqa: F401  before the application looks at RTC memory

# Where public names live; each other one with a capital is an error of `refusals`.
_HOME = {
    "Tunnel": "tunnel",
    "ProfileError": "errors",
    "MinipsecError": "errors",
    "LinkDown": "errors",
    "OutOfMemory": "errors",
    "UsageError": "errors",
}


# MicroPython's table of names grows once in a session by 640 names, in one piece: too large for what
# modules leave of a small heap, so that piece is set apart before the first of them.
_ROOM = 7680


def load_profile(path="profile.json"):
    """Return the profile of a file; see config.profile.load_profile.

    The module that checks profiles is by far the largest, and is forgotten when it is done.
    """
    return _checked("load_profile", path)


def profile(**keys):
    """Return the profile that a program makes of its keys and those of its secrets.

    profile(gateway=.., gateway_id=.., id=.., server=.., psk=..): the same keys, values and defaults
    as in the two files.  Raises ProfileError.
    """
    return _checked("make_profile", keys)


def _checked(function, given):
    room = bytearray(_ROOM)
    try:
        module = __import__("minipsec.config.profile", None, None, (function,))
        profile = getattr(module, function)(given)
    finally:
        module = None
        forget("config")
    if profile["sleep"] == "off":
        # What a handshake takes, the largest first: a small heap has room for them in this order.
        names = ["tunnel", "link", "handshake.sa_init", "ike.sa"]
        if __file__.endswith(".py"):
            # Sources, whose compiler needs several times what it leaves: now or never.
            names = (
                ["board.address", "ike.established", "esp.child", "esp.sa"] + names[2:] + names[:1]
            )
        while names:
            gc.collect()
            try:
                __import__("minipsec." + names[-1])
            except MemoryError:
                if room:
                    room = None
                    gc.collect()
                    # A name that is new: if that table is full it grows now, into that piece.
                    getattr(room, "a name that is new", room)
                    continue
            names.pop()  # what did not fit says so when it is needed
    return profile


def forget(*names):
    """Let go of modules and folders of ours, as "kex" or "ike.fragment".

    Their memory is free once nothing refers to them any more.
    """
    for name in names:
        full = __name__ + "." + name
        for module in list(sys.modules):
            if module == full or module.startswith(full + "."):
                sys.modules.pop(module)
                home, _, last = module.rpartition(".")
                try:
                    delattr(sys.modules[home], last)
                except (AttributeError, KeyError):
                    pass  # nobody took it from there, or its folder went first


def __getattr__(name):
    home = _HOME.get(name, name)
    error = home is name and "A" <= name[0] <= "Z"
    try:
        module = __import__("minipsec." + ("refusals" if error else home), None, None, (name,))
    except ImportError:
        if home is not name:
            raise
        raise AttributeError(name)
    if error:
        found = module.named(name)
        if not found:
            raise AttributeError(name)
        return found
    return module if home is name else getattr(module, name)
