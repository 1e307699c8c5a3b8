"""The codecs of wire.py: real octets parse, construct gives them back, no truncation passes."""

import struct

from host_tests.checklist import drop_of, item
from minipsec.ike import wire

# charon 5.9.8's IKE_SA_INIT answer, and the payloads of its IKE_AUTH answer.
INIT = bytes.fromhex(
    "5bbc9e4b47dbc9372022c7b43de99ec22120222000000000000000e02200002800000024010100030300000c"
    "01000010800e00800300000802000005000000080400001f28000028001f00004fdfaa0e7a7cc590997c9274"
    "51a42c071592f0d331ea2e751da736d563df0b7f29000024058435cc3ca174e9ed4f6ac5bafff63c58d6cd32"
    "71325ae19147ed9338b5b8052900001c00004004ab110e40b9268451c5f23d7ba45be596a2a17d442900001c"
    "00004005708ed770bb93fc89e12a9d569826a7f1d2331269290000080000402e290000080000402200000008"
    "00004014"
)
CP = bytes.fromhex("02000000000100040a090001")
ESP_SA = bytes.fromhex("0000002001030402e2cf35230300000c0100000e800e00800000000805000000")
TS_I = bytes.fromhex("01000000070000100000ffff0a0900010a090001")
TS_R = bytes.fromhex("01000000070000100000ffff0a0300000a03ffff")

SA, KE, NONCE, NOTIFY, VENDOR, SK, SKF = 33, 34, 40, 41, 43, 46, 53

IKE_16 = [(1, 16, 128), (2, 5, 0), (4, 31, 0)]
IKE_8 = [(1, 14, 128), (2, 5, 0), (4, 31, 0)]
OFFER = [(1, b"", IKE_16), (1, b"", IKE_8)]
ESP = [(1, 14, 128), (5, 0, 0)]


def changed(octets, at, *values):
    """Return the octets with some of them replaced from `at` on."""
    made = bytearray(octets)
    made[at : at + len(values)] = bytes(values)
    return bytes(made)


def refused(parse, octets, reasons):
    """Assert that every truncation is refused, and for a reason out of `reasons`."""
    for size in range(len(octets)):
        reason = drop_of(parse, memoryview(octets)[:size])
        assert reason in reasons, (size, reason)


# The header


def test_a_real_header_parses():
    spi_i, spi_r = bytes.fromhex("5bbc9e4b47dbc937"), bytes.fromhex("2022c7b43de99ec2")
    assert wire.parse_header(memoryview(INIT)) == (spi_i, spi_r, SA, 34, 0x20, 0)


def test_a_header_comes_out_as_it_was():
    parsed = wire.parse_header(INIT)
    assert wire.header(*parsed, len(INIT)) == INIT[:28]
    made = wire.header(bytes(range(8)), bytes(range(8, 16)), 46, 35, 8, 0xFFFFFFFF, 28)
    assert wire.parse_header(made) == (made[:8], made[8:16], 46, 35, 8, 0xFFFFFFFF)


@item("MIN-08")
def test_a_header_with_another_length_than_the_datagram_is_refused():
    refused(wire.parse_header, INIT, ("BAD_LENGTH",))
    assert drop_of(wire.parse_header, INIT + b"\0") == "BAD_LENGTH"
    assert drop_of(wire.parse_header, changed(INIT, 24, 0xFF)) == "BAD_LENGTH"


@item("MIN-05")
def test_major_version_2_alone_is_taken_whatever_the_minor_one():
    for version in range(256):
        reason = drop_of(wire.parse_header, changed(INIT, 17, version))
        assert reason == (None if version >> 4 == 2 else "BAD_VERSION"), version
    assert INIT[17] == 0x20 and wire.header(*wire.parse_header(INIT), 28)[17] == 0x20


# The payload chain


def test_a_real_chain_parses_and_comes_out_as_it_was():
    found = wire.payloads(SA, memoryview(INIT), 28)
    assert [kind for kind, _, _ in found] == [SA, KE, NONCE] + [NOTIFY] * 5
    assert not any(critical for _, critical, _ in found)
    assert bytes(found[1][2]) == INIT[28 + 40 + 4 : 28 + 80]
    assert wire.chain([(kind, bytes(body)) for kind, _, body in found]) == (SA, INIT[28:])


