"""The loops of ccm and inner: machine code and plain Python come to the same octets."""

import json
import random

import pytest
from minipsec.crypto import octets as loops

from tools.common import mpy

ARCHITECTURES = ("armv6m", "xtensawin", "rv32imc", "x64")

COMPUTE = """
import json, sys
cases, which = sys.argv[1:]
if which == "plain":
    sys.modules["minipsec.crypto.octets_viper"] = None
from minipsec.crypto import octets as loops; from minipsec.esp import inner
from minipsec.crypto.ccm import CCM

assert hasattr(loops.xor, "__name__") == (which == "plain")  # machine code has no name
with open(cases) as f:
    for line in f:
        kind, *values = [bytearray.fromhex(v) if isinstance(v, str) and v not in KINDS else v
                         for v in json.loads(line)]
        if kind == "apart":
            out, *values = values
            for call in (lambda out: loops.xor(out, *values[:-1])), lambda out: loops.copy(out, *values):
                made = bytearray(out)
                call(made)
                print(made.hex())
        elif kind == "within":
            buf, at, x_at, n, end = values
            loops.xor(buf, at, buf, x_at, n)
            print(buf.hex())
            loops.copy(buf, at, buf, x_at, n, end)
            print(buf.hex())
        elif kind == "spread":
            loops.spread(*values)
            print(values[0].hex())
        elif kind == "sum":
            octets, more = values
            print(inner.checksum(octets, more), inner.checksum(memoryview(octets), more))
        else:
            key, icv, iv, aad, text, at = values
            ccm = CCM(key, icv)
            for _ in range(2):
                buf = bytearray(at) + text + bytes(icv)
                ccm.seal_into(buf, at, len(text), iv, aad)
            print(buf.hex())
            assert ccm.open_in(buf, at, len(text), iv, aad) and buf[at : at + len(text)] == text
""".replace("KINDS", repr({"apart", "within", "spread", "sum", "ccm"}))


def cases(rng, count):
    for _ in range(count):
        n = rng.choice((0, 1, 3, 4, 8, 16, 31, 60, 64, 128, 1200))
        aligned = rng.random() < 0.5
        at, x_at = (rng.randrange(0, 32, 4 if aligned else 1) for _ in range(2))
        end = rng.choice((0, 0, 1, at + n, at + n + rng.randrange(1, 16)))
        yield ["apart", rng.randbytes(48 + n).hex(), at, rng.randbytes(32 + n).hex(), x_at, n, end]
        # In place, or apart.
        apart = rng.choice((at, 48 + n + (n & 3 and 4 - (n & 3)) + x_at))
        yield ["within", rng.randbytes(88 + 2 * n).hex(), at, apart, n, end]
        size = 16 * rng.randrange(1, 80)
        head, iv = rng.randbytes(4).hex(), rng.randbytes(8).hex()
        yield ["spread", rng.randbytes(size).hex(), head, iv, size]
        fill = rng.choice((rng.randbytes(n), b"\xff" * n, bytes(n)))
        yield ["sum", fill.hex(), rng.randrange(1 << 20)]
        key = rng.randbytes(rng.choice((19, 35)))
        size = rng.choice((2, 4, 15, 16, 17, 30, 62, 64, 100, 1240, rng.randrange(1, 3000)))
        yield [
            "ccm",
            key.hex(),
            rng.choice((8, 12, 16)),
            rng.randbytes(8).hex(),
            rng.randbytes(rng.choice((8, 12, 14, 15, 32, 36, 100))).hex(),
            rng.randbytes(size).hex(),
            rng.choice((0, 8, 16, 5)),
        ]


def test_both_come_to_the_same(micropython, tmp_path):
    with open(tmp_path / "cases", "w") as f:
        for case in cases(random.Random(5), 300):
            print(json.dumps(case), file=f)
    # Little heap, so that the garbage collector comes by in the middle of it.
    plain, fast = (
        micropython(COMPUTE, tmp_path / "cases", which, heap="256k").stdout
        for which in ("plain", "fast")
    )
    assert plain.count("\n") == 7 * 300
    assert plain == fast


