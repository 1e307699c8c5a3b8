"""ESP: seal one reading, open one packet (RFC 4303, RFC 4309, RFC 8750).

The IV is the 64-bit sequence number, so it is as fresh as that; an implicit IV is not sent.  A
cipher that needs another IV writes it in front of the text itself.  A child is the dict that
auth._child returns.
"""

import struct
from micropython import const

from . import inner
from ..crypto.suites import aead, suite
from ..errors import Drop
from .sequence import ReplayWindow

_IPV4 = const(4)
_UDP = const(17)
_IPV6 = const(41)
_DUMMY = const(59)
_ROW_IV = const(2)  # see suites.suite
_ROW_PAD = const(4)
MAX_PAYLOAD = const(1200)

_PADDING = memoryview(bytes(range(1, 256)))


class _End:
    """What both directions have: a key, an SPI, and the sizes around the ciphertext.

    `addresses` is (inner source, inner destination, source port, destination port).
    """

    def __init__(self, child, way, addresses):
        self.spi = child["spi_" + way]
        self._cipher = aead(child["cipher"], child["key_" + way])
        found = suite(child["cipher"])
        self._head = 8 + found[_ROW_IV]  # SPI | SN | IV
        self._unit = found[_ROW_PAD]
        self._esn = child.get("esn")
        six = len(addresses[0]) == 16
        self._kind = _UDP if child.get("transport") else _IPV6 if six else _IPV4


class Sender(_End):
    """One outbound SA: `seal` makes ESP packets out of UDP payloads.

    `numbers` is a sequence.Sequence; `pad_to` a size up to 255 that plaintexts are padded to, 0
    for none; `packets` of this SA went out before.
    """

    def __init__(self, child, addresses, numbers, pad_to=0, packets=0):
        super().__init__(child, "out", addresses)
        self._six = len(addresses[0]) == 16
        self._inner = inner.header(*addresses)
        if self._kind == _UDP:
            self._inner = self._inner[-8:]
        self._pad_to = pad_to
        self._buf = b""
        self.numbers = numbers
        self.packets = packets

    def spent(self, packets):
        """Is it time to replace this SA: after `packets` packets, or near its last SN?"""
        return self.packets >= packets or self.numbers.spent()

    def seal(self, payload, now):
        """Return one ESP packet, a memoryview that is valid until the next call.

        Raises Drop as Sequence.next does, ValueError for more than MAX_PAYLOAD octets.
        """
        n = len(payload)
        if n > MAX_PAYLOAD:
            raise ValueError
        n += len(self._inner) + 2
        # Pad to 4 octets at least (RFC 4303 §2.4).
        unit = self._unit
        pad = -n & unit - 1
        more = self._pad_to - n - pad
        if more > 0:
            pad += more & -unit
        n += pad
        head = self._head
        end = head + n + self._cipher.icv
        if end > len(self._buf):
            self._buf = memoryview(bytearray(end))
        buf = self._buf
        sn = self.numbers.next(now)
        self.packets += 1
        iv = sn.to_bytes(8, "big")
        struct.pack_into(">4sI8s", buf, 0, self.spi, sn & 0xFFFFFFFF, iv)
        kind = self._kind
        summed = self._six or kind != _UDP
        at = head + inner.complete(buf, head, self._inner, payload, summed)
        buf[at : at + pad] = _PADDING[:pad]
        at += pad
        buf[at] = pad
        buf[at + 1] = kind
        # The AAD is the SPI and the whole sequence number (RFC 4106 §5, RFC 4309 §5).
        self._cipher.seal_into(buf, head, n, iv, self.spi + iv if self._esn else buf[:8])
        return buf[:end]


class Receiver(_End):
    """One inbound SA: `open` takes ESP packets apart.

    An inner packet must have exactly these `addresses`.  `window` is a sequence.ReplayWindow or
    its size.
    """

    def __init__(self, child, addresses, window):
        super().__init__(child, "in", addresses)
        self._ends = addresses
        self.window = ReplayWindow(window) if isinstance(window, int) else window

    def open(self, packet):
        """Return the UDP payload of an ESP packet; raise Drop if it has none for us.

        Only a packet that is right in every way moves the window; dummies do, too.
        """
        head = self._head
        n = len(packet) - head - self._cipher.icv
        if n < 2 or n & self._unit - 1:
            raise Drop("BAD_LENGTH")
        if packet[:4] != self.spi:
            raise Drop("UNKNOWN_SPI")
        buf = memoryview(bytearray(packet))
        window = self.window
        (sn,) = struct.unpack_from(">I", buf, 4)
        if self._esn:
            sn = window.extend(sn)
        if not window.check(sn):
            raise Drop("REPLAY")
        iv = sn.to_bytes(8, "big")
        aad = self.spi + iv if self._esn else buf[:8]
        if not self._cipher.open_in(buf, head, n, buf[8:head] if head > 8 else iv, aad):
            raise Drop("BAD_ICV")
        n += head - 2
        pad, kind = buf[n : n + 2]
        n -= pad
        if n < head or buf[n : n + pad] != _PADDING[:pad]:
            raise Drop("BAD_PADDING")
        if kind == _DUMMY:
            window.commit(sn)
            raise Drop("DUMMY")
        if kind != self._kind:
            raise Drop("NEXT_HEADER")
        buf = buf[head:n]
        ends = self._ends
        found = inner.parse_udp(buf) if kind == _UDP else inner.parse(buf, ends[0], ends[1])
        if found[:2] != ends[2:]:
            raise Drop("INNER_PORT")
        payload = bytes(found[2])
        window.commit(sn)
        return payload
