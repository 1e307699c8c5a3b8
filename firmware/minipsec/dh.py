"""Key exchange methods (RFC 7296 §3.4), by their transform ids.

A method is a class: `Method(rand)` makes a key pair, `.public` is what goes into the KE payload,
`.shared(peer)` returns g^ir as octets or None when the peer's value is refused.

Python integers are not constant time: a listener close enough to time single operations may
learn of an ephemeral key.  Each key pair is therefore used for one handshake only.
"""

from micropython import const

_X25519 = const(31)

_P25519 = (1 << 255) - 19


def _inverse(z, p):
    return pow(z, p - 2, p)


def _ladder(k, u):
    """Return k * u on Curve25519 by RFC 7748 §5, on plain integers.

    2^255 = 19 (mod p), so each product is folded instead of divided: (x mod 2^255) + 19 * (x >> 255),
    twice where the sum of two such values enters the next product.
    """
    m = (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, u, 1
    swap = 0
    for byte in k:
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
            x3 = (t & m) + 19 * (t >> 255)
            t = da - cb
            t *= t
            t = ((t & m) + 19 * (t >> 255)) * u
            t = (t & m) + 19 * (t >> 255)
            z3 = (t & m) + 19 * (t >> 255)
            t = aa * bb
            t = (t & m) + 19 * (t >> 255)
            x2 = (t & m) + 19 * (t >> 255)
            t = aa - bb
            t *= aa + 121665 * t
            t = (t & m) + 19 * (t >> 255)
            z2 = (t & m) + 19 * (t >> 255)
    if swap:
        x2, z2 = x3, z3
    return x2 * _inverse(z2 % _P25519, _P25519) % _P25519


class X25519:
    """Curve25519 (RFC 8031): 32 octets each way."""

    size = 32

    def __init__(self, rand):
        key = bytearray(rand(32))
        key[0] &= 248
        key[31] = key[31] & 127 | 64
        # The ladder goes from the highest octet down.
        self._key = bytes(reversed(key))
        self.public = _ladder(self._key, 9).to_bytes(32, "little")

    def shared(self, peer):
        """Return the shared secret, or None for a wrong length or an all-zero result."""
        if len(peer) != 32:
            return None
        u = int.from_bytes(peer, "little") & ((1 << 255) - 1)
        result = _ladder(self._key, u % _P25519)
        return result.to_bytes(32, "little") if result else None


METHODS = {_X25519: X25519}
