"""The window that a gateway is told suffices for what the sensor sends, however it is delayed."""

import json
import random
import subprocess
import sys

import pytest
from minipsec.esp.sequence import ReplayWindow, Sequence

from tools.gateway import replay


def arrivals(rng, tick_ms, late_ms, burst):
    """SNs in the order in which they arrive: each packet up to `late_ms` late, no more."""
    numbers = Sequence(0, tick_ms)
    now = 0
    sent = []
    while len(sent) < 400:
        # Readings at random, bursts of up to `burst` within any `late_ms`.
        now += late_ms + 1
        for _ in range(rng.randrange(1, burst + 1)):
            sent.append((now + rng.uniform(0, late_ms), numbers.next(now)))
        for _ in range(rng.randrange(8)):
            now += rng.randrange(late_ms)
            sent.append((now + rng.uniform(0, late_ms), numbers.next(now)))
    return [number for _, number in sorted(sent)]


@pytest.mark.parametrize("tick_ms", [1, 10, 100, 1000, 60000])
@pytest.mark.parametrize("late_ms", [50, 3000])
def test_no_packet_that_comes_late_is_lost(tick_ms, late_ms):
    rng = random.Random(tick_ms + late_ms)
    size = replay.replay_window({"sn_tick_ms": tick_ms}, late_ms)
    needed = 0
    for _ in range(20):
        window = ReplayWindow(size)
        for number in arrivals(rng, tick_ms, late_ms, replay.BURST):
            needed = max(needed, window.top - number + 1)
            assert window.check(number), (number, window.top, size)
            window.commit(number)
    assert needed <= replay.behind(tick_ms, late_ms) + 1
    # And not far too large: a window cannot tell a replay from what was lost on the way.
    assert size < 1.5 * needed + 64


def test_the_window_is_what_linux_takes():
    for tick_ms in (1, 2, 7, 100, 3_600_000):
        for late_ms in (0, 1, 3000, 1_000_000):
            size = replay.replay_window({"sn_tick_ms": tick_ms}, late_ms)
            assert size % 32 == 0 and 32 <= size <= 4096


def test_a_window_that_cannot_be_chosen_has_its_lateness():
    """The table of tools/docs/gateways.md."""
    assert [replay.late(tick) for tick in (1, 10, 100, 1000)] == [95, 950, 9500, 95000]
    assert [replay.replay_window({"sn_tick_ms": tick}) for tick in (1, 10, 100, 1000)] == [
        3040, 352, 64, 64,
    ]  # fmt: skip
    for tick in (1, 10, 100):
        assert replay.behind(tick, replay.late(tick)) + 1 == replay.LIBIPSEC


def test_a_profile_gets_its_line(root, tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"sn_tick_ms": 10}))

    def run(*words):
        command = [sys.executable, "-m", "tools.gateway.replay", *map(str, words)]
        return subprocess.run(command, check=False, cwd=root, capture_output=True, text=True)

    done = run(path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "replay_window = 352"
    assert "950 ms late" in done.stdout
    assert run(path, 100).stdout.endswith("replay_window = 64\n")
    for words in ((), (tmp_path / "none",), (path, "soon"), (path, 1, 2)):
        done = run(*words)
        assert done.returncode == 2 and done.stderr and not done.stdout
