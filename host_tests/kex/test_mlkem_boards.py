"""The two modules compile for the boards' three architectures and stay small there."""

import pytest

from tools.common import mpy

pytestmark = pytest.mark.long

# Octets of both `.mpy` files together; a Pico may spend 18 KiB on ML-KEM.
LIMITS = {"armv6m": 12600, "xtensawin": 14400, "rv32imc": 14000}


@pytest.mark.parametrize("arch", LIMITS)
def test_compiles_for(arch, tmp_path):
    sizes = {
        name: mpy.compile_file(mpy.PACKAGE / f"kex/{name}.py", tmp_path / name, arch)
        for name in ("keccak", "mlkem")
    }
    assert sum(sizes.values()) <= LIMITS[arch], sizes
    assert min(sizes.values()) > 4096


@pytest.mark.parametrize("arch", LIMITS)
def test_no_constant_is_a_big_integer(arch, tmp_path):
    """On 32 bits an integer from 2^30 on is an object, which viper code would have to convert."""
    for name in ("keccak", "mlkem"):
        target = tmp_path / f"{name}.mpy"
        mpy.compile_file(mpy.PACKAGE / f"kex/{name}.py", target, arch)
        assert [n for n in integers(target.read_bytes()) if abs(n) >> 30] == []


def integers(data):
    """The integers among the constant objects of a `.mpy` file."""
    objects, _ = mpy.read(data)
    return [int(octets) for kind, octets in objects if kind == mpy.INT]


def test_the_reader_of_constants_sees_a_big_integer(tmp_path):
    source = tmp_path / "sample.py"
    source.write_text("A = 0x6BA8F301\nB = (1, 'x', -(1 << 40))\n")
    target = tmp_path / "sample.mpy"
    mpy.compile_file(source, target, "armv6m")
    assert sorted(integers(target.read_bytes())) == [-(1 << 40), 1, 0x6BA8F301]
