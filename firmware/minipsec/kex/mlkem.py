"""ML-KEM (FIPS 203) as key exchange methods of IKEv2: transform ids 35, 36 and 37.

`method(36)` is a class like those in `methods`: `Method(rand)` makes a key pair, `.public` goes
into the KE payload, `.shared(ciphertext)` returns the secret once and forgets the private key.
This module is imported when a profile asks for it.  On rp2 its code lies on the heap and goes when
the module is dropped.  An ESP32 frees the memory of native code only at a soft reset, so there the
module must stay imported.

A polynomial is 256 coefficients of 16 bits in a bytearray.  The inner loops are in viper: machine
code on every board, with the same results for 32-bit and 64-bit words.  Nothing secret decides on
a branch, an address or a division; only the sampling of the public matrix takes its own time.

Every product is reduced as Plantard does.  With q = 3329 and q' = 1/q mod 2^32,

    P(x) = (((x q' mod 2^32) >> 16) + 1) q >> 16  =  -x / 2^32 mod q,  0 <= P(x) < q

for all 0 <= x < 2^32 - 2^16 q, about 4.07e9.  Proof: T = x q' mod 2^32 has T q = x mod 2^32, so
r = (T q - x) / 2^32 is an integer = -x / 2^32 (mod q) and -1 < r < q; P(x) is r plus the floor of
(x + (2^16 - T mod 2^16) q) / 2^32, which is 0 in that range.  So P(x) is always fully reduced, and
between two reductions there is room to be lazy; the bounds stand beside the loops.
"""
# ruff: noqa: F821  the types of viper are names to its compiler only

from array import array
from micropython import const

from ..crypto.octets import copy, xor
from .keccak import Sponge

_SHA3_256 = const(0x8806)  # H; rate << 8 | suffix, see keccak.Sponge
_SHA3_512 = const(0x4806)  # G
_SHAKE128 = const(0xA81F)  # XOF
_SHAKE256 = const(0x881F)  # J and PRF

_Q = const(3329)  # FIPS 203 §2.4.1

# Ours: factors of Plantard's reduction P
_ONE = const(1976)  # -2^32 mod q: P(1976 x) = x mod q
_TWO = const(2988)  # 2^64 mod q: undoes the P of a product and its own
_INVERSE = const(2208)  # the same / 128, for what comes out of _intt
_NEGATIVE = const(1121)  # q - 2208

# k, eta_1, d_u, d_v (FIPS 203 table 2; eta_2 is 2 in each)
_SETS = {35: (2, 3, 10, 4), 36: (3, 2, 10, 4), 37: (4, 2, 11, 5)}


def _make_zeta():
    # zeta[BitRev7(i)] = 17^i (FIPS 203 §4.3) times -2^32, for P.
    zeta = array("H", bytes(256))
    place = 0
    power = _ONE
    for _ in range(128):
        zeta[place] = power
        power = power * 17 % _Q
        bit = 64
        while place & bit:
            place ^= bit
            bit >>= 1
        place |= bit
    return zeta


_ZETA = _make_zeta()

# The first two arguments of each function live in registers.  `x` is a working variable in the
# second place: pass 0.


@micropython.viper
def _ntt(p: ptr16, x: uint, zeta: ptr16):
    """Replace p by its NTT (FIPS 203 algorithm 9).

    In: coefficients up to 3332.  Out: up to 3332 + 7 (q - 1), as each of the seven layers adds
    less than q.
    """
    x = uint(0xFFFF)
    mask = x << 16 | x
    inverse = uint(0x6BA8)
    inverse = inverse << 16 | 0xF301
    q = uint(_Q)
    start = int(p)
    length = 128
    while length > 1:
        p = ptr16(start)
        at = 0
        while at < 256:
            at += length + length
            zeta = ptr16(int(zeta) + 2)
            z = uint(zeta[0]) * inverse
            o = ptr16(int(p) + length + length)
            n = length
            while n:
                x = z
                x = ((uint(o[0]) * x & mask) >> 16) + 1
                x = x * q >> 16
                o[0] = p[0] - x + q
                p[0] = p[0] + x
                x = z
                x = ((uint(o[1]) * x & mask) >> 16) + 1
                x = x * q >> 16
                o[1] = p[1] - x + q
                p[1] = p[1] + x
                p = ptr16(int(p) + 4)
                o = ptr16(int(o) + 4)
                n -= 2
            p = o
        length >>= 1


