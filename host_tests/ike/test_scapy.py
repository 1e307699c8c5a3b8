"""Our IKE messages as scapy's contrib.ikev2 reads them: every field, and nothing left over."""

import itertools

import pytest
from scapy.contrib import ikev2
from scapy.packet import Raw

from tools.dev.peers.node import LOCAL, REMOTE
from tools.dev.peers.pair import authenticating, established, starting
from tools.dev.peers.responder import (
    COOKIE, FRAGMENTATION, IKE_AUTH, INFORMATIONAL, KE, NONCE, Responder, message, nat_hash,
    notify, payload_chain,
)  # fmt: skip
from minipsec.ike import established as calls

CCM = {16: "AES-CCM-16", 8: "AES-CCM-8"}


def layers(packet):
    """[(class name, layer)] under the header, each with the fields that every payload has."""
    found = []
    layer = packet.payload
    while layer:
        assert not isinstance(layer, Raw), layer
        found.append(layer)
        layer = layer.payload
    return found


def shown(layer, name):
    """A field as scapy prints it: the name that it has for the number."""
    return layer.get_field(name).i2repr(layer, getattr(layer, name))


def chained(found):
    """Each Next Payload names the next one; no critical bit; lengths fit."""
    for layer, following in itertools.zip_longest(found, found[1:]):
        assert int(layer.flags) == 0
        assert shown(layer, "next_payload") == (names(following) if following else "None")
        assert layer.length == len(layer) - len(layer.payload)


def names(layer):
    return {
        "IKEv2_SA": "SA", "IKEv2_KE": "KE", "IKEv2_Nonce": "Nonce", "IKEv2_Notify": "Notify",
        "IKEv2_VendorID": "VendorID", "IKEv2_IDi": "IDi", "IKEv2_IDr": "IDr",
        "IKEv2_AUTH": "AUTH", "IKEv2_CP": "CP", "IKEv2_TSi": "TSi", "IKEv2_TSr": "TSr",
        "IKEv2_Delete": "Delete",
    }[type(layer).__name__]  # fmt: skip


def transforms(proposal):
    found = []
    layer = proposal.trans
    while layer:
        assert int(layer.res2) == 0
        found.append((shown(layer, "transform_type"), shown(layer, "transform_id")))
        if found[-1][0] == "Encryption":
            assert layer.key_length == 128
        following = layer.payload
        assert shown(layer, "next_payload") == ("Transform" if following else "None")
        layer = following
    assert proposal.trans_nb == len(found)
    return found


def proposals(sa):
    found = []
    layer = sa.prop
    while layer:
        assert layer.proposal == len(found) + 1
        found.append((shown(layer, "proto"), bytes(layer.SPI or b""), transforms(layer)))
        layer = layer.payload
    return found


@pytest.mark.item("MIN-01", "MIN-06", "MIN-17")
def test_ike_sa_init_field_by_field():
    node, gateway, request = starting(encap=False)
    packet = ikev2.IKEv2(request)
    assert bytes(packet) == request
    assert (packet.init_SPI, packet.resp_SPI) == (node.ike.spi_i, bytes(8))
    assert (packet.version, packet.exch_type, packet.id) == (0x20, 34, 0)
    assert str(packet.flags) == "Initiator" and packet.length == len(request)
    found = layers(packet)
    chained(found)
    assert [names(layer) for layer in found[:5]] == ["SA", "KE", "Nonce", "Notify", "Notify"]
    sa, ke, nonce, source, destination = found[:5]
    rest = [("PRF", "PRF_HMAC_SHA2_256"), ("GroupDesc", "curve25519gr")]
    assert proposals(sa) == [
        ("IKE", b"", [("Encryption", CCM[16])] + rest),
        ("IKE", b"", [("Encryption", CCM[8])] + rest),
    ]
    assert shown(ke, "group") == "curve25519gr" and len(ke.ke) == 32 and ke.res2 == 0
    assert len(nonce.nonce) == 32
    assert shown(source, "type") == "NAT_DETECTION_SOURCE_IP"
    assert shown(destination, "type") == "NAT_DETECTION_DESTINATION_IP"
    assert source.notify == nat_hash(node.ike.spi_i, bytes(8), *LOCAL)
    assert destination.notify == nat_hash(node.ike.spi_i, bytes(8), *REMOTE)
    for layer in found[3:]:
        if names(layer) == "Notify":
            assert (layer.proto, layer.SPIsize) == (0, 0)
    kinds = [layer.type for layer in found if names(layer) == "Notify"]
    assert FRAGMENTATION in kinds


