"""Edges of sequence numbers and of the window that one changed character would move."""

import tracemalloc

from host_tests.esp.said import said
from minipsec.esp.sequence import ReplayWindow, Sequence


def test_a_sequence_without_further_words_has_ticks_of_100_ms_and_starts_at_1():
    numbers = Sequence(0)
    assert numbers.next(99) == 1
    numbers = Sequence(0)
    assert numbers.next(100) == 2 and numbers.last == 2


def test_a_window_without_further_words_is_64_wide_and_empty():
    window = ReplayWindow()
    assert (window.top, window.seen) == (0, 0)
    window.commit(100)
    assert window.check(37) and not window.check(36)


def test_a_sequence_that_was_ended_before_its_first_number_gives_none():
    numbers = Sequence(0)
    numbers.end()
    assert said(numbers.next, 0) == "SPENT" and numbers.last == 0
    numbers = Sequence(0, last=7)
    numbers.end()
    assert said(numbers.next, 10**6) == "SPENT"


def test_a_new_sa_is_asked_for_2_to_the_24_numbers_before_the_end():
    for esn, bits in ((False, 32), (True, 64)):
        numbers = Sequence(0, 0, 2**bits - 1 - 2**24, esn)
        assert not numbers.spent()
        numbers.last += 1
        assert numbers.spent()


def test_a_window_keeps_no_bit_beyond_its_width():
    for size in (1, 2, 32, 64, 128):
        window = ReplayWindow(size)
        for sn in range(1, 3 * size + 2):
            window.commit(sn)
            assert window.seen == (1 << min(sn, size)) - 1


def appendix_a2(size, top, low):
    """RFC 4303 appendix A2.2, as it stands there; before the first 2^32 there is nothing."""
    t_high, t_low = top >> 32, top & 0xFFFFFFFF
    if t_low >= size - 1:
        high = t_high if low >= t_low - size + 1 else t_high + 1
    else:
        high = t_high - 1 if low >= t_low - size + 1 + 2**32 and t_high else t_high
    return high << 32 | low


def test_64_bit_numbers_are_guessed_as_the_rfc_does_at_each_edge_of_the_window():
    near = [*range(0, 140), *range(2**31 - 2, 2**31 + 2), *range(2**32 - 140, 2**32)]
    for size in (1, 2, 32, 64):
        for high in (0, 1, 5):
            for top in (0, 1, size - 2, size - 1, size, size + 1, 130, 2**31, 2**32 - 1):
                if top >= 0:
                    window = ReplayWindow(size, high << 32 | top)
                    for low in near:
                        assert window.extend(low) == appendix_a2(size, high << 32 | top, low)


def test_a_step_of_exactly_400_days_is_a_clock_and_one_more_millisecond_is_none():
    most = 400 * 86400 * 1000
    assert Sequence(0, 3600000).next(most) is not None
    assert said(Sequence(0, 3600000).next, most + 1) == "SPENT"


def test_after_a_sleep_the_last_number_waits_for_its_age_and_an_ended_sa_does_not():
    assert said(Sequence(0, 100, 2**32 - 2, paced=0).next, 1000) == "TOO_EARLY"
    numbers = Sequence(0, 100, 7, paced=10**6)
    numbers.end()
    assert said(numbers.next, 0) == "SPENT"


def test_a_leap_of_the_peers_numbers_costs_no_memory():
    """An SN far ahead comes from who has the keys; shifting the window by it would cost 512 MB."""
    window = ReplayWindow(64)
    window.commit(1)
    tracemalloc.start()
    try:
        window.commit(1 << 22)
        assert tracemalloc.get_traced_memory()[1] < 4096
    finally:
        tracemalloc.stop()
    assert window.seen == 1 and window.top == 1 << 22
