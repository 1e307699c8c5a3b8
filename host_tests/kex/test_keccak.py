"""SHA-3 and SHAKE against hashlib."""

import hashlib
import random

import pytest

# kind -> rate, what hashlib calls it, octets of output (None: as many as one likes)
KINDS = {
    0x8806: (136, hashlib.sha3_256, 32),
    0x4806: (72, hashlib.sha3_512, 64),
    0xA81F: (168, hashlib.shake_128, None),
    0x881F: (136, hashlib.shake_256, None),
}


def expected(kind, size, data):
    _, function, fixed = KINDS[kind]
    return function(data).digest() if fixed else function(data).digest(size)


@pytest.mark.parametrize("kind", KINDS, ids=hex)
def test_every_length_around_the_rate_and_its_multiples(run, kind):
    rate, _, fixed = KINDS[kind]
    source = random.Random(kind)
    cases = []
    for length in [*range(2 * rate + 3), 3 * rate - 1, 3 * rate, 10 * rate + 1]:
        size = fixed or source.randrange(1, 3 * rate)
        cases.append(("digest", kind, size, source.randrange(400), source.randbytes(length)))
    wanted = [[expected(case[1], case[2], case[4])] for case in cases]
    assert run(cases) == wanted


@pytest.mark.parametrize("kind", [0xA81F, 0x881F], ids=hex)
def test_every_length_of_output_in_any_two_parts(run, kind):
    rate = KINDS[kind][0]
    source = random.Random(kind)
    cases = [
        ("digest", kind, size, source.randrange(size + 2), source.randbytes(34))
        for size in [*range(1, 2 * rate + 2), 5 * rate - 1, 5 * rate, 5 * rate + 1]
    ]
    assert run(cases) == [[expected(case[1], case[2], case[4])] for case in cases]


def test_states_with_many_ones_and_zeros(run):
    cases = [
        ("digest", kind, KINDS[kind][2] or 200, 0, bytes([octet]) * length)
        for kind in KINDS
        for octet in (0, 1, 0x55, 0x7F, 0x80, 0xAA, 0xFF)
        for length in (64, 72, 136, 168, 336)
    ]
    assert run(cases) == [[expected(case[1], case[2], case[4])] for case in cases]
