"""AES-CBC with HMAC-SHA2-256-128 for IKE (RFC 7296 §3.14, RFC 3602, RFC 4868).

For gateways whose IKE lacks AES-CCM.  A `CBC` takes the place of a `ccm.CCM` under SK and SKF
payloads; ESP has no use for it.
"""

from cryptolib import aes
from micropython import const

from .ccm import equal
from .kdf import HMAC

# RFC 4868 §2.1.1
_MAC_KEY = const(32)
_ICV = const(16)  # HMAC-SHA-256 cut to its first half

# Ours
_CBC = const(2)  # a mode of cryptolib


class CBC:
    """One direction's keys joined: SK_e, 16 or 32 octets for AES, and SK_a, 32 octets for HMAC."""

    icv = _ICV

    def __init__(self, key, _):
        self._key = key[:-_MAC_KEY]
        self._mac = HMAC(key[-_MAC_KEY:])

    def size(self, n):
        """Octets of IV, ciphertext and ICV for `n` octets of plaintext and its least padding."""
        return 32 + (n + 16 & -16)

    def seal(self, aad, iv, text):
        """Return IV | ciphertext | ICV of `text`; `iv` is 8 octets, never the same under one key.

        CBC needs an IV that nobody can foresee before the message is fixed; a counter can be
        foreseen.  So the IV on the wire is the counter's block, encrypted under the same key
        (NIST SP 800-38A, appendix C, the first way): the first block of one CBC run over
        0 | iv | text.  This is sound because only we choose the counter, and because a message
        is complete before it is sealed.
        """
        n = len(text)
        out = bytearray(self.size(n))
        out[8:16] = iv
        out[16 : 16 + n] = text
        out[-_ICV - 1] = ~n & 15
        view = memoryview(out)[:-_ICV]
        aes(self._key, _CBC, bytes(16)).encrypt(view, view)
        out[-_ICV:] = self._mac.digest(aad, view)[:_ICV]
        return out

    def open(self, aad, body):
        """Return the plaintext of an SK or SKF body without its padding, or None.

        The ICV over `aad` | IV | ciphertext is checked first; nothing is decrypted before.
        """
        n = len(body) - 16 - _ICV
        if n < 16 or n & 15:
            return None
        view = memoryview(body)
        sealed = view[:-_ICV]
        if not equal(self._mac.digest(aad, sealed)[:_ICV], view[-_ICV:]):
            return None
        text = aes(self._key, _CBC, view[:16]).decrypt(sealed[16:])
        end = n - 1 - text[-1]
        return text[:end] if end >= 0 else None
