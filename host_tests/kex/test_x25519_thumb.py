"""X25519 as an RP2040 computes it: thumb.py with its machine code emulated, and dh on top of it."""

import random
import sys
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from minipsec.kex import methods

from host_tests.kex import cases
from host_tests.kex.cases import X25519, half
from tools.common import mpy
from tools.dev.bench import cortex

pytestmark = pytest.mark.long

P = 2**255 - 19
THUMB = mpy.FIRMWARE / "minipsec/kex/x25519_thumb.py"


@pytest.fixture(scope="module")
def thumb():
    return cortex.whole("kex/x25519_thumb", cortex.leaves("kex/x25519_thumb"))


@pytest.fixture
def on_a_pico(monkeypatch, thumb):
    """Have dh believe that it is on an RP2040, with its machine code; return how often that ran."""
    implementation = SimpleNamespace(_mpy=4 << 10 | 3 << 8 | 6)
    monkeypatch.setattr(methods, "sys", SimpleNamespace(implementation=implementation))
    used = []

    def ladder(k, u):
        used.append(1)
        return thumb.ladder(k, u)

    monkeypatch.setitem(sys.modules, "minipsec.kex.x25519_thumb", SimpleNamespace(ladder=ladder))
    return used


def test_rfc7748_vectors(on_a_pico):
    """RFC 7748 §5.2 and §6.1."""
    for k, u, result in (
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
        (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
        ),
    ):
        assert half(X25519, bytes.fromhex(k)).shared(bytes.fromhex(u)).hex() == result
    assert len(on_a_pico) == 6


def test_random_exchanges_come_to_openssls_secrets(on_a_pico):
    for case in cases.random_cases(X25519, 20, seed=7):
        ours = half(X25519, case.seed)
        assert ours.public == case.public
        assert ours.shared(case.peer) == case.shared
    assert len(on_a_pico) == 40


def test_wycheproof(thumb):
    """Each twelfth: twist, low order, u >= p, edges of the multiplication."""
    done = list(cases.wycheproof_x25519())[::12]
    assert len(done) > 40
    for case in done:
        key = bytearray(case.seed)
        key[0] &= 248
        key[31] = key[31] & 127 | 64
        result = thumb.ladder(key, case.peer)
        assert (result.to_bytes(32, "little") if result else None) == case.shared, case.name


@pytest.mark.parametrize("u", [pytest.param(u, id=name) for name, u in cases.refused_x25519()])
def test_a_secret_of_zeros_is_refused(on_a_pico, u):
    assert half(X25519, bytes(range(32))).shared(u) is None


def test_odd_spellings_of_u_come_to_the_same_as_on_integers(thumb):
    key = bytes(range(8, 32)) + bytes(7) + b"\x40"
    for u in (0, 1, 2, 9, P - 1, P, P + 1, P + 18, 2**255, 2**255 + 9, 2**256 - 1):
        octets = u.to_bytes(32, "little")
        assert thumb.ladder(key, octets) == methods._ladder(key, octets)


def test_every_key_and_every_u_take_the_same_instructions():
    counted = cortex.leaves("kex/x25519_thumb", count=True)
    module = cortex.whole("kex/x25519_thumb", counted)
    source = random.Random(8)
    taken = set()
    keys = [bytes(31) + b"\x40", b"\xf8" + b"\xff" * 30 + b"\x7f", source.randbytes(31) + b"\x55"]
    for key, u in zip(keys, (b"\x09" + bytes(31), b"\xff" * 32, source.randbytes(32))):
        module.ladder(key, u)
        taken.add((counted["field"].instructions, counted["field"].cycles))
    assert len(taken) == 1
    # The target: 60 ms of an RP2040.
    assert taken.pop()[1] / cortex.HERTZ < 0.055


def test_nothing_of_the_key_stays_in_the_work_space(thumb, monkeypatch):
    seen = []
    real = thumb.field
    monkeypatch.setattr(
        thumb, "field", lambda work, program: (seen.append(work), real(work, program))
    )
    thumb.ladder(b"\xa8" * 32, b"\x09" + bytes(31))
    assert len(seen) == 1 and not any(seen[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    mov(r5, 38)\n", "    mov(r5, 37)\n"),
        ("    sbc(r6, r6)\n", "    mov(r6, 0)\n"),
        ("    mov(r4, 0xDB)\n", "    mov(r4, 0xDC)\n"),
        ("    neg(r4, r4)\n", "    mov(r4, 0)\n"),
        ("    adc(r6, r6)\n", "    mov(r6, 0)\n"),
        ("0x880B, 0x8BD4, 0x4363, 0x18ED, 0x417E", "0x880B, 0x8BD4, 0x4363, 0x18ED, 0x46C0"),
        ("    mul(r3, r3)\n", "    mul(r3, r4)\n"),
        ('b"\\2\\2\\7\\x08"', 'b"\\2\\2\\7\\x07"'),
        ("\\4\\6\\5\\x32", "\\4\\6\\5\\x31"),
    ],
)
def test_code_that_computes_wrongly_is_not_taken(tmp_path, old, new):
    """dh then goes on with integers: host_tests/kex."""
    text = THUMB.read_text()
    assert old in text
    path = tmp_path / "thumb.py"
    path.write_text(text.replace(old, new))
    with pytest.raises(RuntimeError):
        cortex.whole(path, cortex.leaves(path))


def test_the_module_is_small_and_for_arm_only(tmp_path):
    assert mpy.compile_file(THUMB, tmp_path / "kex/x25519_thumb", "armv6m") < 1600
    assert mpy.compile_file(THUMB, tmp_path / "kex/x25519_thumb", "armv7emsp") < 1600  # an RP2350
    for arch in ("xtensawin", "rv32imc", "x64"):
        assert not mpy.fits(THUMB, arch)
        with pytest.raises(mpy.CompileError):
            mpy.compile_file(THUMB, tmp_path / "kex/x25519_thumb", arch)


def test_what_cannot_compile_it_goes_on_with_integers(micropython):
    """The unix port as a stand-in for an ESP32 that got the sources by mip."""
    done = micropython(
        "from minipsec.kex import methods as dh\n"
        "pair = dh.method(31)(lambda n: bytes(range(n)))\n"
        "print(pair.public.hex())\n"
        "try:\n"
        "    import minipsec.kex.x25519_thumb\n"
        "except SyntaxError:\n"
        "    print('no assembler')\n"
    )
    expected = x25519.X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
    assert done.stdout.split("\n")[:2] == [expected.public_bytes_raw().hex(), "no assembler"]