@pytest.mark.item("MIN-21")
def test_a_cookie_stands_first():
    node, gateway, request = starting()
    (second,) = node.receive(gateway.refuse_init(request, notify(COOKIE, b"cookie " * 5)))
    packet = ikev2.IKEv2(second)
    assert bytes(packet) == second
    first = layers(packet)[0]
    assert shown(first, "type") == "COOKIE" and first.notify == b"cookie " * 5
    chained(layers(packet))


def opened(gateway, datagram):
    """What scapy makes of a protected message: the outer one, and the plaintext behind a header."""
    octets = datagram[4:]
    outer = ikev2.IKEv2(octets)
    assert bytes(outer) == octets
    (sealed,) = layers(outer)
    assert type(sealed).__name__ == "IKEv2_Encrypted"
    assert sealed.length == len(octets) - 28 == len(sealed.load) + 4
    exchange, flags, mid, payloads = gateway.read(datagram)
    first, plain = payload_chain([(kind, body) for kind, _, body in payloads])
    assert first == sealed.next_payload
    inner = ikev2.IKEv2(
        message(gateway.spi_i, gateway.spi_r, exchange, flags, mid, [])[:16]
        + bytes((first,))
        + octets[17:24]
        + (28 + len(plain)).to_bytes(4, "big")
        + plain
    )
    found = layers(inner) if plain else []
    chained(found)
    return outer, found


@pytest.mark.item("MIN-25", "MIN-28", "MIN-29")
def test_ike_auth_field_by_field():
    node, gateway, request = authenticating()
    outer, found = opened(gateway, request)
    assert (outer.init_SPI, outer.resp_SPI) == (gateway.spi_i, gateway.spi_r)
    assert (outer.exch_type, outer.id, str(outer.flags)) == (IKE_AUTH, 1, "Initiator")
    by_name = {names(layer): layer for layer in found}
    assert [names(layer) for layer in found if names(layer) != "Notify"] == [
        "IDi", "IDr", "AUTH", "CP", "SA", "TSi", "TSr",
    ]  # fmt: skip
    assert shown(by_name["Notify"], "type") == "INITIAL_CONTACT"
    for name, ident in (("IDi", b"sensor-1.example.org"), ("IDr", b"gw.example.org")):
        layer = by_name[name]
        assert (shown(layer, "IDtype"), layer.ID, layer.res2) == ("FQDN", ident, 0)
    auth = by_name["AUTH"]
    assert shown(auth, "auth_type") == "Shared Key Message Integrity Code"
    assert len(auth.load) == 32 and auth.res2 == 0
    (attribute,) = by_name["CP"].attributes
    assert shown(by_name["CP"], "CFGType") == "CFG_REQUEST"
    assert (shown(attribute, "type"), attribute.length) == ("INTERNAL_IP4_ADDRESS", 0)
    ((proto, spi, found),) = proposals(by_name["SA"])
    assert proto == "ESP" and len(spi) == 4
    assert found == [("Encryption", CCM[8]), ("Extended Sequence Number", "No ESN")]
    for name in ("TSi", "TSr"):
        layer = by_name[name]
        (selector,) = layer.traffic_selector
        assert layer.number_of_TSs == 1 and layer.res2 == 0
        assert (selector.IP_protocol_ID, selector.start_port, selector.end_port) == (0, 0, 65535)
        assert selector.starting_address_v4 == "0.0.0.0"
        assert selector.ending_address_v4 == "255.255.255.255"


