"""The slower groups: NIST P-256 (RFC 5903) and MODP-2048 (RFC 3526); `methods.method` loads them.

As in `methods`, Python integers are not constant time.  Two things help: every key takes the same
sequence of multiplications, and P-256 works on coordinates that are blinded each time.
"""

from micropython import const

# Transform ids of type 4 (RFC 7296 §3.3.2, RFC 5903)
_P256 = const(19)
_MODP2048 = const(14)

# p, n and b, 32 octets each (RFC 5903 §3.1; FIPS 186-4 D.1.2.3).
_CURVE = const(
    b"\xff\xff\xff\xff\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51"
    b"\x5a\xc6\x35\xd8\xaa\x3a\x93\xe7\xb3\xeb\xbd\x55\x76\x98\x86\xbc"
    b"\x65\x1d\x06\xb0\xcc\x53\xb0\xf6\x3b\xce\x3c\x3e\x27\xd2\x60\x4b"
)
# x and y of 2^192 G + i 2^128 G + j 2^64 G + k G for -1 and 1 as i, j and k, k changing first.
_COMB = const(
    b"\xdc\xa7\x46\x34\x84\x11\xaf\xb5\x7a\x94\x1b\x31\x00\xc7\x46\x2e"
    b"\xc7\xdd\x30\x79\x02\xd8\x83\x40\x2c\x14\x7b\xd3\x02\x3e\x0a\x99"
    b"\xa3\x78\xf4\x9c\x3c\x60\x73\xe0\xef\xa2\x30\xd3\x8e\x28\x75\xb6"
    b"\xd1\x70\xfe\x41\x00\x60\x63\x2c\x47\xb0\xd5\x20\x23\x5f\x3f\xb0"
    b"\x47\xb8\xc1\x5b\x59\x31\x23\x90\x87\xf5\x1b\xcf\xa6\xc7\x51\x33"
    b"\x24\xfc\x08\x1a\xd4\xe6\xe5\xc5\xf7\x44\x7e\x16\xe0\xb9\x01\x0a"
    b"\xea\xb6\x9c\xfc\xb2\x7b\xce\xd9\x1d\xe9\xc2\xea\xd6\x1a\xa5\xc0"
    b"\xc8\xcb\x9d\x1b\xc2\xfa\xa8\x27\x5d\x8a\x5a\x16\xd7\xb4\xb7\x92"
    b"\x39\xf2\xe1\x26\xe7\xa9\x01\x57\xaf\xf9\x55\xe9\x75\xa5\x29\x79"
    b"\x4f\xcf\xde\x2a\x0f\xcb\x47\xe3\x8d\xb2\x21\x50\x5b\x37\x0b\x39"
    b"\x2f\xe3\x91\x8b\x81\xba\xc5\xc2\x03\x4c\xfc\x1d\x65\x14\x1b\x26"
    b"\x6f\xda\xb9\xfb\x48\x1d\xe5\xac\xc1\x3c\x7a\x63\x86\x51\x22\xba"
    b"\xb9\x86\x68\xc6\x4a\x1d\x88\x9b\x37\xb0\x90\x17\x18\x35\x52\x37"
    b"\x43\x72\x6c\x12\xf9\x02\x1b\xc1\xdb\xd4\x0b\x53\x76\x99\xe8\x98"
    b"\x04\xef\x5f\xa9\xa1\x13\xf2\x97\xc8\xda\xa7\x51\x5d\xa9\xf6\x56"
    b"\x4e\xc8\x47\x65\x37\xc4\x8f\x4e\xc8\x94\xa7\x32\x3a\x91\x3c\x3d"
    b"\x83\x99\xd7\x6d\xf7\x06\x60\xcb\x57\x4a\xf4\x33\xf5\x1b\x14\xf0"
    b"\xac\xcb\xd9\xe5\xa6\xc9\x02\xa9\x73\x42\xe8\x9b\x4c\x02\xfa\xa6"
    b"\xa0\x8f\x6b\x51\x56\xec\xb1\xcc\x58\xef\x27\xc6\x20\x16\xd4\xc8"
    b"\x7a\x47\xe0\x13\xc6\x87\x58\x72\x74\xc9\x3f\x9b\xe6\x8b\xa2\xba"
    b"\x61\x30\x2d\x5d\x50\x8f\xdc\x2e\x7f\x8e\xd5\x08\xa4\x3b\x83\xb7"
    b"\x0b\xa6\xd2\xf4\xe0\x10\x3c\x59\xd1\x4f\x8e\xad\x7d\xb8\xca\xb2"
    b"\x6c\x58\x4e\x7f\x2c\xc4\xa0\x29\x04\x10\xb8\x83\x23\xe6\xde\x42"
    b"\x70\x75\x0b\x1d\x46\xb0\xf7\x59\xeb\xd1\x78\x2f\xb0\x12\x80\xc1"
    b"\x87\x81\xfb\xda\xfc\x93\x14\x10\xb4\x14\xf9\xce\xe8\x1f\xf1\x0c"
    b"\x45\xe3\x88\xa8\x1f\xd9\xd0\x3d\xe4\x7c\x24\x7d\x3c\xe7\x42\xeb"
    b"\x3e\xb3\x52\x34\xfa\x6a\xda\x4c\xbf\xe6\x1e\xe2\x0c\x94\x51\x28"
    b"\xca\xda\x9a\xd5\x97\x13\xe7\xca\xa8\x7b\x21\x11\x08\x2c\xa2\x0d"
    b"\xb4\x8e\x26\xb4\x84\xf7\xa2\x1c\x0a\x4a\x46\xfb\x6a\xaf\x36\x3a"
    b"\x66\xb0\xde\x32\x25\xc4\x74\x4b\x96\x15\xb5\x11\x0d\x1d\x78\xe5"
    b"\xfa\xc0\x15\x40\x4d\x4d\x3d\xab\x64\x13\x1b\xcd\xfe\xd6\xf6\x68"
    b"\xc0\x04\xe4\x04\x8b\x7b\x0f\x98\x06\xeb\xb0\xf6\x21\xa0\x1b\x2d"
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


_P, _N, _B = [_int(_CURVE[i : i + 32]) for i in (0, 32, 64)]


def _double(times, x, y, z):
    """Double (x : y : z), Jacobian, a = -3, `times` times; Z = 0 is never reached."""
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


def _blind(x, y, rand):
    """Return the point (x, y) with a random Z: coordinates that nobody can foresee."""
    p = _P
    z = _int(rand(32)) % (p - 1) + 1
    zz = z * z % p
    return x * zz % p, y * (z * zz % p) % p, z


def _affine(x, y, z):
    p = _P
    z = pow(z, p - 2, p)
    zz = z * z % p
    return x * zz % p, y * (z * zz % p) % p


def _multiply(k, x, y, rand):
    """Return x and y of k * (x, y), a point of the curve, for 2 < k < n - 2.

    An even k is replaced by n - k, which is odd: k * P = (n - k) * -P.  k is then written with 64
    digits out of -15, -13 .. 13, 15.  A digit is 2 * h - 15, where h is its nibble of
    (k + 2^256) / 2.  Each digit takes four doublings and one addition, whatever the key.

    No addition meets equal or opposite points.  Before a digit d the sum is a * P with a odd and
    at least 1, since the first digit is positive and 16 * 1 - 15 = 1.  Then 16 * a is not |d|.
    Before the last digit, 16 * a is below n / 16 + 16, so neither 16 * a + d nor 16 * a - d can
    be n.  At the last digit, 16 * a + d is k, which is not n.  16 * a - d = n would mean
    k = n - 2 * |d| with n - |d| a multiple of 16; n is 1 modulo 16, so |d| = 1 and k = n - 2,
    which the bounds exclude.
    """
    p = _P
    if not k & 1:
        k = _N - k
        y = p - y
    point = _blind(x, y, rand)
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
    return _affine(*point)


def _multiply_base(k, rand):
    """Return x and y of k * G for 2 < k < n - 2.

    An odd k is the sum of 2^i or -2^i for all i < 256; bit i of (k + 2^256) / 2 is the sign.
    Column i has four of them (i, i + 64, i + 128, i + 192).  They are 2^i times an entry of _COMB
    or its negative, so each column takes one doubling and one addition, whatever the key.

    No addition meets equal or opposite points.  The doubled sum before a column is a * G with an
    even a, and the entry is t * G with an odd t, so a + t and a - t are not 0.  Both are below
    2^255 before the last column.  There a + t is k, and a - t = n would mean k = n + 2 * t, but
    the eight such k have another last t.
    """
    octets = ((k if k & 1 else _N - k) >> 1).to_bytes(32, "big")
    table = []
    for i in range(0, 512, 64):
        x = _int(_COMB[i : i + 32])
        y = _int(_COMB[i + 32 : i + 64])
        table.append((x, y, 1, 1, 1))
        table.insert(0, (x, _P - y, 1, 1, 1))
    point = None
    for i in range(64):
        digit = 0
        for j in range(i >> 3, 32, 8):
            digit = digit << 1 | octets[j] >> (~i & 7) & 1
        if i:
            point = _add(*(_double(1, *point) + table[digit]))
        else:
            x, y = table[digit | 8][:2]
            point = _blind(x, y, rand)
    x, y = _affine(*point)
    return x, y if k & 1 else _P - y


class P256:
    """NIST P-256: x | y, 64 octets each way; the shared secret is x alone (RFC 5903 §7)."""

    size = 64

    def __init__(self, rand, *_):
        self._rand = rand
        # 64 bits more than n has keep the remainder's bias below 2^-64 (FIPS 186-5 A.2.1).
        # The key is from 3 to n - 3, as `_multiply` needs it.
        self._key = _int(rand(40)) % (_N - 5) + 3
        x, y = _multiply_base(self._key, rand)
        self.public = x.to_bytes(32, "big") + y.to_bytes(32, "big")

    def shared(self, peer):
        """Return g^ir, 32 octets, or None unless `peer` is a point of the curve (RFC 6989 §2.3)."""
        x = _int(peer[:32])
        y = _int(peer[32:])
        p = _P
        # The curve has a prime order, so being on it is all that a point must prove.
        if len(peer) != 64 or x >= p or y >= p or (y * y - x * x * x + 3 * x - _B) % p:
            return None
        return _multiply(self._key, x, y, self._rand)[0].to_bytes(32, "big")


def _power(base, key, step):
    """Return base^key modulo the prime, `key` being octets.

    It works in windows of four bits.  That is a sixth less work than pow(), a third less for base
    2, whose powers are one digit, and it lets interrupts and callbacks run in between.  The whole
    takes seconds, so `step` is called between two octets of the key.
    """
    p = _int(_PRIME)
    table = [1]
    for _ in range(15):
        table.append(table[-1] * base % p)
    y = 1
    for octet in key:
        if step:
            step()
        for window in (octet >> 4, octet & 15):
            for _ in range(4):
                y = y * y % p
            y = y * table[window] % p
    return y.to_bytes(256, "big")


class MODP2048:
    """MODP-2048, generator 2: 256 octets each way, zeros in front included (RFC 7296 §2.14)."""

    size = 256

    def __init__(self, rand, step=None):
        self._step = step
        # An exponent needs twice the group's strength in bits: 220 or 320 by RFC 3526 §8, at least
        # 224 by NIST SP 800-56A (112 bits of strength), 225 by RFC 7919 A.1 for the same size.
        # We take 256 and set the highest, so that every key takes the same steps.
        key = bytearray(rand(32))
        key[0] |= 128
        self._key = key
        self.public = _power(2, key, step)

    def shared(self, peer):
        """Return g^ir, 256 octets, or None unless 1 < peer < p - 1 (RFC 6989 §2.1)."""
        y = _int(peer)
        if len(peer) != 256 or not 1 < y < _int(_PRIME) - 1:
            return None
        return _power(y, self._key, self._step)


METHODS = {_P256: P256, _MODP2048: MODP2048}
