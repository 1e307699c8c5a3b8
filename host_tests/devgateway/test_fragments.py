"""IKE fragmentation of the gateway, both ways (RFC 7383)."""

import itertools
import random

import pytest

from host_tests.devgateway.peer import HERE, HERE_NATT, Peer, bare, natt, only
from tools.devgateway import fragments, wire
from tools.devgateway.numbers import Exchange, Flag, N, P
from tools.devgateway.wire import Notify, Payload

item = pytest.mark.item


def begin(gateway, **settings):
    """A peer with fragmentation agreed, ready for IKE_AUTH."""
    peer = Peer(**settings)
    peer.init_notifies = [Notify(N.IKEV2_FRAGMENTATION_SUPPORTED)]
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
    return peer


def feed(gateway, messages, now=0):
    """What comes out while all messages go in."""
    out = []
    for message in messages:
        out += gateway.receive(natt(message), HERE_NATT, now)
    return bare(out)


@item("FRG-01", "ACK-01")
def test_fragmentation_is_agreed_only_if_both_announce_it(make_gateway):
    gateway = make_gateway()
    peer = begin(gateway)
    assert N.IKEV2_FRAGMENTATION_SUPPORTED in {n.type for n in peer.init_answer_notifies}
    plain = Peer(seed=2)
    plain.take_init(only(gateway.receive(plain.init_request(), HERE, 0)))
    assert N.IKEV2_FRAGMENTATION_SUPPORTED not in {n.type for n in plain.init_answer_notifies}
    messages = plain.fragments(Exchange.IKE_AUTH, plain.auth_payloads(), 3)
    assert feed(gateway, messages) == []
    assert gateway.drops == {"SKF_NOT_AGREED": 3}
    refusing = make_gateway(fragmentation=False)
    peer = begin(refusing)
    assert N.IKEV2_FRAGMENTATION_SUPPORTED not in {n.type for n in peer.init_answer_notifies}


@item("FRG-20", "FRG-25")
def test_a_request_in_any_order_is_joined(gateway):
    for seed, order in enumerate(itertools.permutations(range(4))):
        peer = begin(gateway, seed=seed, id="s%d" % seed)
        messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
        out = feed(gateway, [messages[index] for index in order])
        peer.take_auth(*out)
        assert peer.child is not None
    assert gateway.drops == {}


@item("FRG-17", "FRG-18")
def test_copies_and_spoilt_fragments_are_dropped_alone(gateway):
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 5)
    spoilt = messages[3][:-1] + bytes((messages[3][-1] ^ 1,))
    out = feed(gateway, [messages[0], messages[0], spoilt, *messages[1:]])
    assert gateway.drops == {"DUPLICATE_FRAGMENT": 1, "BAD_ICV": 1}
    peer.take_auth(*out)
    assert peer.child is not None


@item("FRG-16", "FRG-06", "FRG-07")
@pytest.mark.parametrize(
    ("number", "total", "first", "piece", "reason"),
    [
        (0, 3, 0, b"x", "BAD_FRAGMENT"),
        (4, 3, 0, b"x", "BAD_FRAGMENT"),
        (1, 0, 35, b"x", "BAD_FRAGMENT"),
        (1, 65, 35, b"x", "BAD_FRAGMENT"),
        (65535, 65535, 0, b"x", "BAD_FRAGMENT"),
        (2, 3, 35, b"x", "BAD_FRAGMENT"),
        (1, 3, 0, b"x", "BAD_FRAGMENT"),
        (2, 3, 0, b"", "EMPTY_FRAGMENT"),
        (1, 2, 35, b"x", "FRAGMENT_TOTAL"),
    ],
)
def test_impossible_fragments_are_dropped(gateway, number, total, first, piece, reason):
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 3)
    feed(gateway, messages[:1])
    header = peer.header(Exchange.IKE_AUTH)
    assert feed(gateway, [peer.fragment(header, first, piece, number, total)]) == []
    assert gateway.drops == {reason: 1}
    peer.take_auth(*feed(gateway, messages[1:]))
    assert peer.child is not None


