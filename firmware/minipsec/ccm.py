"""AES-CCM out of AES-ECB and AES-CBC (RFC 3610; RFC 4309 for ESP, RFC 5282 for IKE).

`cryptolib` has ECB and CBC only, and CCM needs no more: one CBC call over B0 | AAD | P, whose
last block is the tag, and one ECB call over the counter blocks.

A nonce, salt | IV, must never be used twice under one key: a repeated one gives away the XOR of
two plaintexts and lets tags be forged.  This module trusts its caller for that.
"""

import struct
from cryptolib import aes
from micropython import const

from .loops import spread, xor

_ECB = const(1)
_CBC = const(2)
_SALT = const(3)
_L = const(4)  # octets of the length field: 15 - (3 + 8)
_KEEP = const(1344)  # octets of work space that are kept for the next packet


def _make(size):
    """Return work space: MAC blocks, counter blocks, key stream; views of the first two."""
    counters = bytearray(size)
    for i in range(0, size, 16):
        counters[i + 14] = i >> 12
        counters[i + 15] = (i >> 4) & 255
    blocks = bytearray(size)
    return blocks, counters, bytearray(size), memoryview(blocks), memoryview(counters)


_ZERO = bytes(16)
_work = _make(128)  # shared by all keys: each call leaves nothing that the next one reads


def equal(a, b):
    """Compare two octet strings without leaving at the first difference."""
    if len(a) != len(b):
        return False
    difference = 0
    for x, y in zip(a, b):
        difference |= x ^ y
    return not difference


class CCM:
    """One AES-CCM key: AES key (16, 24 or 32 octets) followed by a salt of 3 octets.

    `icv` is the tag's length in octets: 8, 12 or 16.
    """

    def __init__(self, key, icv):
        self._ecb = aes(key[:-_SALT], _ECB)
        # One CBC object for life; its last block is taken out of the next first one.
        self._cbc = aes(key[:-_SALT], _CBC, _ZERO)
        self._tag = bytearray(16)
        self._nonce = bytearray(12)  # flags | salt | IV
        self._nonce[0] = _L - 1
        self._nonce[1:4] = key[-_SALT:]
        self.icv = icv

    def size(self, n):
        """Octets of IV, ciphertext and ICV for `n` octets of plaintext with its Pad Length."""
        return 8 + n + 1 + self.icv

    def seal_into(self, buf, at, n, iv, aad, opening=False):
        """Encrypt buf[at:at + n] in place and write the ICV behind it.

        With `opening` decrypt it and return its ICV, 16 octets.  The AAD is under 0xff00 octets.
        """
        global _work
        k = len(aad)
        start = 32 if k <= 14 else (k + 33) & -16
        end = (start + n + 15) & -16
        work = _work
        if end > len(work[0]):
            work = _make(end)
            if end <= _KEEP:
                _work = work
        blocks, counters, stream, view, heads = work
        nonce = self._nonce
        nonce[4:] = iv
        size = (n + 31) & -16
        spread(counters, nonce, size)
        self._ecb.encrypt(heads[:size], stream)
        if opening:
            xor(buf, at, buf, at, stream, 16, n)
        # What the last text left behind goes first.
        blocks[end - 16 : end] = blocks[start - 16 : start] = _ZERO
        blocks[:12] = nonce
        blocks[0] = 0x40 | (self.icv - 2) << 2 | (_L - 1)
        struct.pack_into(">IH", blocks, 12, n, k)
        blocks[18 : 18 + k] = aad
        blocks[start : start + n] = buf[at : at + n]
        tag = self._tag
        xor(blocks, 0, blocks, 0, tag, 0, 16)
        self._cbc.encrypt(view[:end], blocks)
        xor(tag, 0, blocks, end - 16, _ZERO, 0, 16)
        if opening:
            xor(stream, 0, stream, 0, tag, 0, 16)
            return stream
        xor(buf, at, buf, at, stream, 16, n)
        xor(buf, at + n, stream, 0, tag, 0, self.icv)

    def open_in(self, buf, start, n, iv, aad):
        """Decrypt buf[start:start + n] in place, the ICV standing behind it; True when it fits.

        After False the text in `buf` is meaningless and must be thrown away.
        """
        icv = self.seal_into(buf, start, n, iv, aad, True)
        end = start + n
        return equal(memoryview(icv)[: self.icv], memoryview(buf)[end : end + self.icv])

    # The shape that IKE's SK payload takes: IV | ciphertext | ICV (RFC 5282 §3).

    def seal(self, aad, iv, text):
        """Return IV | ciphertext | ICV of `text` and a Pad Length of 0."""
        n = len(text) + 1
        out = bytearray(8 + n + self.icv)
        out[:8] = iv
        out[8 : 7 + n] = text
        self.seal_into(out, 8, n, iv, aad)
        return out

    def open(self, aad, body):
        """Return the plaintext of an SK or SKF body without its padding, or None."""
        n = len(body) - 8 - self.icv
        if n < 1:
            return None
        out = bytearray(body)
        if not self.open_in(out, 8, n, out[:8], aad):
            return None
        end = 7 + n - out[7 + n]
        return out[8:end] if end >= 8 else None
