"""Fragment acknowledgment (draft-antony-ipsecme-ikev2-fragment-acknowledgment-02).

The receiver of a fragmented message tells which fragments are missing; the sender resends
only those. `Reporter` decides when to tell, `Flight` what to resend. Where the draft is
open, the choices are those of the project's design: pairs are inclusive [first, last],
an ACK travels in SK under the keys of the fragments it reports on, and it never moves
a Message ID nor completes an exchange.
"""

import hashlib
import struct

from .numbers import N
from .wire import Notify, WireError

# Needed beside the private notify types, so that no stranger's type is taken for ours.
VENDOR_ID = hashlib.sha256(b"minipsec fragment acknowledgment 02").digest()[:16]
ACK_TYPES = (N.FRAGMENT_ACK_REQ, N.FRAGMENT_ACK_RES)

MAX_PAIRS = 100  # in one ACK
MAX_ACKS = 32  # for one message
MAX_IDLE_BURSTS = 8  # of resends in one exchange that brought nothing
MAX_IDLE_BURSTS_UNAUTHENTICATED = 4
BURST_GAP_MS = 50
MIN_WINDOW = 4  # fragments in a burst, however few of the last one arrived
RESENT_PER_FRAGMENT = 4  # most resends on reports, as a multiple of the message,
RESENT_MORE = 8  # and a few more for short ones
MAX_SEEN = 64  # remembered digests of ACKs, against replay


def to_pairs(numbers):
    """Ascending numbers as inclusive [first, last] pairs."""
    pairs = []
    for number in numbers:
        if pairs and pairs[-1][1] == number - 1:
            pairs[-1][1] = number
        else:
            pairs.append([number, number])
    return pairs


def encode_pairs(pairs):
    return b"".join(struct.pack(">HH", *pair) for pair in pairs)


def decode_pairs(data, total):
    """The set of missing numbers; WireError unless ascending, disjoint and within 1..total."""
    if len(data) % 4:
        raise WireError("BAD_ACK")
    missing, last = set(), 0
    for offset in range(0, len(data), 4):
        low, high = struct.unpack_from(">HH", data, offset)
        if not last < low <= high <= total:
            raise WireError("BAD_ACK")
        missing.update(range(low, high + 1))
        last = high
    return missing


def notifies(kind, numbers, room):
    """ACK notifies for the missing `numbers`, each of at most `room` octets of notify data."""
    pairs = to_pairs(numbers)
    size = max(1, min(MAX_PAIRS, room // 4))
    return [Notify(kind, encode_pairs(pairs[at : at + size])) for at in range(0, len(pairs), size)]


class Reporter:
    """When the receiver of a message asks for what is missing (§6.1 of the draft).

    "eager" asks when no new fragment came for `gap_ms`. "conservative" asks only after it saw a
    resend: an exact copy of a fragment, or a fragment long after the ones before. Each time it
    asked in vain it waits twice as long.
    """

    def __init__(self, policy, gap_ms):
        self._policy = policy
        self._gap = gap_ms
        self._resend_seen = False
        self._last = None
        self._wait = gap_ms
        self._sent = 0
        self.due = None

    def arrived(self, now, copy=False):
        """A fragment came in with a right ICV; `copy` if we had it already.

        A copy never delays the report, since anyone can replay one.
        """
        late = self._last is not None and now - self._last > 2 * self._gap
        self._resend_seen = self._resend_seen or copy or late
        if not copy:
            self._last = now
            self._wait = self._gap
        elif self.due is not None:
            return
        if self._sent < MAX_ACKS and (self._policy == "eager" or self._resend_seen):
            self.due = now + self._wait

    def told(self, now):
        """An ACK was sent; the next one, if nothing changes, is due later."""
        self._sent += 1
        self._wait *= 2
        self.due = now + self._wait if self._sent < MAX_ACKS else None


class Flight:
    """The datagrams of one sent message and what the peer reported missing of them.

    What reports can cost is bounded: bursts are at least BURST_GAP_MS apart, `max_idle` of them
    may bring no progress, and all together resend RESENT_PER_FRAGMENT times the message. A
    burst is at most twice what arrived of the transmission before, since a receiver with a
    short queue loses the tail of a longer one each time.
    """

    def __init__(self, datagrams, max_idle=MAX_IDLE_BURSTS):
        self.datagrams = datagrams
        self._budget = RESENT_PER_FRAGMENT * len(datagrams) + RESENT_MORE
        self._idle = max_idle
        self._least = len(datagrams)  # fewest missing at a burst so far
        self._sent = set(range(1, len(datagrams) + 1))  # in the last transmission
        self._known = None  # numbers missing by the last reports; None before the first
        self._pending = set()  # reported since the last burst, or left out of it by its size
        self._last = None
        self._seen = set()
        self.due = None

    def acknowledge(self, missing, digest, now):
        """Take a report. True if something will be resent for it (at `due`)."""
        if digest in self._seen:
            raise WireError("ACK_REPLAYED")
        if len(self._seen) < MAX_SEEN:
            self._seen.add(digest)
        if not missing:
            return False
        if self._idle <= 0 or self._budget <= 0:
            raise WireError("ACK_FLOOD")
        self._pending |= missing
        self._known = set(self._pending)
        self.due = now if self._last is None else max(now, self._last + BURST_GAP_MS)
        return True

    def burst(self, now):
        """The datagrams to resend now: what was reported missing, lowest first."""
        arrived = len(self._sent - self._pending)
        size = min(max(MIN_WINDOW, 2 * arrived), self._budget)
        numbers = sorted(self._pending)[:size]
        if len(self._pending) < self._least:
            self._least = len(self._pending)
        else:
            self._idle -= 1
        self._budget -= len(numbers)
        self._sent = set(numbers)
        self._pending -= self._sent
        self._last = now
        self.due = None
        return [self.datagrams[number - 1] for number in numbers]

    def resend(self):
        """The datagrams of a resend: all, or fragment 1 and those known to be missing."""
        if self._known is None:
            return self.datagrams
        numbers = sorted(self._known | {1})
        return [self.datagrams[number - 1] for number in numbers]
