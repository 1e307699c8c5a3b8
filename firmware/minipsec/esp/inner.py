"""What travels inside the tunnel: UDP over IPv4 or IPv6 (RFC 791, RFC 8200, RFC 768)."""

import struct
from micropython import const

from ..crypto.octets import total
from ..errors import Drop

_UDP = const(17)
_TTL = const(64)


def checksum(octets, more=0):
    """Return the sum of 16-bit words and `more` modulo 0xFFFF: RFC 1071's ones' complement sum.

    0 stands for both of its zeros.
    """
    return (total(octets, len(octets)) + more) % 0xFFFF


def header(source, destination, source_port, destination_port):
    """Return a template, IP and UDP header: 28 or 48 octets.

    Its lengths are 0.  In place of each checksum it holds the sum of what is known by now.
    IPv4 has DF set and Identification 0, as RFC 6864 §4.1 allows.
    """
    ends = source + destination
    ports = struct.pack(">HH", source_port, destination_port)
    if len(source) == 4:
        ip = struct.pack(">BBHHHBB", 0x45, 0, 0, 0, 0x4000, _TTL, _UDP)
        ip += struct.pack(">H", checksum(ip + ends))
    else:
        ip = struct.pack(">IHBB", 0x60000000, 0, _UDP, _TTL)
    return ip + ends + ports + struct.pack(">HH", 0, checksum(ends + ports, _UDP))


def complete(buf, at, template, payload, summed=True):
    """Write header and payload to buf[at:]; return the packet's length in octets.

    With a template's last 8 octets alone, the UDP header, it writes a packet of transport mode.
    Without `summed` the UDP checksum is 0, which IPv4 allows; a NAT would break a checksum.
    """
    n = len(template)
    length = 8 + len(payload)
    udp = at + n - 8
    size = udp + length - at
    buf[at : at + n] = template
    buf[at + n : at + size] = payload
    if n == 28:
        ip = 0xFFFF - ((template[10] << 8 | template[11]) + size) % 0xFFFF
        struct.pack_into(">H", buf, at + 2, size)
        struct.pack_into(">H", buf, at + 10, ip)
    elif n == 48:
        struct.pack_into(">H", buf, at + 4, length)
    check = 0
    if summed:
        # The length counts twice: in the UDP header and in the pseudo-header.
        known = (template[-2] << 8 | template[-1]) + 2 * length
        check = 0xFFFF - checksum(payload, known)
    struct.pack_into(">HH", buf, udp + 4, length, check)
    return size


def parse(packet, source, destination):
    """Return (source port, destination port, payload) of an inner UDP packet.

    `source` and `destination` are the packed addresses that it must have (`source` None: any).
    Raises Drop.
    """
    n = len(packet)
    if n < 20:
        raise Drop("INNER_LENGTH")
    version = packet[0] >> 4
    if version == 4:
        at = (packet[0] & 15) * 4
        size, fragment = struct.unpack_from(">HxxH", packet, 2)
        if at < 20 or size < at or size > n:
            raise Drop("INNER_LENGTH")
        if checksum(packet[:at]):
            raise Drop("INNER_CHECKSUM")
        kind = packet[9]
        if fragment & 0x3FFF:
            raise Drop("INNER_FRAGMENT")
        addresses = 12
    elif version == 6 and n >= 40:
        at = 40
        size = at + struct.unpack_from(">H", packet, 4)[0]
        if size > n:
            raise Drop("INNER_LENGTH")
        kind = packet[6]
        addresses = 8
    else:
        raise Drop("INNER_VERSION")
    middle = addresses + (4 if version == 4 else 16)
    end = 2 * middle - addresses
    if source is not None and bytes(packet[addresses:middle]) != source:
        raise Drop("INNER_ADDRESS")
    if bytes(packet[middle:end]) != destination:
        raise Drop("INNER_ADDRESS")
    if kind != _UDP:
        raise Drop("INNER_PROTOCOL")
    found = parse_udp(packet[at:size])
    length = 8 + len(found[2])
    total = packet[at + 6] | packet[at + 7]
    if total or version == 6:
        udp = checksum(packet[at : at + length], _UDP + length)
        if not total or checksum(packet[addresses:end], udp):
            raise Drop("INNER_CHECKSUM")
    return found


def parse_udp(packet):
    """Return (source port, destination port, payload) of a UDP packet; raise Drop.

    The checksum is ignored: in transport mode the ICV has covered it.
    """
    if len(packet) < 8:
        raise Drop("INNER_LENGTH")
    source_port, destination_port, length = struct.unpack_from(">HHH", packet)
    if not 8 <= length <= len(packet):
        raise Drop("INNER_LENGTH")
    return source_port, destination_port, packet[8:length]
