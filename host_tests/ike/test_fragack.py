"""Fragment acknowledgment as the firmware does it: the draft's lines and our decisions."""

import itertools
import random
import struct

import pytest
from minipsec.ike import fragack
from minipsec.ike.wire import Drop

from host_tests.checklist import drop_of
from tools.dev.peers.bench import (
    AUTH,
    CREATE_CHILD_SA,
    INFORMATIONAL,
    INTERMEDIATE,
    REQ,
    RES,
    SK,
    SUPPORTED,
    VENDOR,
    Bench,
    I,
    N,
    R,
    octets,
)
from host_tests.ike.test_fragments import ccm_pair, count_opens, events

item = pytest.mark.item
EXCHANGES = (AUTH, CREATE_CHILD_SA, INFORMATIONAL, INTERMEDIATE)
BURST_MS = 50
SLACK_MS = 25  # a quarter of the bench's round trip
GAP_MS = 100  # that the peer may leave between fragments, as long as one alone has come


def asking(bench=None, count=10, lost=(3, 4, 7), **where):
    """A bench whose sensor lacks these fragments of a response (of a request with flags=0)."""
    bench = bench or Bench()
    if where.get("flags", R):
        bench.request(exchange=where.get("exchange", INFORMATIONAL))
    fragments = bench.fragments([(VENDOR, octets(count))], count, **where)
    bench.send(*(fragments[n - 1] for n in range(1, count + 1) if n not in lost))
    return bench, fragments


def asked_in(bench, ms):
    return bench.asked(bench.wait(ms))


# The message.


@item("ACK-03", "ACK-06", "ACK-05", "AMB-01")
def test_a_response_is_reported_on_by_RES_with_its_missing_ranges():
    bench, _ = asking()
    assert asked_in(bench, SLACK_MS)[0] == (RES, [(3, 4), (7, 7)])


@item("ACK-03", "ACK-08")
def test_a_request_is_reported_on_by_REQ_with_R_set():
    for frag_ack in ("02", "03", "04"):
        bench, _ = asking(Bench(frag_ack=frag_ack), flags=0)
        sent = bench.wait(SLACK_MS)
        assert bench.asked(sent)[0] == (REQ, [(3, 4), (7, 7)])
        assert bench.read(sent[0]).flags == I | R


@item("ACK-06")
@pytest.mark.parametrize("present", range(1, 6))
def test_one_fragment_of_the_message_is_enough(present):
    bench, _ = asking(count=5, lost=set(range(1, 6)) - {present})
    ((kind, pairs),) = asked_in(bench, SLACK_MS + (GAP_MS if present < 5 else 0))
    assert kind == RES
    assert [n for low, high in pairs for n in range(low, high + 1)] == [
        n for n in range(1, 6) if n != present
    ]


@item("E5", "ACK-04", "ACK-07", "ACK-08", "AMB-04", "AMB-07")
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(("frag_ack", "flags"), [("02", I | R), ("03", I), ("04", I)])
def test_the_acknowledgment_of_a_response_octet_by_octet(exchange, frag_ack, flags):
    bench = Bench(frag_ack=frag_ack)
    bench.sa.mid = 5
    asking(bench, exchange=exchange, mid=5)
    sent = bench.wait(SLACK_MS)
    message = bench.read(sent[0])
    assert message.payload == SK and message.first == N
    assert (message.exchange, message.flags, message.mid) == (exchange, flags, 5)
    notify = struct.pack(">BBHBBH", 0, 0, 16, 0, 0, RES)
    assert message.plain == notify + struct.pack(">4H", 3, 4, 7, 7)


@item("ACK-07", "AMB-07")
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_acknowledgment_of_a_request_is_of_its_exchange_and_message_id(exchange):
    bench = Bench()
    bench.sa.peer_mid = 9
    asking(bench, exchange=exchange, mid=9, flags=0)
    message = bench.read(bench.wait(SLACK_MS)[0])
    assert (message.exchange, message.mid, message.flags) == (exchange, 9, I | R)


@item("ACK-11", "AMB-21")
@pytest.mark.parametrize(("icv", "size"), [(8, 61), (16, 69)])
def test_its_size_with_one_pair_and_with_more(icv, size):
    from minipsec.crypto.ccm import CCM

    bench = Bench(ciphers=((CCM(bytes(19), icv), CCM(bytes(19), icv)),) * 2)
    bench.sa.floated = False
    asking(bench, 9, (2,))
    assert {len(datagram) for datagram in bench.wait(SLACK_MS)} == {size}
    bench = Bench(ciphers=((CCM(bytes(19), icv), CCM(bytes(19), icv)),) * 2)
    bench.sa.floated = False
    asking(bench, 9, (2, 4, 7, 8))
    assert {len(datagram) for datagram in bench.wait(SLACK_MS)} == {size + 8}


@item("ACK-11", "ACK-12", "AMB-21")
@pytest.mark.parametrize("size", [128, 200, 576])
def test_more_ranges_than_fit_one_datagram_travel_in_several(size):
    lost = set(range(2, 64, 2))
    bench, _ = asking(Bench(fragment_size=size), 64, lost)
    sent = bench.wait(SLACK_MS)
    assert all(len(datagram) <= size - 28 for datagram in sent)
    lists = [pairs for _, pairs in bench.asked(sent)]
    assert {pair for pairs in lists for pair in pairs} == {(n, n) for n in lost}
    assert len({bytes(map(max, pairs)) for pairs in lists}) == {128: 5, 200: 2, 576: 1}[size]


@item("AMB-21", "AMB-02", "AMB-11", "AMB-01")
def test_the_codec_takes_what_the_draft_shows_and_nothing_impossible():
    def read(*numbers, total=12):
        return drop_of(fragack.decode, struct.pack(f">{len(numbers)}H", *numbers), total)

    # "4,4; 7,10" of the draft: 4 and 7..10.
    assert fragack.decode(struct.pack(">4H", 4, 4, 7, 10), 12) == {4, 7, 8, 9, 10}
    assert b"".join(fragack.encode([4, 7, 8, 9, 10])) == struct.pack(">4H", 4, 4, 7, 10)
    assert fragack.decode(b"", 12) == set() and fragack.encode([]) == []
    assert read(1, 12) is None and read(1, 1, 2, 2) is None
    for numbers in [
        (0, 3),  # there is no fragment 0
        (5, 4),  # reversed
        (4, 13),  # beyond Total
        (13, 13),
        (7, 10, 4, 4),  # not ascending
        (4, 7, 7, 10),  # overlapping, as start and count would be read
        (4, 8, 7, 17),  # overlapping, as start and additional would be read
        (1, 65535),
        (65535, 65535),
    ]:
        assert read(*numbers) == "BAD_ACK", numbers
    for size in range(1, 12):
        data = struct.pack(">6H", 1, 1, 3, 3, 5, 5)[:size]
        assert drop_of(fragack.decode, data, 12) == (None if size in (4, 8) else "BAD_ACK")
    pairs = [number for n in range(1, 203, 2) for number in (n, n)]
    assert read(*pairs[:200], total=300) is None  # 100 pairs
    assert read(*pairs[:202], total=300) == "BAD_ACK"


