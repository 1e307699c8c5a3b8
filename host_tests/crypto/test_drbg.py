"""HMAC_DRBG against NIST's figures and against OpenSSL, and the health tests' bounds."""

import hashlib
import math
import random

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from minipsec.crypto.drbg import _RUN, _SAME, _WINDOW, DRBG, healthy

from host_tests.crypto.drbg_vectors import VECTORS, second_output

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector[0][:8])
def test_nist_figures(vector):
    assert second_output(DRBG, vector) == vector[-1]


def test_nist_figures_on_the_unix_port(micropython, root):
    program = (
        "from minipsec.crypto.drbg import DRBG\n"
        "from host_tests.crypto.drbg_vectors import VECTORS, second_output\n"
        "print([second_output(DRBG, vector) == vector[-1] for vector in VECTORS])\n"
    )
    done = micropython(program, path=[root])
    assert done.stdout.strip() == str([True] * len(VECTORS))


@pytest.mark.parametrize("seed", range(12))
def test_the_nonces_of_deterministic_ecdsa_come_out_of_it(seed):
    """RFC 6979 §3.2 is HMAC_DRBG with the key and the hash as its seed; OpenSSL has its own."""
    text = b"reading %d" % seed
    x = random.Random(seed).randrange(1, P256_ORDER)
    key = ec.derive_private_key(x, ec.SECP256R1())
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    r, s = utils.decode_dss_signature(key.sign(text, algorithm))
    h = int.from_bytes(hashlib.sha256(text).digest(), "big") % P256_ORDER
    k = (h + r * x) * pow(s, -1, P256_ORDER) % P256_ORDER
    drbg = DRBG(x.to_bytes(32, "big") + h.to_bytes(32, "big"))
    assert int.from_bytes(drbg.generate(32), "big") in (k, P256_ORDER - k)


def test_the_same_seed_gives_the_same_stream_and_one_other_bit_another():
    streams = {DRBG(bytes([i]) * 32).generate(48) for i in (1, 1, 2, 3)}
    assert len(streams) == 3


def test_a_request_takes_as_many_octets_as_it_says():
    for n in (0, 1, 2, 31, 32, 33, 64, 65, 1000):
        assert len(DRBG(b"seed").generate(n)) == n


def test_additional_input_changes_this_request_and_the_later_ones():
    plain, stirred = DRBG(b"seed"), DRBG(b"seed")
    assert plain.generate(32) != stirred.generate(32, b"more")
    assert plain.generate(32) != stirred.generate(32)


def binomial_tail(n, p, least):
    """P(X >= least) of a binomial distribution."""
    return sum(
        math.exp(
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(p)
            + (n - k) * math.log(1 - p)
        )
        for k in range(least, n + 1)
    )


def test_the_bounds_of_the_health_tests_are_those_of_sp_800_90b():
    entropy, alpha = 0.25, 2**-30
    assert _WINDOW == 1024
    assert math.ceil(30 / entropy) + 1 == _RUN
    # The cutoff is one more than the smallest count whose cumulative probability is 1 - alpha.
    assert binomial_tail(1024, 2**-entropy, _SAME) <= alpha
    assert binomial_tail(1024, 2**-entropy, _SAME - 1) > alpha


def test_fair_bits_are_healthy():
    for seed in range(20):
        assert healthy(random.Random(seed).randbytes(2048))


@pytest.mark.parametrize("value", [0, 1, 0x80, 0xFF])
def test_a_stuck_source_is_not(value):
    assert not healthy(bytes([value]) * 2048)


@pytest.mark.parametrize("start", [0, 4, 960, 1900])
def test_a_source_that_sticks_for_121_samples_is_not(start):
    samples = bytearray(i & 1 for i in range(2048))
    samples[start : start + 121] = bytes(120) + b"\1"
    assert healthy(samples)
    samples[start : start + 122] = bytes(121) + b"\1"
    assert not healthy(samples)


def test_a_source_with_928_equal_samples_in_a_window_is_not():
    for extra, verdict in ((0, True), (1, False)):
        window = bytearray(1024)
        changes = 1024 - 927 - extra
        for i in range(changes):
            window[1023 - i * 10 if i < changes else 0] = 1
        assert window.count(0) == 927 + extra
        assert healthy(window) is verdict


def test_fewer_samples_than_a_window_tell_nothing():
    assert not healthy(b"")
    assert not healthy(random.Random(1).randbytes(1023))
    assert healthy(random.Random(1).randbytes(1024))
