"""ESP in tunnel mode with AES-CCM: seal one reading, open one packet (RFC 4303, RFC 4309).

The IV is the 64-bit number 0 | SN, so it is as fresh as the sequence number is.
"""

import struct
from micropython import const

from . import inner
from .ccm import CCM
from .sequence import ReplayWindow

_IPV4 = const(4)
_IPV6 = const(41)
_DUMMY = const(59)
_HEAD = const(16)  # SPI | SN | IV
MAX_PAYLOAD = const(1200)

_PADDING = bytes([1, 2, 3])


class Sender:
    """One outbound SA: `seal` makes ESP packets out of UDP payloads.

    `addresses` is (inner source, inner destination, source port, destination port), `numbers` a
    sequence.Sequence.
    """

    def __init__(self, child, addresses, numbers):
        self._ccm = CCM(child["key_out"], child["icv"])
        self._spi = child["spi_out"]
        self._template = inner.header(*addresses)
        self._next = _IPV4 if len(addresses[0]) == 4 else _IPV6
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
        n = len(self._template) + len(payload)
        if len(payload) > MAX_PAYLOAD:
            raise ValueError
        pad = -(n + 2) & 3
        end = _HEAD + n + pad + 2 + self._ccm.icv
        if end > len(self._buf):
            self._buf = bytearray(end)
        buf = self._buf
        sn = self.numbers.next(now)
        if sn is None:
            return None
        self.packets += 1
        struct.pack_into(">4sIII", buf, 0, self._spi, sn, 0, sn)
        inner.complete(buf, _HEAD, self._template, payload)
        at = _HEAD + n
        buf[at : at + pad] = _PADDING[:pad]
        buf[at + pad] = pad
        buf[at + pad + 1] = self._next
        self._ccm.seal_into(buf, _HEAD, n + pad + 2, buf[8:16], buf[:8])
        return memoryview(buf)[:end]


class Receiver:
    """One inbound SA: `open` takes ESP packets apart."""

    def __init__(self, child, addresses, window):
        self._ccm = CCM(child["key_in"], child["icv"])
        self.spi = child["spi_in"]
        self._source, self._destination, self._source_port, self._destination_port = addresses
        self._window = ReplayWindow(window)

    def open(self, packet):
        """Return the UDP payload of an ESP packet, or the reason (a str) why there is none.

        The window moves only for a packet whose ICV is right.
        """
        n = len(packet) - _HEAD - self._ccm.icv
        if n < 2 or n & 3:
            return "BAD_LENGTH"
        buf = bytearray(packet)
        if buf[:4] != self.spi:
            return "UNKNOWN_SPI"
        sn = int.from_bytes(buf[4:8], "big")
        if not self._window.check(sn):
            return "REPLAY"
        if not self._ccm.open_in(buf, _HEAD, n, buf[8:16], buf[:8]):
            return "BAD_ICV"
        self._window.commit(sn)
        end = _HEAD + n - 2
        pad, kind = buf[end], buf[end + 1]
        if pad > n - 2:
            return "BAD_PADDING"
        for i in range(pad):
            if buf[end - pad + i] != i + 1:
                return "BAD_PADDING"
        if kind == _DUMMY:
            return "DUMMY"
        if kind not in (_IPV4, _IPV6):
            return "NEXT_HEADER"
        found = inner.parse(memoryview(buf)[_HEAD : end - pad], self._source, self._destination)
        if isinstance(found, str):
            return found
        source_port, destination_port, payload = found
        if source_port != self._source_port or destination_port != self._destination_port:
            return "INNER_PORT"
        return bytes(payload)
