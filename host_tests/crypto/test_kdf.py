"""HMAC, prf+ and the order in which keys are cut. Published figures are in oracles/."""

from hashlib import sha256

import pytest

from host_tests.checklist import item
from minipsec.crypto import kdf
from minipsec.handshake.auth_method import chosen


def hmac(key, text):
    """RFC 2104, word for word."""
    if len(key) > 64:
        key = sha256(key).digest()
    key = key + bytes(64 - len(key))
    inner = sha256(bytes(k ^ 0x36 for k in key) + text).digest()
    return sha256(bytes(k ^ 0x5C for k in key) + inner).digest()


def test_hmac_at_every_edge_of_the_key():
    for size in (0, 1, 31, 32, 63, 64, 65, 127, 128, 200):
        key = bytes(i & 255 for i in range(size))
        for text in (b"", b"a", bytes(200)):
            assert kdf.prf(key, text) == hmac(key, text), size


def test_parts_are_joined_and_a_key_serves_many_times():
    mac = kdf.HMAC(b"key")
    assert mac.digest(b"a", b"", b"bc") == mac.digest(b"abc") == hmac(b"key", b"abc")
    assert mac.digest() == hmac(b"key", b"")


@item("MIN-20")
def test_prf_plus_is_a_chain_of_prfs():
    one = hmac(b"k", b"seed\1")
    two = hmac(b"k", one + b"seed\2")
    three = hmac(b"k", two + b"seed\3")
    for size in (0, 1, 32, 33, 64, 65, 96):
        assert kdf.prf_plus(b"k", b"seed", size) == (one + two + three)[:size], size


def test_prf_plus_reaches_its_last_block():
    long = kdf.prf_plus(b"k", b"seed", 255 * 32)
    assert len(long) == 255 * 32
    assert long[-32:] == hmac(b"k", long[-64:-32] + b"seed\xff")


@item("MIN-20")
def test_ike_keys_are_cut_in_the_order_of_the_rfc():
    octets = kdf.prf_plus(b"skeyseed", b"nonces" + b"spis", 3 * 32 + 2 * 19)
    sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr = kdf.sk_keys(
        b"skeyseed", b"nonces", b"spis", 19, 0
    )
    assert sk_ai == sk_ar == b""
    assert sk_d + sk_ei + sk_er + sk_pi + sk_pr == octets
    assert [len(k) for k in (sk_d, sk_ei, sk_er, sk_pi, sk_pr)] == [32, 19, 19, 32, 32]
    keys = kdf.sk_keys(b"skeyseed", b"nonces", b"spis", 16, 32)
    assert [len(key) for key in keys] == [32, 32, 32, 16, 16, 32, 32]
    assert b"".join(keys) == kdf.prf_plus(b"skeyseed", b"nonces" + b"spis", 192)


@item("MIN-32")
def test_child_keys_are_the_initiators_first():
    out, back = kdf.child_keys(b"d" * 32, b"n_i" + b"n_r", 19)
    assert out + back == kdf.prf_plus(b"d" * 32, b"n_in_r", 38) and len(out) == 19


def test_slices_cut_consecutively():
    assert kdf.slices(b"abcdefg", 1, 0, 3, 2) == [b"a", b"", b"bcd", b"ef"]


@item("MIN-26")
@pytest.mark.parametrize("form", ["psk", "psk_pad"])
def test_auth_of_a_shared_secret_is_a_prf_of_what_it_covers_under_the_padded_secret(form):
    pad = hmac(b"secret", b"Key Pad for IKEv2")
    method = chosen({form: {"psk": b"secret", "psk_pad": pad}[form]})
    assert method.method == 2 and method.announce == method.payloads == ()
    data = method.sign(b"message", b"nonce", b"", b"id")
    assert data == hmac(pad, b"messagenonceid")
    assert method.verify(data, b"messagenonce", b"id")
    for wrong in (b"", data[:-1], data + b"\0", data[:-1] + bytes((data[-1] ^ 1,))):
        assert not method.verify(wrong, b"messagenonce", b"id")
    assert not method.verify(data, b"messagenonce", b"Id")