def test_the_choices_of_a_profile_show():
    node, gateway, request = authenticating(
        inner_address="10.9.1.7", remote_ts="10.3.0.0/16", id="a@b.example", gateway_id="any"
    )
    outer, found = opened(gateway, request)
    by_name = {names(layer): layer for layer in found}
    assert "CP" not in by_name and "IDr" not in by_name
    assert shown(by_name["IDi"], "IDtype") == "Email_addr"
    (one,) = by_name["TSi"].traffic_selector
    assert one.starting_address_v4 == one.ending_address_v4 == "10.9.1.7"
    (net,) = by_name["TSr"].traffic_selector
    assert (net.starting_address_v4, net.ending_address_v4) == ("10.3.0.0", "10.3.255.255")


@pytest.mark.item("MIN-33", "MIN-34", "MIN-40")
def test_what_we_say_when_up_field_by_field():
    node, gateway = established()
    (answer,) = node.receive(gateway.request(INFORMATIONAL, []))
    outer, found = opened(gateway, answer)
    assert (outer.exch_type, outer.id) == (INFORMATIONAL, 0) and found == []
    assert set(str(outer.flags).split("+")) == {"Initiator", "Response"}
    (answer,) = node.receive(gateway.request(36, [(NONCE, bytes(32)), (KE, bytes(36))]))
    outer, (refusal,) = opened(gateway, answer)
    assert shown(refusal, "type") == "NO_ADDITIONAL_SAS" and outer.id == 1
    (delete,) = node.call(calls.delete)
    outer, (layer,) = opened(gateway, delete)
    assert (outer.id, str(outer.flags)) == (2, "Initiator")
    assert names(layer) == "Delete"
    assert (shown(layer, "proto"), layer.SPIsize, layer.SPInum) == ("IKE", 0, 0)


def test_fragments_are_skf_payloads_of_one_message():
    gateway = Responder()
    gateway.notifies = [(FRAGMENTATION, b"")]
    node, gateway, request = starting(gateway, fragment_size=200)
    datagrams = node.receive(gateway.init(request))
    total = len(datagrams)
    assert total > 1
    for number, datagram in enumerate(datagrams, 1):
        packet = ikev2.IKEv2(datagram[4:])
        assert bytes(packet) == datagram[4:]
        (layer,) = layers(packet)
        assert type(layer).__name__ == "IKEv2_Encrypted_Fragment"
        assert (layer.frag_number, layer.frag_total) == (number, total)
        # The first one names the first payload inside, the others none (RFC 7383 §2.5).
        assert shown(layer, "next_payload") == ("IDi" if number == 1 else "None")
        assert (packet.exch_type, packet.id) == (IKE_AUTH, 1)


def test_scapys_own_answer_is_understood():
    """An IKE_SA_INIT answer built by scapy's layers, not by ours."""
    node, gateway, request = starting()
    gateway.read_init(request)
    gateway.init(request)
    public = gateway._pair.public
    answer = (
        ikev2.IKEv2(
            init_SPI=gateway.spi_i, resp_SPI=gateway.spi_r, exch_type=34, flags="Response", id=0
        )
        / ikev2.IKEv2_SA(
            prop=ikev2.IKEv2_Proposal(
                proposal=1,
                proto=1,
                trans_nb=3,
                trans=ikev2.IKEv2_Transform(
                    transform_type="Encryption", transform_id=16, length=12, key_length=128
                )
                / ikev2.IKEv2_Transform(transform_type="PRF", transform_id=5)
                / ikev2.IKEv2_Transform(transform_type="GroupDesc", transform_id=31),
            )
        )
        / ikev2.IKEv2_KE(group=31, ke=public)
        / ikev2.IKEv2_Nonce(nonce=gateway.nonce)
        / ikev2.IKEv2_Notify(type=16388, notify=bytes(20))
        / ikev2.IKEv2_Notify(type=16389, notify=bytes(20))
    )
    octets = bytes(answer)
    gateway.response_octets = octets
    (request,) = node.receive(octets)
    assert node.state == "IKE_AUTH"
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"
