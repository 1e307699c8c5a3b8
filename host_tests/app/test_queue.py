"""Readings that wait: in RAM, in a file, over resets."""

import asyncio
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minipsec.app import spool as spool_module
from minipsec.app.queue import Queue
from minipsec.app.spool import Spool


def readings(*numbers):
    return [b"reading %d" % n for n in numbers]


class Disk:
    """Opens files; after `left` more octets, in a write that is cut there, it raises `error`."""

    def __init__(self, monkeypatch, left, error):
        self.left = left
        self.error = error
        self.largest = 0
        monkeypatch.setattr(spool_module, "open", self.open, raising=False)

    def open(self, path, mode):
        return File(self, open(path, mode))


class File:
    def __init__(self, disk, file):
        self._disk = disk
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, octets):
        disk = self._disk
        self._file.write(octets[: max(disk.left, 0)])
        disk.largest = max(disk.largest, len(octets))
        disk.left -= len(octets)
        if disk.left < 0:
            raise disk.error


def filled(backlog, count):
    for n in range(count):
        backlog.put(b"reading %d" % n)
    return backlog


def test_the_oldest_comes_first_and_stays_until_it_is_dropped():
    backlog = filled(Queue(8), 5)
    assert backlog.oldest(2) == readings(0, 1)
    assert backlog.oldest(2) == readings(0, 1)
    backlog.drop(readings(0, 1)[:0])
    backlog.drop(backlog.oldest(2))
    assert backlog.oldest(9) == readings(2, 3, 4)


def test_a_full_backlog_loses_the_oldest_and_counts_it():
    backlog = filled(Queue(4), 10)
    assert list(backlog.all()) == readings(6, 7, 8, 9)
    assert backlog.lost == 6


def test_what_was_pushed_out_while_it_was_sent_takes_no_other_with_it():
    backlog = filled(Queue(4), 4)
    sent = backlog.oldest(2)
    backlog.put(b"reading 4")
    assert backlog.lost == 1
    backlog.drop(sent)
    assert list(backlog.all()) == readings(2, 3, 4)
    assert (backlog.sampled, backlog.on_wire, backlog.lost) == (5, 2, 0)


def test_a_batch_fits_into_one_datagram():
    backlog = Queue(8)
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
        Queue(4).put(bytes(size))


def test_next_waits_for_a_reading_and_for_the_end():
    async def main():
        backlog = Queue(4)
        waiting = asyncio.create_task(backlog.next(3))
        await asyncio.sleep(0)
        assert not waiting.done()
        backlog.put(b"one")
        assert await waiting == [b"one"]
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
    spool = filled(Spool(4, str(tmp_path / "spool.bin"), 90), 10)
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


OLD = b"".join(struct.pack(">H", len(r)) + r for r in readings(0, 1, 2))


def test_a_file_of_an_older_version_is_read_and_one_that_was_cut_is_counted(tmp_path):
    path = tmp_path / "spool.bin"
    path.write_bytes(OLD)
    spool = filled(Spool(2, str(path), 4096), 3)
    assert list(spool.all()) == readings(0, 1, 2, 0, 1, 2)
    assert (spool.found, spool.lost) == (3, 0)
    for size in range(1, len(OLD)):
        path.write_bytes(OLD[:size])
        spool = Spool(2, str(path), 4096)
        whole, torn = divmod(size, 11)
        assert spool.waiting() + spool.lost == whole + (torn > 0) == spool.found
        assert list(spool.all()) in ([], readings(*range(whole)))


def left(path):
    """Boot with this file; return (readings, how many were lost), and that it says so once."""
    spool = Spool(4, str(path), 4096)
    got, lost = list(spool.all()), spool.lost
    assert spool.found == len(got) + lost
    again = Spool(4, str(path), 4096)
    assert (list(again.all()), again.lost) == (got, 0)
    spool = again
    filled(spool, 5)
    assert list(spool.all()) == got + readings(*range(5))
    return got, lost


