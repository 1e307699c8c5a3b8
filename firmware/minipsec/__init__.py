"""minipsec: IPsec for MicroPython sensors.

The public names are loaded when they are first used, so that `import minipsec` costs little.
"""

__version__ = "0.1.0"

_HOME = {
    "Tunnel": "tunnel",
    "load_profile": "store",
    "ProfileError": "store",
    "MinipsecError": "errors",
    "PeerError": "errors",
    "LinkDown": "errors",
    "UsageError": "errors",
}


def __getattr__(name):
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(name)
    return getattr(__import__("minipsec." + home, None, None, (name,)), name)
