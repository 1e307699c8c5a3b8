"""RFC 7383 as the firmware does it: cutting, joining, and what it refuses."""

import itertools
import random
import struct
import weakref

import pytest
from minipsec.ike import fragment as firmware_fragment
from minipsec.crypto.cbc import CBC
from minipsec.crypto.ccm import CCM
from minipsec.handshake.sa_init import Handshake
from minipsec.ike.sa import IkeSa

from tools.dev.peers.node import REMOTE, Node, Rand, profile
from tools.dev.peers.responder import Responder
from tools.dev.peers.bench import (
    CREATE_CHILD_SA,
    INFORMATIONAL,
    SK,
    SKF,
    VENDOR,
    Bench,
    I,
    R,
    octets,
)

item = pytest.mark.item


def plain_bench(**options):
    """A bench without acknowledgments: RFC 7383 alone."""
    return Bench(acks=False, **options)


def ccm_pair():
    """Ciphers for both sides with AES-CCM-16 and two keys."""
    keys = bytes(range(19)), bytes(range(40, 59))
    return (
        (CCM(keys[0], 16), CCM(keys[1], 16)),
        (CCM(keys[0], 16), CCM(keys[1], 16)),
    )


# The sender.


@item("FRG-01")
def test_without_negotiation_no_message_is_split_and_no_fragment_taken():
    bench = plain_bench(fragmentation=False)
    (datagram,) = bench.request(900)
    assert bench.read(datagram).payload == SK
    bench.send(*bench.fragments([(VENDOR, octets(2))], 2))
    assert bench.drops == {"UNEXPECTED_FRAGMENT": 2}
    assert not bench.sa.responses


@item("FRG-01", "ACK-01")
@pytest.mark.parametrize("frag_ack", ["02", "04", "off"])
def test_the_first_message_offers_fragmentation_and_perhaps_acknowledgment(frag_ack):
    sensor = IkeSa(profile(frag_ack=frag_ack, fragment_size=128), Rand(b"offer"))
    sensor.start(0, Handshake(sensor, None, REMOTE))
    message = bytes(sensor.poll_out())
    fragmentation = struct.pack(">HBBH", 8, 0, 0, 16430)
    supported = struct.pack(">HBBH", 8, 0, 0, 50201)
    assert fragmentation in message
    assert (supported in message) == (frag_ack != "off")
    assert sensor.poll_out() is None


@item("FRG-02")
def test_ike_sa_init_is_never_split():
    sensor = IkeSa(profile(fragment_size=128), Rand(b"init"))
    sensor.start(0, Handshake(sensor, None, REMOTE))
    message = bytes(sensor.poll_out())
    assert len(message) > 128 - 28 and message[16] != SKF
    assert sensor.poll_out() is None


@item("FRG-03")
@pytest.mark.parametrize("floated", [False, True])
def test_what_fits_one_datagram_is_not_split(floated):
    # Message 28 + 4, IV 8, Pad Length 1, ICV 16, inner payload header 4.
    most = 200 - 28 - 61 - (4 if floated else 0)
    for size in (most - 1, most, most + 1):
        bench = plain_bench()
        bench.sa.floated = floated
        datagrams = bench.request(size)
        assert len(datagrams) == (1 if size <= most else 2), size
        assert all(len(datagram) <= 200 - 28 for datagram in datagrams)


@item("FRG-03")
def test_an_answer_that_fits_is_one_datagram_though_the_request_came_in_fragments():
    bench = plain_bench()
    (answer,) = bench.send(*bench.fragments([(VENDOR, octets(3))], 3, flags=0))
    assert bench.read(answer).payload == SK and bench.read(answer).flags == I | R


