"""AES-CCM, HMAC-SHA-256, prf+ and X25519 for the scripted responder.

From `cryptography` and the standard library, so that nothing of firmware/ checks itself; under
MicroPython, which has neither, from firmware/, whose primitives are checked on CPython.
"""

try:
    import hmac

    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESCCM

    class CCM:
        """Key and 3 octets of salt; texts carry their ICV behind them."""

        def __init__(self, key, icv):
            self._aead = AESCCM(key[:-3], tag_length=icv)
            self._salt = key[-3:]
            self.icv = icv

        def seal(self, iv, text, aad):
            return self._aead.encrypt(self._salt + iv, text, aad)

        def open(self, iv, text, aad):
            try:
                return self._aead.decrypt(self._salt + iv, text, aad)
            except InvalidTag:
                return None

    class X25519:
        def __init__(self, key):
            self._key = X25519PrivateKey.from_private_bytes(key)
            self.public = self._key.public_key().public_bytes_raw()

        def shared(self, peer):
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer))

    def prf(key, text):
        return hmac.digest(key, text, "sha256")

except ImportError:
    from minipsec.crypto import ccm, kdf
    from minipsec.kex import methods

    class CCM:
        def __init__(self, key, icv):
            self._ccm = ccm.CCM(key, icv)
            self.icv = icv

        def seal(self, iv, text, aad):
            out = bytearray(len(text) + self.icv)
            out[: len(text)] = text
            self._ccm.seal_into(out, 0, len(text), iv, aad)
            return bytes(out)

        def open(self, iv, text, aad):
            out = bytearray(text)
            n = len(text) - self.icv
            return bytes(out[:n]) if self._ccm.open_in(out, 0, n, iv, aad) else None

    class X25519:
        _known = {}  # pure Python is slow, and the tests' keys are few

        def __init__(self, key):
            if key not in self._known:
                self._known[key] = methods.X25519(lambda n: key)
            self._key = key
            self.public = self._known[key].public

        def shared(self, peer):
            at = self._key + peer
            if at not in self._known:
                self._known[at] = self._known[self._key].shared(peer)
            return self._known[at]

    def prf(key, text):
        return kdf.prf(key, text)


def prf_plus(key, seed, n):
    out = block = b""
    number = 1
    while len(out) < n:
        block = prf(key, block + seed + bytes((number,)))
        out += block
        number += 1
    return out[:n]
