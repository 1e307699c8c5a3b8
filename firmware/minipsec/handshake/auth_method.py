"""How the two sides prove who they are in IKE_AUTH (RFC 7296 §2.15): one class a method.

`method` is its number in AUTH payloads.  `announce` and `payloads` are what IKE_SA_INIT and
IKE_AUTH carry for it besides AUTH.  `sign(*octets)` returns the AUTH data for octets given in
parts; `verify(data, *octets)` tells whether the peer's AUTH data are right for them.
"""

from ..crypto.ccm import equal
from ..crypto.kdf import prf


class Psk:
    """Shared Key Message Integrity Code (RFC 7296 §3.8), 32 octets.

    A device may hold prf(PSK, "Key Pad for IKEv2") instead of the PSK itself.
    """

    method = 2
    announce = payloads = ()

    def __init__(self, profile):
        self._pad = profile.get("psk_pad") or prf(profile["psk"], b"Key Pad for IKEv2")

    def sign(self, *octets):
        return prf(self._pad, *octets)

    def verify(self, data, *octets):
        return equal(data, self.sign(*octets))


chosen = Psk  # chosen(profile) is the method for the profile's secrets
