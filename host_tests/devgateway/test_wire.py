"""The gateway's codec: round trips, truncation, and no other exception than WireError."""

import random
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_tests.devgateway.peer import Peer
from tools.devgateway import wire
from tools.devgateway.numbers import IdType, P
from tools.devgateway.proposals import DEFAULT_IKE, offer, parse_suite
from tools.devgateway.wire import Identity, Notify, Payload, Selector, identity_from_text

SELECTORS = [
    wire.selector_of(ip_network("10.3.0.0/16")),
    wire.selector_of(ip_network("fd00::/64")),
    Selector(ip_address("10.1.1.1"), ip_address("10.1.1.9"), 17, 5000, 5001),
]
BODIES = {
    wire.parse_sa: wire.encode_sa([offer(parse_suite(DEFAULT_IKE[0], 1), 1, b"")]),
    wire.parse_ke: wire.encode_ke(31, bytes(32)),
    wire.parse_identity: Identity(2, b"sensor-1.example.org").encode(),
    wire.parse_auth: wire.encode_auth(2, bytes(32)),
    wire.parse_notify: Notify(17, b"\0\x1f", 3, bytes(4)).payload().body,
    wire.parse_delete: wire.encode_delete(3, [b"abcd", b"efgh"]),
    wire.parse_selectors: wire.encode_selectors(SELECTORS),
    wire.parse_cfg: wire.encode_cfg(1, [(1, b""), (8, bytes(17))]),
}


def test_every_payload_comes_back_as_it_was_encoded():
    suites = [parse_suite(name, 1) for name in DEFAULT_IKE]
    proposals = [offer(suite, number + 1) for number, suite in enumerate(suites)]
    assert wire.parse_sa(wire.encode_sa(proposals)) == proposals
    assert wire.parse_selectors(BODIES[wire.parse_selectors]) == SELECTORS
    assert wire.parse_notify(BODIES[wire.parse_notify]) == Notify(17, b"\0\x1f", 3, bytes(4))
    assert wire.parse_delete(BODIES[wire.parse_delete]) == (3, [b"abcd", b"efgh"])
    assert wire.parse_delete(wire.encode_delete(1, [])) == (1, [])
    assert wire.parse_cfg(BODIES[wire.parse_cfg]) == (1, [(1, b""), (8, bytes(17))])
    chain = [Payload(P.NONCE, bytes(32)), Payload(200, b"x", True), Payload(P.KE, b"")]
    first, octets = wire.encode_payloads(chain)
    assert wire.parse_payloads(first, octets) == chain


@pytest.mark.parametrize("parse", BODIES, ids=lambda parse: parse.__name__)
def test_a_body_cut_short_anywhere_is_refused_or_shorter(parse):
    body = BODIES[parse]
    whole = parse(body)
    for size in range(len(body)):
        try:
            assert parse(body[:size]) != whole
        except wire.WireError:
            pass


def test_a_message_cut_short_anywhere_is_refused():
    message = Peer().init_request()
    for size in range(len(message)):
        with pytest.raises(wire.WireError):
            wire.parse_header(message[:size])
        with pytest.raises(wire.WireError):
            wire.parse_payloads(P.SA, message[28:size])


@pytest.mark.parametrize("parse", BODIES, ids=lambda parse: parse.__name__)
def test_any_octets_parse_or_raise_wire_error(parse):
    @given(st.binary(max_size=200))
    def anything(data):
        try:
            parse(data)
        except wire.WireError as error:
            assert error.reason

    anything()
    picks = random.Random(3)
    for _ in range(2000):
        data = bytearray(BODIES[parse])
        data[picks.randrange(len(data))] = picks.randrange(256)
        try:
            parse(bytes(data))
        except wire.WireError:
            pass


@given(st.integers(0, 255), st.binary(max_size=300))
def test_any_payload_chain_parses_or_raises_wire_error(first, data):
    try:
        wire.parse_payloads(first, data)
    except wire.WireError:
        pass


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("sensor-1.example.org", Identity(IdType.FQDN, b"sensor-1.example.org")),
        ("a@b.example", Identity(IdType.RFC822_ADDR, b"a@b.example")),
        ("keyid:pump", Identity(IdType.KEY_ID, b"pump")),
        ("keyid:0x00ff", Identity(IdType.KEY_ID, b"\x00\xff")),
        ("ipv4:10.0.0.1", Identity(IdType.IPV4_ADDR, b"\x0a\0\0\x01")),
        ("ipv6:fd00::1", Identity(IdType.IPV6_ADDR, bytes.fromhex("fd" + "00" * 14 + "01"))),
        ("fqdn:a@b", Identity(IdType.FQDN, b"a@b")),
        ("email:nowhere", Identity(IdType.RFC822_ADDR, b"nowhere")),
    ],
)
def test_an_identity_has_one_text_both_ways(text, identity):
    assert identity_from_text(text) == identity
    assert str(identity) == text


def test_a_bare_address_is_an_address_identity():
    assert identity_from_text("10.0.0.1").type == IdType.IPV4_ADDR
    assert identity_from_text("fd00::1").type == IdType.IPV6_ADDR
    for text in ("", "keyid:", "ipv4:fd00::1"):
        with pytest.raises(ValueError):
            identity_from_text(text)
