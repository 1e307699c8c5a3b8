"""Snapshots: what is kept, what is refused, and how many writes to flash it takes."""

import os
import sys

from host_tests.checklist import item
from host_tests.esp.said import said
from minipsec import sleep as storage
from minipsec.esp import snapshot
from minipsec.config.profile import check_profile

DAY = 86_400_000
WALL = 1_700_000_000_000
KEY_OUT, KEY_IN = bytes(range(19)), bytes(range(19, 38))


def profile(**more):
    values = {"gateway": ["gw.example.org"], "gateway_id": "gw.example.org", "id": "sensor-1@x"}
    values.update(server="10.3.0.10", sleep="clock", interval_ms=600_000)
    values.update(more)
    return check_profile(values)


def child(**more):
    values = {"spi_in": b"in..", "spi_out": b"out.", "key_out": KEY_OUT, "key_in": KEY_IN}
    values.update(cipher=14, inner=b"\x0a\x09\0\1", server=b"\x0a\x03\0\x0a", port=50123)
    values.update(transport=False, esn=False, nat=False, picked={1: (14, 128)})
    values.update(more)
    return values


class Memory:
    """A sleep.Memory in RAM."""

    def __init__(self):
        self.pieces = {}
        self.writes = 0
        self.full = False

    def read(self, name):
        return self.pieces.get(name)

    def write(self, name, octets):
        self.writes += 1
        if not self.full:
            self.pieces[name] = bytes(octets)
        return not self.full

    def erase(self):
        self.pieces.pop("bin", None)


def fresh(p, memory, made=None, now=0, wall=WALL):
    clock = wall if p["sleep"] == "clock" else 0
    return snapshot.fresh(p, memory, made or child(), p["gateway"][0], now, clock)


def put_away(p=None, made=None, age=5000, count=3):
    """A memory with an SA that sent `count` packets and was put away."""
    p = p or profile()
    memory = Memory()
    sa = fresh(p, memory, made)
    for n in range(count):
        assert sa.numbers.next(1000 + 100 * n)
    sa.window.commit(7)
    sa.window.commit(5)
    assert sa.save(count, sa.window, WALL + age if p["sleep"] == "clock" else age)
    return memory


def test_what_was_put_away_is_taken_up():
    p = profile(gateway=["a", "gw.example.org"])
    for made in (
        child(),
        child(cipher=29, transport=True, esn=True, nat=True),
        child(key_out=bytes(35), key_in=bytes(range(35)), inner=bytes(16), server=b"six6" * 4),
    ):
        memory = Memory()
        snapshot.fresh(p, memory, made, "gw.example.org", 0, WALL).save(
            9, fresh(p, Memory()).window, WALL + 10
        )
        sa = snapshot.load(p, memory, 777, WALL + 1000)
        for key in sa.child:
            assert sa.child[key] == made[key], key
        assert set(made) - set(sa.child) == {"picked"}
        assert (sa.host, sa.age, sa.packets) == ("gw.example.org", 1000, 9)


