"""Edges of ESP that one changed character would move: counts, padding, buffers, checksums."""

import struct

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from host_tests.esp.said import Receiver, said
from minipsec.esp.sa import Sender
from minipsec.esp.sequence import ReplayWindow, Sequence

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
