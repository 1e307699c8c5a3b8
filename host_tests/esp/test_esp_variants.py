"""ESP in all its shapes: ICVs, keys, implicit IV, 64-bit numbers, transport mode, padding.

What goes out is opened, and what comes in is made, by `primitives` and by hand.
"""

import struct

from tools.dev.peers.primitives import CCM
from host_tests.esp.test_inner import back, changed, mended, sums_up
from host_tests.esp.said import Receiver
from minipsec.crypto import ccm
from minipsec.esp import inner
from minipsec.esp.sa import Sender
from minipsec.esp.sequence import ReplayWindow, Sequence

US, SERVER = bytes((10, 9, 0, 1)), bytes((10, 3, 0, 10))
US_6, SERVER_6 = bytes(15) + b"\1", bytes(15) + b"\2"
SPI_OUT, SPI_IN = b"\xca\xfe\xba\xbe", b"\xde\xad\xbe\xef"

# ICV, octets of AES key, implicit IV, ESN, transport mode, IPv6 inside
SHAPES = [
    (icv, key, iiv, esn, transport, six)
    for icv, iiv in ((8, False), (12, False), (16, False), (8, True))
    for key in (16, 32)
    for esn in (False, True)
    for transport in (False, True)
    for six in (False, True)
]


def child(icv=8, key=16, iiv=False, esn=False, transport=False):
    return {
        "spi_in": SPI_IN,
        "spi_out": SPI_OUT,
        "key_in": bytes(range(40, 40 + key)) + b"in.",
        "key_out": bytes(range(key)) + b"out",
        "cipher": 29 if iiv else {8: 14, 12: 15, 16: 16}[icv],
        "icv": icv,  # for the tests alone, and so is the next one
        "iiv": iiv,
        "esn": esn,
        "transport": transport,
    }


def ends(six):
    return (US_6, SERVER_6) if six else (US, SERVER)


def opened(made, packet, high=0):
    """Take a packet of ours apart by hand: (SN, text without padding, Pad Length, Next Header)."""
    packet = bytes(packet)
    spi, low = struct.unpack(">4sI", packet[:8])
    assert spi == made["spi_out"]
    number = struct.pack(">II", high, low)
    iv, body = (number, packet[8:]) if made["iiv"] else (packet[8:16], packet[16:])
    assert iv == number
    aad = spi + number if made["esn"] else packet[:8]
    text = CCM(made["key_out"], made["icv"]).open(iv, body, aad)
    assert text is not None and len(packet) % 4 == 0
    pad, kind = text[-2], text[-1]
    end = len(text) - 2 - pad
    assert text[end:-2] == bytes(range(1, pad + 1))
    return low, text[:end], pad, kind


def sealed(made, text, sn=1, kind=4, padding=None):
    """A packet for us, made by hand. `padding` None is the right one, else (octets, Pad Length)."""
    if padding is None:
        n = -(len(text) + 2) & 3
        padding = bytes(range(1, n + 1)), n
    text += padding[0] + bytes((padding[1], kind))
    number = struct.pack(">Q", sn)
    aad = made["spi_in"] + (number if made["esn"] else number[4:])
    body = CCM(made["key_in"], made["icv"]).seal(number, text, aad)
    return made["spi_in"] + number[4:] + (b"" if made["iiv"] else number) + body


def udp(payload, ports=(5000, 5000)):
    return struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload


# Out


def test_every_shape_seals_what_another_implementation_opens():
    for icv, key, iiv, esn, transport, six in SHAPES:
        made = child(icv, key, iiv, esn, transport)
        out = Sender(made, ends(six) + (5000, 5001), Sequence(0, 0, esn=esn))
        for size in (0, 1, 2, 3, 30, 200):
            payload = bytes(i & 255 for i in range(size))
            packet = out.seal(payload, 0)
            sn, text, pad, kind = opened(made, packet)
            assert pad < 4 and sn == out.numbers.last
            assert kind == (17 if transport else 41 if six else 4)
            header = 8 if transport else 48 if six else 28
            assert len(packet) == 8 + (0 if iiv else 8) + header + size + pad + 2 + icv
            if transport:
                assert struct.unpack(">HHH", text[:6]) == (5000, 5001, 8 + size)
                assert text[8:] == payload
                if six:
                    pseudo = US_6 + SERVER_6 + struct.pack(">IxxxB", 8 + size, 17)
                    assert sums_up(pseudo + text) == 0xFFFF
                else:
                    assert text[6:8] == b"\0\0"  # a NAT would break it
            else:
                assert inner.parse(text, *ends(six)) == (5000, 5001, payload)


