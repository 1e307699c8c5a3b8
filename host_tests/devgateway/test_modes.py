"""ESP in all its agreed forms: transport, ESN, implicit IV, IPv6 inside."""

import ipaddress

import pytest

from host_tests.devgateway.peer import HERE, HERE_NATT, Peer, connect, natt, only
from tools.devgateway import Endpoint, wire
from tools.devgateway.inner import build_icmp
from tools.devgateway.numbers import N, P
from tools.devgateway.wire import Notify, Selector, selector_of


def transport_peer(sensor=HERE.host, gateway_host=HERE.local_host, **settings):
    peer = Peer(inner=sensor, **settings)
    peer.auth_notifies = [Notify(N.USE_TRANSPORT_MODE)]
    address = ipaddress.ip_address(gateway_host)
    peer.ts_r = [Selector(address, address, 17)]
    return peer


def test_transport_mode_carries_udp_straight_in_esp(gateway, events):
    peer = transport_peer()
    _, notifies = connect(gateway, peer)
    assert notifies == [N.USE_TRANSPORT_MODE]
    assert dict(events)["child_sa"]["mode"] == "transport"
    packet = peer.udp(b"21.5", to=HERE.local_host)
    tunnel = Peer(seed=2, id="other")
    connect(gateway, tunnel)
    assert len(tunnel.udp(b"21.5")) - len(packet) == 20
    ((echo, _),) = gateway.receive(packet, HERE_NATT, 0)
    source, source_port, port, payload = peer.open_udp(echo)
    assert (str(source), source_port, port, payload) == (HERE.local_host, 5000, 5000, b"21.5")
    reading = dict(events)["reading"]
    assert (reading["inner"], reading["text"]) == (HERE.host, "21.5")


def test_transport_mode_through_a_nat_keeps_the_sensors_own_address(make_gateway, events):
    gateway = make_gateway()
    peer = transport_peer("192.168.0.7")
    mapped = HERE._replace(host="198.51.100.9", port=1234)
    peer.take_init(only(gateway.receive(peer.init_request(), mapped, 0)))
    floated = HERE_NATT._replace(host="198.51.100.9", port=1235)
    peer.take_auth(only(gateway.receive(natt(peer.auth_request()), floated, 0)))
    assert str(peer.address) == "192.168.0.7"
    ((echo, to),) = gateway.receive(peer.udp(b"x", to=HERE.local_host), floated, 0)
    assert to == floated and peer.open_udp(echo)[3] == b"x"
    # Without a NAT another address is not accepted.
    honest = transport_peer("192.168.0.8", seed=2, id="other")
    assert connect(gateway, honest)[1] == [N.TS_UNACCEPTABLE]


def test_transport_mode_is_answered_by_tunnel_mode_where_it_cannot_be(make_gateway):
    for settings, peer in (
        ({"transport": False}, transport_peer()),
        ({}, Peer()),
    ):
        gateway = make_gateway(**settings)
        peer.auth_notifies = [Notify(N.USE_TRANSPORT_MODE)]
        _, notifies = connect(gateway, peer)
        assert notifies == [] and not peer.child.transport
        ((echo, _),) = gateway.receive(peer.udp(b"x", to=HERE.local_host), HERE_NATT, 0)
        assert peer.open_udp(echo)[3] == b"x"


@pytest.mark.parametrize("suite", ["aes128ccm8-esn", "aes128ccm8iiv-esn", "aes256ccm16-esn"])
def test_extended_sequence_numbers_pass_their_32_bit_edge(make_gateway, suite):
    gateway = make_gateway(esp=(suite,))
    peer = Peer(esp=(suite,))
    connect(gateway, peer)
    (child,) = gateway.children.values()
    assert child.esn
    # The last numbers of the first cycle, then the second cycle.
    start = (1 << 32) - 3
    peer.child.sn_out = child.window.highest = start
    child.sn_out = peer.child.window.highest = start
    for turn in range(8):
        ((echo, _),) = gateway.receive(peer.udp(b"%d" % turn), HERE_NATT, 0)
        assert peer.open_udp(echo)[3] == b"%d" % turn
    assert child.window.highest == start + 8 > 1 << 32


def test_a_clock_sender_may_start_with_any_high_half_near_the_receivers(make_gateway):
    gateway = make_gateway(esp=("aes128ccm8-esn",))
    peer = Peer(esp=("aes128ccm8-esn",))
    connect(gateway, peer)
    for sn in (1, 1000, 1 << 31, (1 << 32) - 1, (1 << 32) + 5, (1 << 32) + (1 << 31)):
        peer.child.sn_out = sn - 1
        assert len(gateway.receive(peer.udp(b"x"), HERE_NATT, 0)) == 1
    # Half a cycle back is taken for a wrap, so the ICV is wrong.
    peer.child.sn_out = 4
    assert gateway.receive(peer.udp(b"x"), HERE_NATT, 0) == []
    assert gateway.drops == {"BAD_ICV": 1}


