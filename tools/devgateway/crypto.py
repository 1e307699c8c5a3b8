"""Key exchange, prf, key derivation and message protection, on `cryptography`.

Development use: nothing here tries to resist timing or memory inspection beyond what
`cryptography` does by itself.
"""

import hmac
import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from .numbers import Encr, Group, Prf, T

CCM_SALT_SIZE = 3  # RFC 4309 §4, RFC 5282 §4
CCM_IV_SIZE = 8
ICV_SIZE = {Encr.AES_CCM_8: 8, Encr.AES_CCM_12: 12, Encr.AES_CCM_16: 16, Encr.AES_CCM_8_IIV: 8}
INTEG_KEY_SIZE = 32  # HMAC-SHA2-256-128 (RFC 4868 §2.1.1)
INTEG_ICV_SIZE = 16


class CryptoError(ValueError):
    """A key, point or tag that is not right; `reason` names it for the drop counter."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


# prf (RFC 7296 §2.13)

_HASH = {
    Prf.HMAC_SHA2_256: ("sha256", 32),
    Prf.HMAC_SHA2_384: ("sha384", 48),
    Prf.HMAC_SHA2_512: ("sha512", 64),
}


class PrfHmac:
    """prf and prf+ of one negotiated PRF; `size` is its output and key length in octets."""

    def __init__(self, number):
        self._hash, self.size = _HASH[number]

    def __call__(self, key, data):
        return hmac.digest(key, data, self._hash)

    def plus(self, key, seed, size):
        """`size` octets of prf+ (at most 255 blocks)."""
        if size > 255 * self.size:
            raise ValueError("prf+ gives at most 255 blocks")
        out = block = b""
        counter = 1
        while len(out) < size:
            block = self(key, block + seed + bytes((counter,)))
            out += block
            counter += 1
        return out[:size]


def equal(one, other):
    """Constant-time comparison."""
    return hmac.compare_digest(one, other)


# Key exchange methods (RFC 7296 §3.4, RFC 8031, RFC 5903, RFC 3526, FIPS 203)


def _modp_2048():
    """The prime of RFC 3526 §3 from its formula: 2^2048 - 2^1984 - 1 + 2^64 ([2^1918 pi] + 124476)."""
    one = 1 << (1918 + 64)  # 64 guard bits

    def arctan_inverse(x):
        total, term, n, sign = 0, one // x, 1, 1
        while term:
            total += sign * (term // n)
            term //= x * x
            n += 2
            sign = -sign
        return total

    pi = 4 * (4 * arctan_inverse(5) - arctan_inverse(239)) >> 64
    return (1 << 2048) - (1 << 1984) - 1 + (pi + 124476 << 64)


MODP_2048_PRIME = _modp_2048()


class _X25519:
    def __init__(self, rand):
        self._private = x25519.X25519PrivateKey.from_private_bytes(rand(32))
        self.public = self._private.public_key().public_bytes_raw()

    def finish(self, peer):
        if len(peer) != 32:
            raise CryptoError("BAD_KE")
        try:
            return self._private.exchange(x25519.X25519PublicKey.from_public_bytes(peer))
        except ValueError:  # all-zero result
            raise CryptoError("BAD_KE") from None


class _Ecp256:
    _ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

    def __init__(self, rand):
        secret = int.from_bytes(rand(40), "big") % (self._ORDER - 1) + 1
        self._private = ec.derive_private_key(secret, ec.SECP256R1())
        point = self._private.public_key().public_numbers()
        self.public = point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")

    def finish(self, peer):
        if len(peer) != 64:
            raise CryptoError("BAD_KE")
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + peer)
        except ValueError:
            raise CryptoError("BAD_KE") from None
        return self._private.exchange(ec.ECDH(), point)


class _Modp2048:
    def __init__(self, rand):
        self._secret = int.from_bytes(rand(32), "big") | 1 << 255
        self.public = pow(2, self._secret, MODP_2048_PRIME).to_bytes(256, "big")

    def finish(self, peer):
        value = int.from_bytes(peer, "big")
        if len(peer) != 256 or not 1 < value < MODP_2048_PRIME - 1:
            raise CryptoError("BAD_KE")
        return pow(value, self._secret, MODP_2048_PRIME).to_bytes(256, "big")


class _MlKem:
    """ML-KEM (FIPS 203) from `cryptography`, which has no 512."""

    def __init__(self, private):
        self._private = private.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def finish(self, ciphertext):
        try:
            return self._private.decapsulate(ciphertext)
        except ValueError:
            raise CryptoError("BAD_KE") from None


class _MlKem512:
    """ML-KEM-512 from kyber-py."""

    def __init__(self, rand):
        from kyber_py.ml_kem import ML_KEM_512

        self._kem = ML_KEM_512
        self.public, self._private = ML_KEM_512._keygen_internal(rand(32), rand(32))

    def finish(self, ciphertext):
        try:
            return self._kem.decaps(self._private, ciphertext)
        except ValueError:
            raise CryptoError("BAD_KE") from None


def _encapsulate(group, peer):
    """(ciphertext, shared secret) for an encapsulation key; it is checked as FIPS 203 §7.2 asks."""
    try:
        if group == Group.ML_KEM_512:
            from kyber_py.ml_kem import ML_KEM_512

            shared, ciphertext = ML_KEM_512.encaps(peer)
        else:
            _, public = _ML_KEM[group]
            shared, ciphertext = public.from_public_bytes(peer).encapsulate()
    except ValueError:
        raise CryptoError("BAD_KE") from None
    return ciphertext, shared


_ML_KEM = {
    Group.ML_KEM_768: (mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
    Group.ML_KEM_1024: (mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
}
_DIFFIE_HELLMAN = {
    Group.CURVE25519: _X25519,
    Group.ECP_256: _Ecp256,
    Group.MODP_2048: _Modp2048,
}


def start_exchange(group, rand):
    """Initiator's half: an object with `.public` and `.finish(peer's public) -> secret`."""
    if group == Group.ML_KEM_512:
        return _MlKem512(rand)
    if group in _ML_KEM:
        return _MlKem(_ML_KEM[group][0])
    return _DIFFIE_HELLMAN[group](rand)


def answer_exchange(group, peer, rand):
    """Responder's half: (our public value or ciphertext, shared secret).

    CryptoError("BAD_KE") if `peer` is bad.
    """
    if group in _DIFFIE_HELLMAN:
        half = _DIFFIE_HELLMAN[group](rand)
        return half.public, half.finish(peer)
    return _encapsulate(group, peer)


# Protection of IKE messages (RFC 7296 §3.14, RFC 5282)


class SkAead:
    """One direction of SK / SKF protection by AES-CCM.

    The IV is a 64-bit counter that steps for every new ciphertext, so no IV repeats
    under a key however often a Message ID does (AMB-22).
    """

    iv_size = CCM_IV_SIZE

    def __init__(self, encr, key):
        self.icv_size = ICV_SIZE[encr.id]
        self._salt = key[-CCM_SALT_SIZE:]
        self._ccm = AESCCM(key[:-CCM_SALT_SIZE], tag_length=self.icv_size)
        self._counter = 0

    def sealed_size(self, size):
        """Octets of IV | ciphertext | ICV for `size` octets of payloads."""
        return self.iv_size + size + 1 + self.icv_size

    def room(self, sealed):
        """The most octets of payloads that fit into `sealed` octets (may be < 1)."""
        return sealed - self.sealed_size(0)

    def seal(self, aad, payloads, rand):
        iv = struct.pack(">Q", self._counter)
        self._counter += 1
        return iv + self._ccm.encrypt(self._salt + iv, payloads + b"\0", aad)

    def open(self, aad, body):
        if len(body) < self.iv_size + 1 + self.icv_size:
            raise CryptoError("BAD_LENGTH")
        iv = body[: self.iv_size]
        try:
            plain = self._ccm.decrypt(self._salt + iv, body[self.iv_size :], aad)
        except InvalidTag:
            raise CryptoError("BAD_ICV") from None
        return _unpad(plain)


class SkCbc:
    """One direction of SK / SKF protection by AES-CBC and HMAC-SHA2-256-128."""

    iv_size = 16
    icv_size = INTEG_ICV_SIZE

    def __init__(self, key, integ_key):
        self._key = key
        self._integ_key = integ_key

    def sealed_size(self, size):
        return self.iv_size + (size // 16 + 1) * 16 + self.icv_size

    def room(self, sealed):
        return (sealed - self.iv_size - self.icv_size) // 16 * 16 - 1

    def _icv(self, data):
        return hmac.digest(self._integ_key, data, "sha256")[:INTEG_ICV_SIZE]

    def seal(self, aad, payloads, rand):
        pad = 15 - len(payloads) % 16
        iv = rand(16)
        encryptor = Cipher(algorithms.AES(self._key), modes.CBC(iv)).encryptor()
        body = iv + encryptor.update(payloads + bytes(pad) + bytes((pad,)))
        return body + self._icv(aad + body)

    def open(self, aad, body):
        size = len(body) - self.iv_size - self.icv_size
        if size < 16 or size % 16:
            raise CryptoError("BAD_LENGTH")
        if not equal(self._icv(aad + body[: -self.icv_size]), body[-self.icv_size :]):
            raise CryptoError("BAD_ICV")
        decryptor = Cipher(algorithms.AES(self._key), modes.CBC(body[:16])).decryptor()
        return _unpad(decryptor.update(body[16 : -self.icv_size]))


def _unpad(plain):
    pad = plain[-1]
    if pad + 1 > len(plain):
        raise CryptoError("BAD_PADDING")
    return plain[: len(plain) - pad - 1]


# Key derivation (RFC 7296 §2.14, §2.17)


def encr_key_size(encr):
    """Octets of one encryption key, salt included."""
    return encr.key_length // 8 + (0 if encr.id == Encr.AES_CBC else CCM_SALT_SIZE)


def integ_key_size(encr):
    return INTEG_KEY_SIZE if encr.id == Encr.AES_CBC else 0


class IkeKeys(NamedTuple):
    """The seven keys and the two directions' ciphers made from them."""

    sk_d: bytes
    sk_ai: bytes
    sk_ar: bytes
    sk_ei: bytes
    sk_er: bytes
    sk_pi: bytes
    sk_pr: bytes
    from_initiator: object
    from_responder: object

    def __repr__(self):
        return "IkeKeys(..)"  # so that no traceback and no debugger shows keys


def _cipher(encr, key, integ_key):
    return SkCbc(key, integ_key) if encr.id == Encr.AES_CBC else SkAead(encr, key)


def ike_keys(choice, skeyseed, n_i, n_r, spi_i, spi_r):
    """All keys of an IKE SA (generation) out of SKEYSEED."""
    prf = PrfHmac(choice.transform(T.PRF).id)
    encr = choice.transform(T.ENCR)
    e, a, p = encr_key_size(encr), integ_key_size(encr), prf.size
    stream = prf.plus(skeyseed, n_i + n_r + spi_i + spi_r, p + 2 * (a + e + p))
    keys = []
    for size in (p, a, a, e, e, p, p):
        keys.append(stream[:size])
        stream = stream[size:]
    d, ai, ar, ei, er, pi, pr = keys
    return IkeKeys(d, ai, ar, ei, er, pi, pr, _cipher(encr, ei, ai), _cipher(encr, er, ar))


def first_skeyseed(prf, n_i, n_r, shared):
    """SKEYSEED of IKE_SA_INIT (RFC 7296 §2.14)."""
    return prf(n_i + n_r, shared)


def psk_auth(prf, psk_pad, signed_octets):
    """AUTH data for a shared key (§2.15); `psk_pad` = prf(PSK, "Key Pad for IKEv2")."""
    return prf(psk_pad, signed_octets)


def psk_pad(prf, psk):
    return prf(psk, b"Key Pad for IKEv2")
