"""Edges of fragment acknowledgment that one changed character would move."""

import pytest

from tools.dev.peers.bench import Bench
from minipsec.errors import Drop
from minipsec.ike.fragack import Flight, Reporter, fitting

FLIGHT = [bytes(18) + bytes((35, n)) for n in range(3)]


def test_the_next_question_comes_after_the_round_trip_its_slack_and_the_fragments_gaps():
    for rtt, wait in ((0, 800 + 200), (100, 100 + 25), (60, 60 + 20)):
        reporter = Reporter(4, 2, True)
        reporter.ask([2, 3], 100, None, rtt, 1000)
        assert reporter.due == 1000 + wait + 2 * 2


def test_forty_eight_reports_on_a_message_have_an_effect_and_no_more():
    flight = Flight(FLIGHT, False)
    for n in range(48):
        assert flight.acknowledge({2}, n.to_bytes(8, "big"), [], 0, 1000 * n)
        assert flight.burst(1000 * n) == (FLIGHT[1:2] if n < 3 * 8 else [])
    with pytest.raises(Drop, match="REPLAYED_ACK"):
        flight.acknowledge({2}, bytes(7) + b"\x99", [], 0, 10**6)


def test_a_report_takes_as_many_pairs_as_the_room_has():
    for room, each in ((80, 4), (81, 5), (84, 5), (85, 6)):
        fit = fitting(lambda n: n + 17, room)
        _, reports = Reporter(41, 2, True).ask(range(1, 41, 2), fit, None, 100, 0)
        assert [len(data) for data in reports] == [
            4 * min(each, 20 - done) for done in range(0, 20, each)
        ]


def test_a_message_in_two_fragments_is_resent_as_it_was_reported():
    flight = Flight(FLIGHT[:2], True)
    assert flight.acknowledge({2}, bytes(8), [], 100, 1000)
    assert flight.burst(1000) == FLIGHT[1:2]
    assert flight.again() == FLIGHT[:2]


def test_a_request_of_which_the_peer_has_all_is_one_fragment_whatever_was_reported():
    bench = Bench()
    request = bench.request(300)
    assert len(request) == 3
    bench.send(bench.ack((2, 3)))
    bench.send(bench.fragment(1, 3, b"what begins to come"))
    bench.send(bench.ack((1, 1)))
    assert bench.drops == {"LATE_ACK": 1}

    def resent():
        sent = bench.wait(bench.sa.request.due - bench.now)
        return [datagram for datagram in sent if datagram in request]

    assert resent() == request[:1]
    # That brought nothing: what began to come may have been no response.
    assert resent() == request
    assert bench.send(bench.ack((1, 1))) == request[:1]
