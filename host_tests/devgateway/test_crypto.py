"""Key exchange, prf+ and message protection against other implementations."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from host_tests.devgateway.peer import seeded
from tools.devgateway.crypto import (
    MODP_2048_PRIME,
    CryptoError,
    PrfHmac,
    SkAead,
    SkCbc,
    answer_exchange,
    start_exchange,
)
from tools.devgateway.numbers import Encr, Group, Prf, T
from tools.devgateway.wire import Transform


def test_the_modp_prime_is_scapys():
    from scapy.layers.tls.crypto.groups import modp2048

    assert int(modp2048.m) == MODP_2048_PRIME


@pytest.mark.parametrize(
    ("number", "algorithm"),
    [(Prf.HMAC_SHA2_256, hashes.SHA256()), (Prf.HMAC_SHA2_512, hashes.SHA512())],
)
@pytest.mark.parametrize("size", [1, 31, 32, 33, 64, 161, 300])
def test_prf_plus_is_hkdf_expand(number, algorithm, size):
    """RFC 5869 §2.3 is RFC 7296 §2.13's prf+ with `info` for the seed."""
    key, seed = bytes(range(64)), b"Ni|Nr|SPIi|SPIr"
    expected = HKDFExpand(algorithm, size, seed).derive(key)
    assert PrfHmac(number).plus(key, seed, size) == expected


@pytest.mark.parametrize("group", [Group.CURVE25519, Group.ECP_256, Group.MODP_2048])
def test_both_halves_of_a_key_exchange_agree(group):
    for seed in range(5):
        half = start_exchange(group, seeded(seed))
        public, secret = answer_exchange(group, half.public, seeded(seed + 100))
        assert half.finish(public) == secret
        assert len(secret) == {31: 32, 19: 32, 14: 256}[group]


@pytest.mark.parametrize(
    ("group", "bad"),
    [
        (Group.CURVE25519, bytes(32)),
        (Group.CURVE25519, bytes(31)),
        (Group.ECP_256, bytes(64)),
        (Group.ECP_256, b"\1" * 64),
        (Group.ECP_256, bytes(65)),
        (Group.MODP_2048, bytes(256)),
        (Group.MODP_2048, bytes(255) + b"\1"),
        (Group.MODP_2048, (MODP_2048_PRIME - 1).to_bytes(256, "big")),
        (Group.MODP_2048, b"\xff" * 256),
        (Group.MODP_2048, bytes(254) + b"\2\2"),
    ],
)
def test_bad_public_values_are_refused(group, bad):
    if bad == bytes(254) + b"\2\2":
        bad = bad[1:]
    with pytest.raises(CryptoError):
        answer_exchange(group, bad, seeded())


def test_x25519_is_the_librarys_own():
    private = x25519.X25519PrivateKey.from_private_bytes(seeded(5)(32))
    assert start_exchange(Group.CURVE25519, seeded(5)).public == (
        private.public_key().public_bytes_raw()
    )


CIPHERS = [
    SkAead(Transform(T.ENCR, number, 128), bytes(range(19)))
    for number in (Encr.AES_CCM_8, Encr.AES_CCM_12, Encr.AES_CCM_16)
] + [SkCbc(bytes(32), bytes(range(32)))]


@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_protected_message_opens_once_untouched(cipher):
    aad = b"header"
    for size in (0, 1, 15, 16, 17, 500):
        plain = bytes(size)
        body = cipher.seal(aad, plain, seeded())
        assert len(body) == cipher.sealed_size(size)
        assert cipher.open(aad, body) == plain
        room = cipher.room(len(body))
        assert size <= room and cipher.sealed_size(room) <= len(body)
        for position in range(len(body)):
            bad = bytearray(body)
            bad[position] ^= 1
            with pytest.raises(CryptoError):
                cipher.open(aad, bytes(bad))
        with pytest.raises(CryptoError):
            cipher.open(b"other", body)
        for cut in range(min(len(body), 60)):
            with pytest.raises(CryptoError):
                cipher.open(aad, body[:cut])


def test_the_iv_of_an_aead_never_repeats():
    cipher = SkAead(Transform(T.ENCR, Encr.AES_CCM_8, 128), bytes(19))
    ivs = {cipher.seal(b"", b"", None)[:8] for _ in range(1000)}
    assert len(ivs) == 1000
