"""Identities (IDi): as they stand in a profile, in strongSwan's files, and as a file name.

strongSwan gives many characters a meaning of their own: `*` is a wildcard, `a=b` a distinguished
name, `10.0.0.1-10.0.0.9` a range, `#` begins octets. So names take letters, digits and a few signs
that mean nothing; every other identity is written as octets, `keyid:0x..`.
"""

import hashlib
import ipaddress
import re
import urllib.parse

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # before the @ of an e-mail address
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*")  # a keyid in letters
_OCTETS = re.compile(r"0x([0-9A-Fa-f]{2})+")
_MOST = 128  # octets of the text
_SHA1 = 20  # octets: strongSwan takes a keyid so long for a hash, and shows it as octets

EXPECTED = 'an identity like "sensor-1.example.org", "a@example.org" or "keyid:0x00ff"'


class NoIdentity(ValueError):
    """What was expected, with a hint where the text is near to an identity."""

    def __init__(self, hint=""):
        super().__init__(EXPECTED + hint)


class Identity:
    """One identity of RFC 7296 §3.5; `NoIdentity` for what is none.

    `text` is how a profile writes it, `kind` and `octets` what goes over the air, `key` the same
    for two spellings of one identity.
    """

    def __init__(self, text):
        if not isinstance(text, str) or not 1 <= len(text) <= _MOST or not text.isascii():
            raise NoIdentity  # lower() takes signs for letters that only look like them
        kind, rest = _split(text)
        if kind not in _READ:
            raise NoIdentity(_instead(text))
        rest = _READ[kind](_decoded(kind, rest) if rest.startswith("#") else rest, text)
        self.kind = kind
        octets = kind == "keyid" and rest.startswith("0x")
        self.octets = bytes.fromhex(rest[2:]) if octets else rest.encode()
        # A name that looks like an address keeps its prefix.
        self.text = rest if kind != "keyid" and _guess(rest) == kind else f"{kind}:{rest}"
        self.literal = True

    @classmethod
    def of(cls, row):
        """The identity of an inventory's row, also one that can be made no longer."""
        try:
            return cls(row["id"])
        except NoIdentity:
            found = cls.__new__(cls)
            found.kind, _, octets = row["key"].partition(":")
            found.octets = bytes.fromhex(octets)
            found.text = row["id"]
            found.literal = False
            return found

    @property
    def key(self):
        return f"{self.kind}:{self.octets.hex()}"

    def __str__(self):
        return self.text

    @property
    def wild(self):
        """Does strongSwan take it for more than one peer?"""
        return self.kind in ("fqdn", "email") and b"*" in self.octets or self.text in _ANYBODY

    @property
    def strongswan(self):
        """The identity in strongSwan's notation, so that it means these octets and nothing else."""
        if not self.literal:
            return f"{self.kind}:#{self.octets.hex()}"
        if self.kind == "fqdn" and not re.search("[a-z]", self.text):
            return "fqdn:" + self.octets.decode()  # digits and dashes may be a range of addresses
        return self.text.replace("keyid:0x", "keyid:#", 1)

    @property
    def shown(self):
        """How charon shows the peer of an SA: without the kind, a keyid in letters where it can."""
        plain = all(32 <= octet < 127 for octet in self.octets)
        if self.kind == "keyid" and (not plain or len(self.octets) == _SHA1):
            return self.octets.hex(":")
        return self.octets.decode("ascii", "replace")

    def is_shown_as(self, text):
        """Are these the octets that charon shows so? A name's capitals do not count."""
        return text == self.shown or self.kind != "keyid" and text.lower() == self.shown.lower()

    @property
    def file_name(self):
        """A name for a directory, different for different identities."""
        name = urllib.parse.quote(self.text, safe="@")
        if len(name) > 120:
            name = name[:100] + "-" + hashlib.sha256(self.key.encode()).hexdigest()[:16]
        return name


# What strongSwan takes for anybody.
_ANYBODY = ("%any", "%any6", "0.0.0.0", "::", "0::0")
_KINDS = {"dns": "fqdn", "rfc822": "email", "userfqdn": "email"}


def _split(text):
    """The kind of an identity and what follows, as strongSwan tells them apart."""
    if text.startswith("@#"):
        return "keyid", text[1:]
    if text.startswith("@@"):
        return "email", text[2:]
    if text.startswith("@"):
        return "fqdn", text[1:]
    kind, colon, rest = text.partition(":")
    if not colon or _guess(text) == "ipv6":
        return _guess(text), text
    return _KINDS.get(kind.lower(), kind.lower()), rest


def _guess(text):
    if "@" in text:
        return "email"
    version = _version(text)
    if not version and _version(re.split("[/-]", text)[0]):
        return "range"
    return f"ipv{version}" if version else "fqdn"


def _version(text):
    """4 or 6 for an address, else None; with an interface (%eth0) it is none to others."""
    try:
        return None if "%" in text else ipaddress.ip_address(text).version
    except ValueError:
        return None


def _decoded(kind, rest):
    """What hexadecimal digits behind a # say, in the words of its kind."""
    try:
        octets = bytes.fromhex(rest[1:])
        if kind == "keyid":
            return "0x" + octets.hex()
        return str(ipaddress.ip_address(octets)) if kind.startswith("ip") else octets.decode()
    except ValueError:
        raise NoIdentity from None


def _instead(text):
    """What to write for a text that strongSwan would read in a way of its own."""
    if "*" in text or text.partition(":")[2] in _ANYBODY or text in _ANYBODY:
        return ", of one device: strongSwan takes this for several or for anybody"
    rest = text.removeprefix("keyid:")
    if rest and rest.isascii() and rest[:2] not in ("0x", "0X") and rest[0] != "#":
        return f"; as octets this is keyid:0x{rest.encode().hex()}"
    return ""


def _keyid(rest, text):
    if _OCTETS.fullmatch(rest):
        return rest.lower()
    if rest.lower().startswith("0x") or not _LABEL.fullmatch(rest):
        raise NoIdentity(_instead(text))
    return rest


def _email(rest, text):
    local, at, name = rest.lower().rpartition("@")
    if not at or not _WORD.fullmatch(local) or not _NAME.fullmatch(name):
        raise NoIdentity(_instead(text))
    return rest.lower()


def _fqdn(rest, text):
    if not _NAME.fullmatch(rest.lower()):
        raise NoIdentity(_instead(text))
    return rest.lower()


def _address(version):
    def read(rest, text):
        if _guess(rest) != f"ipv{version}" or rest in _ANYBODY:
            raise NoIdentity(_instead(text))
        return str(ipaddress.ip_address(rest))

    return read


_READ = {
    "keyid": _keyid,
    "email": _email,
    "fqdn": _fqdn,
    "ipv4": _address(4),
    "ipv6": _address(6),
}