@item("FRG-04", "FRG-05", "FRG-06", "FRG-07", "FRG-08", "FRG-12")
def test_each_fragment_is_a_message_of_its_own_and_they_join_to_the_payloads():
    bench = plain_bench(ciphers=ccm_pair())
    messages = [bench.read(datagram) for datagram in bench.request(700, CREATE_CHILD_SA)]
    total = len(messages)
    assert total > 3
    assert [message.number for message in messages] == list(range(1, total + 1))
    assert {message.total for message in messages} == {total}
    assert all(message.plain for message in messages)
    assert [message.first for message in messages] == [VENDOR] + [0] * (total - 1)
    assert {(m.payload, m.exchange, m.flags, m.mid) for m in messages} == {
        (SKF, CREATE_CHILD_SA, I, 0)
    }
    assert len({message.iv for message in messages}) == total
    body = bytes(i & 255 for i in range(700))
    assert b"".join(message.plain for message in messages) == b"\0\0\x02\xc0" + body


@item("FRG-10")
def test_every_octet_in_front_of_the_iv_is_authenticated():
    """IKE header, generic header, Number and Total: bend each bit that a receiver does not check."""
    bench = plain_bench(ciphers=ccm_pair())
    for datagram in bench.request(300)[:1]:
        for at in range(4, 4 + 36):
            bent = bytearray(datagram[4:])
            bent[at - 4] ^= 1
            assert bench.opener.open(bytes(bent[:36]), bytes(bent[36:])) is None
    bench.send(*[bent_at(bench, 33), bent_at(bench, 35, 8)])
    assert bench.drops == {"BAD_ICV": 2}


def bent_at(bench, offset, bit=1):
    """Fragment 2 of 4 of a response, with a bit of Number or Total the other way."""
    datagram = bytearray(bench.fragment(2, 4, b"piece"))
    datagram[4 + offset] ^= bit
    return bytes(datagram)


