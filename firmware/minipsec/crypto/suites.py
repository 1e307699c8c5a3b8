"""A row for each cipher; IKE, ESP, the profile's words and the key log read these rows.

A cipher is a row here and a module in this folder, whose class has the module's name in capitals.
An object like `CCM(key, icv)` is one direction of an SA with `icv` octets of ICV.  ESP calls its
seal_into and open_in, IKE its size, seal and open; see ccm.
"""

from micropython import const

_ROW_ICV = const(3)  # see suite
_ROW_MODULE = const(5)
WIDTH = const(9)  # octets of a row
# Transform id (RFC 7296 §3.3.2); octets of salt, of integrity key, and of IV and ICV in a packet;
# the size that ESP pads to a multiple of, 0 for a cipher that ESP lacks; module.
ROWS = (
    b"\x0e\x03\x00\x08\x08\x04ccm"  # AES-CCM: RFC 4309, RFC 5282
    b"\x0f\x03\x00\x08\x0c\x04ccm"
    b"\x10\x03\x00\x08\x10\x04ccm"
    b"\x1d\x03\x00\x00\x08\x04ccm"  # with an implicit IV: RFC 8750
    b"\x0c\x00\x20\x10\x10\x00cbc"  # AES-CBC with HMAC-SHA2-256-128: RFC 3602, RFC 4868
)


def suite(ident):
    """Return a cipher's row without its id: salt, integrity key, IV, ICV, padding, module."""
    at = 0
    while ROWS[at] != ident:
        at += WIDTH
    return ROWS[at + 1 : at + WIDTH]


def key_sizes(ident, bits):
    """Return how many octets an encryption key with its salt has, and an integrity key."""
    salt, mac = suite(ident)[:2]
    return bits // 8 + salt, mac


def aead(ident, key):
    """Return the cipher of one direction; `key` is encryption key, salt, integrity key, joined."""
    found = suite(ident)
    name = found[_ROW_MODULE:].decode()
    # ("",) makes __import__ return the module and not the package; 1 is the `.` before its name.
    module = __import__(name, globals(), None, ("",), 1)
    return getattr(module, name.upper())(key, found[_ROW_ICV])
