"""P-256 (RFC 5903): vectors, every kind of value that is no point, the choice of the key."""

import random

import pytest
from minipsec.kex import groups

from host_tests.kex import cases
from host_tests.kex.cases import N, P256, coordinates, half, p256_seed


def test_the_curve_is_rfc_5903s():
    assert (groups._P, groups._N, groups._B) == (cases.P, N, cases.B)
    assert half(P256, p256_seed(N - 3)).public != half(P256, p256_seed(3)).public


def test_the_table_for_the_base_point_is_what_its_comment_says():
    assert len(groups._COMB) == 8 * 64
    for at in range(8):
        k = 2**192 + sum((1 if at >> bit & 1 else -1) * 2 ** (64 * bit) for bit in range(3))
        assert groups._COMB[64 * at : 64 * at + 64] == cases._p256(k)[0]


def test_rfc5903_vector():
    """RFC 5903 §8.1."""
    i = half(P256, p256_seed(0xC88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433))
    r = half(P256, p256_seed(0xC6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53))
    assert i.public.hex() == (
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
        "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
    )
    assert r.public.hex() == (
        "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
        "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
    )
    secret = "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de"
    assert i.shared(r.public).hex() == r.shared(i.public).hex() == secret


@pytest.mark.parametrize("case", list(cases.nist_p256()), ids=lambda case: case.name)
def test_nist_primitive(case):
    ours = half(P256, case.seed)
    assert ours.public == case.public
    assert ours.shared(case.peer) == case.shared


def test_nist_validity():
    kinds = set()
    for wrong, case in cases.nist_p256_validity():
        kinds.add(wrong)
        ours = half(P256, case.seed)
        secret = ours.shared(case.peer)
        if wrong in (1, 2):  # the peer's x or y was changed
            assert secret is None, case.name
        elif wrong in (5, 6, 7):  # our public or private key was
            assert ours.public != case.public, case.name
        else:  # 8: the secret was
            assert (secret == case.shared) == (wrong == 0), case.name
    assert kinds == {0, 1, 2, 5, 6, 7, 8}


@pytest.mark.long
def test_wycheproof():
    done = list(cases.wycheproof_p256())
    assert len(done) > 350 and sum(case.shared is None for case in done) > 30
    for case in done:
        assert half(P256, case.seed).shared(case.peer) == case.shared, case.name


@pytest.mark.item("MIN-19")
@pytest.mark.parametrize(
    "peer", [pytest.param(peer, id=name) for name, peer in cases.refused_p256()]
)
def test_what_is_no_point_is_refused(peer):
    assert half(P256, bytes(range(40))).shared(peer) is None


@pytest.mark.item("MIN-19")
def test_one_wrong_bit_makes_a_point_none():
    """Nearly always: half of the wrong x have a y, but not this one."""
    ours = half(P256, bytes(range(40)))
    good = ours.public
    for bit in range(512):
        octets = bytearray(good)
        octets[bit >> 3] ^= 1 << (bit & 7)
        assert ours.shared(bytes(octets)) is None


