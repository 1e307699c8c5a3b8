"""Inner packets: what goes out is right to the last checksum, what comes in is believed in nothing."""

import struct

from host_tests.esp.said import said
from minipsec.esp import inner

US, SERVER = bytes((10, 9, 0, 1)), bytes((10, 3, 0, 10))
US_6 = bytes.fromhex("fd09000000000000000000000000000a")
SERVER_6 = bytes.fromhex("fd030000000000000000000000000010")

# scapy: IP(src="10.9.0.1", dst="10.3.0.10", id=0, flags="DF")/UDP(sport=5000, dport=5000)/b"t=21.5"
PACKET = bytes.fromhex("4500002200004000401126b50a0900010a03000a13881388000ef007") + b"t=21.5"
# scapy: IPv6(src="fd09::a", dst="fd03::10", hlim=64)/UDP(sport=5000, dport=5001)/b"odd"
PACKET_6 = (
    bytes.fromhex("60000000000b1140")
    + US_6
    + SERVER_6
    + bytes.fromhex("13881389000b0b3b")
    + b"odd"
)


def made(template, payload):
    buf = bytearray(2 + len(template) + len(payload) + 3)
    n = inner.complete(buf, 2, template, payload)
    assert n == len(template) + len(payload)
    assert buf[:2] == bytes(2) and buf[2 + n :] == bytes(3)
    return bytes(buf[2 : 2 + n])


