"""The slower groups: NIST P-256 (RFC 5903) and MODP-2048 (RFC 3526); `dh.method` loads them.

As in `dh`, Python integers are not constant time.  What can be done on them is: every key takes
the same sequence of multiplications, and P-256 works on coordinates that are blinded each time.
"""

from micropython import const

_P256 = const(19)
_MODP2048 = const(14)

# p, n, b, x and y of G, 32 octets each (RFC 5903 §3.1; FIPS 186-4 D.1.2.3).
_CURVE = const(
    b"\xff\xff\xff\xff\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51"
    b"\x5a\xc6\x35\xd8\xaa\x3a\x93\xe7\xb3\xeb\xbd\x55\x76\x98\x86\xbc"
    b"\x65\x1d\x06\xb0\xcc\x53\xb0\xf6\x3b\xce\x3c\x3e\x27\xd2\x60\x4b"
    b"\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2"
    b"\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96"
    b"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16"
    b"\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5"
)
# 2^2048 - 2^1984 - 1 + 2^64 * (floor(2^1918 * pi) + 124476), RFC 3526 §3.  To compute it instead
# would save 195 octets here and take some 500 ms of an RP2040.
_PRIME = const(
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xc9\x0f\xda\xa2\x21\x68\xc2\x34"
    b"\xc4\xc6\x62\x8b\x80\xdc\x1c\xd1\x29\x02\x4e\x08\x8a\x67\xcc\x74"
    b"\x02\x0b\xbe\xa6\x3b\x13\x9b\x22\x51\x4a\x08\x79\x8e\x34\x04\xdd"
    b"\xef\x95\x19\xb3\xcd\x3a\x43\x1b\x30\x2b\x0a\x6d\xf2\x5f\x14\x37"
    b"\x4f\xe1\x35\x6d\x6d\x51\xc2\x45\xe4\x85\xb5\x76\x62\x5e\x7e\xc6"
    b"\xf4\x4c\x42\xe9\xa6\x37\xed\x6b\x0b\xff\x5c\xb6\xf4\x06\xb7\xed"
    b"\xee\x38\x6b\xfb\x5a\x89\x9f\xa5\xae\x9f\x24\x11\x7c\x4b\x1f\xe6"
    b"\x49\x28\x66\x51\xec\xe4\x5b\x3d\xc2\x00\x7c\xb8\xa1\x63\xbf\x05"
    b"\x98\xda\x48\x36\x1c\x55\xd3\x9a\x69\x16\x3f\xa8\xfd\x24\xcf\x5f"
    b"\x83\x65\x5d\x23\xdc\xa3\xad\x96\x1c\x62\xf3\x56\x20\x85\x52\xbb"
    b"\x9e\xd5\x29\x07\x70\x96\x96\x6d\x67\x0c\x35\x4e\x4a\xbc\x98\x04"
    b"\xf1\x74\x6c\x08\xca\x18\x21\x7c\x32\x90\x5e\x46\x2e\x36\xce\x3b"
    b"\xe3\x9e\x77\x2c\x18\x0e\x86\x03\x9b\x27\x83\xa2\xec\x07\xa2\x8f"
    b"\xb5\xc5\x5d\xf0\x6f\x4c\x52\xc9\xde\x2b\xcb\xf6\x95\x58\x17\x18"
    b"\x39\x95\x49\x7c\xea\x95\x6a\xe5\x15\xd2\x26\x18\x98\xfa\x05\x10"
    b"\x15\x72\x8e\x5a\x8a\xac\xaa\x68\xff\xff\xff\xff\xff\xff\xff\xff"
)


def _int(octets):
    return int.from_bytes(octets, "big")


_P, _N, _B, _GX, _GY = [_int(_CURVE[i : i + 32]) for i in range(0, 160, 32)]


def _double(times, x, y, z):
    """Double (x : y : z), Jacobian, a = -3, so many times; Z = 0 is never reached."""
    p = _P
    while times:
        times -= 1
        d = z * z % p
        z = 2 * y * z % p
        y = y * y % p
        b = x * y % p
        d = 3 * (x - d) * (x + d) % p
        x = (d * d - 8 * b) % p
        y = (d * (4 * b - x) - 8 * y * y) % p
    return x, y, z


def _add(x1, y1, z1, x2, y2, z2, zz, zzz):
    """Return the sum of two points that are neither equal nor opposite; zz, zzz: Z2^2, Z2^3."""
    p = _P
    x1 = x1 * zz % p
    y1 = y1 * zzz % p
    h = z1 * z1 % p
    r = (y2 * (z1 * h % p) - y1) % p
    h = (x2 * h - x1) % p
    v = h * h % p
    w = v * h % p
    v = x1 * v % p
    x = (r * r - w - 2 * v) % p
    return x, (r * (v - x) - y1 * w) % p, z1 * z2 % p * h % p


