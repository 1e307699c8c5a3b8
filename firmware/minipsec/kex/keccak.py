"""Keccak-f[1600] and the sponge of SHA-3 and SHAKE (FIPS 202), for mlkem.

The permutation is in viper: machine code on every board, with the same results for 32-bit and
64-bit words.  The code takes no branch and no address from the data, so its time tells nothing of
a secret.  On a port without a native emitter this module does not compile.
"""
# ruff: noqa: F821  the types of viper are names to its compiler only

from ..crypto.octets import copy, xor


@micropython.viper
def _permute(p: ptr32):
    """Keccak-f[1600] (FIPS 202 §3.3) on the first 200 octets of a sponge's workspace.

    A lane is two words, the low one first; A[x, y] stands in words 10y + 2x and 10y + 2x + 1.
    A round reads one copy of the state and writes the other.  `p` and `t` come first because the
    first two live in registers.  With 64-bit words a shift to the left leaves bits above, so a
    store to memory or `mask` keeps each value below 2^32 before it is shifted right.

    Each lane is written out, since viper has no rotation and no arrays of registers.  No script
    makes this: change it here.  host_tests/crypto/test_viper.py compares it with hashlib.
    """
    t = uint(0xFFFF)
    mask = t << 16 | t
    a = p
    b = ptr32(int(p) + 200)
    rc = ptr8(int(p) + 400)
    n = 24
    while n:
        q = ptr32(int(p) + 80)
        # theta: the parity of each column ..
        t = uint(p[0])
        c0 = t ^ p[10] ^ p[20] ^ p[30] ^ q[20]
        t = uint(p[1])
        c1 = t ^ p[11] ^ p[21] ^ p[31] ^ q[21]
        t = uint(p[2])
        c2 = t ^ p[12] ^ p[22] ^ q[12] ^ q[22]
        t = uint(p[3])
        c3 = t ^ p[13] ^ p[23] ^ q[13] ^ q[23]
        t = uint(p[4])
        c4 = t ^ p[14] ^ p[24] ^ q[14] ^ q[24]
        t = uint(p[5])
        c5 = t ^ p[15] ^ p[25] ^ q[15] ^ q[25]
        t = uint(p[6])
        c6 = t ^ p[16] ^ p[26] ^ q[16] ^ q[26]
        t = uint(p[7])
        c7 = t ^ p[17] ^ p[27] ^ q[17] ^ q[27]
        t = uint(p[8])
        c8 = t ^ p[18] ^ p[28] ^ q[18] ^ q[28]
        t = uint(p[9])
        c9 = t ^ p[19] ^ p[29] ^ q[19] ^ q[29]
        # .. and what it changes in each lane of the next.
        t = c2 << 1
        d0 = (c3 >> 31 ^ t ^ c8) & mask
        t = c3 << 1
        d1 = (c2 >> 31 ^ t ^ c9) & mask
        t = c4 << 1
        d2 = (c5 >> 31 ^ t ^ c0) & mask
        t = c5 << 1
        d3 = (c4 >> 31 ^ t ^ c1) & mask
        t = c6 << 1
        d4 = (c7 >> 31 ^ t ^ c2) & mask
        t = c7 << 1
        d5 = (c6 >> 31 ^ t ^ c3) & mask
        t = c8 << 1
        d6 = (c9 >> 31 ^ t ^ c4) & mask
        t = c9 << 1
        d7 = (c8 >> 31 ^ t ^ c5) & mask
        t = c0 << 1
        d8 = (c1 >> 31 ^ t ^ c6) & mask
        t = c1 << 1
        d9 = (c0 >> 31 ^ t ^ c7) & mask
        # rho, pi and chi, one row of the new state after the other.
        t = d0
        c0 = uint(p[0]) ^ t
        t = d1
        c1 = uint(p[1]) ^ t
        t = d2
        l = uint(p[12]) ^ t
        t = d3
        h = uint(p[13]) ^ t
        t = h << 12
        c2 = l >> 20 ^ t
        t = l << 12
        c3 = h >> 20 ^ t
        t = d4
        l = uint(p[24]) ^ t
        t = d5
        h = uint(p[25]) ^ t
        t = h << 11
        c4 = l >> 21 ^ t
        t = l << 11
        c5 = h >> 21 ^ t
        t = d6
        l = uint(q[16]) ^ t
        t = d7
        h = uint(q[17]) ^ t
        t = l << 21
        c6 = h >> 11 ^ t
        t = h << 21
        c7 = l >> 11 ^ t
        t = d8
        l = uint(q[28]) ^ t
        t = d9
        h = uint(q[29]) ^ t
        t = l << 14
        c8 = h >> 18 ^ t
        t = h << 14
        c9 = l >> 18 ^ t
        p = b
        t = ~c2
        p[0] = c4 & t ^ c0
        t = ~c3
        p[1] = c5 & t ^ c1
        t = ~c4
        p[2] = c6 & t ^ c2
        t = ~c5
        p[3] = c7 & t ^ c3
        t = ~c6
        p[4] = c8 & t ^ c4
        t = ~c7
        p[5] = c9 & t ^ c5
        t = ~c8
        p[6] = c0 & t ^ c6
        t = ~c9
        p[7] = c1 & t ^ c7
        t = ~c0
        p[8] = c2 & t ^ c8
        t = ~c1
        p[9] = c3 & t ^ c9
        p = a
        t = d6
        l = uint(p[6]) ^ t
        t = d7
        h = uint(p[7]) ^ t
        t = l << 28
        c0 = h >> 4 ^ t
        t = h << 28
        c1 = l >> 4 ^ t
        t = d8
        l = uint(p[18]) ^ t
        t = d9
        h = uint(p[19]) ^ t
        t = l << 20
        c2 = h >> 12 ^ t
        t = h << 20
        c3 = l >> 12 ^ t
        t = d0
        l = uint(p[20]) ^ t
        t = d1
        h = uint(p[21]) ^ t
        t = l << 3
        c4 = h >> 29 ^ t
        t = h << 3
        c5 = l >> 29 ^ t
        t = d2
        l = uint(q[12]) ^ t
        t = d3
        h = uint(q[13]) ^ t
        t = h << 13
        c6 = l >> 19 ^ t
        t = l << 13
        c7 = h >> 19 ^ t
        t = d4
        l = uint(q[24]) ^ t
        t = d5
        h = uint(q[25]) ^ t
        t = h << 29
        c8 = l >> 3 ^ t
        t = l << 29
        c9 = h >> 3 ^ t
        p = b
        t = ~c2
        p[10] = c4 & t ^ c0
        t = ~c3
        p[11] = c5 & t ^ c1
        t = ~c4
        p[12] = c6 & t ^ c2
        t = ~c5
        p[13] = c7 & t ^ c3
        t = ~c6
        p[14] = c8 & t ^ c4
        t = ~c7
        p[15] = c9 & t ^ c5
        t = ~c8
        p[16] = c0 & t ^ c6
        t = ~c9
        p[17] = c1 & t ^ c7
        t = ~c0
        p[18] = c2 & t ^ c8
        t = ~c1
        p[19] = c3 & t ^ c9
        p = a
        t = d2
        l = uint(p[2]) ^ t
        t = d3
        h = uint(p[3]) ^ t
        t = l << 1
        c0 = h >> 31 ^ t
        t = h << 1
        c1 = l >> 31 ^ t
        t = d4
        l = uint(p[14]) ^ t
        t = d5
        h = uint(p[15]) ^ t
        t = l << 6
        c2 = h >> 26 ^ t
        t = h << 6
        c3 = l >> 26 ^ t
        t = d6
        l = uint(p[26]) ^ t
        t = d7
        h = uint(p[27]) ^ t
        t = l << 25
        c4 = h >> 7 ^ t
        t = h << 25
        c5 = l >> 7 ^ t
        t = d8
        l = uint(q[18]) ^ t
        t = d9
        h = uint(q[19]) ^ t
        t = l << 8
        c6 = h >> 24 ^ t
        t = h << 8
        c7 = l >> 24 ^ t
        t = d0
        l = uint(q[20]) ^ t
        t = d1
        h = uint(q[21]) ^ t
        t = l << 18
        c8 = h >> 14 ^ t
        t = h << 18
        c9 = l >> 14 ^ t
        p = b
        t = ~c2
        p[20] = c4 & t ^ c0
        t = ~c3
        p[21] = c5 & t ^ c1
        t = ~c4
        p[22] = c6 & t ^ c2
        t = ~c5
        p[23] = c7 & t ^ c3
        t = ~c6
        p[24] = c8 & t ^ c4
        t = ~c7
        p[25] = c9 & t ^ c5
        t = ~c8
        p[26] = c0 & t ^ c6
        t = ~c9
        p[27] = c1 & t ^ c7
        t = ~c0
        p[28] = c2 & t ^ c8
        t = ~c1
        p[29] = c3 & t ^ c9
        p = a
        t = d8
        l = uint(p[8]) ^ t
        t = d9
        h = uint(p[9]) ^ t
        t = l << 27
        c0 = h >> 5 ^ t
        t = h << 27
        c1 = l >> 5 ^ t
        t = d0
        l = uint(p[10]) ^ t
        t = d1
        h = uint(p[11]) ^ t
        t = h << 4
        c2 = l >> 28 ^ t
        t = l << 4
        c3 = h >> 28 ^ t
        t = d2
        l = uint(p[22]) ^ t
        t = d3
        h = uint(p[23]) ^ t
        t = l << 10
        c4 = h >> 22 ^ t
        t = h << 10
        c5 = l >> 22 ^ t
        t = d4
        l = uint(q[14]) ^ t
        t = d5
        h = uint(q[15]) ^ t
        t = l << 15
        c6 = h >> 17 ^ t
        t = h << 15
        c7 = l >> 17 ^ t
        t = d6
        l = uint(q[26]) ^ t
        t = d7
        h = uint(q[27]) ^ t
        t = h << 24
        c8 = l >> 8 ^ t
        t = l << 24
        c9 = h >> 8 ^ t
        p = b
        q = ptr32(int(p) + 80)
        t = ~c2
        p[30] = c4 & t ^ c0
        t = ~c3
        p[31] = c5 & t ^ c1
        t = ~c4
        q[12] = c6 & t ^ c2
        t = ~c5
        q[13] = c7 & t ^ c3
        t = ~c6
        q[14] = c8 & t ^ c4
        t = ~c7
        q[15] = c9 & t ^ c5
        t = ~c8
        q[16] = c0 & t ^ c6
        t = ~c9
        q[17] = c1 & t ^ c7
        t = ~c0
        q[18] = c2 & t ^ c8
        t = ~c1
        q[19] = c3 & t ^ c9
        p = a
        q = ptr32(int(p) + 80)
        t = d4
        l = uint(p[4]) ^ t
        t = d5
        h = uint(p[5]) ^ t
        t = h << 30
        c0 = l >> 2 ^ t
        t = l << 30
        c1 = h >> 2 ^ t
        t = d6
        l = uint(p[16]) ^ t
        t = d7
        h = uint(p[17]) ^ t
        t = h << 23
        c2 = l >> 9 ^ t
        t = l << 23
        c3 = h >> 9 ^ t
        t = d8
        l = uint(p[28]) ^ t
        t = d9
        h = uint(p[29]) ^ t
        t = h << 7
        c4 = l >> 25 ^ t
        t = l << 7
        c5 = h >> 25 ^ t
        t = d0
        l = uint(p[30]) ^ t
        t = d1
        h = uint(p[31]) ^ t
        t = h << 9
        c6 = l >> 23 ^ t
        t = l << 9
        c7 = h >> 23 ^ t
        t = d2
        l = uint(q[22]) ^ t
        t = d3
        h = uint(q[23]) ^ t
        t = l << 2
        c8 = h >> 30 ^ t
        t = h << 2
        c9 = l >> 30 ^ t
        p = b
        q = ptr32(int(p) + 80)
        t = ~c2
        q[20] = c4 & t ^ c0
        t = ~c3
        q[21] = c5 & t ^ c1
        t = ~c4
        q[22] = c6 & t ^ c2
        t = ~c5
        q[23] = c7 & t ^ c3
        t = ~c6
        q[24] = c8 & t ^ c4
        t = ~c7
        q[25] = c9 & t ^ c5
        t = ~c8
        q[26] = c0 & t ^ c6
        t = ~c9
        q[27] = c1 & t ^ c7
        t = ~c0
        q[28] = c2 & t ^ c8
        t = ~c1
        q[29] = c3 & t ^ c9
        # iota: bit j of a round's octet stands for bit 2^j - 1 of its constant.
        t = uint(rc[0])
        rc = ptr8(int(rc) + 1)
        p[0] ^= t & 3 | (t & 4) << 1 | (t & 8) << 4 | (t & 16) << 11 | (t & 32) << 26
        p[1] ^= (t & 64) << 25
        b = a
        a = p
        n -= 1


