"""The viper functions of octets, keccak and mlkem as an RP2040 runs them, against Python."""

import hashlib
import importlib.util
import inspect
import pathlib
import random
import sys
from types import SimpleNamespace

import pytest
from kyber_py.ml_kem import ML_KEM_512, ML_KEM_768, ML_KEM_1024
from minipsec.crypto import octets as loops

from tools.dev.bench import cortex

pytestmark = pytest.mark.long

COUNT = 10_000


@pytest.fixture(scope="module")
def fast():
    return cortex.leaves("crypto/octets_viper")


@pytest.fixture(scope="module")
def keccak(fast):
    loops = {"copy": fast["copy"], "xor": fast["xor"]}
    return cortex.whole("kex/keccak", cortex.leaves("kex/keccak"), **loops)


@pytest.fixture(scope="module")
def mlkem(keccak):
    return cortex.whole(
        "kex/mlkem",
        cortex.leaves("kex/mlkem"),
        Sponge=keccak.Sponge,
        copy=keccak.copy,
        xor=keccak.xor,
    )


def places(source, count):
    """Arguments of copy, and of xor but for the last: any alignment, any size."""
    for _ in range(count):
        n = source.choice((0, 1, 3, 4, 8, 12, 16, 31, 64, 65))
        step = source.choice((1, 4))
        at, x_at = (source.randrange(0, 20, step) for _ in range(2))
        end = source.choice((0, 0, 1, at + n, at + n + source.randrange(1, 16)))
        yield bytearray(source.randbytes(104)), at, bytearray(source.randbytes(104)), x_at, n, end


def test_xor_and_copy_do_what_their_plain_sisters_do(fast):
    for out, *rest, end in places(random.Random(1), COUNT):
        same = bytearray(out)
        loops.xor(same, *rest)
        fast["xor"](out, *rest)
        assert out == same
        loops.copy(same, *rest, end)
        fast["copy"](out, *rest, end)
        assert out == same


def test_xor_and_copy_in_place(fast):
    for buf, at, _, _, n, end in places(random.Random(2), 1000):
        same = bytearray(buf)
        loops.copy(same, at, same, at, n, end)
        fast["copy"](buf, at, buf, at, n, end)
        assert buf == same
        loops.xor(same, at, same, at, n)
        fast["xor"](buf, at, buf, at, n)
        assert buf == same and buf[at : at + n] == bytes(n)


def test_no_word_is_taken_from_an_odd_address():
    """An M0+ would stop: nothing but octets where a buffer, a place or a size is odd."""
    strict = cortex.leaves("crypto/octets_viper", strict=True)
    source = random.Random(3)
    for out, at, x, x_at, n, end in places(source, 100):
        for skip in (0, 1, 2, 3):
            for here in (memoryview(out)[skip:], at, x), (out, at, memoryview(x)[skip:]):
                strict["xor"](*here, x_at, n)
                strict["copy"](*here, x_at, n, end)
    for skip in range(4):
        octets = memoryview(bytearray(source.randbytes(40)))[skip:]
        strict["total"](octets, 33)
        strict["spread"](bytearray(64), octets[:], octets, 64)
    with pytest.raises(RuntimeError, match="HardFault"):
        strict["spread"](memoryview(bytearray(66))[2:], octets, octets, 64)


