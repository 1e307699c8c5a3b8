"""Fragment acknowledgment by the gateway (draft -02), as responder and as requester."""

import random

import pytest

from host_tests.devgateway.peer import HERE, HERE_NATT, Peer, bare, natt, only
from host_tests.devgateway.test_fragments import feed
from tools.devgateway import fragack
from tools.devgateway.fragack import Flight, Reporter, decode_pairs, encode_pairs, to_pairs
from tools.devgateway.numbers import Exchange, Flag, N, P
from tools.devgateway.wire import Notify, Payload, WireError

item = pytest.mark.item

REQ, RES = N.FRAGMENT_ACK_REQ, N.FRAGMENT_ACK_RES
OFFER = [Notify(N.IKEV2_FRAGMENTATION_SUPPORTED), Notify(N.FRAGMENT_ACK_SUPPORTED)]
VID = Payload(P.VENDOR_ID, fragack.VENDOR_ID)
LONG = [Payload(P.VENDOR_ID, bytes(600))]


def begin(gateway, offer=OFFER, vid=(VID,), **settings):
    peer = Peer(**settings)
    peer.init_notifies = list(offer)
    peer.init_extra = list(vid)
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
    return peer


def agreed(peer):
    return N.FRAGMENT_ACK_SUPPORTED in {n.type for n in peer.init_answer_notifies}


def established(gateway, **settings):
    peer = begin(gateway, **settings)
    peer.take_auth(*feed(gateway, [peer.auth_request()]))
    assert peer.child is not None
    return peer


# Agreement


@item("ACK-01", "AMB-06")
@pytest.mark.parametrize(
    ("settings", "offer", "vid", "expected"),
    [
        ({}, OFFER, (VID,), True),
        ({}, OFFER[1:], (VID,), False),
        ({}, OFFER[:1], (VID,), False),
        ({}, OFFER, (), False),
        ({}, OFFER, (Payload(P.VENDOR_ID, bytes(16)),), False),
        ({"frag_ack": "off"}, OFFER, (VID,), False),
        ({"fragmentation": False}, OFFER, (VID,), False),
    ],
)
def test_it_is_agreed_only_if_both_announce_all_of_it(
    make_gateway, settings, offer, vid, expected
):
    gateway = make_gateway(**settings)
    peer = begin(gateway, offer, vid)
    assert agreed(peer) == expected
    (sa,) = gateway.sas.values()
    assert sa.frag_ack == expected


def test_the_vendor_id_is_the_digest_that_both_sides_know():
    assert fragack.VENDOR_ID.hex() == "82590f1720a737fe59d90f0133db7047"


@item("ACK-02")
def test_without_agreement_nothing_is_sent_and_nothing_has_effect(make_gateway):
    gateway = make_gateway(fragment_size=128)
    peer = begin(gateway, OFFER[:1])
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
    feed(gateway, [messages[0], messages[0], messages[2]])
    assert gateway.next_timer() == 30_000
    out = feed(gateway, messages[1:])
    for flags in (None, Flag.INITIATOR):
        for kind in (REQ, RES):
            ack = peer.ack(kind, [(1, 1)], Exchange.IKE_AUTH, 1, flags)
            assert feed(gateway, [ack], 500) == []
    assert gateway.next_timer() is None
    peer.take_auth(*out)


# Reports on requests


@item("ACK-03", "ACK-04", "ACK-05", "ACK-07", "ACK-08", "ACK-09", "AMB-01", "AMB-04")
def test_an_eager_gateway_names_what_is_missing(make_gateway):
    gateway = make_gateway(frag_ack="eager")
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 10)
    here = [messages[number - 1] for number in (1, 2, 3, 5, 6)]
    assert feed(gateway, here, 100) == []
    assert gateway.next_timer() == 300
    (ack,) = bare(gateway.timer(300))
    header, kind, pairs = peer.read_ack(ack)
    assert (kind, pairs) == (REQ, [(4, 4), (7, 10)])
    assert (header.exchange, header.message_id) == (Exchange.IKE_AUTH, 1)
    assert header.flags == Flag.RESPONSE and header.next_payload == P.SK
    (sa,) = gateway.sas.values()
    assert sa.expected == 1
    out = feed(gateway, [messages[number - 1] for number in (4, 7, 8, 9, 10)], 400)
    peer.take_auth(*out)
    assert peer.child is not None


