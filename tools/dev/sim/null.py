"""A cipher that costs next to nothing, in the firmware's shape and with AES-CCM-16's sizes.

Nothing is hidden. The ICV is a CRC-32, four times: it finds accidents, not attacks. For runs
by the thousand, where what counts is which datagrams travel and when.
"""

from zlib import crc32


class Null:
    icv = 16

    def size(self, n):
        """Octets of IV, plaintext, Pad Length and ICV for `n` octets of plaintext."""
        return 25 + n

    def seal(self, aad, iv, text):
        body = iv + bytes(text) + b"\0"
        return body + self._icv(aad, body)

    def open(self, aad, body):
        body = bytes(body)
        if len(body) < 25 or body[-16:] != self._icv(aad, body[:-16]):
            return None
        return bytearray(body[8:-17])

    @staticmethod
    def _icv(aad, body):
        return crc32(body, crc32(aad)).to_bytes(4, "big") * 4