@item("FRG-16")
def test_fragments_of_another_message_id_are_dropped(gateway):
    peer = begin(gateway)
    for message_id, reason in ((0, "OLD_MESSAGE_ID"), (2, "FUTURE_MESSAGE_ID")):
        (message, *_) = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 3, message_id)
        assert feed(gateway, [message]) == []
        assert gateway.drops.pop(reason) == 1


@item("FRG-19")
def test_a_larger_total_starts_anew(gateway):
    peer = begin(gateway)
    payloads = peer.auth_payloads()
    coarse = peer.fragments(Exchange.IKE_AUTH, payloads, 3)
    fine = peer.fragments(Exchange.IKE_AUTH, payloads, 6)
    assert feed(gateway, coarse[:2]) == []
    assert feed(gateway, fine[:1]) == []
    assert feed(gateway, coarse[2:]) == []
    assert gateway.drops == {"FRAGMENT_TOTAL": 1}
    peer.take_auth(*feed(gateway, fine[1:]))
    assert peer.child is not None


@item("FRG-18", "FRG-19")
def test_a_larger_total_with_a_wrong_icv_changes_nothing(gateway):
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 3)
    feed(gateway, messages[:2])
    forged = bytearray(peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 9)[0])
    forged[-1] ^= 1
    feed(gateway, [bytes(forged)])
    assert gateway.drops == {"BAD_ICV": 1}
    peer.take_auth(*feed(gateway, messages[2:]))
    assert peer.child is not None


@item("FRG-26")
def test_an_unfragmented_message_closes_the_queue(gateway):
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 3)
    feed(gateway, messages[:2])
    peer.take_auth(*feed(gateway, [peer.auth_request()]))
    assert peer.child is not None
    assert feed(gateway, messages[2:]) == []


@item("FRG-21", "FRG-22", "FRG-24")
def test_an_incomplete_message_is_forgotten_without_a_sign(gateway):
    peer = begin(gateway)
    feed(gateway, peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 3)[:2])
    assert gateway.next_timer() == 30_000
    assert gateway.timer(30_000) == []
    assert gateway.sas == {}


@item("FRG-24")
def test_a_queue_is_bounded(gateway, monkeypatch):
    monkeypatch.setattr(fragments, "MAX_MESSAGE", 4000)
    peer = begin(gateway)
    header = peer.header(Exchange.IKE_AUTH)
    for number in range(1, 8):
        first = 35 if number == 1 else 0
        feed(gateway, [peer.fragment(header, first, bytes(1000), number, 8)])
    assert gateway.drops == {"MESSAGE_TOO_LONG": 3}


@item("FRG-23")
def test_only_fragment_1_asks_for_the_answer_again(gateway):
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
    out = feed(gateway, messages)
    assert feed(gateway, messages[1:]) == []
    assert gateway.drops == {"OLD_FRAGMENT": 3}
    assert feed(gateway, messages[:1]) == out
    # Cut smaller by a PMTU search, with a right ICV: again; with a wrong one: not.
    smaller = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 7)
    assert feed(gateway, [smaller[0][:-1] + b"?"]) == []
    assert feed(gateway, smaller[:1]) == out
    assert feed(gateway, smaller) == out


@item("AMB-19")
def test_any_fragment_asks_again_where_that_is_wanted(make_gateway):
    gateway = make_gateway(any_fragment_resends=True)
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 4)
    out = feed(gateway, messages)
    for message in messages:
        assert feed(gateway, [message]) == out


@item("FRG-04", "FRG-05", "FRG-08", "FRG-10", "FRG-11", "FRG-27")
@pytest.mark.parametrize("ike", ["aes128ccm8-prfsha256-x25519", "aes128-sha256-x25519"])
@pytest.mark.parametrize("size", [128, 200, 256, 576])
def test_answers_are_cut_to_the_size_of_an_ip_datagram(make_gateway, size, ike):
    gateway = make_gateway(fragment_size=size)
    peer = begin(gateway, ike=(ike,))
    out = gateway.receive(natt(peer.auth_request()), HERE_NATT, 0)
    assert max(len(data) for data, _ in out) <= size - 28
    if size < 256:
        assert len(out) > 1
        block = 16 if ike.startswith("aes128-") else 1
        assert all(len(data) > size - 28 - block for data, _ in out[:-1])
    headers = [wire.parse_header(message) for message in bare(out)]
    assert {header._replace(length=0) for header in headers} == {headers[0]._replace(length=0)}
    assert headers[0].message_id == 1 and headers[0].flags == Flag.RESPONSE
    peer.take_auth(*bare(out))
    assert peer.child is not None


