"""IKE message fragmentation: cutting and joining plaintext (RFC 7383 §2.5, §2.6)."""

from micropython import const

MAX_FRAGMENTS = const(64)
MAX_OCTETS = const(8192)  # of one message, both ways


def split(first, plain, room, size):
    """Return [(Next Payload, piece)] with at most `room` octets of plaintext a fragment.

    The first piece names the first inner payload, all others 0 (RFC 7383 §2.5.2).  Raises
    ValueError when the message, in datagrams of `size` octets, is beyond our bounds.
    """
    if len(plain) > room * min(MAX_FRAGMENTS, MAX_OCTETS // size):
        raise ValueError("message too large")
    plain = memoryview(plain)
    pieces = []
    for at in range(0, len(plain), room):
        pieces.append((0 if at else first, plain[at : at + room]))
    return pieces


class Reassembly:
    """The fragments of one message that have come so far."""

    def __init__(self, exchange):
        self.exchange = exchange
        self.total = 0
        self.octets = 0
        # Of fragment 1: of a request the datagram's digest, of a response what is not encrypted.
        self.head = None
        self._first = 0
        self._parts = {}
        # For fragack: when to ask, how often we did in vain, and when last.
        self.due = None
        self.asks = self.asked = 0

    def refuses(self, number, total):
        """Return why a fragment is dropped before it is decrypted, or None (RFC 7383 §2.6)."""
        if not 1 <= number <= total <= MAX_FRAGMENTS or total < self.total:
            return "BAD_FRAGMENT"
        if total == self.total and number in self._parts:
            return "REPLAYED_FRAGMENT"
        return None

    def add(self, number, total, first, piece, elsewhere):
        """Keep a fragment whose ICV was right; return None, or why it cannot be kept.

        `elsewhere` is how many octets of our bound are taken.
        """
        if not piece:
            return "BAD_FRAGMENT"
        if total > self.total:
            # Split anew into smaller pieces: what came before is of no use (RFC 7383 §2.6).
            self.__init__(self.exchange)
            self.total = total
        self.octets += len(piece)
        if self.octets + elsewhere > MAX_OCTETS:
            return "TOO_LARGE"
        self._parts[number] = piece
        if number == 1:
            self._first = first
        return None

    def complete(self):
        """Is every fragment there?"""
        return len(self._parts) == self.total

    def join(self):
        """Return (first inner payload, plaintext), letting go of the pieces."""
        plain = bytearray(self.octets)
        at = 0
        for number in range(1, self.total + 1):
            piece = self._parts.pop(number)
            plain[at : at + len(piece)] = piece
            at += len(piece)
        return self._first, plain

    def missing(self):
        """Return the numbers that are missing, ascending."""
        return [n for n in range(1, self.total + 1) if n not in self._parts]
