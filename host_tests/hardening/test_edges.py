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
    assert said(numbers.next, 0) == "SPENT" and numbers.last == 0
    numbers = Sequence(0, last=7)
    numbers.end()
    assert said(numbers.next, 10**6) == "SPENT"


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


def appendix_a2(size, top, low):
    """RFC 4303 appendix A2.2, as it stands there; before the first 2^32 there is nothing."""
    t_high, t_low = top >> 32, top & 0xFFFFFFFF
    if t_low >= size - 1:
        high = t_high if low >= t_low - size + 1 else t_high + 1
    else:
        high = t_high - 1 if low >= t_low - size + 1 + 2**32 and t_high else t_high
    return high << 32 | low


def test_64_bit_numbers_are_guessed_as_the_rfc_does_at_each_edge_of_the_window():
    near = [*range(0, 140), *range(2**31 - 2, 2**31 + 2), *range(2**32 - 140, 2**32)]
    for size in (1, 2, 32, 64):
        for high in (0, 1, 5):
            for top in (0, 1, size - 2, size - 1, size, size + 1, 130, 2**31, 2**32 - 1):
                if top >= 0:
                    window = ReplayWindow(size, high << 32 | top)
                    for low in near:
                        assert window.extend(low) == appendix_a2(size, high << 32 | top, low)


def test_a_step_of_exactly_400_days_is_a_clock_and_one_more_millisecond_is_none():
    most = 400 * 86400 * 1000
    assert Sequence(0, 3600000).next(most) is not None
    assert said(Sequence(0, 3600000).next, most + 1) == "SPENT"


def test_after_a_sleep_the_last_number_waits_for_its_age_and_an_ended_sa_does_not():
    assert said(Sequence(0, 100, 2**32 - 2, paced=0).next, 1000) == "TOO_EARLY"
    numbers = Sequence(0, 100, 7, paced=10**6)
    numbers.end()
    assert said(numbers.next, 0) == "SPENT"


def test_a_leap_of_the_peers_numbers_costs_no_memory():
    """An SN far ahead comes from who has the keys; shifting the window by it would cost 512 MB."""
    window = ReplayWindow(64)
    window.commit(1)
    tracemalloc.start()
    try:
        window.commit(1 << 22)
        assert tracemalloc.get_traced_memory()[1] < 4096
    finally:
        tracemalloc.stop()
    assert window.seen == 1 and window.top == 1 << 22


# ccm


def sealed(n, cipher=CCM(bytes(range(19)), 8)):
    """Seal `n` octets; return the work space that stays."""
    buf = bytearray(n + 16)
    cipher.seal_into(buf, 0, n, bytes(8), bytes(8))
    return ccm._work


def test_work_space_for_a_packet_of_the_usual_size_stays_and_for_a_larger_one_goes():
    first = sealed(1344 - 32)
    assert len(first[0]) == 1344
    for n in (0, 1, 16, 1000, 1344 - 32):
        assert sealed(n) is first
    for n in (1344 - 31, 3000):
        assert sealed(n) is first


def test_a_new_key_begins_with_little_work_space_whatever_earlier_messages_took():
    assert len(sealed(1000)[0]) > 1000 and ccm._plans
    small = CCM(bytes(19), 8)
    assert [len(part) for part in ccm._work] == [128] * 3 and not ccm._plans
    assert sealed(16, small) is ccm._work and len(ccm._plans) == 1
    kept = ccm._work, dict(ccm._plans)
    CCM(bytes(19), 8)  # there is nothing to let go of
    assert (ccm._work, ccm._plans) == kept


def test_a_size_that_is_remembered_serves_that_size_alone():
    """Half of it, twice of it, and the same sum with the AAD."""
    key = bytes(range(16))
    ours = CCM(key + bytes(3), 16)
    for n in (64, 32, 16, 8, 4, 8, 16, 32, 64, 128):
        for k in (8, 16, 12):
            text, aad, iv = bytes(range(n)), bytes(range(k)), bytes([n, k]) + bytes(6)
            buf = bytearray(text) + bytes(16)
            ours.seal_into(buf, 0, n, iv, aad)
            assert buf == AESCCM(key, 16).encrypt(bytes(3) + iv, text, aad)


def test_each_part_of_the_work_space_is_as_long_as_the_others():
    for part in sealed(700)[:3]:
        assert len(part) == len(ccm._work[0])


def test_buffers_that_machine_code_writes_to_have_their_size_from_the_start():
    key = CCM(bytes(range(19)), 8)
    for _ in range(2):
        assert (len(key._tag), len(key._head), len(key._first)) == (16, 4, 4)
        key.seal_into(bytearray(40), 0, 20, bytes(8), bytes(8))


def test_additional_data_of_each_length_is_what_openssl_makes_of_it():
    key = bytes(range(16))
    for n in (0, 1, 15, 16, 17):
        text = bytes(range(100, 100 + n))
        for k in range(1, 70):  # IKE and ESP always have some
            aad = bytes(range(k))
            buf = bytearray(text + bytes(16))
            CCM(key + b"abc", 16).seal_into(buf, 0, n, bytes(8), aad)
            assert buf == AESCCM(key, 16).encrypt(b"abc" + bytes(8), text, aad)


