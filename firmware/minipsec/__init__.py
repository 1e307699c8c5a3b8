"""minipsec: IPsec for MicroPython sensors.

The public names are loaded when they are first used, so that `import minipsec` costs little.
"""

import sys

__version__ = "0.1.0"

if sys.platform == "esp32":
    from .board import nvram  # noqa: F401  before the application looks at RTC memory

# Where public names live; any other name with a capital is an error class of `refusals`.
_HOME = {
    "Tunnel": "tunnel",
    "ProfileError": "errors",
    "MinipsecError": "errors",
    "LinkDown": "errors",
    "OutOfMemory": "errors",
    "UsageError": "errors",
}


def load_profile(path="profile.json"):
    """Return the profile of a file; see config.profile.load_profile.

    The modules that check profiles are large; they are forgotten when that is done.
    """
    return _checked("load_profile", path)


def profile(**keys):
    """Return a profile made of keyword arguments: keys of the profile and of the secrets file.

    profile(gateway=.., gateway_id=.., id=.., server=.., psk=..) has the keys, values and defaults of
    the two files.  Raises ProfileError.
    """
    return _checked("make_profile", keys)


def _checked(function, given):
    from .heap import read

    forget("heap")
    return read(function, given)


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
                    pass  # it is no attribute there, or its folder went first


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