@micropython.viper
def _intt(p: ptr16, x: uint, zeta: ptr16):
    """Replace p by 128 times its inverse NTT (FIPS 203 algorithm 10 without its last line).

    In: up to 4 (q - 1).  Each layer may double that, so all is reduced after two layers and after
    four more, when it is up to 16 (q - 1).
    """
    x = uint(0xFFFF)
    mask = x << 16 | x
    inverse = uint(0x6BA8)
    inverse = inverse << 16 | 0xF301
    q = uint(_Q)
    bound = q << 4
    start = int(p)
    zeta = ptr16(int(zeta) + 256)
    length = 2
    while length < 256:
        p = ptr16(start)
        at = 0
        if length & 0x88:
            x = inverse * uint(_ONE)
            while at < 256:
                p[0] = (((uint(p[0]) * x & mask) >> 16) + 1) * q >> 16
                p = ptr16(int(p) + 2)
                at += 1
            p = ptr16(start)
            at = 0
        while at < 256:
            at += length + length
            zeta = ptr16(int(zeta) - 2)
            z = uint(zeta[0]) * inverse
            o = ptr16(int(p) + length + length)
            n = length
            while n:
                x = uint(o[0])
                p[0] = p[0] + x
                x = x + x - p[0] + bound
                o[0] = (((z * x & mask) >> 16) + 1) * q >> 16
                x = uint(o[1])
                p[1] = p[1] + x
                x = x + x - p[1] + bound
                o[1] = (((z * x & mask) >> 16) + 1) * q >> 16
                p = ptr16(int(p) + 4)
                o = ptr16(int(o) + 4)
                n -= 2
            p = o
        length += length


@micropython.viper
def _multiply(a: ptr16, x: uint, b: ptr16, o: ptr16, zeta: ptr16, keep: int):
    """Add to o (keep = -1) or put there (keep = 0) the product of a and b in the NTT domain.

    FIPS 203 algorithms 11 and 12, times -1/2^32.  In: a below q, b as _ntt leaves it; each call
    adds up to q - 1.
    """
    x = uint(0xFFFF)
    mask = x << 16 | x
    inverse = uint(0x6BA8)
    inverse = inverse << 16 | 0xF301
    q = uint(_Q)
    zeta = ptr16(int(zeta) + 128)
    sign = 0
    n = 128
    while n:
        x = uint(b[1])
        x = (((uint(a[1]) * x * inverse & mask) >> 16) + 1) * q >> 16
        if sign:
            x = q - x
        x = x * zeta[0]
        y = x
        x = uint(b[0])
        x = uint(a[0]) * x + y
        o[0] = ((((x * inverse & mask) >> 16) + 1) * q >> 16) + (o[0] & keep)
        x = uint(b[0])
        y = uint(a[1]) * x
        x = uint(b[1])
        x = uint(a[0]) * x + y
        o[1] = ((((x * inverse & mask) >> 16) + 1) * q >> 16) + (o[1] & keep)
        a = ptr16(int(a) + 4)
        b = ptr16(int(b) + 4)
        o = ptr16(int(o) + 4)
        zeta = ptr16(int(zeta) + sign)
        sign ^= 2
        n -= 1


@micropython.viper
def _combine(p: ptr16, x: uint, e: ptr16, c: int):
    """Set p to P(c p) + e, fully reduced.  In: 16 bits each, c below q."""
    x = uint(0xFFFF)
    mask = x << 16 | x
    inverse = uint(0x6BA8)
    inverse = inverse << 16 | 0xF301
    n = 256
    while n:
        y = e[0] * _ONE
        x = uint(c)
        x = uint(p[0]) * x + y
        p[0] = (((x * inverse & mask) >> 16) + 1) * _Q >> 16
        p = ptr16(int(p) + 2)
        e = ptr16(int(e) + 2)
        n -= 1