@item("AMB-01", "ACK-05")
def test_what_is_encoded_is_decoded_to_the_same_numbers():
    rng = random.Random(1)
    for _ in range(300):
        total = rng.randrange(1, 65)
        missing = sorted(rng.sample(range(1, total + 1), rng.randrange(total + 1)))
        pairs = fragack.encode(missing)
        flat = struct.unpack(f">{2 * len(pairs)}H", b"".join(pairs))
        assert list(flat) == sorted(flat)
        assert fragack.decode(b"".join(pairs), total) == set(missing)


# Negotiation.


@item("ACK-02")
@pytest.mark.parametrize("flags", [R, 0])
def test_without_negotiation_none_is_sent(flags):
    bench, fragments = asking(Bench(acks=False), flags=flags)
    sent = bench.wait(900) + bench.send(*fragments[:2])
    assert bench.asked(sent) == [] == sent


@item("ACK-02", "AMB-06")
@pytest.mark.parametrize("kind", [REQ, RES])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_without_negotiation_one_that_comes_has_no_effect(kind, exchange):
    bench = Bench(acks=False)
    bench.request(500, exchange)
    before = state(bench)
    assert bench.send(bench.ack((2, 3), kind=kind, exchange=exchange)) == []
    assert state(bench) == before and not bench.sa.responses
    assert bench.drops == {"UNEXPECTED_ACK": 1}


@item("AMB-06")
def test_without_negotiation_its_types_may_mean_anything_beside_other_payloads():
    bench = Bench(acks=False)
    bench.request()
    strange = struct.pack(">BBH", 0, 0, RES) + b"a stranger's own"
    bench.send(bench.message([(VENDOR, b"answer"), (N, strange)]))
    assert bench.sa.responses == [[(VENDOR, b"answer"), (N, strange)]]
    # And a request is answered whatever private notify it carries.
    (answer,) = bench.send(bench.message([(N, strange)], flags=0))
    assert bench.read(answer).flags == I | R


def state(bench):
    """All that an acknowledgment must not change."""
    sa = bench.sa
    return (
        sa.state, sa.mid, sa.peer_mid, standing(sa.request), sa.answered, sorted(sa.incoming),
        [sa.incoming[False].expires] if False in sa.incoming else [],
    )  # fmt: skip


def standing(request):
    """Of a request what no acknowledgment changes."""
    return request and (
        request.exchange, request.due, request.deadline, request.tries, tuple(request.datagrams),
    )  # fmt: skip


# What it must not do.


@item("ACK-09", "AMB-03", "AMB-10")
@pytest.mark.parametrize("flags", [R, 0])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_it_gets_no_answer_and_moves_nothing(flags, exchange):
    bench = Bench()
    first = bench.request(500, exchange)
    sa = bench.sa
    before = sa.state, sa.mid, sa.peer_mid, sa.request.deadline, sa.request.tries
    sent = bench.send(bench.ack((2, 3), exchange=exchange, flags=flags))
    assert sent == first[1:3]
    assert (sa.state, sa.mid, sa.peer_mid, sa.request.deadline, sa.request.tries) == before
    assert sa.request.datagrams == first and not sa.responses and not sa.requests
    # The exchange goes on to its end.
    bench.send(bench.message([(VENDOR, b"done")], exchange=exchange))
    assert len(sa.responses) == 1 and sa.mid == 1


@item("AMB-10")
def test_beside_a_whole_response_it_is_refused_as_one():
    bench = Bench()
    first = bench.request(500, AUTH)
    beside = [(39, b"AUTH"), (33, b"SA")]
    sent = bench.send(bench.ack((1, 1), beside=beside, exchange=AUTH))
    assert sent == first[:1] and not bench.sa.responses
    ack = struct.pack(">BBHHH", 0, 0, REQ, 2, 2)
    sent = bench.wait(200) + bench.send(bench.message([*beside, (N, ack)], exchange=AUTH))
    assert first[1] in sent and not bench.sa.responses


@item("AMB-10")
def test_an_empty_list_has_no_effect():
    bench = Bench()
    bench.request(500)
    before = state(bench)
    bench.now += 10
    assert bench.send(bench.ack()) == [] and state(bench) == before and bench.drops == {}
    assert bench.wait(100) == []


@item("AMB-03", "ACK-08")
@pytest.mark.parametrize("flags", [R, 0])
def test_the_type_tells_the_direction_where_both_could_be_meant(flags):
    """Our request 0 and our answer to the peer's request 0 are both out, same exchange."""
    bench = Bench()
    bench.sa.answer = [(VENDOR, octets(30))]
    answer = bench.send(bench.message([], flags=0))
    request = bench.request(600)
    assert len(answer) > 3 and len(request) > 3
    assert bench.send(bench.ack((2, 2), kind=RES, flags=flags)) == answer[1:2]
    assert bench.send(bench.ack((3, 3), kind=REQ, flags=flags)) == request[2:3]
    assert bench.drops == {}


def in_fragments(bench, count, kind=REQ, pairs=((2, 2),), beside=(), **where):
    """An acknowledgment in SKF payloads, which the draft does not foresee."""
    numbers = [number for pair in pairs for number in pair]
    ack = struct.pack(f">BBH{len(numbers)}H", 0, 0, kind, *numbers)
    return bench.fragments([(N, ack), *beside], count, **where)


@item("B5", "AMB-04")
@pytest.mark.parametrize("flags", [R, 0])
@pytest.mark.parametrize("beside", [(), [(39, b"AUTH"), (33, b"SA")]])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_in_one_fragment_it_is_what_it_is_in_an_SK_payload(flags, beside, exchange):
    bench = Bench()
    first = bench.request(500, exchange)
    before = state(bench)[:4]
    ack = in_fragments(bench, 1, beside=beside, flags=flags, exchange=exchange)
    assert bench.send(*ack) == first[1:2] and bench.drops == {}
    assert state(bench)[:4] == before and bench.sa.request.datagrams == first
    bench.now += 200
    assert bench.send(*ack) == [] and bench.drops == {"REPLAYED_ACK": 1}
    bench.send(*bench.fragments([(VENDOR, octets(4))], 4, exchange=exchange))
    assert bench.sa.responses == [[(VENDOR, octets(4))]]


@item("B5")
@pytest.mark.parametrize("flags", [R, 0])
def test_in_one_fragment_it_may_report_on_our_answer(flags):
    bench = Bench()
    bench.sa.answer = [(VENDOR, octets(50))]
    answer = bench.send(bench.message([], flags=0))
    assert len(answer) > 5
    assert bench.send(*in_fragments(bench, 1, RES, [(2, 3)], flags=flags)) == answer[1:3]
    assert bench.sa.peer_mid == 1 and bench.drops == {}