@item("AMB-21")
def test_an_acknowledgment_is_small(make_gateway):
    for suite, size in (("aes128ccm8", 61), ("aes128ccm16", 69)):
        gateway = make_gateway(frag_ack="eager")
        peer = begin(gateway, ike=(suite + "-prfsha256-x25519",))
        messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
        feed(gateway, messages[:1])
        (ack,) = bare(gateway.timer(200))
        assert len(ack) == size


@item("ACK-06", "ACK-14", "AMB-17")
def test_a_conservative_gateway_waits_for_a_resend(make_gateway):
    gateway = make_gateway(frag_ack="conservative")
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
    feed(gateway, [messages[0], messages[2]], 10)
    assert gateway.next_timer() == 30_000
    # The resend: a copy comes in, and the burst is heard to its end.
    feed(gateway, [messages[0]], 1000)
    assert gateway.next_timer() == 1200
    feed(gateway, [messages[2]], 1020)
    (ack,) = bare(gateway.timer(gateway.next_timer()))
    assert peer.read_ack(ack)[2] == [(2, 2), (4, 4)]


@item("ACK-14")
def test_a_fragment_long_after_the_others_is_a_resend_too(make_gateway):
    gateway = make_gateway(frag_ack="conservative")
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
    feed(gateway, [messages[3]], 10)
    assert gateway.next_timer() == 30_000
    feed(gateway, [messages[1]], 1010)
    (ack,) = bare(gateway.timer(gateway.next_timer()))
    assert peer.read_ack(ack)[2] == [(1, 1), (3, 3)]


@item("AMB-18")
def test_a_forged_copy_is_no_resend(make_gateway):
    gateway = make_gateway(frag_ack="conservative")
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
    feed(gateway, messages[:1], 10)
    feed(gateway, [messages[0][:-1] + bytes((messages[0][-1] ^ 1,))], 1000)
    assert gateway.drops == {"FRAGMENT_DIFFERS": 1}
    assert gateway.next_timer() == 30_000


@item("ACK-15", "AMB-22", "ACK-16")
def test_reports_slow_down_until_something_new_comes(make_gateway):
    gateway = make_gateway(frag_ack="eager")
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
    feed(gateway, messages[:1], 0)
    sent = []
    for _ in range(4):
        sent.append((gateway.next_timer(), bare(gateway.timer(gateway.next_timer()))[0]))
    assert [when for when, _ in sent] == [200, 600, 1400, 3000]
    assert len({ack[32:40] for _, ack in sent}) == 4  # fresh IVs
    feed(gateway, messages[1:2], 3100)
    assert gateway.next_timer() == 3300
    assert peer.read_ack(bare(gateway.timer(3300))[0])[2] == [(3, 4)]


@item("AMB-18")
def test_reports_on_one_message_are_bounded(monkeypatch, make_gateway):
    monkeypatch.setattr(fragack, "MAX_ACKS", 3)
    gateway = make_gateway(frag_ack="eager")
    peer = begin(gateway)
    feed(gateway, peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)[:1], 0)
    count = 0
    while gateway.next_timer() < 30_000:
        count += len(gateway.timer(gateway.next_timer()))
    assert count == 3


@item("AMB-14")
def test_a_complete_message_is_never_reported_on(make_gateway):
    gateway = make_gateway(frag_ack="eager")
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
    peer.take_auth(*feed(gateway, messages, 0))
    assert feed(gateway, messages[2:], 300) == []
    assert gateway.next_timer() is None


@item("ACK-11", "ACK-12")
def test_many_ranges_are_split_over_several_acknowledgments(make_gateway):
    gateway = make_gateway(frag_ack="eager", fragment_size=128)
    peer = begin(gateway)
    peer.auth_extra = LONG
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 40)
    feed(gateway, messages[::2], 0)
    acks = gateway.timer(200)
    assert len(acks) > 2 and max(len(data) for data, _ in acks) <= 100
    pairs = [pair for ack in bare(acks) for pair in peer.read_ack(ack)[2]]
    assert pairs == [(number, number) for number in range(2, 41, 2)]