@micropython.viper
def _reject(o: ptr16, x: int, data: ptr8, size: int, count: int) -> int:
    """Take coefficients below q from triples of octets (FIPS 203 algorithm 7) until o has 256.

    `size` octets are there, a multiple of 3; `count` coefficients were there before, the result
    says how many are now.
    """
    o = ptr16(int(o) + count + count)
    while size:
        x = data[0] | (data[1] & 15) << 8
        if x < _Q:
            o[0] = x
            o = ptr16(int(o) + 2)
            count += 1
            if count == 256:
                return count
        x = data[1] >> 4 | data[2] << 4
        if x < _Q:
            o[0] = x
            o = ptr16(int(o) + 2)
            count += 1
            if count == 256:
                return count
        data = ptr8(int(data) + 3)
        size -= 3
    return count


@micropython.viper
def _noise(o: ptr16, x: int, eta: int):
    """Sample from the centred binomial distribution (FIPS 203 algorithm 8), in place.

    The 64 * eta octets of randomness are the last of o; four coefficients come from eta octets,
    so writing catches up with reading only at the very end.  Out: q - eta .. q + eta.
    """
    data = ptr8(int(o) + 512 - (eta << 6))
    ones = 0x5555
    if eta == 3:
        ones = 0x249249
    low = (1 << eta) - 1
    n = 64
    while n:
        x = data[0] | data[1] << 8
        if eta == 3:
            x |= data[2] << 16
        y = (x & ones) + (x >> 1 & ones)
        if eta == 3:
            y += x >> 2 & ones
        data = ptr8(int(data) + eta)
        m = 4
        while m:
            x = y & low
            y >>= eta
            o[0] = _Q + x - (y & low)
            y >>= eta
            o = ptr16(int(o) + 2)
            m -= 1
        n -= 1


@micropython.viper
def _pack(p: ptr16, x: uint, o: ptr8, at: int, d: int, c: int):
    """Compress p, fully reduced, to d bits (unless d is 12) and encode it to o[at:].

    FIPS 203 §4.2.1, algorithm 5.  With c = -2^(32 + d) mod q, P gives the remainder of the
    division of 2^d x + (q - 1) / 2 by q; less that, the quotient is exact and comes from a
    product.
    """
    x = uint(0xFFFF)
    mask = x << 16 | x
    inverse = uint(0x6BA8)
    inverse = inverse << 16 | 0xF301
    o = ptr8(int(o) + at)
    low = (1 << d) - 1
    bits = uint(0)
    have = 0
    n = 256
    while n:
        x = uint(p[0])
        if d < 12:
            y = x << d
            x = x * c + 2341  # 1664 * _ONE mod q
            x = (((x * inverse & mask) >> 16) + 1) * _Q >> 16
            x = y + 1664 - x
            x = x * inverse & low
        bits |= x << have
        have += d
        while have > 7:
            o[0] = bits
            bits >>= 8
            have -= 8
            o = ptr8(int(o) + 1)
        p = ptr16(int(p) + 2)
        n -= 1


@micropython.viper
def _unpack(p: ptr16, x: int, data: ptr8, at: int, d: int):
    """Decode d bits a coefficient from data[at:] and (unless d is 12) decompress them.

    FIPS 203 §4.2.1, algorithm 6.
    """
    data = ptr8(int(data) + at)
    low = (1 << d) - 1
    half = 1 << d >> 1
    bits = 0
    have = 0
    n = 256
    while n:
        while have < d:
            bits |= data[0] << have
            data = ptr8(int(data) + 1)
            have += 8
        x = bits & low
        bits >>= d
        have -= d
        if d < 12:
            x = x * _Q + half >> d
        p[0] = x
        p = ptr16(int(p) + 2)
        n -= 1


@micropython.viper
def _differ(a: ptr8, x: int, b: ptr8, at: int, size: int) -> int:
    """Return 0 if the first `size` octets of a are those of b[at:], else 1 .. 255."""
    b = ptr8(int(b) + at)
    x = 0
    while size:
        x |= a[0] ^ b[0]
        a = ptr8(int(a) + 1)
        b = ptr8(int(b) + 1)
        size -= 1
    return x


