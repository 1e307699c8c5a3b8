"""The AUTH payload's octets (RFC 7296 §2.15)."""

from .kdf import prf


def psk_pad(psk):
    """Return prf(PSK, "Key Pad for IKEv2"): what a device may hold instead of the PSK itself."""
    return prf(psk, b"Key Pad for IKEv2")


def psk_auth(pad, message, nonce, sk_p, ident, int_auth=b""):
    """Return AUTH data, 32 octets, of the side whose first message and ID body are given.

    `nonce` is the other side's; `int_auth` is IntAuth of RFC 9242 §3.3.2, empty where no
    IKE_INTERMEDIATE took place.
    """
    return prf(pad, message, nonce, prf(sk_p, ident), int_auth)
