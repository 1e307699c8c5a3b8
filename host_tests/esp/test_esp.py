"""ESP: one reading out, and what Receiver.open says to everything else that may come in."""

import struct

from host_tests.esp.test_inner import back, changed, made, mended
from host_tests.esp.said import Receiver, said
from minipsec.esp import inner
from minipsec.crypto.ccm import CCM
from minipsec.esp.sa import MAX_PAYLOAD, Sender
from minipsec.esp.sequence import Sequence

US, SERVER = bytes((10, 9, 0, 1)), bytes((10, 3, 0, 10))
KEY_OUT = bytes(range(16)) + b"out"
KEY_IN = bytes(range(16, 32)) + b"in."
SPI_OUT, SPI_IN = b"\xca\xfe\xba\xbe", b"\xde\xad\xbe\xef"


def child(icv=8):
    return {
        "spi_in": SPI_IN,
        "spi_out": SPI_OUT,
        "key_in": KEY_IN,
        "key_out": KEY_OUT,
        "cipher": {8: 14, 12: 15, 16: 16}[icv],
    }


def sender(icv=8, **numbers):
    return Sender(child(icv), (US, SERVER, 5000, 5000), Sequence(0, **numbers))


def receiver(icv=8, window=64):
    return Receiver(child(icv), (SERVER, US, 5000, 5000), window)


def open_out(packet, icv=8):
    """Open what we sent: (SPI, SN, IV, everything inside with padding, pad length, next header)."""
    ccm = CCM(KEY_OUT, icv)
    buf = bytearray(packet)
    n = len(buf) - 16 - icv
    assert ccm.open_in(buf, 16, n, buf[8:16], buf[:8])
    spi, sn = struct.unpack(">4sI", buf[:8])
    return spi, sn, bytes(buf[8:16]), bytes(buf[16 : 14 + n]), buf[14 + n], buf[15 + n]


def sealed(inside, sn=1, next_header=4, padding=None, icv=8, key=KEY_IN, spi=SPI_IN, iv=None):
    """An ESP packet for us. `padding` None is the right one, else (octets, Pad Length)."""
    if padding is None:
        n = -(len(inside) + 2) & 3
        padding = bytes(range(1, n + 1)), n
    text = inside + padding[0] + bytes((padding[1], next_header))
    iv = struct.pack(">Q", sn) if iv is None else iv
    buf = bytearray(spi + struct.pack(">I", sn) + iv + text + bytes(icv))
    CCM(key, icv).seal_into(buf, 16, len(text), iv, buf[:8])
    return bytes(buf)


# Out


def test_a_reading_is_one_packet_and_reads_back():
    for icv in (8, 12, 16):
        packet = bytes(sender(icv).seal(b"t=21.5", 0))
        spi, sn, iv, inside, pad, next_header = open_out(packet, icv)
        assert (spi, sn, iv, next_header) == (SPI_OUT, 1, b"\0\0\0\0\0\0\0\1", 4)
        assert inner.parse(inside[: len(inside) - pad], US, SERVER) == (5000, 5000, b"t=21.5")
        assert len(packet) == 16 + len(inside) + 2 + icv


def test_padding_is_1_2_3_to_the_next_4_octets_and_no_more():
    out = sender()
    for size in range(60):
        packet = out.seal(bytes(size), 0)
        assert len(packet) % 4 == 0
        inside, pad = open_out(packet)[3:5]
        assert pad == -(28 + size + 2) & 3
        assert inside[len(inside) - pad :] == bytes(range(1, pad + 1))


def test_no_two_packets_share_an_iv_and_it_is_the_sequence_number():
    out = sender()
    seen = set()
    for n in range(200):
        spi, sn, iv, inside, pad, next_header = open_out(out.seal(b"%d" % n, n * 30))
        assert iv == struct.pack(">Q", sn)
        seen.add(iv)
    assert len(seen) == 200


def test_the_same_reading_twice_is_two_different_ciphertexts():
    out = sender()
    first = bytes(out.seal(b"same", 0))
    second = bytes(out.seal(b"same", 0))
    assert first[16:] != second[16:]
    # Repeating state repeats octets: this is what the sequence number must prevent.
    assert bytes(sender().seal(b"same", 0)) == first


def test_a_large_packet_leaves_nothing_of_itself_in_a_small_one():
    out = sender()
    out.seal(b"\xff" * 1000, 0)
    small = open_out(out.seal(b"s", 100))
    fresh = sender()
    fresh.numbers.next(0)
    assert small == open_out(fresh.seal(b"s", 100))


