"""Seeds a board's random generator with all that is hard to guess there.

Loaded for the first key after a reset, and forgotten then.
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
    """Return a DRBG out of every source; `seed` is the secrets' one or None.

    Raises NoEntropy when neither a source of noise is there and passes its health test, nor a
    secret that is new at each boot.  That is the octets of the seed file, if a boot that passed
    wrote them; or the secrets' seed before the first file is there.
    """
    path = directory + "seed.bin"
    noise = _noise()
    # A reset between the two steps of `_write` leaves the whole one under the other name.
    kept, whole = _read(path)
    if not whole:
        new, whole = _read(path + ".new")
        kept = new if whole else kept
    # A damaged file tells no boot from another.  One of 32 octets is an earlier version's: not a
    # secret, since a boot that was refused may have written it, but another one at each boot.
    known = whole or (seed and len(seed) >= _SEED and (kept is None or len(kept) == _SEED))
    fit = healthy(noise)
    if known or fit:
        secret = (kept or b"") + (seed or b"")
        drbg = DRBG(_LABEL + noise + secret + os.urandom(32) + _self() + _jitter())
        # The seed of the next boot is written before anything is drawn in this one, so that no
        # two boots start from the same; and after the decision, so that a refusal leaves nothing.
        if _write(path, drbg.generate(_SEED)) or fit:
            return drbg
    from ..refusals import NoEntropy

    raise NoEntropy("no noise to make keys from, and no seed that is new at each boot")


def _noise():
    """Return raw samples of a source of noise, or nothing."""
    if sys.platform == "esp32":
        import network

        # Without its radio the chip's generator is a pseudo-random one.
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
    """Return how long small things take here, and when."""
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
