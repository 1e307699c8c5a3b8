"""A short share of `make soak`."""

import pytest

from tools.dev import soak

pytestmark = pytest.mark.long


@pytest.mark.parametrize("mode", soak.MODES)
def test_every_reading_of_some_hours_of_trouble_has_one_fate(mode):
    report = soak.run(mode, 6, 3)
    soak.judge_life(report)
    assert report["readings"]["submitted"] > 800 and len(report["happened"]) >= 5
    if mode != "off":
        assert report["resumed"] >= 2


def test_the_heap_in_use_stays_what_it_is_over_50000_readings():
    report = soak.run("many", 50000, heap="1m")
    soak.judge_many(report)
    assert report["sent"] == report["on_wire"] == 50000 and report["opened"] == 50
    assert report["replaced"] >= 1


def test_a_reading_without_a_fate_a_repeated_number_and_a_growing_heap_are_noticed():
    report = soak.run("off", 1, 1)
    soak.judge_life(report)
    for change in (
        lambda r: r["fates"].update(delivered=r["fates"]["delivered"] - 1),
        lambda r: r["readings"].update(submitted=r["readings"]["submitted"] + 1),
        lambda r: r["counted"].update(lost=r["counted"]["lost"] + 1),
        lambda r: r.update(twice=1),
        lambda r: r.update(repeated_numbers=1),
    ):
        bent = {k: dict(v) if isinstance(v, dict) else v for k, v in report.items()}
        change(bent)
        with pytest.raises(soak.SoakError):
            soak.judge_life(bent)
    grows = {"readings": 5, "on_wire": 5, "heap": [(1, n) for n in range(0, 9000, 500)]}
    with pytest.raises(soak.SoakError, match="flat"):
        soak.judge_many(grows)
