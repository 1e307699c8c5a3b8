"""Key exchange methods (RFC 7296 §3.4), by their transform ids.

A method is a class.  `Method(rand, step)` makes a key pair; `rand(n)` returns n random octets.  A
group that takes seconds calls `step()` several times a second, for the watchdog.  `.public` goes
into the KE payload and has `.size` octets, as the peer's has.  `.shared(peer)` returns g^ir as
octets, or None when the peer's value is refused.  `.wipe()`, where a method has it, overwrites the
private key.

Python integers are not constant time: a listener close enough to time single operations may
learn something of an ephemeral key.  So each key pair serves one handshake only.  Where
`x25519_thumb` runs, X25519 is machine code: eight times as fast, and the same time for every key.
"""

import sys
from micropython import const

# Transform ids of type 4 (RFC 7296 §3.3.2, RFC 5903, RFC 8031, draft-ietf-ipsecme-ikev2-mlkem)
_MODP2048 = const(14)
_P256 = const(19)
_X25519 = const(31)
_ML_KEM_512 = const(35)
_ML_KEM_1024 = const(37)

_P25519 = (1 << 255) - 19


def method(ident):
    """Return the class of a transform id, or None; the module of a slower group is loaded here."""
    if ident == _P256 or ident == _MODP2048:
        from . import groups

        return groups.METHODS[ident]
    if _ML_KEM_512 <= ident <= _ML_KEM_1024:
        from . import mlkem

        return mlkem.method(ident)
    return METHODS.get(ident)


def wipe(pair):
    """Overwrite the private key of a pair that is not needed any more, where it can be."""
    if hasattr(pair, "wipe"):
        pair.wipe()


def _ladder(k, u):
    """Return k * u on Curve25519 by RFC 7748 §5, on plain integers: 32 octets each, k clamped.

    2^255 = 19 (mod p), so a product t is folded and not divided: (t mod 2^255) + 19 * (t >> 255)
    is t modulo p, whatever its size or sign.  Sizes affect speed only, and they stay small.
    Let x2, z2, x3, z3 and u be below 2^255.1 in magnitude.  Then a, b and their like are below
    2^256.1; aa, bb, da, cb, folded once, below 2^261.6; da + cb and da - cb below 2^262.6, their
    squares folded once below 2^274.5, and that times u below 2^529.6.  121665 < 2^16.9, so the
    last product is below 2^541.3, the others below 2^530.  Such a t is below 2^290.6 after one
    fold.  The second fold subtracts a multiple of p and leaves less than 2^255 + 2^40.
    """
    p = _P25519
    m = p + 18
    # Ignore the top bit and accept values from p to 2^255 - 1 (RFC 7748 §5).
    u = (int.from_bytes(u, "little") & m) % p
    x2, z2, x3, z3 = 1, 0, u, 1
    swap = 0
    for byte in reversed(k):
        bit = 128
        while bit:
            b = 1 if byte & bit else 0
            bit >>= 1
            if swap != b:
                x2, x3 = x3, x2
                z2, z3 = z3, z2
            swap = b
            a = x2 + z2
            b = x2 - z2
            t = a * a
            aa = (t & m) + 19 * (t >> 255)
            t = b * b
            bb = (t & m) + 19 * (t >> 255)
            t = (x3 - z3) * a
            da = (t & m) + 19 * (t >> 255)
            t = (x3 + z3) * b
            cb = (t & m) + 19 * (t >> 255)
            t = da + cb
            t *= t
            t = (t & m) + 19 * (t >> 255)
            x3 = t - (t >> 255) * p
            t = da - cb
            t *= t
            t = ((t & m) + 19 * (t >> 255)) * u
            t = (t & m) + 19 * (t >> 255)
            z3 = t - (t >> 255) * p
            t = aa * bb
            t = (t & m) + 19 * (t >> 255)
            x2 = t - (t >> 255) * p
            t = aa - bb
            t *= aa + 121665 * t
            t = (t & m) + 19 * (t >> 255)
            z2 = t - (t >> 255) * p
    # Clamping made the last bit 0, so nothing is left to swap.
    # 1 / z2 is z2^(p - 2), and p - 2 = 2^255 - 21 = (2^250 - 1) * 2^5 + 11.  Nearly all its bits
    # are ones, and pow() multiplies once for each.  z2^(2^n - 1), n = 5, 25, 125, 250, takes half.
    z2 %= p
    t = z2
    for n in (1, 5, 25):
        b = 1 << 5 * n
        t = pow(t, (b - 1) // ((1 << n) - 1), p)
    t = pow(t, b + 1, p)
    return x2 * pow(t, 32, p) * pow(z2, 11, p) % p


def _fastest():
    """Return the fastest ladder here: machine code where the chip has Thumb instructions."""
    # ARMv6-M, an RP2040's, to ARMv7E-M ("sys.implementation" in MicroPython's documentation).
    if 3 < getattr(sys.implementation, "_mpy", 0) >> 10 & 15 < 9:
        try:
            from .x25519_thumb import ladder

            return ladder
        except (
            Exception
        ):  # no such module, no assembler, no memory or a wrong answer: use integers
            pass
    return _ladder


class X25519:
    """Curve25519 (RFC 8031): 32 octets each way."""

    size = 32

    def __init__(self, rand, *_):
        key = bytearray(rand(32))
        key[0] &= 248
        key[31] = key[31] & 127 | 64
        self._key = key
        self._ladder = _fastest()
        self.public = self._times(b"\x09" + bytes(31))

    def _times(self, u):
        return self._ladder(self._key, u).to_bytes(32, "little")

    def shared(self, peer):
        """Return g^ir, 32 octets, or None for a wrong length or a point of small order.

        A point of small order would give an all-zero secret (RFC 7748 §6.1).  Three doublings of
        x and z (§5) show it, so a stranger's bad value costs no whole key exchange.
        """
        if len(peer) != 32:
            return None
        x = int.from_bytes(peer, "little") & _P25519 + 18
        z = 1
        for _ in range(3):
            t = x * z
            x, z = x * x, z * z
            x, z = (x - z) ** 2 % _P25519, 4 * t * (x + 486662 * t + z) % _P25519
        return self._times(peer) if z else None


METHODS = {_X25519: X25519}
