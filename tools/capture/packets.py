"""pcap files, and IKE and ESP out of the frames in them. No checksum is looked at."""

import struct
from dataclasses import dataclass

from ..provision.problem import Problem

ETHERNET, RAW, COOKED, COOKED_2 = 1, 101, 113, 276
_MAGIC = {b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000),
          b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xa1\xb2\x3c\x4d": (">", 1)}  # fmt: skip
_IPV4, _IPV6 = 0x0800, 0x86DD
_UDP, _ESP = 17, 50


@dataclass
class Packet:
    """One IKE message or ESP packet; `source` and `target` are (packed address, port)."""

    time_ns: int
    source: tuple
    target: tuple
    ike: bytes = b""
    esp: bytes = b""


def read(path):
    """Yield (time in ns, link type, frame) of a pcap file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    if data[:4] not in _MAGIC:
        raise Problem(
            f"{path} is no pcap file", "Wireshark's own form: save it as pcap, not pcapng"
        )
    order, unit = _MAGIC[data[:4]]
    (link,) = struct.unpack_from(order + "I", data, 20)
    at = 24
    while at + 16 <= len(data):
        seconds, part, size, _ = struct.unpack_from(order + "IIII", data, at)
        at += 16
        if at + size > len(data):
            return  # cut off in the middle of a frame
        yield seconds * 10**9 + part * unit, link & 0xFFFF, data[at : at + size]
        at += size


def header(link):
    """The head of a pcap file, times in microseconds."""
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)


def record(time_ns, frame):
    microseconds = time_ns // 1000
    size = len(frame)
    return struct.pack("<IIII", microseconds // 10**6, microseconds % 10**6, size, size) + frame


def network_layer(link, frame):
    """The IP packet in a frame, or nothing."""
    if link == RAW:
        return frame
    start, kind_at = {ETHERNET: (14, 12), COOKED: (16, 14), COOKED_2: (20, 0)}.get(link, (0, 0))
    if not start or len(frame) < start:
        return b""
    kind = int.from_bytes(frame[kind_at : kind_at + 2], "big")
    if link == ETHERNET and kind == 0x8100:
        start, kind = 18, int.from_bytes(frame[16:18], "big")
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
