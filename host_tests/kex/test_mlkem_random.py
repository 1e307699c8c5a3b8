"""A thousand random exchanges with two other implementations: kyber-py and OpenSSL."""

import random

import pytest
from cryptography.hazmat.primitives.asymmetric import mlkem as openssl
from kyber_py.ml_kem import ML_KEM_512, ML_KEM_768, ML_KEM_1024

pytestmark = pytest.mark.long

KYBER_PY = {35: ML_KEM_512, 36: ML_KEM_768, 37: ML_KEM_1024}
OPENSSL = {
    36: (openssl.MLKEM768PrivateKey, openssl.MLKEM768PublicKey),
    37: (openssl.MLKEM1024PrivateKey, openssl.MLKEM1024PublicKey),
}


def spoiled(c, source):
    """The ciphertext with one bit changed, or random octets in its place."""
    if source.randrange(8) == 0:
        return source.randbytes(len(c))
    c = bytearray(c)
    c[source.randrange(len(c))] ^= 1 << source.randrange(8)
    return bytes(c)


@pytest.mark.parametrize(("number", "count"), [(35, 280), (36, 60), (37, 40)])
def test_same_octets_as_kyber_py(run, number, count):
    source = random.Random(number)
    other = KYBER_PY[number]
    cases = []
    wanted = []
    for _ in range(count):
        seed, m = source.randbytes(64), source.randbytes(32)
        ek, dk = other.key_derive(seed)
        secret, c = other._encaps_internal(ek, m)
        bad = spoiled(c, source)
        cases += [
            ("encaps", number, ek, m),
            ("decaps", number, seed, c),
            ("decaps", number, seed, bad),
        ]
        wanted += [[c, secret], [ek, secret], [ek, other.decaps(dk, bad)]]
    assert run(cases) == wanted


@pytest.mark.parametrize("number", OPENSSL)
def test_both_ways_with_openssl(run, number, count=310):
    source = random.Random(number)
    private, public = OPENSSL[number]
    keys = []
    cases = []
    wanted = []
    for _ in range(count):
        seed, m = source.randbytes(64), source.randbytes(32)
        key = private.from_seed_bytes(seed)
        ek = key.public_key().public_bytes_raw()
        secret, c = public.from_public_bytes(ek).encapsulate()
        bad = spoiled(c, source)
        keys.append(key)
        cases += [
            ("decaps", number, seed, c),
            ("decaps", number, seed, bad),
            ("encaps", number, ek, m),
        ]
        wanted += [[ek, secret], [ek, key.decapsulate(bad)]]
    answers = run(cases)
    ours = answers[2::3]
    assert [answer for place, answer in enumerate(answers) if place % 3 != 2] == wanted
    assert [key.decapsulate(c) for key, (c, _) in zip(keys, ours)] == [s for _, s in ours]
