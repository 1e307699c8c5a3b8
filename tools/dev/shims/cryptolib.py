"""MicroPython's `cryptolib.aes` for CPython: ECB = 1 and CBC = 2, like the boards' builds.

Strict where the boards are lenient, so that a misuse shows here: whole blocks
only, one direction an object, nothing but the two modes.
"""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_ECB = 1
_CBC = 2


class aes:
    def __init__(self, key, mode, iv=None):
        if len(key) not in (16, 32):
            raise ValueError("key")
        if mode == _ECB:
            chosen = modes.ECB()
        elif mode == _CBC:
            if iv is None or len(iv) != 16:
                raise ValueError("IV")
            chosen = modes.CBC(bytes(iv))
        else:
            raise ValueError("mode")
        self._cipher = Cipher(algorithms.AES(bytes(key)), chosen)
        self._direction = None

    def _update(self, direction, data, out):
        if len(data) % 16:
            raise ValueError("blksize % 16")
        if self._direction is None:
            self._direction = direction
            self._context = getattr(self._cipher, direction)()
        elif self._direction != direction:
            raise ValueError("can't encrypt & decrypt")
        result = self._context.update(bytes(data))
        if out is None:
            return result
        if len(out) < len(result):
            raise ValueError("output too small")
        memoryview(out)[: len(result)] = result
        return out

    def encrypt(self, data, out=None):
        return self._update("encryptor", data, out)

    def decrypt(self, data, out=None):
        return self._update("decryptor", data, out)
