"""ESP: one Child SA's two directions (RFC 4303, RFC 4309, RFC 8750)."""

import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from .crypto import (
    CCM_SALT_SIZE,
    ICV_SIZE,
    INTEG_ICV_SIZE,
    encr_key_size,
    equal,
    integ_key_size,
)
from .numbers import Encr, T

LAST_SN = 0xFFFFFFFF
LAST_ESN = 0xFFFFFFFFFFFFFFFF


class EspError(ValueError):
    """A packet that is dropped; `reason` names why."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


class ReplayWindow:
    """Sliding window over sequence numbers (RFC 4303 §3.4.3); size 0 accepts every number."""

    def __init__(self, size):
        self.size = size
        self.highest = 0
        self._seen = 0  # bit n: highest - n was received

    def check(self, sn):
        """True if `sn` is new and not left of the window."""
        if sn == 0:
            return False
        if not self.size or sn > self.highest:
            return True
        age = self.highest - sn
        return age < self.size and not self._seen >> age & 1

    def commit(self, sn):
        """Mark `sn` as received; only after the ICV was right."""
        if sn > self.highest:
            shift = sn - self.highest
            self._seen = 1 if shift >= self.size else self._seen << shift | 1
            self._seen &= (1 << self.size) - 1 if self.size else 0
            self.highest = sn
        elif self.size:
            self._seen |= 1 << self.highest - sn


def full_sn(low, window):
    """The 64-bit number for the 32 bits on the wire (RFC 4303 Appendix A2)."""
    size = max(window.size, 1)
    high, top = window.highest >> 32, window.highest & 0xFFFFFFFF
    if top >= size - 1:
        if low < top - size + 1:
            high += 1
    elif high and low >= (top - size + 1) & 0xFFFFFFFF:
        high -= 1
    return high << 32 | low


class _Ccm:
    """AES-CCM with explicit or implicit IV."""

    def __init__(self, encr, key):
        self.icv_size = ICV_SIZE[encr.id]
        self.iv_size = 0 if encr.id == Encr.AES_CCM_8_IIV else 8
        self.block = 4
        self._salt = key[-CCM_SALT_SIZE:]
        self._ccm = AESCCM(key[:-CCM_SALT_SIZE], tag_length=self.icv_size)

    def seal(self, spi, sn, esn, plain, rand):
        iv = struct.pack(">Q", sn)
        aad = spi + (iv if esn else iv[4:])
        return iv[: self.iv_size] + self._ccm.encrypt(self._salt + iv, plain, aad)

    def open(self, spi, sn, esn, body):
        number = struct.pack(">Q", sn)
        iv = body[: self.iv_size] or number
        aad = spi + (number if esn else number[4:])
        try:
            return self._ccm.decrypt(self._salt + iv, body[self.iv_size :], aad)
        except InvalidTag:
            raise EspError("BAD_ICV") from None


class _CbcHmac:
    """AES-CBC with HMAC-SHA2-256-128 (RFC 3602, RFC 4868)."""

    icv_size = INTEG_ICV_SIZE
    iv_size = 16
    block = 16

    def __init__(self, key, integ_key):
        self._key = key
        self._integ_key = integ_key

    def _icv(self, spi, sn, esn, body):
        number = struct.pack(">Q", sn)
        data = spi + number[4:] + body + (number[:4] if esn else b"")
        return hmac.digest(self._integ_key, data, "sha256")[:INTEG_ICV_SIZE]

    def seal(self, spi, sn, esn, plain, rand):
        iv = rand(16)
        body = iv + Cipher(algorithms.AES(self._key), modes.CBC(iv)).encryptor().update(plain)
        return body + self._icv(spi, sn, esn, body)

    def open(self, spi, sn, esn, body):
        body, icv = body[: -self.icv_size], body[-self.icv_size :]
        if len(body) % 16:
            raise EspError("BAD_LENGTH")
        if not equal(self._icv(spi, sn, esn, body), icv):
            raise EspError("BAD_ICV")
        decryptor = Cipher(algorithms.AES(self._key), modes.CBC(body[:16])).decryptor()
        return decryptor.update(body[16:])


def _suite(encr, key, integ_key):
    return _CbcHmac(key, integ_key) if encr.id == Encr.AES_CBC else _Ccm(encr, key)


class ChildSa:
    """A pair of ESP SAs.

    `spi_in` is ours, `spi_out` the sensor's; 4 octets each. `ts_local` and `ts_remote`
    are lists of selectors, `inner` the sensor's inner address (its first TSi address).
    """

    def __init__(self, choice, spi_in, keymat, window, ts_local, ts_remote, transport=False):
        encr = choice.transform(T.ENCR)
        sizes = [encr_key_size(encr), integ_key_size(encr)] * 2
        keys = []
        for size in sizes:  # initiator to responder first, encryption before integrity (§2.17)
            keys.append(keymat[:size])
            keymat = keymat[size:]
        self.keys = keys
        self.choice = choice
        self.spi_in = spi_in
        self.spi_out = choice.spi
        esn = choice.transform(T.ESN)
        self.esn = bool(esn is not None and esn.id)
        self.transport = transport
        self.ts_local = ts_local
        self.ts_remote = ts_remote
        self.inner = ts_remote[0].first
        self.window = ReplayWindow(window)
        self.sn_out = 0
        self.ike = None  # the IKE SA that made it
        self.raw = None  # where its ESP comes from if not in UDP
        self._from_peer = _suite(encr, keys[0], keys[1])
        self._to_peer = _suite(encr, keys[2], keys[3])

    @staticmethod
    def keymat_size(choice):
        encr = choice.transform(T.ENCR)
        return 2 * (encr_key_size(encr) + integ_key_size(encr))

    def open(self, data):
        """(next header, payload, newest) of a packet; EspError with the reason otherwise.

        `newest`: its sequence number is the highest so far.

        The replay window moves only after the ICV and the padding were right.
        """
        cipher = self._from_peer
        if len(data) < 8 + cipher.iv_size + 2 + cipher.icv_size:
            raise EspError("BAD_LENGTH")
        sn = int.from_bytes(data[4:8], "big")
        if self.esn:
            sn = full_sn(sn, self.window)
        if not self.window.check(sn):
            raise EspError("REPLAY")
        plain = cipher.open(self.spi_in, sn, self.esn, data[8:])
        pad = plain[-2]
        if pad + 2 > len(plain) or len(plain) % 4:
            raise EspError("BAD_PADDING")
        if plain[len(plain) - 2 - pad : -2] != bytes(range(1, pad + 1)):
            raise EspError("BAD_PADDING")
        newest = sn > self.window.highest
        self.window.commit(sn)
        return plain[-1], plain[: len(plain) - 2 - pad], newest

    def seal(self, next_header, payload, rand):
        """An ESP packet to the sensor."""
        if self.sn_out == (LAST_ESN if self.esn else LAST_SN):
            raise EspError("SN_EXHAUSTED")
        self.sn_out += 1
        cipher = self._to_peer
        pad = -(len(payload) + 2) % cipher.block
        plain = payload + bytes(range(1, pad + 1)) + bytes((pad, next_header))
        sn = struct.pack(">Q", self.sn_out)[4:]
        body = cipher.seal(self.spi_out, self.sn_out, self.esn, plain, rand)
        return self.spi_out + sn + body

    def admits(self, source, source_port, destination, destination_port, protocol):
        """True if an inbound inner packet is inside the negotiated selectors (RFC 4301 §5.2)."""
        return any(ts.matches(source, protocol, source_port) for ts in self.ts_remote) and any(
            ts.matches(destination, protocol, destination_port) for ts in self.ts_local
        )
