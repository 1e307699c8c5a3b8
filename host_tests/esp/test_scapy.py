"""Our ESP opened by scapy's layers.ipsec, scapy's opened by us, and the packets inside."""

import random

import pytest
from host_tests.esp.said import Receiver
from minipsec.esp.sa import Sender
from minipsec.esp.sequence import Sequence
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation
from scapy.packet import Raw

US, SERVER = "10.9.0.1", "10.3.0.10"
OUTER = IP(src="10.77.0.2", dst="10.77.0.1")
KEY_OUT, KEY_IN = bytes(range(19)), bytes(range(40, 59))
SPI_OUT, SPI_IN = 0xCAFEBABE, 0xDEADBEEF
SIZES = [*range(0, 40), 100, 1199, 1200]


def packed(text):
    return bytes(map(int, text.split(".")))


def child(icv):
    return {
        "spi_in": SPI_IN.to_bytes(4, "big"),
        "spi_out": SPI_OUT.to_bytes(4, "big"),
        "key_in": KEY_IN,
        "key_out": KEY_OUT,
        "cipher": {8: 14, 12: 15, 16: 16}[icv],
    }


def association(spi, key, icv, **options):
    """scapy's SA: its AES-CCM takes key | salt of 3 octets, as RFC 4309 has it."""
    options.setdefault("tunnel_header", OUTER)
    return SecurityAssociation(
        ESP, spi, crypt_algo="AES-CCM", crypt_key=key, crypt_icv_size=icv, **options
    )


def ours(icv=8, **numbers):
    ends = (packed(US), packed(SERVER), 5001, 5000)
    return Sender(child(icv), ends, Sequence(0, **numbers))


def receiver(icv=8, window=64):
    return Receiver(child(icv), (packed(SERVER), packed(US), 5000, 5001), window)


def on_the_wire(esp):
    """Behind an outer IP header, as scapy expects it."""
    return IP(bytes(OUTER.__class__(src=OUTER.src, dst=OUTER.dst, proto=50) / Raw(bytes(esp))))


@pytest.mark.parametrize("icv", [8, 12, 16])
def test_scapy_opens_what_we_seal(icv):
    theirs = association(SPI_OUT, KEY_OUT, icv)
    sender = ours(icv)
    rng = random.Random(icv)
    for size in SIZES:
        payload = rng.randbytes(size)
        packet = theirs.decrypt(on_the_wire(sender.seal(payload, 0)))
        assert (packet.src, packet.dst, packet.version, packet.ihl) == (US, SERVER, 4, 5)
        assert (packet.proto, packet.frag, packet.ttl, str(packet.flags)) == (17, 0, 64, "DF")
        udp = packet[UDP]
        assert (udp.sport, udp.dport, udp.len) == (5001, 5000, 8 + size)
        assert bytes(udp.payload) == payload
        # Both checksums as scapy computes them itself.
        again = packet.copy()
        del again.chksum, again.len, again[UDP].chksum, again[UDP].len
        assert bytes(again) == bytes(packet)


def test_sequence_number_iv_and_padding_as_scapy_sees_them():
    sender = ours(tick_ms=100)
    theirs = association(SPI_OUT, KEY_OUT, 8)
    for now in (0, 250, 60_000):
        packet = on_the_wire(sender.seal(b"reading %d" % now, now))
        sn = sender.numbers.last
        assert (packet[ESP].spi, packet[ESP].seq) == (SPI_OUT, sn)
        assert packet[ESP].data[:8] == sn.to_bytes(8, "big")
        esp = theirs.crypt_algo.decrypt(theirs, packet[ESP], theirs.crypt_key, 8)
        assert esp.nh == 4 and esp.padding == bytes(range(1, esp.padlen + 1)) and esp.padlen < 4


def test_scapy_refuses_what_was_changed_on_the_way():
    theirs = association(SPI_OUT, KEY_OUT, 8)
    packet = bytes(ours().seal(b"reading", 0))
    for at in (4, 8, 16, len(packet) - 1):
        bent = bytearray(packet)
        bent[at] ^= 1
        with pytest.raises(IPSecIntegrityError):
            theirs.decrypt(on_the_wire(bent))


@pytest.mark.parametrize("icv", [8, 12, 16])
def test_we_open_what_scapy_seals(icv):
    theirs = association(SPI_IN, KEY_IN, icv)
    into = receiver(icv)
    rng = random.Random(100 + icv)
    for size in SIZES:
        payload = rng.randbytes(size)
        inside = IP(src=SERVER, dst=US) / UDP(sport=5000, dport=5001) / Raw(payload)
        packet = theirs.encrypt(inside)
        assert into.open(bytes(packet[ESP])) == payload, size
        assert into.open(bytes(packet[ESP])) == "REPLAY"


def test_icmp_and_other_things_from_scapy_are_named():
    theirs = association(SPI_IN, KEY_IN, 8)
    into = receiver()
    base = IP(src=SERVER, dst=US)
    udp = UDP(sport=5000, dport=5001)
    unreachable = ICMP(type=3, code=3) / IP(src=US, dst=SERVER) / UDP(sport=5001, dport=5000)
    for inside, reason in (
        (base / unreachable, "INNER_PROTOCOL"),
        (base / ICMP() / b"ping", "INNER_PROTOCOL"),
        (IP(src=SERVER, dst="10.9.0.2") / udp, "INNER_ADDRESS"),
        (IP(src="10.3.0.11", dst=US) / udp, "INNER_ADDRESS"),
        (base / UDP(sport=5000, dport=7) / b"x", "INNER_PORT"),
        (base / UDP(sport=53, dport=5001) / b"x", "INNER_PORT"),
        (base / UDP(sport=5000, dport=5001, chksum=0x1234) / b"x", "INNER_CHECKSUM"),
        (IP(src=SERVER, dst=US, flags="MF") / udp / b"x", "INNER_FRAGMENT"),
        (IP(src=SERVER, dst=US, frag=5) / udp / b"x", "INNER_FRAGMENT"),
    ):
        assert into.open(bytes(theirs.encrypt(inside)[ESP])) == reason, inside.summary()
    assert into.open(bytes(theirs.encrypt(base / udp / b"still here")[ESP])) == b"still here"


def test_ipv6_inside_both_ways():
    ends = bytes.fromhex("fd09" + "00" * 13 + "05"), bytes.fromhex("fd03" + "00" * 13 + "10")
    sender = Sender(child(8), (*ends, 5001, 5000), Sequence(0))
    packet = association(SPI_OUT, KEY_OUT, 8).decrypt(on_the_wire(sender.seal(b"six", 0)))
    six = IPv6(bytes(packet)) if not isinstance(packet, IPv6) else packet
    assert (six.src, six.dst, six.nh, six.hlim) == ("fd09::5", "fd03::10", 17, 64)
    again = six.copy()
    del again.plen, again[UDP].chksum, again[UDP].len
    assert bytes(again) == bytes(six) and bytes(six[UDP].payload) == b"six"
    into = Receiver(child(8), (ends[1], ends[0], 5000, 5001), 64)
    inside = IPv6(src="fd03::10", dst="fd09::5") / UDP(sport=5000, dport=5001) / b"down"
    assert into.open(bytes(association(SPI_IN, KEY_IN, 8).encrypt(inside)[ESP])) == b"down"