def test_a_truncated_chain_is_refused():
    body = INIT[28:]
    refused(lambda view: wire.payloads(SA, view, 0), body, ("BAD_PAYLOAD", "BAD_LENGTH"))
    assert drop_of(wire.payloads, SA, body + b"\0", 0) == "BAD_LENGTH"


def test_an_empty_chain_is_no_payload_at_all():
    assert wire.payloads(0, b"", 0) == []
    assert wire.chain([]) == (0, b"")
    assert drop_of(wire.payloads, 0, b"\0", 0) == "BAD_LENGTH"


def test_payload_lengths_that_lie_are_refused():
    for size in (0, 1, 3, 5, 1000, 0xFFFF):
        body = struct.pack(">BBH", 0, 0, size)
        assert drop_of(wire.payloads, NONCE, body, 0) == "BAD_PAYLOAD", size


@item("MIN-06", "MIN-09")
def test_the_critical_bit_is_seen_and_reserved_bits_are_not():
    assert wire.payloads(NONCE, b"\0\x80\0\4", 0)[0][1] == 1
    assert wire.payloads(NONCE, b"\0\x7f\0\4", 0)[0][1] == 0
    assert wire.chain([(NOTIFY, b"")] * 2)[1] == b"\x29\0\0\4\0\0\0\4"


def test_a_chain_is_bounded():
    body = wire.chain([(VENDOR, b"")] * 40)[1]
    assert len(wire.payloads(VENDOR, body, 0)) == 40
    body = wire.chain([(VENDOR, b"")] * 41)[1]
    assert drop_of(wire.payloads, VENDOR, body, 0) == "BAD_PAYLOAD"


@item("MIN-08")
def test_an_encrypted_payload_ends_the_chain_and_names_what_is_inside():
    for kind in (SK, SKF):
        outer = b"h" + b"\x21\0\0\x08abcd"
        assert wire.payloads(kind, outer, 1) == [(kind, 33, b"abcd")]
        assert drop_of(wire.payloads, kind, outer + b"\0\0\0\4", 1) == "BAD_LENGTH"


@item("MIN-08")
def test_no_encrypted_payload_stands_inside_another():
    for kind in (SK, SKF):
        assert drop_of(wire.payloads, kind, b"\x21\0\0\x08abcd", 0) == "BAD_PAYLOAD"


# Notify


def test_notifies_come_out_as_they_were():
    body = INIT[28 + 116 + 4 :][:24]
    kind, data, protocol, spi_size = wire.parse_notify(memoryview(body))
    assert (kind, protocol, spi_size, len(data)) == (16388, 0, 0, 20)
    assert wire.notify(kind, bytes(data)) == body
    made = wire.notify(16393, b"data", 3, b"spi4")
    assert wire.parse_notify(made) == (16393, b"data", 3, 4)
    assert wire.parse_notify(wire.notify(7)) == (7, b"", 0, 0)


def test_a_truncated_notify_is_refused():
    refused(wire.parse_notify, wire.notify(16393, b"", 3, b"spi4"), ("BAD_PAYLOAD",))


# Proposals


def test_real_proposals_parse_and_come_out_as_they_were():
    body = INIT[32:68]
    assert wire.parse_sa(body) == [(1, 1, b"", IKE_16)]
    assert wire.sa_body([(1, b"", IKE_16)]) == body
    assert wire.parse_sa(ESP_SA) == [(1, 3, b"\xe2\xcf\x35\x23", ESP)]
    assert wire.sa_body([(3, b"\xe2\xcf\x35\x23", ESP)]) == ESP_SA


def test_several_proposals_are_numbered_and_come_out_as_they_were():
    body = wire.sa_body(OFFER)
    assert wire.parse_sa(body) == [(1, 1, b"", IKE_16), (2, 1, b"", IKE_8)]
    assert body[0] == 2 and body[36] == 0


