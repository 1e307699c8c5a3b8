"""ML-KEM by OpenSSL (768, 1024) and kyber-py (512), behind the interface of firmware's module.

Viper code runs on MicroPython only, so the core under CPython gets this in its place: the
exchanges around ML-KEM are then tested with implementations that are not ours. Ours is compared
with them in host_tests/kex, and runs in test_sensor.py.
"""

from cryptography.hazmat.primitives.asymmetric import mlkem
from kyber_py.ml_kem import ML_KEM_512

_OPENSSL = {
    36: (mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
    37: (mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
}
PUBLIC = {35: 800, 36: 1184, 37: 1568}
CIPHERTEXT = {35: 768, 36: 1088, 37: 1568}
made = []  # every key pair of the sensor's, in order


def encapsulate(ident, public):
    """(ciphertext, shared secret) for an encapsulation key, checked as FIPS 203 §7.2 asks."""
    if ident == 35:
        shared, ciphertext = ML_KEM_512.encaps(public)
    else:
        shared, ciphertext = _OPENSSL[ident][1].from_public_bytes(public).encapsulate()
    return ciphertext, shared


class _Pair:
    ident = None

    def __init__(self, rand, *_):
        seed = rand(64)
        if self.ident == 35:
            self.public, self._private = ML_KEM_512._keygen_internal(seed[:32], seed[32:])
        else:
            self._private = _OPENSSL[self.ident][0].from_seed_bytes(seed)
            self.public = self._private.public_key().public_bytes_raw()
        made.append(self)

    @property
    def wiped(self):
        return self._private is None

    def wipe(self):
        self._private = None

    def shared(self, ciphertext):
        if len(ciphertext) != self.size or self.wiped:
            return None
        private = self._private
        self.wipe()
        if self.ident == 35:
            return ML_KEM_512.decaps(private, bytes(ciphertext))
        return private.decapsulate(bytes(ciphertext))


def method(ident):
    return type("MLKEM", (_Pair,), {"ident": ident, "size": CIPHERTEXT[ident]})
