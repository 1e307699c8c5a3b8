"""A short share of `make fuzz`: what real sessions brought, bent."""

import random

import pytest

from tools.dev import fuzzing

pytestmark = pytest.mark.long

EXAMPLES = {"stranger": 1500, "plaintext": 1500, "esp": 4000, "turns": 600, "codec": 8000}
SEEDS = list(fuzzing.corpus())


@pytest.fixture(scope="module", autouse=True)
def one_set_of_sessions():
    fuzzing.steps()
    yield
    fuzzing.steps().restore()
    fuzzing._steps = None
    fuzzing._made.clear()


@pytest.mark.parametrize("kind", range(len(fuzzing.KINDS)), ids=list(EXAMPLES))
def test_no_exception_no_unauthenticated_change_and_bounded_allocations(kind):
    name = fuzzing.KINDS[kind].__name__
    rng = random.Random(f"{name} 1")
    seeds = [octets for octets in SEEDS if octets[0] == kind]
    for _ in range(EXAMPLES[name]):
        octets = fuzzing.bent(rng, seeds)
        try:
            fuzzing.check(octets)
        except Exception as e:
            raise AssertionError(f"bytes.fromhex('{octets.hex()}')") from e


def test_every_seed_passes():
    for octets in SEEDS:
        fuzzing.check(octets)


def test_the_check_sees_what_it_is_there_for(monkeypatch):
    """Three bugs, put in: each is found by a seed."""
    from minipsec.ike import wire
    from minipsec.crypto.ccm import CCM
    from minipsec.ike.sa import IkeSa

    def crash(*_):
        raise IndexError

    def found():
        fuzzing._made.clear()
        fuzzing.steps()._at.clear()
        try:
            for octets in SEEDS:
                fuzzing.check(octets[:-1])
        except Exception as e:
            return type(e)
        return None

    assert found() is None
    with monkeypatch.context() as broken:
        broken.setattr(wire, "parse_sa", crash)
        assert found() is IndexError
    with monkeypatch.context() as broken:
        # An ICV that is not looked at.
        broken.setattr(CCM, "open_in", lambda self, buf, at, n, iv, aad: True)
        assert found() is not None
    with monkeypatch.context() as broken:
        real = IkeSa._receive
        broken.setattr(IkeSa, "_receive", lambda self, d, now: bytes(10**6) and real(self, d, now))
        assert found() is AssertionError
    fuzzing._made.clear()
    fuzzing.steps()._at.clear()
