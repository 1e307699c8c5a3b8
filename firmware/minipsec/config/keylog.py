"""A key log for Wireshark, for debugging only.  Loaded when the profile has the key `keylog`."""

from micropython import const

from .secrets import check_closed

_ENCR = const(1)
_AES_CBC = const(12)


def write_keylog(path, keys):
    """Append one line to a key log for Wireshark (ikev2_decryption_table); debugging only.

    The file must be there already and closed to others, since a board cannot set a mode:
    ProfileError otherwise.
    """
    check_closed(path, "profile: keylog")
    spi_i, spi_r, picked, sk_ei, sk_er, sk_ai, sk_ar = keys
    ident, bits = picked[_ENCR]
    integ = "NONE [RFC4306]"
    if ident == _AES_CBC:
        encr = "AES-CBC-%d [RFC3602]" % bits
        integ = "HMAC_SHA2_256_128 [RFC4868]"
    else:
        encr = "AES-CCM-%d with %d octet ICV [RFC5282]" % (bits, 4 * ident - 48)
    with open(path, "a") as f:
        for value in (spi_i, spi_r, sk_ei, sk_er):
            f.write(value.hex() + ",")
        f.write('"%s",%s,%s,"%s"\n' % (encr, sk_ai.hex(), sk_ar.hex(), integ))