def test_an_implicit_iv_is_8_octets_less_and_transport_mode_20_or_40():
    for six, header in ((False, 20), (True, 40)):
        sizes = []
        for iiv, transport in ((False, False), (True, False), (False, True), (True, True)):
            made = child(iiv=iiv, transport=transport)
            out = Sender(made, ends(six) + (1, 2), Sequence(0))
            sizes.append(len(out.seal(b"0123456789", 0)))
        assert [sizes[0] - size for size in sizes] == [0, 8, header, header + 8]


def test_64_bit_numbers_are_right_from_the_first_packet_and_across_the_low_halfs_end():
    made = child(iiv=True, esn=True)
    for last, high in ((0, 0), ((1 << 32) - 3, 0), ((1 << 40) - 2, 255), ((1 << 63), 1 << 31)):
        out = Sender(made, (US, SERVER, 1, 2), Sequence(0, 0, last, esn=True))
        for n in range(1, 6):
            packet = out.seal(b"reading", 0)
            assert out.numbers.last == last + n
            assert opened(made, packet, last + n >> 32)[0] == last + n & 0xFFFFFFFF


def test_by_the_clock_64_bit_numbers_pass_2_to_the_32():
    out = Sender(child(esn=True), (US, SERVER, 1, 2), Sequence(0, 1, esn=True))
    out.numbers.birth -= 5 << 32  # 248 days of milliseconds
    packet = out.seal(b"reading", 0)
    assert out.numbers.last == (5 << 32) + 1
    assert opened(child(esn=True), packet, 5)[0] == 1


def test_padding_to_one_size_hides_how_long_a_reading_is():
    for icv, key, iiv, esn, transport, six in SHAPES[:16]:
        made = child(icv, key, iiv, esn, transport)
        header = 8 if transport else 48 if six else 28
        for pad_to in (64, 100, 101, 252, 255):
            out = Sender(made, ends(six) + (1, 2), Sequence(0, 0, esn=esn), pad_to)
            sizes = set()
            for size in range(0, 230, 7):
                packet = out.seal(bytes(size), 0)
                _, text, pad, _ = opened(made, packet)
                assert pad <= 255 and len(text) == header + size
                if header + size + 2 <= pad_to & -4:
                    sizes.add(len(text) + pad + 2)
                else:
                    assert pad < 4
            assert sizes <= {pad_to & -4}


def test_without_padding_to_a_size_it_is_minimal():
    out = Sender(child(), (US, SERVER, 1, 2), Sequence(0, 0))
    assert [opened(child(), out.seal(bytes(n), 0))[2] for n in range(8)] == [2, 1, 0, 3] * 2


# In


def test_every_shape_opens_what_another_implementation_sealed():
    for icv, key, iiv, esn, transport, six in SHAPES:
        made = child(icv, key, iiv, esn, transport)
        us, server = ends(six)
        into = Receiver(made, (server, us, 5000, 5000), 64)
        for sn in range(1, 20):
            payload = bytes(range(sn * 3))
            if transport:
                text, kind = udp(payload), 17
            else:
                template = inner.header(server, us, 5000, 5000)
                buf = bytearray(len(template) + len(payload))
                inner.complete(buf, 0, template, payload)
                text, kind = bytes(buf), 41 if six else 4
            packet = sealed(made, text, sn, kind)
            assert into.open(packet) == payload
            assert into.open(packet) == "REPLAY"


def test_a_packet_of_one_shape_does_not_open_as_another():
    packet = sealed(child(), back(b"a reading"))
    for more in (
        {"icv": 12},
        {"icv": 16},
        {"iiv": True},
        {"esn": True},
        {"key": 32},
    ):
        got = Receiver(child(**more), (SERVER, US, 5000, 5000), 64).open(packet)
        assert got in ("BAD_ICV", "BAD_LENGTH"), more
    got = Receiver(child(transport=True), (SERVER, US, 5000, 5000), 64).open(packet)
    assert got == "NEXT_HEADER"


