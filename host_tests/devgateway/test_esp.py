"""ESP both ways: against scapy, replayed, bent and out of order."""

import random

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

from host_tests.devgateway.peer import HERE_NATT, Peer, connect
from tools.devgateway.esp import ReplayWindow, full_sn
from tools.devgateway.inner import Packet, build_icmp, build_ip
from tools.devgateway.numbers import Encr


def scapy_sa(child, keys, spi):
    encr = child.choice.transforms[0]
    icv = {Encr.AES_CCM_8: 8, Encr.AES_CCM_12: 12, Encr.AES_CCM_16: 16}[encr.id]
    return SecurityAssociation(
        ESP,
        spi=int.from_bytes(spi, "big"),
        crypt_algo="AES-CCM",
        crypt_key=keys,
        crypt_icv_size=icv,
        tunnel_header=IP(src="192.0.2.7", dst="192.0.2.1"),
    )


@pytest.mark.parametrize("suite", ["aes128ccm8", "aes256ccm12", "aes128ccm16"])
def test_scapy_opens_our_esp_and_we_open_scapys(gateway, events, suite):
    peer = Peer(esp=(suite,))
    connect(gateway, peer)
    (child,) = gateway.children.values()
    theirs = scapy_sa(child, child.keys[0], child.spi_in)
    packet = IP(src="10.9.0.1", dst="10.3.0.10") / UDP(sport=7, dport=9) / Raw(b"from scapy")
    sealed = theirs.encrypt(packet, seq_num=1)
    ((echo, endpoint),) = gateway.receive(bytes(sealed[ESP]), HERE_NATT, 0)
    reading = dict(events)["reading"]
    assert (reading["text"], reading["src_port"], reading["dst_port"]) == ("from scapy", 7, 9)
    assert endpoint == HERE_NATT
    ours = scapy_sa(child, child.keys[2], child.spi_out)
    opened = ours.decrypt(IP(src="192.0.2.1", dst="192.0.2.7", proto=50) / ESP(echo))
    assert (opened[IP].src, opened[IP].dst) == ("10.3.0.10", "10.9.0.1")
    assert (opened[UDP].sport, opened[UDP].dport) == (9, 7)
    assert bytes(opened[UDP].payload) == b"from scapy"
    sum_of = opened[UDP].chksum
    del opened[UDP].chksum
    assert IP(bytes(opened))[UDP].chksum == sum_of


@pytest.mark.parametrize("suite", ["aes128ccm8", "aes256ccm16", "aes128-sha256"])
def test_readings_of_every_size_come_back(make_gateway, suite):
    gateway = make_gateway(esp=(suite,))
    peer = Peer(esp=(suite,))
    connect(gateway, peer)
    for size in (*range(40), 500, 1200):
        payload = bytes(range(256)) * 5
        ((echo, _),) = gateway.receive(peer.udp(payload[:size]), HERE_NATT, 0)
        source, source_port, port, back = peer.open_udp(echo)
        assert (str(source), source_port, port, back) == ("10.3.0.10", 5000, 5000, payload[:size])


def test_a_replayed_packet_is_dropped(gateway):
    peer = Peer()
    connect(gateway, peer)
    packet = peer.udp(b"once")
    assert len(gateway.receive(packet, HERE_NATT, 0)) == 1
    assert gateway.receive(packet, HERE_NATT, 0) == []
    assert gateway.drops == {"REPLAY": 1}


def test_every_flipped_bit_is_a_counted_drop_and_moves_nothing(gateway):
    peer = Peer()
    connect(gateway, peer)
    packet = peer.udp(b"reading")
    (child,) = gateway.children.values()
    for position in range(len(packet)):
        bad = bytearray(packet)
        bad[position] ^= 1 << position % 8
        assert gateway.receive(bytes(bad), HERE_NATT, 0) == []
    assert gateway.drops.total() == len(packet)
    assert child.window.highest == 0
    for size in range(len(packet)):
        gateway.receive(packet[:size], HERE_NATT, 0)
    assert child.window.highest == 0
    assert len(gateway.receive(packet, HERE_NATT, 0)) == 1


def test_the_outer_port_is_learned_from_new_authenticated_packets_only(gateway):
    peer = Peer()
    connect(gateway, peer)
    moved = HERE_NATT._replace(port=50001)
    one, two, three = (peer.udp(b"%d" % n) for n in range(3))
    gateway.receive(one, HERE_NATT, 0)
    gateway.receive(three[:-1] + bytes((three[-1] ^ 1,)), moved, 0)
    (sa,) = gateway.sas.values()
    assert sa.endpoint == HERE_NATT
    assert gateway.receive(three, moved, 0)[0][1] == moved
    # An older packet that was late on the old path does not take it back.
    assert gateway.receive(two, HERE_NATT, 0)[0][1] == moved


