"""Random lives of a sensor that sleeps: a share of what `make histories` plays."""

import os
import types

import pytest
from minipsec.esp import sequence, snapshot

from host_tests.esp import histories

pytestmark = pytest.mark.long

SHARE = int(os.environ.get("HISTORIES", "16000"))
PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_no_number_comes_twice_and_no_reading_is_left_behind(part):
    size = SHARE // PARTS
    total = histories.play_many(range(part * size, (part + 1) * size))
    # It was no walk in the park: SAs were taken up, refused, replaced.
    assert total["resumed"] > SHARE / PARTS
    assert total["refused"] > SHARE / PARTS / 50
    assert total["handshakes"] > SHARE / PARTS


def test_a_history_is_the_same_each_time():
    assert histories.play(8) == histories.play(8)


@pytest.mark.parametrize(
    ("policy", "board"),
    [("clock", "esp32"), ("clock", "pc"), ("mark", "rp2"), ("mark", "esp32"), ("mark", "pc")],
)
def test_power_cut_at_every_single_write(policy, board):
    """Each write of three wake-ups and a replaced SA, cut off in each way."""

    def live(history):
        life = histories.Life(history)
        # Bursts beyond the first marks; a new SA beside a snapshot of the old one.
        for _ in range(21):
            life.send()
            history.device.now += 3
        life.connect()
        life.send()
        life.suspend()

    def story(fuse, ends):
        history = histories.History(1)
        scenario = history.scenario
        scenario.policy, scenario.board, scenario.near_end = policy, board, False
        scenario.lifetime_ms, scenario.max_packets, scenario.sealed = 1 << 29, 1 << 24, False
        history.device = histories.Device(history.rng, board)
        history._profile()
        device = history.device
        with histories.plugged(history):
            device.fuse, device.ends = fuse, ends
            for _ in range(4):
                try:
                    live(history)
                    device.now += 60_000
                    device.boot()
                except histories.PowerCut as end:
                    device.now += 2
                    history.again(not isinstance(end, histories.Reset))
        return device, history

    device, _ = story(None, None)
    writes = device.writes
    # RTC memory is written before and after a sleep only.
    assert writes >= (7 if (policy, board) == ("clock", "esp32") else 20)
    for fuse in range(1, writes + 1):
        for what in range(4):
            for end in (histories.PowerCut, histories.Reset):
                device, history = story(fuse, (what, end()))
                assert device.fuse is None
                assert history.count["resumed"] >= 1


# What the histories are there to find, put in on purpose.
MUTANTS = {
    "packets leave without a mark": (sequence, "if not self._reserve(mark):", "if False:"),
    "a mark that failed is taken for one": (
        sequence,
        'if not self._reserve(mark):\n                raise Drop("SPENT")',
        "self._reserve(mark)",
    ),
    "marks are too low": (sequence, "mark = min(sn + self._step, self._end)", "mark = sn - 1"),
    "what was put away still sends": (sequence, "self._end = 0", "pass"),
    "the end of the numbers is missed": (
        sequence,
        '        if sn > self._end:\n            raise Drop("SPENT")\n',
        "",
    ),
    "numbers run ahead of the age": (sequence, "if self.early(now):", "if False:"),
    "a number is forgotten": (sequence, "self.last = sn\n", "self.last = sn - 1\n"),
    "the mark counts for nothing": (snapshot, "last = max(last, age)", "last = age"),
    "the age counts for nothing": (snapshot, "last = max(last, age)", "last = last"),
    "nobody asks whose the mark is": (
        snapshot,
        'if self.mark and memory.read("mark") != self.mark:',
        "if False:",
    ),
    "half written is good enough": (
        snapshot,
        "if body + _digest(body + _seal(profile, octets)) != mark:",
        "if len(body) != 49 or len(octets) <= 70:",
    ),
    "a clock far behind its SA is believed": (
        snapshot,
        "or last > age + _AHEAD",
        "",
    ),
    "without a mark it goes on where one is needed": (
        snapshot,
        "return self._write(last) or not self.mark",
        "return self._write(last) or True",
    ),
    "what was put away is put away too low": (
        snapshot,
        "self._write(numbers.last, ",
        "self._write(max(numbers.last - 1, 0), ",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_found(monkeypatch, name):
    module, old, new = MUTANTS[name]
    with open(module.__file__) as f:
        source = f.read()
    assert source.count(old) == 1
    mutant = types.ModuleType(module.__name__)
    mutant.__package__ = module.__package__
    exec(compile(source.replace(old, new), name, "exec"), mutant.__dict__)
    if module is sequence:
        monkeypatch.setattr(histories, "Sequence", mutant.Sequence)
        monkeypatch.setattr(snapshot, "Sequence", mutant.Sequence)
    else:
        monkeypatch.setattr(histories, "snapshot", mutant)
    with pytest.raises(Exception):
        histories.play_many(range(6000))