@item("AMB-20")
def test_an_acknowledgment_does_not_close_an_open_queue(make_gateway):
    gateway = make_gateway(frag_ack="eager")
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
    feed(gateway, messages[:2])
    ack = peer.ack(RES, [(1, 1)], Exchange.IKE_AUTH, 1, Flag.INITIATOR)
    assert feed(gateway, [ack]) == []
    assert gateway.drops == {"UNEXPECTED_ACK": 1}
    peer.take_auth(*feed(gateway, messages[2:]))
    assert peer.child is not None


# Resends of our answers


@item("ACK-03", "ACK-08", "ACK-10", "ACK-17", "AMB-03")
@pytest.mark.parametrize("flags", [Flag.INITIATOR | Flag.RESPONSE, Flag.INITIATOR])
def test_only_missing_fragments_of_an_answer_are_resent(make_gateway, flags):
    """R set is the draft's -02, R clear its -04; the notify type tells the direction."""
    gateway = make_gateway(fragment_size=128)
    peer = begin(gateway)
    out = feed(gateway, [peer.auth_request()])
    assert len(out) > 3
    ack = peer.ack(RES, [(2, 2), (4, 4)], Exchange.IKE_AUTH, 1, flags)
    assert feed(gateway, [ack], 100) == [out[1], out[3]]
    (sa,) = gateway.sas.values()
    assert sa.expected == 2
    peer.take_auth(*out)
    assert peer.child is not None


@item("ACK-13", "AMB-05", "AMB-12")
def test_reports_since_the_last_burst_are_united_and_bursts_kept_apart(make_gateway):
    gateway = make_gateway(fragment_size=128)
    peer = begin(gateway)
    out = feed(gateway, [peer.auth_request()])

    def ack(pairs):
        return peer.ack(RES, pairs, Exchange.IKE_AUTH, 1)

    assert feed(gateway, [ack([(1, 1)])], 100) == [out[0]]
    assert feed(gateway, [ack([(3, 3)]), ack([(2, 2)])], 110) == []
    assert gateway.next_timer() == 150
    assert bare(gateway.timer(150)) == [out[1], out[2]]
    # Fragment 1 was resent before: it is out until it is reported again.
    assert feed(gateway, [ack([(1, 1)])], 300) == [out[0]]


@item("AMB-12", "AMB-18")
def test_bursts_are_bounded_and_copies_of_an_ack_ignored(make_gateway):
    gateway = make_gateway(fragment_size=128)
    peer = established(gateway)
    ask = [Payload(P.DELETE, bytes((3, 4, 0, 1)) + peer.spi_esp)]
    request = peer.protect(Exchange.INFORMATIONAL, ask)
    feed(gateway, [request])
    (sa,) = gateway.sas.values()
    flight = sa._answered.flight
    bursts = 0
    ack = peer.ack(RES, [(1, 1)], Exchange.INFORMATIONAL, 2)
    for now in range(0, 5000, 100):
        bursts += len(feed(gateway, [ack], now))
    assert bursts == 1 and gateway.drops.pop("ACK_REPLAYED") == 49
    for now in range(5000, 10_000, 100):
        ack = peer.ack(RES, [(1, 1)], Exchange.INFORMATIONAL, 2)
        bursts += len(feed(gateway, [ack], now))
    assert bursts == fragack.MAX_IDLE_BURSTS
    assert gateway.drops == {"ACK_FLOOD": 43}
    assert flight.due is None


@item("AMB-12", "AMB-18")
def test_an_unauthenticated_peer_gets_fewer_bursts(make_gateway):
    gateway = make_gateway({"any": "other"}, fragment_size=128)
    peer = begin(gateway)
    out = feed(gateway, [peer.auth_request()])
    assert len(out) == 1  # a refusal fits one datagram
    resent = 0
    for now in range(0, 1000, 100):
        resent += len(feed(gateway, [peer.ack(RES, [(1, 1)], Exchange.IKE_AUTH, 1)], now))
    assert resent == fragack.MAX_IDLE_BURSTS_UNAUTHENTICATED


@item("AMB-13")
def test_a_resent_request_brings_fragment_1_and_what_is_missing(make_gateway):
    gateway = make_gateway(fragment_size=128)
    peer = begin(gateway)
    request = peer.auth_request()
    out = feed(gateway, [request])
    feed(gateway, [peer.ack(RES, [(3, 3)], Exchange.IKE_AUTH, 1)], 100)
    assert feed(gateway, [request], 1000) == [out[0], out[2]]


