"""thumb's arithmetic modulo 2^255 - 19: an RP2040's instructions, emulated, against integers."""

import itertools
import random

import pytest

from tools.dev.bench import cortex
from tools.dev.bench.asm import ADD, AGAIN, END, MULTIPLY, SCALE, SQUARE, SUBTRACT, SWAP

pytestmark = pytest.mark.long

P = 2**255 - 19
TOP = 2**256 - 1
COUNT = 10_000

EDGES = [0, 1, 2, 18, 19, 20, 37, 38, 39, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**128 - 1, 2**128]
EDGES += [2**255 - 1, 2**255, *range(P - 2, P + 3), *range(2 * P - 2, 2 * P + 3)]
EDGES += [TOP, TOP - 1, TOP - 36, TOP - 37, TOP - 38, TOP - 75, TOP - 76, TOP - 77]
# All digits of 16 or 32 bits at their ends, in turns.
EDGES += [TOP // 0xFFFF * digit for digit in (0x8000, 0x7FFF, 1)]
EDGES += [TOP // (2**32 - 1) * word for word in (0xFFFF, 0xFFFF0000, 0x80000000, 1)]
EDGES += [TOP // (2**64 - 1) * (2**32 - 1), TOP // (2**64 - 1) * (2**32 - 1) << 32 & TOP]

# What one step makes of a and b.
STEPS = {
    MULTIPLY: lambda a, b: a * b,
    SQUARE: lambda a, b: a * a,
    ADD: lambda a, b: a + b,
    SUBTRACT: lambda a, b: a - b,
    SCALE: lambda a, b: 121665 * a,
}


@pytest.fixture(scope="module")
def field():
    return cortex.leaves("kex/x25519_thumb")["field"]


@pytest.fixture(scope="module")
def counted():
    return cortex.leaves("kex/x25519_thumb", count=True)["field"]


def work(**cells):
    octets = bytearray(332)
    for name, value in cells.items():
        at = 32 * int(name[1:])
        octets[at : at + 32] = value.to_bytes(32, "little")
    return octets


def cell(octets, at):
    return int.from_bytes(octets[32 * at : 32 * at + 32], "little")


def program(*steps):
    return bytes(itertools.chain(*steps, (END, 0, 0, 0)))


# All five of a in cell 2 and b in cell 3, each result in a cell of its own.
ALL = program(*((step, 4 + i, 2, 1 if step == SQUARE else 3) for i, step in enumerate(STEPS)))


def check(field, a, b):
    octets = work(_2=a, _3=b)
    field(octets, ALL)
    for i, (step, wanted) in enumerate(STEPS.items()):
        assert cell(octets, 4 + i) % P == wanted(a, b) % P, (step, hex(a), hex(b))
    assert cell(octets, 2) == a and cell(octets, 3) == b


def test_ten_thousand_random_pairs(field):
    source = random.Random(1)
    for _ in range(COUNT):
        check(field, source.getrandbits(256), source.getrandbits(256))


def test_every_pair_of_edges(field):
    for a in EDGES:
        for b in EDGES:
            check(field, a, b)


def test_numbers_of_few_digits_and_of_long_carries(field):
    source = random.Random(2)
    for _ in range(2000):
        a, b = (
            source.choice((-1, 1)) * (source.getrandbits(16) << source.randrange(256)) & TOP
            for _ in range(2)
        )
        check(field, a, b)


def test_sums_and_differences_around_what_is_carried_out(field):
    """a + b and a - b next to 0, 2^256 and 2^256 + 38, where the second carry comes from."""
    source = random.Random(3)
    for _ in range(60):
        a = source.getrandbits(256)
        for near in range(-80, 81, 20):
            for more in (-2, -1, 0, 1, 2):
                check(field, a, (2**256 - a + near + more) & TOP)
                check(field, a, (a + near + more) & TOP)


@pytest.mark.parametrize("step", STEPS)
def test_the_result_may_replace_an_operand(field, step):
    source = random.Random(step)
    for a, b in [(source.getrandbits(256), source.getrandbits(256)) for _ in range(50)]:
        for out, first, second, values in (
            (2, 2, 3, (a, b)), (3, 2, 3, (a, b)), (2, 2, 2, (a, a)), (4, 2, 2, (a, a)),
        ):  # fmt: skip
            octets = work(_2=a, _3=b)
            field(octets, program((step, out, first, 1 if step == SQUARE else second)))
            assert cell(octets, out) % P == STEPS[step](*values) % P


def test_squaring_many_times(field):
    source = random.Random(4)
    for n in (1, 2, 3, 5, 10, 100, 250):
        for a in [source.getrandbits(256), *source.sample(EDGES, 4)]:
            octets = work(_2=a)
            field(octets, program((SQUARE, 3, 2, n), (SQUARE, 4, 2, 1)))
            assert cell(octets, 3) % P == pow(a, 2**n, P)
            assert cell(octets, 4) % P == a * a % P  # the count starts anew


def test_every_bit_of_the_key_swaps_when_it_is_not_as_the_one_before(field):
    source = random.Random(5)
    key = source.getrandbits(256)
    values = [source.getrandbits(256) for _ in range(4)]
    for bit in range(256):
        for before in (0, 1):
            octets = work(**{f"_{2 + i}": value for i, value in enumerate(values)}, _9=key)
            octets[320:324] = bit.to_bytes(4, "little")
            octets[324:328] = before.to_bytes(4, "little")
            field(octets, program((SWAP, 2, 10, 9)))
            now = key >> bit & 1
            swapped = values[2:] + values[:2] if now != before else values
            assert [cell(octets, 2 + i) for i in range(4)] == swapped
            assert octets[324:328] == now.to_bytes(4, "little") and cell(octets, 9) == key


def test_again_goes_back_20_steps_until_bit_0_was_there(field):
    twenty = [(ADD, 3, 3, 2)] + [(ADD, 4, 4, 2)] * 18 + [(AGAIN, 0, 10, 0)]
    for bits in (1, 2, 255):
        octets = work(_2=1)
        octets[320:324] = (bits - 1).to_bytes(4, "little")
        field(octets, program(*twenty))
        assert (cell(octets, 3), cell(octets, 4)) == (bits, 18 * bits)


@pytest.mark.parametrize("step", [*STEPS, SWAP])
def test_each_step_takes_the_same_instructions_whatever_the_numbers_are(counted, step):
    source = random.Random(6)
    taken = set()
    for a, b in [*zip(EDGES, reversed(EDGES)), *((source.getrandbits(256), 5) for _ in range(20))]:
        octets = work(_2=a, _3=b, _4=b, _5=a, _9=a)
        octets[320:328] = bytes((source.randrange(255), 0, 0, 0, source.randrange(2), 0, 0, 0))
        operands = (2, 10, 9) if step == SWAP else (6, 2, 1 if step == SQUARE else 3)
        counted(octets, program((step, *operands)))
        taken.add((counted.instructions, counted.cycles))
    assert len(taken) == 1


def test_all_accesses_are_aligned():
    """Or an M0+ stops; a bytearray's octets begin at a multiple of 16."""
    strict = cortex.leaves("kex/x25519_thumb", strict=True)["field"]
    check(strict, TOP, 3)
    with pytest.raises(RuntimeError, match="HardFault"):
        strict(memoryview(work(_2=1, _3=2))[2:], ALL)
