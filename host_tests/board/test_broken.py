"""Whatever call of a board raises, whenever, once or for ever: up again, or an error and a pause."""

import json

import pytest

from host_tests.board.conftest import PSK, ROOT, item, profile

PROGRAM = """
from host_tests.board import broken
broken.sweep((({name!r}, {directory!r}, {boards!r}), {{}}), {phase!r}, {times})
"""
QUICK = {
    "liveness_ms": 200,
    "retransmit_ms": 50,
    "retransmit_tries": 3,
    "retry_max_ms": 1000,
    "watchdog_ms": 8000,
}
# A cable is not lost and joined again.
CASES = [
    (name, phase)
    for name in ("RPI_PICO_W", "ESP32_GENERIC", "W5500_EVB_PICO")
    for phase in ("boot", "up", "reconnect", "sleep")
    if (name, phase) != ("W5500_EVB_PICO", "reconnect")
]


def swept(board, gateway, phase, times):
    """Return (what became of a run in which nothing raises, of each other, readings of each)."""
    more = QUICK | {"readings": 3, "interval_ms": 50}
    if phase == "reconnect":
        more["readings"] = 6
    if phase == "sleep":
        more |= {"sleep": board.facts["sleep"], "readings": 1, "interval_ms": 100}
    board.give(profile(gateway, board, **more), {"psk": PSK, "wifi_key": "open sesame"})
    program = PROGRAM.format(
        name=board.name,
        directory=str(board.directory),
        boards=str(ROOT / "boards"),
        phase=phase,
        times=times,
    )
    events, _ = board.run(program, timeout=500)
    whole, *found = [line for line in events if line["event"] in ("offered", "broken")]
    return whole, found, more["readings"]


@item("A1", "A2", "A3", "A7", "A8")
@pytest.mark.parametrize("times", [1, -1], ids=["once", "for-ever"])
@pytest.mark.parametrize(("name", "phase"), CASES)
def test_whatever_call_raises_it_is_up_again_or_says_so_and_tries_on(
    fake, gateway, name, phase, times
):
    whole, found, readings = swept(fake(name), gateway, phase, times)
    assert whole["calls"] > 30 and len(whole["errors"]) == (phase == "reconnect"), whole
    # What a run of its own does not ask again hung on the moment, as feeding the watchdog does:
    # two of the eight at least, on a busy machine.
    assert sum(line["asked"] > 0 for line in found) >= 6
    for line in found:
        if line["end"] in ("deep", "light", "goes on"):
            good = line["errors"] or phase == "sleep"
        elif line["end"] == "reset":
            good = True
        else:  # all is sent, and a board that was asked for so many readings is at its end
            good = line["end"] == "prompt" and line["sent"] >= readings
        assert good, json.dumps(line)
        if times == 1:
            assert line["sent"] >= readings or line["end"] == "reset" or phase == "sleep", line