@item("AMB-15", "AMB-07")
def test_a_late_acknowledgment_has_no_effect(make_gateway):
    gateway = make_gateway(fragment_size=128)
    peer = established(gateway)
    feed(gateway, [peer.protect(Exchange.INFORMATIONAL, [])])
    for message_id in (0, 1, 3, 9):
        for kind in (REQ, RES):
            for exchange in (Exchange.IKE_AUTH, Exchange.INFORMATIONAL):
                assert feed(gateway, [peer.ack(kind, [(1, 1)], exchange, message_id)], 9) == []
    assert feed(gateway, [peer.ack(RES, [(1, 1)], Exchange.IKE_AUTH, 2)], 9) == []
    assert feed(gateway, [peer.ack(REQ, [(1, 1)], Exchange.INFORMATIONAL, 2)], 9) == []


@item("AMB-02", "AMB-09", "AMB-10", "AMB-11", "AMB-16", "ACK-04")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("0000 0001", "BAD_ACK"),
        ("0002 0001", "BAD_ACK"),
        ("0001 ffff", "BAD_ACK"),
        ("0002 0002 0001 0001", "BAD_ACK"),
        ("0001 0002 0002 0003", "BAD_ACK"),
        ("0001", "BAD_ACK"),
        ("0001 0001 00", "BAD_ACK"),
        ("", None),
    ],
)
def test_bent_pairs_resend_nothing(make_gateway, data, reason):
    gateway = make_gateway(fragment_size=128)
    peer = begin(gateway)
    out = feed(gateway, [peer.auth_request()])
    notify = Notify(RES, bytes.fromhex(data)).payload()
    flags = Flag.INITIATOR | Flag.RESPONSE
    assert feed(gateway, [peer.protect(Exchange.IKE_AUTH, [notify], 1, flags)], 9) == []
    assert gateway.drops == ({reason: 1} if reason else {})
    odd = peer.ack(RES, [(1, 1)], Exchange.IKE_AUTH, 1, protocol=3)
    assert feed(gateway, [odd], 10) == [out[0]]
    spi = peer.ack(RES, [(1, 1)], Exchange.IKE_AUTH, 1, spi=b"abcd")
    assert feed(gateway, [spi], 100) == []


@item("AMB-18")
def test_an_acknowledgment_in_the_clear_or_with_a_wrong_icv_is_dropped(make_gateway):
    from tools.devgateway import wire

    gateway = make_gateway(fragment_size=128)
    peer = begin(gateway)
    feed(gateway, [peer.auth_request()])
    payload = Notify(RES, bytes((0, 1, 0, 1))).payload()
    flags = Flag.INITIATOR | Flag.RESPONSE
    clear = wire.encode_message(peer.header(Exchange.IKE_AUTH, 1, flags), [payload])
    ack = peer.ack(RES, [(1, 1)], Exchange.IKE_AUTH, 1)
    assert feed(gateway, [clear, ack[:-1] + bytes((ack[-1] ^ 1,))], 9) == []
    assert gateway.drops == {"NOT_PROTECTED": 1, "BAD_ICV": 1}


# The gateway as requester


@item("ACK-09", "AMB-10", "AMB-12", "AMB-13")
def test_a_report_on_our_request_resends_and_never_completes_it(make_gateway):
    gateway = make_gateway(fragment_size=128)
    peer = established(gateway)
    (sa,) = gateway.sas.values()
    done = []
    sa.request(Exchange.INFORMATIONAL, LONG, 0, lambda *_: done.append(1))
    out = bare(gateway.timer(0))
    flags = Flag.INITIATOR | Flag.RESPONSE
    ack = peer.ack(REQ, [(2, 3)], Exchange.INFORMATIONAL, 0)
    assert feed(gateway, [ack], 900) == [out[1], out[2]]
    # The interval began anew at 900; by timer fragment 1 comes along.
    assert gateway.next_timer() == 1900
    assert bare(gateway.timer(1900)) == [out[0], out[1], out[2]]
    # With payloads of a full response beside it, it still completes nothing.
    mixed = [Notify(REQ, bytes((0, 2, 0, 2))).payload(), Payload(P.VENDOR_ID, b"")]
    feed(gateway, [peer.protect(Exchange.INFORMATIONAL, mixed, 0, flags)], 2000)
    assert done == [] and sa._request is not None
    feed(gateway, [peer.protect(Exchange.INFORMATIONAL, [], 0, flags)], 2100)
    assert done == [1]