@item("FRG-11")
def test_the_default_size_is_that_of_the_address_family(gateway):
    assert fragments.message_limit(0, 4, False) == 548
    assert fragments.message_limit(0, 4, True) == 544
    assert fragments.message_limit(0, 6, True) == 1228


@item("FRG-02", "FRG-03")
def test_an_answer_that_fits_is_not_split_and_ike_sa_init_never_is(make_gateway):
    gateway = make_gateway(fragment_size=128)
    peer = begin(gateway)
    assert len(peer.init_answer) > 128
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 3)
    peer.take_auth(*feed(gateway, messages))
    request = peer.protect(Exchange.INFORMATIONAL, [])
    header, payloads = peer.open(*feed(gateway, [request]))
    assert payloads == [] and header.next_payload == P.SK


@item("FRG-12")
def test_resends_are_the_same_octets_and_no_iv_repeats(make_gateway):
    gateway = make_gateway(fragment_size=128)
    peer = begin(gateway)
    request = peer.auth_request()
    out = feed(gateway, [request])
    assert feed(gateway, [request]) == out
    ivs = [message[36:44] for message in out]
    assert len(set(ivs)) == len(out) > 3


@item("FRG-13")
def test_a_fragmented_request_of_the_gateway_is_resent_whole(make_gateway):
    gateway = make_gateway(fragment_size=128)
    peer = begin(gateway)
    peer.take_auth(*feed(gateway, [peer.auth_request()]))
    (sa,) = gateway.sas.values()
    long = [Payload(P.VENDOR_ID, bytes(300))]
    done = []
    sa.request(Exchange.INFORMATIONAL, long, 0, lambda *_: done.append(1))
    first = bare(gateway.timer(0))
    assert len(first) > 3
    assert bare(gateway.timer(1000)) == first
    header, payloads = peer.open(*first)
    assert header.flags == 0 and payloads == long
    flags = Flag.INITIATOR | Flag.RESPONSE
    answer = peer.fragments(Exchange.INFORMATIONAL, long, 3, 0, flags)
    assert feed(gateway, [answer[2], answer[0], answer[0], answer[1]]) == []
    assert done == [1] and gateway.next_timer() is None


@item("FRG-15")
def test_fragments_can_be_paced(make_gateway):
    gateway = make_gateway(fragment_size=128, fragment_gap_ms=5)
    peer = begin(gateway)
    out = feed(gateway, [peer.auth_request()], now=100)
    assert len(out) == 1
    times = []
    while (due := gateway.next_timer()) is not None:
        times.append(due)
        out += bare(gateway.timer(due))
    assert times == [105 + 5 * n for n in range(len(times))] and len(times) > 2
    peer.take_auth(*out)
    assert peer.child is not None


def test_scapy_reads_our_fragments(make_gateway):
    from scapy.contrib.ikev2 import IKEv2, IKEv2_Encrypted_Fragment

    gateway = make_gateway(fragment_size=150)
    peer = begin(gateway)
    out = feed(gateway, [peer.auth_request()])
    for number, data in enumerate(out, 1):
        message = IKEv2(data)
        fragment = message[IKEv2_Encrypted_Fragment]
        assert (fragment.frag_number, fragment.frag_total) == (number, len(out))
        assert fragment.next_payload == (36 if number == 1 else 0)


def test_mutated_fragments_never_raise(make_gateway):
    gateway = make_gateway(fragment_size=128, frag_ack="eager")
    picks = random.Random(5)
    peer = begin(gateway)
    messages = peer.fragments(Exchange.IKE_AUTH, peer.auth_payloads(), 5)
    for turn in range(20_000):
        bad = bytearray(picks.choice(messages[:4]))
        for _ in range(picks.randint(1, 3)):
            bad[picks.randrange(28, len(bad))] = picks.randrange(256)
        assert feed(gateway, [bytes(bad)], turn // 10) == []
    peer.take_auth(*feed(gateway, messages, 2000))
    assert peer.child is not None
