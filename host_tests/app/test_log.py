"""What a peer sends may say anything, and stays one line that moves no terminal."""

import json

from host_tests.checklist import item
from minipsec.app import log

ODD = (
    b"one\nerror error=Forged text=all is well",
    b"\r\x1b[2J\x1b]0;title\x07",
    b"\x9b2J \xc2\x9b2J \x7f",
    "right \u202e to left, line \u2028 and \u2029, nothing \u200b\ufeff\u2066".encode(),
    b"\0\x08\x0b\x0c",
)


def printed(function, *given):
    """Return what a call prints."""
    lines = []

    def catch(*words):
        lines.append(" ".join([str(word) for word in words]))

    log.print = catch
    try:
        function(*given)
    finally:
        del log.print
    return lines


def assert_plain(line):
    for c in line:
        assert " " <= c and not "\x7f" <= c < "\xa0" and c not in "\u2028\u2029\ufeff", line
        assert not ("\u200b" <= c <= "\u200f" or "\u202a" <= c <= "\u202e"), line
        assert not "\u2060" <= c <= "\u206f", line


@item("C8")
def test_octets_of_a_peer_forge_no_line_and_move_no_terminal():
    for octets in ODD:
        for say in (log.reporter("text"), log.reporter("json")):
            for fields in (
                {"data": octets},
                {"data": bytearray(octets), "octets": 7},
                {"data": memoryview(octets)},
            ):
                (line,) = printed(say, "reply", fields)
                assert_plain(line)
                assert line.startswith("reply ") or json.loads(line)["event"] == "reply"
        try:
            text = octets.decode()
        except UnicodeError:
            continue
        (line,) = printed(log.reporter("json"), "reply", {"data": octets})
        assert json.loads(line)["data"] == text
        for event in ("error", "hint"):
            (line,) = printed(log.reporter("errors"), event, {"text": text})
            assert_plain(line)


@item("C8")
def test_names_and_umlauts_stay_as_they_are():
    text = "K\u00fcche 21 \u00b0C \u65e5\u672c \U0001f600"
    assert printed(log.reporter("text"), "sent", {"data": text.encode()}) == ["sent data=" + text]
    (line,) = printed(log.reporter("json"), "sent", {"data": text.encode()})
    assert json.loads(line)["data"] == text


def test_a_person_sees_each_state_before_anything_can_fail():
    assert printed(log.reporter("text"), "state", {"state": "IKE_SA_INIT"}) == [
        "state state=IKE_SA_INIT"
    ]
    assert printed(log.reporter("errors"), "state", {"state": "IKE_SA_INIT"}) == []
    assert printed(log.reporter("off"), "error", {"text": "x"}) == []
