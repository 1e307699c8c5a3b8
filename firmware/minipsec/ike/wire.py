"""IKEv2 on the wire: header, payload chain, proposals, notifies, selectors (RFC 7296 §3).

Pure codecs over octets.  Encoders return bytes.  Decoders return bodies as memoryviews into the
message; whatever the octets are, they raise nothing but `Drop` with the name of a reason.
"""

import struct
from hashlib import sha1, sha256
from micropython import const

from ..errors import Drop

_HEADER = ">8s8sBBBBII"
# RFC 7296 §3.1
_HEADER_SIZE = const(28)
_VERSION = const(0x20)
# §3.2; SKF: RFC 7383
_SA = const(33)
_N = const(41)
_VENDOR = const(43)
_SK = const(46)
_LAST_KNOWN = const(48)  # payload types 33..48 are RFC 7296's own
_SKF = const(53)
# §3.3.5: attribute 14 in TV format
_KEY_LENGTH = const(0x800E)
# §3.13.1
_TS_IPV4 = const(7)
_TS_IPV6 = const(8)

# Ours: bounds on what a peer may send.
_MAX_PAYLOADS = const(40)
_MAX_PROPOSALS = const(8)
_MAX_TRANSFORMS = const(24)
_MAX_SELECTORS = const(64)  # a gateway names each of its networks
_MAX_ATTRIBUTES = const(24)


def header(spi_i, spi_r, first, exchange, flags, message_id, length):
    """Return the 28 octets of an IKE header (RFC 7296 §3.1)."""
    return struct.pack(_HEADER, spi_i, spi_r, first, _VERSION, exchange, flags, message_id, length)


def parse_header(message):
    """Return (spi_i, spi_r, first payload, exchange, flags, message_id) of a whole message."""
    if len(message) < _HEADER_SIZE:
        raise Drop("BAD_LENGTH")
    spi_i, spi_r, first, version, exchange, flags, message_id, length = struct.unpack_from(
        _HEADER, message
    )
    if version >> 4 != 2:
        raise Drop("BAD_VERSION")
    if length != len(message):
        raise Drop("BAD_LENGTH")
    return spi_i, spi_r, first, exchange, flags, message_id


def chain(payloads):
    """Return (type of the first payload, octets) of [(type, body), ...] (RFC 7296 §3.2)."""
    out = []
    following = 0
    for kind, body in reversed(payloads):
        out.append(body)
        out.append(struct.pack(">BBH", following, 0, len(body) + 4))
        following = kind
    out.reverse()
    return following, b"".join(out)


def payloads(first, view, start):
    """Return [(type, critical, body)] of the chain from `start` to the end of `view`.

    An SK or SKF payload ends the chain: its Next Payload names what is inside it
    (RFC 7296 §3.14), so its entry is (type, inner first payload, body).  It must follow a header;
    a plaintext, whose chain starts at 0, cannot hold one.
    """
    found = []
    end = len(view)
    outer = start > 0
    while first:
        if end - start < 4 or len(found) == _MAX_PAYLOADS:
            raise Drop("BAD_PAYLOAD")
        following, critical, size = struct.unpack_from(">BBH", view, start)
        if size < 4 or size > end - start:
            raise Drop("BAD_PAYLOAD")
        body = view[start + 4 : start + size]
        start += size
        if first == _SK or first == _SKF:
            if not outer:
                raise Drop("BAD_PAYLOAD")
            found.append((first, following, body))
            break
        found.append((first, critical >> 7, body))
        first = following
    if start != end:
        raise Drop("BAD_LENGTH")
    return found


def sort(payloads):
    """Return ({type: body}, [(notify type, data)], [vendor ID]) of a response's payloads."""
    found = {}
    notifies = []
    vendors = []
    for kind, critical, body in payloads:
        if kind == _N:
            notifies.append(parse_notify(body)[:2])
        elif kind == _VENDOR:
            vendors.append(bytes(body))
        elif kind in found:
            raise Drop("BAD_PAYLOAD")
        elif _SA <= kind <= _LAST_KNOWN:
            found[kind] = body
        elif critical:
            raise Drop("CRITICAL_PAYLOAD")
    return found, notifies, vendors


def head(view, body, response):
    """Return what a message with this SK or SKF payload's body is known by.

    A request by its digest; a response by its octets in the clear, up to Next Payload and RESERVED
    of that payload, both included.
    """
    return bytes(view[: len(view) - len(body) - 2]) if response else sha256(view).digest()


def notify(kind, data=b"", protocol=0, spi=b""):
    """Return the body of a Notify payload (RFC 7296 §3.10)."""
    return struct.pack(">BBH", protocol, len(spi), kind) + spi + data


def parse_notify(body):
    """Return (type, data, protocol, SPI size) of a Notify payload's body."""
    if len(body) < 4:
        raise Drop("BAD_PAYLOAD")
    protocol, spi_size, kind = struct.unpack_from(">BBH", body)
    if len(body) < 4 + spi_size:
        raise Drop("BAD_PAYLOAD")
    return kind, body[4 + spi_size :], protocol, spi_size


def nat_hash(spis, address, port):
    """Return SHA-1(SPIi | SPIr | address | port), RFC 7296 §2.23."""
    return sha1(spis + address + struct.pack(">H", port)).digest()