def test_in_transport_mode_only_udp_for_our_ports_comes_in():
    made = child(transport=True)
    into = Receiver(made, (SERVER, US, 5000, 5000), 64)
    sn = 0
    for text, kind, expected in (
        (udp(b"x", (5001, 5000)), 17, "INNER_PORT"),
        (udp(b"x", (5000, 5001)), 17, "INNER_PORT"),
        (udp(b"x"), 4, "NEXT_HEADER"),
        (back(b"x"), 4, "NEXT_HEADER"),
        (udp(b"x"), 1, "NEXT_HEADER"),
        (udp(b"x")[:7], 17, "INNER_LENGTH"),
        (changed(udp(b"x"), 5, 7), 17, "INNER_LENGTH"),
        (changed(udp(b"x"), 5, 10), 17, "INNER_LENGTH"),
        (b"", 59, "DUMMY"),
        (udp(b"x"), 17, b"x"),
    ):
        sn += 1
        assert into.open(sealed(made, text, sn, kind)) == expected


class CountingCCM:
    """Counts how often a packet costs AES."""

    passes = 0

    def __init__(self, key, icv):
        self._ccm = ccm.CCM(key, icv)
        self.icv = icv

    def open_in(self, *args):
        CountingCCM.passes += 1
        return self._ccm.open_in(*args)


def receiver(made, window=64):
    into = Receiver(made, (SERVER, US, 5000, 5000), ReplayWindow(window))
    into._cipher = CountingCCM(made["key_in"], made["icv"])
    return into


def bad_packets(made):
    """(packet, reasons, passes of AES) of what must neither come in nor move the window."""
    good = back(b"a reading")
    last = 0xFFFFFFFF
    fine = sealed(made, good, last)
    for size in (0, 1, 3, 4, 7, 8, 15, 16, 24, 25, 26, 27):
        yield fine[:size], ("BAD_LENGTH", "BAD_ICV"), 1 if size > 24 else 0
    for size in range(28, len(fine)):
        yield fine[:size], ("BAD_LENGTH", "BAD_ICV"), 1
    yield changed(fine, 0, 0), ("UNKNOWN_SPI",), 0
    yield b"\0\0\0\0" + fine[4:], ("UNKNOWN_SPI",), 0
    yield SPI_OUT + fine[4:], ("UNKNOWN_SPI",), 0
    yield sealed(made, good, 0), ("REPLAY",), 0
    yield sealed(made, good, 10), ("REPLAY",), 0
    yield sealed(made, good, 1000 - 64), ("REPLAY",), 0
    yield changed(fine, len(fine) - 1, fine[-1] ^ 1), ("BAD_ICV",), 1
    yield changed(fine, 20, fine[20] ^ 128), ("BAD_ICV",), 1
    yield changed(fine, 7, 0xFE), ("BAD_ICV",), 1
    for text, pad in ((b"", 1), (b"", 255), (b"\1\2\3\4\5\6", 7), (good + b"\1", 200)):
        yield sealed(made, text, last, 4, (b"", pad)), ("BAD_PADDING", "BAD_LENGTH"), 1
    whole = good + b"\1"
    yield sealed(made, whole, last, 4, (b"\1\2\3\0", 4)), ("BAD_PADDING",), 1
    yield sealed(made, whole, last, 4, (b"\0\0\0\0", 4)), ("BAD_PADDING",), 1
    for at, value in ((3, 200), (3, 10), (25, 200), (25, 3), (0, 0x44), (0, 0x4F)):
        bent = changed(good, at, value)
        bent = mended(bent) if at < 20 else bent
        yield sealed(made, bent, last), ("INNER_LENGTH", "INNER_CHECKSUM", "INNER_PROTOCOL"), 1
    yield sealed(made, changed(good, 10, 0, 0), last), ("INNER_CHECKSUM",), 1
    yield sealed(made, changed(good, 30, 0), last), ("INNER_CHECKSUM",), 1
    yield sealed(made, mended(changed(good, 6, 0x20)), last), ("INNER_FRAGMENT",), 1
    yield sealed(made, mended(changed(good, 16, 9)), last), ("INNER_ADDRESS",), 1
    yield sealed(made, mended(changed(good, 12, 9)), last), ("INNER_ADDRESS",), 1
    yield sealed(made, mended(changed(good, 9, 6)), last), ("INNER_PROTOCOL",), 1
    yield sealed(made, mended(changed(good, 9, 1)), last), ("INNER_PROTOCOL",), 1
    yield sealed(made, changed(good, 0, 0x65), last), ("INNER_VERSION", "INNER_LENGTH"), 1
    yield sealed(made, back(b"x", (5001, 5000)), last), ("INNER_PORT",), 1
    for kind in (0, 1, 6, 17, 41, 50, 60, 255):
        yield sealed(made, good, last, kind), ("NEXT_HEADER",), 1
    yield sealed(made, b"", last), ("INNER_LENGTH",), 1