def test_a_payload_has_a_bound_and_costs_no_number_beyond_it():
    out = sender()
    try:
        out.seal(bytes(MAX_PAYLOAD + 1), 0)
    except ValueError:
        pass
    else:
        raise AssertionError("no ValueError")
    assert out.numbers.last == 0
    packet = out.seal(bytes(MAX_PAYLOAD), 0)
    assert open_out(packet)[1] == 1 and MAX_PAYLOAD < len(packet) < 1300


def test_nothing_leaves_when_the_numbers_are_used_up():
    out = sender(last=0xFFFFFFFF)
    assert said(out.seal, b"one too many", 0) == "SPENT"
    assert out.packets == 0


def test_ipv6_inside_has_its_own_next_header():
    six, server_6 = bytes(15) + b"\1", bytes(15) + b"\2"
    out = Sender(child(), (six, server_6, 1, 2), Sequence(0))
    inside, pad, next_header = open_out(out.seal(b"six", 0))[3:]
    assert next_header == 41
    assert inner.parse(inside[: len(inside) - pad], six, server_6) == (1, 2, b"six")


# In


def test_a_packet_for_us_gives_its_payload_whatever_its_size():
    into = receiver()
    for size in range(70):
        payload = bytes(i + size & 255 for i in range(size))
        assert into.open(sealed(back(payload), 1 + size)) == payload
    for icv in (12, 16):
        assert receiver(icv).open(sealed(back(), icv=icv)) == b"echo"
    assert receiver().open(memoryview(sealed(back()))) == b"echo"


def test_the_given_packet_is_left_as_it_was():
    packet = bytearray(sealed(back()))
    before = bytes(packet)
    assert receiver().open(packet) == b"echo"
    assert packet == before


def test_any_iv_is_taken_since_gateways_choose_theirs_freely():
    into = receiver()
    for sn, iv in ((1, bytes(8)), (2, b"\xff" * 8), (3, b"unlucky!")):
        assert into.open(sealed(back(), sn, iv=iv)) == b"echo"


def test_every_truncation_and_extension_is_refused():
    packet = sealed(back(b"reading"))
    into = receiver()
    for size in range(len(packet)):
        assert into.open(packet[:size]) in ("BAD_LENGTH", "BAD_ICV"), size
    for extra in (b"\0", b"\0\0\0\0", packet):
        assert into.open(packet + extra) in ("BAD_LENGTH", "BAD_ICV")
    assert into.open(packet) == b"reading"


def test_one_flipped_bit_is_refused_wherever_it_is():
    packet = sealed(back(b"reading"), sn=7)
    into = receiver()
    for at in range(len(packet)):
        for bit in range(8):
            reason = into.open(changed(packet, at, packet[at] ^ 1 << bit))
            if at < 4:
                assert reason == "UNKNOWN_SPI"
            else:
                assert reason in ("BAD_ICV", "REPLAY"), (at, bit, reason)
    assert into.open(packet) == b"reading"


def test_an_ack_of_nothing_is_no_packet():
    for packet in (b"", b"\xff", bytes(16), SPI_IN + bytes(20), SPI_IN + bytes(24)):
        assert receiver().open(packet) in ("BAD_LENGTH", "UNKNOWN_SPI", "REPLAY", "BAD_ICV")


def test_our_own_packet_reflected_is_not_for_us():
    assert receiver().open(sender().seal(b"mine", 0)) == "UNKNOWN_SPI"
    # Even with our inbound SPI put on it, the keys differ by direction.
    packet = SPI_IN + bytes(sender().seal(b"mine", 0))[4:]
    assert receiver().open(packet) == "BAD_ICV"


def test_a_replayed_packet_is_refused():
    into = receiver()
    packet = sealed(back(), 5)
    assert into.open(packet) == b"echo"
    assert into.open(packet) == "REPLAY"
    assert into.open(sealed(back(b"again"), 5)) == "REPLAY"


def test_packets_in_another_order_come_in_once_within_the_window():
    into = receiver(window=64)
    order = [70, 7, 8, 69, 6, 133, 69, 70, 71]
    got = [into.open(sealed(back(b"%d" % sn), sn)) for sn in order]
    assert got == [b"70", b"7", b"8", b"69", "REPLAY", b"133", "REPLAY", "REPLAY", b"71"]


def test_number_0_is_refused():
    assert receiver().open(sealed(back(), 0)) == "REPLAY"
    assert receiver(window=0).open(sealed(back(), 0)) == "REPLAY"


def test_a_forged_high_number_does_not_move_the_window():
    into = receiver()
    assert into.open(sealed(back(), 10)) == b"echo"
    for sn in (11, 1000, 0xFFFFFFFF):
        forged = changed(sealed(back(), sn), 40, 0, 1, 2, 3)
        assert into.open(forged) == "BAD_ICV"
        assert into.open(sealed(back(), sn, key=KEY_OUT)) == "BAD_ICV"
    assert into.open(sealed(back(), 9)) == b"echo"
    assert into.open(sealed(back(), 11)) == b"echo"


