"""Edges that one changed character would move: what mutation testing found no test for."""

from minipsec.sequence import ReplayWindow, Sequence

# sequence


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
    assert numbers.next(0) is None and numbers.last == 0
    numbers = Sequence(0, last=7)
    numbers.end()
    assert numbers.next(10**6) is None


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
