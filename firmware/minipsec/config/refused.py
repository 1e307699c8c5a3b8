"""Why a profile or a secret is refused, in one line, and the nearest value that is not.

Loaded when one is refused, because these texts are larger than all that checks a profile.
"""

import json
from micropython import const

from ..crypto.suites import suite
from ..errors import ProfileError
from .checks import (
    address,
    boolean,
    choice,
    country,
    static_ip,
    host,
    identity,
    name,
    number,
    names,
    spis,
    network,
    keys,
    text,
)
from .proposals import TRANSFORMS, faults, proposals, split, transform, word_of

_MAX_SHOWN = const(64)
_ROW_PAD = const(4)  # see suites.suite
_EXPECTED = {
    "ppk_id": "an identifier",
    address: "an IPv4 or IPv6 address",
    boolean: "true or false",
    country: 'two capital letters like "DE"',
    static_ip: "[address, mask, gateway, DNS server], IPv4",
    host: "a host or address, or a list of them",
    identity: 'an identity like "sensor.example.org", "a@b" or "keyid:7"',
    name: "a name of 1 to 32 octets",
    spis: "2 to 8 different numbers from 256 to 2147483647",
    network: "a network like 10.3.0.0/16",
    keys: "an object with keys of its own",
    text: "a file name",
}
_SECRET = "text without quotes or blanks around it, 0x and pairs of hex digits, or 0s and base64"
_SECRETS = {"psk": _SECRET, "ppk": _SECRET, "wifi_key": "text"}

# draft-minimal-esp §3
FIXED_SPI = (
    "spi: fixed values let an onlooker count the sensors and tell their application or model "
    "(privacy), and each packet forged with one costs an ICV check, that is battery (DoS)"
)


def fail(*texts):
    raise ProfileError(": ".join(texts))


def cut(text):
    """Return a text of the owner's, cut to what an error repeats of it."""
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + ".."


def expected(key, check, more=()):
    """Return in words what a row expects; `check` may be the words themselves."""
    if isinstance(check, str):
        return check
    if check is choice:
        return " or ".join([json.dumps(word) for word in more])
    if check is number:
        words = "a whole number from %d to %d" % (more[0], more[1] if more[1:] else 1 << 29)
        return words + ", or 0" if more[2:] else words
    if check is proposals:
        return 'proposals like ["aes128ccm%s"]' % ("16-prfsha256-x25519" if more[0] else "8")
    words = _EXPECTED.get(key) or _EXPECTED[check]
    return words + ', or "any"' if more else words


def value(where, key, value, check, more=()):
    """Refuse a value of the profile."""
    if not key:
        fail(where, "expected one JSON object with keys like gateway and id")
    words = "expected " + expected(key, check, more)
    if value is ...:
        fail(where, key, "missing, " + words)
    if check is identity and isinstance(value, str) and value:
        why = of_identity(value)
        if why:
            fail(where, key, cut(json.dumps(value)), why)
    if check is proposals and names(value):
        fail(where, key, of_proposals(names(value), *more))
    if key == "secrets":
        fail(where, key, words)  # it may be the secrets themselves
    fail(where, key, words + ", got " + cut(json.dumps(value)))


def secret(key, known):
    """Refuse a key of the secrets file; never repeat its value, which may be the secret."""
    if key is None:
        fail('secrets: expected {"psk": "text or 0xhex"} or {"psk_pad": "0x" + 64 digits}')
    if key == "ppk_id":
        fail('secrets: "ppk" and the profile key ppk_id go together')
    if key not in known:
        fail("secrets", "a key is unknown; known are " + ", ".join(known))
    fail("secrets", key, "expected " + _SECRETS.get(key, "0x and 64 digits"))


# (how an unknown word begins, how words of ours begin that may be meant)
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


def of_proposals(given, ike):
    """Return what is wrong with the first bad proposal."""
    for proposal in given:
        words = split(proposal)
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
            return '"%s": %s' % (cut(proposal), text)


def _fault(kind, words, transforms, ike):
    if kind < 0:
        return "implicit IVs are for ESP (RFC 8750)"
    if kind == 0:
        return "AES-CBC and AES-CCM need a proposal each"
    if kind == 5:
        return "esn and noesn belong into esp"
    for word, (one, ident, bits) in zip(words, transforms):
        if one == kind == 1 and not ike and not _in_esp(ident):
            return "%s is not here for ESP, the nearest is aes%dccm8" % (word, bits)
    return "it lacks " + _LACKS[kind]


def _in_esp(ident):
    return suite(ident)[_ROW_PAD]


def nearest(word, ike=True):
    """Return the word of ours that is most like this one."""
    if word[:2] == "ke" and word[3:4] == "_":
        inner = nearest(word[4:])
        like = word[:4] + (inner if (transform(inner) or (0,))[0] == 4 else "mlkem768")
        return like if transform(like) else "ke1" + like[3:]
    like = word.replace("gcm", "ccm").replace("192", "256")
    found = transform(like)
    if found and found[0] < 6 and (ike or found[0] != 1 or _in_esp(found[1])):
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
    """Return what is wrong with an identity, or None if nothing special is."""
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