def test_dummies_are_dropped_silently_and_sent_on_request(gateway, events):
    peer = Peer()
    connect(gateway, peer)
    before = len(events)
    assert gateway.receive(peer.child.seal(59, b"junk", peer.rand), HERE_NATT, 0) == []
    assert len(events) == before
    assert gateway.counters["dummies"] == 1
    (child,) = gateway.children.values()
    ((dummy, _),) = gateway.send_dummy(child, 10)
    assert peer.child.open(dummy)[0] == 59


def test_a_ping_is_answered_and_icmp_is_sent_on_request(gateway):
    peer = Peer()
    connect(gateway, peer)
    server = peer.ts_r[0].first + 1
    ping = build_icmp(peer.address, server, 8, 0, b"\0\1\0\1data")
    ((reply, _),) = gateway.receive(peer.packet(ping), HERE_NATT, 0)
    packet = IP(peer.child.open(reply)[1])
    assert (packet.proto, packet.src, packet[1].type) == (1, str(server), 0)
    (child,) = gateway.children.values()
    ((unreachable, _),) = gateway.send_icmp(child, server, 3, 3)
    packet = IP(peer.child.open(unreachable)[1])
    assert (packet[1].type, packet[1].code) == (3, 3)


def test_an_inner_packet_that_lies_is_dropped(gateway):
    peer = Peer(inner="10.8.0.5")
    peer.ts_r = [peer.ts_r[0]._replace(first_port=5000, last_port=5000, protocol=17)]
    connect(gateway, peer)
    good = build_ip(Packet(peer.address, peer.ts_r[0].first + 9, 17, bytes(8)))
    lies = {
        "INNER_VERSION": (4, b"\x65" + good[1:]),
        "INNER_LENGTH": (4, good[:2] + b"\xff\xff" + good[4:]),
        "INNER_CHECKSUM": (4, good[:8] + b"\0" + good[9:]),
        "INNER_PROTOCOL": (50, good),
    }
    for reason, (kind, packet) in lies.items():
        assert gateway.receive(peer.child.seal(kind, packet, peer.rand), HERE_NATT, 0) == []
        assert gateway.drops.pop(reason) == 1, reason
    peer.address += 1
    assert gateway.receive(peer.udp(b"x"), HERE_NATT, 0) == []
    assert gateway.drops.pop("INNER_ADDRESS") == 1
    peer.address -= 1
    assert gateway.receive(peer.udp(b"x", port=5001), HERE_NATT, 0) == []
    assert gateway.drops.pop("INNER_ADDRESS") == 1
    assert len(gateway.receive(peer.udp(b"x"), HERE_NATT, 0)) == 1


def test_wrong_padding_is_dropped_without_moving_the_window(gateway):
    peer = Peer()
    connect(gateway, peer)
    (child,) = gateway.children.values()
    for plain in (b"1234\0\0\2\4", b"1234\1\2\3\4", b"1234\1\2\x09\4", b"12\1\2\3"):
        peer.child.sn_out += 1
        sn = peer.child.sn_out
        body = peer.child._to_peer.seal(child.spi_in, sn, False, plain, peer.rand)
        packet = child.spi_in + sn.to_bytes(4, "big") + body
        assert gateway.receive(packet, HERE_NATT, 0) == []
    assert gateway.drops == {"BAD_PADDING": 4}
    assert child.window.highest == 0


def test_the_replay_window_takes_each_number_once_in_any_order_within_it():
    picks = random.Random(1)
    for size in (1, 32, 64, 200):
        window = ReplayWindow(size)
        taken, highest = set(), 0
        for _ in range(5000):
            sn = max(0, highest + picks.randint(-2 * size, 3))
            expected = sn > 0 and sn not in taken and sn > highest - size
            assert window.check(sn) == expected
            if expected:
                window.commit(sn)
                taken.add(sn)
                highest = max(highest, sn)


def test_a_window_of_nought_takes_replays_but_never_zero():
    window = ReplayWindow(0)
    window.commit(9)
    assert window.check(9) and window.check(1) and not window.check(0)


def test_the_high_half_of_an_extended_number_is_found():
    """RFC 4303 Appendix A2.2, both cases."""
    window = ReplayWindow(64)
    for highest in (70, 1 << 32, (1 << 32) + 10, (5 << 32) + 1000, (2 << 32) - 1):
        window.highest = highest
        for sn in range(max(1, highest - 63), highest + 200):
            assert full_sn(sn & 0xFFFFFFFF, window) == sn
