"""IKEv2 messages as octets: decode and encode (RFC 7296 §3).

Pure functions and tuples. Decoders raise `WireError` with a named reason on any
malformed input and nothing else; every length that a peer controls is checked here.
"""

import re
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from .numbers import IKE_VERSION, CfgAttr, IdType, P, Protocol, TsType

HEADER_SIZE = 28
MAX_PAYLOADS = 64  # in one message; ours, RFC 7296 has no bound
MAX_PROPOSALS = 32
MAX_TRANSFORMS = 64  # in one proposal
MAX_SELECTORS = 32
MAX_CFG_ATTRIBUTES = 32
_KEY_LENGTH = 14 | 0x8000  # the one transform attribute, TV format (§3.3.5)


class WireError(ValueError):
    """Malformed octets; `reason` is the name that the drop counter shows."""

    def __init__(self, reason, data=b""):
        super().__init__(reason)
        self.reason = reason
        self.data = data


class Header(NamedTuple):
    """The IKE header (§3.1); SPIs are 8 octets each."""

    spi_i: bytes
    spi_r: bytes
    next_payload: int
    version: int
    exchange: int
    flags: int
    message_id: int
    length: int

    def encode(self):
        return struct.pack(">8s8sBBBBII", *self)


class Payload(NamedTuple):
    """One payload: type and body without the generic header.

    `inner` is the Next Payload octet of an SK or SKF payload: the type of what is
    inside it (§3.14).
    """

    type: int
    body: bytes
    critical: bool = False
    inner: int = 0


def parse_header(data):
    """The header of `data`; the length field must match (no trailing octets)."""
    if len(data) < HEADER_SIZE:
        raise WireError("BAD_LENGTH")
    header = Header(*struct.unpack_from(">8s8sBBBBII", data))
    if header.version >> 4 != IKE_VERSION >> 4:
        raise WireError("BAD_VERSION")
    if header.length != len(data):
        raise WireError("BAD_LENGTH")
    return header


def parse_payloads(first, data):
    """Payload list of `data`, whose first type is `first` (§3.2).

    SK and SKF end the chain: they must reach exactly to the end of `data`.
    """
    found = []
    offset, kind = 0, first
    while kind != P.NONE:
        if len(found) == MAX_PAYLOADS:
            raise WireError("TOO_MANY_PAYLOADS")
        if len(data) - offset < 4:
            raise WireError("BAD_PAYLOAD_LENGTH")
        following, flags, length = struct.unpack_from(">BBH", data, offset)
        if length < 4 or offset + length > len(data):
            raise WireError("BAD_PAYLOAD_LENGTH")
        body = data[offset + 4 : offset + length]
        offset += length
        if kind in (P.SK, P.SKF):
            if offset != len(data):
                raise WireError("SK_NOT_LAST")
            found.append(Payload(kind, body, bool(flags & 0x80), following))
            return found
        found.append(Payload(kind, body, bool(flags & 0x80)))
        kind = following
    if offset != len(data):
        raise WireError("TRAILING_OCTETS")
    return found


def encode_payloads(payloads):
    """(type of the first payload, octets) of a chain."""
    out = bytearray()
    for index, payload in enumerate(payloads):
        following = payloads[index + 1].type if index + 1 < len(payloads) else payload.inner
        critical = 0x80 if payload.critical else 0
        out += struct.pack(">BBH", following, critical, len(payload.body) + 4) + payload.body
    return (payloads[0].type if payloads else P.NONE), bytes(out)


def encode_message(header, payloads):
    """A whole message; Next Payload and Length of `header` are filled in."""
    first, body = encode_payloads(payloads)
    return header._replace(next_payload=first, length=HEADER_SIZE + len(body)).encode() + body


# Security association (§3.3)


class Transform(NamedTuple):
    """`key_length` in bits, 0 for none; `odd` if it carries an attribute we do not know."""

    type: int
    id: int
    key_length: int = 0
    odd: bool = False


class Proposal(NamedTuple):
    number: int
    protocol: int
    spi: bytes
    transforms: tuple


def _transform_attributes(data):
    key_length, odd = 0, False
    offset = 0
    while offset < len(data):
        if len(data) - offset < 4:
            raise WireError("BAD_TRANSFORM")
        kind, value = struct.unpack_from(">HH", data, offset)
        offset += 4
        if kind == _KEY_LENGTH and not key_length:
            key_length = value
            continue
        odd = True
        if not kind & 0x8000:
            offset += value
    if offset != len(data):
        raise WireError("BAD_TRANSFORM")
    return key_length, odd


