"""What holds for every key exchange method, checked against OpenSSL."""

import os

import pytest
from minipsec.kex import methods

from host_tests.kex import cases
from host_tests.kex.cases import METHODS, MODP2048, P256, SIZES, X25519, half


def check(case):
    ours = half(case.ident, case.seed)
    if case.public is not None:
        assert ours.public == case.public
    assert ours.shared(case.peer) == case.shared


@pytest.mark.long
@pytest.mark.parametrize(("ident", "count"), [(X25519, 150), (P256, 80), (MODP2048, 25)])
def test_openssl_comes_to_the_same_secret(ident, count):
    for case in cases.random_cases(ident, count):
        check(case)


@pytest.mark.parametrize(("ident", "count"), [(X25519, 30), (P256, 30), (MODP2048, 8)])
def test_openssl_takes_our_public_value(ident, count):
    for _ in range(count):
        ours = methods.method(ident)(os.urandom)
        public, finish = cases.openssl(ident, os.urandom(cases.seed_size(ident)))
        assert finish(ours.public) == ours.shared(public)


@pytest.mark.parametrize("ident", METHODS)
def test_two_of_ours_agree_and_no_key_comes_twice(ident):
    one, other = methods.method(ident)(os.urandom), methods.method(ident)(os.urandom)
    assert one.public != other.public
    assert one.shared(other.public) == other.shared(one.public)


@pytest.mark.parametrize("ident", METHODS)
def test_lengths_on_the_wire(ident):
    ours = half(ident, bytes(range(cases.seed_size(ident))))
    public, secret = SIZES[ident]
    assert methods.method(ident).size == len(ours.public) == public
    assert len(ours.shared(ours.public)) == secret
    assert isinstance(ours.public, bytes)


@pytest.mark.item("MIN-19")
@pytest.mark.parametrize("ident", METHODS)
def test_a_value_of_any_other_length_is_refused(ident):
    ours = half(ident, bytes(range(cases.seed_size(ident))))
    good = ours.public
    for n in range(len(good) + 40):
        if n != len(good):
            octets = (good + good)[:n]
            assert ours.shared(octets) is None
            # The same number, written longer or shorter.
            assert ours.shared((bytes(40) + good)[-n:] if n else b"") is None
    # Both coordinates of a point still the same, one of them too long.
    assert ours.shared(good[:32] + b"\0" + good[32:]) is None
    assert ours.shared(b"\0" + good) is None
    assert ours.shared(good) is not None


@pytest.mark.item("MIN-19")
@pytest.mark.parametrize("case", list(cases.short_secrets()), ids=lambda case: case.name)
def test_zeros_in_front_of_a_secret_stay(case):
    assert case.shared[0] == 0
    check(case)


@pytest.mark.item("MIN-19")
@pytest.mark.parametrize(
    "case", list(cases.short_publics()), ids=lambda case: f"{case.ident}-{case.name}"
)
def test_zeros_in_front_of_a_public_value_stay(case):
    check(case)


def test_an_unknown_method_is_none():
    for ident in (0, 1, 2, 5, 15, 16, 20, 21, 32, 34, 38, 65535, -1):
        assert methods.method(ident) is None


def test_the_registry_names_what_it_returns():
    assert [methods.method(ident).__name__ for ident in METHODS] == ["X25519", "P256", "MODP2048"]


def test_the_slower_groups_are_loaded_when_one_is_asked_for(micropython):
    done = micropython(
        "import sys\n"
        "from minipsec.kex import methods as dh\n"
        "loaded = lambda: 'minipsec.kex.groups' in sys.modules\n"
        "print(loaded())\n"
        "dh.method(31), dh.method(5)\n"
        "print(loaded())\n"
        "dh.method(19)\n"
        "print(loaded())\n"
    )
    assert done.stdout.split() == ["False", "False", "True"]
