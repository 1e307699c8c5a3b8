"""ESP with AES-CCM: seal one reading, open one packet (RFC 4303, RFC 4309, RFC 8750).

The IV is the 64-bit sequence number, so it is as fresh as that is; with implicit IV it does not
travel.  A child is the dict that `ike` makes, see `Initiator._child`.
"""

import struct
from micropython import const

from . import inner
from .ccm import CCM
from .sequence import ReplayWindow

_IPV4 = const(4)
_UDP = const(17)
_IPV6 = const(41)
_DUMMY = const(59)
MAX_PAYLOAD = const(1200)

_PADDING = bytes(range(1, 256))


class Sender:
    """One outbound SA: `seal` makes ESP packets out of UDP payloads.

    `addresses` is (inner source, inner destination, source port, destination port), `numbers` a
    sequence.Sequence; `pad_to` is a size that plaintexts are padded to, 0 for none.
    """

    def __init__(self, child, addresses, numbers, pad_to=0):
        self._ccm = CCM(child["key_out"], child["icv"])
        self._spi = child["spi_out"]
        self._head = 8 if child.get("iiv") else 16  # SPI | SN | IV
        self._esn = child.get("esn")
        self._template = inner.header(*addresses)
        self._next = _IPV4 if len(addresses[0]) == 4 else _IPV6
        self._summed = True
        if child.get("transport"):
            self._template = self._template[-8:]
            self._summed = self._next == _IPV6
            self._next = _UDP
        self._pad_to = pad_to
        self._buf = bytearray(128)
        self.numbers = numbers
        self.packets = 0

    def spent(self, packets):
        """Is it time to replace this SA, after so many packets or near its last SN?"""
        return self.packets >= packets or self.numbers.spent()

    def seal(self, payload, now):
        """Return one ESP packet, a memoryview that is valid until the next call.

        None when the SA must send nothing more: its sequence numbers are used up.  ValueError for
        more than MAX_PAYLOAD octets.
        """
        if len(payload) > MAX_PAYLOAD:
            raise ValueError
        head = self._head
        n = len(self._template) + len(payload)
        # RFC 4303 §2.4: to 4 octets at least, 255 of padding at most.
        pad = -(n + 2) & 3
        more = (self._pad_to - n - 2 - pad) & -4
        if more > 0:
            pad = min(pad + more, 252 + pad)
        end = head + n + pad + 2 + self._ccm.icv
        if end > len(self._buf):
            self._buf = bytearray(end)
        buf = self._buf
        sn = self.numbers.next(now)
        if sn is None:
            return None
        self.packets += 1
        iv = sn.to_bytes(8, "big")
        buf[:4] = self._spi
        buf[4:8] = iv[4:]
        if head == 16:
            buf[8:16] = iv
        inner.complete(buf, head, self._template, payload, self._summed)
        at = head + n
        buf[at : at + pad] = _PADDING[:pad]
        buf[at + pad] = pad
        buf[at + pad + 1] = self._next
        # RFC 4106 §5, RFC 4309 §5: SPI and the whole sequence number.
        aad = self._spi + iv if self._esn else buf[:8]
        self._ccm.seal_into(buf, head, n + pad + 2, iv, aad)
        return memoryview(buf)[:end]


class Receiver:
    """One inbound SA: `open` takes ESP packets apart.

    `addresses` is (inner source, inner destination, source port, destination port) as they must
    stand in what comes; `window` a sequence.ReplayWindow.
    """

    def __init__(self, child, addresses, window):
        self._ccm = CCM(child["key_in"], child["icv"])
        self.spi = child["spi_in"]
        self._head = 8 if child.get("iiv") else 16
        self._esn = child.get("esn")
        self._transport = child.get("transport")
        self._source, self._destination, self._source_port, self._destination_port = addresses
        self.window = window if isinstance(window, ReplayWindow) else ReplayWindow(window)

    def open(self, packet):
        """Return the UDP payload of an ESP packet, or the reason (a str) why there is none.

        The window moves only for a packet whose ICV is right.
        """
        head = self._head
        n = len(packet) - head - self._ccm.icv
        if n < 2 or n & 3:
            return "BAD_LENGTH"
        if packet[:4] != self.spi:
            return "UNKNOWN_SPI"
        buf = bytearray(packet)
        sn = int.from_bytes(buf[4:8], "big")
        aad = buf[:8]
        if self._esn:
            sn = self.window.extend(sn)
            aad = self.spi + sn.to_bytes(8, "big")
        if not self.window.check(sn):
            return "REPLAY"
        iv = buf[8:16] if head == 16 else sn.to_bytes(8, "big")
        if not self._ccm.open_in(buf, head, n, iv, aad):
            return "BAD_ICV"
        self.window.commit(sn)
        end = head + n - 2
        pad, kind = buf[end], buf[end + 1]
        if pad > n - 2 or buf[end - pad : end] != _PADDING[:pad]:
            return "BAD_PADDING"
        if kind == _DUMMY:
            return "DUMMY"
        packet = memoryview(buf)[head : end - pad]
        if self._transport:
            found = inner.parse_udp(packet) if kind == _UDP else "NEXT_HEADER"
        elif kind in (_IPV4, _IPV6):
            found = inner.parse(packet, self._source, self._destination)
        else:
            return "NEXT_HEADER"
        if isinstance(found, str):
            return found
        source_port, destination_port, payload = found
        if source_port != self._source_port or destination_port != self._destination_port:
            return "INNER_PORT"
        return bytes(payload)