def _parse_transforms(data, count):
    transforms = []
    offset = 0
    for index in range(count):
        if len(data) - offset < 8:
            raise WireError("BAD_TRANSFORM")
        last, _, length, kind, _, number = struct.unpack_from(">BBHBBH", data, offset)
        if length < 8 or offset + length > len(data):
            raise WireError("BAD_TRANSFORM")
        if last != (0 if index == count - 1 else 3):
            raise WireError("BAD_TRANSFORM")
        key_length, odd = _transform_attributes(data[offset + 8 : offset + length])
        transforms.append(Transform(kind, number, key_length, odd))
        offset += length
    if offset != len(data):
        raise WireError("BAD_TRANSFORM")
    return tuple(transforms)


def parse_sa(body, first=1):
    """Proposals of an SA payload body, numbered upwards from `first` (§3.3.1).

    `first=None` takes the number as it comes: an answer repeats that of its offer.
    """
    proposals = []
    offset = 0
    while True:
        if len(proposals) == MAX_PROPOSALS or len(body) - offset < 8:
            raise WireError("BAD_PROPOSAL")
        last, _, length, number, protocol, spi_size, count = struct.unpack_from(
            ">BBHBBBB", body, offset
        )
        if length < 8 + spi_size or offset + length > len(body) or count > MAX_TRANSFORMS:
            raise WireError("BAD_PROPOSAL")
        if first is None:
            first = number
        if number != len(proposals) + first or last not in (0, 2):
            raise WireError("BAD_PROPOSAL")
        spi = body[offset + 8 : offset + 8 + spi_size]
        transforms = _parse_transforms(body[offset + 8 + spi_size : offset + length], count)
        proposals.append(Proposal(number, protocol, spi, transforms))
        offset += length
        if last == 0:
            break
    if offset != len(body):
        raise WireError("BAD_PROPOSAL")
    return proposals


def encode_sa(proposals):
    out = bytearray()
    for index, proposal in enumerate(proposals):
        transforms = bytearray()
        for position, transform in enumerate(proposal.transforms):
            attributes = b""
            if transform.key_length:
                attributes = struct.pack(">HH", _KEY_LENGTH, transform.key_length)
            more = 3 if position + 1 < len(proposal.transforms) else 0
            transforms += struct.pack(
                ">BBHBBH", more, 0, 8 + len(attributes), transform.type, 0, transform.id
            )
            transforms += attributes
        out += struct.pack(
            ">BBHBBBB",
            2 if index + 1 < len(proposals) else 0,
            0,
            8 + len(proposal.spi) + len(transforms),
            proposal.number,
            proposal.protocol,
            len(proposal.spi),
            len(proposal.transforms),
        )
        out += proposal.spi + transforms
    return bytes(out)


# Key exchange, identification, authentication (§3.4, §3.5, §3.8)


def parse_ke(body):
    """(group number, public value)."""
    if len(body) < 5:
        raise WireError("BAD_KE")
    return int.from_bytes(body[:2], "big"), body[4:]


def encode_ke(group, public):
    return struct.pack(">HH", group, 0) + public


class Identity(NamedTuple):
    """An ID payload: type and data. `str()` gives the form that profiles use."""

    type: int
    data: bytes

    def encode(self):
        return bytes((self.type, 0, 0, 0)) + self.data

    def __str__(self):
        if self.type == IdType.FQDN or self.type == IdType.RFC822_ADDR:
            text = self.data.decode("utf-8", "backslashreplace")
            plain = ("@" in text) == (self.type == IdType.RFC822_ADDR)
            if plain:
                return text
            return ("email:" if self.type == IdType.RFC822_ADDR else "fqdn:") + text
        if self.type == IdType.IPV4_ADDR and len(self.data) == 4:
            return "ipv4:%s" % IPv4Address(self.data)
        if self.type == IdType.IPV6_ADDR and len(self.data) == 16:
            return "ipv6:%s" % IPv6Address(self.data)
        if self.type == IdType.KEY_ID:
            if self.data and all(0x21 <= octet < 0x7F for octet in self.data):
                if not self.data.startswith(b"0x"):
                    return "keyid:" + self.data.decode("ascii")
            return "keyid:0x" + self.data.hex()
        return "type%d:0x%s" % (self.type, self.data.hex())


def parse_identity(body):
    if len(body) < 5:
        raise WireError("BAD_ID")
    return Identity(body[0], body[4:])