class _Work:
    """The buffers of one operation and the steps that use them; wipe() when done."""

    def __init__(self, k):
        self.sponge = Sponge()
        # y or s; the row that is being summed; the next term of that sum.
        self.vector = [bytearray(512) for _ in range(k)]
        self.sum = bytearray(512)
        self.term = bytearray(512)
        self.index = bytearray(2)

    def wipe(self):
        self.sponge.wipe()
        for p in self.vector:
            xor(p, 0, p, 0, 512)
        xor(self.sum, 0, self.sum, 0, 512)
        xor(self.term, 0, self.term, 0, 512)

    def hash(self, out, kind, first, second=b""):
        """Fill `out` with the hash of first | second."""
        self.sponge.start(kind)
        self.sponge.absorb(first)
        self.sponge.absorb(second)
        self.sponge.squeeze(out, 0, len(out))

    def uniform(self, p, ek, column, row):
        """Sample A[row, column] (FIPS 203 algorithm 7) from the last 32 octets of ek."""
        self.index[0] = column
        self.index[1] = row
        self.sponge.start(_SHAKE128)
        self.sponge.absorb(ek, len(ek) - 32)
        self.sponge.absorb(self.index)
        count = 0
        while count < 256:
            count = _reject(p, 0, self.sponge.block(), 168, count)

    def noise(self, p, seed, n, eta):
        """Sample from PRF_eta(first 32 octets of seed, n) (FIPS 203 §4.1, algorithm 8)."""
        self.index[0] = n
        self.sponge.start(_SHAKE256)
        self.sponge.absorb(seed, 0, 32)
        self.sponge.absorb(self.index, 0, 1)
        self.sponge.squeeze(p, 512 - 64 * eta, 64 * eta)
        _noise(p, 0, eta)

    def noise_ntt(self, p, seed, n, eta):
        self.noise(p, seed, n, eta)
        _ntt(p, 0, _ZETA)


