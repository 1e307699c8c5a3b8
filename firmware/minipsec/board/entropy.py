"""Seed a board's random generator with all that is hard to guess there.

Loaded for the first key after a reset, then forgotten.
"""

import os
import sys
import time
from hashlib import sha256
from micropython import const

from ..crypto.drbg import DRBG, healthy

_SAMPLES = const(2048)
_SEED = const(32)  # octets of 256 bits
_LABEL = b"minipsec seed file 2"
_RANDOMBIT = const(0x4006001C)  # RP2040 datasheet §2.17.8: one bit of the ring oscillator


def start(seed, directory):
    """Return a DRBG seeded from every source; `seed` is the one of the secrets file, or None.

    It needs one of two things, else it raises NoEntropy: a source of noise that passes its health
    test, or a secret that is new at each boot.  Such a secret is the content of the seed file, if
    a boot that was not refused wrote it, or the secrets' seed while there is no seed file yet.
    """
    path = directory + "seed.bin"
    noise = _noise()
    # A reset between the two steps of `_write` leaves the whole file under its other name.
    kept, whole = _read(path)
    if not whole:
        new, whole = _read(path + ".new")
        kept = new if whole else kept
    # A damaged file does not prove that this boot is a new one.  A file of 32 octets is an earlier
    # version's: it is new at each boot, but no secret, since a refused boot may have written it.
    known = whole or (seed and len(seed) >= _SEED and (kept is None or len(kept) == _SEED))
    fit = healthy(noise)
    if known or fit:
        secret = (kept or b"") + (seed or b"")
        drbg = DRBG(_LABEL + noise + secret + os.urandom(32) + _self() + _jitter())
        # Write the next boot's seed before anything is drawn, so that no two boots start from the
        # same one, and only after the decision above, so that a refused boot writes nothing.
        if _write(path, drbg.generate(_SEED)) or fit:
            return drbg
    from ..refusals import NoEntropy

    raise NoEntropy("no noise to make keys from, and no seed that is new at each boot")


def _noise():
    """Return raw samples of a source of noise, b"" where there is none."""
    if sys.platform == "esp32":
        import network

        # While the radio is off, the chip's generator is only pseudo-random.
        return os.urandom(_SAMPLES) if network.WLAN(network.STA_IF).active() else b""
    samples = bytearray(_SAMPLES)
    if "RP2040" in getattr(sys.implementation, "_machine", ""):
        from machine import mem32

        for i in range(_SAMPLES):
            samples[i] = mem32[_RANDOMBIT] & 1
    return bytes(samples)


def _self():
    try:
        from machine import unique_id

        return unique_id()
    except ImportError:
        return b""


def _jitter():
    """Return how long small operations take, and the time of day."""
    times = [time.time_ns()]
    for _ in range(32):
        began = time.ticks_us()
        bytearray(50)
        times.append(time.ticks_diff(time.ticks_us(), began))
    return repr(times).encode()


def _check(octets):
    return sha256(_LABEL + octets).digest()[:8]


def _read(path):
    """Return (octets of a seed file or None, are they as `_write` put them?)."""
    try:
        with open(path, "rb") as f:
            octets = f.read(64)
    except OSError:
        return None, False
    return octets, octets[_SEED:] == _check(octets[:_SEED])


def _write(path, octets):
    octets += _check(octets)
    try:
        with open(path + ".new", "wb") as f:
            f.write(octets)
        os.rename(path + ".new", path)
    except OSError:
        return False
    return _read(path) == (octets, True)
