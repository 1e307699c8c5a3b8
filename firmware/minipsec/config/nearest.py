"""Why a proposal or an identity of the profile cannot be taken, and the nearest one that can.

Loaded when one is refused.
"""

from .words import CBC, TRANSFORMS, address, cut, faults, split, transform, word_of

# What a word begins with: what the words of ours begin with that can stand for it.
_LIKE = (
    ("prf", "prf"), ("sha", "sha"), ("md5", "sha"), ("aesxcbc", "sha"), ("aescmac", "sha"),
    ("modp", "modp"), ("ecp", "ecp"), ("curve", "x2"), ("x", "x2"), ("gost", "x2"),
    ("mlkem", "mlkem"), ("kyber", "mlkem"), ("esn", "esn"), ("no", "noesn"), ("aes", "aes"),
    ("camelliaxcbc", "sha"), ("", "aes128ccm16"),
)  # fmt: skip
_LACKS = {
    1: "a cipher, like aes128ccm16",
    2: "a PRF, like prfsha256",
    3: "an integrity algorithm, like sha256",
    4: "a key exchange, like x25519",
}


def of_proposals(names, ike):
    """Return what is wrong with the first proposal at fault."""
    for name in names:
        words = split(name)
        transforms = [transform(word) for word in words]
        text = ""
        if None in transforms:
            word = words[transforms.index(None)]
            text = "%s is not here, the nearest is %s" % (
                cut(word) or "an empty word",
                nearest(word, ike),
            )
        else:
            for kind in sorted(faults(transforms, ike)):
                text = text or _fault(kind, words, transforms, ike)
        if text:
            return '"%s": %s' % (cut(name), text)


def _fault(kind, words, transforms, ike):
    if kind < 0:
        return "implicit IVs are for ESP (RFC 8750)"
    if kind == 0:
        return "AES-CBC and AES-CCM need a proposal each"
    if kind == 5:
        return "esn and noesn belong into esp"
    for word, (one, ident, bits) in zip(words, transforms):
        if one == kind == 1 and ident == CBC and not ike:
            return "%s is not here for ESP, the nearest is aes%dccm8" % (word, bits)
    return "it lacks " + _LACKS[kind]


def nearest(word, ike=True):
    """Return the word of ours that is most like this one."""
    if word[:2] == "ke" and word[3:4] == "_":
        inner = nearest(word[4:])
        like = word[:4] + (inner if (transform(inner) or (0,))[0] == 4 else "mlkem768")
        return like if transform(like) else "ke1" + like[3:]
    like = word.replace("gcm", "ccm").replace("192", "256")
    found = transform(like)
    if found and found[0] < 6 and (ike or found[:2] != (1, CBC)):
        return word_of(*found)
    for start, ours in _LIKE:
        if word.startswith(start):
            break
    words = [row.split()[0] for row in TRANSFORMS.strip().split("\n")]
    words = [one for one in words if one.startswith(ours)]
    if not ike and ours == "aes":
        words = [one for one in words if "ccm" in one]
    return min(words, key=lambda one: _distance(like, one))


def _distance(a, b):
    """Return how many letters must be changed, added or removed to make `b` out of `a`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        corner, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            corner, row[j + 1] = row[j + 1], min(corner + (x != y), row[j] + 1, row[j + 1] + 1)
    return row[-1]


def of_identity(text):
    """Return what is wrong with an identity, or None where there is no more to say."""
    kind, colon, rest = text.partition(":")
    if "*" in text:
        return "a wildcard stands for nobody in particular"
    if text[0] == "%" or (address(text) and not any(address(text))):
        return 'it stands for anybody; gateway_id may be "any"'
    if "=" in text or kind.lower() in ("dn", "asn1dn"):
        return "distinguished names are not here: give the gateway fqdn:, email: or keyid:"
    if colon and text[0] != "@" and kind.lower() not in ("ipv4", "ipv6", "keyid", "fqdn", "email"):
        return "%s: is no kind of identity here; fqdn: email: keyid: ipv4: ipv6: are" % cut(kind)
    if "#" in text or rest[:2] == "0x":
        return "expected pairs of hex digits"
