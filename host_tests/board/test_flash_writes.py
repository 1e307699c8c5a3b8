"""Writes to flash of each board's way of sleeping, as firmware/docs/sleep.md has them by the day."""

import pytest

from host_tests.board.conftest import BOARDS, MAIN, PSK, named, profile

DAY_S = 86400
WAKE_UPS = 3


@pytest.mark.parametrize("name", BOARDS)
def test_what_a_day_of_sleep_writes(fake, gateway, root, name):
    board = fake(name)
    asleep_ms = 600_000
    board.give(
        profile(gateway, board, readings=0, interval_ms=asleep_ms, sleep=board.facts["sleep"]),
        {"psk": PSK},
    )
    runs = [board.run(MAIN, asleep_ms=asleep_ms if nap else 0) for nap in range(1 + WAKE_UPS)]
    assert [bool(named(events, "resumed")) for events, _ in runs] == [False] + [True] * WAKE_UPS
    first, *later = [seen["flash_writes"] for _, seen in runs]
    by_mark = board.facts["sleep"] == "mark"
    # A new SA: the seed of the random generator, and with "mark" the SA, before and after.
    assert sorted(first) == (["sa.bin", "sa.mark", "sa.mark"] if by_mark else []) + ["seed.bin"]
    # A wake-up: one mark before the reading, one before the sleep.
    assert later == [["sa.mark"] * 2 if by_mark else []] * WAKE_UPS
    by_the_day = DAY_S * 1000 // asleep_ms * len(later[0])
    page = (root / "firmware/docs/sleep.md").read_text()
    assert (f"{by_the_day} every 10 minutes" in page) == by_mark
    assert by_the_day in (0, 288)