def test_the_replay_window_goes_on():
    for policy in ("clock", "mark"):
        p = profile(sleep=policy)
        sa = snapshot.load(p, put_away(p), 0, WALL + DAY // 2)
        assert not sa.window.check(7) and not sa.window.check(5)
        assert sa.window.check(6) and sa.window.check(8)
        assert sa.window.size == 64


def test_by_the_clock_numbers_go_on_above_the_age_in_milliseconds():
    sa = snapshot.load(profile(), put_away(), 1000, WALL + 600_000)
    assert said(sa.numbers.next, 1000) == "TOO_EARLY"  # at once it would be too early
    assert sa.numbers.next(1002) == 600_001
    assert said(sa.numbers.next, 1003) == "TOO_EARLY"
    assert sa.numbers.next(1010) == 600_002


def test_by_the_mark_numbers_go_on_behind_it():
    p = profile(sleep="mark")
    sa = snapshot.load(p, put_away(p), 0, 0)
    assert [sa.numbers.next(0) for _ in range(3)] == [4, 5, 6]


def test_what_was_put_away_sends_nothing_more():
    for policy in ("clock", "mark"):
        sa = fresh(profile(sleep=policy), Memory())
        assert sa.numbers.next(100)
        sa.save(1, sa.window, WALL)
        assert said(sa.numbers.next, 10_000) == "SPENT"


def test_no_packet_leaves_before_its_mark_is_kept():
    for policy in ("clock", "mark"):
        p = profile(sleep=policy)
        memory = put_away(p)
        sa = snapshot.load(p, memory, 0, WALL + 9000)
        mark = memory.pieces["mark"]
        memory.full = True
        assert said(sa.numbers.next, 1000) == "SPENT"
        memory.full = False
        sa = snapshot.load(p, memory, 0, WALL + 9000)
        assert sa.numbers.next(1000)
        assert memory.pieces["mark"] != mark


def test_a_disk_without_room_stops_no_sa_that_nobody_can_take_up():
    for policy in ("clock", "mark"):
        p = profile(sleep=policy)
        memory = put_away(p)
        memory.full = True
        sa = fresh(p, memory, child(key_out=bytes(19)))
        assert [sa.numbers.next(20_000 * n) for n in range(1, 80)][-1]
        assert not sa.save(79, sa.window, WALL + 1)
        assert refused(p, memory)
        # Later there is room: a snapshot is whole again.
        sa = fresh(p, memory)
        assert sa.numbers.next(1000)
        memory.full = False
        assert sa.numbers.next(100_000)
        clock = WALL + 200_000 if policy == "clock" else 200_000
        assert sa.save(2, sa.window, clock)
        assert not refused(p, memory, WALL + 200_000)


def test_after_a_reset_it_goes_on_behind_the_reserve_and_hears_nothing():
    for policy in ("clock", "mark"):
        p = profile(sleep=policy)
        memory = put_away(p)
        sa = snapshot.load(p, memory, 0, WALL + 9000)
        last = sa.numbers.next(1000)
        # Reset: nothing was put away.
        again = snapshot.load(p, memory, 0, WALL + 9001)
        assert again.numbers.next(1000) > last
        assert not any(again.window.check(sn) for sn in (1, 6, 8, 1000, 0xFFFFFFFF))
        assert again.age == p["lifetime_ms"]  # so a new one is due


@item("A5")
def test_after_a_reset_no_extended_number_comes_in_and_it_can_be_put_away_again():
    for size in (1, 64, 128):
        p = profile(sleep="mark", replay_window=size)
        memory = Memory()
        sa = fresh(p, memory, child(esn=True))
        assert sa.numbers.next(1000)
        # A packet has left, and power goes: the mark stands, the window does not.
        assert sa.save(1, sa.window, 1000)
        assert snapshot.load(p, memory, 0, 0).numbers.next(5)
        awake = snapshot.load(p, memory, 0, 0)
        for low in (1, 5, 0x7FFFFFFF, 0xFFFFFFFF):
            assert not awake.window.check(awake.window.extend(low))
        assert awake.age == p["lifetime_ms"]  # a new one is made at once
        assert awake.numbers.next(5)
        assert awake.save(1, awake.window, 2000)
        again = snapshot.load(p, memory, 0, 0)
        assert again.window.top == (1 << 64) - 1 and not again.window.check(again.window.extend(1))


@item("A5")
def test_numbers_at_their_ends_are_kept_as_they_are():
    for esn, end in ((False, (1 << 32) - 1), (True, (1 << 64) - 1)):
        p = profile(sleep="mark", replay_window=128)
        memory = Memory()
        sa = fresh(p, memory, child(esn=esn))
        sa.numbers.last = end - 1
        assert sa.numbers.next(1000) == end
        sa.window.commit(end - 127)
        sa.window.commit(end)
        assert sa.save(1 << 40, sa.window, 1000)
        awake = snapshot.load(p, memory, 0, 0)
        assert (awake.numbers.last, said(awake.numbers.next, 0)) == (end, "SPENT")
        assert (awake.window.top, awake.window.seen) == (end, 1 << 127 | 1)
        assert awake.packets == (1 << 32) - 1


def test_a_second_wake_up_with_the_same_state_is_refused():
    for policy in ("clock", "mark"):
        p = profile(sleep=policy)
        memory = put_away(p)
        one, other = [snapshot.load(p, memory, 0, WALL + 9000) for _ in range(2)]
        assert one.numbers.next(1000)
        assert said(other.numbers.next, 1000) == "SPENT"
        assert not other.save(0, other.window, WALL + 9500)
        mark = memory.pieces["mark"]
        assert one.save(1, one.window, WALL + 9600)
        assert memory.pieces["mark"] != mark


def refused(p, memory, wall=WALL + 60_000):
    """Return the reason, "nothing" where there was none to refuse, None where it is taken up."""
    try:
        return None if snapshot.load(p, memory, 0, wall) else "nothing"
    except snapshot.Refused as e:
        return str(e)


def test_nothing_there_is_refused():
    memory = put_away()
    for names, reason in (
        (("bin",), "nothing"),
        (("mark",), "NOT_WHOLE"),
        (("bin", "mark"), "nothing"),
    ):
        part = Memory()
        part.pieces.update(memory.pieces)
        for name in names:
            part.pieces[name] = None
        assert refused(profile(), part) == reason
        for name in names:
            part.pieces[name] = b""
        assert refused(profile(), part) == reason


EMPTY = {"bin": "nothing", "mark": "NOT_WHOLE"}


def test_every_truncation_and_each_flipped_bit_is_refused():
    p = profile()
    memory = put_away(p)
    assert not refused(p, memory)
    for name in ("bin", "mark"):
        whole = memory.pieces[name]
        for size in range(len(whole)):
            memory.pieces[name] = whole[:size]
            assert refused(p, memory) == ("BAD_SEAL" if size else EMPTY[name]), (name, size)
        memory.pieces[name] = whole + b"\0"
        assert refused(p, memory) == "BAD_SEAL"
        for at in range(len(whole)):
            bent = bytearray(whole)
            bent[at] ^= 1 << (at & 7)
            memory.pieces[name] = bytes(bent)
            assert refused(p, memory), (name, at)
        memory.pieces[name] = whole
    assert not refused(p, memory)


def test_any_change_of_the_profile_is_refused():
    memory = put_away()
    for change in (
        {"server": "10.3.0.11"},
        {"id": "sensor-2@x"},
        {"gateway": ["other.example.org"]},
        {"sleep": "mark"},
        {"sn_tick_ms": 50},
        {"esp": ["aes128ccm16"]},
        {"inner_port": 5001},
        {"mode": "transport"},
        {"lifetime_ms": 3_600_000},
    ):
        assert refused(profile(**change), memory) == "BAD_SEAL", change
    changed = profile()
    changed["psk"] = b"another"
    assert refused(changed, memory)
    assert not refused(profile(), memory)


def test_one_sas_mark_does_not_serve_another():
    p = profile(sleep="mark")
    mine, other = put_away(p), put_away(p, child(key_out=bytes(19)))
    assert mine.pieces["mark"] != other.pieces["mark"]
    mine.pieces["mark"] = other.pieces["mark"]
    assert refused(p, mine)


def test_an_older_sas_snapshot_is_refused_once_a_new_one_has_sent():
    p = profile(sleep="mark")
    memory = put_away(p)
    old = memory.pieces["bin"]
    sa = fresh(p, memory, child(key_out=bytes(19)))
    assert memory.pieces.get("bin") is None
    sa.numbers.next(0)
    memory.pieces["bin"] = old
    assert refused(p, memory)


def test_a_clock_that_went_back_is_refused():
    memory = put_away(age=5000)
    assert refused(profile(), memory, WALL + 4999) == "CLOCK_WENT_BACK"
    assert refused(profile(), memory, WALL - DAY)
    assert refused(profile(), memory, 0)
    assert not refused(profile(), memory, WALL + 5000)


def test_a_clock_behind_what_was_sent_is_refused():
    p = profile()
    memory = put_away(p)
    sa = snapshot.load(p, memory, 0, WALL + 60_000)
    assert sa.numbers.next(100) == 60_001
    # Put away by a clock that someone had set back in between.
    assert sa.save(1, sa.window, WALL + 10_000)
    assert refused(p, memory, WALL + 20_000)
    assert not refused(p, memory, WALL + 60_000)


def test_beyond_proof_is_a_mark_put_back_by_hand_and_by_the_clock_not_even_that():
    """What firmware/docs/sleep.md names as staying outside."""
    p = profile(sleep="mark")
    memory = put_away(p)
    mark = memory.pieces["mark"]
    sent = snapshot.load(p, memory, 0, 0).numbers.next(0)
    memory.pieces["mark"] = mark
    assert snapshot.load(p, memory, 0, 0).numbers.next(0) == sent

    p = profile()
    memory = put_away(p)
    mark = memory.pieces["mark"]
    sent = snapshot.load(p, memory, 0, WALL + 60_000).numbers.next(10)
    memory.pieces["mark"] = mark
    assert snapshot.load(p, memory, 0, WALL + 60_010).numbers.next(10) > sent
    memory.pieces["mark"] = mark
    # Only together with a clock that went back, but not to before the mark.
    assert snapshot.load(p, memory, 0, WALL + 60_000).numbers.next(10) == sent


def test_an_sa_has_an_end_also_asleep():
    for policy in ("clock", "mark"):
        p = profile(sleep=policy, lifetime_ms=3_600_000)
        memory = put_away(p)
        assert not refused(p, memory, WALL + 3_599_999)
        if policy == "clock":
            assert refused(p, memory, WALL + 3_600_000) == "TOO_OLD"
    # Without a clock each wake-up counts for one interval.
    clock, wakes = 5000, 0
    while not refused(p, memory, 0):
        sa = snapshot.load(p, memory, 0, 0)
        wakes += 1
        clock = sa.age + 1000
        sa.save(0, sa.window, clock)
    assert wakes == 5


@item("D6")
def test_an_sa_whose_gateway_ends_it_sooner_is_refused_from_then_on():
    for policy, clock, wall in (("clock", WALL + 5000, WALL + 60_000), ("mark", 5000, WALL)):
        p = profile(sleep=policy, interval_ms=55_000)  # either way 60 s old at the wake-up
        for life, reason in ((60_001, None), (60_000, "TOO_OLD"), (1, "TOO_OLD")):
            memory = Memory()
            sa = fresh(p, memory)
            sa.life = life
            assert sa.save(0, sa.window, clock)
            for _ in range(2):  # a wake-up that puts it away again hands that on
                assert refused(p, memory, wall) == reason, (policy, life)
                if not reason:
                    sa = snapshot.load(p, memory, 0, wall)
                    assert sa.life == life and sa.save(0, sa.window, clock)


def test_a_step_of_years_ends_the_sa():
    assert refused(profile(), put_away(), WALL + 26 * 365 * DAY)


def test_the_largest_snapshot_takes_195_octets_of_2048():
    p = profile(gateway=["g" * 255])
    six = child(key_out=bytes(35), key_in=bytes(35), inner=bytes(16), server=bytes(16))
    memory = put_away(p, six)
    sizes = [len(memory.pieces[name]) for name in ("bin", "mark")]
    assert sizes == [127, 57] and 1 + sum(sizes) + 10 <= 195


# sleep.Memory


class Board:
    """A `machine` with RTC memory."""

    def __init__(self):
        self.octets = b""

    def RTC(self):
        return self

    def memory(self, octets=None):
        if octets is None:
            return self.octets
        self.octets = bytes(octets)


def with_machine(machine, test):
    had = sys.modules.get("machine")
    sys.modules["machine"] = machine
    try:
        return test()
    finally:
        if had:
            sys.modules["machine"] = had
        else:
            del sys.modules["machine"]


def with_files(test, by_mark=True):
    """Run `test(memory)` on files in a folder of its own, which goes again; return its result."""
    name = "".join(["%02x" % octet for octet in os.urandom(8)])
    path = (os.getenv("TMPDIR") or "/tmp") + "/minipsec-test-" + name
    os.mkdir(path)
    try:
        return test(storage.Memory(path + "/", by_mark))
    finally:
        for name in os.listdir(path):
            os.remove(path + "/" + name)
        os.rmdir(path)


def wake_ups(p, memory, count, packets=1):
    """A new SA, then so many wake-ups; return the writes of one of them."""
    sa = fresh(p, memory)
    wall, last = WALL, 0
    for n in range(count + 1):
        if n == 1:
            before = memory.writes
        for k in range(packets):
            sn = sa.numbers.next(1_000_000 * n + 10_000 + 10 * k)
            assert sn > last
            last = sn
        wall += 20_000
        clock = wall if p["sleep"] == "clock" else sa.age + 20_000
        assert sa.save(packets, sa.window, clock)
        wall += p["interval_ms"]
        sa = snapshot.load(p, memory, 1_000_000 * (n + 1), wall)
        assert sa
    return (memory.writes - before) // count


def test_a_wake_up_costs_no_flash_where_there_is_rtc_memory():
    def test():
        memory = storage.Memory("/nowhere/", False)
        return wake_ups(profile(interval_ms=1000), memory, 20), memory.writes

    assert with_machine(Board(), test) == (0, 0)


def test_a_wake_up_costs_two_writes_in_flash():
    for policy in ("clock", "mark"):
        p = profile(sleep=policy, interval_ms=1000)
        for packets, writes in ((1, 2), (17, 2), (18, 3), (50, 3), (51, 4)):
            found = with_files(lambda memory: wake_ups(p, memory, 5, packets), policy == "mark")
            assert found == writes, packets


def test_flash_writes_a_day():
    """The table of firmware/docs/sleep.md."""
    per_day = {}
    for minutes in (1, 10, 60):
        p = profile(sleep="mark", interval_ms=60_000 * minutes)
        per_day[minutes] = with_files(lambda memory: wake_ups(p, memory, 3)) * (24 * 60 // minutes)
    assert per_day == {1: 2880, 10: 288, 60: 48}
    # Awake all day, a reading a second: marks grow apart.
    memory = Memory()
    sa = fresh(profile(sleep="mark"), memory)
    for n in range(86_400):
        assert sa.numbers.next(0)
    assert memory.writes == 90


def test_pieces_live_side_by_side_and_go_together():
    def test(memory):
        assert not memory.read("bin") and not memory.read("mark")
        assert memory.write("mark", b"m" * 52)
        assert memory.write("bin", b"b" * 70)
        assert bytes(memory.read("mark")) == b"m" * 52
        assert bytes(memory.read("bin")) == b"b" * 70
        assert memory.write("mark", b"n" * 52)
        assert bytes(memory.read("mark")) == b"n" * 52
        assert bytes(memory.read("bin")) == b"b" * 70
        memory.erase()
        assert not memory.read("bin")
        memory.erase()

    with_files(test)
    with_machine(Board(), lambda: test(storage.Memory("", False)))


@item("D3")
def test_rtc_memory_is_the_applications_but_for_a_sleep():
    def test():
        board.octets = b"APP1"
        p = profile(interval_ms=1000)
        memory = storage.Memory("", False)
        sa = fresh(p, memory)
        assert sa.numbers.next(1000)
        assert sa.save(1, sa.window, WALL + 5000)
        assert board.octets == b"APP1"
        assert memory.keep()
        assert board.octets[:4] == b"APP1" and len(board.octets) > 120
        # The next wake-up: ours is taken out before the application looks.
        memory = storage.Memory("", False)
        assert board.octets == b"APP1" and memory.refused is None
        board.octets = b"all of it is written anew"
        assert snapshot.load(p, memory, 0, WALL + 9000)
        assert memory.keep()
        assert board.octets.startswith(b"all of it is written anew")
        whole = board.octets
        for at in range(len(whole)):
            board.octets = whole[:at] + bytes((whole[at] ^ 0x55,)) + whole[at + 1 :]
            memory = storage.Memory("", False)
            if at < 25:
                assert snapshot.load(p, memory, 0, WALL + 9000)
            else:
                # Damaged: it is refused, and the application's stays as it was.
                assert not memory.read("bin")
                assert memory.refused == ("DAMAGED" if at < len(whole) - 6 else None), at
            assert board.octets[:25] == whole[:at][:25] + (
                bytes((whole[at] ^ 0x55,)) + whole[at + 1 : 25] if at < 25 else b""
            )
        # Somebody wrote over ours.
        board.octets = b"mine"
        memory = storage.Memory("", False)
        assert not memory.read("bin") and board.octets == b"mine"
        memory.erase()
        # No room: the application's is never touched.
        board.octets = bytes(2040)
        assert not memory.keep() and board.octets == bytes(2040)
        board.octets = bytes(2048 - 11)
        assert memory.keep() and len(board.octets) == 2048

    board = Board()
    with_machine(board, test)


def test_a_full_or_missing_flash_is_told():
    memory = storage.Memory("/nowhere/at/all/", True)
    assert not memory.write("mark", b"m")
    assert memory.read("mark") is None
    memory.erase()
