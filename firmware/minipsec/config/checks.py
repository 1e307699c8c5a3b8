"""What a value of the profile may be.

A check gets the value as it stands in the file, and what its row says behind the check.  It
returns the value in the shape that the stack uses, or None to refuse it; `refused` says why.
"""

# RFC 7296 §3.5
_ID_KINDS = {
    "ipv4": 1, "fqdn": 2, "dns": 2, "email": 3, "rfc822": 3, "userfqdn": 3, "ipv6": 5, "keyid": 11
}  # fmt: skip


def boolean(value):
    return value if type(value) is bool else None


def number(value, low, high=1 << 29, more=None):
    """A whole number from `low` to `high`, or the one number `more`."""
    if type(value) is int and (low <= value <= high or value == more):
        return value


def choice(value, *words):
    return value if type(value) is str and value in words else None


def text(value):
    """A str of 1 to 255 characters, none of them invisible."""
    if (
        isinstance(value, str)
        and 0 < len(value) < 256
        and min(value) > " "
        and not set(value) & set("\x7f\xa0\u200b\ufeff")
    ):
        return value


def _list(value, low, high, check):
    """Return a list of `low` to `high` things that a check takes, or None."""
    if (
        isinstance(value, list)
        and low <= len(value) <= high
        and all([check(one) for one in value])
    ):
        return value


def host(value):
    """One host, or a list of up to eight of them."""
    return _list([value] if isinstance(value, str) else value, 1, 8, text)


def names(value):
    """A list of one to eight texts, or one with commas as it stands in swanctl.conf."""
    value = value.split(",") if isinstance(value, str) else value
    return _list(value, 1, 8, lambda value: isinstance(value, str))


def name(value):
    return value if isinstance(value, str) and 0 < len(value.encode()) <= 32 else None


def country(value):
    if type(value) is str and len(value) == 2 and value.isalpha() and value.isupper():
        return value


def spis(value):
    value = _list(value, 2, 8, lambda value: number(value, 256, (1 << 31) - 1))
    return value if value and len(set(value)) == len(value) else None


def static_ip(value):
    return _list(value, 4, 4, lambda value: text(value) and len(ipv4(value) or b"") == 4)


def keys(value):
    return value if isinstance(value, dict) else None


def ipv4(text):
    """Return octets from numbers with points between them, or None."""
    try:
        return bytes([int(part) for part in text.split(".") if part.isdigit()])
    except ValueError:
        return None


def address(value):
    """Return the octets of an IPv4 or IPv6 address (RFC 4291 §2.2), or None."""
    if not text(value):
        return None
    if ":" not in value:
        return ipv4(value) if value.count(".") == 3 and len(ipv4(value) or b"") == 4 else None
    head, double, tail = value.partition("::")
    try:
        groups = [[int(g, 16) for g in half.split(":")] if half else [] for half in (head, tail)]
        gap = 8 - len(groups[0]) - len(groups[1])
        if gap < 0 or bool(double) != (gap > 0) or "::" in tail:
            return None
        words = groups[0] + [0] * gap + groups[1]
        return b"".join([bytes((word >> 8, word & 255)) for word in words])
    except ValueError:
        return None


def network(value):
    """Return (first address, last address) of a network like 10.3.0.0/16, or None."""
    if not text(value):
        return None
    first, slash, bits = value.partition("/")
    first = address(first)
    if first is None:
        return None
    size = 8 * len(first)
    bits = size if not slash else int(bits) if bits.isdigit() else -1
    if not 0 <= bits <= size:
        return None
    mask = (1 << size - bits) - 1
    low = int.from_bytes(first, "big") & ~mask
    return low.to_bytes(size // 8, "big"), (low | mask).to_bytes(size // 8, "big")


def hex_octets(text):
    """Return the octets of pairs of digits, or None."""
    if text and not len(text) % 2 and not set(text.lower()) - set("0123456789abcdef"):
        return bytes.fromhex(text)


def identity(value, more=None):
    """Return (ID type, octets) of an identity (RFC 7296 §3.5), the word `more` itself, or None.

    A prefix names the type; `#` behind it begins hex digits.  Without a prefix, @name is a name,
    @@a@b an e-mail address and @#00ff a key ID; anything else is what it looks like.
    """
    if value == more or not text(value):
        return value if value == more else None
    kind, colon, rest = value.partition(":")
    kind = kind.lower()
    if value[0] == "@":
        kind, rest = "fqdn", value[1:]
        if rest[:1] == "@":
            kind, rest = "email", rest[1:]
        elif rest[:1] == "#":
            kind = "keyid"
    elif kind not in _ID_KINDS or not colon:
        # Refuse what stands for anybody, a network, and a kind that we do not have.
        found = address(value)
        if (
            value in ("%any", "%any6", "0.0.0.0", "::", "0::0")  # strongSwan's anybody
            or (colon and not found)
            or address(value.split("/")[0].split("-")[0]) != found
        ):
            return None
        kind, rest = "email" if "@" in value else "fqdn", value
        if found:
            kind = "ipv4" if len(found) == 4 else "ipv6"
    if "=" in value and kind not in value.lower():
        return None  # a distinguished name
    if rest[:1] == "#":
        octets = hex_octets(rest[1:])
    elif kind == "keyid" and rest[:2] == "0x":
        octets = hex_octets(rest[2:])
    elif kind in ("ipv4", "ipv6"):
        octets = address(rest)
    else:
        octets = None if "*" in rest and kind != "keyid" else rest.encode()
    if octets and (kind not in ("ipv4", "ipv6") or len(octets) == (4 if kind == "ipv4" else 16)):
        return _ID_KINDS[kind], octets
