"""Words that stand for something: proposals, identities, addresses, secrets, as strongSwan reads them.

Loaded with `store`, and forgotten with it.  What cannot be read is None here; `nearest` says why.
"""

from micropython import const

# Words of a proposal: transform type, id, key length.  Ids: RFC 7296 §3.3.2, RFC 5282 (CCM),
# RFC 8750 (implicit IV, a word of ours), RFC 5903 (P-256), RFC 8031 (Curve25519).
TRANSFORMS = """
aes128ccm8 1 14 128
aes128ccm12 1 15 128
aes128ccm16 1 16 128
aes128ccm8iiv 1 29 128
aes256ccm8 1 14 256
aes256ccm8iiv 1 29 256
aes256ccm12 1 15 256
aes256ccm16 1 16 256
aes128 1 12 128
aes256 1 12 256
prfsha256 2 5 0
sha256 3 12 0
x25519 4 31 0
mlkem512 4 35 0
mlkem768 4 36 0
mlkem1024 4 37 0
ecp256 4 19 0
modp2048 4 14 0
none 4 0 0
noesn 5 0 0
esn 5 1 0
"""
_ALIASES = {"aes": "aes128", "sha2_256": "sha256", "curve25519": "x25519", "modpnone": "none"}
_ICVS = {"": "16", "64": "8", "96": "12", "128": "16"}  # of CCM: nothing, or bits for octets
CBC = const(12)
_MAX_SHOWN = const(64)
_CCM_8_IIV = const(29)

# RFC 7296 §3.5
ID_KINDS = {
    "ipv4": 1, "fqdn": 2, "dns": 2, "email": 3, "rfc822": 3, "userfqdn": 3, "ipv6": 5, "keyid": 11
}  # fmt: skip
# What strongSwan takes for anybody.
_ANYBODY = ("%any", "%any6", "0.0.0.0", "::", "0::0")


def is_text(value):
    """Is it a str of 1 to 255 characters, none of them invisible?"""
    return (
        isinstance(value, str)
        and 0 < len(value) < 256
        and min(value) > " "
        and not set(value) & set("\x7f\xa0\u200b\ufeff")
    )


def cut(text):
    """Return a text of the owner's as an error repeats it."""
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + ".."


def ipv4(text):
    """Return the octets of numbers with points between them, or None."""
    try:
        return bytes([int(part) for part in text.split(".") if part.isdigit()])
    except ValueError:
        return None


def address(text):
    """Return the octets of an IPv4 or IPv6 address (RFC 4291 §2.2), or None."""
    if ":" not in text:
        return ipv4(text) if text.count(".") == 3 and len(ipv4(text) or b"") == 4 else None
    head, double, tail = text.partition("::")
    try:
        groups = [[int(g, 16) for g in half.split(":")] if half else [] for half in (head, tail)]
        gap = 8 - len(groups[0]) - len(groups[1])
        if gap < 0 or bool(double) != (gap > 0) or "::" in tail:
            return None
        words = groups[0] + [0] * gap + groups[1]
        return b"".join([bytes((word >> 8, word & 255)) for word in words])
    except ValueError:
        return None


def _hex(text):
    """Return the octets of pairs of digits, or None."""
    if text and not len(text) % 2 and not set(text.lower()) - set("0123456789abcdef"):
        return bytes.fromhex(text)


def secret(text):
    """Return the octets of a secret: 0x and hex digits, 0s and base64, or text; or None.

    Text has neither control characters nor blanks or quotes around it: a file of strongSwan's
    would lose them, so they are a mistake.
    """
    lead = text[:2].lower()
    if lead == "0x":
        return _hex(text[2:])
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


