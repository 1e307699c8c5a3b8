"""pcap and pcapng files, and IKE and ESP out of the frames in them. No checksum is looked at."""

import struct
from dataclasses import dataclass

from ..common.problem import Problem

# Link types by their numbers in files (tcpdump.org/linktypes.html).
NULL, ETHERNET, RAW, LOOP, COOKED, IPV4, IPV6, PKTAP, COOKED_2 = (
    *(0, 1, 101, 108, 113, 228, 229, 258, 276),
)
_RAW = (RAW, IPV4, IPV6, 12, 14)  # 12 and 14 are what some BSDs write for RAW
_FAMILY = (NULL, LOOP)  # an address family of four octets comes first
_FAMILIES = (2, 10, 24, 28, 30)  # AF_INET, and AF_INET6 of Linux, NetBSD, FreeBSD and macOS
_HEADS = {ETHERNET: (14, 12), COOKED: (16, 14), COOKED_2: (20, 0)}  # length, where the type is
_KNOWN = (*_RAW, *_FAMILY, *_HEADS, PKTAP)
_NAMES = {9: "PPP", 105: "802.11", 127: "802.11 with radiotap", 192: "PPI", 195: "802.15.4",
          220: "USB", 189: "USB", 187: "Bluetooth", 201: "Bluetooth", 239: "NFLOG",
          249: "USBPcap"}  # fmt: skip
_MAGIC = {b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000),
          b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xa1\xb2\x3c\x4d": (">", 1)}  # fmt: skip
_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN = (0x8100, 0x88A8, 0x9100)
_UDP, _ESP = 17, 50
_MOST = 1 << 24  # octets of a block or frame; what says more is damaged

# Blocks of pcapng (draft-ietf-opsawg-pcapng).
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_TSRESOL, _TSOFFSET = 9, 14


@dataclass
class Packet:
    """One IKE message or ESP packet; `source` and `target` are (packed address, port)."""

    time_ns: int
    source: tuple
    target: tuple
    ike: bytes = b""
    esp: bytes = b""


class Recording:
    """A pcap or pcapng file, gone through once.

    `read` raises `Problem` where the file is none, is of unknown link types alone, or is damaged.
    `faults` says afterwards what could not be read all the same, one sentence each.
    """

    def __init__(self, path):
        self.path = path
        self.frames = 0
        self.cut = 0  # frames of which the recorder kept the beginning only
        self.unknown = {}  # link type that we cannot read: frames
        self._broken_off = False
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise Problem(f"cannot read {path}: {error.strerror}") from None

    def read(self):
        """Yield (time in ns, link type, frame)."""
        data = self._data
        if data[:4] in _MAGIC:
            frames = self._pcap(*_MAGIC[data[:4]])
        elif data[:4] == _SECTION.to_bytes(4, "big"):
            frames = self._pcapng()
        else:
            raise Problem(
                f"{self.path} is no pcap file",
                "a recording of tcpdump or Wireshark, not compressed",
            )
        for time_ns, link, frame, size in frames:
            self.frames += 1
            if link not in _KNOWN:
                self.unknown[link] = self.unknown.get(link, 0) + 1
                continue
            self.cut += len(frame) < size
            yield time_ns, link, frame
        if self.unknown and sum(self.unknown.values()) == self.frames:
            raise Problem(
                f"{self.path}: frames of link type {self._unknown_names()} cannot be read",
                "record on an interface that carries IP: Ethernet, loopback, Linux's any",
            )

    def _unknown_names(self):
        return ", ".join(
            f"{link} ({_NAMES[link]})" if link in _NAMES else str(link)
            for link in sorted(self.unknown)
        )

    @property
    def faults(self):
        """What was in the file and could not be read."""
        if self._broken_off:
            yield "it breaks off in the middle of a frame"
        if self.cut:
            yield f"the ends of {self.cut} of its frames were not recorded (tcpdump -s 0 does)"
        if self.unknown:
            yield f"frames of link type {self._unknown_names()} were passed over"

    def _pcap(self, order, unit):
        data = self._data
        if len(data) < 24:
            self._broken_off = True
            return
        (link,) = struct.unpack_from(order + "I", data, 20)
        link &= 0xFFFF
        if link not in _KNOWN and len(data) == 24:
            self.unknown[link] = 0
        at = 24
        while at < len(data):
            if at + 16 > len(data):
                self._broken_off = True
                return
            seconds, part, size, whole = struct.unpack_from(order + "IIII", data, at)
            at += 16
            if size > _MOST:
                raise self._damaged(at - 16)
            if at + size > len(data):
                self._broken_off = True
                return
            yield seconds * 10**9 + part * unit, link, data[at : at + size], whole
            at += size

    def _damaged(self, at):
        return Problem(f"{self.path} is damaged at octet {at}", "record it, or copy it, anew")

    def _pcapng(self):
        data, at, order, interfaces = self._data, 0, "<", []
        while at < len(data):
            if at + 12 > len(data):
                self._broken_off = True
                return
            (kind,) = struct.unpack_from(order + "I", data, at)
            if kind == _SECTION:  # the same octets in either order
                order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(
                    data[at + 8 : at + 12]
                )
                if not order:
                    raise self._damaged(at)
                interfaces = []
            (size,) = struct.unpack_from(order + "I", data, at + 4)
            if size < 12 or size % 4 or size > _MOST:
                raise self._damaged(at)
            if at + size > len(data):
                self._broken_off = True
                return
            body = data[at + 8 : at + size - 4]
            try:
                if kind == _INTERFACE:
                    interfaces.append(_interface(order, body))
                elif kind in (_ENHANCED, _SIMPLE, _OLD_PACKET):
                    yield _packet_block(order, kind, body, interfaces)
            except (struct.error, IndexError):
                raise self._damaged(at) from None
            at += size


