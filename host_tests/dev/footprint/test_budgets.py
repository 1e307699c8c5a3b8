"""No phase of a session takes more heap than it was given, on 32 bit and with frozen code."""

import pathlib
import tomllib

import pytest

from tools.dev.footprint import measure, show

BUDGETS = pathlib.Path(__file__).parents[2] / "rules/budgets.toml"


def budgets():
    return tomllib.loads(BUDGETS.read_text())["footprint"]


@pytest.mark.parametrize("name", ["X25519", "X25519, ML-KEM-768"])
def test_every_phase_keeps_its_budget(bench, name):
    peaks, live = bench.phases(name, "frozen")
    assert set(peaks) == set(measure.PHASES) - (
        {"IKE_INTERMEDIATE"} if name == "X25519" else set()
    )
    limits = budgets()[name]
    found = {**peaks, "steady": live["steady"], "names": live["names"]}
    over = {what: (n, limits[what]) for what, n in found.items() if n > limits[what]}
    assert not over, "see the [footprint] table of host_tests/rules/budgets.toml"


def test_no_budget_of_a_handshake_is_above_what_is_aimed_at():
    for name, limits in budgets().items():
        for phase in show.HANDSHAKE:
            assert limits.get(phase, 0) <= show.TARGETS[name]