_KINDS = {
    "fqdn": IdType.FQDN,
    "dns": IdType.FQDN,
    "email": IdType.RFC822_ADDR,
    "rfc822": IdType.RFC822_ADDR,
    "userfqdn": IdType.RFC822_ADDR,
    "keyid": IdType.KEY_ID,
    "ipv4": IdType.IPV4_ADDR,
    "ipv6": IdType.IPV6_ADDR,
}
_PREFIXES = (("@@", "email"), ("@#", "keyid"), ("@", "fqdn"))  # the longest first


def identity_from_text(text):
    """The identity that a text names to strongSwan; ValueError for what names none or many.

    `x.y`, `a@b`, an address; `@x.y`, `@@a@b`, `@#00ff`; or `fqdn: email: keyid: ipv4: ipv6:` and a
    value, where `#` or, for a keyid, `0x` means hex digits.
    """
    kind, colon, value = text.partition(":")
    kind = kind.lower() if colon and kind.lower() in _KINDS else ""
    for sign, meant in _PREFIXES:
        if text.startswith(sign) and not kind:
            kind, value = meant, text[len(sign) - (sign == "@#") :]
    if not kind:
        kind, value = _looks_like(text), text
    elif "=" in text and text[0] == "@":
        raise ValueError("no distinguished names: %r" % text)
    number = _KINDS[kind]
    if value[:1] == "#" or (kind == "keyid" and value[:2] == "0x"):
        digits = value.removeprefix("#").removeprefix("0x")
        if not re.fullmatch("([0-9a-fA-F]{2})+", digits):
            raise ValueError("bad hex digits: %r" % text)
        data = bytes.fromhex(digits)
    elif kind in ("ipv4", "ipv6"):
        data = (IPv4Address if kind == "ipv4" else IPv6Address)(value).packed
    else:
        data = value.encode()
        if number != IdType.KEY_ID and "*" in value:
            raise ValueError("a wildcard: %r" % text)
    if not data or not text.isprintable() or re.search(r"[\s\u200b\ufeff]", text):
        raise ValueError("empty identity, or invisible characters: %r" % text)
    if kind in ("ipv4", "ipv6") and len(data) != (4 if kind == "ipv4" else 16):
        raise ValueError("no address: %r" % text)
    return Identity(number, data)


def _looks_like(text):
    """The kind of an identity that has no prefix."""
    if text in ("%any", "%any6") or "=" in text:
        raise ValueError("anybody, or a distinguished name: %r" % text)
    try:
        address = ip_address(text)
    except ValueError:
        first = re.split("[/-]", text)[0]
        if ":" in text or re.fullmatch(r"\d+\.\d+\.\d+\.\d+", first):
            raise ValueError("no kind of identity, or many addresses: %r" % text) from None
        return "email" if "@" in text else "fqdn"
    if not int(address):
        raise ValueError("anybody: %r" % text)
    return "ipv%d" % address.version


def parse_auth(body):
    """(method, data)."""
    if len(body) < 5:
        raise WireError("BAD_AUTH")
    return body[0], body[4:]


def encode_auth(method, data):
    return bytes((method, 0, 0, 0)) + data


# Notify and delete (§3.10, §3.11)


class Notify(NamedTuple):
    type: int
    data: bytes = b""
    protocol: int = 0
    spi: bytes = b""

    def payload(self):
        head = struct.pack(">BBH", self.protocol, len(self.spi), self.type)
        return Payload(P.NOTIFY, head + self.spi + self.data)


def parse_notify(body):
    if len(body) < 4:
        raise WireError("BAD_NOTIFY")
    protocol, spi_size, kind = struct.unpack_from(">BBH", body)
    if len(body) < 4 + spi_size:
        raise WireError("BAD_NOTIFY")
    return Notify(kind, body[4 + spi_size :], protocol, body[4 : 4 + spi_size])


def parse_delete(body):
    """(protocol, list of SPIs)."""
    if len(body) < 4:
        raise WireError("BAD_DELETE")
    protocol, spi_size, count = struct.unpack_from(">BBH", body)
    if protocol == Protocol.IKE:
        if spi_size or count or len(body) != 4:
            raise WireError("BAD_DELETE")
        return protocol, []
    if spi_size != 4 or len(body) != 4 + 4 * count:
        raise WireError("BAD_DELETE")
    return protocol, [body[4 + 4 * n : 8 + 4 * n] for n in range(count)]


