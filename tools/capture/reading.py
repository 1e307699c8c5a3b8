"""Which key opens what: IKE SAs get a row for Wireshark, ESP packets are decrypted.

Keys have no names in charon's log, so each is tried, and the ICV tells. AES-CCM only (RFC 5282,
RFC 4309, RFC 8750); what is not ours stays closed.
"""

import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

_ICVS = (16, 8, 12)
_SK, _SKF = 46, 53
_IPV4, _IPV6, _UDP, _NONE = 4, 41, 17, 59


@dataclass
class Found:
    """What a recording held."""

    ike_messages: int = 0
    esp_packets: int = 0
    opened: int = 0
    dummies: int = 0
    rows: dict = field(default_factory=dict)  # (spi_i, spi_r): row of Wireshark's table
    closed: set = field(default_factory=set)  # SPIs of ESP that no key opens
    inner: list = field(default_factory=list)  # (time in ns, IP packet)


def _open(key, icv, iv, aad, sealed):
    try:
        return AESCCM(key[:-3], tag_length=icv).decrypt(key[-3:] + iv, sealed, aad)
    except (InvalidTag, ValueError):
        return None


class Reader:
    """Goes through a recording once, with all keys there are."""

    def __init__(self, keys):
        self.keys = keys
        self.found = Found()
        self._known = {(row[0], row[1]): row for row in keys.rows}
        self._esp = {}  # SPI: (key, icv, implicit)

    def add(self, packet):
        if packet.ike:
            self.found.ike_messages += 1
            self._ike(packet.ike)
        else:
            self.found.esp_packets += 1
            self._packet(packet)

    # IKE.

    def _ike(self, message):
        spis = message[:8].hex(), message[8:16].hex()
        if spis in self.found.rows or spis[1] == "0" * 16:
            return
        if spis in self._known:
            self.found.rows[spis] = self._known[spis]
            return
        encrypted = _encrypted(message)
        if not encrypted:
            return
        start, aad_end = encrypted
        initiator = bool(message[19] & 0x08)
        for pair in self.keys.ike:
            for icv in _ICVS:
                key = pair[0] if initiator else pair[1]
                aad = message[:aad_end]
                if _open(key, icv, message[start : start + 8], aad, message[start + 8 :]) is None:
                    continue
                bits = 8 * (len(key) - 3)
                name = f"AES-CCM-{bits} with {icv} octet ICV [RFC5282]"
                hexed = [part.hex() for part in pair]
                self.found.rows[spis] = [*spis, *hexed, name, "", "", "NONE [RFC4306]"]
                return

    # ESP.

    def _packet(self, packet):
        esp = packet.esp
        if len(esp) < 16:
            return
        spi = esp[:4]
        known = self._esp.get((spi, packet.target))
        opened = None
        if known:
            opened = _open_esp(esp, *known)
        else:
            for key in self.keys.esp:
                for icv in (8, 16, 12):
                    for implicit in (False, True):
                        opened = _open_esp(esp, key, icv, implicit)
                        if opened is not None:
                            self._esp[spi, packet.target] = (key, icv, implicit)
                            break
                    else:
                        continue
                    break
                if opened is not None:
                    break
        if opened is None or len(opened) < 2:
            self.found.closed.add(spi.hex())
            return
        self.found.opened += 1
        self._inner(packet, opened)

    def _inner(self, packet, opened):
        padding, kind = opened[-2], opened[-1]
        payload = opened[: len(opened) - 2 - padding]
        if kind == _NONE:
            self.found.dummies += 1
        elif kind in (_IPV4, _IPV6):
            self.found.inner.append((packet.time_ns, payload))
        elif kind == _UDP:  # transport mode: the outer addresses are the inner ones
            outer = _ip_header(packet.source[0], packet.target[0], len(payload))
            self.found.inner.append((packet.time_ns, outer + payload))


def _open_esp(esp, key, icv, implicit):
    aad = esp[:8]
    if implicit:
        return _open(key, icv, bytes(4) + esp[4:8], aad, esp[8:])
    return _open(key, icv, esp[8:16], aad, esp[16:])


def _encrypted(message):
    """Where the IV of an SK or SKF payload starts and where its AAD ends, or None."""
    kind, at = message[16], 28
    while kind and at + 4 <= len(message):
        size = int.from_bytes(message[at + 2 : at + 4], "big")
        if kind in (_SK, _SKF):
            end = at + (4 if kind == _SK else 8)
            return (end, end) if end + 16 <= len(message) else None
        if size < 4:
            return None
        kind, at = message[at], at + size
    return None


def _ip_header(source, target, size):
    if len(source) == 16:
        return struct.pack(">IHBB", 6 << 28, size, _UDP, 64) + source + target
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, _UDP, 0) + source + target
    total = sum(struct.unpack(">10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack(">H", ~total & 0xFFFF) + header[12:]
