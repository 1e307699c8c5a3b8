"""What a sensor costs that is awake and has nothing to say (`make bench-idle`)."""

import pathlib

import pytest

from tools.common import mpy
from tools.dev.bench import idle

BOUNDS = {  # wake-ups, octets of heap and datagrams a minute
    "no NAT, nothing sent": (1, 2048, 0),
    "behind a NAT, nothing sent": (4, 6400, 3),
    "one reading a minute, answered": (3, 8192, 2),
}


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    directory = tmp_path_factory.mktemp("idle")
    mpy.stage(directory)
    return pathlib.Path(directory)


@pytest.mark.parametrize("case", BOUNDS)
def test_a_minute_awake_costs_no_more_than_this(staged, case):
    row = idle.measure(case, staged, minutes=10)
    wakeups, octets, datagrams = BOUNDS[case]
    assert row["wakeups"] <= wakeups
    assert row["octets"] <= octets
    assert row["datagrams_out"] + row["datagrams_in"] <= datagrams