@pytest.fixture
def three(tmp_path):
    """The file of three readings, written at once; and where each record begins."""
    path = tmp_path / "spool.bin"
    spool = filled(Spool(4, str(path), 4096), 3)
    assert spool.save()
    octets = path.read_bytes()
    return path, octets, [n * len(octets) // 3 for n in range(4)]


@pytest.mark.item("D7")
def test_a_file_cut_at_any_octet_gives_what_is_whole_and_counts_the_rest(three):
    path, octets, starts = three
    for size in range(1, len(octets)):
        path.write_bytes(octets[:size])
        got, lost = left(path)
        whole = sum(end <= size for end in starts[1:])
        assert got == readings(*range(whole)), size
        # Before the end of the first record's head nothing tells how many there were.
        assert lost == (3 - whole if size >= 6 else 1), size


@pytest.mark.item("D7")
def test_an_octet_that_changed_costs_its_own_record(three):
    path, octets, _ = three
    for at in range(len(octets)):
        for change in (0x01, 0x80, 0xFF, octets[at], octets[at] ^ 0xA5):
            if not change:
                continue
            bent = bytearray(octets)
            bent[at] ^= change
            path.write_bytes(bent)
            got, lost = left(path)
            bad = at * 3 // len(octets)
            assert got == readings(*[n for n in range(3) if n != bad]), (at, change)
            assert lost == 1, (at, change)


@pytest.mark.item("D7")
@pytest.mark.parametrize("rest", [b"\xff" * 600, bytes(600), b"\xa5" * 600, b"\xa5", b"\0"])
def test_what_a_file_system_leaves_behind_a_file_is_no_reading(three, rest):
    path, octets, _ = three
    path.write_bytes(octets + rest)
    assert left(path) == (readings(0, 1, 2), 1)


@pytest.mark.item("D7")
def test_the_power_fails_at_any_write_of_a_life(tmp_path, monkeypatch):
    """Each write is cut at an octet of it; nothing that was saved before is lost but by count."""
    path = tmp_path / "spool.bin"

    class Cut(Exception):
        pass

    def life(fuse):
        """Save, send some, save again; the power fails when so many octets were written."""
        disk = Disk(monkeypatch, fuse, Cut)
        sent, saved = [], []
        try:
            spool = filled(Spool(2, str(path), 4096), 4)
            spool.save()
            saved = readings(0, 1, 2, 3)
            sent = spool.oldest(3)
            spool.drop(sent)
            spool.put(b"reading 4")
            spool.close()
            saved = saved[3:] + readings(4)
        except Cut:
            pass
        monkeypatch.setattr(spool_module, "open", open)
        return sent, saved, disk.left

    fuse = 0
    while True:
        for file in tmp_path.iterdir():
            file.unlink()
        sent, saved, rest = life(fuse)
        spool = Spool(4, str(path), 4096)
        got = list(spool.all())
        assert set(got) <= set(readings(0, 1, 2, 3, 4)) and got == sorted(got)
        assert set(saved) - set(sent) <= set(got)
        assert spool.found == len(got) + spool.lost
        assert not (tmp_path / "spool.bin.new").exists()
        if rest >= 0:
            break
        fuse += 1
    assert fuse > 100 and got == readings(3, 4)


NO_ROOM = [OSError(28), MemoryError()]


@pytest.mark.parametrize("error", NO_ROOM, ids=repr)
@pytest.mark.parametrize("whole", range(3))
@pytest.mark.parametrize("more", [0, 5])
def test_a_disk_or_a_heap_that_is_full_in_an_append(three, monkeypatch, error, whole, more):
    """What is whole there is not written twice; what is torn is written once more later."""
    path, _, starts = three
    path.unlink()
    spool = filled(Spool(4, str(path), 4096), 3)
    Disk(monkeypatch, starts[whole] + more, error)
    assert not spool.save()
    monkeypatch.setattr(spool_module, "open", open)
    assert list(spool.all()) == readings(0, 1, 2) and spool.waiting() == 3
    spool.put(b"reading 3")
    assert spool.save() and spool.waiting() == 4 and spool.lost == 0
    assert left(path) == (readings(0, 1, 2, 3), 0)


@pytest.mark.item("D8")
@pytest.mark.parametrize("error", NO_ROOM, ids=repr)
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("sent", range(4))
@pytest.mark.parametrize("full", [False, True])
def test_what_a_full_disk_cut_off_is_counted_in_one_life_alone(
    three, monkeypatch, error, answered, sent, full
):
    """A reading that is torn in the file is in RAM, too: sent from there, saved or unsent.

    While the disk stays full the file stays as it is, and the next life counts from it anew.
    """
    path, octets, _ = three
    for left in range(2 * len(octets)):
        path.unlink(missing_ok=True)
        spool = filled(Spool(4, str(path), 4096, not answered), 3)
        disk = Disk(monkeypatch, left, error)
        spool.save()
        spool.drop(spool.oldest(sent))
        if not full:
            disk.left = 4096
        spool.close(answered)
        monkeypatch.setattr(spool_module, "open", open)
        assert spool.sampled == spool.on_wire + spool.lost + spool.waiting() == 3
        waiting = list(spool.all())
        again = Spool(4, str(path), 4096)
        if full:
            assert set(waiting) <= set(again.all()), left
        else:
            assert (list(again.all()), again.lost) == (waiting, 0), left


def test_no_reading_is_ever_joined_with_another_one_to_be_written(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, 1 << 20, OSError(28))
    spool = Spool(32, str(tmp_path / "spool.bin"), 1 << 17)
    for n in range(70):
        spool.put(bytes([n]) * 1200)
    spool.drop(spool.oldest(1))
    spool.close()
    assert disk.largest == 1200
    assert [reading[0] for reading in Spool(32, str(tmp_path / "spool.bin"), 1 << 17).all()] == [
        *range(1, 70)
    ]


def test_a_heap_without_room_for_all_of_them_in_one_piece_saves_them(micropython, tmp_path):
    program = """
from minipsec.app.spool import Spool
spool = Spool(32, "%s", 1 << 17)
for n in range(32):
    spool.put(bytes(1200))
taken = []
try:
    while True:
        taken.append(bytes(2000))
except MemoryError:
    pass
for n in range(0, len(taken), 3):
    taken[n] = None
for n in range(32):
    spool.put(b"%%d" %% n)
spool.close()
print(spool.sampled, spool.lost, spool.waiting())
""" % (tmp_path / "s")
    assert micropython(program, heap="160k").stdout.split() == ["64", "0", "64"]


@pytest.mark.parametrize("error", NO_ROOM, ids=repr)
def test_a_reading_that_cannot_be_dropped_is_not_counted_as_sent(three, monkeypatch, error):
    path, _, _ = three
    spool = Spool(4, str(path), 4096)
    sent = spool.oldest(2)

    def refuse(*_):
        raise error

    monkeypatch.setattr(spool_module, "open", refuse, raising=False)
    try:
        spool.drop(sent)
    except MemoryError:
        pass
    monkeypatch.setattr(spool_module, "open", open)
    assert len(list(spool.all())) == spool.waiting()
    assert spool.found == spool.on_wire + spool.lost + spool.waiting()


def test_a_file_that_cannot_be_removed_is_sent_once_in_this_time_of_power(three, monkeypatch):
    path, _, _ = three

    def refuse(*_):
        raise OSError(30)

    monkeypatch.setattr(os, "remove", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    spool = Spool(4, str(path), 4096)
    assert spool.oldest(9) == readings(0, 1, 2)
    spool.drop(spool.oldest(9))
    assert spool.oldest(9) == [] and spool.waiting() == 0
    spool.put(b"new")
    assert spool.save() and spool.oldest(9) == [b"new"]


def test_what_nobody_answered_waits_again(three):
    path, _, _ = three
    for answered in (False, True):
        spool = Spool(4, str(path), 4096, hold=True)
        found = spool.found
        spool.put(b"reading 3")
        spool.drop(spool.oldest(9))
        spool.put(b"reading 4")
        assert (spool.on_wire, spool.waiting()) == (found + 1, 1)
        spool.close(answered)
        assert spool.sampled + spool.found == spool.on_wire + spool.lost + spool.waiting()
        assert spool.waiting() == (1 if answered else found + 2)
    assert list(Spool(4, str(path), 4096).all()) == readings(4)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.binary(min_size=1, max_size=9)),
        st.tuples(st.just("send"), st.integers(1, 5)),
        st.tuples(st.just("late"), st.integers(1, 5)),  # sent, and some come before it's dropped
        st.tuples(st.just("sleep"), st.booleans()),
        st.tuples(st.just("reset"), st.none()),
        st.tuples(st.just("full"), st.booleans()),
    ),
    max_size=40,
)


