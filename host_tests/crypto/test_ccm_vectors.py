"""AES-CCM with 11-octet nonces: NIST's and Wycheproof's figures, and `cryptography` at random."""

import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from host_tests.crypto import vectors


def cut(key, nonce):
    """The firmware's key is key | salt, its nonce salt | IV."""
    return key + nonce[:3], nonce[3:]


def test_every_published_figure_with_a_nonce_of_11_octets(compute):
    published = list(vectors.ccm())
    assert len(published) == 2 * 10 + 2 * 3
    seals, opens = [], []
    for _, key, nonce, aad, plain, sealed in published:
        key, iv = cut(key, nonce)
        icv = len(sealed) - len(plain)
        seals.append(["seal", key, icv, iv, aad, plain])
        opens.append(["open", key, icv, aad, iv + sealed])
    for vector, ours in zip(published, compute(seals), strict=True):
        assert ours == vector[5], vector[0]
    for vector, ours in zip(published, compute(opens), strict=True):
        assert ours == vector[4], vector[0]


def rows(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        key = rng.randbytes(rng.choice((16, 32)))
        icv = rng.choice((8, 12, 16))
        aad = rng.randbytes(rng.choice((1, 2, 8, 12, 14, 15, 28, 32, 36, 100, 1000)))
        size = rng.choice((0, 1, 15, 16, 17, 31, 32, 33, rng.randrange(2000), 4096, 5000))
        yield key, rng.randbytes(11), icv, aad, rng.randbytes(size)


def test_random_inputs_come_out_as_cryptography_has_them(compute):
    given = list(rows(300, 1))
    cases = []
    for key, nonce, icv, aad, plain in given:
        key, iv = cut(key, nonce)
        cases.append(["seal", key, icv, iv, aad, plain])
    for row, ours in zip(given, compute(cases), strict=True):
        key, nonce, icv, aad, plain = row
        assert ours == AESCCM(key, tag_length=icv).encrypt(nonce, plain, aad)


def test_what_cryptography_sealed_opens_and_not_with_one_bit_changed(compute):
    rng = random.Random(2)
    cases, expected = [], []
    for key, nonce, icv, aad, plain in rows(200, 3):
        body = nonce[3:] + AESCCM(key, tag_length=icv).encrypt(nonce, plain, aad)
        cases.append(["open", key + nonce[:3], icv, aad, body])
        expected.append(plain)
        bent = bytearray(body)
        bent[rng.randrange(len(bent))] ^= 1 << rng.randrange(8)
        cases.append(["open", key + nonce[:3], icv, aad, bytes(bent)])
        expected.append(None)
        cases.append(["open", key + nonce[:3], icv, aad + b"\0", body])
        expected.append(None)
    assert compute(cases) == expected


def test_the_limits_of_the_aad_are_those_of_its_two_octet_length(compute):
    for size in (0xFEFF, 300):
        nonce, aad = bytes(range(11)), bytes(size)
        key, iv = cut(bytes(16), nonce)
        (ours,) = compute([["seal", key, 8, iv, aad, b"text"]])
        assert ours == AESCCM(bytes(16), tag_length=8).encrypt(nonce, b"text", aad)


@pytest.mark.item("MIN-20")
def test_the_salt_stands_before_the_iv(compute):
    sealed = AESCCM(bytes(16), tag_length=8).encrypt(b"SLTiviviviv", b"text", b"aad")
    (ours,) = compute([["seal", bytes(16) + b"SLT", 8, b"iviviviv", b"aad", b"text"]])
    assert ours == sealed