def test_plans_of_eight_sizes_are_kept_and_all_lie_in_the_present_work_space():
    cipher = CCM(bytes(19), 8)

    def seal(n):
        cipher.seal_into(memoryview(bytearray(n + 8)), 0, n, bytes(8), bytes(8))

    seal(1300)  # the largest: no other work space comes after it
    ccm._plans.clear()
    for count, n in enumerate((4, 8, 12, 16, 20, 24, 28, 32), 1):
        seal(n)
        assert len(ccm._plans) == count
    seal(36)
    assert len(ccm._plans) == 1
    ccm._work = ccm._make(128)
    ccm._plans.clear()
    for n in (4, 200, 8, 400):
        seal(n)
        assert all(plan[5] is ccm._work[2] for plan in ccm._plans.values())


def test_nothing_is_written_behind_the_end_of_a_buffer(monkeypatch):
    """Python's would grow; machine code would write over what is there."""

    def within(real):
        def checked(out, at, x, x_at, n, end=0):
            assert at + n <= len(out) and x_at + n <= len(x) and end <= len(out)
            real(out, at, x, x_at, n, *(() if real.__name__ == "xor" else (end,)))

        return checked

    for name in ("copy", "xor"):
        monkeypatch.setattr(ccm, name, within(getattr(ccm, name)))
    cipher = CCM(bytes(range(19)), 16)
    for n in (0, 1, 15, 16, 100):
        sealed = cipher.seal(bytes(20), bytes(8), bytes(n))
        assert len(sealed) == 8 + n + 1 + 16
        assert cipher.open(bytes(20), sealed) == bytes(n)


# esp

ENDS = (bytes((10, 9, 0, 5)), bytes((10, 3, 0, 10)), 5000, 5000)
CHILD = {"spi_out": b"\1\2\3\4", "key_out": bytes(range(19)), "cipher": 14, "transport": True}
BACK = {"spi_in": CHILD["spi_out"], "key_in": CHILD["key_out"], "cipher": 14, "transport": True}


def packet(plaintext, sn=1):
    """An ESP packet as a peer may make it, whatever stands in it."""
    head = CHILD["spi_out"] + sn.to_bytes(4, "big")
    iv = sn.to_bytes(8, "big")
    cipher = AESCCM(CHILD["key_out"][:16], 8)
    return head + iv + cipher.encrypt(CHILD["key_out"][16:] + iv, bytes(plaintext), head)


def udp(octets):
    return struct.pack(">HHHH", 5000, 5000, 8 + len(octets), 0) + octets


def test_each_packet_counts_once_and_the_last_one_asks_for_a_new_sa():
    sender = Sender(CHILD, ENDS, Sequence(0))
    assert sender.spent(0)
    for count in range(1, 6):
        sender.seal(b"21.5", count * 100)
        assert sender.packets == count
        assert [sender.spent(most) for most in (count - 1, count, count + 1)] == [
            True,
            True,
            False,
        ]


def test_padding_of_each_length_up_to_255_octets_is_taken():
    for pad in range(256):
        padding = bytes(range(1, pad + 1))
        payload = b"x" * (-(pad + 2) % 4)
        plaintext = udp(payload) + padding + bytes((pad, 17))
        assert Receiver(BACK, ENDS, 64).open(packet(plaintext)) == payload


def test_only_plaintexts_of_full_words_are_decrypted_at_all():
    for n in range(40):
        found = Receiver(BACK, ENDS, 64).open(packet(bytes(n)))
        assert (found == "BAD_LENGTH") == (n == 0 or n % 4 != 0), n
    whole = packet(bytes(16))
    for n in range(24):
        assert Receiver(BACK, ENDS, 64).open(whole[:n]) == "BAD_LENGTH"


def test_the_buffer_of_packets_grows_with_the_largest_and_is_never_made_anew_for_less():
    sender = Sender(CHILD, ENDS, Sequence(0))
    sender.seal(bytes(100), 100)
    buffer = sender._buf
    for size in (100, 99, 1, 0, 100):
        sender.seal(bytes(size), 200)
        assert sender._buf is buffer
    sender.seal(bytes(104), 300)
    assert len(sender._buf) > len(buffer)


def test_readings_in_ipv4_carry_a_checksum_of_udp_and_in_transport_mode_none():
    """RFC 768's, which a NAT on the way of transport mode would spoil."""
    for transport in (False, True):
        sealed = bytes(
            Sender(CHILD | {"transport": transport}, ENDS, Sequence(0)).seal(b"21.5", 0)
        )
        cipher = AESCCM(CHILD["key_out"][:16], 8)
        inside = cipher.decrypt(CHILD["key_out"][16:] + sealed[8:16], sealed[16:], sealed[:8])
        if transport:
            assert inside[6:8] == bytes(2)
            continue
        datagram = inside[20:32]
        summed = ENDS[0] + ENDS[1] + struct.pack(">HH", 17, 12) + datagram
        total = sum(struct.unpack(f">{len(summed) // 2}H", summed))
        assert datagram[6:8] != bytes(2) and total % 0xFFFF == 0


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
