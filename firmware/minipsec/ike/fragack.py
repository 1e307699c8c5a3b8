"""IKE fragment acknowledgment (draft-antony-ipsecme-ikev2-fragment-acknowledgment-02).

A `Reporter` asks the peer for missing fragments of its message.  A `Flight` resends the fragments
of our message that the peer asks for.  Neither knows an IKE SA: times and round trips are
milliseconds and come in as arguments.  The constants below decide what the draft leaves open;
tools/dev/bench shows what they are worth.
"""

import struct
from micropython import const

from .wire import Drop

# Ours.  Asking.
_MAX_PAIRS = const(100)  # in one acknowledgment
_MAX_ASKS = const(8)  # in a row without a new fragment
_RTT_MS = const(800)  # assumed while it is not known
_GAP_MS = const(100)  # between two fragments of the peer, assumed while it is not known
_MAX_GAP_MS = const(250)  # a longer gap means a lost fragment, or a link that stood still
_MAX_AHEAD_MS = const(1000)  # bound on waiting for fragments that may be under way
_SLACK_MS = const(20)  # least allowance for jitter and reordering, else a quarter of a round trip
_LARGE = const(8)  # for a message of more fragments, send each acknowledgment twice

# Ours.  Resending.
_BURST_MS = const(50)  # from one burst to the next
_BUDGET = const(8)  # times its own fragments that a message may be resent
_BUDGET_EARLY = const(6)  # the same while the peer is not authenticated
_MAX_SEEN = const(48)  # acknowledgments that may have an effect on one message


def encode(numbers):
    """Return ascending fragment numbers as a list of pairs first | last, both inclusive."""
    pairs = []
    last = -1
    for n in numbers:
        if n != last + 1:
            pairs.append(b"")
            first = n
        last = n
        pairs[-1] = struct.pack(">HH", first, n)
    return pairs


def decode(data, total):
    """Return the fragment numbers that an acknowledgment calls missing.

    Raises Drop unless its pairs are ascending, disjoint and within 1..total.
    """
    numbers = set()
    end = 0
    if len(data) & 3 or len(data) > 4 * _MAX_PAIRS:
        raise Drop("BAD_ACK")
    for at in range(0, len(data), 4):
        first, last = struct.unpack_from(">HH", data, at)
        if not end < first <= last <= total:
            raise Drop("BAD_ACK")
        numbers.update(range(first, last + 1))
        end = last
    return numbers


def fitting(size, room):
    """Return how many pairs fit into one acknowledgment; size(n): n octets once sealed."""
    fit = _MAX_PAIRS
    while fit > 1 and size(4 * fit + 8) + 36 > room:
        fit -= 1
    return fit


class Flight:
    """A message of ours in fragments, and what the peer lacks of it.

    With `early` the peer is not authenticated yet.
    """

    due = None  # when the next burst is to go

    def __init__(self, datagrams, early):
        self.datagrams = datagrams
        self.seen = []  # marks of the acknowledgments that had an effect
        self._budget = (_BUDGET_EARLY if early else _BUDGET) * len(datagrams)
        self._at = -_BURST_MS  # when the last burst was sent
        self._wanted = set()  # reported missing since the last burst
        self._burst = set()  # resent in the last burst

    def acknowledge(self, missing, mark, waiting, rtt, now):
        """Take the set of fragment numbers that the peer lacks; True if any is to be resent.

        `mark` differs for each acknowledgment.  `waiting` are datagrams that still wait to be sent,
        so they need no resend.  Raises Drop for a copy, and for one acknowledgment too many.
        """
        if mark in self.seen or len(self.seen) >= _MAX_SEEN:
            raise Drop("REPLAYED_ACK")
        self.seen.append(mark)
        missing = {n for n in missing if self.datagrams[n - 1] not in waiting}
        if now < self._at + rtt:
            # Sent before our burst could arrive; ignore it once.
            early = missing & self._burst
            missing -= early
            self._burst -= early
        self._wanted |= missing
        if self._wanted:
            self.due = self._at + _BURST_MS
        return bool(missing)

    def arrived(self):
        """The peer seems to have the whole message: resend nothing."""
        self._wanted.clear()
        self.due = None

    def burst(self, now):
        """Return the datagrams to resend at `now`; none before the burst is due."""
        if self.due is None or now < self.due:
            return ()
        burst = sorted(self._wanted)[: self._budget]
        self._wanted = set()
        self._burst = set(burst)
        self._budget -= len(burst)
        self._at = now
        self.due = None
        return [self.datagrams[n - 1] for n in burst]

    def again(self):
        """Return the datagrams of a resend: fragment 1 and those that were reported missing.

        Fragment 1 makes an RFC 7383 peer resend a response that got lost.
        """
        return [self.datagrams[n - 1] for n in sorted(self._wanted | self._burst | {1})]