def test_truncated_proposals_are_refused():
    for body in (wire.sa_body(OFFER), ESP_SA):
        refused(wire.parse_sa, body, ("BAD_SA",))
        assert drop_of(wire.parse_sa, body + b"\0") == "BAD_SA"


def test_lengths_in_a_proposal_that_lie_are_refused():
    body = wire.sa_body([(1, b"", IKE_16)])
    for at, what in ((2, "proposal"), (6, "SPI size"), (7, "transforms"), (10, "transform")):
        for value in (0, 1, 4, 0x7F, 0xFF):
            if body[at] == value:
                continue
            assert drop_of(wire.parse_sa, changed(body, at, value)) == "BAD_SA", (what, value)


def test_proposals_are_bounded():
    many = wire.sa_body([(3, b"spi4", ESP)] * 9)
    assert drop_of(wire.parse_sa, many) == "BAD_SA"
    assert len(wire.parse_sa(wire.sa_body([(3, b"spi4", ESP)] * 8))) == 8
    wide = wire.sa_body([(3, b"spi4", [(1, 14, 128)] * 25)])
    assert drop_of(wire.parse_sa, wide) == "BAD_SA"


def transform(kind, ident, attributes):
    return struct.pack(">BBHBBH", 0, 0, 8 + len(attributes), kind, 0, ident) + attributes


def proposal(*transforms):
    body = b"".join(transforms)
    return struct.pack(">BBHBBBB", 0, 0, 8 + len(body), 1, 1, 0, len(transforms)) + body


@item("MIN-18")
def test_attributes_that_were_not_offered_make_another_transform():
    for attributes, bits in (
        (b"", 0),
        (b"\x80\x0e\0\x80", 128),
        (b"\x80\x0e\1\0", 256),
        (b"\x80\x0e\0\x80\x80\x0e\0\x80", -1),
        (b"\x80\x0f\0\x80", -1),
        (b"\x00\x0e\0\2\0\x80", -1),
        (b"\x00\x63\0\0", -1),
    ):
        parsed = wire.parse_sa(proposal(transform(1, 16, attributes)))
        assert parsed[0][3] == [(1, 16, bits)], attributes
    for attributes in (b"\x80\x0e\0", b"\0\x0e\0\5\0\x80", b"\x80"):
        assert drop_of(wire.parse_sa, proposal(transform(1, 16, attributes))) == "BAD_SA"


def answer(number, protocol, transforms, spi=b""):
    return changed(wire.sa_body([(protocol, spi, transforms)]), 4, number)


@item("MIN-18")
def test_an_answer_must_be_one_choice_out_of_the_offer():
    assert wire.chosen(OFFER, answer(1, 1, IKE_16), 1) == (
        b"",
        {1: (16, 128), 2: (5, 0), 4: (31, 0)},
    )
    assert wire.chosen(OFFER, answer(2, 1, IKE_8), 1)[1][1] == (14, 128)
    # The order of transforms is free.
    assert wire.chosen(OFFER, answer(2, 1, IKE_8[::-1]), 1)[1][1] == (14, 128)
    for what, body in (
        ("number 0", answer(0, 1, IKE_16)),
        ("number 3", answer(3, 1, IKE_16)),
        ("the other's number", answer(2, 1, IKE_16)),
        ("protocol", answer(1, 3, IKE_16)),
        ("two proposals", wire.sa_body(OFFER)),
        ("no DH", answer(1, 1, IKE_16[:2])),
        ("no cipher", answer(1, 1, IKE_16[1:])),
        ("twice", answer(1, 1, IKE_16 + IKE_16[:1])),
        ("key length", answer(1, 1, [(1, 16, 256)] + IKE_16[1:])),
        ("no key length", answer(1, 1, [(1, 16, 0)] + IKE_16[1:])),
        ("integrity", answer(1, 1, IKE_16 + [(3, 12, 0)])),
        ("PRF", answer(1, 1, [IKE_16[0], (2, 7, 0), IKE_16[2]])),
        ("nothing", b""),
    ):
        assert drop_of(wire.chosen, OFFER, body, 1) == "BAD_SA", what


