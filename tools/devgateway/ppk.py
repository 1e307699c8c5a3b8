"""Post-quantum preshared keys: in IKE_AUTH (RFC 8784) and in IKE_INTERMEDIATE (RFC 9867).

A PPK_ID on the wire is a type octet (1 opaque, 2 fixed) and the identifier; the table of
PPKs is keyed by the identifier.
"""

from .crypto import equal

CONFIRMATION_SIZE = 8


def find(sa, ppk_id):
    """The PPK of a PPK_ID, or None."""
    return sa.gateway.config.ppks.get(ppk_id[1:]) if len(ppk_id) > 1 else None


def confirmation(sa, secret):
    """First octets of prf(PPK, Ni | Nr | SPIi | SPIr) (RFC 9867 §3.1)."""
    return sa.prf(secret, sa.n_i + sa.n_r + sa.spi_i + sa.spi_r)[:CONFIRMATION_SIZE]


def choose_confirmed(sa, offered):
    """(PPK_ID, PPK) of the first PPK_IDENTITY_KEY that we know and that confirms, or (None, None)."""
    for data in offered:
        ppk_id, proof = data[:-CONFIRMATION_SIZE], data[-CONFIRMATION_SIZE:]
        secret = find(sa, ppk_id)
        if secret is not None and equal(confirmation(sa, secret), proof):
            return ppk_id, secret
    return None, None


def mix_into_auth(sa, secret):
    """SK_d, SK_pi and SK_pr with the PPK mixed in (RFC 8784 §3)."""
    keys, prf = sa.keys, sa.prf
    return keys._replace(
        sk_d=prf.plus(secret, keys.sk_d, len(keys.sk_d)),
        sk_pi=prf.plus(secret, keys.sk_pi, len(keys.sk_pi)),
        sk_pr=prf.plus(secret, keys.sk_pr, len(keys.sk_pr)),
    )