def sums_up(octets):
    """Ones' complement sum, the plain way."""
    if len(octets) & 1:
        octets += b"\0"
    total = sum(octets[i] << 8 | octets[i + 1] for i in range(0, len(octets), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def mended(packet):
    """Return the packet with its IPv4 header checksum put right again."""
    size = min((packet[0] & 15) * 4, len(packet))
    head = packet[:10] + b"\0\0" + packet[12:size]
    return packet[:10] + struct.pack(">H", 0xFFFF ^ sums_up(head)) + packet[12:]


def changed(packet, at, *values):
    return packet[:at] + bytes(values) + packet[at + len(values) :]


def parse(packet):
    return said(inner.parse, memoryview(packet), SERVER, US)


def back(payload=b"echo", ports=(5000, 5000)):
    return made(inner.header(SERVER, US, *ports), payload)


# Out


def test_a_packet_is_octet_for_octet_that_of_another_implementation():
    assert made(inner.header(US, SERVER, 5000, 5000), b"t=21.5") == PACKET
    assert made(inner.header(US_6, SERVER_6, 5000, 5001), b"odd") == PACKET_6


def test_every_size_and_content_sums_up():
    template = inner.header(US, SERVER, 1, 65535)
    for size in list(range(40)) + [1199, 1200]:
        for fill in (0, 0x55, 0xFF):
            packet = made(template, bytes((fill,)) * size)
            assert sums_up(packet[:20]) == 0xFFFF
            pseudo = packet[12:20] + struct.pack(">HH", 17, 8 + size)
            assert sums_up(pseudo + packet[20:]) == 0xFFFF, (size, fill)


def test_a_udp_checksum_is_never_sent_as_0():
    # Find the payload whose checksum computes to 0: it must go out as 0xffff (RFC 768).
    template = inner.header(US, SERVER, 5000, 5000)
    packet = made(template, b"\0\0")
    missing = struct.unpack(">H", packet[26:28])[0]
    packet = made(template, struct.pack(">H", missing))
    assert packet[26:28] == b"\xff\xff"
    assert said(inner.parse, packet, US, SERVER) == (5000, 5000, struct.pack(">H", missing))


def test_the_template_serves_again():
    template = inner.header(US, SERVER, 5000, 5000)
    before = bytes(template)
    made(template, b"one")
    assert bytes(template) == before
    assert made(template, b"t=21.5") == PACKET


# In


def test_a_packet_that_went_out_comes_in():
    for size in (0, 1, 2, 3, 100, 1201):
        payload = bytes(i & 255 for i in range(size))
        assert parse(back(payload)) == (5000, 5000, payload)
    six = made(inner.header(SERVER_6, US_6, 7, 8), b"six")
    assert said(inner.parse, memoryview(six), SERVER_6, US_6) == (7, 8, b"six")
    assert said(inner.parse, memoryview(six), None, US_6) == (7, 8, b"six")


def test_every_truncation_has_a_reason():
    for packet, ends in ((back(b"reading"), (SERVER, US)), (PACKET_6, (US_6, SERVER_6))):
        for size in range(len(packet)):
            reason = said(inner.parse, memoryview(packet)[:size], *ends)
            assert reason in ("INNER_LENGTH", "INNER_VERSION"), (size, reason)


def test_traffic_flow_padding_behind_the_packet_is_ignored():
    assert parse(back(b"echo") + bytes(100)) == (5000, 5000, b"echo")


def test_one_flipped_bit_is_noticed_wherever_it_counts():
    packet = back(b"a reading")
    for at in range(len(packet)):
        for bit in range(8):
            got = parse(changed(packet, at, packet[at] ^ 1 << bit))
            assert isinstance(got, str), (at, bit, got)
    for at in range(4, len(PACKET_6)):
        if at == 7:
            continue  # the hop limit is in no checksum
        for bit in range(8):
            bent = changed(PACKET_6, at, PACKET_6[at] ^ 1 << bit)
            assert isinstance(said(inner.parse, bent, US_6, SERVER_6), str), (at, bit)


def test_addresses_must_be_ours_and_the_servers():
    other = bytes((10, 9, 0, 2))
    for source, destination in ((SERVER, other), (other, US), (US, SERVER), (US, US)):
        assert parse(made(inner.header(source, destination, 1, 2), b"")) == "INNER_ADDRESS"
    assert said(inner.parse, made(inner.header(other, US, 1, 2), b"x"), None, US) == (1, 2, b"x")


def test_another_ip_version_or_none_is_named():
    packet = back()
    for version in range(16):
        reason = parse(changed(packet, 0, version << 4 | 5))
        if version == 6:
            assert reason in ("INNER_LENGTH", "INNER_ADDRESS", "INNER_VERSION")
        elif version != 4:
            assert reason == "INNER_VERSION", version
    assert said(inner.parse, PACKET_6[:39], US_6, SERVER_6) == "INNER_VERSION"
    assert parse(PACKET_6) == "INNER_ADDRESS"


def test_a_header_with_options_is_stepped_over():
    packet = back(b"echo")
    long = changed(packet, 0, 0x46)[:20] + b"\1\1\1\0" + packet[20:]
    long = mended(changed(long, 2, 0, len(long)))
    assert parse(long) == (5000, 5000, b"echo")
    for ihl in (0, 1, 4):
        assert parse(mended(changed(packet, 0, 0x40 | ihl))) == "INNER_LENGTH"
    assert parse(mended(changed(packet, 0, 0x4F))) == "INNER_LENGTH"


def test_an_ip_length_that_lies_is_refused():
    packet = back(b"echo")
    for size in (0, 19, 20, 27, len(packet) - 1, len(packet) + 1, 0xFFFF):
        assert parse(mended(changed(packet, 2, size >> 8, size & 255))) == "INNER_LENGTH", size
    for size in (0, 7, 11, 13, 0xFFFF):
        bent = changed(PACKET_6, 4, size >> 8, size & 255)
        reason = said(inner.parse, bent, US_6, SERVER_6)
        assert reason == ("INNER_LENGTH" if size < 8 or size > 11 else reason), size


def test_a_udp_length_that_lies_is_refused():
    packet = back(b"echo")
    for size in (0, 7, 13, 0xFFFF):
        assert parse(changed(packet, 24, size >> 8, size & 255)) == "INNER_LENGTH", size
    for size in (8, 11):
        assert parse(changed(packet, 24, 0, size)) == "INNER_CHECKSUM", size


def test_a_udp_datagram_without_checksum_is_taken_over_ipv4_only():
    assert parse(changed(back(b"echo"), 26, 0, 0)) == (5000, 5000, b"echo")
    bent = changed(PACKET_6, 46, 0, 0)
    assert said(inner.parse, bent, US_6, SERVER_6) == "INNER_CHECKSUM"


def test_fragments_are_refused():
    packet = back()
    for flags in (b"\x20\0", b"\0\1", b"\x3f\xff", b"\x60\0"):
        assert parse(mended(changed(packet, 6, *flags))) == "INNER_FRAGMENT"
    for flags in (b"\0\0", b"\x40\0", b"\x80\0"):
        assert parse(mended(changed(packet, 6, *flags)))[2] == b"echo"


def test_other_protocols_are_named_and_harmless():
    packet = back(bytes(40))
    for protocol in (0, 1, 6, 50, 58, 255):
        assert parse(mended(changed(packet, 9, protocol))) == "INNER_PROTOCOL", protocol
    icmp = bytes.fromhex("0303fcfc00000000") + PACKET[:28]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0) + SERVER + US
    assert parse(mended(head + icmp)) == "INNER_PROTOCOL"
    # IPv6: an extension header is a protocol that is not UDP.
    assert said(inner.parse, changed(PACKET_6, 6, 0), US_6, SERVER_6) == "INNER_PROTOCOL"


def test_a_wrong_header_checksum_is_named():
    packet = back()
    assert parse(changed(packet, 10, packet[10] ^ 1)) == "INNER_CHECKSUM"
    assert parse(changed(packet, 8, packet[8] - 1)) == "INNER_CHECKSUM"
    assert parse(mended(changed(packet, 8, packet[8] - 1)))[2] == b"echo"