def test_spread(fast):
    source = random.Random(4)
    for _ in range(COUNT // 10):
        size = 16 * source.randrange(1, 20)
        blocks, head, iv = (bytearray(source.randbytes(n)) for n in (size, 4, 8))
        same = bytearray(blocks)
        loops.spread(same, head, iv, size)
        fast["spread"](blocks, head, iv, size)
        assert blocks == same


def test_total(fast):
    source = random.Random(5)
    for i in range(COUNT // 2):
        octets = source.randbytes(source.randrange(64)) if i & 7 else b"\xff" * (i >> 2)
        found = fast["total"](octets, len(octets))
        assert found % 0xFFFF == loops.total(octets, len(octets)) % 0xFFFF
        assert (found == 0) == (not any(octets))


def test_ten_thousand_permutations_of_keccak(keccak):
    """One after the other: the output of SHAKE128."""
    rate = 168
    sponge = keccak.Sponge()
    sponge.start(0xA81F)
    sponge.absorb(b"minipsec")
    wanted = hashlib.shake_128(b"minipsec").digest(rate * COUNT)
    out = bytearray(rate)
    for at in range(0, len(wanted), rate):
        sponge.squeeze(out, 0, rate)
        assert out == wanted[at : at + rate]


def test_keccak_of_every_edge_of_a_block(keccak):
    for kind, name in ((0x8806, "sha3_256"), (0x4806, "sha3_512")):
        rate = kind >> 8
        for size in (0, 1, 3, 4, rate - 1, rate, rate + 1, 2 * rate):
            for octets in (bytes(size), b"\xff" * size, bytes(i & 255 for i in range(size))):
                wanted = hashlib.new(name, octets).digest()
                sponge = keccak.Sponge()
                sponge.start(kind)
                sponge.absorb(octets)
                out = bytearray(len(wanted))
                sponge.squeeze(out, 0, len(out))
                assert out == wanted


@pytest.fixture(scope="module")
def arithmetic(keccak, mlkem):
    """What host_tests/kex has for the unix port, on the emulated functions."""
    path = pathlib.Path(__file__).parents[1] / "kex/mlkem_arithmetic.py"
    spec = importlib.util.spec_from_file_location("board_arithmetic", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        modules = SimpleNamespace(keccak=keccak, mlkem=mlkem)
        patch.setitem(sys.modules, "minipsec.kex", modules)
        spec.loader.exec_module(module)
    return module


def test_every_bound_of_ml_kems_arithmetic(arithmetic):
    """All values of 16 bits, all coefficients at each width, transforms and products at edges."""
    tests = [test for name, test in inspect.getmembers(arithmetic) if name.startswith("test_")]
    assert len(tests) > 10
    for test in tests:
        test()


def test_random_polynomials_there_and_back(arithmetic, mlkem):
    """40 polynomials are ten thousand coefficients; twice that for products."""
    source = random.Random(6)
    q = arithmetic.Q
    for _ in range(COUNT // 256 + 1):
        f, g = ([source.randrange(q) for _ in range(256)] for _ in range(2))
        p, o = arithmetic.words(f), arithmetic.words(g)
        mlkem._ntt(p, 0, arithmetic.ZETA)
        assert [x % q for x in p] == arithmetic.forward(f)
        mlkem._combine(p, 0, arithmetic.words([0] * 256), arithmetic.TWO)
        mlkem._ntt(o, 0, arithmetic.ZETA)
        product = arithmetic.words([0] * 256)
        mlkem._multiply(p, 0, o, product, arithmetic.ZETA, 0)
        mlkem._intt(product, 0, arithmetic.ZETA)
        mlkem._combine(product, 0, arithmetic.words([0] * 256), arithmetic.INVERSE)
        wanted = [0] * 256
        for i, x in enumerate(f):
            for j, y in enumerate(g):
                at, sign = (i + j) & 255, -1 if i + j > 255 else 1
                wanted[at] += sign * x * y
        # p and o are P of the transforms: what is left over is a constant.
        scale = next(a * pow(b, -1, q) for a, b in zip(product, wanted) if b % q) % q
        assert [x % q for x in product] == [scale * x % q for x in wanted]


@pytest.mark.parametrize(
    ("number", "other"), [(35, ML_KEM_512), (36, ML_KEM_768), (37, ML_KEM_1024)]
)
def test_exchanges_come_to_the_secrets_of_kyber_py(mlkem, number, other):
    source = random.Random(number)
    method = mlkem.method(number)
    for _ in range(2):
        seed, m = source.randbytes(64), source.randbytes(32)
        ek, dk = other.key_derive(seed)
        pair = method(lambda n: seed)
        assert pair.public == ek
        secret, c = other._encaps_internal(ek, m)
        assert method.encaps(ek, lambda n: m) == (c, secret)
        assert pair.shared(c) == secret
        bad = bytearray(c)
        bad[source.randrange(len(c))] ^= 1 << source.randrange(8)
        pair = method(lambda n: seed)
        assert pair.shared(bytes(bad)) == other.decaps(dk, bytes(bad))
