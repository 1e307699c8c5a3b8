"""X25519 (RFC 7748, RFC 8031): vectors, odd spellings of u, and sizes inside the ladder."""

import random
import sys
from types import SimpleNamespace

import pytest
from minipsec.kex import methods

from host_tests.kex import cases
from host_tests.kex.cases import X25519, half

P = 2**255 - 19


def octets(digits):
    return bytes.fromhex(digits)


# RFC 7748 §5.2
@pytest.mark.parametrize(
    ("k", "u", "result"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            # This u has its top bit set, which is not looked at.
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_rfc7748_vectors(k, u, result):
    assert half(X25519, octets(k)).shared(octets(u)).hex() == result


@pytest.mark.long
def test_rfc7748_a_thousand_times_over():
    k = u = (9).to_bytes(32, "little")
    for i in range(1000):
        k, u = half(X25519, k).shared(u), k
        if i == 0:
            assert k.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_rfc7748_alice_and_bob():
    """RFC 7748 §6.1."""
    alice = half(
        X25519, octets("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    )
    bob = half(X25519, octets("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    secret = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice.shared(bob.public).hex() == bob.shared(alice.public).hex() == secret


@pytest.mark.long
def test_wycheproof():
    """518 cases: twist, low order, u >= p, edges of the multiplication."""
    done = list(cases.wycheproof_x25519())
    assert len(done) > 500
    wrong = [
        case.name for case in done if half(X25519, case.seed).shared(case.peer) != case.shared
    ]
    assert not wrong


@pytest.mark.item("MIN-19")
@pytest.mark.parametrize("u", [pytest.param(u, id=name) for name, u in cases.refused_x25519()])
def test_a_secret_of_zeros_is_refused(u):
    for seed in (bytes(32), bytes(range(32)), b"\xff" * 32):
        assert half(X25519, seed).shared(u) is None


def test_u_from_p_up_to_2_255_counts_modulo_p():
    ours = half(X25519, bytes(range(32)))
    for u in range(2, 19):
        spelled = ours.shared((P + u).to_bytes(32, "little"))
        assert spelled == ours.shared(u.to_bytes(32, "little"))


def test_the_top_bit_of_u_is_not_looked_at():
    ours = half(X25519, bytes(range(32)))
    rng = random.Random(1)
    for _ in range(10):
        u = rng.randrange(2**255)
        assert ours.shared(u.to_bytes(32, "little")) == ours.shared(
            (u + 2**255).to_bytes(32, "little")
        )


def test_bits_that_clamping_sets_do_not_matter():
    peer = half(X25519, bytes(range(32))).public
    key = bytearray(random.Random(2).randbytes(32))
    secret = half(X25519, bytes(key)).shared(peer)
    key[0] ^= 7
    key[31] ^= 0xC0
    assert half(X25519, bytes(key)).shared(peer) == secret


# What the comment beside the arithmetic says, in bits of magnitude.
BOUNDS = {
    "x2": 255.1,
    "z2": 255.1,
    "x3": 255.1,
    "z3": 255.1,
    "aa": 261.6,
    "bb": 261.6,
    "da": 261.6,
    "cb": 261.6,
    "t": 541.3,
}


@pytest.mark.long
def test_lazily_folded_numbers_stay_below_their_bounds():
    seen = dict.fromkeys(BOUNDS, 0)
    code = methods._ladder.__code__
    steps = 0

    def local(frame, event, argument):
        nonlocal steps
        steps += 1
        values = frame.f_locals
        for name in BOUNDS:
            seen[name] = max(seen[name], abs(values.get(name, 0)))
        return local

    def watch(frame, event, argument):
        return local if frame.f_code is code else None

    rng = random.Random(3)
    keys = [b"\xf8" + b"\xff" * 30 + b"\x7f", bytes(31) + b"\x40", b"\x55" * 32, b"\x6a" * 32]
    edges = [1, 2, 9, P - 1, P - 2, 2**254, 2**128 - 1, P - 2**128, 486662, P - 486662]
    before = sys.gettrace()
    sys.settrace(watch)
    try:
        for u in edges + [rng.randrange(P) for _ in range(10)]:
            for key in keys:
                methods._ladder(key, u.to_bytes(32, "little"))
    finally:
        sys.settrace(before)
    assert steps > 100000
    for name, bits in BOUNDS.items():
        assert seen[name] < 2**bits, name
    # The bounds are no fiction either: single folds do go beyond 256 bits.
    assert seen["aa"] > 2**257 and seen["t"] > 2**530


@pytest.fixture
def chip(monkeypatch):
    """Have dh believe that it is on a chip with so many in `sys.implementation._mpy`."""

    def chip(arch, thumb):
        implementation = SimpleNamespace(_mpy=arch << 10 | 3 << 8 | 6)
        monkeypatch.setattr(methods, "sys", SimpleNamespace(implementation=implementation))
        monkeypatch.setitem(sys.modules, "minipsec.kex.x25519_thumb", thumb)

    return chip


class Marked:
    """A stand-in for the machine code: its results are not the right ones."""

    def ladder(k, u):
        return 7


@pytest.mark.parametrize("arch", range(16))
def test_only_chips_with_thumb_instructions_are_asked_for_machine_code(chip, arch):
    """ARMv6-M is 4, ARMv7E-M with doubles 8 (MicroPython's documentation, ".mpy files")."""
    chip(arch, Marked)
    assert (half(X25519, bytes(32)).public[0] == 7) == (4 <= arch <= 8)


def raising(error):
    class Bad:
        def __getattr__(self, name):
            raise error

    return Bad()


@pytest.mark.parametrize(
    "thumb",
    [None, raising(RuntimeError()), raising(MemoryError()), raising(SyntaxError()), object()],
    ids=["absent", "wrong-answer", "no-room", "no-assembler", "empty"],
)
def test_whatever_is_wrong_with_machine_code_integers_serve(chip, thumb):
    expected = half(X25519, bytes(range(32))).public
    chip(4, thumb)
    assert half(X25519, bytes(range(32))).public == expected


def test_the_double_fold_ends_where_the_comment_says():
    """The extremes of t: the sum of both folds is below 2^255 + 2^40, above -2^40."""
    m = P + 18
    for t in (0, 1, -1, 2**541, -(2**541), 2**541 - 1, m, -m, m << 255, P << 280):
        once = (t & m) + 19 * (t >> 255)
        twice = once - (once >> 255) * P
        assert (twice - t) % P == 0
        assert abs(once) < 2**290.6
        assert -(2**40) < twice < 2**255 + 2**40