@item("B5")
@pytest.mark.parametrize("mid", [1, 7])
@pytest.mark.parametrize("kind", [REQ, RES])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("flags", [R, 0])
def test_in_fragments_of_another_message_id_it_is_dropped(mid, kind, count, flags):
    bench = Bench()
    bench.sa.peer_mid = 4
    first = bench.request(500)
    before = state(bench)
    assert bench.send(*in_fragments(bench, count, kind, mid=mid, flags=flags)) == []
    assert state(bench) == before and bench.sa.request.datagrams == first
    assert bench.drops == {"OLD_MESSAGE_ID": count}


@item("B5", "AMB-04")
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("flags", [R, 0])
@pytest.mark.parametrize("kind", [REQ, RES])
@pytest.mark.parametrize("came", [1, 2, 4])
def test_in_several_fragments_it_has_no_effect_and_the_exchange_lives(count, flags, kind, came):
    """Whole or in part; a gateway that means no harm sends its answer in as many or more."""
    bench = Bench()
    first = bench.request(500)
    ack = in_fragments(bench, count, kind, [(n, n) for n in range(1, 6)], flags=flags)[:came]
    assert bench.send(*ack) == []
    assert bench.sa.request.datagrams == first and not bench.sa.requests + bench.sa.responses
    if came >= count:
        assert bench.drops == {"UNEXPECTED_ACK": 1} and bench.sa.incoming == {}
    # Both of the timer's resends together are all of it, and an SK payload's report is heeded.
    sent = bench.wait(2500)
    assert set(first) <= set(sent)
    bench.now += 200
    sent = bench.send(bench.ack((3, 3)))
    assert [datagram for datagram in sent if not bench.asked([datagram])] == first[2:3]
    bench.send(*bench.fragments([(VENDOR, octets(5))], 5))
    assert bench.sa.responses == [[(VENDOR, octets(5))]]


@item("B5", "AMB-20")
def test_in_one_fragment_it_leaves_what_waits_alone():
    bench, fragments = asking(lost=(4, 9))
    opened = count_opens(bench)
    bench.send(*in_fragments(bench, 1, RES), *in_fragments(bench, 1))
    assert bench.drops == {"LATE_ACK": 2} and len(opened) == 2
    # Any other message in one fragment is of a smaller Total (RFC 7383 §2.6).
    bench.send(*bench.fragments([(VENDOR, b"whole")], 1))
    assert bench.drops == {"LATE_ACK": 2, "BAD_FRAGMENT": 1}
    bench.send(fragments[3], fragments[8])
    assert bench.sa.responses == [[(VENDOR, octets(10))]]


@item("B5", "AMB-03")
@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("order", [(REQ, RES), (RES, REQ)])
@pytest.mark.parametrize("flags", [R, 0])
def test_both_kinds_in_one_message_are_heeded(count, order, flags):
    bench = Bench()
    bench.sa.answer = [(VENDOR, octets(30))]
    answer = bench.send(bench.message([], flags=0))
    request = bench.request(600)
    acks = [(N, struct.pack(">BBHHH", 0, 0, kind, 2, 3)) for kind in order]
    whole = bench.fragments(acks, 1, flags=flags) if count else [bench.message(acks, flags=flags)]
    assert sorted(bench.send(*whole)) == sorted(answer[1:3] + request[1:3])
    assert bench.drops == {}


@item("B5")
def test_of_both_kinds_one_that_is_late_does_not_hide_the_other():
    for order in ((REQ, RES), (RES, REQ)):
        bench = Bench()
        request = bench.request(600)
        acks = [(N, struct.pack(">BBHHH", 0, 0, kind, 2, 3)) for kind in order]
        assert bench.send(bench.message(acks)) == request[1:3]
        assert bench.drops == {"LATE_ACK": 1}


@item("B5")
def test_two_reports_of_one_kind_in_a_message_count_together():
    bench = Bench()
    request = bench.request(600)
    acks = [(N, struct.pack(">BBHHH", 0, 0, REQ, n, n)) for n in (2, 4)]
    assert bench.send(bench.message(acks)) == [request[1]]
    assert bench.wait(BURST_MS) == [request[3]]


@item("B5", "ACK-02")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("flags", [R, 0])
def test_without_negotiation_one_in_fragments_has_no_effect(count, flags):
    bench = Bench(acks=False)
    first = bench.request(500)
    assert bench.send(*in_fragments(bench, count, flags=R)) == []
    assert (
        bench.sa.request.datagrams == first and not bench.sa.responses and bench.sa.incoming == {}
    )
    assert bench.drops == {"UNEXPECTED_ACK": 1}


@item("B5")
def test_a_whole_answer_in_one_fragment_is_taken():
    for acks in (True, False):
        bench = Bench(acks=acks)
        bench.request(500)
        bench.send(*bench.fragments([(VENDOR, b"done")], 1))
        assert bench.sa.responses == [[(VENDOR, b"done")]]
        (answer,) = bench.send(*bench.fragments([(VENDOR, b"asked")], 1, flags=0))
        assert bench.read(answer).flags == I | R
    bench = Bench(fragmentation=False, acks=False)
    bench.request()
    assert bench.send(*bench.fragments([(VENDOR, b"done")], 1)) == []
    assert bench.drops == {"UNEXPECTED_FRAGMENT": 1} and not bench.sa.responses


@item("B5", "FRG-20")
def test_a_message_that_was_joined_and_dropped_leaves_nothing_behind():
    """Else what comes next is counted on top of it, and is TOO_LARGE in the end."""
    bench = Bench()
    bench.request()
    for _ in range(12):
        plain = b"\xff" * 1000  # no payloads
        bench.send(*(bench.fragment(n, 10, plain[100 * n - 100 : 100 * n], 43 if n == 1 else 0)
                     for n in range(1, 11)))  # fmt: skip
    assert bench.sa.incoming == {} and bench.sa.state == 4
    bench.send(*bench.fragments([(VENDOR, octets(5))], 5))
    assert bench.sa.responses == [[(VENDOR, octets(5))]]


@item("AMB-20")
def test_it_does_not_close_a_queue_of_fragments():
    bench, fragments = asking(lost=(4, 9))
    bench.send(bench.ack((1, 1)), bench.ack(), bench.ack((1, 2), kind=RES))
    bench.send(fragments[3], fragments[8])
    assert bench.sa.responses == [[(VENDOR, octets(10))]]


# Resending.


@item("ACK-10", "ACK-17", "ACK-13")
def test_only_what_is_missing_is_resent_lowest_first_with_the_same_octets():
    bench = Bench()
    first = bench.request(900)
    assert bench.send(bench.ack((2, 3), (6, 6))) == [first[1], first[2], first[5]]


@item("ACK-13", "AMB-05", "ACK-12")
def test_several_acknowledgments_count_together_until_the_next_burst():
    bench = Bench()
    first = bench.request(900)
    assert bench.send(bench.ack((5, 5))) == [first[4]]
    assert bench.send(bench.ack((7, 8)), bench.ack((2, 2)), bench.ack((8, 9))) == []
    assert bench.numbers(bench.wait(BURST_MS)) == [2, 7, 8, 9]
    assert bench.wait(BURST_MS) == []


