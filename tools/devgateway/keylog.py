"""Session keys for Wireshark, only when a person asked for them in a debug session.

IKE lines go to the file itself in the form of Wireshark's `ikev2_decryption_table`, ESP
lines to `FILE.esp` in the form of `esp_sa`. Both files are created with mode 0600.
"""

import os

from .numbers import Encr, T

_IKE_NAMES = {
    Encr.AES_CBC: "AES-CBC-%d [RFC3602]",
    Encr.AES_CCM_8: "AES-CCM-%d with 8 octet ICV [RFC5282]",
    Encr.AES_CCM_12: "AES-CCM-%d with 12 octet ICV [RFC5282]",
    Encr.AES_CCM_16: "AES-CCM-%d with 16 octet ICV [RFC5282]",
}
_NO_INTEG = "NONE [RFC4306]"
_INTEG = "HMAC_SHA2_256_128 [RFC4868]"


def _append(path, line):
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(line + "\n")


class KeyLog:
    def __init__(self, path):
        self._path = path
        for name in (path, path + ".esp"):
            os.close(os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
            os.chmod(name, 0o600)

    def ike(self, sa):
        """One line a key generation of an IKE SA."""
        encr, keys = sa.choice.transform(T.ENCR), sa.keys
        integ = _INTEG if encr.id == Encr.AES_CBC else _NO_INTEG
        _append(
            self._path,
            '%s,%s,%s,%s,"%s",%s,%s,"%s"'
            % (
                sa.spi_i.hex(),
                sa.spi_r.hex(),
                keys.sk_ei.hex(),
                keys.sk_er.hex(),
                _IKE_NAMES[encr.id] % encr.key_length,
                keys.sk_ai.hex(),
                keys.sk_ar.hex(),
                integ,
            ),
        )

    def esp(self, child):
        """Two lines a Child SA. Wireshark's ESP table has AES-CBC and AES-GCM, no AES-CCM."""
        encr = child.choice.transform(T.ENCR)
        if encr.id != Encr.AES_CBC:
            return
        for spi, key, integ in (
            (child.spi_in, child.keys[0], child.keys[1]),
            (child.spi_out, child.keys[2], child.keys[3]),
        ):
            _append(
                self._path + ".esp",
                '"IPv4","*","*","0x%s","AES-CBC [RFC3602]","0x%s",'
                '"HMAC-SHA-256-128 [RFC4868]","0x%s"' % (spi.hex(), key.hex(), integ.hex()),
            )
