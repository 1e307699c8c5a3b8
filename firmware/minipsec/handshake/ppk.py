"""Post-quantum preshared keys (RFC 8784; RFC 9867 in IKE_INTERMEDIATE)."""

from micropython import const

from ..crypto import kdf

_FIXED = const(2)  # RFC 8784 §5.1: PPK_ID_FIXED
_USE_PPK = const(16435)
_USE_PPK_INT = const(16445)


def offers():
    """Return the notify types that offer both ways of using a PPK."""
    return (_USE_PPK, _USE_PPK_INT)


def agreed(kinds, intermediate):
    """Return which way the answer's notify types choose: "int", "auth" or None."""
    if intermediate and _USE_PPK_INT in kinds:
        return "int"
    return "auth" if _USE_PPK in kinds else None


def identity(profile):
    """Return the PPK_ID of the profile: a type octet and the identifier."""
    return bytes((_FIXED,)) + profile["ppk_id"].encode()


def confirmation(profile, nonces, spi_i, spi_r):
    """Return the 8 octets that show the peer which PPK is meant (RFC 9867 §3.1)."""
    return kdf.prf(profile["ppk"], nonces, spi_i, spi_r)[:8]


def mixed(profile, *keys):
    """Return prf+(PPK, key) of each key (RFC 8784 §3)."""
    return [kdf.prf_plus(profile["ppk"], key, 32) for key in keys]
