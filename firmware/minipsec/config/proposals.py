"""Proposals for IKE and ESP in strongSwan's words, as transforms: (type, id, key length in bits).

A word or proposal that cannot be read is None here; `refused` says why.
"""

from micropython import const

from ..crypto.suites import ROWS, WIDTH, suite
from .checks import names


def _ciphers():
    """Return a line for each cipher of suites with each length of its key."""
    lines = ""
    for at in range(0, len(ROWS), WIDTH):
        ident, _, mac, iv, icv = ROWS[at : at + 5]
        word = ROWS[at + 6 : at + WIDTH].decode() + str(icv) + ("" if iv else "iiv")
        for bits in (128, 256):
            lines += "\naes%d%s 1 %d %d" % (bits, "" if mac else word, ident, bits)
    return lines


# A word and its transform.  Ids: suites, RFC 7296 §3.3.2, RFC 5903 (P-256), RFC 8031 (Curve25519).
# An implicit IV is a word of ours.
TRANSFORMS = (
    _ciphers()
    + """
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
)
_ALIASES = {"aes": "aes128", "sha2_256": "sha256", "curve25519": "x25519", "modpnone": "none"}
_ICVS = {"": "16", "64": "8", "96": "12", "128": "16"}  # of AEADs: nothing, or bits for octets
# Transform types, RFC 7296 §3.3.2; types 6 to 12 are further key exchanges, RFC 9370 §2.2.1.
_ENCR = const(1)
_PRF = const(2)
_INTEG = const(3)
_KEY_EXCHANGE = const(4)
_ESN = const(5)
_ROW_MAC = const(1)  # see suites.suite
_ROW_IV = const(2)
_ROW_PAD = const(4)


def transform(word):
    """Return (transform type, id, key length) of a word of a proposal, or None.

    ke1_.. to ke7_.. are transform types 6 to 12, additional key exchanges (RFC 9370 §2.2.1).
    """
    if word[:2] == "ke" and word[2:3] in tuple("1234567") and word[3:4] == "_":
        kind, ident, _ = transform(word[4:]) or (0, 0, 0)
        return (_ESN + int(word[2]), ident, 0) if kind == _KEY_EXCHANGE else None
    word = _ALIASES.get(word, word)
    for at in range(WIDTH, len(ROWS) + 1, WIDTH):
        head, mode, icv = word.partition(ROWS[at - 3 : at].decode())
        if mode:
            word = head + mode + _ICVS.get(icv, icv)
    _, found, rest = TRANSFORMS.partition("\n" + word + " ")
    if found:
        return tuple([int(number) for number in rest.partition("\n")[0].split()])


def word_of(kind, ident, bits):
    """Return the word for a transform; "" for NONE and for an unknown one."""
    if kind > _ESN:
        return ident and "ke%d_" % (kind - _ESN) + word_of(_KEY_EXCHANGE, ident, 0)
    head, found, _ = TRANSFORMS.partition(" %d %d %d\n" % (kind, ident, bits))
    return head[head.rfind("\n") + 1 :] if found and ident else ""


def split(name):
    """Return the words of a proposal."""
    return [word.strip() for word in name.strip().lower().split("-")]


def proposals(value, ike):
    """Return [(name, [transform])] of a list of proposals, or None if one cannot be used."""
    found = []
    for name in names(value) or ():
        words = split(name)
        transforms = [transform(word) for word in words]
        if None in transforms or faults(transforms, ike):
            return None
        found.append(("-".join(words), _whole(transforms, ike)))
    return found or None


def faults(transforms, ike):
    """Return the transform types that a proposal lacks or must not have.

    {0} means both AES-CCM and AES-CBC, {-1} an implicit IV in IKE.
    """
    kinds = set([kind for kind, ident, _ in transforms if ident or kind == _ESN])
    macs, ivs, pads = set(), set(), set()
    for kind, ident, _ in transforms:
        if kind == _ENCR:
            one = suite(ident)
            macs.add(one[_ROW_MAC])
            ivs.add(one[_ROW_IV])
            pads.add(one[_ROW_PAD])
    if ike and 0 in ivs:
        return {-1}
    if len(macs) > 1:
        return {0}
    needed = {_ENCR, _INTEG} if any(macs) else {_ENCR}
    if not ike:
        return {_ENCR} if 0 in pads else needed - kinds
    if _INTEG in kinds:
        kinds.add(_PRF)  # the PRF follows from the integrity algorithm
    return (needed | {_PRF, _KEY_EXCHANGE}) - kinds | kinds & {_ESN}


def _whole(transforms, ike):
    """Return the transforms that go on the wire; strongSwan adds and omits the same ones."""
    kinds = [kind for kind, _, _ in transforms]
    macs = any([kind == _ENCR and suite(ident)[_ROW_MAC] for kind, ident, _ in transforms])
    if ike and _PRF not in kinds:
        transforms = transforms + [transform("prfsha256")]
    if not ike and _ESN not in kinds:
        transforms = transforms + [transform("noesn")]
    found = []
    for one in transforms:
        kind, ident, _ = one
        # Omit an AEAD's integrity algorithm, and ESP's key exchange: its keys come from IKE.
        left_out = not ike and kind not in (_ENCR, _INTEG, _ESN) or kind == _INTEG and not macs
        if not left_out and one not in found and (ident or kind != _KEY_EXCHANGE):
            found.append(one)
    return found
