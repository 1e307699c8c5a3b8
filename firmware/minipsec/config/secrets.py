"""The secrets file's keys; reading files, and whether they are closed to others."""

import json
import os

from ..errors import ProfileError
from .checks import hex_octets

KEYS = ("ppk", "psk", "psk_pad", "seed", "wifi_key")


def secret(text):
    """Return the octets of a secret: 0x and hex digits, 0s and base64, or text; or None.

    Control characters, and blanks or quotes around the text, are refused: strongSwan's files would
    lose them, so the two ends would differ.
    """
    lead = text[:2].lower()
    if lead == "0x":
        return hex_octets(text[2:])
    if lead == "0s":
        from binascii import a2b_base64, b2a_base64

        text = text[2:].replace("-", "+").replace("_", "/").encode()
        try:
            octets = a2b_base64(text)
        except ValueError:
            return None
        return octets if octets and b2a_base64(octets).strip() == text else None
    if (
        text
        and min(text) >= " "
        and text.strip() == text
        and text[0] + text[-1] not in ('""', "''")
    ):
        return text.encode()


def check_secrets(values):
    """Return {key: octets} of a secrets file's object.

    Its keys: either psk or psk_pad; ppk; wifi_key, which stays a str; seed, 32 octets.
    """
    found = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        octets = None
        if isinstance(value, str):
            octets = value if key == "wifi_key" else secret(value)
        if key in ("psk_pad", "seed") and not (octets and len(value) == 66 and len(octets) == 32):
            octets = None
        if not octets or key not in KEYS:
            refuse("secret", key, KEYS)
        found[key] = octets
    if ("psk" in found) == ("psk_pad" in found):
        refuse("secret", None, KEYS)
    return found


def refuse(kind, *what):
    """Raise the error that `refused` has for this kind of fault."""
    from . import refused

    getattr(refused, kind)(*what)


def fail(what, text):
    raise ProfileError(what + ": " + text)


def read(path, what):
    """Return the object of a JSON file."""
    try:
        with open(path, "rb") as f:
            text = f.read()
    except OSError:
        fail(what, "cannot read " + path)
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        fail(what, path + " is UTF-16: save it as UTF-8")
    try:
        # Some editors write a mark in front of UTF-8.
        return json.loads(str(text[3:] if text[:3] == b"\xef\xbb\xbf" else text, "utf-8"))
    except ValueError:
        fail(what, path + " is not JSON")


def check_closed(path, what):
    """Refuse a file or directory that others may read."""
    try:
        mode = os.stat(path)[0]
    except OSError:
        fail(what, "cannot read " + path)
    # A board's file system has no permission bits: they read as 0 there.
    if mode & 0o077:
        # A directory without its x is closed to its owner, too.
        fail(what, path + " is open to others: chmod %d it" % (700 if mode & 0x4000 else 600))
