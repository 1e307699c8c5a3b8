"""AES-CCM out of AES-ECB and AES-CBC (RFC 3610; RFC 4309 for ESP, RFC 5282 for IKE).

`cryptolib` has ECB and CBC only, and CCM needs no more: one CBC call over B0 | AAD | P, whose
last block is the tag, and one ECB call over the counter blocks.

The caller must never use a nonce (salt | IV) twice under one key: a repeated nonce gives away the
XOR of two plaintexts and lets tags be forged.  This module does not check that.
"""

import struct
from cryptolib import aes
from micropython import const

from .octets import copy, spread, total, xor

# RFC 4309 §4, RFC 3610 §2.1
_SALT = const(3)
_L = const(4)  # octets of the length field: 15 - (3 + 8)

# Ours
_ECB = const(1)  # modes of cryptolib
_CBC = const(2)
_SMALL = const(128)  # octets of work space to begin with
_KEEP = const(1344)  # octets of work space that are kept for the next packet
_PLANS = const(8)  # sizes of packets for which plans are kept


def _make(size):
    """Return work space: MAC blocks, counter blocks, key stream."""
    counters = bytearray(size)
    for i in range(0, size, 16):
        counters[i + 14] = i >> 12
        counters[i + 15] = (i >> 4) & 255
    return bytearray(size), counters, bytearray(size)


_work = _make(_SMALL)  # shared by all keys: no call reads what another one left
_plans = {}


def _plan(n, k):
    """Return where `n` octets of text and `k` of AAD lie in the work space, with views of it."""
    global _work
    start = (k + 33) & -16
    end = (start + n + 15) & -16
    size = (n + 31) & -16
    work = _work
    if end > len(work[0]):
        work = _make(end)
    blocks, counters, stream = work
    head = memoryview(counters)[:size]
    plan = start, end, size, counters, head, stream, blocks, memoryview(blocks)[:end]
    if end <= _KEEP:
        if work is not _work or len(_plans) == _PLANS:
            _plans.clear()
        _work = work
        _plans[n << 16 | k] = plan
    return plan


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

    `icv` is the tag's length in octets: 8, 12 or 16.  Sealing and opening packets of a few sizes
    allocates nothing.
    """

    def __init__(self, key, icv):
        global _work
        if len(_work[0]) > _SMALL:
            # A handshake's messages made it grow; readings are smaller.
            _plans.clear()
            _work = _make(_SMALL)
        self._ecb = aes(key[:-_SALT], _ECB)
        # One CBC object serves for life: `_pass` XORs its last block out of the next first one.
        self._tag = bytearray(16)
        self._cbc = aes(key[:-_SALT], _CBC, bytes(16))
        # Flags | salt: how a counter block begins, and how the first block of the MAC does.
        self._head = bytes((_L - 1,)) + key[-_SALT:]
        self._first = bytes((0x40 | (icv - 2) << 2 | (_L - 1),)) + key[-_SALT:]
        self.icv = icv

    def size(self, n):
        """Octets of IV, ciphertext and ICV for `n` octets of plaintext with its Pad Length."""
        return 8 + n + 1 + self.icv

    def seal_into(self, buf, at, n, iv, aad):
        """Encrypt buf[at:at + n] in place and write the ICV behind it.

        The AAD is under 0xff00 octets.
        """
        copy(buf, at + n, self._pass(buf, at, n, iv, aad, False), 0, self.icv, 0)

    def open_in(self, buf, at, n, iv, aad):
        """Decrypt buf[at:at + n] in place, the ICV standing behind it; True when it fits.

        After False the text in `buf` is meaningless and must be thrown away.
        """
        icv = self._pass(buf, at, n, iv, aad, True)
        xor(icv, 0, buf, at + n, self.icv)
        return not total(icv, self.icv)

    def _pass(self, buf, at, n, iv, aad, opening):
        """Encrypt or decrypt buf[at:at + n]; return a buffer that begins with 16 octets of ICV."""
        k = len(aad)
        plan = _plans.get(n << 16 | k) or _plan(n, k)
        start, end, size, counters, head, stream, blocks, view = plan
        spread(counters, self._head, iv, size)
        self._ecb.encrypt(head, stream)
        if opening:
            xor(buf, at, stream, 16, n)
        spread(blocks, self._first, iv, 16)
        struct.pack_into(">IH", blocks, 12, n, k)
        copy(blocks, 18, aad, 0, k, start)
        copy(blocks, start, buf, at, n, end)
        tag = self._tag
        xor(blocks, 0, tag, 0, 16)
        self._cbc.encrypt(view, blocks)
        copy(tag, 0, blocks, end - 16, 16, 0)
        if not opening:
            xor(buf, at, stream, 16, n)
        xor(stream, 0, tag, 0, 16)
        return stream

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
