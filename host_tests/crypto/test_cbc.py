"""AES-CBC with HMAC-SHA2-256-128 for SK and SKF payloads, against OpenSSL, NIST, scapy."""

import hmac
import random
import re

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from minipsec.crypto import cbc, ccm
from minipsec.crypto.cbc import CBC
from tools.devgateway.crypto import SkCbc

from host_tests.kex import cases

AAD = bytes(range(100, 132))  # IKE header and SK header
FRAGMENT_AAD = bytes(range(100, 136))  # IKE header and SKF header
MAC_KEY = bytes(range(50, 82))

key_sizes = pytest.mark.parametrize("key", [bytes(range(16)), bytes(range(32))], ids=[128, 256])


def counter(n):
    return n.to_bytes(8, "big")


def openssl_seal(key, aad, iv, padded):
    """IV | ciphertext | ICV of a text whose padding stands already."""
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    body = iv + encryptor.update(padded) + encryptor.finalize()
    return body + hmac.digest(MAC_KEY, aad + body, "sha256")[:16]


def openssl_block(key, block):
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


@key_sizes
@pytest.mark.parametrize("aad", [AAD, FRAGMENT_AAD], ids=["SK", "SKF"])
def test_sealed_octets_are_openssls(key, aad):
    rng = random.Random(len(key))
    for n in [*range(50), 255, 256, 1000, 1219]:
        text = rng.randbytes(n)
        number = counter(rng.randrange(2**64))
        iv = openssl_block(key, bytes(8) + number)
        pad = 15 - n % 16
        sealed = CBC(key + MAC_KEY, 16).seal(aad, number, text)
        assert sealed == openssl_seal(key, aad, iv, text + bytes(pad) + bytes((pad,)))


@key_sizes
def test_round_trip_and_size(key):
    tx, rx = CBC(key + MAC_KEY, 16), CBC(key + MAC_KEY, 16)
    for n in range(300):
        text = bytes(i & 255 for i in range(n))
        sealed = tx.seal(AAD, counter(n), text)
        assert len(sealed) == tx.size(n)
        assert rx.open(AAD, sealed) == text
        assert rx.open(memoryview(AAD), memoryview(bytes(sealed))) == text


@key_sizes
def test_the_development_gateway_reads_and_is_read(key):
    ours, theirs = CBC(key + MAC_KEY, 16), SkCbc(key, MAC_KEY)
    rng = random.Random(8)
    for n in (0, 1, 15, 16, 17, 400):
        text = rng.randbytes(n)
        assert theirs.open(AAD, bytes(ours.seal(AAD, counter(n), text))) == text
        sealed = theirs.seal(FRAGMENT_AAD, text, rng.randbytes)
        assert ours.open(FRAGMENT_AAD, sealed) == text
        assert len(sealed) == ours.size(n) == theirs.sealed_size(n)


def test_scapy_finds_the_icv_right():
    """Over SPI | sequence number | data, as over IKE header | body: the same octets."""
    from scapy.layers import ipsec as scapy

    sealed = bytes(CBC(bytes(16) + MAC_KEY, 16).seal(AAD, counter(1), b"text"))
    algorithm = scapy.AUTH_ALGOS["SHA2-256-128"]
    assert algorithm.icv_size == CBC.icv
    packet = scapy.ESP(AAD + sealed)
    algorithm.verify(packet, MAC_KEY)
    sealed = sealed[:20] + bytes((sealed[20] ^ 1,)) + sealed[21:]
    with pytest.raises(scapy.IPSecIntegrityError):
        algorithm.verify(scapy.ESP(AAD + sealed), MAC_KEY)


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("kind", ["MMT", "GFSbox", "VarKey", "VarTxt"])
def test_nist_ciphertexts_decrypt(kind, bits):
    """The last octet of each text is taken for the Pad Length, which is the only change."""
    path = cases.CRYPTOGRAPHY / f"ciphers/AES/CBC/CBC{kind}{bits}.rsp"
    found = re.findall(
        r"KEY = (\w+)\s+IV = (\w+)\s+PLAINTEXT = (\w+)\s+CIPHERTEXT = (\w+)", path.read_text()
    )
    assert found
    for digits in found:
        key, iv, text, sealed = map(bytes.fromhex, digits)
        icv = hmac.digest(MAC_KEY, AAD + iv + sealed, "sha256")[:16]
        left = len(text) - 1 - text[-1]
        opened = CBC(key + MAC_KEY, 16).open(AAD, iv + sealed + icv)
        assert opened == (text[:left] if left >= 0 else None)


@pytest.mark.item("MIN-41")
def test_the_least_padding_is_sent():
    for n in range(64):
        blocks, rest = divmod(CBC(bytes(16) + MAC_KEY, 16).size(n) - 32, 16)
        assert rest == 0 and 0 <= 16 * blocks - n - 1 < 16


@pytest.mark.item("MIN-41")
def test_any_padding_that_fits_is_taken_whatever_it_holds():
    key = bytes(16)
    rng = random.Random(9)
    rx = CBC(key + MAC_KEY, 16)
    for pad in range(256):
        for n in {-pad - 1 & 15, (-pad - 1 & 15) + 32}:
            text = rng.randbytes(n)
            padded = text + rng.randbytes(pad) + bytes((pad,))
            body = openssl_seal(key, AAD, rng.randbytes(16), padded)
            assert rx.open(AAD, body) == text