def encode_delete(protocol, spis):
    size = len(spis[0]) if spis else 0
    return struct.pack(">BBH", protocol, size, len(spis)) + b"".join(spis)


# Traffic selectors (§3.13)


class Selector(NamedTuple):
    """Addresses are `ipaddress` objects of one version; protocol 0 means any."""

    first: object
    last: object
    protocol: int = 0
    first_port: int = 0
    last_port: int = 65535

    def intersect(self, other):
        """The common part, or None."""
        if self.first.version != other.first.version:
            return None
        if self.protocol and other.protocol and self.protocol != other.protocol:
            return None
        both = Selector(
            max(self.first, other.first),
            min(self.last, other.last),
            self.protocol or other.protocol,
            max(self.first_port, other.first_port),
            min(self.last_port, other.last_port),
        )
        if both.first > both.last or both.first_port > both.last_port:
            return None
        return both

    def matches(self, address, protocol, port):
        if address.version != self.first.version or not self.first <= address <= self.last:
            return False
        if self.protocol and self.protocol != protocol:
            return False
        return port is None or self.first_port <= port <= self.last_port

    def __str__(self):
        text = "%s-%s" % (self.first, self.last)
        if self.first == self.last:
            text = str(self.first)
        if self.protocol or (self.first_port, self.last_port) != (0, 65535):
            text += "[%d/%d-%d]" % (self.protocol, self.first_port, self.last_port)
        return text


def selector_of(network):
    """The selector of an `ipaddress` network: every protocol and port."""
    return Selector(network[0], network[-1])


def parse_selectors(body):
    if len(body) < 4:
        raise WireError("BAD_TS")
    count = body[0]
    if not 1 <= count <= MAX_SELECTORS:
        raise WireError("BAD_TS")
    selectors = []
    offset = 4
    for _ in range(count):
        if len(body) - offset < 8:
            raise WireError("BAD_TS")
        kind, protocol, length, first_port, last_port = struct.unpack_from(">BBHHH", body, offset)
        if length < 8 or offset + length > len(body):
            raise WireError("BAD_TS")
        value = body[offset + 8 : offset + length]
        offset += length
        if kind == TsType.IPV4_ADDR_RANGE and len(value) == 8:
            first, last = IPv4Address(value[:4]), IPv4Address(value[4:])
        elif kind == TsType.IPV6_ADDR_RANGE and len(value) == 32:
            first, last = IPv6Address(value[:16]), IPv6Address(value[16:])
        elif kind in (TsType.IPV4_ADDR_RANGE, TsType.IPV6_ADDR_RANGE):
            raise WireError("BAD_TS")
        else:
            continue  # a type that we do not know: never chosen
        selectors.append(Selector(first, last, protocol, first_port, last_port))
    if offset != len(body):
        raise WireError("BAD_TS")
    return selectors


def encode_selectors(selectors):
    out = bytearray((len(selectors), 0, 0, 0))
    for ts in selectors:
        kind = TsType.IPV4_ADDR_RANGE if ts.first.version == 4 else TsType.IPV6_ADDR_RANGE
        value = ts.first.packed + ts.last.packed
        out += struct.pack(
            ">BBHHH", kind, ts.protocol, 8 + len(value), ts.first_port, ts.last_port
        )
        out += value
    return bytes(out)


# Configuration (§3.15)


def parse_cfg(body):
    """(CFG type, list of (attribute type, value))."""
    if len(body) < 4:
        raise WireError("BAD_CP")
    attributes = []
    offset = 4
    while offset < len(body):
        if len(body) - offset < 4 or len(attributes) == MAX_CFG_ATTRIBUTES:
            raise WireError("BAD_CP")
        kind, length = struct.unpack_from(">HH", body, offset)
        if offset + 4 + length > len(body):
            raise WireError("BAD_CP")
        attributes.append((kind & 0x7FFF, body[offset + 4 : offset + 4 + length]))
        offset += 4 + length
    for kind, value in attributes:
        if kind == CfgAttr.INTERNAL_IP4_ADDRESS and len(value) not in (0, 4):
            raise WireError("BAD_CP")
        if kind == CfgAttr.INTERNAL_IP6_ADDRESS and len(value) not in (0, 17):
            raise WireError("BAD_CP")
    return body[0], attributes


def encode_cfg(kind, attributes):
    out = bytearray((kind, 0, 0, 0))
    for attribute, value in attributes:
        out += struct.pack(">HH", attribute, len(value)) + value
    return bytes(out)
