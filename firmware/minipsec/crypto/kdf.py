"""HMAC-SHA-256, prf+ and the slicing of IKE and Child SA keys (RFC 2104, RFC 7296 §2.13-2.17)."""

from hashlib import sha256
from micropython import const

_BLOCK = const(64)  # of SHA-256 (RFC 2104 §2)
_PRF_SIZE = const(32)  # RFC 4868 §2.1.2


def _masked(key, octet):
    # Integers, because a loop over 64 octets would take longer than all of the hashing.
    mask = int.from_bytes(octet * _BLOCK, "big")
    return (int.from_bytes(key, "big") ^ mask).to_bytes(_BLOCK, "big")


class HMAC:
    """HMAC-SHA-256 under one key of any length; the padded keys are made once."""

    def __init__(self, key):
        if len(key) > _BLOCK:
            key = sha256(key).digest()
        key = bytes(key) + bytes(_BLOCK - len(key))
        self._inner = _masked(key, b"\x36")
        self._outer = _masked(key, b"\x5c")

    def digest(self, *parts):
        """Return the 32 octets of HMAC over the parts joined."""
        h = sha256(self._inner)
        for part in parts:
            h.update(part)
        o = sha256(self._outer)
        o.update(h.digest())
        return o.digest()


def prf(key, *parts):
    """PRF_HMAC_SHA2_256 (RFC 4868): 32 octets."""
    return HMAC(key).digest(*parts)


def prf_plus(key, seed, n):
    """prf+ of RFC 7296 §2.13: the first `n` octets, `n` at most 255 * 32."""
    mac = HMAC(key)
    out = bytearray()
    block = b""
    i = 1
    while len(out) < n:
        block = mac.digest(block, seed, bytes((i,)))
        out.extend(block)
        i += 1
    return bytes(out[:n])


def slices(octets, *sizes):
    """Cut `octets` into consecutive pieces of the given sizes."""
    out = []
    at = 0
    for size in sizes:
        out.append(octets[at : at + size])
        at += size
    return out


def sk_keys(skeyseed, nonces, spis, encr, integ):
    """Return [SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr] (RFC 7296 §2.14).

    `encr` and `integ` are octets a direction; with an AEAD `integ` is 0 and `encr` includes the
    salt (RFC 5282 §7.1).
    """
    n = 3 * _PRF_SIZE + 2 * (encr + integ)
    out = prf_plus(skeyseed, nonces + spis, n)
    return slices(out, _PRF_SIZE, integ, integ, encr, encr, _PRF_SIZE, _PRF_SIZE)


def child_keys(sk_d, nonces, size):
    """Return [initiator-to-responder, responder-to-initiator] keys of a Child SA.

    KEYMAT = prf+(SK_d, Ni | Nr), RFC 7296 §2.17; `size` is octets a direction, salt included.
    """
    return slices(prf_plus(sk_d, nonces, 2 * size), size, size)
