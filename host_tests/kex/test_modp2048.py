"""MODP-2048 (RFC 3526): the prime, the values that are refused, the exponent."""

import math
import random

import pytest
from minipsec.handshake import intermediate
from minipsec.handshake.sa_init import Handshake
from minipsec.ike.sa import IkeSa
from minipsec.kex import groups, methods

from tools.dev.peers.node import Rand, profile
from host_tests.kex import cases
from host_tests.kex.cases import MODP2048, half

PRIME = int.from_bytes(groups._PRIME, "big")


def test_the_prime_is_rfc_3526s():
    assert PRIME == cases.rfc3526_prime()


def test_the_prime_is_what_its_formula_gives():
    """2^2048 - 2^1984 - 1 + 2^64 * (floor(2^1918 * pi) + 124476), pi by Newton's arcsine of 1/2."""
    term = pi = 3 << 1918 + 64
    k = 1
    while term:
        term = term * (2 * k - 1) ** 2 // (8 * k * (2 * k + 1))
        pi += term
        k += 1
    assert PRIME == 2**2048 - 2**1984 - 1 + ((pi >> 64) + 124476 << 64)


@pytest.mark.parametrize("number", [PRIME, PRIME >> 1], ids=["p", "q"])
def test_the_prime_is_safe(number):
    rng = random.Random(6)
    for _ in range(8):
        base = rng.randrange(2, number - 1)
        odd, twos = number - 1, 0
        while not odd & 1:
            odd, twos = odd >> 1, twos + 1
        roots = [pow(base, odd << i, number) for i in range(twos)]
        assert roots[0] == 1 or number - 1 in roots


def test_2_generates_the_subgroup_of_prime_order():
    assert pow(2, PRIME >> 1, PRIME) == 1


@pytest.mark.item("MIN-19")
@pytest.mark.parametrize(
    "peer", [pytest.param(peer, id=name) for name, peer in cases.refused_modp()]
)
def test_values_outside_2_to_p_minus_2_are_refused(peer):
    assert half(MODP2048, bytes(range(32))).shared(peer) is None


def test_the_values_next_to_the_refused_ones_are_taken():
    seed = bytes(range(32))
    k = int.from_bytes(seed, "big") | 1 << 255
    for value in (2, 3, PRIME - 3, PRIME - 2):
        secret = half(MODP2048, seed).shared(value.to_bytes(256, "big"))
        assert int.from_bytes(secret, "big") == pow(value, k, PRIME)


def test_the_exponent_has_256_bits_whatever_is_drawn():
    """At least twice the 112 bits of strength, and as many steps for every key."""
    for seed in (bytes(32), b"\x01" * 32, b"\x7f" * 32, b"\xff" * 32):
        ours = half(MODP2048, seed)
        k = int.from_bytes(ours._key, "big")
        assert k.bit_length() == 256
        assert k == int.from_bytes(seed, "big") | 1 << 255
        assert ours.public == pow(2, k, PRIME).to_bytes(256, "big")


@pytest.mark.long
def test_windows_come_to_what_pow_comes_to():
    rng = random.Random(7)
    for base in (2, 3, PRIME - 2, 2**2047 + 1, *(rng.randrange(PRIME) for _ in range(6))):
        for key in (b"\x80" + bytes(31), b"\x0f" * 32, b"\xf0" * 32, rng.randbytes(32)):
            power = pow(base, int.from_bytes(key, "big"), PRIME)
            assert groups._power(base, key, None) == power.to_bytes(256, "big")


def test_the_secret_is_never_short_of_entropy_by_a_small_subgroup():
    """p - 1 = 2q: past 1 and p - 1 every value has order q or 2q, so no secret is 1 or p - 1."""
    assert math.gcd(PRIME - 1, 2**2048) == 2
    ours = half(MODP2048, bytes(range(32)))
    for value in (2, 5, PRIME - 2, PRIME - 5):
        secret = int.from_bytes(ours.shared(value.to_bytes(256, "big")), "big")
        assert 1 < secret < PRIME - 1


def test_a_watchdog_can_be_fed_on_the_way():
    """Once for each octet of the exponent: 32 times in what takes an RP2040 three seconds."""
    fed = []
    ours = half(MODP2048, bytes(range(32)), lambda: fed.append(1))
    assert len(fed) == 32
    ours.shared(ours.public)
    assert len(fed) == 64


@pytest.mark.parametrize(("ident", "size"), [(31, 32), (19, 40), (14, 32)])
def test_every_method_takes_what_feeds_a_watchdog(ident, size):
    plain, fed = half(ident, b"\7" * size), half(ident, b"\7" * size, lambda: None)
    assert len(plain.public) == len(fed.public)


def test_an_ike_sa_hands_it_to_each_of_its_key_exchanges(monkeypatch):
    """To the one of IKE_SA_INIT, and to that of an IKE_INTERMEDIATE."""
    steps = []

    class Method:
        public = b""

        def __init__(self, rand, step):
            steps.append(step)

    monkeypatch.setattr(methods, "method", lambda ident: Method)
    step = object()
    ike = IkeSa(profile(), Rand(b"step"), step)
    handshake = Handshake(ike)
    ike.start(0, handshake)
    assert steps == [step]
    monkeypatch.setattr(intermediate, "method", lambda ident: Method)
    handshake.sk_pi = bytes(32)
    monkeypatch.setattr(ike, "ask", lambda *_: None)
    intermediate.Intermediate(handshake, [MODP2048], False).start(0)
    assert steps == [step, step]