def identity(text):
    """Return (ID type, octets) of an identity (RFC 7296 §3.5), or None.

    A prefix names its type, `#` behind it hex digits.  Without one @name is a name, @@a@b an
    e-mail address and @#00ff a key ID, and all else what it looks like.
    """
    kind, colon, rest = text.partition(":")
    kind = kind.lower()
    if text[0] == "@":
        kind, rest = "fqdn", text[1:]
        if rest[:1] == "@":
            kind, rest = "email", rest[1:]
        elif rest[:1] == "#":
            kind = "keyid"
    elif kind not in ID_KINDS or not colon:
        # Neither anybody, nor a network, nor a kind that we lack.
        found = address(text)
        if (
            text in _ANYBODY
            or (colon and not found)
            or address(text.split("/")[0].split("-")[0]) != found
        ):
            return None
        kind, rest = "email" if "@" in text else "fqdn", text
        if found:
            kind = "ipv4" if len(found) == 4 else "ipv6"
    if "=" in text and kind not in text.lower():
        return None  # a distinguished name
    number = ID_KINDS[kind]
    if rest[:1] == "#":
        octets = _hex(rest[1:])
    elif kind == "keyid" and rest[:2] == "0x":
        octets = _hex(rest[2:])
    elif kind[:2] == "ip":
        octets = address(rest)
    else:
        octets = None if "*" in rest and kind != "keyid" else rest.encode()
    if not octets or (kind[:2] == "ip" and len(octets) != (4 if number == 1 else 16)):
        return None
    return number, octets


def transform(word):
    """Return (transform type, id, key length) of a word of a proposal, or None.

    ke1_.. to ke7_.. are transform types 6 to 12, additional key exchanges (RFC 9370 §2.2.1).
    """
    if word[:2] == "ke" and word[2:3] in tuple("1234567") and word[3:4] == "_":
        kind, ident, _ = transform(word[4:]) or (0, 0, 0)
        return (5 + int(word[2]), ident, 0) if kind == 4 else None
    cipher, ccm, icv = word.partition("ccm")
    word = _ALIASES.get(word, cipher + ccm + _ICVS.get(icv, icv) if ccm else word)
    _, found, rest = TRANSFORMS.partition("\n" + word + " ")
    if found:
        return tuple([int(number) for number in rest.partition("\n")[0].split()])


def word_of(kind, ident, bits):
    """Return the word for a transform, "" for one that stands for nothing."""
    if kind > 5:
        return ident and "ke%d_" % (kind - 5) + word_of(4, ident, 0)
    head, found, _ = TRANSFORMS.partition(" %d %d %d\n" % (kind, ident, bits))
    return head[head.rfind("\n") + 1 :] if found and ident else ""


def split(name):
    """Return the words of a proposal."""
    return [word.strip() for word in name.strip().lower().split("-")]


def proposals(names, ike):
    """Return [(name, [transform])] of a list of proposals, or None when one is of no use."""
    found = []
    for name in names:
        words = split(name)
        transforms = [transform(word) for word in words]
        if None in transforms or faults(transforms, ike):
            return None
        found.append(("-".join(words), _whole(transforms, ike)))
    return found


def faults(transforms, ike):
    """Return what a proposal lacks or has too much, as transform types.

    0 stands for both sorts of ciphers, -1 for an implicit IV where there is none.
    """
    if ike and (1, _CCM_8_IIV) in [one[:2] for one in transforms]:
        return {-1}
    kinds = set([kind for kind, ident, _ in transforms if ident or kind == 5])
    ciphers = set([ident == CBC for kind, ident, _ in transforms if kind == 1])
    if len(ciphers) > 1:
        return {0}
    needed = {1}
    if ike:
        needed = {1, 2, 4}
        if 3 in kinds:
            kinds.add(2)  # the PRF follows from the integrity algorithm
        if True in ciphers:
            needed.add(3)
        return (needed - kinds) | (kinds & {5})
    # A sensor has no AES-CBC in ESP.
    return needed - kinds or ({1} if True in ciphers else set())


def _whole(transforms, ike):
    """Return the transforms that go on the wire; strongSwan adds and leaves out the same."""
    kinds = [kind for kind, _, _ in transforms]
    cbc = any([kind == 1 and ident == CBC for kind, ident, _ in transforms])
    if ike and 2 not in kinds:
        transforms = transforms + [transform("prfsha256")]
    if not ike and 5 not in kinds:
        transforms = transforms + [transform("noesn")]
    found = []
    for one in transforms:
        kind, ident, _ = one
        # An AEAD has no integrity algorithm, and keys of ESP are those of its IKE SA.
        left_out = kind == 3 and not cbc if ike else kind not in (1, 5)
        if not left_out and one not in found and (ident or kind != 4):
            found.append(one)
    return found