@pytest.mark.item("D8")
@given(OPERATIONS, st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_each_reading_is_on_the_wire_unsent_or_waits_and_nothing_else(
    tmp_path_factory, what, with_file, hold
):
    path = tmp_path_factory.mktemp("spool") / "spool.bin"

    def boot():
        return Spool(3, str(path), 150, hold) if with_file else Queue(3)

    def balanced():
        counted = backlog.on_wire + backlog.lost + backlog.waiting()
        assert backlog.sampled + backlog.found == counted
        assert len(list(backlog.all())) == backlog.waiting()

    backlog = boot()
    n = 0
    for name, argument in [*what, ("sleep", True)]:
        if name in ("put", "late"):
            taken = backlog.oldest(argument) if name == "late" else []
            for _ in range(4 if taken else 1):
                backlog.put(b"%d:" % n + (argument if name == "put" else b"late"))
                n += 1
            backlog.drop(taken)
        elif name == "send":
            backlog.drop(backlog.oldest(argument))
        elif name == "full":
            backlog._path = str(path.parent / "missing" / "x" if argument else path)
        else:
            if name == "sleep":
                backlog.close(argument)
                balanced()
                assert with_file or not backlog.waiting()
            waited = list(backlog.all())
            whole = name == "sleep" and with_file and backlog._path == str(path)
            backlog = boot()
            if whole:
                assert list(backlog.all()) == waited and backlog.found == len(waited)
        balanced()


def test_the_same_on_the_unix_port(micropython, tmp_path):
    program = """
import asyncio
from minipsec.app.spool import Spool
spool = Spool(4, "%s", 160)
for n in range(14):
    spool.put(b"reading %%d" %% n)
print(len(list(spool.all())), spool.lost)
spool = Spool(4, "%s", 160)
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