@item("AMB-05")
def test_what_was_resent_is_out_of_the_union_until_it_is_reported_again():
    bench = Bench()
    first = bench.request(900)
    bench.send(bench.ack((2, 4)))
    # Written before the burst can have arrived: of fragments 2..4 it says nothing new.
    bench.now += 60
    assert bench.send(bench.ack((2, 5))) == [first[4]]
    assert bench.wait(BURST_MS) == []
    bench.now += 101
    assert bench.send(bench.ack((3, 3))) == [first[2]]


@item("AMB-05")
def test_from_a_round_trip_after_the_burst_a_report_is_taken_at_its_word():
    bench = Bench(rtt=100)
    first = bench.request(900)
    assert bench.send(bench.ack((2, 4))) == first[1:4]
    bench.now += 99
    assert bench.send(bench.ack((2, 2))) == []
    bench.now += 1
    assert bench.send(bench.ack((3, 3))) == [first[2]]


@item("AMB-05")
def test_a_first_report_is_answered_at_once_when_the_clock_has_just_begun():
    bench = Bench(rtt=0)
    bench.now = 0
    first = bench.request(500)
    assert bench.send(bench.ack((2, 2))) == first[1:2]


@item("AMB-05")
def test_a_round_trip_taken_for_too_long_does_not_silence_a_peer_that_insists():
    bench = Bench(rtt=5000)
    first = bench.request(900)
    assert bench.send(bench.ack((2, 4))) == first[1:4]
    bench.now += 100
    assert bench.send(bench.ack((3, 3))) == []
    bench.now += 100
    assert bench.send(bench.ack((3, 3))) == [first[2]]


@item("AMB-17")
def test_the_round_trip_is_that_of_an_exchange_in_single_datagrams():
    bench = Bench(rtt=0)
    bench.request()
    bench.now += 80
    bench.send(bench.message([]))
    assert bench.sa.rtt == 80
    bench.request(900)  # in fragments: under way for longer
    bench.now += 300
    bench.send(bench.message([], mid=1))
    assert bench.sa.rtt == 80
    bench.request()
    bench.now += 200
    bench.send(*bench.fragments([(VENDOR, octets(2))], 2, mid=2))
    assert bench.sa.rtt == 80


@item("AMB-17")
@pytest.mark.parametrize(("after", "rtt"), [(300, 300), (40, 125)])
def test_after_a_resend_the_round_trip_is_guessed_not_too_low(after, rtt):
    bench = Bench(rtt=0)
    bench.request()
    assert len(bench.wait(1000)) == 1
    bench.now += after
    bench.send(bench.message([]))
    assert bench.sa.rtt == rtt
    # A known one is not given up for a guess.
    bench.sa.rtt = 90
    bench.request()
    bench.wait(1000)
    bench.send(bench.message([], mid=1))
    assert bench.sa.rtt == 90


@item("AMB-05")
def test_reports_in_another_order_cost_duplicates_at_most():
    for order in itertools.permutations(range(3)):
        bench = Bench()
        first = bench.request(900)
        acks = [bench.ack((2, 6)), bench.ack((3, 5)), bench.ack((4, 4))]
        sent = []
        for i in order:
            bench.now += 101
            sent += bench.send(acks[i])
        assert set(sent) == set(first[1:6]) and len(sent) == 5 + 3 + 1


@item("AMB-12")
def test_it_restarts_the_interval_but_not_the_time_to_give_up():
    bench = Bench(rtt=0)
    first = bench.request(900)
    until = bench.now + 31000
    for _ in range(8):
        bench.now += 900
        assert bench.send(bench.ack((2, 2))) == [first[1]]
    sa = bench.sa
    assert sa.request.tries == 1 and sa.request.due == bench.now + 1000
    assert sa.request.deadline == until
    bench.wait(until - bench.now - 1)
    assert sa.request
    bench.wait(1)
    assert ("failed", "timeout", INFORMATIONAL) in events(bench)


@item("AMB-12")
def test_bursts_are_50_ms_apart():
    bench = Bench(rtt=1)
    bench.request(900)
    times = []
    for _ in range(40):
        bench.now += 7
        if bench.send(bench.ack((2, 2))) or bench.wait(0):
            times.append(bench.now)
    assert len(times) > 3
    assert all(later - earlier >= BURST_MS for earlier, later in itertools.pairwise(times))


@item("AMB-12", "AMB-18")
@pytest.mark.parametrize(("state", "messages"), [(4, 8), (3, 6), (5, 8)])
def test_amplification_is_bounded_per_exchange(state, messages):
    """However many acknowledgments a peer sends, it gets 8 messages' worth, 6 before AUTH.

    State 5 is that of an SA being deleted, whose peer has authenticated itself, too.
    """
    bench = Bench()
    sent = first = bench.request(900, AUTH)
    bench.sa.state = state
    bench.sa.table.update({(state, AUTH, True): bench.sa.table[4, AUTH, True]})
    total = len(first)
    sent = []
    for _ in range(400):
        bench.now += 101
        bench.sa.request.due = bench.sa.request.deadline  # without the timer's own
        sent += bench.send(bench.ack((1, total), exchange=AUTH))
    assert len(sent) == messages * total


@item("AMB-12")
def test_small_bursts_may_be_more_than_eight():
    """A queue that takes 4 of a burst needs 11 of them for 45 fragments: the bound allows it."""
    bench = Bench()
    first = bench.request(107 * 45 - 4)
    assert len(first) == 45
    bursts = []
    for low in range(5, 46, 4):
        bench.now += 130
        bursts.append(bench.numbers(bench.send(bench.ack((low, 45)))))
    assert bursts == [list(range(low, 46)) for low in range(5, 46, 4)]


@item("AMB-05", "FRG-15")
def test_what_still_waits_for_its_turn_is_not_resent():
    """With a long gap between our fragments a hasty peer calls missing what was not sent yet."""
    bench = Bench()
    sa = bench.sa
    assert sa.ask(INFORMATIONAL, [(VENDOR, bytes(900))], bench.now)
    first = [bytes(sa.poll_out()) for _ in range(3)]
    bench.now += 200
    sa.receive(bench.ack((2, 2), (4, 9)), bench.now)
    rest = bench.out()
    assert bench.numbers(first + rest) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 2]
    bench.now += 200
    assert bench.numbers(bench.send(bench.ack((4, 5)))) == [4, 5]


@item("AMB-13")
def test_the_timer_resends_what_is_missing_and_fragment_1():
    bench = Bench(frag_ack_policy="conservative")
    bench.request(900)
    bench.send(bench.ack((4, 5)))
    assert bench.numbers(bench.wait(400)) == [1, 4, 5]
    bench.send(bench.ack((7, 7)))
    assert bench.numbers(bench.wait(700)) == [1, 7]


@item("AMB-13", "FRG-13")
def test_while_nothing_is_known_the_timer_resends_all():
    bench = Bench(frag_ack_policy="conservative")
    first = bench.request(900)
    assert bench.wait(400) == first
    bench = Bench(rtt=0)
    first = bench.request(900)
    assert bench.wait(1000) == first