class Reporter:
    """When to ask for the missing fragments of one message of the peer, which has `total` of them.

    `ours` is the gap between two fragments of ours, a first guess at the peer's.  `eager` asks when
    the last fragment of a burst should be here; otherwise only what a resend lacks is asked for.
    In the methods `gap` is the peer's, None if it is not known.
    """

    due = None  # when to ask
    nudged = False  # did we resend fragment 1 alone since the last new fragment?

    def __init__(self, total, ours, eager):
        self._total = total
        self._ours = ours
        self._eager = eager
        # (number, when) of the first fragment, while later ones can tell the gap; () afterwards.
        self._began = None
        self._asks = self._asked = 0  # how often we asked in vain; when we asked last

    def arrived(self, number, missing, gap, rtt, now):
        """A new fragment came; return (when the fragments behind it should be here, the gap).

        `missing` are the numbers, ascending, of the fragments that have not come.
        """
        self.nudged = False
        self._asks = 0
        gap = self._learn(number, gap, rtt, now)
        end = now + self._under_way(len([n for n in missing if n > number]), gap)
        if self._eager or self._asked:
            self.due = end + _slack(rtt)
        elif self.due is not None:
            self.due = min(self.due, end + _slack(rtt))
        return end, gap

    def repeated(self, number, gap, rtt, now):
        """A fragment came that we have already; its ICV was not checked.

        It may hasten the next question, within bounds, but never delay it.
        """
        self._began = ()  # probably a second sending: it tells no gap
        if self._asks < _MAX_ASKS and now >= self._asked + rtt:
            due = now + self._under_way(self._total - number, gap) + _slack(rtt)
            if self.due is None or due < self.due:
                self.due = due

    def nudge(self):
        """We resend only fragment 1 of our request, so that the peer resends its response."""
        self.nudged = True
        self._began = ()

    def ask(self, missing, fit, gap, rtt, now):
        """Return (how often to send each, [notify data]), each with `fit` pairs at most."""
        pairs = encode(missing)
        copies = 2 if self._asks or self._total > _LARGE else 1
        self._asked = now
        self._asks += 1
        self.due = None
        if self._asks < _MAX_ASKS:
            wait = (rtt or _RTT_MS) + _slack(rtt) << ((self._asks - 1) >> 1)
            self.due = now + wait + (self._ours if gap is None else gap) * len(missing)
        return copies, [b"".join(pairs[at : at + fit]) for at in range(0, len(pairs), fit)]

    def _under_way(self, ahead, gap):
        """Return how many ms `ahead` fragments may still be under way."""
        ms = (self._ours if gap is None else gap) * ahead
        if ahead and gap is None:
            ms = max(ms, _GAP_MS)
        return min(ms, _MAX_AHEAD_MS)

    def _learn(self, number, gap, rtt, now):
        """Return the gap between the peer's fragments, learnt from those of its first sending.

        Half a round trip after a question of ours, fragments may answer that: learn nothing then.
        """
        if self._began is None:
            self._began = number, now
        elif self._began and not (self._asked and now >= self._asked + (rtt >> 1)):
            first, then = self._began
            if first < number and now - then <= _MAX_GAP_MS * (number - first):
                return -(-(now - then) // (number - first))
        return gap


def _slack(rtt):
    return max((rtt or _RTT_MS) >> 2, _SLACK_MS)