def sa_body(proposals):
    """Return the body of an SA payload: proposals are [(protocol, spi, transforms)].

    A transform is (type, id, key length in bits or 0); RFC 7296 §3.3.
    """
    out = b""
    last = len(proposals)
    for number, (protocol, spi, transforms) in enumerate(proposals):
        body = b""
        left = len(transforms)
        for kind, ident, bits in transforms:
            left -= 1
            attribute = struct.pack(">HH", _KEY_LENGTH, bits) if bits else b""
            body += struct.pack(">BBHBBH", 3 if left else 0, 0, 8 + len(attribute), kind, 0, ident)
            body += attribute
        out += struct.pack(
            ">BBHBBBB",
            2 if number + 1 < last else 0,
            0,
            8 + len(spi) + len(body),
            number + 1,
            protocol,
            len(spi),
            len(transforms),
        )
        out += bytes(spi) + body
    return out


def parse_sa(body):
    """Return [(number, protocol, spi, transforms)] of an SA payload's body."""
    proposals = []
    at = 0
    end = len(body)
    more = 2
    while more:
        if end - at < 8 or len(proposals) == _MAX_PROPOSALS:
            raise Drop("BAD_SA")
        more, _, size, number, protocol, spi_size, count = struct.unpack_from(">BBHBBBB", body, at)
        stop = at + size
        at += 8 + spi_size
        if at > stop or stop > end or count > _MAX_TRANSFORMS:
            raise Drop("BAD_SA")
        spi = bytes(body[at - spi_size : at])
        transforms = []
        for _ in range(count):
            if stop - at < 8:
                raise Drop("BAD_SA")
            _, _, size, kind, _, ident = struct.unpack_from(">BBHBBH", body, at)
            if size < 8 or size > stop - at:
                raise Drop("BAD_SA")
            transforms.append((kind, ident, _key_length(body, at + 8, at + size)))
            at += size
        if at != stop:
            raise Drop("BAD_SA")
        proposals.append((number, protocol, spi, transforms))
    if at != end:
        raise Drop("BAD_SA")
    return proposals


def _key_length(body, at, stop):
    # An unknown attribute makes it a transform that we never offered: return -1.
    bits = 0
    while at < stop:
        if stop - at < 4:
            raise Drop("BAD_SA")
        kind, value = struct.unpack_from(">HH", body, at)
        bits = value if kind == _KEY_LENGTH and not bits else -1
        at += 4 if kind & 0x8000 else 4 + value
    if at != stop:
        raise Drop("BAD_SA")
    return bits


def chosen(offer, body, protocol):
    """Check that the SA payload of an answer is one choice out of our offer (RFC 7296 §2.7).

    `offer` is [(protocol, spi, transforms)] as sent.  Returns (spi, {type: (id, bits)}) or
    raises Drop("BAD_SA").
    """
    answer = parse_sa(body)
    if len(answer) != 1:
        raise Drop("BAD_SA")
    number, answered, spi, transforms = answer[0]
    if not 1 <= number <= len(offer) or answered != protocol:
        raise Drop("BAD_SA")
    wanted = offer[number - 1][2]
    picked = {}
    for kind, ident, bits in transforms:
        if (kind, ident, bits) not in wanted or kind in picked:
            raise Drop("BAD_SA")
        picked[kind] = (ident, bits)
    for kind, ident, _ in wanted:
        # If we offered "none" for a type, the answer may omit it (RFC 7296 §3.3.3, §3.3.6).
        if kind not in picked and (kind, 0, 0) not in wanted:
            raise Drop("BAD_SA")
    return spi, picked


def ts_body(selectors):
    """Return the body of a TS payload: [(first, last)] packed addresses, any protocol and port."""
    out = bytes((len(selectors), 0, 0, 0))
    for first, last in selectors:
        kind = _TS_IPV4 if len(first) == 4 else _TS_IPV6
        out += struct.pack(">BBHHH", kind, 0, 8 + 2 * len(first), 0, 0xFFFF) + first + last
    return out


def parse_ts(body):
    """Return [(protocol, first port, last port, first address, last address)] (RFC 7296 §3.13).

    Selectors of a type that we don't know are left out.
    """
    if len(body) < 4 or body[0] > _MAX_SELECTORS:
        raise Drop("BAD_TS")
    found = []
    at = 4
    for _ in range(body[0]):
        if len(body) - at < 8:
            raise Drop("BAD_TS")
        kind, protocol, size, low, high = struct.unpack_from(">BBHHH", body, at)
        if size < 8 or size > len(body) - at:
            raise Drop("BAD_TS")
        n = 4 if kind == _TS_IPV4 else 16 if kind == _TS_IPV6 else 0
        if n:
            if size != 8 + 2 * n:
                raise Drop("BAD_TS")
            first = bytes(body[at + 8 : at + 8 + n])
            found.append((protocol, low, high, first, bytes(body[at + 8 + n : at + size])))
        at += size
    if at != len(body):
        raise Drop("BAD_TS")
    return found


def cp_body(kind, attributes):
    """Return the body of a Configuration payload: [(type, value)] (RFC 7296 §3.15)."""
    out = bytes((kind, 0, 0, 0))
    for attribute, value in attributes:
        out += struct.pack(">HH", attribute, len(value)) + value
    return out


def parse_cp(body):
    """Return (CFG type, [(attribute type, value)])."""
    if len(body) < 4:
        raise Drop("BAD_CP")
    found = []
    at = 4
    while at < len(body):
        if len(body) - at < 4 or len(found) == _MAX_ATTRIBUTES:
            raise Drop("BAD_CP")
        kind, size = struct.unpack_from(">HH", body, at)
        at += 4
        if size > len(body) - at:
            raise Drop("BAD_CP")
        found.append((kind & 0x7FFF, bytes(body[at : at + size])))
        at += size
    return body[0], found