@item("H3", "AMB-13", "FRG-13")
@pytest.mark.parametrize("policy", ["eager", "conservative"])
def test_each_resend_of_the_timer_is_of_all_fragments_while_nothing_is_reported(policy):
    """RFC 7383 §2.6.1; §6.3 of the draft relaxes it for what a peer calls missing."""
    bench = Bench(frag_ack_policy=policy)
    first = bench.request(900)
    pause = 3 * 100 + 2 * len(first)
    for times in (1, 3, 9, 27):
        assert bench.wait(times * pause - 1) == [] and bench.wait(1) == first


@item("H2", "AMB-12")
@pytest.mark.parametrize("octets", [0, 900])
@pytest.mark.parametrize("tries", [1, 2, 5, 7])
@pytest.mark.parametrize("ms", [50, 1000, 2000, 60000])
@pytest.mark.parametrize("rtt", [0, 1, 100, 900, 20000])
def test_a_request_is_sent_as_often_as_the_profile_says_within_its_time(octets, tries, ms, rtt):
    """Only the first interval is shorter where the round trip is known."""
    bench = Bench(rtt=rtt, retransmit_ms=ms, retransmit_tries=tries)
    began = bench.now
    sent = [(0, bench.request(octets))]
    while bench.sa.request:
        got = bench.wait(bench.sa.next_timer() - bench.now)
        if got:
            sent.append((bench.now - began, got))
    assert [datagrams for _, datagrams in sent] == [sent[0][1]] * tries
    assert bench.now - began == ms * (2**tries - 1)
    assert ("failed", "timeout", INFORMATIONAL) in events(bench)
    if tries > 1:
        quick = max(200, 3 * rtt) + 2 * len(sent[0][1])
        assert sent[1][0] == (min(ms, quick) if rtt else ms)
    pauses = [later - at for (at, _), (later, _) in itertools.pairwise(sent)]
    assert pauses == sorted(pauses)


