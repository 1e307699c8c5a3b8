"""A key log for Wireshark, for debugging only.  Loaded when the profile has the key `keylog`."""

from micropython import const

from ..crypto.suites import suite
from .secrets import check_closed

_ENCR = const(1)
_ROW_MAC = const(1)  # see suites.suite
_ROW_ICV = const(3)
_ROW_MODULE = const(5)


def write_keylog(path, keys):
    """Append one line to a key log for Wireshark (ikev2_decryption_table); debugging only.

    The file must be there already and closed to others, since a board cannot set a mode:
    ProfileError otherwise.
    """
    check_closed(path, "profile: keylog")
    spi_i, spi_r, picked, sk_ei, sk_er, sk_ai, sk_ar = keys
    ident, bits = picked[_ENCR]
    cipher = suite(ident)
    encr = "AES-%s-%d" % (cipher[_ROW_MODULE:].decode().upper(), bits)
    if cipher[_ROW_MAC]:
        encr += " [RFC3602]"
        integ = "HMAC_SHA2_256_128 [RFC4868]"
    else:
        encr += " with %d octet ICV [RFC5282]" % cipher[_ROW_ICV]
        integ = "NONE [RFC4306]"
    with open(path, "a") as f:
        for value in (spi_i, spi_r, sk_ei, sk_er):
            f.write(value.hex() + ",")
        f.write('"%s",%s,%s,"%s"\n' % (encr, sk_ai.hex(), sk_ar.hex(), integ))