@pytest.mark.item("MIN-41")
def test_a_pad_length_beyond_the_text_is_refused():
    key = bytes(16)
    for blocks in (1, 2, 5):
        size = 16 * blocks
        for pad in range(size, 256):
            padded = bytes(size - 1) + bytes((pad,))
            assert (
                CBC(key + MAC_KEY, 16).open(AAD, openssl_seal(key, AAD, bytes(16), padded)) is None
            )
        padded = bytes(size - 1) + bytes((size - 1,))
        assert CBC(key + MAC_KEY, 16).open(AAD, openssl_seal(key, AAD, bytes(16), padded)) == b""


@key_sizes
def test_every_changed_bit_is_noticed(key):
    sealed = CBC(key + MAC_KEY, 16).seal(AAD, counter(7), b"thirty-two octets and a few more")
    rx = CBC(key + MAC_KEY, 16)
    whole = AAD + sealed
    for bit in range(8 * len(whole)):
        octets = bytearray(whole)
        octets[bit >> 3] ^= 1 << (bit & 7)
        assert rx.open(octets[: len(AAD)], octets[len(AAD) :]) is None
    assert rx.open(AAD, sealed) is not None


def test_every_other_length_is_refused():
    sealed = CBC(bytes(16) + MAC_KEY, 16).seal(AAD, counter(7), bytes(40))
    rx = CBC(bytes(16) + MAC_KEY, 16)
    for n in range(len(sealed)):
        assert rx.open(AAD, sealed[:n]) is None
        assert rx.open(AAD, sealed[n:] if n else sealed + b"\0") is None
    # A right ICV over what is no whole number of blocks, or none at all.
    for n in (0, 1, 15, 17, 31, 47):
        body = bytes(16 + n)
        body += hmac.digest(MAC_KEY, AAD + body, "sha256")[:16]
        assert rx.open(AAD, body) is None


def test_nothing_is_decrypted_before_the_icv_is_right(monkeypatch):
    sealed = CBC(bytes(16) + MAC_KEY, 16).seal(AAD, counter(7), bytes(40))
    sealed[-1] ^= 1

    def aes(*arguments):
        raise AssertionError("decrypted")

    monkeypatch.setattr(cbc, "aes", aes)
    assert CBC(bytes(16) + MAC_KEY, 16).open(AAD, sealed) is None
    sealed[-1] ^= 1
    with pytest.raises(AssertionError, match="decrypted"):
        CBC(bytes(16) + MAC_KEY, 16).open(AAD, sealed)


def test_the_icv_is_compared_by_the_function_that_looks_at_every_octet(monkeypatch):
    seen = []
    monkeypatch.setattr(cbc, "equal", lambda a, b: seen.append((len(a), len(b))) or True)
    CBC(bytes(16) + MAC_KEY, 16).open(AAD, bytes(48))
    assert seen == [(16, 16)]


@key_sizes
def test_the_iv_is_the_counters_block_encrypted(key):
    """NIST SP 800-38A appendix C, the first way: distinct, and unforeseeable without the key."""
    tx = CBC(key + MAC_KEY, 16)
    ivs = set()
    for n in [*range(200), 2**32, 2**64 - 1]:
        iv = bytes(tx.seal(AAD, counter(n), b"the same text")[:16])
        assert iv == openssl_block(key, bytes(8) + counter(n))
        ivs.add(iv)
    assert len(ivs) == 202


def test_the_same_text_never_gives_the_same_ciphertext():
    tx = CBC(bytes(16) + MAC_KEY, 16)
    blocks = set()
    for n in range(100):
        sealed = bytes(tx.seal(AAD, counter(n), bytes(47)))
        blocks.update(sealed[at : at + 16] for at in range(0, len(sealed) - 16, 16))
    assert len(blocks) == 400


def test_one_key_seals_after_opening_and_opens_after_sealing():
    one = CBC(bytes(16) + MAC_KEY, 16)
    first = one.seal(AAD, counter(1), b"one")
    assert one.open(AAD, first) == b"one"
    again = one.seal(AAD, counter(1), b"one")
    assert again == first and one.open(AAD, first) == b"one"


def test_what_is_sealed_is_left_alone():
    text = bytearray(b"text")
    CBC(bytes(16) + MAC_KEY, 16).seal(AAD, counter(1), text)
    assert text == b"text"
    sealed = CBC(bytes(16) + MAC_KEY, 16).seal(AAD, counter(1), text)
    copy = bytes(sealed)
    CBC(bytes(16) + MAC_KEY, 16).open(AAD, sealed)
    assert sealed == copy


def test_it_takes_the_place_of_ccm():
    """The same calls with the same kinds of result."""
    for cipher in (CBC(bytes(16) + MAC_KEY, 16), ccm.CCM(bytes(19), 16)):
        sealed = cipher.seal(AAD, counter(1), b"text")
        assert isinstance(sealed, bytearray)
        assert len(sealed) == cipher.size(4)
        assert cipher.open(AAD, memoryview(sealed)) == b"text"
        assert cipher.icv == 16
