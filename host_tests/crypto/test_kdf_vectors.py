"""HMAC-SHA-256 and prf+: RFC 4231's and HKDF's figures, the standard library, `cryptography`.

prf+ of RFC 7296 §2.13 is HKDF-Expand of RFC 5869 §2.3 under another name: T(i) = prf(K, T(i - 1)
| S | i), with S as HKDF's info.
"""

import hmac
import random

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from host_tests.crypto import vectors


def test_hmac_figures_of_rfc_4231(compute):
    published = list(vectors.hmac_sha256())
    assert len(published) == 6
    results = compute([["prf", key, message] for key, message, _ in published])
    assert results == [mac for _, _, mac in published]


def test_hmac_at_random_is_the_standard_librarys(compute):
    rng = random.Random(4)
    given = [
        (rng.randbytes(rng.randrange(140)), rng.randbytes(rng.randrange(300))) for _ in range(200)
    ]
    given += [(bytes(size), b"edge") for size in (0, 63, 64, 65, 128)]
    results = compute([["prf", key, text] for key, text in given])
    assert results == [hmac.digest(key, text, "sha256") for key, text in given]


@pytest.mark.item("MIN-20")
def test_prf_plus_is_hkdf_expand_of_rfc_5869_and_wycheproof(compute):
    published = [vector for vector in vectors.hkdf_sha256() if vector[4] <= 255 * 32]
    assert len(published) > 80
    keys = compute([["prf", salt or bytes(32), ikm] for _, ikm, salt, _, _, _ in published])
    cases = [
        ["prf+", key, info, size]
        for key, (_, _, _, info, size, _) in zip(keys, published, strict=True)
    ]
    for vector, ours in zip(published, compute(cases), strict=True):
        assert ours == vector[5], vector[0]


@pytest.mark.item("MIN-20", "MIN-32")
def test_prf_plus_at_random_is_cryptographys_hkdf_expand(compute):
    rng = random.Random(5)
    given = [
        (
            rng.randbytes(32),
            rng.randbytes(rng.randrange(1, 600)),
            rng.choice((1, 32, 38, 134, 500)),
        )
        for _ in range(100)
    ]
    given.append((bytes(32), b"the longest", 255 * 32))
    results = compute([["prf+", key, seed, size] for key, seed, size in given])
    for (key, seed, size), ours in zip(given, results, strict=True):
        assert ours == HKDFExpand(SHA256(), size, seed).derive(key)