def test_keys_at_both_ends():
    near = [*range(3, 40), 2**128, 2**255, 2**255 - 1, 2**252 - 1, 2**252, 2**256 // 15]
    _, finish = cases._p256(7)
    for k in near + [N - k for k in near]:
        ours = half(P256, p256_seed(k))
        public, _ = cases._p256(k)
        assert ours.public == public
        assert ours.shared(cases._p256(7)[0]) == finish(public)


def test_peers_at_both_ends():
    """Points with which the window's table is near to the base point's own multiples."""
    ours = half(P256, p256_seed(0x1234567 << 200))
    _, finish = cases._p256(0x1234567 << 200)
    for k in [*range(1, 33), *range(N - 32, N)]:
        peer = cases._p256(k)[0]
        assert ours.shared(peer) == finish(peer)


def test_the_key_comes_from_64_bits_more_than_it_has():
    """FIPS 186-5 A.2.1; from 3 to n - 3, both reached."""
    for drawn, k in ((0, 3), (N - 6, N - 3), (N - 5, 3), (2 * (N - 5), 3), (1, 4)):
        assert half(P256, drawn.to_bytes(40, "big"))._key == k
    assert half(P256, b"\xff" * 40)._key == (2**320 - 1) % (N - 5) + 3
    # The most frequent key is more frequent than the rarest by less than 2^-64 of it.
    assert 2**320 // (N - 5) >= 2**64


def steps(k):
    """The digits of `_multiply`: yield (16 * a, d) of each addition."""
    octets = (k >> 1).to_bytes(32, "big")
    digits = [2 * h - 15 for octet in octets for h in (octet >> 4, octet & 15)]
    digits[0] += 16
    a = digits[0]
    for d in digits[1:]:
        yield 16 * a, d
        a = 16 * a + d
    assert a == k


def test_no_addition_meets_equal_or_opposite_points():
    """The proof beside `_multiply`, tried out where it is narrow: at both ends and at random."""
    rng = random.Random(4)
    keys = [*range(3, 3000, 2), *range(N - 3000, N - 2), *(rng.randrange(N) for _ in range(3000))]
    for k in keys:
        if k & 1:
            for sum_before, d in steps(k):
                assert sum_before % N and (sum_before - d) % N and (sum_before + d) % N
    # And n - 2 is shut out for a reason.
    assert any((sum_before - d) % N == 0 for sum_before, d in steps(N - 2))


def columns(k):
    """The columns of `_multiply_base`: yield (2 * a, t) of each addition."""
    signs = [2 * (((k >> 1) + 2**255) >> i & 1) - 1 for i in range(256)]
    assert sum(sign << i for i, sign in enumerate(signs)) == k
    a = 0
    for i in reversed(range(64)):
        t = sum(signs[i + j] << j for j in range(0, 256, 64))
        if i < 63:
            yield 2 * a, t
        a = 2 * a + t
    assert a == k


def test_no_addition_of_the_comb_meets_equal_or_opposite_points():
    rng = random.Random(5)
    keys = [*range(3, 3000, 2), *range(N - 3000, N), *(rng.randrange(N) for _ in range(1000))]
    # The eight that the proof beside `_multiply_base` leaves over.
    for at in range(8):
        t = 2**192 + sum((1 if at >> bit & 1 else -1) * 2 ** (64 * bit) for bit in range(3))
        keys.append(N - 2 * t)
        assert list(columns(keys[-1]))[-1][1] != -t
    for k in keys:
        if k & 1:
            for a, t in columns(k):
                assert a % N and (a - t) % N and (a + t) % N


def test_every_key_takes_the_same_steps(monkeypatch):
    peer = half(P256, bytes(range(40))).public
    counts = {"_add": 0, "_double": 0}
    for name in counts:
        real = getattr(groups, name)

        def counted(*arguments, real=real, name=name):
            counts[name] += arguments[0] if name == "_double" else 1
            return real(*arguments)

        monkeypatch.setattr(groups, name, counted)
    for k in (3, 4, 2**128, 2**255, N - 3, N // 2, N // 3):
        counts.update(_add=0, _double=0)
        ours = half(P256, p256_seed(k))
        assert counts == {"_add": 63, "_double": 63}
        counts.update(_add=0, _double=0)
        ours.shared(peer)
        assert counts == {"_add": 7 + 63, "_double": 1 + 4 * 63}


def test_coordinates_are_blinded_anew_each_time(monkeypatch):
    ours = half(P256, bytes(range(40)))
    peer = half(P256, bytes(40)).public
    real = groups._double
    seen = []

    def watched(times, x, y, z):
        seen.append((x, y, z))
        return real(times, x, y, z)

    monkeypatch.setattr(groups, "_double", watched)
    assert ours.shared(peer) == ours.shared(peer)
    half_way = len(seen) // 2
    first, second = seen[:half_way], seen[half_way:]
    assert not set(first) & set(second)
    for before, after in zip(first, second):
        assert all(one != other for one, other in zip(before, after))


def test_the_blinding_factor_is_never_zero():
    """Whatever rand gives, p - 1 and p included."""
    expected = half(P256, bytes(range(40))).public
    for z in (0, 1, cases.P - 2, cases.P - 1, cases.P, 2**256 - 1):
        drawn = [z.to_bytes(32, "big"), bytes(range(40))]
        assert groups.P256(lambda n: drawn.pop()).public == expected


def test_the_secret_is_x_alone():
    """RFC 5903 §7 and §9: y, which RFC 4753 had appended, is not part of it."""
    ours = half(P256, bytes(range(40)))
    peer = half(P256, bytes(40)).public
    x, y = int.from_bytes(peer[:32], "big"), int.from_bytes(peer[32:], "big")
    assert ours.shared(coordinates(x, cases.P - y)) == ours.shared(peer)
    assert len(ours.shared(peer)) == 32
