"""Our inbound SPIs: random, or one of a few fixed ones (draft-minimal-esp §3)."""

import pytest
from minipsec.handshake.auth import choose_spi
from minipsec.ike.sa import spi
from minipsec.config.profile import ProfileError, check_profile

BASE = {"gateway": "g", "gateway_id": "any", "id": "s@x", "server": "10.3.0.10"}


def chosen(octets=(), taken=(), **profile):
    """(what choose_spi makes of random `octets`, while SAs with `taken` are there, what is left)."""
    given = list(octets)
    fixed = check_profile({**BASE, **profile})["spi"]
    return choose_spi(fixed, taken, lambda n: given.pop(0)[:n]), given


def test_a_random_spi_is_made_anew_when_it_is_taken():
    mine, free = b"\x9a\xbc\xde\xf0", b"\x12\x34\x56\x78"
    assert chosen([mine, mine, free], [mine]) == (free, [])


def test_a_random_spi_is_none_of_the_reserved_ones():
    values = [b"\0\0\0\0", b"\0\0\0\1", b"\0\0\0\xff", b"\0\0\1\0"]
    assert spi(lambda n: values.pop(0), 4) == b"\0\0\1\0"


def test_fixed_spis_are_taken_in_order_and_never_one_that_is_in_use():
    first, second, third = ((4096 + n).to_bytes(4, "big") for n in range(3))
    fixed = [4096, 4097, 4098]
    for taken, expected in (
        ((), first),
        ((first,), second),
        ((first, second), third),
        ((second,), first),
        ((third, first), second),
        ((first, second, third), b"free"),  # all in use: a random one
    ):
        values = [b"free"] if expected == b"free" else []
        assert chosen(values, taken, spi=fixed) == (expected, [])


@pytest.mark.parametrize(
    "values", [[256], [0, 300], [255, 300], [300, 300], [300, 1 << 31], [300, "301"], 300, []]
)
def test_a_set_that_cannot_serve_is_refused(values):
    with pytest.raises(ProfileError, match="spi"):
        check_profile({**BASE, "spi": values})


def test_the_loader_says_what_fixed_spis_cost():
    assert check_profile(BASE)["warning"] is None
    warning = check_profile({**BASE, "spi": [256, 257]})["warning"]
    assert "privacy" in warning and "DoS" in warning