def _interface(order, body):
    """(link type, time units in a second, seconds to add, most octets of a frame)."""
    link, _, most = struct.unpack_from(order + "HHI", body)
    units, offset, at = 10**6, 0, 8
    while at + 4 <= len(body):
        option, size = struct.unpack_from(order + "HH", body, at)
        if option == _TSRESOL:
            exponent = body[at + 4]
            units = 1 << (exponent & 127) if exponent & 128 else 10**exponent
        elif option == _TSOFFSET:
            (offset,) = struct.unpack_from(order + "q", body, at + 4)
        elif not option:
            break
        at += 4 + (size + 3) // 4 * 4
    return link, units, offset, most


def _packet_block(order, kind, body, interfaces):
    """(time in ns, link type, frame, octets that the frame had) of a block with a frame."""
    if kind == _SIMPLE:
        (whole,) = struct.unpack_from(order + "I", body)
        link, _, _, most = interfaces[0]
        size = min(whole, most or whole)
        return 0, link, _all_of(body[4 : 4 + size], size), whole
    form = "IIIII" if kind == _ENHANCED else "HHIIII"
    interface, *_, high, low, size, whole = struct.unpack_from(order + form, body)
    link, units, offset, _ = interfaces[interface]
    time_ns = (high << 32 | low) * 10**9 // units + offset * 10**9
    return time_ns, link, _all_of(body[20 : 20 + size], size), whole


def _all_of(octets, size):
    if len(octets) < size:
        raise IndexError
    return octets


def header(link):
    """The head of a pcap file, times in microseconds."""
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)


def record(time_ns, frame):
    microseconds = time_ns // 1000
    size = len(frame)
    return struct.pack("<IIII", microseconds // 10**6, microseconds % 10**6, size, size) + frame


def network_layer(link, frame):
    """The IP packet in a frame, or nothing."""
    if link in _RAW:
        return frame
    if link == PKTAP:  # macOS's own: its length, a type, the link type of what follows
        if len(frame) < 12:
            return b""
        size, _, inner = struct.unpack_from("<III", frame)
        return b"" if inner == PKTAP or size < 12 else network_layer(inner, frame[size:])
    if link in _FAMILY:  # in the order of the machine that recorded, or in the network's
        family = frame[:4]
        either = int.from_bytes(family, "little"), int.from_bytes(family, "big")
        return frame[4:] if any(number in _FAMILIES for number in either) else b""
    if link not in _HEADS:
        return b""
    start, kind_at = _HEADS[link]
    kind = int.from_bytes(frame[kind_at : kind_at + 2], "big")
    while kind in _VLAN and link == ETHERNET:
        kind = int.from_bytes(frame[start + 2 : start + 4], "big")
        start += 4
    return frame[start:] if kind in (_IPV4, _IPV6) else b""


def parse(time_ns, link, frame):
    """The IKE message or ESP packet in a frame as a `Packet`, or None."""
    packet = network_layer(link, frame)
    if not packet:
        return None
    if packet[0] >> 4 == 4 and len(packet) >= 20:
        size = (packet[0] & 15) * 4
        protocol, source, target = packet[9], packet[12:16], packet[16:20]
        payload = packet[size : int.from_bytes(packet[2:4], "big")]
    elif packet[0] >> 4 == 6 and len(packet) >= 40:
        protocol, source, target = packet[6], packet[8:24], packet[24:40]
        payload = packet[40 : 40 + int.from_bytes(packet[4:6], "big")]
    else:
        return None
    if protocol == _ESP:
        return Packet(time_ns, (source, 0), (target, 0), esp=payload)
    if protocol != _UDP or len(payload) < 8:
        return None
    ports = struct.unpack_from(">HH", payload)
    data = payload[8:]
    found = Packet(time_ns, (source, ports[0]), (target, ports[1]))
    # On other ports four zeros tell that an IKE message follows.
    if 500 in ports:
        found.ike = data
    elif data[:4] == bytes(4):
        found.ike = data[4:]
    elif 4500 in ports and len(data) > 8:
        found.esp = data
    return found if found.ike[17:18] == b"\x20" or found.esp else None