@item("MIN-18")
def test_no_esn_may_be_left_out_of_an_answer_and_esn_not_put_in():
    offer = [(3, b"mine", ESP)]
    assert wire.chosen(offer, answer(1, 3, ESP, b"spi4"), 3) == (
        b"spi4",
        {1: (14, 128), 5: (0, 0)},
    )
    assert wire.chosen(offer, answer(1, 3, ESP[:1], b"spi4"), 3) == (b"spi4", {1: (14, 128)})
    esn = answer(1, 3, [ESP[0], (5, 1, 0)], b"spi4")
    assert drop_of(wire.chosen, offer, esn, 3) == "BAD_SA"


# Traffic selectors


def test_real_selectors_parse_and_come_out_as_they_were():
    inner, low, high = bytes((10, 9, 0, 1)), bytes((10, 3, 0, 0)), bytes((10, 3, 255, 255))
    assert wire.parse_ts(TS_I) == [(0, 0, 65535, inner, inner)]
    assert wire.parse_ts(TS_R) == [(0, 0, 65535, low, high)]
    assert wire.ts_body([(inner, inner)]) == TS_I
    assert wire.ts_body([(low, high)]) == TS_R
    six = (bytes(16), b"\xff" * 16)
    assert wire.parse_ts(wire.ts_body([six, (inner, inner)])) == [
        (0, 0, 65535) + six,
        (0, 0, 65535, inner, inner),
    ]


def test_truncated_selectors_are_refused():
    body = wire.ts_body([(bytes(16), b"\xff" * 16), (bytes(4), b"\xff" * 4)])
    refused(wire.parse_ts, body, ("BAD_TS",))
    refused(wire.parse_ts, TS_I, ("BAD_TS",))
    assert drop_of(wire.parse_ts, body + b"\0") == "BAD_TS"


def test_selectors_that_lie_are_refused_and_unknown_ones_left_out():
    for at, value in (
        (0, 0),
        (0, 2),
        (0, 64),
        (0, 65),
        (0, 255),
        (7, 8),
        (7, 15),
        (7, 17),
        (4, 8),
    ):
        assert drop_of(wire.parse_ts, changed(TS_I, at, value)) == "BAD_TS", (at, value)
    assert wire.parse_ts(changed(TS_I, 4, 9)) == []
    assert wire.parse_ts(bytes(4)) == []
    many = wire.ts_body([(bytes(4), bytes(4))] * 64)
    assert len(wire.parse_ts(many)) == 64
    many = wire.ts_body([(bytes(4), bytes(4))] * 65)
    assert drop_of(wire.parse_ts, many) == "BAD_TS"


def test_a_selector_keeps_its_protocol_and_ports():
    body = changed(TS_R, 5, 17, 0, 16, 0x13, 0x88, 0x13, 0x89)
    assert wire.parse_ts(body)[0][:3] == (17, 5000, 5001)


# Configuration


def test_a_real_configuration_parses_and_comes_out_as_it_was():
    address = bytes((10, 9, 0, 1))
    assert wire.parse_cp(CP) == (2, [(1, address)])
    assert wire.cp_body(2, [(1, address)]) == CP
    assert wire.parse_cp(wire.cp_body(1, [(1, b""), (3, b"dns4")])) == (
        1,
        [(1, b""), (3, b"dns4")],
    )
    assert wire.parse_cp(b"\1\0\0\0") == (1, [])


def test_a_truncated_configuration_is_refused():
    body = wire.cp_body(2, [(1, bytes(4)), (2, bytes(4))])
    for size in range(len(body)):
        whole = size in (4, 12)
        assert drop_of(wire.parse_cp, body[:size]) == (None if whole else "BAD_CP"), size
    many = wire.cp_body(2, [(1, b"")] * 25)
    assert drop_of(wire.parse_cp, many) == "BAD_CP"


def test_the_reserved_bit_of_an_attribute_is_ignored():
    assert wire.parse_cp(changed(CP, 4, 0x80)) == (2, [(1, bytes((10, 9, 0, 1)))])
