"""AES-CCM out of AES-ECB and AES-CBC (RFC 3610; RFC 4309 for ESP, RFC 5282 for IKE).

`cryptolib` has ECB and CBC only, and CCM needs no more: one CBC call over B0 | AAD | P, whose
last block is the tag, and one ECB call over the counter blocks.

A nonce, salt | IV, must never be used twice under one key: a repeated one gives away the XOR of
two plaintexts and lets tags be forged.  This module trusts its caller for that.
"""

import struct
from cryptolib import aes
from micropython import const

_ECB = const(1)
_CBC = const(2)
_SALT = const(3)
_L = const(4)  # octets of the length field: 15 - (3 + 8)


def equal(a, b):
    """Compare two octet strings without leaving at the first difference."""
    if len(a) != len(b):
        return False
    difference = 0
    for x, y in zip(a, b):
        difference |= x ^ y
    return not difference


class CCM:
    """One AES-CCM key: AES key (16 or 32 octets) followed by a salt of 3 octets.

    `icv` is the tag's length in octets: 8, 12 or 16.
    """

    iv_size = 8

    def __init__(self, key, icv):
        self._ecb = aes(key[:-_SALT], _ECB)
        # One CBC object for life; what it carries over is taken out of the next first block.
        self._cbc = aes(key[:-_SALT], _CBC, bytes(16))
        self._carry = 0
        self._salt = bytes(key[-_SALT:])
        self.icv = icv

    def size(self, n):
        """Octets of IV, ciphertext and ICV for `n` octets of plaintext with its Pad Length."""
        return 8 + n + 1 + self.icv

    def _stream(self, iv, n):
        """Return the key stream: 16 octets for the tag, then at least `n` for the text."""
        counters = bytearray(16 * (((n + 15) >> 4) + 1))
        block = struct.pack(">B3s8sI", _L - 1, self._salt, iv, 0)
        for i in range(0, len(counters), 16):
            counters[i : i + 12] = block[:12]
            counters[i + 14] = i >> 12
            counters[i + 15] = (i >> 4) & 255
        self._ecb.encrypt(counters, counters)
        return counters

    def _tag(self, iv, aad, text):
        """Return CBC-MAC(B0 | AAD | text), 16 octets.

        The AAD has 1 to 0xfeff octets: CCM encodes none, and more, differently, and neither IKE
        nor ESP has such.
        """
        n = len(text)
        start = 16 + ((len(aad) + 17) & -16)
        blocks = bytearray((start + n + 15) & -16)
        flags = 0x40 | (self.icv - 2) << 2 | (_L - 1)
        struct.pack_into(">B3s8sIH", blocks, 0, flags, self._salt, iv, n, len(aad))
        blocks[18 : 18 + len(aad)] = aad
        blocks[start : start + n] = text
        first = int.from_bytes(blocks[:16], "big") ^ self._carry
        blocks[:16] = first.to_bytes(16, "big")
        self._cbc.encrypt(blocks, blocks)
        tag = blocks[-16:]
        self._carry = int.from_bytes(tag, "big")
        return tag

    def seal_into(self, buf, start, n, iv, aad):
        """Encrypt buf[start:start + n] in place and write the ICV behind it."""
        end = start + n
        text = memoryview(buf)[start:end]
        tag = self._tag(iv, aad, text)
        stream = self._stream(iv, n)
        _xor(text, stream, 16, n)
        _xor(tag, stream, 0, 16)
        buf[end : end + self.icv] = tag[: self.icv]

    def open_in(self, buf, start, n, iv, aad):
        """Decrypt buf[start:start + n] in place, the ICV standing behind it; True when it fits.

        After False the text in `buf` is meaningless and must be thrown away.
        """
        end = start + n
        text = memoryview(buf)[start:end]
        stream = self._stream(iv, n)
        _xor(text, stream, 16, n)
        tag = self._tag(iv, aad, text)
        _xor(tag, stream, 0, 16)
        return equal(memoryview(tag)[: self.icv], memoryview(buf)[end : end + self.icv])

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


def _xor(target, stream, at, n):
    # Whole integers: the one XOR that runs in C on every port.
    value = int.from_bytes(target, "big") ^ int.from_bytes(memoryview(stream)[at : at + n], "big")
    target[:n] = value.to_bytes(n, "big")