@item("H2", "AMB-12")
def test_tries_and_intervals_begin_anew_when_the_peer_tells_something_of_the_exchange():
    """Else a message that a bad link carries piece by piece would be given up with its end near."""
    bench = Bench()
    first = bench.request(900)
    until = bench.now + 31000
    bench.wait(10000)
    bench.send(bench.ack((2, 2)))
    assert bench.numbers(bench.wait(400)) == [1, 2]
    bench.wait(5000)
    fragments = bench.fragments([(VENDOR, octets(20))], 20)
    bench.send(fragments[0])
    sent = [datagram for datagram in bench.wait(1400) if not bench.asked([datagram])]
    assert sent and sent[0] == first[0]
    # The time to give up is not put off.
    for n in range(1, 19):
        bench.wait((until - bench.now) // 2)
        bench.send(fragments[n])
    bench.wait(until - bench.now)
    assert ("failed", "timeout", INFORMATIONAL) in events(bench)


# The gap between the peer's fragments.


def burst(bench, count, gap, until=None, mid=0):
    """Deliver a response's fragments so many ms apart, the first `until`; return what was asked."""
    fragments = bench.fragments([(VENDOR, octets(count))], count, mid=mid)
    sent = []
    for number, fragment in enumerate(fragments[:until]):
        sent += (bench.wait(gap) if number else []) + bench.send(fragment)
    return bench.asked(sent)


@item("H1", "AMB-17")
@pytest.mark.parametrize("policy", ["eager", "conservative"])
@pytest.mark.parametrize("gap", [0, 1, 10, 40, 70, 100, 120])
@pytest.mark.parametrize("count", [2, 3, 14, 45])
def test_nothing_is_asked_of_a_peer_that_paces_its_fragments(policy, gap, count):
    bench = Bench(frag_ack_policy=policy, retransmit_ms=60000)
    bench.request()
    assert burst(bench, count, gap) == [] and len(bench.sa.responses) == 1
    # Nor of what it asks itself.
    fragments = bench.fragments([(VENDOR, octets(count))], count, flags=0)
    sent = []
    for fragment in fragments:
        sent += bench.wait(gap) + bench.send(fragment)
    assert bench.asked(sent) == [] and len(bench.sa.requests) == 1


@item("H1", "AMB-17")
@pytest.mark.parametrize("gap", [5, 40, 100])
def test_the_end_of_a_burst_is_where_its_pace_puts_it(gap):
    bench = Bench(retransmit_ms=60000)
    bench.request()
    assert burst(bench, 14, gap, until=10) == []
    assert bench.wait(4 * gap + SLACK_MS - 1) == []
    assert asked_in(bench, 1)[0] == (RES, [(11, 14)])


@item("H1", "AMB-17")
def test_what_one_message_taught_holds_for_the_next():
    bench = Bench(retransmit_ms=60000)
    for mid, gap in enumerate((40, 40, 3, 3)):
        bench.request()
        assert burst(bench, 14, gap, until=1, mid=mid) == []
        due = bench.sa.next_timer() - bench.now
        assert due == SLACK_MS + (GAP_MS, 13 * 40, 13 * 40, 13 * 3)[mid]
        for fragment in bench.fragments([(VENDOR, octets(14))], 14, mid=mid)[1:]:
            bench.now += gap
            bench.send(fragment)
        assert len(bench.sa.responses) == mid + 1


@item("H1")
def test_a_longer_gap_of_ours_is_what_a_peer_may_leave_as_well():
    for ours, wait in ((2, GAP_MS), (20, GAP_MS), (60, 4 * 60)):
        bench = Bench(retransmit_ms=60000, fragment_gap_ms=ours)
        bench.request()
        bench.send(bench.fragments([(VENDOR, octets(5))], 5)[0])
        assert bench.sa.next_timer() == bench.now + wait + SLACK_MS


@item("H1", "ACK-15")
def test_after_one_that_came_twice_those_behind_it_may_still_come():
    bench = Bench(retransmit_ms=60000, frag_ack_policy="conservative")
    bench.request()
    fragments = bench.fragments([(VENDOR, octets(10))], 10)
    bench.send(*fragments[:8], after=40)
    bench.send(fragments[6])
    assert bench.sa.next_timer() == bench.now + 3 * 40 + SLACK_MS


def taught(bench, mid):
    """The gap that the sensor expects, told by when it would ask after fragment 1 of 3."""
    bench.request()
    bench.send(bench.fragments([(VENDOR, octets(3))], 3, mid=mid)[0])
    return (bench.sa.next_timer() - bench.now - SLACK_MS) / 2


@item("H1")
def test_only_what_was_authenticated_teaches():
    bench = Bench(ciphers=ccm_pair(), retransmit_ms=60000)
    bench.request()
    fragments = bench.fragments([(VENDOR, octets(5))], 5)
    bench.send(fragments[0])
    for number in (2, 3, 4, 5):
        bench.now += 20
        bench.send(bench.fragment(number, 5, bytes(20))[:-8] + b"no seal.")
    assert bench.drops == {"BAD_ICV": 4}
    assert bench.sa.next_timer() == bench.now - 80 + GAP_MS + SLACK_MS
    bench.now += 10
    bench.send(*fragments[1:], after=90)
    assert taught(bench, 1) == 90


@item("H1")
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_fragments_that_overtake_each_other_teach_within_what_they_took(order):
    bench = Bench(retransmit_ms=60000)
    bench.request()
    fragments = bench.fragments([(VENDOR, octets(4))], 4)
    bench.send(*(fragments[n] for n in order), after=30)
    assert taught(bench, 1) <= 90


@item("H1")
def test_a_lost_burst_or_a_link_that_stood_still_teaches_nothing_wrong():
    # Two of three fragments are lost all along: the gap is that of the numbers.
    bench = Bench(retransmit_ms=60000)
    bench.request()
    fragments = bench.fragments([(VENDOR, octets(13))], 13)
    for number in (0, 3, 6, 9, 12):
        bench.send(fragments[number])
        bench.now += 60
    bench.send(*fragments)
    assert taught(bench, 1) == 20
    # Between the first two the link stood still for 3 s.
    bench = Bench(retransmit_ms=60000, rtt=20000)
    bench.request()
    fragments = bench.fragments([(VENDOR, octets(13))], 13)
    bench.send(fragments[0])
    bench.now += 3000
    bench.send(*fragments[1:])
    bench.request()
    bench.send(bench.fragments([(VENDOR, octets(3))], 3, mid=1)[0])
    assert bench.sa.next_timer() == bench.now + GAP_MS + 5000


@item("H1", "ACK-15")
def test_a_second_sending_teaches_nothing():
    """What comes after a question may be its answer, and what comes twice a resend."""
    for again in (False, True):
        bench = Bench(retransmit_ms=60000)
        bench.request()
        fragments = bench.fragments([(VENDOR, octets(4))], 4)
        bench.send(fragments[0])
        if again:
            bench.now += 60
            bench.send(fragments[0])  # anyone may have sent it
            bench.now += 40
        else:
            assert bench.asked(bench.wait(GAP_MS + SLACK_MS))
            bench.now += 50
        bench.send(*fragments[1:])
        assert len(bench.sa.responses) == 1
        assert taught(bench, 1) == GAP_MS / 2  # one fragment may be under way for so long


@item("H1")
def test_however_long_the_gap_the_wait_for_a_question_is_bounded():
    for count, gap, wait in ((4, 250, 500), (4, 251, GAP_MS), (45, 200, 1000), (45, 5000, GAP_MS)):
        bench = Bench(retransmit_ms=60000, rtt=4000)
        bench.request()
        fragments = bench.fragments([(VENDOR, octets(count))], count)
        bench.send(fragments[0])
        bench.now += gap
        bench.send(fragments[1])
        assert bench.sa.next_timer() == bench.now + wait + 1000  # a quarter of the round trip


@item("H1", "ACK-15")
@pytest.mark.parametrize(("after", "gap"), [(49, 87), (50, GAP_MS / 2), (70, GAP_MS / 2)])
def test_half_a_round_trip_after_a_question_what_comes_may_be_its_answer(after, gap):
    bench = Bench(retransmit_ms=60000)
    bench.request()
    fragments = bench.fragments([(VENDOR, octets(4))], 4)
    bench.send(fragments[0])
    assert bench.asked(bench.wait(GAP_MS + SLACK_MS))
    bench.now += after
    bench.send(fragments[1])
    bench.send(*fragments[2:])
    assert taught(bench, 1) == gap


@item("H1")
def test_the_timer_waits_for_a_paced_burst_as_well():
    """Else it would have a peer resend its whole response of which some was lost."""
    bench = Bench(rtt=10)
    bench.request()
    fragments = bench.fragments([(VENDOR, octets(14))], 14)
    sent = []
    for number, fragment in enumerate(fragments):
        if number not in (4, 5, 6, 7):
            sent += bench.send(fragment)
        sent += bench.wait(80)
    assert sent and len(bench.asked(sent)) == len(sent)


@item("AMB-13", "AMB-15")
def test_once_the_response_begins_a_timer_resends_fragment_1_alone_and_then_all():
    bench = Bench()
    first = bench.request(900)
    bench.send(bench.ack((2, 3)))
    fragments = bench.fragments([(VENDOR, octets(20))], 20)
    bench.send(fragments[0])
    # A report on the request is late now, also one that still waits for its burst.
    assert bench.send(bench.ack((3, 3))) == [] and bench.drops == {"LATE_ACK": 1}

    def resent(ms):
        sent = bench.wait(ms)
        return [datagram for datagram in sent if not bench.asked([datagram])]

    assert resent(500) == first[:1]
    # That brought nothing new: the peer may lack something of the request after all.
    assert resent(1000) == first[:3]
    bench.send(fragments[1])
    assert resent(500) == first[:1]
    bench.send(*fragments)
    assert len(bench.sa.responses) == 1


@item("AMB-15")
def test_a_burst_that_waits_is_forgotten_when_the_response_begins():
    bench = Bench()
    bench.request(900)
    bench.send(bench.ack((2, 2)))
    assert bench.send(bench.ack((4, 4))) == []
    bench.send(bench.fragments([(VENDOR, octets(20))], 20)[0])
    assert bench.numbers(bench.wait(BURST_MS)) == []
    assert bench.send(bench.message([])) == []
    assert bench.wait(60000) == []


@item("AMB-15")
@pytest.mark.parametrize("kind", [REQ, RES])
def test_a_late_or_early_one_is_ignored_and_resets_nothing(kind):
    bench = Bench()
    bench.request(900)
    late = [
        bench.ack((2, 2), kind=kind),
        bench.ack((2, 2), kind=kind, mid=1),
        bench.ack((2, 2), kind=kind, mid=77),
        bench.ack((2, 2), kind=kind, flags=0),
        bench.ack((2, 2), kind=kind, exchange=AUTH),
    ]
    bench.send(bench.message([]))
    assert bench.sa.mid == 1
    before = state(bench)
    assert bench.send(*late) == [] and state(bench) == before
    assert sum(bench.drops.values()) == len(late)
    bench.request(900)  # Message ID 1
    before = state(bench)
    assert bench.send(late[0], late[3], late[4], bench.ack((2, 2), mid=2)) == []
    assert bench.send(bench.ack((2, 2), mid=1, exchange=AUTH)) == []
    assert state(bench) == before


@item("AMB-15")
def test_one_about_a_message_in_one_datagram_is_ignored():
    bench = Bench()
    bench.request()
    assert bench.send(bench.ack((1, 1))) == [] and bench.drops == {"LATE_ACK": 1}
    bench.send(bench.message([], flags=0))
    assert bench.send(bench.ack((1, 1), kind=RES)) == [] and bench.drops == {"LATE_ACK": 2}


@item("AMB-16")
def test_ranges_are_judged_against_the_total_in_flight():
    bench = Bench()
    total = len(bench.request(900))
    assert bench.send(bench.ack((2, total + 1)), bench.ack((total + 1, total + 1))) == []
    assert bench.drops == {"BAD_ACK": 2}
    assert len(bench.send(bench.ack((2, total)))) == total - 1


@item("AMB-02", "AMB-11", "AMB-09", "ACK-04", "AMB-21")
def test_a_bad_one_is_dropped_whole_and_resets_nothing():
    bench = Bench()
    first = bench.request(900)
    before = state(bench)
    bad = [
        bench.ack((0, 1)),
        bench.ack((3, 2)),
        bench.ack((2, 2), (2, 3)),
        bench.ack((4, 4), (2, 2)),
        bench.ack((2, 2), (8, 99)),
        bench.ack(data=b"\0\2\0"),
        bench.ack(data=b"\0\2\0\2\0\3"),
        bench.ack(data=bytes(404)),
        bench.ack((2, 2), spi=b"spi!"),
        bench.ack((2, 2), spi=b"12345678"),
    ]
    assert bench.send(*bad) == []
    assert state(bench) == before and bench.drops == {"BAD_ACK": len(bad)}
    assert bench.send(bench.ack((2, 2), protocol=1)) == first[1:2]


@item("AMB-18")
def test_it_is_authenticated_before_use():
    bench = Bench(ciphers=ccm_pair())
    bench.request(900)
    before = state(bench)
    genuine = bench.ack((2, 9))
    forged = [genuine[:at] + bytes((genuine[at] ^ 1,)) + genuine[at + 1 :] for at in (40, 60, 70)]
    clear = struct.pack(">BBHBBHHH", 0, 0, 12, 0, 0, REQ, 2, 9)
    head = bench.spis + struct.pack(">BBBBII", N, 0x20, INFORMATIONAL, R, 0, 28 + len(clear))
    assert bench.send(*forged, bytes(4) + head + clear) == []
    assert state(bench) == before
    assert bench.drops == {"BAD_ICV": 3, "NOT_PROTECTED": 1}


@item("AMB-18")
def test_the_same_ciphertext_counts_once():
    bench = Bench()
    first = bench.request(900)
    ack = bench.ack((2, 2))
    assert bench.send(ack) == first[1:2]
    for _ in range(20):
        bench.now += 150
        bench.sa.request.due = bench.sa.request.deadline
        assert bench.send(ack) == []
    assert bench.drops == {"REPLAYED_ACK": 20}
    assert bench.send(bench.ack((2, 2))) == first[1:2]


def test_a_burst_that_waits_for_its_turn_ends_with_the_exchange():
    bench = Bench(rtt=20)
    first = bench.request(500)
    assert bench.send(bench.ack((2, 2))) == first[1:2]
    assert bench.send(bench.ack((3, 3)), after=10) == []
    bench.send(bench.message([]))
    assert bench.wait(1000) == []


@item("AMB-18")
def test_what_is_remembered_of_acknowledgments_is_bounded():
    bench = Bench()
    bench.request(900)
    for _ in range(500):
        bench.now += 101
        bench.sa.request.due = bench.sa.request.deadline
        bench.send(bench.ack((2, 2)))
    assert len(bench.sa.flights[False].seen) <= 48


@item("ACK-03", "AMB-14", "FRG-23")
def test_reports_on_our_answer_have_its_fragments_resent():
    bench = Bench()
    bench.sa.answer = [(VENDOR, octets(50))]
    request = bench.message([], flags=0)
    answer = bench.send(request)
    assert len(answer) > 5
    assert bench.send(bench.ack((2, 3), kind=RES)) == answer[1:3]
    assert bench.send(bench.ack((5, 5), kind=RES, flags=0)) == []
    assert bench.wait(BURST_MS) == answer[4:5]
    # The request once more: fragment 1 and what was last reported missing.
    assert bench.send(request) == [answer[0], answer[4]]
    assert bench.sa.peer_mid == 1 and len(bench.sa.requests) == 1
    # Nothing of it by a timer (RFC 7296 §2.1).
    assert bench.wait(60000) == []


@item("AMB-15")
def test_reports_on_an_answer_before_the_last_one_are_late():
    bench = Bench()
    bench.sa.answer = [(VENDOR, octets(50))]
    bench.send(bench.message([], flags=0))
    answer = bench.send(bench.message([], flags=0, mid=1))
    assert bench.send(bench.ack((2, 2), kind=RES)) == []
    assert bench.send(bench.ack((2, 2), kind=RES, mid=1, exchange=AUTH)) == []
    bench.sa.mid = 7
    bench.request(500)  # a Message ID of ours is none of the peer's
    assert bench.send(bench.ack((2, 2), kind=RES, mid=7)) == []
    assert bench.drops == {"OLD_MESSAGE_ID": 1, "LATE_ACK": 2}
    assert bench.send(bench.ack((2, 2), kind=RES, mid=1)) == answer[1:2]


@item("AMB-15")
@pytest.mark.parametrize(("ours", "peers"), [(0, 3), (3, 0)])
def test_reports_on_a_request_are_of_its_message_id(ours, peers):
    """As a request it may have any Message ID that a request of the peer's may have."""
    bench = Bench()
    bench.sa.mid, bench.sa.peer_mid = ours, peers
    first = bench.request(500)
    assert bench.send(bench.ack((2, 2), flags=0, mid=peers)) == []
    assert bench.drops == {"LATE_ACK": 1}
    assert bench.send(bench.ack((2, 2), mid=ours)) == first[1:2]


@item("AMB-15")
@pytest.mark.parametrize("ours", [0, 7])
def test_reports_on_an_answer_are_of_its_message_id(ours):
    bench = Bench()
    bench.sa.answer = [(VENDOR, octets(50))]
    bench.sa.mid, bench.sa.peer_mid = ours, 3
    answer = bench.send(bench.message([], flags=0, mid=3))
    bench.request(500)
    assert bench.send(bench.ack((2, 2), kind=RES, mid=ours)) == []
    assert bench.send(bench.ack((2, 2), kind=RES, flags=0, mid=4)) == []
    assert bench.drops == {"LATE_ACK": 2}
    assert bench.send(bench.ack((2, 2), kind=RES, flags=0, mid=3)) == answer[1:2]


@item("AMB-15", "ACK-07")
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_reports_of_another_exchange_are_late(exchange):
    bench = Bench()
    bench.request(500, exchange)
    others = [other for other in EXCHANGES if other != exchange]
    assert bench.send(*(bench.ack((2, 2), flags=0, exchange=other) for other in others)) == []
    assert bench.drops == {"LATE_ACK": len(others)}


# Asking.


@item("ACK-14", "AMB-17")
@pytest.mark.parametrize("flags", [R, 0])
def test_conservative_waits_for_a_fragment_that_comes_twice(flags):
    bench = Bench(frag_ack_policy="conservative", retransmit_ms=60000, rtt=0)
    bench, fragments = asking(bench, flags=flags)
    assert bench.wait(20000) == []
    bench.send(fragments[0])
    ((_, pairs), *_) = asked_in(bench, 200 + 2 * 10)
    assert pairs == [(3, 4), (7, 7)]


@item("ACK-14", "AMB-17", "AMB-14")
def test_eager_asks_when_the_burst_should_be_over():
    for last in range(1, 9):
        bench = Bench()
        bench.request()
        fragments = bench.fragments([(VENDOR, octets(9))], 9)
        bench.send(*fragments[:last], after=2)
        # What each fragment that may still be under way takes, then a quarter of the round trip.
        due = (2 * (9 - last) if last > 1 else GAP_MS) + SLACK_MS - 2
        assert bench.wait(due - 1) == []
        assert asked_in(bench, 1)[0] == (RES, [(last + 1, 9)])
        bench.send(*fragments[last:])
        assert bench.wait(25000) == [] and len(bench.sa.responses) == 1


@item("AMB-17")
@pytest.mark.parametrize(("rtt", "slack"), [(0, 200), (1, 20), (60, 20), (100, 25), (2000, 500)])
def test_the_slack_follows_the_round_trip(rtt, slack):
    bench = Bench(rtt=rtt, retransmit_ms=60000)
    bench, _ = asking(bench)
    assert bench.wait(slack - 1) == []
    assert asked_in(bench, 1)[0] == (RES, [(3, 4), (7, 7)])


@item("ACK-15")
def test_it_asks_again_only_after_a_round_trip_or_with_news():
    bench, fragments = asking(Bench(retransmit_ms=60000), 10, (3, 4, 7))
    times = []
    for _ in range(2000):
        if bench.asked(bench.wait(1)):
            times.append(bench.now - 1000)
    # Twice at the same pace, then at twice that, and so on: for a reply and the slack each.
    assert times == [25, 150, 275, 525, 775, 1275, 1775]
    bench.send(fragments[2])
    assert asked_in(bench, SLACK_MS + 4)[0] == (RES, [(4, 4), (7, 7)])


@item("ACK-15", "AMB-18")
def test_in_vain_it_asks_a_bounded_number_of_times():
    bench, _ = asking(Bench(retransmit_ms=60000), flags=0)
    assert len({m.iv for m in map(bench.read, bench.wait(29000))}) == 8
    assert bench.wait(900) == []


@item("ACK-15")
def test_forged_duplicates_cannot_make_it_ask_more():
    """What comes twice is dropped unread, so anyone may have sent it."""
    bench, fragments = asking(Bench(retransmit_ms=60000), flags=0)
    sent = []
    for _ in range(2900):
        sent += bench.send(fragments[0][:-8] + b"no seal.")
        sent += bench.wait(10)
    assert len({m.iv for m in map(bench.read, sent)}) == 8
    assert bench.drops == {"REPLAYED_FRAGMENT": 2900}


@item("ACK-15")
def test_duplicates_within_a_round_trip_of_a_question_do_not_repeat_it():
    bench, fragments = asking(Bench(retransmit_ms=60000))
    assert bench.asked(bench.wait(SLACK_MS))
    assert bench.send(fragments[0]) + bench.wait(99) == []
    bench.send(fragments[0])
    assert bench.asked(bench.wait(SLACK_MS + 2 * 10))


@item("ACK-15")
def test_a_duplicate_hastens_the_next_question_from_a_round_trip_after_the_last_one():
    for after, wait in ((99, 250), (100, 100 + SLACK_MS)):
        bench, fragments = asking(Bench(retransmit_ms=60000))
        bench.wait(275)  # that of the third question; alone the next one comes 250 ms later
        bench.wait(after)
        assert bench.send(fragments[9]) == []
        assert bench.wait(wait - after - 1) == []
        assert asked_in(bench, 1)[0] == (RES, [(3, 4), (7, 7)])


@item("ACK-15")
@pytest.mark.parametrize("late", [1, 70, 1000])
def test_a_timer_that_is_called_late_still_asks(late):
    """A board that was busy is not on time for a single millisecond."""
    bench, _ = asking(Bench(retransmit_ms=60000))
    assert bench.sa.next_timer() == bench.now + SLACK_MS
    bench.now += SLACK_MS + late
    bench.sa.timer(bench.now)
    assert bench.asked(bench.out()) == [(RES, [(3, 4), (7, 7)])] * 2


@item("ACK-15")
def test_forged_duplicates_cannot_put_a_question_off():
    bench, fragments = asking(Bench(retransmit_ms=60000), flags=0)
    sent = []
    for _ in range(5):
        sent += bench.send(fragments[0]) + bench.wait(5)
    assert bench.asked(sent)


@item("ACK-15")
@pytest.mark.parametrize("total", [8, 9])
def test_of_a_large_message_and_when_repeated_it_is_sent_twice_as_one_ciphertext(total):
    """An octet string that was seen has no effect, so the copy is insurance and nothing else."""
    bench, _ = asking(count=total, lost=(2,))
    sent = bench.wait(SLACK_MS)
    assert len(sent) == (1 if total == 8 else 2) and len(set(sent)) == 1
    sent = bench.wait(130)
    assert len(sent) == 2 and len(set(sent)) == 1


@item("AMB-14")
@pytest.mark.parametrize("flags", [R, 0])
def test_none_is_sent_for_a_message_that_is_complete(flags):
    bench, fragments = asking(flags=flags)
    assert bench.asked(bench.wait(SLACK_MS))
    bench.send(*fragments)
    assert bench.asked(bench.send(*fragments, *fragments) + bench.wait(60000)) == []


@item("AMB-14")
def test_with_nothing_lost_none_is_sent():
    for count in (2, 3, 8, 20, 45, 64):
        bench, _ = asking(count=count, lost=())
        assert bench.wait(20000) == [] and len(bench.sa.responses) == 1


# IVs, and what is signed.


@item("ACK-16", "AMB-22", "FRG-12")
def test_message_acknowledgments_and_resends_share_one_counter():
    bench = Bench(ciphers=ccm_pair())
    first = bench.request(900)
    sent = list(first)
    fragments = bench.fragments([(VENDOR, octets(12))], 12)
    sent += bench.send(bench.ack((2, 5))) + bench.wait(300)
    sent += bench.send(*fragments[::2]) + bench.wait(400)
    sent += bench.send(*bench.fragments([(VENDOR, octets(3))], 3, flags=0)) + bench.wait(400)
    by_iv = {}
    for datagram in sent:
        by_iv.setdefault(bench.read(datagram).iv, set()).add(datagram)
    assert all(len(datagrams) == 1 for datagrams in by_iv.values())
    counters = sorted(int.from_bytes(iv, "big") for iv in by_iv)
    assert counters == list(range(1, len(counters) + 1))
    assert len(sent) > len(by_iv) > len(first) + 3


@item("ACK-02")
def test_decode_raises_drop_and_nothing_else():
    rng = random.Random(2)
    for _ in range(3000):
        try:
            fragack.decode(rng.randbytes(rng.randrange(24)), rng.randrange(70))
        except Drop as e:
            assert e.args == ("BAD_ACK",)


def test_fragments_that_wait_cost_no_second_decryption():
    bench, fragments = asking()
    opened = count_opens(bench)
    bench.send(*fragments[:2], *fragments[7:])
    assert opened == []