def test_what_is_malformed_costs_one_pass_of_aes_at_most_and_moves_no_window():
    made = child()
    into = receiver(made)
    assert into.open(sealed(made, back(b"a"), 1000)) == b"a"
    assert into.open(sealed(made, back(b"b"), 998)) == b"b"
    assert into.open(sealed(made, back(b"old"), 10)) == "REPLAY"
    count = 0
    for packet, reasons, passes in bad_packets(made):
        CountingCCM.passes = 0
        got = into.open(packet)
        assert got in reasons, (packet, got, reasons)
        assert CountingCCM.passes <= passes
        assert (into.window.top, into.window.seen) == (1000, 5), got
        count += 1
    assert count > 80
    # And the receiver is as good as before.
    assert into.open(sealed(made, back(b"c"), 999)) == b"c"
    assert into.open(sealed(made, back(b"d"), 1001)) == b"d"


def test_with_64_bit_numbers_a_forged_one_moves_neither_window_nor_high_half():
    made = child(esn=True, iiv=True)
    into = receiver(made)
    assert into.open(sealed(made, back(b"a"), 1000)) == b"a"
    for sn in (500, (7 << 32) + 1001, (1 << 64) - 1):
        # Its high half is not sent; what is guessed for it does not fit the ICV.
        assert into.open(sealed(made, back(b"x"), sn)) in ("BAD_ICV", "REPLAY")
    for low in (1001, 999, 1, 0xFFFFFFFF):
        forged = sealed(made, back(b"x"), 1001)
        forged = changed(forged, 4, *struct.pack(">I", low))
        forged = changed(forged, 12, forged[12] ^ 1)
        assert into.open(forged) in ("BAD_ICV", "REPLAY")
    assert (into.window.top, into.window.seen) == (1000, 1)
    assert into.open(sealed(made, back(b"b"), 1001)) == b"b"


def test_64_bit_numbers_are_followed_across_the_low_halfs_end():
    made = child(esn=True)
    for size in (0, 1, 32, 64, 128):
        into = receiver(made, size)
        start = (1 << 32) - 200
        into.window.top = start
        got = []
        for sn in range(start + 1, start + 400):
            got.append(into.open(sealed(made, back(b"%d" % sn), sn)))
        assert got == [b"%d" % sn for sn in range(start + 1, start + 400)], size
        if size:
            assert into.window.top == start + 399


def test_late_packets_of_the_lower_run_come_in_once_within_the_window():
    made = child(esn=True)
    into = receiver(made, 128)
    top = (3 << 32) + 20
    into.window.top, into.window.seen = top, 1
    for sn, expected in (
        (top - 50, b"late"),  # below 3 << 32
        (top - 50, "REPLAY"),
        (top - 127, b"late"),
        (top - 10, b"late"),
        (top + 5, b"late"),
        (top - 122, "REPLAY_OR_NEW"),
    ):
        got = into.open(sealed(made, back(b"late"), sn))
        if expected == "REPLAY_OR_NEW":
            # top moved by 5: this one is now the last of the window.
            assert got == b"late"
        else:
            assert got == expected, sn - top


def test_the_inferred_number_is_the_nearest_one_in_front_of_the_window():
    """RFC 4303 appendix A2, against the definition."""
    for size in (1, 32, 128):
        for top in (0, 5, 127, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 50, (9 << 32) + 131):
            window = ReplayWindow(size, top)
            bottom = max(top - size + 1, 0)
            for sn in (bottom, bottom + 1, top, top + 1, top + (1 << 31), bottom + (1 << 32) - 1):
                assert window.extend(sn & 0xFFFFFFFF) == sn, (size, top, sn)