class _Method:
    """One of the three parameter sets; `method` fills in k, eta_1, d_u, d_v and size."""

    def __init__(self, rand, *_):
        """Make a key pair (FIPS 203 algorithms 19, 16 and 13) from 64 octets of `rand(n)`.

        The private key that is kept is sigma | z.  The secret vector is sampled anew from sigma;
        z is for implicit rejection.
        """
        k = self.k
        seed = rand(64)
        work = _Work(k)
        secret = bytearray(64)
        ek = bytearray(384 * k + 32)
        try:
            # (rho, sigma) = G(d | k)
            work.sponge.start(_SHA3_512)
            work.sponge.absorb(seed, 0, 32)
            work.sponge.absorb(bytes((k,)))
            work.sponge.squeeze(ek, 384 * k, 32)
            work.sponge.squeeze(secret, 0, 32)
            copy(secret, 32, seed, 32, 32, 0)
            for j in range(k):
                work.noise_ntt(work.vector[j], secret, j, self.eta_1)
            for i in range(k):
                for j in range(k):
                    work.uniform(work.term, ek, j, i)
                    _multiply(work.term, 0, work.vector[j], work.sum, _ZETA, -1 if j else 0)
                work.noise_ntt(work.term, secret, k + i, self.eta_1)
                _combine(work.sum, 0, work.term, _TWO)
                _pack(work.sum, 0, ek, 384 * i, 12, 0)
            self._hash = bytearray(32)
            work.hash(self._hash, _SHA3_256, ek)
        finally:
            work.wipe()
        self._secret = secret
        self.public = bytes(ek)

    def wipe(self):
        """Overwrite the private key; `shared` refuses from then on."""
        if self._secret:
            xor(self._secret, 0, self._secret, 0, 64)
            self._secret = None

    def shared(self, ciphertext):
        """Return the shared secret, 32 octets (FIPS 203 algorithms 21, 18 and 15), and wipe the key.

        Return None for a wrong length, which leaves the key as it is, and for a key that was used
        already.  A ciphertext that was not made for this key gives a secret that nobody else has
        (implicit rejection); authentication then fails.
        """
        secret = self._secret
        if len(ciphertext) != self.size or not secret:
            return None
        k = self.k
        d_u = self.d_u
        work = _Work(k)
        message = bytearray(32)
        keys = bytearray(64)
        other = bytearray(32)
        try:
            # w = v - NTT^-1(s NTT(u)); the secret vector is made again, one by one.
            u, s = work.vector[:2]
            for j in range(k):
                _unpack(u, 0, ciphertext, 32 * d_u * j, d_u)
                _ntt(u, 0, _ZETA)
                _combine(u, 0, u, 0)
                work.noise_ntt(s, secret, j, self.eta_1)
                _multiply(u, 0, s, work.sum, _ZETA, -1 if j else 0)
            _intt(work.sum, 0, _ZETA)
            _unpack(work.term, 0, ciphertext, 32 * d_u * k, self.d_v)
            _combine(work.sum, 0, work.term, _NEGATIVE)
            _pack(work.sum, 0, message, 0, 1, _scale(1))
            # K' | r' = G(m' | h), the other secret J(z | c)
            work.hash(keys, _SHA3_512, message, self._hash)
            work.sponge.start(_SHAKE256)
            work.sponge.absorb(secret, 32)
            work.sponge.absorb(ciphertext)
            work.sponge.squeeze(other, 0, 32)
            coins = memoryview(keys)[32:]
            different = self._encrypt(work, self.public, message, coins, ciphertext, True)
            # 0 if it was the same in every octet, else 255, without a branch.
            mask = (different + 255 >> 8) * 255
            for i in range(32):
                keys[i] ^= mask & (keys[i] ^ other[i])
            return bytes(memoryview(keys)[:32])
        finally:
            work.wipe()
            self.wipe()
            xor(message, 0, message, 0, 32)
            xor(keys, 0, keys, 0, 64)
            xor(other, 0, other, 0, 32)

    @classmethod
    def _encrypt(cls, work, ek, message, coins, c, check):
        """K-PKE.Encrypt (FIPS 203 algorithm 14) into c, or, to check, return how c differs."""
        k = cls.k
        differ = 0
        at = 0
        for j in range(k):
            work.noise_ntt(work.vector[j], coins, j, cls.eta_1)
        for i in range(k + 1):
            for j in range(k):
                # A transposed, and below it the row of t, which is all of ek but its end.
                if i < k:
                    work.uniform(work.term, ek, i, j)
                else:
                    _unpack(work.term, 0, ek, 384 * j, 12)
                _multiply(work.term, 0, work.vector[j], work.sum, _ZETA, -1 if j else 0)
            _intt(work.sum, 0, _ZETA)
            work.noise(work.term, coins, k + i, 2)
            _combine(work.sum, 0, work.term, _INVERSE)
            d = cls.d_u
            if i == k:
                d = cls.d_v
                _unpack(work.term, 0, message, 0, 1)
                _combine(work.sum, 0, work.term, _ONE)
            _pack(work.sum, 0, work.term, 0, d, _scale(d))
            if check:
                differ |= _differ(work.term, 0, c, at, 32 * d)
            else:
                copy(c, at, work.term, 0, 32 * d, 0)
            at += 32 * d
        return differ

    @classmethod
    def encaps(cls, ek, rand):
        """Return (ciphertext, shared secret) for an encapsulation key (FIPS 203 algorithm 20).

        None for a key of the wrong length or with a coefficient that is not below q (§7.2).
        32 octets are taken from `rand(n)`.
        """
        k = cls.k
        if len(ek) != 384 * k + 32:
            return None
        work = _Work(k)
        keys = bytearray(64)
        digest = bytearray(32)
        c = bytearray(cls.size)
        message = rand(32)
        try:
            differ = 0
            for j in range(k):
                _unpack(work.sum, 0, ek, 384 * j, 12)
                _combine(work.sum, 0, work.sum, 0)
                _pack(work.sum, 0, work.term, 0, 12, 0)
                differ |= _differ(work.term, 0, ek, 384 * j, 384)
            if differ:
                return None
            work.hash(digest, _SHA3_256, ek)
            work.hash(keys, _SHA3_512, message, digest)
            cls._encrypt(work, ek, message, memoryview(keys)[32:], c, False)
            return bytes(c), bytes(memoryview(keys)[:32])
        finally:
            work.wipe()
            xor(keys, 0, keys, 0, 64)


def _scale(d):
    # What _pack wants for d bits.
    return (1 << d) * _ONE % _Q


def method(transform):
    """Return the class of a key exchange method: 35 is ML-KEM-512, 36 ML-KEM-768, 37 ML-KEM-1024.

    None for any other.  Its `size` is what `shared` wants of the peer: the octets of a ciphertext.
    """
    if transform not in _SETS:
        return None
    k, eta_1, d_u, d_v = _SETS[transform]
    names = {"k": k, "eta_1": eta_1, "d_u": d_u, "d_v": d_v, "size": 32 * (d_u * k + d_v)}
    return type("MLKEM", (_Method,), names)
