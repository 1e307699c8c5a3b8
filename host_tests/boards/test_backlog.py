"""Readings that wait: in RAM, in a file, over resets."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minipsec.backlog import Backlog
from minipsec.spool import Spool


def readings(*numbers):
    return [b"reading %d" % n for n in numbers]


def filled(backlog, count):
    for n in range(count):
        backlog.put(b"reading %d" % n)
    return backlog


def test_the_oldest_comes_first_and_stays_until_it_is_dropped():
    backlog = filled(Backlog(8), 5)
    assert backlog.oldest(2) == readings(0, 1)
    assert backlog.oldest(2) == readings(0, 1)
    backlog.drop(readings(0, 1)[:0])
    backlog.drop(backlog.oldest(2))
    assert backlog.oldest(9) == readings(2, 3, 4)


def test_a_full_backlog_loses_the_oldest_and_counts_it():
    backlog = filled(Backlog(4), 10)
    assert list(backlog.all()) == readings(6, 7, 8, 9)
    assert backlog.lost == 6


def test_what_was_pushed_out_while_it_was_sent_takes_no_other_with_it():
    backlog = filled(Backlog(4), 4)
    sent = backlog.oldest(2)
    backlog.put(b"reading 4")
    backlog.drop(sent)
    assert list(backlog.all()) == readings(2, 3, 4)


def test_a_batch_fits_into_one_datagram():
    backlog = Backlog(8)
    for size in (700, 499, 1, 1200, 1200, 600, 600):
        backlog.put(bytes(size))
    batches = []
    while found := backlog.oldest(64):
        batches.append([len(reading) for reading in found])
        backlog.drop(found)
    assert batches == [[700, 499], [1], [1200], [1200], [600], [600]]
    assert all(sum(batch) + len(batch) - 1 <= 1200 for batch in batches)


@pytest.mark.parametrize("size", [0, 1201])
def test_an_empty_reading_and_one_too_large_are_refused(size):
    with pytest.raises(ValueError, match="1 to 1200 octets"):
        Backlog(4).put(bytes(size))


def test_next_waits_for_a_reading_and_for_the_end():
    async def main():
        backlog = Backlog(4)
        waiting = asyncio.create_task(backlog.next(3))
        await asyncio.sleep(0)
        assert not waiting.done()
        backlog.put(b"one")
        assert await waiting == [b"one"]
        backlog.drop([b"one"])  # not the same object: nothing is dropped
        backlog.drop(backlog.oldest(1))
        waiting = asyncio.create_task(backlog.next(3))
        await asyncio.sleep(0)
        backlog.end()
        assert await waiting == []

    asyncio.run(main())


def test_a_file_takes_what_ram_has_no_room_for(tmp_path):
    spool = filled(Spool(4, str(tmp_path / "spool.bin"), 4096), 10)
    assert list(spool.all()) == readings(*range(10))
    assert spool.lost == 0
    got = []
    while found := spool.oldest(3):
        got += found
        spool.drop(found)
    assert got == readings(*range(10))
    assert not (tmp_path / "spool.bin").exists()


def test_a_full_file_makes_ram_lose_its_oldest(tmp_path):
    spool = filled(Spool(4, str(tmp_path / "spool.bin"), 50), 10)
    assert list(spool.all()) == readings(0, 1, 2, 3, 6, 7, 8, 9)
    assert spool.lost == 2


def test_a_file_system_without_room_is_as_a_full_file(tmp_path):
    spool = filled(Spool(4, str(tmp_path / "missing" / "spool.bin"), 4096), 6)
    assert list(spool.all()) == readings(2, 3, 4, 5)
    assert spool.lost == 2
    assert not spool.save()


def test_readings_that_went_to_the_file_while_they_were_sent_are_dropped_there(tmp_path):
    spool = filled(Spool(4, str(tmp_path / "spool.bin"), 4096), 4)
    sent = spool.oldest(2)
    spool.put(b"reading 4")
    spool.drop(sent)
    assert list(spool.all()) == readings(2, 3, 4)


@pytest.mark.parametrize(
    "octets",
    [b"", b"\0", b"\0\0", b"\xff\xff", b"\0\5abc", b"\0\3abc\0", b"\0\3abc\0\0", b"x" * 100],
)
def test_a_damaged_file_gives_what_is_whole_and_is_forgotten(tmp_path, octets):
    path = tmp_path / "spool.bin"
    path.write_bytes(octets)
    spool = Spool(4, str(path), 4096)
    spool.put(b"new")
    whole = [b"abc"] if octets.startswith(b"\0\3") else []
    assert list(spool.all()) == whole + [b"new"]
    while found := spool.oldest(4):
        spool.drop(found)
    assert not path.exists() or not path.read_bytes()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.binary(min_size=1, max_size=9)),
        st.tuples(st.just("send"), st.integers(1, 5)),
        st.tuples(st.just("late"), st.integers(1, 5)),  # sent, and one comes before it's dropped
        st.tuples(st.just("sleep"), st.none()),
    ),
    max_size=40,
)


@given(OPERATIONS)
@settings(max_examples=60, deadline=None)
def test_in_any_order_of_events_readings_arrive_in_order_or_are_counted(tmp_path_factory, what):
    path = tmp_path_factory.mktemp("spool") / "spool.bin"
    spool = Spool(3, str(path), 60)
    put, sent, lost, n = [], [], 0, 0
    for name, argument in [*what, ("sleep", None)]:
        if name in ("put", "late"):
            taken = spool.oldest(argument) if name == "late" else []
            reading = b"%d:" % n + (argument if name == "put" else b"late")
            n += 1
            put.append(reading)
            spool.put(reading)
            sent += taken
            spool.drop(taken)
        elif name == "send":
            taken = spool.oldest(argument)
            sent += taken
            spool.drop(taken)
        elif spool.save():
            lost += spool.lost
            spool = Spool(3, str(path), 60)
    left = list(spool.all())
    arrived = sent + left
    lost += spool.lost
    numbers = [int(reading.partition(b":")[0]) for reading in arrived]
    # After a reset with part of the file sent, that part comes once more.
    assert set(arrived) <= set(put)
    assert len(put) - len(set(numbers)) <= lost
    assert left == sorted(left, key=lambda reading: int(reading.partition(b":")[0]))


def test_the_same_on_the_unix_port(micropython, tmp_path):
    program = """
import asyncio
from minipsec.spool import Spool
spool = Spool(4, "%s", 100)
for n in range(14):
    spool.put(b"reading %%d" %% n)
print(len(list(spool.all())), spool.lost)
spool = Spool(4, "%s", 100)
while True:
    found = spool.oldest(3)
    if not found:
        break
    print(found)
    spool.drop(found)
""" % (tmp_path / "s", tmp_path / "s")
    lines = micropython(program).stdout.splitlines()
    assert lines[0] == "12 2"
    assert lines[1] == str(readings(0, 1, 2))
    assert lines[-1] == str(readings(6, 7))
    assert not (tmp_path / "s").exists()