class Sponge:
    """Absorb octets, then squeeze octets: SHA-3 and SHAKE without garbage.

    A kind is its rate in octets << 8 | its domain suffix with the first bit of the padding
    (FIPS 202 §6.1, §6.2): SHA3-256 0x8806, SHA3-512 0x4806, SHAKE128 0xA81F, SHAKE256 0x881F.
    """

    def __init__(self):
        # Two copies of the state, then the round constants, as _permute wants them.
        self.work = bytearray(424)
        self.work[400:] = (
            b"\x01\x1a\x5e\x70\x1f\x21\x79\x55\x0e\x0c\x35\x26"
            b"\x3f\x4f\x5d\x53\x52\x48\x16\x66\x79\x58\x21\x74"
        )

    def start(self, kind):
        """Forget all and begin a hash of this kind."""
        xor(self.work, 0, self.work, 0, 200)
        self._kind = kind
        self._at = 0

    def absorb(self, data, start=0, size=None):
        """Take in `size` octets of data[start:], or all of them."""
        if size is None:
            size = len(data) - start
        rate = self._kind >> 8
        while size:
            n = min(size, rate - self._at)
            xor(self.work, self._at, data, start, n)
            start += n
            size -= n
            self._at += n
            if self._at == rate:
                _permute(self.work)
                self._at = 0

    def block(self):
        """Return a buffer whose first octets, as many as the rate, are the next of the output.

        It is the state itself, so read it only.
        """
        if self._kind & 255:
            # The end of the message: suffix, zeros, last bit of the padding.
            self.work[self._at] ^= self._kind & 255
            self._kind &= -256
            self.work[(self._kind >> 8) - 1] ^= 128
        _permute(self.work)
        self._at = 0
        return self.work

    def squeeze(self, out, at, size):
        """Write the next `size` octets of the output to out[at:]."""
        while size:
            rate = self._kind >> 8
            if self._kind & 255 or self._at == rate:
                self.block()
            n = min(size, rate - self._at)
            copy(out, at, self.work, self._at, n, 0)
            at += n
            size -= n
            self._at += n

    def wipe(self):
        """Overwrite both copies of the state with zeros."""
        xor(self.work, 0, self.work, 0, 400)
