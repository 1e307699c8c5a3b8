"""A fleet whose gateway returns at one moment: how its IKE_SA_INITs are spread.

`make bench-storm` shows the same for a thousand sensors.
"""

import pytest

from tools.dev.bench import storm

SENSORS = 100


@pytest.mark.parametrize("scenario", ["restart", "reboot", "cut10"])
def test_a_fleet_comes_back_without_a_storm(scenario):
    inits, ups, attempts = storm.simulate(scenario, SENSORS, seed=3)
    assert len(ups) == SENSORS
    after = storm.per_second([ms for ms in inits if ms >= 0])
    # Nobody asks more than twice in a second, most ask once at most: the worst second of seeds 1 to
    # 10 has 45 to 57 requests.
    assert max(after.values()) <= 0.6 * SENSORS
    assert max(storm.per_second(inits).values()) <= 0.6 * SENSORS
    # All are back within the longest pause; after a short outage much sooner.
    assert max(ups) <= {"restart": 40000, "reboot": 80000, "cut10": 331000}[scenario]
    assert attempts <= {"restart": 3, "reboot": 4, "cut10": 12}[scenario]
    if scenario == "cut10":
        assert max(after.values()) <= SENSORS / 10
