"""Seeds a board's random generator with all that is hard to guess there.

Loaded for the first key after a reset, and forgotten then.
"""

import os
import sys
import time
from micropython import const

from .drbg import DRBG, healthy

_SAMPLES = const(2048)
_RANDOMBIT = const(0x4006001C)  # RP2040 datasheet §2.17.8: one bit of the ring oscillator


def start(seed, directory):
    """Return a DRBG out of every source; `seed` is the secrets' one or None.

    Raises NoEntropy when neither a source of noise is there and passes its health test, nor a
    secret that is new at each boot.
    """
    path = directory + "seed.bin"
    noise = _noise()
    try:
        with open(path, "rb") as f:
            kept = f.read(64)
    except OSError:
        kept = b""
    secret = kept + (seed or b"")
    drbg = DRBG(noise + secret + os.urandom(32) + _self() + _jitter())
    # The seed of the next boot is written before anything is drawn in this one, so that no two
    # boots start from the same.
    if not (_write(path, drbg.generate(32)) and len(secret) >= 32 or healthy(noise)):
        from .errors import NoEntropy

        raise NoEntropy("no noise to make keys from, and no seed")
    return drbg


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


def _write(path, octets):
    try:
        with open(path + ".new", "wb") as f:
            f.write(octets)
        os.rename(path + ".new", path)
    except OSError:
        return False
    return True