def test_32_bit_numbers_end_and_do_not_wrap(gateway):
    peer = Peer()
    connect(gateway, peer)
    (child,) = gateway.children.values()
    child.sn_out = 0xFFFFFFFE
    assert len(gateway.send_dummy(child)) == 1
    with pytest.raises(Exception, match="SN_EXHAUSTED"):
        gateway.send_dummy(child)


@pytest.mark.parametrize("key", ["128", "256"])
def test_an_implicit_iv_saves_8_octets(gateway, key):
    """RFC 8750, preferred where the sensor offers it beside the explicit one."""
    explicit = Peer(esp=("aes%sccm8" % key,), id="a")
    implicit = Peer(esp=("aes%sccm8iiv" % key, "aes%sccm8" % key), id="b", seed=2)
    connect(gateway, explicit)
    connect(gateway, implicit)
    assert len(explicit.udp(b"1234")) - len(implicit.udp(b"1234")) == 8
    for peer in (explicit, implicit):
        ((echo, _),) = gateway.receive(peer.udp(b"1234"), HERE_NATT, 0)
        assert peer.open_udp(echo)[3] == b"1234"


def test_an_implicit_iv_packet_is_what_the_rfc_says(gateway):
    """Nonce = salt | 64-bit sequence number, made here by hand."""
    from cryptography.hazmat.primitives.ciphers.aead import AESCCM

    peer = Peer(esp=("aes128ccm8iiv",))
    connect(gateway, peer)
    (child,) = gateway.children.values()
    key, salt = child.keys[0][:16], child.keys[0][16:]
    spi, sn = child.spi_in, (7).to_bytes(4, "big")
    plain = b"\x01\x02\x02\x3b"  # two octets of padding, a dummy
    body = AESCCM(key, tag_length=8).encrypt(salt + bytes(4) + sn, plain, spi + sn)
    gateway.receive(spi + sn + body, HERE_NATT, 0)
    assert gateway.counters["dummies"] == 1


def test_ipv6_inside_with_a_static_address_and_ping(gateway):
    peer = Peer(inner="fd09::7")
    peer.ts_r = [selector_of(ipaddress.ip_network("fd03::/64"))]
    bodies, _ = connect(gateway, peer)
    assert wire.parse_selectors(bodies[P.TSR]) == peer.ts_r
    ((echo, _),) = gateway.receive(peer.udp(b"six", to="fd03::10"), HERE_NATT, 0)
    assert str(peer.open_udp(echo)[0]) == "fd03::10"
    server = ipaddress.ip_address("fd03::10")
    ping = build_icmp(peer.address, server, 128, 0, b"\0\1\0\1data")
    ((reply, _),) = gateway.receive(peer.packet(ping), HERE_NATT, 0)
    kind, plain, _ = peer.child.open(reply)
    from scapy.layers.inet6 import ICMPv6EchoReply, IPv6

    packet = IPv6(plain)
    assert kind == 41 and packet[ICMPv6EchoReply].data == b"data"
    value = packet[ICMPv6EchoReply].cksum
    del packet[ICMPv6EchoReply].cksum
    assert IPv6(bytes(packet))[ICMPv6EchoReply].cksum == value


def test_esp_straight_on_ip_goes_back_the_same_way(make_gateway):
    gateway = make_gateway(raw_esp=True, encap=False)
    peer = Peer()
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
    peer.take_auth(only(gateway.receive(peer.auth_request(), HERE, 0)))
    raw = Endpoint(HERE.host, 0, False, HERE.local_host, 0, True)
    (child,) = gateway.children.values()
    ((dummy, to),) = gateway.send_dummy(child)
    assert to == raw and peer.child.open(dummy)[0] == 59
    ((echo, to),) = gateway.receive(peer.udp(b"raw"), raw, 0)
    assert to == raw and peer.open_udp(echo)[3] == b"raw"
    (sa,) = gateway.sas.values()
    assert gateway.liveness(sa, 0)[0][1] == HERE
    ((echo, to),) = gateway.receive(peer.udp(b"udp"), HERE_NATT, 0)
    assert to == HERE_NATT


def test_without_raw_esp_there_is_no_way_to_a_sensor_that_did_not_float(make_gateway):
    gateway = make_gateway(encap=False)
    peer = Peer()
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
    peer.take_auth(only(gateway.receive(peer.auth_request(), HERE, 0)))
    (child,) = gateway.children.values()
    assert gateway.send_dummy(child) == []
    assert gateway.drops == {"NO_ESP_PATH": 1}
