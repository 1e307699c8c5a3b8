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
    home = _HOME.get(name, name)
    try:
        module = __import__("minipsec." + home, None, None, (name,))
    except ImportError:
        if home is not name:
            raise
        raise AttributeError(name)
    return module if home is name else getattr(module, name)
