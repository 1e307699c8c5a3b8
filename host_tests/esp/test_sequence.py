"""Sequence numbers out of the clock, and the replay window, edge by edge (RFC 4303 §3.4.3)."""

from host_tests.checklist import item
from host_tests.esp.said import Receiver, said
from minipsec.esp.sequence import ReplayWindow, Sequence

DAY = 86_400_000


# The sender


def test_the_first_number_is_1_and_0_never_comes():
    assert Sequence(0).next(0) == 1
    assert Sequence(123456).next(123456) == 1
    assert Sequence(1000).next(0) == 1


def test_the_clock_alone_carries_the_number():
    numbers = Sequence(0, 100)
    assert [numbers.next(now) for now in (0, 100, 200, 250, 1000, DAY)] == [
        1, 2, 3, 4, 11, 864_001,
    ]  # fmt: skip
    assert numbers.bursts == 1


def test_a_sender_that_lost_its_memory_goes_on_above_all_it_sent():
    awake = Sequence(5000, 100)
    last = [awake.next(5000 + 100 * n) for n in range(50)][-1]
    again = Sequence(5000, 100)
    assert again.next(5000 + 100 * 50) > last


def test_two_in_one_tick_are_one_apart_and_counted():
    numbers = Sequence(0, 1000)
    assert [numbers.next(500) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert numbers.bursts == 4
    assert numbers.next(4999) == 6
    assert numbers.next(10_000) == 11


def test_numbers_only_rise_whatever_the_clock_does():
    numbers = Sequence(0, 100)
    last = 0
    for now in (0, 50, 10_000, 9_000, 0, -5_000, 10_000, 10_050, 20_000, 19_999):
        number = numbers.next(now)
        assert number > last, now
        last = number


def test_a_step_back_neither_lowers_nor_stops_numbers():
    numbers = Sequence(0, 100)
    high = numbers.next(100_000)
    assert numbers.next(0) == high + 1
    assert numbers.next(100_000) == high + 2
    assert numbers.next(101_000) == high + 10


def test_a_leap_beyond_400_days_is_a_clock_fault():
    numbers = Sequence(0, 100)
    assert numbers.next(0) == 1
    assert said(numbers.next, 400 * DAY + 1) == "SPENT"
    assert numbers.last == 1
    assert numbers.next(100) == 2
    assert numbers.next(400 * DAY) == 400 * 864_000 + 1


def test_a_burst_runs_so_far_ahead_of_the_clock_and_no_further():
    numbers = Sequence(0, 3_600_000)
    count = 0
    while said(numbers.next, 0) != "SPENT":
        count += 1
    assert count == 0x10000 + 1
    assert said(numbers.next, 0) == "SPENT"
    assert numbers.next(3_600_000) == count + 1


def test_the_space_is_never_left():
    last = 0xFFFFFFFF - 2
    numbers = Sequence(0, 1, last)
    assert numbers.spent()
    for now in (last, last, last + 1, last + 400 * DAY):
        number = said(numbers.next, now)
        if number != "SPENT":
            assert last < number <= 0xFFFFFFFF
            last = number
    assert said(numbers.next, now) == "SPENT"


def test_an_sa_is_spent_long_before_its_last_number():
    assert not Sequence(0, 1).spent()
    assert not Sequence(0, 1, 0x80000000).spent()
    assert Sequence(0, 1, 0xFFFF0000).spent()
    assert Sequence(0, 1, 0xFFFFFFFF).spent()


def test_a_given_last_number_is_never_repeated():
    assert Sequence(0, 100, last=41).next(0) == 42
    assert Sequence(0, 100, last=41).next(10_000) == 101


# The receiver


def accepts(window, *numbers):
    """Check and commit each; return for which of them it was let in."""
    found = []
    for sn in numbers:
        good = window.check(sn)
        if good:
            window.commit(sn)
        found.append(good)
    return found


def test_zero_never_comes_in():
    for size in (0, 1, 32, 64, 128):
        window = ReplayWindow(size)
        assert accepts(window, 0, 1, 0) == [False, True, False], size


def test_each_number_comes_in_once():
    window = ReplayWindow(64)
    assert accepts(window, 1, 1, 2, 2, 1) == [True, False, True, False, False]


def test_the_window_ends_where_it_says():
    for size in (1, 2, 32, 64, 128):
        window = ReplayWindow(size)
        assert accepts(window, 1000) == [True]
        oldest = 1000 - size + 1
        assert not window.check(oldest - 1), size
        assert window.check(oldest) == (size > 1), size
        assert accepts(window, oldest, oldest) == [size > 1, False], size


def test_all_of_a_window_comes_in_backwards_once():
    window = ReplayWindow(64)
    numbers = list(range(164, 100, -1))
    assert accepts(window, *numbers) == [True] * 64
    assert accepts(window, *numbers) == [False] * 64
    assert accepts(window, 100) == [False]


def test_sliding_by_each_step_keeps_what_was_seen():
    for step in (1, 2, 63, 64, 65, 1000):
        window = ReplayWindow(64)
        accepts(window, 100, 98)
        assert accepts(window, 100 + step) == [True]
        still = step < 64
        assert not window.check(100) and not window.check(98)
        if still and 100 + step - 99 < 64:
            assert window.check(99)
        assert not window.check(100 + step)
        assert window.check(100 + step - 1) == (step > 1)


def test_the_highest_number_comes_in_and_shuts_the_rest_out():
    window = ReplayWindow(64)
    assert accepts(window, 5, 0xFFFFFFFF, 0xFFFFFFFE, 6) == [True, True, True, False]


def test_checking_alone_changes_nothing():
    window = ReplayWindow(64)
    accepts(window, 10)
    for sn in (0xFFFFFFFF, 11, 9, 5000):
        assert window.check(sn)
    assert window.check(11) and window.check(9)
    assert not window.check(10)


def test_size_0_is_no_window_at_all():
    window = ReplayWindow(0)
    assert accepts(window, 5, 5, 1, 0xFFFFFFFF, 1) == [True] * 5


def test_against_a_set_of_everything_seen():
    for size in (1, 8, 32, 64, 128):
        window = ReplayWindow(size)
        seen = set()
        top = 0
        state = 12345
        for _ in range(2000):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            sn = max(top + (state >> 8) % (2 * size + 8) - size - 4, 0)
            expected = sn > 0 and sn not in seen and (sn > top or top - sn < size)
            assert accepts(window, sn) == [expected], (size, sn, top)
            if expected:
                seen.add(sn)
                top = max(top, sn)


# The sender that sleeps: marks and pace


def test_without_a_mark_nothing_goes_out():
    marks = []

    def reserve(mark):
        marks.append(mark)
        return len(marks) < 3

    numbers = Sequence(0, 0, reserve=reserve)
    got = []
    while True:
        number = said(numbers.next, 0)
        if number == "SPENT":
            break
        got.append(number)
        assert number <= marks[-1]
    assert marks == [17, 50, 115]
    assert got == list(range(1, 51))
    assert numbers.last == 50


def test_marks_grow_apart_and_no_further_than_1024():
    marks = []
    numbers = Sequence(0, 0, reserve=lambda mark: marks.append(mark) or True)
    for _ in range(20_000):
        numbers.next(0)
    gaps = [b - a for a, b in zip(marks, marks[1:])]
    assert gaps == sorted(gaps) and gaps[0] == 33 and set(gaps[7:]) == {1025}


def test_a_mark_is_never_beyond_the_end():
    for esn, end in ((False, 0xFFFFFFFF), (True, (1 << 64) - 1)):
        marks = []
        reserve = lambda mark: marks.append(mark) or True  # noqa: B023
        numbers = Sequence(0, 0, end - 5, esn, reserve)
        assert [numbers.next(0) for _ in range(5)] == [end - n for n in (4, 3, 2, 1, 0)]
        assert said(numbers.next, 0) == "SPENT"
        assert max(marks) == end


def test_paced_numbers_stay_below_half_the_time_awake():
    for age in (0, 1000, 600_000):
        numbers = Sequence(5000 - age, 1, age, paced=age)
        last = age
        for now in range(5000, 5200):
            early = numbers.early(now)
            number = said(numbers.next, now)
            assert (early > 0) == (number == "TOO_EARLY")
            if early:
                assert said(numbers.next, now + early - 1) == "TOO_EARLY"
            else:
                assert last < number <= age + (now - 5000) // 2
                last = number
        assert last == age + 99


def test_paced_numbers_follow_the_ticks_where_they_may():
    numbers = Sequence(0, 100, paced=0)
    assert said(numbers.next, 0) == "TOO_EARLY"
    assert numbers.next(2) == 1
    assert numbers.next(1000) == 11
    assert numbers.next(1000) == 12


def test_an_ended_sequence_gives_nothing_whatever_its_kind():
    for numbers in (Sequence(0), Sequence(0, 0), Sequence(0, 100, 500, paced=500)):
        numbers.next(5000)
        last = numbers.last
        numbers.end()
        assert said(numbers.next, 0) == "SPENT" and said(numbers.next, 1 << 40) == "SPENT"
        assert numbers.last == last


# Extended sequence numbers at their end


ALL = (1 << 64) - 1


@item("A5")
def test_extended_numbers_end_with_the_last_of_64_bits():
    """A window at its end, as that of an SA after a reset, lets nothing in, and raises nothing."""
    child = {"spi_in": b"spi4", "key_in": bytes(19), "esn": True}
    ends = bytes((10, 3, 0, 10)), bytes((10, 9, 0, 1)), 5000, 5000
    for cipher in (14, 29):  # the latter with an implicit IV
        for size in (0, 1, 64, 128):
            for top in (ALL, ALL - 1, ALL - 63, ALL - 200, (1 << 63) + 5, (1 << 32) - 1):
                for low in (0, 1, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFC0, 0xFFFFFFFE, 0xFFFFFFFF):
                    receiver = Receiver(
                        dict(child, cipher=cipher), ends, ReplayWindow(size, top, 1)
                    )
                    packet = b"spi4" + low.to_bytes(4, "big") + bytes(40)
                    got = receiver.open(packet)
                    assert got in ("REPLAY", "BAD_ICV"), (size, top, low, got)
                    if top == ALL and size and low < 0xFFFFFF00:
                        assert got == "REPLAY"
                    assert (receiver.window.top, receiver.window.seen) == (top, 1)


@item("A5")
def test_the_last_extended_number_comes_in_once():
    window = ReplayWindow(64, ALL - 1, 1)
    assert window.extend(0xFFFFFFFF) == ALL and window.check(ALL)
    window.commit(ALL)
    assert (window.top, window.seen) == (ALL, 3) and not window.check(ALL)
    assert not window.check(window.extend(0)) and not window.check(ALL + 1)
    sender = Sequence(0, 0, ALL - 1, True)
    assert (sender.next(0), said(sender.next, 0), sender.last) == (ALL, "SPENT", ALL)


@item("A5")
def test_extended_numbers_without_a_window_are_the_nearest():
    window = ReplayWindow(0)
    for sn in (1, 0x7FFFFFF0, 0xFFFFFFF0, (1 << 32) + 5, (1 << 32) - 3, (1 << 32) + 0x70000000):
        assert window.extend(sn & 0xFFFFFFFF) == sn, hex(sn)
        window.commit(sn)
    assert window.top == (1 << 32) + 0x70000000
