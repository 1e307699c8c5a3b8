"""Edges that one changed character would move: what mutation testing found no test for."""

import struct
import tracemalloc
import types

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from host_tests.esp.said import Receiver, said
from minipsec.crypto import ccm
from minipsec.ike import wire
from minipsec.crypto.ccm import CCM
from minipsec.esp.sa import Sender
from minipsec.ike.fragack import Acks
from minipsec.esp.sequence import ReplayWindow, Sequence

# fragack

PROFILE = {
    "frag_ack_types": [50201, 50202, 50203],
    "frag_ack_policy": "eager",
    "frag_ack": "02",
    "fragment_gap_ms": 2,
}


def half_open(**changes):
    """What `Acks` needs of an IKE SA that waits for the answer to a request in three fragments."""
    datagrams = [bytes(18) + bytes((35, n)) for n in range(3)]
    facts = {"rtt": 0, "room": 576, "floated": False, "state": 0, "_mid": 1, "_peer_mid": 0}
    facts |= {"_request": datagrams, "_answered": None, "_queues": {}, "_out": [], "_tries": 1}
    sa = types.SimpleNamespace(**facts | changes, sent=[])
    sa._tx = types.SimpleNamespace(size=lambda n: n + 17)
    sa.seal = lambda *_: b"acknowledgment"
    sa.send = sa.sent.extend
    sa.heard = lambda now: None
    return sa


def lacking(*numbers, total=4):
    queue = types.SimpleNamespace(asks=0, asked=0, due=None, total=total, exchange=35)
    queue.missing = lambda: list(numbers)
    return queue


def test_the_next_question_comes_after_the_round_trip_its_slack_and_the_fragments_gaps():
    for rtt, wait in ((0, 800 + 200), (100, 100 + 25), (60, 60 + 20)):
        queue = lacking(2, 3)
        Acks(PROFILE)._ask(half_open(rtt=rtt), queue, True, 1000)
        assert queue.due == 1000 + wait + 2 * 2


def test_forty_eight_reports_on_a_message_have_an_effect_and_no_more():
    acks, sa = Acks(PROFILE), half_open()
    report = wire.notify(50202, b"\0\2\0\2")
    for n in range(48):
        acks.takes(sa, report, n.to_bytes(8, "big"), 35, 1, 1000 * n)
    with pytest.raises(wire.Drop, match="REPLAYED_ACK"):
        acks.takes(sa, report, bytes(7) + b"\x99", 35, 1, 10**6)


def test_a_report_takes_as_many_pairs_as_the_room_has():
    for room, each in ((80, 4), (81, 5), (84, 5), (85, 6)):
        sa, reports = half_open(room=room), []
        sa.seal = lambda *words, made=reports: made.append(words[-1]) or b""
        Acks(PROFILE)._ask(sa, lacking(*range(1, 41, 2), total=41), True, 0)
        assert [len(plain) - 8 for plain in reports] == [
            4 * min(each, 20 - done) for done in range(0, 20, each)
        ]


def test_a_request_in_two_fragments_is_resent_as_it_was_reported():
    acks, sa = Acks(PROFILE), half_open(rtt=100, _tries=2)
    del sa._request[2:]
    assert acks.resend(sa, False) == sa._request  # nobody has said anything
    acks.takes(sa, wire.notify(50202, b"\0\2\0\2"), bytes(8), 35, 1, 1000)
    assert sa.sent == sa._request[1:]
    assert acks.resend(sa, False) == sa._request


def test_a_request_of_which_the_peer_has_all_is_one_fragment_whatever_was_reported():
    acks, sa = Acks(PROFILE), half_open()
    acks.takes(sa, wire.notify(50202, b"\0\2\0\3"), bytes(8), 35, 1, 1000)
    sa._queues[True] = types.SimpleNamespace(nudged=False, due=None)
    with pytest.raises(wire.Drop, match="LATE_ACK"):
        acks.takes(sa, wire.notify(50202, b"\0\1\0\1"), b"12345678", 35, 1, 2000)
    assert acks.resend(sa, False) == sa._request[:1]
    # That brought nothing: what began to come may have been no response.
    assert acks.resend(sa, False) == sa._request
    acks.takes(sa, wire.notify(50202, b"\0\1\0\1"), b"12345678", 35, 1, 2000)