@item("ACK-03", "ACK-08", "AMB-03")
@pytest.mark.parametrize(("draft", "flags"), [("02", Flag.RESPONSE), ("03", 0), ("04", 0)])
def test_the_gateway_reports_on_a_fragmented_response(make_gateway, draft, flags):
    gateway = make_gateway(frag_ack="eager", frag_ack_draft=draft)
    peer = established(gateway)
    (sa,) = gateway.sas.values()
    done = []
    gateway.liveness(sa, 0, lambda *_: done.append(1))
    response = Flag.INITIATOR | Flag.RESPONSE
    messages = peer.fragments(Exchange.INFORMATIONAL, LONG, 5, 0, response)
    feed(gateway, [messages[0], messages[3]], 100)
    (ack,) = bare(gateway.timer(300))
    header, kind, pairs = peer.read_ack(ack)
    assert (kind, pairs) == (RES, [(2, 3), (5, 5)])
    assert (header.flags, header.message_id) == (flags, 0)
    assert feed(gateway, [messages[1], messages[2], messages[4]], 400) == []
    assert done == [1] and gateway.next_timer() is None


# Parts


@item("AMB-01", "ACK-05")
def test_pairs_come_back_as_they_were():
    picks = random.Random(2)
    for _ in range(500):
        numbers = sorted(picks.sample(range(1, 65), picks.randint(0, 64)))
        assert decode_pairs(encode_pairs(to_pairs(numbers)), 64) == set(numbers)
    assert encode_pairs(to_pairs([4, 7, 8, 9, 10])).hex(" ", 2) == "0004 0004 0007 000a"


def test_any_octets_are_pairs_or_an_error():
    picks = random.Random(3)
    for _ in range(2000):
        data = bytes(picks.choice((0, 0, 1, 2, 3, 9)) for _ in range(picks.randint(0, 16)))
        try:
            assert decode_pairs(data, 9) <= set(range(1, 10))
        except WireError as error:
            assert error.reason == "BAD_ACK"


def test_an_off_reporter_is_never_due():
    reporter = Reporter("eager", 200)
    assert reporter.due is None
    reporter.arrived(5)
    assert reporter.due == 205


def test_a_flight_without_reports_is_resent_whole():
    flight = Flight(["a", "b", "c"])
    assert flight.resend() == ["a", "b", "c"]
    assert not flight.acknowledge(set(), b"1", 0)
    assert flight.resend() == ["a", "b", "c"]
    assert flight.acknowledge({2}, b"2", 0)
    assert flight.burst(0) == ["b"] and flight.resend() == ["a", "b"]


def test_copies_never_put_a_report_off():
    reporter = Reporter("conservative", 200)
    reporter.arrived(0)
    for now in range(10, 1000, 10):
        reporter.arrived(now, copy=True)
    assert reporter.due == 210


