"""What the sessions of `sessions` are worth: each attribute handed over at UP is missed by one."""

import pytest
from minipsec.ike import established

PROGRAM = "host_tests/tunnel/sessions.py"


@pytest.mark.item("B3")
def test_whole_sessions_repeat_no_iv_and_no_sn(root, micropython):
    done = micropython(root / PROGRAM, path=[root], heap="6m", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("right ") == 5 and "noticed" not in done.stdout


@pytest.mark.item("B3")
@pytest.mark.parametrize("word", established._KEPT.split())
def test_a_session_goes_wrong_without(word, root, micropython):
    done = micropython(root / PROGRAM, word, path=[root], heap="6m", check=False)
    assert done.returncode == 1 and "noticed" in done.stdout, done.stdout + done.stderr


@pytest.mark.item("B3")
def test_a_counter_that_begins_anew_repeats_an_iv(root, micropython):
    """The oracle itself: with IV 1 once more it is the IV that it names."""
    done = micropython(root / PROGRAM, "_iv", path=[root], heap="6m", check=False)
    assert "twice under one key: ('ike'" in done.stdout
