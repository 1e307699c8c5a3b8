"""ML-KEM in proposals (RFC 9370), and whether messages with large keys fit their datagrams.

Loaded when the profile asks for ML-KEM or for AES-CBC.
"""

from micropython import const

from .proposals import transform

_ENCR = const(1)
_KEY_EXCHANGE = const(4)
_ESN = const(5)  # higher types are additional key exchanges (RFC 9370 §2.2.1)
_AES_CBC = const(12)
_ML_KEM_1024 = const(37)
_KEM_SIZES = {35: 800, 36: 1184, 37: 1568}  # octets of a public key of ML-KEM (FIPS 203 §8)
_KEM_LEAST = const(176)  # octets of a datagram, so that a key fits the fragments of a message
_CBC_LEAST = const(
    136
)  # octets of an IPv6 datagram, so that a fragment with AES-CBC holds a block
_DATAGRAM_1024 = const(2048)  # to receive ML-KEM-1024, where IKE does not split the answer


def _is_quantum_safe(transforms):
    """Does every choice out of these transforms contain an ML-KEM?"""
    kinds = {}
    for kind, ident, _ in transforms:
        if kind == _KEY_EXCHANGE or kind > _ESN:
            kinds[kind] = kinds.get(kind, True) and ident in _KEM_SIZES
    return any(kinds.values())


def fit(profile):
    """Put ML-KEM into the proposals if `pq` asks for it, and check that all messages fit."""
    if profile["pq"] != "off":
        profile["ike"] = _with_kem(profile)
    _check_size(profile)


def _with_kem(profile):
    """Return the IKE proposals, each with an ML-KEM after its own key exchange (RFC 9370)."""
    word = "ke1_" + profile["pq_method"]
    plain = profile["ike"]
    found = []
    for name, transforms in plain:
        if not _is_quantum_safe(transforms):
            if any([kind > _ESN for kind, _, _ in transforms]):
                if profile["pq"] == "require":
                    from .refused import cut, fail

                    name = cut(name) + " can be agreed upon without ML-KEM, and pq is require"
                    fail("profile", "ike", name)
            else:
                name, transforms = name + "-" + word, transforms + [transform(word)]
        found.append((name, transforms))
    if profile["pq"] == "prefer":
        found += [proposal for proposal in plain if proposal not in found]
    return found


def _check_size(profile):
    """Refuse an ML-KEM whose key does not fit: IKE_SA_INIT is one datagram.

    Set `datagram`, the size of the largest datagram that may come.  Refuse AES-CBC over IPv6 if a
    fragment would not hold one block.
    """
    largest = proposals = additional = 0
    least = 128
    why = "this ML-KEM"
    six = [":" in host for host in profile["gateway"]]
    for _, transforms in profile["ike"]:
        proposals += 8
        for kind, ident, bits in transforms:
            proposals += 12 if bits else 8
            if kind == _ENCR and ident == _AES_CBC and any(six) and least < _CBC_LEAST:
                least = _CBC_LEAST
                why = "AES-CBC over IPv6"
            if ident in _KEM_SIZES and kind > 3 and kind != _ESN:
                least = _KEM_LEAST
                why = "this ML-KEM"
                if ident == _ML_KEM_1024:
                    profile["datagram"] = _DATAGRAM_1024
                if kind == _KEY_EXCHANGE:
                    largest = max(largest, _KEM_SIZES[ident])
            additional = max(additional, kind)
    six = all(six)
    if largest:
        why = "ML-KEM as the first key exchange; behind another one (x25519-ke1_..) any will do"
        # Headers; SA, KE, Nonce, two NAT_DETECTION, fragmentation; a COOKIE of 64 octets.
        least = (48 if six else 28) + 28 + 4 + proposals + 8 + largest + 36 + 56 + 8 + 72
        if profile["frag_ack"] != "off":
            least += 28
        if profile["ppk_id"]:
            least += 16
        if profile["ppk_id"] or additional > _ESN:
            least += 8
    size = profile["fragment_size"]
    if (size or (1280 if six else 576)) < least:
        from .refused import value

        value("profile", "fragment_size", size, "%d or more with %s" % (least, why))
