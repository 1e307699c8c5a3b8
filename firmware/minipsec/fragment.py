"""IKE message fragmentation: cutting and joining plaintext (RFC 7383 §2.5, §2.6)."""

from micropython import const

MAX_FRAGMENTS = const(64)
MAX_OCTETS = const(8192)  # of one message, both ways


def split(first, plain, room):
    """Return [(Next Payload, piece)] with at most `room` octets of plaintext a fragment.

    The first piece names the first inner payload, all others 0 (RFC 7383 §2.5.2).  None when the
    message is beyond our bounds.
    """
    if len(plain) > MAX_OCTETS or len(plain) > room * MAX_FRAGMENTS:
        return None
    pieces = []
    for at in range(0, len(plain), room):
        pieces.append((0 if at else first, plain[at : at + room]))
    return pieces


class Reassembly:
    """The fragments of one message that have come so far."""

    def __init__(self, mid):
        self.mid = mid
        self.total = 0
        self.octets = 0
        self._first = 0
        self._parts = {}

    def refuses(self, number, total):
        """Return why a fragment is dropped before it is decrypted, or None (RFC 7383 §2.6)."""
        if not 1 <= number <= total <= MAX_FRAGMENTS or total < self.total:
            return "BAD_FRAGMENT"
        if total == self.total and number in self._parts:
            return "REPLAYED_FRAGMENT"
        return None

    def add(self, number, total, first, piece):
        """Keep a fragment whose ICV was right; False when it is empty or goes beyond our bounds."""
        if total > self.total:
            # Split anew into smaller pieces: what came before is of no use (RFC 7383 §2.6).
            self._parts.clear()
            self.octets = 0
            self.total = total
        if not piece or self.octets + len(piece) > MAX_OCTETS:
            return False
        self.octets += len(piece)
        self._parts[number] = piece
        if number == 1:
            self._first = first
        return True

    def complete(self):
        """Is every fragment there?"""
        return self.total and len(self._parts) == self.total

    def join(self):
        """Return (first inner payload, plaintext), letting go of the pieces."""
        parts = self._parts
        plain = bytearray(self.octets)
        at = 0
        for number in range(1, self.total + 1):
            piece = parts.pop(number)
            plain[at : at + len(piece)] = piece
            at += len(piece)
        return self._first, plain

    def missing(self):
        """Return the missing numbers as ascending ranges [(first, last)], both inclusive."""
        ranges = []
        for number in range(1, self.total + 1):
            if number in self._parts:
                continue
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1] = (ranges[-1][0], number)
            else:
                ranges.append((number, number))
        return ranges