@item("AMB-12")
@pytest.mark.parametrize("queue", [4, 8])
def test_a_receiver_with_a_short_queue_gets_it_all_in_short_bursts(queue):
    """Only the first `queue` of a burst arrive; the sender adapts, and stays in its bounds."""
    flight = Flight([bytes((n,)) for n in range(45)], fragack.MAX_IDLE_BURSTS_UNAUTHENTICATED)
    have, burst, now, sent = set(), flight.datagrams, 0, 45
    while len(have) < 45:
        have |= {datagram[0] + 1 for datagram in burst[:queue]}
        missing = set(range(1, 46)) - have
        now += 100
        if missing:
            assert flight.acknowledge(missing, b"%d" % now, now)
            burst = flight.burst(now)
            sent += len(burst)
    assert sent <= 45 + 2 * 45 + 2 * queue
    assert now <= 100 * -(-45 // queue)


@item("AMB-12", "AMB-18")
def test_what_reports_can_cost_is_bounded_whatever_they_say():
    """The amplification: at most four times the message and eight datagrams."""
    picks = random.Random(8)
    for total in (1, 3, 45, 64):
        for _ in range(50):
            flight = Flight(list(range(1, total + 1)))
            resent = 0
            for now in range(0, 100_000, 50):
                missing = set(picks.sample(range(1, total + 1), picks.randint(1, total)))
                try:
                    flight.acknowledge(missing, b"%d" % now, now)
                except WireError as error:
                    assert error.reason == "ACK_FLOOD"
                    break
                resent += len(flight.burst(now))
            assert resent <= 4 * total + 8


def test_bent_acknowledgments_under_a_right_icv_never_raise(make_gateway):
    gateway = make_gateway(fragment_size=128, frag_ack="eager")
    peer = established(gateway)
    (sa,) = gateway.sas.values()
    sa.request(Exchange.INFORMATIONAL, LONG, 0)
    picks = random.Random(9)
    for now in range(3000):
        kind = picks.choice((REQ, RES, N.FRAGMENT_ACK_SUPPORTED, 99, 20000))
        data = bytes(picks.choice((0, 0, 1, 2, 3, 255)) for _ in range(picks.randint(0, 9)))
        notify = Notify(kind, data, picks.choice((0, 1, 3)), picks.choice((b"", b"abcd")))
        payloads = [notify.payload()] * picks.choice((1, 1, 2))
        if picks.random() < 0.2:
            payloads.append(Payload(picks.choice((0, 33, 41, 46, 53, 200)), data))
        exchange = picks.choice((Exchange.INFORMATIONAL, Exchange.IKE_AUTH, 43, 36))
        flags = Flag.INITIATOR | picks.choice((0, Flag.RESPONSE))
        message = peer.protect(exchange, payloads, picks.choice((0, 1, 1, 2)), flags)
        gateway.receive(natt(message), HERE_NATT, now)
    assert gateway.counters["acks_received"] > 50


# A lossy world


@item("ACK-16", "AMB-22", "FRG-12")
@pytest.mark.parametrize("policy", ["eager", "conservative"])
def test_ike_auth_completes_over_a_bad_link_and_no_iv_repeats(make_gateway, policy):
    """40 % loss each way, reordering, copies; the peer asks and resends like the draft says."""
    for seed in range(30):
        gateway = make_gateway(
            frag_ack=policy, fragment_size=128, retransmit_ms=500, half_open_ms=10**6
        )
        picks = random.Random(seed)
        peer = begin(gateway, seed=seed)
        sent = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 20)
        ivs_up = {message[36:44] for message in sent}
        ivs_down, got, wanted = {}, {}, set(range(20))
        down, now, due = [], 0, 0
        for _ in range(400):
            now += 50
            up = []
            if now >= due:
                up = [sent[number] for number in sorted(wanted | {0})]
                due = now + 1000
            if got and now % 300 == 0:
                total = next(iter(got.values()))[1]
                missing = [n for n in range(1, total + 1) if n not in got]
                ack = peer.ack(RES, to_pairs(missing), Exchange.IKE_AUTH, 1)
                assert ack[32:40] not in ivs_up
                ivs_up.add(ack[32:40])
                up.append(ack)
            picks.shuffle(up)
            for message in up:
                for _ in range(picks.choice((0, 0, 1, 1, 2))):
                    down += gateway.receive(natt(message), HERE_NATT, now)
            down += gateway.timer(now)
            picks.shuffle(down)
            for data in bare(down):
                at = 36 if data[16] == P.SKF else 32
                iv = data[at : at + 8]
                assert ivs_down.setdefault(iv, data) == data
                if picks.random() < 0.4:
                    continue
                if data[16] == P.SKF:
                    number, total = data[32] << 8 | data[33], data[34] << 8 | data[35]
                    got[number] = data, total
                    if len(got) == total:
                        break
                else:
                    _, kind, pairs = peer.read_ack(data)
                    assert kind == REQ
                    wanted = {n - 1 for low, high in pairs for n in range(low, high + 1)}
                    due = min(due, now + 50)
            down = []
            if got and len(got) == next(iter(got.values()))[1]:
                break
        peer.take_auth(*(data for data, _ in got.values()))
        assert peer.child is not None
