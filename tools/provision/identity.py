"""Identities (IDi): as they stand in a profile, in strongSwan's files, and as a file name."""

import hashlib
import ipaddress
import re
import urllib.parse

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_PLAIN = re.compile(r"[!#-\[\]-~]{1,128}")  # printable, without blank, quote and backslash

EXPECTED = 'an identity like "sensor-1.example.org", "a@example.org" or "keyid:0x00ff"'


class Identity:
    """One identity of RFC 7296 §3.5; ValueError for what is none.

    `text` is how a profile writes it, `key` the same for two spellings of one identity.
    """

    def __init__(self, text):
        if not isinstance(text, str) or not _PLAIN.fullmatch(text):
            raise ValueError(EXPECTED)
        kind, colon, rest = text.partition(":")
        if not colon:
            rest = text
            kind = "email" if "@" in text else "ipv4" if _is_ipv4(text) else "fqdn"
        if kind == "keyid":
            octets = bytes.fromhex(rest[2:]) if rest.startswith("0x") else rest.encode()
            self.text = "keyid:" + (rest.lower() if rest.startswith("0x") else rest)
        elif kind in ("fqdn", "email", "ipv4"):
            rest = rest.lower()
            name = rest
            if kind == "email":
                local, _, name = rest.rpartition("@")
                if not local:
                    raise ValueError(EXPECTED)
            if not (_is_ipv4(rest) if kind == "ipv4" else _NAME.fullmatch(name)):
                raise ValueError(EXPECTED)
            octets = rest.encode()
            # A name that looks like an address keeps its prefix.
            self.text = rest if Identity._guess(rest) == kind else f"{kind}:{rest}"
        else:
            raise ValueError(EXPECTED)
        if not octets:
            raise ValueError(EXPECTED)
        self.key = f"{kind}:{octets.hex()}"

    @staticmethod
    def _guess(text):
        return "email" if "@" in text else "ipv4" if _is_ipv4(text) else "fqdn"

    def __str__(self):
        return self.text

    @property
    def strongswan(self):
        """The identity in strongSwan's notation, which has # where profiles have 0x."""
        return self.text.replace("keyid:0x", "keyid:#", 1)

    @property
    def file_name(self):
        """A name for a directory, different for different identities."""
        name = urllib.parse.quote(self.text, safe="@")
        if len(name) > 120:
            name = name[:100] + "-" + hashlib.sha256(self.key.encode()).hexdigest()[:16]
        return name


def from_strongswan(text):
    """The identity that strongSwan's words name, or None for what no profile could hold."""
    try:
        return Identity(re.sub(r"^(keyid:|@)#", "keyid:0x", text))
    except ValueError:
        return None


def _is_ipv4(text):
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
