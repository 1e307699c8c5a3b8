"""What the sessions of `sessions` are worth: each attribute that an IkeSa holds is missed by one.

An IkeSa is one object from IKE_SA_INIT to its end. Were one of these attributes to begin anew when the
handshake is over, keys, IVs or Message IDs would not go on: some session has to go wrong then.
"""

import pytest

PROGRAM = "host_tests/tunnel/sessions.py"
HELD = (
    "_iv acks answered floated fragmentation incoming mid out peer_mid room rtt rx spi_i spi_out spi_r "
    "tx drops"
).split()
# What UP itself brings: the state, its event, the message at hand; and what poll_out said last.
OF_UP = {"state", "_events", "message", "reply"}


@pytest.mark.item("B3")
def test_whole_sessions_repeat_no_iv_and_no_sn(root, micropython):
    done = micropython(root / PROGRAM, path=[root], heap="6m", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("right ") == 5 and "noticed" not in done.stdout


@pytest.mark.item("B3")
def test_no_other_attribute_is_held_over_up(root, micropython):
    done = micropython(root / PROGRAM, "held", path=[root], heap="6m", check=False)
    assert set(done.stdout.splitlines()[-1].split()) - OF_UP == set(HELD), done.stderr


@pytest.mark.item("B3")
@pytest.mark.parametrize("word", HELD)
def test_a_session_goes_wrong_when_it_begins_anew(word, root, micropython):
    done = micropython(root / PROGRAM, word, path=[root], heap="6m", check=False)
    assert done.returncode == 1 and "noticed" in done.stdout, done.stdout + done.stderr


@pytest.mark.item("B3")
def test_a_counter_that_begins_anew_repeats_an_iv(root, micropython):
    """The oracle itself: with IV 1 once more it is the IV that it names."""
    done = micropython(root / PROGRAM, "_iv", path=[root], heap="6m", check=False)
    assert "twice under one key: ('ike'" in done.stdout
