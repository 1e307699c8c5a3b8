"""IKE message fragmentation: cutting and joining plaintext (RFC 7383 §2.5, §2.6).

Loaded for the first message that is too large for one datagram.
"""

import struct
from hashlib import sha256
from micropython import const

from .wire import Drop, front

_SKF = const(53)
_QUEUE_MS = const(30000)  # life of an incomplete request of the peer's

MAX_FRAGMENTS = const(64)
MAX_OCTETS = const(8192)  # of one message, both ways


def split(sa, exchange, flags, mid, first, plain, room):
    """Return the datagrams of a message in SKF payloads, each with at most `room` octets.

    The first piece names the first inner payload, all others 0 (RFC 7383 §2.5.2).  Raises
    ValueError when the message is beyond our bounds.
    """
    size = room - 36
    while 36 + sa._tx.size(size) > room:
        size -= 1
    if len(plain) > size * min(MAX_FRAGMENTS, MAX_OCTETS // sa.room):
        raise ValueError("message too large")
    plain = memoryview(plain)
    total = -(-len(plain) // size)
    datagrams = []
    for at in range(0, len(plain), size):
        place = struct.pack(">HH", len(datagrams) + 1, total)
        piece = plain[at : at + size]
        datagrams.append(sa.seal(exchange, flags, mid, _SKF, 0 if at else first, place, piece))
    return datagrams


def gather(sa, outer, view, exchange, response, now):
    """Keep one fragment; return (first payload, plaintext, head) if it was the last one.

    The head is that of the Reassembly.
    """
    _, first, body = outer[-1]
    if len(body) < 4:
        raise Drop("BAD_LENGTH")
    number, total = struct.unpack_from(">HH", body)
    queues = sa._queues
    queue = queues.get(response)
    if queue is None or queue.exchange != exchange:
        queue = Reassembly(exchange)
    reason = queue.refuses(number, total)
    if reason:
        if sa._acks and reason == "REPLAYED_FRAGMENT":
            sa.acks().came(sa, queue, number, False, now)
        raise Drop(reason)
    # Payloads in the clear stand in front of the first fragment only (RFC 7383 §2.5.3).
    if number > 1 and len(outer) > 1:
        raise Drop("BAD_FRAGMENT")
    piece = sa.unseal(view, body[4:])
    # Both queues together stay inside the bound of one.
    other = queues.get(not response)
    reason = queue.add(number, total, first, piece, other.octets if other else 0)
    if reason:
        if reason == "TOO_LARGE":
            queues.pop(response, None)
            if response:
                sa.fail("peer", reason)
        raise Drop(reason)
    queues[response] = queue
    acks = sa.acks()
    if response:
        sa._sent = None
    else:
        sa._queue_due = now + _QUEUE_MS
    if number == 1:
        queue.head = front(view, body) if response else sha256(view).digest()
    if queue.complete():
        del queues[response]
        return queue.join() + (queue.head,)
    if acks:
        acks.came(sa, queue, number, True, now)


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
        # For fragack: when to ask, how often we did in vain, and when last; the first fragment that
        # came, as (number, when), while later ones tell the gap between them.
        self.due = self.began = None
        self.asks = self.asked = 0
        self.nudged = False  # did we resend fragment 1 alone since the last new fragment?

    def refuses(self, number, total):
        """Return why a fragment is dropped before it is decrypted, or None (RFC 7383 §2.6)."""
        if not 1 <= number <= total <= MAX_FRAGMENTS or total < self.total:
            return "BAD_FRAGMENT"
        if total == self.total and number in self._parts:
            return "REPLAYED_FRAGMENT"

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
        self.nudged = False
        if number == 1:
            self._first = first

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
