"""IKE messages as octets, for every scripted peer: a third reading of RFC 7296 §3.

It shares nothing with firmware/ nor with tools/devgateway, and runs under MicroPython, too.
"""

import struct
from collections import namedtuple
from hashlib import sha1

IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL = 34, 35, 36, 37
SA, KE, IDI, IDR, AUTH, NONCE, N, D, V, TSI, TSR, SK, CP, SKF = (
    33, 34, 35, 36, 39, 40, 41, 42, 43, 44, 45, 46, 47, 53,
)  # fmt: skip
I, R = 0x08, 0x20
NAT_SOURCE, NAT_DESTINATION, COOKIE = 16388, 16389, 16390
FRAGMENTATION = 16430
MARKER = bytes(4)
DELETE_IKE = (D, b"\1\0\0\0")
UNKNOWN = 200  # a payload type that nobody has assigned

Header = namedtuple("Header", "spi_i spi_r first version exchange flags mid size")
HEADER_SIZE = 28


def header(spi_i, spi_r, first, exchange, flags, mid, size, version=0x20):
    """An IKE header (RFC 7296 §3.1); `size` is what its Length says."""
    return struct.pack(">8s8sBBBBII", spi_i, spi_r, first, version, exchange, flags, mid, size)


def parsed(octets):
    """The `Header` that a message begins with."""
    return Header(*struct.unpack(">8s8sBBBBII", octets[:HEADER_SIZE]))


def payload_chain(payloads, behind=0):
    """(first type, octets) of [(type, body)] or [(type, body, critical)]; `behind` follows them."""
    out = b""
    kinds = [payload[0] for payload in payloads] + [behind]
    for i, payload in enumerate(payloads):
        critical = 0x80 if len(payload) > 2 and payload[2] else 0
        out += struct.pack(">BBH", kinds[i + 1], critical, 4 + len(payload[1])) + payload[1]
    return kinds[0], out


def split(first, octets):
    """[(type, critical, body)] of a chain; ends at an SK payload, whose body is (first, octets)."""
    found = []
    while first:
        following, flags, size = struct.unpack(">BBH", octets[:4])
        assert 4 <= size <= len(octets), (first, size)
        body = octets[4:size]
        if first in (SK, SKF):
            assert size == len(octets)
            return found + [(first, following, body)]
        found.append((first, flags >> 7, body))
        octets = octets[size:]
        first = following
    assert not octets
    return found


def message(spi_i, spi_r, exchange, flags, mid, payloads):
    first, body = payload_chain(payloads)
    return header(spi_i, spi_r, first, exchange, flags, mid, HEADER_SIZE + len(body)) + body


def protected(
    spi_i, spi_r, exchange, flags, mid, first, n, seal,
    kind=SK, place=b"", outer=(), version=0x20, length=0, reserved=0,
):  # fmt: skip
    """A message in SK or SKF: `seal` makes the `n` octets behind what it is given, the AAD.

    `first` is the first payload inside, `place` SKF's two numbers, `outer` stands in front in the
    clear; `length` is added to the header's Length, `reserved` stands beside `first`.
    """
    begins, front = payload_chain(outer, kind)
    size = 4 + len(place) + n
    whole = HEADER_SIZE + len(front) + size + length
    aad = header(spi_i, spi_r, begins, exchange, flags, mid, whole, version) + front
    aad += struct.pack(">BBH", first, reserved, size) + place
    return aad + seal(aad)


def notify(kind, data=b"", protocol=0, spi=b""):
    return N, struct.pack(">BBH", protocol, len(spi), kind) + spi + data


def proposal(number, protocol, spi, transforms):
    """SA payload body with one proposal; transforms are (type, id, key bits or 0)."""
    body = b""
    for i, (kind, ident, bits) in enumerate(transforms):
        attribute = struct.pack(">HH", 0x800E, bits) if bits else b""
        more = 3 if i + 1 < len(transforms) else 0
        body += struct.pack(">BBHBBH", more, 0, 8 + len(attribute), kind, 0, ident) + attribute
    head = struct.pack(
        ">BBHBBBB", 0, 0, 8 + len(spi) + len(body), number, protocol, len(spi), len(transforms)
    )
    return head + spi + body


def selector(first, last, protocol=0, ports=(0, 65535)):
    """TS payload body with one IPv4 range."""
    head = struct.pack(">B3xBBHHH", 1, 7, protocol, 16, *ports)
    return head + first + last


def nat_hash(spi_i, spi_r, address, port):
    return sha1(spi_i + spi_r + address + struct.pack(">H", port)).digest()