def test_what_is_wrong_inside_does_not_move_the_window_either():
    into = receiver()
    packet = sealed(b"this is not IP at all.", 0xFFFFFFFF)
    assert into.open(packet) == "INNER_VERSION"
    assert into.open(packet) == "INNER_VERSION"
    assert into.open(sealed(back(), 9)) == b"echo"


def test_padding_must_count_up_from_1():
    packet = back(b"12")
    assert len(packet) % 4 == 2
    n = 0
    for padding in (
        (b"\0\0\0\0", 4),
        (b"\1\2\3\0", 4),
        (b"\0\1\2\3", 4),
        (b"\1\1\1\1", 4),
        (b"\2\3\4\5", 4),
        (b"\1\2\3\4", 0),
        (b"\1\2\3\4", 5),
    ):
        n += 1
        expected = b"12" if padding[1] == 0 else "BAD_PADDING"
        assert receiver().open(sealed(packet, n, padding=padding)) == expected, padding
    for size in range(0, 252, 4):
        padding = bytes(range(1, size + 1)), size
        assert receiver().open(sealed(packet, padding=padding)) == b"12", size


def test_a_pad_length_beyond_the_packet_is_refused():
    for inside in (b"", b"ab", b"\1\2\3\4\5\6"):
        for pad in (len(inside) + 1, 100, 255):
            assert receiver().open(sealed(inside, padding=(b"", pad))) in (
                "BAD_PADDING",
                "BAD_LENGTH",
            )


def test_padding_alone_is_a_length_and_no_crash():
    assert receiver().open(sealed(b"", padding=(b"\1\2", 2))) == "INNER_LENGTH"
    assert receiver().open(sealed(b"", padding=(b"\1\2", 2), next_header=59)) == "DUMMY"


def test_dummy_packets_are_discarded_by_name():
    into = receiver()
    for sn, inside in ((1, b"\0\0"), (2, bytes(100) + b"\0\0"), (3, back())):
        assert into.open(sealed(inside, sn, next_header=59)) == "DUMMY"
    assert into.open(sealed(back(), 2)) == "REPLAY"


def test_other_next_headers_are_named():
    for kind in (0, 1, 6, 17, 50, 60, 255):
        assert receiver().open(sealed(back(), next_header=kind)) == "NEXT_HEADER", kind
    # 41 says IPv6, and the inner addresses here are IPv4.
    assert receiver().open(sealed(back(), next_header=41)) == "NEXT_HEADER"


def test_icmp_inside_is_tolerated():
    packet = bytearray(back(bytes(20)))
    packet[9] = 1
    assert receiver().open(sealed(mended(bytes(packet)))) == "INNER_PROTOCOL"


def test_lengths_inside_that_lie_are_refused():
    packet = back(b"echo")
    for at, value in ((3, 200), (3, 10), (25, 200), (25, 3)):
        bent = changed(packet, at, value)
        assert receiver().open(sealed(mended(bent) if at < 20 else bent)) == "INNER_LENGTH"


def test_what_is_for_or_from_another_address_is_refused():
    for source, destination in ((SERVER, SERVER), (US, US), (bytes(4), US), (SERVER, b"\xff" * 4)):
        packet = made(inner.header(source, destination, 5000, 5000), b"x")
        assert receiver().open(sealed(packet)) == "INNER_ADDRESS"


def test_other_ports_are_refused():
    for ports in ((5001, 5000), (5000, 5001), (0, 5000), (5000, 0)):
        assert receiver().open(sealed(back(b"x", ports))) == "INNER_PORT", ports


def test_every_wrong_inside_ends_as_a_named_reason():
    # 2,000 packets with a right ICV around octets of no meaning: the gateway itself gone mad.
    into = receiver(window=0)
    state = 99
    reasons = set()
    good = back(b"some payload")
    for n in range(2000):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        noise = struct.pack(">IIII", state, state ^ 0x5A5A5A5A, state * 7 & 0xFFFFFFFF, n)
        size = state >> 8 & 31
        if n & 1:
            inside = noise[: size & 15] + bytes(size)
        else:
            at = (state >> 13) % len(good)
            inside = good[:at] + noise[: 1 + (n >> 1) % 3] + good[at + 1 :]
        inside += bytes(-(len(inside) + 2) & 3)
        got = into.open(sealed(inside, 1 + n, (4, 4, 4, 41)[n & 3], (b"", 0)))
        assert isinstance(got, (str, bytes))
        reasons.add(got if isinstance(got, str) else "payload")
    assert len(reasons) >= 5, reasons