@item("FRG-11", "FRG-27")
@pytest.mark.parametrize(
    ("address", "marker", "icv", "room"),
    [
        (4, False, 16, 487),
        (4, True, 16, 483),
        (4, False, 8, 495),
        (4, True, 8, 491),
        (16, False, 16, 1171),
        (16, True, 16, 1167),
        (16, True, 8, 1175),
    ],
)
def test_the_room_in_a_fragment_of_the_default_size(address, marker, icv, room):
    node = Node(profile(), Rand(b"room"))
    (request,) = node.start(0, None, (bytes(address), 500))
    node.receive(Responder().init(request))
    sensor = node.ike
    headers = {4: 28, 16: 48}[address]
    assert sensor.room + headers == {4: 576, 16: 1280}[address]
    sensor.fragmentation = True
    sensor.floated = marker
    sensor.use(CCM(bytes(19), icv), None)
    datagrams = sensor.protect(INFORMATIONAL, I, 1, [(VENDOR, bytes(3000))])
    assert len(datagrams[0]) == sensor.room
    assert len(datagrams[0]) - 36 - 8 - 1 - icv - (4 if marker else 0) == room
    assert len(datagrams) == -(-3004 // room)


@item("FRG-27")
@pytest.mark.parametrize(("octets_of_ke", "v4", "v6"), [(808, 2, 1), (1192, 3, 2), (1576, 4, 2)])
def test_how_many_fragments_an_ml_kem_key_takes(octets_of_ke, v4, v6):
    sensor = IkeSa(profile(), Rand(b"kem"))
    for room, count in ((576 - 28, v4), (1280 - 48, v6)):
        sensor.room = room
        sensor.fragmentation = True
        sensor.use(CCM(bytes(19), 16), None)
        datagrams = sensor.protect(43, I, 1, [(34, bytes(octets_of_ke - 4))])
        assert len(datagrams) == count


@item("FRG-11")
@pytest.mark.parametrize("size", [128, 200, 333, 576, 1280])
@pytest.mark.parametrize("cipher", ["ccm8", "ccm16", "cbc"])
def test_no_datagram_is_larger_than_the_profile_says(size, cipher):
    bench = plain_bench(fragment_size=size)
    bench.sa.tx = {
        "ccm8": lambda: CCM(bytes(19), 8),
        "ccm16": lambda: CCM(bytes(19), 16),
        "cbc": lambda: CBC(bytes(48), 16),
    }[cipher]()
    datagrams = bench.request(800)
    assert all(len(datagram) <= size - 28 for datagram in datagrams)
    assert len(datagrams) == 1 or len(datagrams[0]) > size - 28 - 16


@item("FRG-12", "FRG-13")
def test_the_timer_resends_all_fragments_with_the_same_octets():
    bench = plain_bench()
    first = bench.request(500)
    assert len(first) > 3
    for pause in (1000, 2000, 4000, 8000):
        assert bench.wait(pause - 1) == []
        assert bench.wait(1) == first
    assert bench.wait(16000) == []
    assert bench.sa.next_event()[0] == "state"
    assert bench.sa.next_event() == ("failed", "timeout", INFORMATIONAL)


@item("FRG-13")
def test_fragments_of_the_answer_do_not_stop_the_timer():
    bench = plain_bench()
    first = bench.request(500)
    bench.send(*bench.fragments([(VENDOR, octets(4))], 4)[:3])
    assert bench.wait(1000) == first


@item("FRG-14", "AMB-16")
def test_a_message_is_never_split_anew():
    """No path MTU probing: fragment_size is what the owner set."""
    bench = Bench()
    first = bench.request(500)
    total = len(first)
    sent = bench.wait(100) + bench.send(bench.ack((2, 3))) + bench.wait(31000)
    assert sent and set(sent) <= set(first)
    assert {bench.read(datagram).total for datagram in sent} == {total}


@item("FRG-24")
def test_a_message_of_ours_beyond_the_bounds_is_refused():
    for body in (9000, 100 * 170):
        with pytest.raises(ValueError):
            plain_bench().request(body)
    bench = plain_bench(fragment_size=128)
    assert len(bench.request(64 * 35 - 4)) == 64
    with pytest.raises(ValueError):
        plain_bench(fragment_size=128).request(64 * 35 - 3)


@item("FRG-24")
def test_the_cache_for_resends_is_bounded_and_emptied_by_the_answer():
    bench = plain_bench(fragment_size=200)
    bench.request(107 * 47 - 4)
    assert sum(map(len, bench.sa.request.datagrams)) <= firmware_fragment.MAX_OCTETS
    held = weakref.ref(bench.sa.request)
    bench.send(bench.message([]))
    assert bench.sa.request is None and held() is None
    with pytest.raises(ValueError):
        plain_bench(fragment_size=200).request(107 * 47 - 3)


# The receiver.


@item("FRG-20", "FRG-25")
@pytest.mark.parametrize("flags", [R, 0])
def test_every_order_of_arrival_joins_to_the_same_message(flags):
    for order in itertools.permutations(range(5)):
        bench = plain_bench()
        if flags:
            bench.request()
        fragments = bench.fragments([(VENDOR, octets(5))], 5, flags=flags)
        answers = bench.send(*(fragments[i] for i in order))
        got = bench.sa.responses if flags else bench.sa.requests
        assert got == [[(VENDOR, octets(5))]], order
        assert len(answers) == (0 if flags else 1)
        assert bench.drops == {} and not bench.sa.incoming


@item("FRG-20", "FRG-25", "FRG-17")
def test_45_fragments_in_random_orders_with_duplicates():
    rng = random.Random(45)
    for _ in range(20):
        bench = plain_bench()
        bench.request()
        fragments = bench.fragments([(VENDOR, octets(45))], 45)
        arrivals = fragments + rng.choices(fragments, k=20)
        rng.shuffle(arrivals)
        bench.send(*arrivals)
        assert bench.sa.responses == [[(VENDOR, octets(45))]]
        # A duplicate is a replay while the message is incomplete and late when it is complete.
        assert set(bench.drops) <= {"REPLAYED_FRAGMENT", "OLD_MESSAGE_ID"}
        assert sum(bench.drops.values()) == 20


@item("FRG-16")
@pytest.mark.parametrize(
    ("number", "total"), [(0, 3), (4, 3), (0, 0), (1, 0), (65535, 65535), (1, 65), (3, 2)]
)
def test_impossible_numbers_are_dropped_without_decrypting(number, total):
    bench = plain_bench()
    bench.request()
    bench.send(bench.fragment(1, 3, b"a"))
    opened = count_opens(bench)
    bench.send(bench.fragment(number, total, b"x"))
    assert bench.drops == {"BAD_FRAGMENT": 1} and opened == []


@item("FRG-16")
def test_a_fragment_of_another_message_id_is_dropped():
    bench = plain_bench()
    bench.request()
    for mid in (1, 7, 0xFFFFFFFF):
        bench.send(bench.fragment(1, 2, b"x", mid=mid))
        bench.send(bench.fragment(1, 2, b"x", mid=mid, flags=0))
    assert bench.drops == {"OLD_MESSAGE_ID": 6} and not bench.sa.incoming


@item("FRG-16")
def test_a_smaller_total_is_dropped_and_harms_nothing():
    bench = plain_bench()
    bench.request()
    four = bench.fragments([(VENDOR, octets(4))], 4)
    three = bench.fragments([(VENDOR, octets(3))], 3)
    bench.send(*four[:3], *three, four[3])
    assert bench.drops == {"BAD_FRAGMENT": 3}
    assert bench.sa.responses == [[(VENDOR, octets(4))]]


def count_opens(bench):
    """A list that grows with each decryption."""
    opened = []
    real = bench.sa.rx

    class Counting:
        size = real.size

        def open(self, aad, body):
            opened.append(len(body))
            return real.open(aad, body)

    bench.sa.rx = Counting()
    return opened


@item("FRG-17")
def test_a_replay_is_dropped_before_it_is_decrypted():
    bench = plain_bench()
    bench.request()
    one, two, _ = bench.fragments([(VENDOR, octets(3))], 3)
    bench.send(one, two)
    opened = count_opens(bench)
    bench.send(one, two, bench.fragment(2, 3, b"another text"))
    assert bench.drops == {"REPLAYED_FRAGMENT": 3} and opened == []


@item("FRG-18")
def test_a_bad_icv_drops_that_fragment_alone():
    bench = plain_bench(ciphers=ccm_pair())
    bench.request()
    fragments = bench.fragments([(VENDOR, octets(3))], 3)
    bad = fragments[1][:-1] + bytes((fragments[1][-1] ^ 1,))
    bench.send(fragments[0], bad, fragments[2], bad, fragments[1])
    assert bench.drops == {"BAD_ICV": 2}
    assert bench.sa.responses == [[(VENDOR, octets(3))]]


@item("FRG-18")
def test_a_forged_larger_total_does_not_empty_the_queue():
    bench = plain_bench(ciphers=ccm_pair())
    bench.request()
    fragments = bench.fragments([(VENDOR, octets(3))], 3)
    forged = bench.fragment(1, 60, b"x")
    bench.send(*fragments[:2], forged[:-3] + b"bad", fragments[2])
    assert bench.drops == {"BAD_ICV": 1} and len(bench.sa.responses) == 1


@item("FRG-19")
def test_a_larger_total_starts_the_message_anew():
    bench = plain_bench()
    bench.request()
    three = bench.fragments([(VENDOR, octets(3))], 3)
    five = bench.fragments([(VENDOR, octets(5))], 5)
    bench.send(three[0], three[1], five[4], three[2], *five[:4])
    assert bench.drops == {"BAD_FRAGMENT": 1}
    assert bench.sa.responses == [[(VENDOR, octets(5))]]


@item("FRG-19", "FRG-24")
def test_what_a_larger_total_threw_away_does_not_count_against_the_bound():
    bench = plain_bench()
    bench.request()
    for total in range(2, 20):
        bench.send(bench.fragment(1, total, bytes(2000)))
    assert bench.drops == {} and bench.sa.incoming[True].octets == 2000


@item("FRG-09")
def test_payloads_in_the_clear_stand_in_front_of_fragment_1_only():
    bench = plain_bench()
    bench.request()
    clear = [(VENDOR, b"in the clear")]
    bench.send(bench.fragment(1, 2, b"\0\0\0\x0aabc", VENDOR, clear=clear))
    bench.send(bench.fragment(2, 2, b"def", clear=clear))
    assert bench.drops == {"BAD_FRAGMENT": 1} and not bench.sa.responses
    bench.send(bench.fragment(2, 2, b"def"))
    assert bench.sa.responses == [[(VENDOR, b"abcdef")]]


@item("FRG-05")
def test_skf_is_the_last_payload():
    bench = plain_bench()
    bench.request()
    datagram = bench.fragment(1, 2, b"abc")
    longer = bytearray(datagram + struct.pack(">BBH", 0, 0, 8) + b"more")
    longer[4 + 24 : 4 + 28] = struct.pack(">I", len(longer) - 4)
    bench.send(bytes(longer))
    assert bench.drops == {"BAD_LENGTH": 1}


@item("FRG-06")
def test_an_empty_piece_is_dropped_and_what_waits_stays():
    bench = plain_bench()
    bench.request()
    fragments = bench.fragments([(VENDOR, octets(2))], 2)
    bench.send(fragments[0], bench.fragment(2, 2, b""), fragments[1])
    assert bench.drops == {"BAD_FRAGMENT": 1} and len(bench.sa.responses) == 1


@item("FRG-07")
def test_the_first_payload_is_named_by_fragment_1_whatever_the_others_say():
    bench = plain_bench()
    bench.request()
    bench.send(bench.fragment(2, 2, b"def", first=99))
    bench.send(bench.fragment(1, 2, b"\0\0\0\x0aabc", first=VENDOR))
    assert bench.sa.responses == [[(VENDOR, b"abcdef")]]


@item("FRG-08")
def test_fragments_of_two_exchanges_do_not_mix():
    bench = plain_bench()
    fragments = bench.fragments([(VENDOR, octets(2))], 2, flags=0)
    stray = bench.fragment(2, 2, b"stray", flags=0, exchange=CREATE_CHILD_SA)
    bench.send(fragments[0], stray)
    assert not bench.sa.requests
    bench.send(*fragments)
    assert bench.sa.requests == [[(VENDOR, octets(2))]]


@item("FRG-20")
def test_nothing_is_parsed_before_the_message_is_whole():
    bench = plain_bench()
    garbage = b"\xff" * 30
    assert bench.send(bench.fragment(1, 2, garbage, first=VENDOR, flags=0)) == []
    assert bench.drops == {}
    (answer,) = bench.send(bench.fragment(2, 2, garbage, flags=0))
    assert bench.drops == {"BAD_PAYLOAD": 1}
    assert bench.read(answer).plain[6:8] == b"\0\x07"  # INVALID_SYNTAX


@item("FRG-21", "FRG-22")
def test_an_incomplete_request_is_forgotten_in_time_and_never_answered():
    bench = plain_bench()
    fragments = bench.fragments([(VENDOR, octets(3))], 3, flags=0)
    assert bench.send(*fragments[:2]) == []
    assert bench.wait(29999) == [] and bench.sa.incoming
    assert bench.wait(1) == [] and not bench.sa.incoming
    bench.send(fragments[2])
    assert not bench.sa.requests
    assert len(bench.send(*fragments[:2])) == 1


@item("FRG-21")
def test_an_incomplete_response_is_forgotten_when_we_give_up():
    bench = plain_bench()
    bench.request()
    bench.send(*bench.fragments([(VENDOR, octets(3))], 3)[:2])
    bench.wait(31000)
    assert not bench.sa.incoming and not bench.sa.responses
    assert bench.sa.tx is None and bench.sa.request is None


@item("FRG-23", "AMB-19", "AMB-14")
@pytest.mark.parametrize("acks", [False, True])
def test_only_fragment_1_of_an_answered_request_brings_the_answer_again(acks):
    bench = Bench(acks=acks)
    fragments = bench.fragments([(VENDOR, octets(4))], 4, flags=0)
    (answer,) = bench.send(*(fragments[i] for i in (1, 0, 3, 2)))
    assert bench.send(*fragments[1:]) == []
    assert bench.send(fragments[0]) == [answer]
    assert bench.wait(40000) == []
    assert len(bench.sa.requests) == 1
    # The same text encrypted anew is another message (RFC 7296 §2.1), and 1 of 5 another one too.
    again = bench.fragments([(VENDOR, octets(4))], 4, flags=0)[0]
    assert bench.send(again, bench.fragment(1, 5, b"x", flags=0)) == []
    # With the next request the old one is forgotten.
    bench.send(bench.message([], mid=1, flags=0))
    assert bench.send(fragments[0]) == []


@item("FRG-23")
def test_a_request_in_one_datagram_is_answered_again_with_the_same_octets():
    bench = plain_bench()
    request = bench.message([], flags=0)
    assert bench.send(request) == bench.send(request) != []


@item("FRG-24")
def test_the_octets_that_wait_are_bounded():
    bench = plain_bench()
    for number in range(1, 5):
        bench.send(bench.fragment(number, 64, bytes(2000), flags=0))
    assert bench.sa.incoming[False].octets == 8000
    bench.send(bench.fragment(5, 64, bytes(193), flags=0))
    assert bench.drops == {"TOO_LARGE": 1} and not bench.sa.incoming


@item("FRG-24")
def test_requests_and_responses_share_the_bound_and_a_response_beyond_it_ends_the_sa():
    bench = plain_bench()
    bench.request()
    bench.send(*(bench.fragment(n, 9, bytes(2000), flags=0) for n in range(1, 4)))
    bench.send(bench.fragment(1, 9, bytes(2192)))
    assert sum(queue.octets for queue in bench.sa.incoming.values()) == 8192
    bench.send(bench.fragment(2, 9, b"x"))
    assert bench.drops == {"TOO_LARGE": 1}
    assert ("failed", "peer", "TOO_LARGE") in events(bench)
    assert bench.sa.next_timer() is None and not bench.sa.incoming


def events(bench):
    found = []
    while (event := bench.sa.next_event()) is not None:
        found.append(event)
    return found


@item("FRG-24")
def test_64_fragments_of_the_largest_size_that_fits_are_taken():
    bench = plain_bench()
    bench.request()
    body = bytes(64 * 128 - 4)
    first, plain = VENDOR, struct.pack(">BBH", 0, 0, len(body) + 4) + body
    fragments = [
        bench.fragment(n + 1, 64, plain[128 * n : 128 * n + 128], 0 if n else first)
        for n in range(64)
    ]
    bench.send(*reversed(fragments))
    assert bench.sa.responses == [[(VENDOR, body)]]


@item("FRG-26")
def test_a_whole_message_is_taken_while_fragments_wait_and_ends_their_wait():
    bench = plain_bench()
    bench.request()
    bench.send(bench.fragment(1, 3, b"x"), bench.fragment(1, 3, b"x", flags=0))
    bench.send(bench.message([(VENDOR, b"whole")]))
    assert bench.sa.responses == [[(VENDOR, b"whole")]] and list(bench.sa.incoming) == [False]
    bench.send(bench.message([(VENDOR, b"whole")], flags=0))
    assert bench.sa.requests == [[(VENDOR, b"whole")]] and not bench.sa.incoming
    assert bench.sa.next_timer() is None


def test_keys_and_fragments_are_let_go_at_the_end():
    bench = Bench()
    bench.request(500)
    bench.send(bench.fragment(1, 3, b"secret", flags=0), bench.fragment(1, 3, b"secret"))
    bench.sa.end()
    sa = bench.sa
    assert not sa.incoming and sa.tx is sa.request is sa.answered is None and not sa.acks
    assert sa.next_timer() is None
    bench.send(bench.fragment(2, 3, b"late"))
    assert bench.drops == {"UNEXPECTED": 1}