def _cached(x, y, z):
    zz = z * z % _P
    return x, y, z, zz, z * zz % _P


def _multiply(k, x, y, rand):
    """Return x and y of k * (x, y), a point of the curve, for 2 < k < n - 2.

    k is made odd, as k * P = (n - k) * -P, and written with 64 digits out of -15, -13 .. 13, 15:
    a digit is 2 * h - 15, h being its nibble of (k + 2^256) / 2.  Each takes four doublings and
    one addition, whatever the key.

    No addition meets equal or opposite points.  Before a digit d the sum is a * P with a odd and
    at least 1, since the first digit is positive and 16 * 1 - 15 = 1.  Then 16 * a is not |d|.
    Until the last digit 16 * a is below n / 16 + 16, so neither 16 * a + d nor 16 * a - d can be
    n.  With the last one 16 * a + d is k, which is not n; and 16 * a - d = n would be
    k = n - 2 * |d| with n - |d| a multiple of 16: n is 1 modulo 16, so that |d| = 1 and k = n - 2,
    which is shut out.
    """
    p = _P
    if not k & 1:
        k = _N - k
        y = p - y
    # A random Z: the same point in coordinates that nobody can foresee.
    z = _int(rand(32)) % (p - 1) + 1
    zz = z * z % p
    point = x * zz % p, y * (z * zz % p) % p, z
    two = _cached(*_double(1, *point))
    table = []
    for i in range(8):
        if i:
            point = _add(*(point + two))
        x, y, z, zz, zzz = entry = _cached(*point)
        table.append(entry)
        table.insert(0, (x, p - y, z, zz, zzz))
    octets = (k >> 1).to_bytes(32, "big")
    point = table[octets[0] >> 4 | 8][:3]
    for i in range(1, 64):
        entry = table[octets[i >> 1] >> (~i & 1) * 4 & 15]
        point = _add(*(_double(4, *point) + entry))
    x, y, z = point
    z = pow(z, p - 2, p)
    zz = z * z % p
    return x * zz % p, y * (z * zz % p) % p


class P256:
    """NIST P-256: x | y, 64 octets each way; the shared secret is x alone (RFC 5903 §7)."""

    size = 64

    def __init__(self, rand):
        self._rand = rand
        # 64 bits more than n has, so that the remainder's bias is below 2^-64 (FIPS 186-5 A.2.1).
        # From 3 to n - 3, see `_multiply`.
        self._key = _int(rand(40)) % (_N - 5) + 3
        x, y = _multiply(self._key, _GX, _GY, rand)
        self.public = x.to_bytes(32, "big") + y.to_bytes(32, "big")

    def shared(self, peer):
        """Return g^ir, 32 octets, or None unless `peer` is a point of the curve (RFC 6989 §2.3)."""
        x = _int(peer[:32])
        y = _int(peer[32:])
        p = _P
        # The curve has a prime order, so a point on it is all that is to be asked for.
        if len(peer) != 64 or x >= p or y >= p or (y * y - x * x * x + 3 * x - _B) % p:
            return None
        return _multiply(self._key, x, y, self._rand)[0].to_bytes(32, "big")


def _power(base, key):
    """Return base^key modulo the prime, `key` being octets.

    By windows of four bits: a sixth less work than pow(), a third less for base 2 whose powers
    are one digit, and the interpreter stays in reach of interrupts and callbacks.
    """
    p = _int(_PRIME)
    table = [1]
    for _ in range(15):
        table.append(table[-1] * base % p)
    y = 1
    for octet in key:
        for window in (octet >> 4, octet & 15):
            for _ in range(4):
                y = y * y % p
            y = y * table[window] % p
    return y.to_bytes(256, "big")


class MODP2048:
    """MODP-2048, generator 2: 256 octets each way, zeros in front included (RFC 7296 §2.14)."""

    size = 256

    def __init__(self, rand):
        # The exponent's bits are twice the group's strength: 220 or 320 by RFC 3526 §8, at least
        # 224 by NIST SP 800-56A (112 bits of strength), 225 by RFC 7919 A.1 for the same size.
        # 256 here, the highest one set, so that every key takes the same steps.
        key = bytearray(rand(32))
        key[0] |= 128
        self._key = key
        self.public = _power(2, key)

    def shared(self, peer):
        """Return g^ir, 256 octets, or None unless 1 < peer < p - 1 (RFC 6989 §2.1)."""
        y = _int(peer)
        if len(peer) != 256 or not 1 < y < _int(_PRIME) - 1:
            return None
        return _power(y, self._key)


METHODS = {_P256: P256, _MODP2048: MODP2048}
