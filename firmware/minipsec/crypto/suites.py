"""What is known of each cipher, a row for each: IKE, ESP, the profile's words and key log read it.

A cipher is a row here and a module here whose class bears its name in capitals.  `CCM(key, icv)`
is one direction of an SA: `icv` octets of ICV; seal_into and open_in for ESP, size, seal and open
for IKE, see ccm.
"""

from micropython import const

_ROW_ICV = const(3)  # see suite
_ROW_MODULE = const(5)
WIDTH = const(9)  # octets of a row
# Transform id (RFC 7296 §3.3.2); octets of salt, of integrity key, of IV and of ICV in a packet;
# what ESP pads to, 0 where ESP lacks it; module.
ROWS = (
    b"\x0e\x03\x00\x08\x08\x04ccm"  # AES-CCM: RFC 4309, RFC 5282
    b"\x0f\x03\x00\x08\x0c\x04ccm"
    b"\x10\x03\x00\x08\x10\x04ccm"
    b"\x1d\x03\x00\x00\x08\x04ccm"  # with an implicit IV: RFC 8750
    b"\x0c\x00\x20\x10\x10\x00cbc"  # AES-CBC with HMAC-SHA2-256-128: RFC 3602, RFC 4868
)


def suite(ident):
    """Return octets of salt, integrity key, IV and ICV, and what ESP pads to, as octets."""
    at = 0
    while ROWS[at] != ident:
        at += WIDTH
    return ROWS[at + 1 : at + WIDTH]


def key_sizes(ident, bits):
    """Return the octets of an encryption key, its salt included, and of an integrity key."""
    salt, mac = suite(ident)[:2]
    return bits // 8 + salt, mac


def aead(ident, key):
    """Return one direction's cipher; `key` is its key, its salt and its integrity key."""
    found = suite(ident)
    name = found[_ROW_MODULE:].decode()
    # "" has the module returned, not the package; 1 is for `.` in front of its name.
    module = __import__(name, globals(), None, ("",), 1)
    return getattr(module, name.upper())(key, found[_ROW_ICV])
