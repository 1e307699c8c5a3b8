"""What travels inside the tunnel: IPv4, IPv6, UDP and ICMP echo, with checksums."""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from .numbers import Ip


class InnerError(ValueError):
    """An inner packet that lies about itself; `reason` names how."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


class Packet(NamedTuple):
    """An inner IP packet: addresses as `ipaddress` objects, protocol, payload octets."""

    source: object
    destination: object
    protocol: int
    payload: bytes


def checksum(data):
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _pseudo(source, destination, protocol, size):
    if source.version == 4:
        return source.packed + destination.packed + struct.pack(">BBH", 0, protocol, size)
    return source.packed + destination.packed + struct.pack(">II", size, protocol)


def parse_ip(data, version):
    """`Packet` of an inner IPv4 (no fragments) or IPv6 (no extension headers) packet."""
    if not data or data[0] >> 4 != version:
        raise InnerError("INNER_VERSION")
    if version == 6:
        if len(data) < 40 or len(data) < 40 + int.from_bytes(data[4:6], "big"):
            raise InnerError("INNER_LENGTH")
        end = 40 + int.from_bytes(data[4:6], "big")
        return Packet(IPv6Address(data[8:24]), IPv6Address(data[24:40]), data[6], data[40:end])
    if len(data) < 20:
        raise InnerError("INNER_LENGTH")
    header = (data[0] & 15) * 4
    total, fragment = struct.unpack_from(">H2xH", data, 2)
    if header < 20 or total < header or total > len(data):
        raise InnerError("INNER_LENGTH")
    if checksum(data[:header]):
        raise InnerError("INNER_CHECKSUM")
    if fragment & 0x3FFF:
        raise InnerError("INNER_FRAGMENT")
    source, destination = IPv4Address(data[12:16]), IPv4Address(data[16:20])
    return Packet(source, destination, data[9], data[header:total])


def build_ip(packet, hops=64):
    if packet.source.version == 6:
        head = struct.pack(">IHBB", 6 << 28, len(packet.payload), packet.protocol, hops)
        return head + packet.source.packed + packet.destination.packed + packet.payload
    head = struct.pack(
        ">BBHHHBBH", 0x45, 0, 20 + len(packet.payload), 0, 0x4000, hops, packet.protocol, 0
    )
    head += packet.source.packed + packet.destination.packed
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + packet.payload


def parse_udp(packet, check=True):
    """(source port, destination port, payload). `check=False` skips the checksum."""
    data = packet.payload
    if len(data) < 8:
        raise InnerError("INNER_LENGTH")
    source, destination, size, value = struct.unpack_from(">HHHH", data)
    if not 8 <= size <= len(data):
        raise InnerError("INNER_LENGTH")
    if check and (value or packet.source.version == 6):
        pseudo = _pseudo(packet.source, packet.destination, Ip.UDP, size)
        if checksum(pseudo + data[:size]):
            raise InnerError("INNER_CHECKSUM")
    return source, destination, data[8:size]


def build_udp(source, destination, source_port, destination_port, payload):
    """A `Packet` that carries one UDP datagram."""
    size = 8 + len(payload)
    head = struct.pack(">HHH", source_port, destination_port, size)
    pseudo = _pseudo(source, destination, Ip.UDP, size)
    value = checksum(pseudo + head + b"\0\0" + payload) or 0xFFFF
    return Packet(source, destination, int(Ip.UDP), head + struct.pack(">H", value) + payload)


def build_icmp(source, destination, kind, code, body):
    """A `Packet` with an ICMP or ICMPv6 message; `body` follows the checksum."""
    protocol = Ip.ICMP if source.version == 4 else Ip.ICMPV6
    data = bytes((kind, code, 0, 0)) + body
    pseudo = b"" if source.version == 4 else _pseudo(source, destination, protocol, len(data))
    value = checksum(pseudo + data)
    return Packet(source, destination, int(protocol), data[:2] + struct.pack(">H", value) + body)


def echo_reply(packet):
    """The answer to an ICMP echo request, or None if `packet` is something else."""
    request, reply = (8, 0) if packet.source.version == 4 else (128, 129)
    if packet.protocol != (Ip.ICMP if packet.source.version == 4 else Ip.ICMPV6):
        return None
    if len(packet.payload) < 8 or packet.payload[0] != request:
        return None
    return build_icmp(packet.destination, packet.source, reply, 0, packet.payload[4:])