def test_plain_loops_do_what_they_say():
    rng = random.Random(6)
    for kind, *values in cases(rng, 100):
        if kind == "apart":
            out, at, x, x_at, n, end = (
                bytearray.fromhex(v) if isinstance(v, str) else v for v in values
            )
            behind = at + n
            middle = x[x_at : x_at + n]
            copied = (out[:at] + middle).ljust(end, b"\0")
            copied += out[len(copied) :]
            mixed = bytes(a ^ b for a, b in zip(middle, out[at:behind]))
            mixed = out[:at] + mixed + out[behind:]
            made = bytearray(out)
            loops.copy(made, at, x, x_at, n, end)
            assert made == copied
            loops.xor(out, at, x, x_at, n)
            assert out == mixed
        elif kind == "spread":
            out, head, iv = (bytearray.fromhex(v) for v in values[:3])
            loops.spread(out, head, iv, values[3])
            assert all(out[i : i + 12] == head + iv for i in range(0, len(out), 16))
        elif kind == "sum":
            octets = bytes.fromhex(values[0]) + b"\0" * (len(values[0]) // 2 & 1)
            words = sum(int.from_bytes(octets[i : i + 2], "big") for i in range(0, len(octets), 2))
            assert loops.total(octets, len(octets)) % 0xFFFF == words % 0xFFFF


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_compiles_for(arch, tmp_path):
    assert (
        mpy.compile_file(mpy.FIRMWARE / "minipsec/crypto/octets_viper.py", tmp_path / "fast", arch)
        < 2300
    )


def place_beside(tmp_path):
    """Copy what crypto.octets needs, so that another octets_viper can lie beside it."""
    (tmp_path / "minipsec/crypto").mkdir(parents=True)
    for name in ("__init__", "crypto/__init__", "crypto/octets"):
        (tmp_path / f"minipsec/{name}.py").write_text(mpy.modules()[name].read_text())


@pytest.mark.parametrize(
    "wrong",
    [
        "raise ImportError",
        "raise ValueError('incompatible .mpy arch')",
        "from micropython import x",
    ],
)
def test_whatever_is_wrong_with_machine_code_plain_loops_serve(micropython, tmp_path, wrong):
    place_beside(tmp_path)
    (tmp_path / "minipsec/crypto/octets_viper.py").write_text(wrong + "\n")
    program = "import sys\nsys.path[:0] = [%r]\n" % str(tmp_path)
    program += "from minipsec.crypto import octets as loops\nprint(loops.xor.__name__)\n"
    assert micropython(program).stdout == "xor\n"


def test_machine_code_that_computes_wrongly_is_not_taken(micropython, tmp_path):
    place_beside(tmp_path)
    good = (mpy.FIRMWARE / "minipsec/crypto/octets_viper.py").read_text()
    program = "import sys\nsys.path[:0] = [%r]\n" % str(tmp_path)
    program += (
        "from minipsec.crypto import octets as loops\nprint(hasattr(loops.xor, '__name__'))\n"
    )
    for old, new in (
        ("", ""),
        ("ptr32(at)[0] ^", "ptr32(at)[0] |"),
        ("ptr8(at)[0] ^", "ptr8(at)[0] |"),
        ("ptr8(at)[0] = out[0]", "ptr8(at)[0] = 0"),
        ("at < end:\n        ptr8", "at < end - 1:\n        ptr8"),
        ("iv[i - 4]", "iv[i - 5]"),
        ("ptr32(o)[2] = c", "ptr32(o)[2] = b"),
        ("        odd += ptr8(at)[1]\n", ""),
        ("(even << 8) + odd", "even + odd"),
    ):
        assert old in good
        (tmp_path / "minipsec/crypto/octets_viper.py").write_text(good.replace(old, new))
        assert micropython(program).stdout == f"{bool(old)}\n", old


GARBAGE = """
import gc
from minipsec.crypto.ccm import CCM

out, back = CCM(bytes(19), 8), CCM(bytes(19), 8)
iv, aad = bytes(8), bytes(8)
bufs = [bytearray(16 + n + 8) for n in (4, 64, 512, 1200)]


def rounds(count):
    for _ in range(count):
        for buf in bufs:
            n = len(buf) - 24
            out.seal_into(buf, 16, n, iv, aad)
            if not back.open_in(buf, 16, n, iv, aad):
                raise ValueError


rounds(2)
gc.collect()
gc.disable()
before = gc.mem_alloc()
rounds(50)
print(gc.mem_alloc() - before)
"""


def test_sealing_and_opening_packets_of_known_sizes_allocates_nothing(micropython):
    assert int(micropython(GARBAGE).stdout) < 100  # of 400 packets: what range and print take


def test_the_sizes_that_are_remembered_are_few():
    from minipsec.crypto import ccm

    key = ccm.CCM(bytes(19), 8)
    for n in range(100):
        key.seal_into(bytearray(n + 8), 0, n, bytes(8), bytes(8))
        assert len(ccm._plans) <= 8
    key.seal_into(bytearray(5000), 0, 4000, bytes(8), bytes(8))
    assert 4000 << 16 | 8 not in ccm._plans
