"""IKE fragment acknowledgment (draft-antony-ipsecme-ikev2-fragment-acknowledgment-02).

Both halves for one IKE SA: asking for fragments that are missing of a message of the peer's, and
resending those of ours that the peer asks for.  What the draft leaves open is decided by the
constants below; tools/dev/bench shows what they are worth.
"""

import struct
from micropython import const

from . import wire
from .wire import Drop

_I = const(0x08)
_R = const(0x20)
_N = const(41)
_SK = const(46)
_S_UP = const(4)

# Asking.
_MAX_PAIRS = const(100)  # in one acknowledgment
_MAX_ASKS = const(8)  # without a new fragment in return
_RTT_MS = const(800)  # taken for granted as long as it is not known
_GAP_MS = const(100)  # that a peer may leave between two fragments, as long as it is not known
_MAX_GAP_MS = const(250)  # what is longer is a lost fragment, or a link that stood still
_MAX_AHEAD_MS = const(1000)  # of waiting for fragments that may still be under way
_SLACK_MS = const(20)  # for jitter and reordering, or a quarter of the round trip
_LARGE = const(8)  # fragments; of a larger message each acknowledgment is sent twice

# Resending.
_BURST_MS = const(50)  # from one burst to the next
_BUDGET = const(8)  # fragments resent of a message, in messages
_BUDGET_EARLY = const(6)  # as long as the peer has not authenticated itself
_MAX_SEEN = const(48)  # acknowledgments of one message that have an effect


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


class _Sent:
    """A message of ours in fragments, and what the peer lacks of it."""

    at = -_BURST_MS  # when the last burst was sent

    def __init__(self, datagrams, budget):
        self.datagrams = datagrams
        self.budget = budget * len(datagrams)
        self.wanted = set()  # reported missing since the last burst
        self.burst = set()  # resent in the last burst
        self.seen = []


class Acks:
    """Fragment acknowledgment of one IKE SA, both ways."""

    def __init__(self, profile):
        self._profile = profile
        self._types = profile["frag_ack_types"]
        self._eager = profile["frag_ack_policy"] == "eager"
        self._gap = profile["fragment_gap_ms"]  # the peer's; as ours, until it is known
        self._known = False
        self._sent = {}  # {is it an answer: _Sent}

    def times(self, sa):
        """Return when `timer` is to be called, as a list."""
        times = [sent.at + _BURST_MS for sent in self._sent.values() if sent.wanted]
        return times + [queue.due for queue in sa._queues.values()]

    def timer(self, sa, now):
        """Do what is due."""
        for sent in self._sent.values():
            if sent.wanted and now >= sent.at + _BURST_MS:
                burst = sorted(sent.wanted)[: sent.budget]
                sent.wanted = set()
                sent.burst = set(burst)
                sent.budget -= len(burst)
                sent.at = now
                sa.send([sent.datagrams[n - 1] for n in burst])
        for response, queue in sa._queues.items():
            if queue.due is not None and now >= queue.due:
                self._ask(sa, queue, response, now)

    # What we lack.

    def came(self, sa, queue, number, new, now):
        """A fragment came and others are missing; ask for them, but when?

        When the last of the burst should be here.  A fragment that is not `new` was not even
        authenticated: it may hasten the next question, within bounds, and not put it off.
        """
        if new:
            queue.asks = 0
            self._learn(sa, queue, number, now)
            ahead = len([n for n in queue.missing() if n > number])
        else:
            # Of a second sending, for all we know.
            queue.began = ()
            ahead = queue.total - number
        under_way = ahead and (
            self._gap * ahead if self._known else max(self._gap * ahead, _GAP_MS)
        )
        end = now + min(under_way, _MAX_AHEAD_MS)
        if new:
            if queue is sa._queues.get(True):
                # The response has begun.
                if False in self._sent:
                    self._sent[False].wanted.clear()
                sa.heard(end)
            if self._eager or queue.asked:
                queue.due = None
            elif queue.due is None:
                return
        elif queue.asks >= _MAX_ASKS or now < queue.asked + sa.rtt:
            return
        due = end + self._slack(sa)
        if queue.due is None or due < queue.due:
            queue.due = due

    def _learn(self, sa, queue, number, now):
        """Learn the gap between the peer's fragments from those of its first sending.

        Not from what may answer a question of ours: round trips differ, so no longer than half of one.
        """
        if queue.began is None:
            queue.began = number, now
        elif queue.began and not (queue.asked and now >= queue.asked + (sa.rtt >> 1)):
            first, then = queue.began
            if first < number and now - then <= _MAX_GAP_MS * (number - first):
                self._gap = -(-(now - then) // (number - first))
                self._known = True

    def _slack(self, sa):
        return max((sa.rtt or _RTT_MS) >> 2, _SLACK_MS)

    def _ask(self, sa, queue, response, now):
        # -02 sets R in both kinds; -03 and, the same in this, -04 in reports on requests alone.
        flags = _I if response and self._profile["frag_ack"] != "02" else _I | _R
        mid = sa._mid if response else sa._peer_mid
        missing = queue.missing()
        pairs = encode(missing)
        fit = _MAX_PAIRS
        while fit > 1 and sa._tx.size(4 * fit + 8) + 36 > sa.room:
            fit -= 1
        while pairs:
            notify = wire.notify(self._types[1 + response], b"".join(pairs[:fit]))
            pairs = pairs[fit:]
            plain = wire.chain([(_N, notify)])[1]
            datagram = sa.seal(queue.exchange, flags, mid, _SK, _N, b"", plain)
            sa.send([datagram] * (2 if queue.asks or queue.total > _LARGE else 1))
        queue.asked = now
        queue.asks += 1
        queue.due = None
        if queue.asks < _MAX_ASKS:
            wait = (sa.rtt or _RTT_MS) + self._slack(sa) << ((queue.asks - 1) >> 1)
            queue.due = now + wait + self._gap * len(missing)

    # What the peer lacks.

    def _begun(self, sa):
        """Has the response begun to come?  Then the peer has all of our request.

        For all we know: when fragment 1 of it brings nothing new, it may lack some after all.
        """
        queue = sa._queues.get(True)
        return queue and not queue.nudged

    def resend(self, sa, answer):
        """Return the datagrams of a message of ours that are to be sent again, all or some."""
        datagrams = sa._answered[1] if answer else sa._request
        sent = self._sent.get(answer)
        if not answer and self._begun(sa):
            # Fragment 1 has the peer resend its response.
            sa._queues[True].nudged = True
            sa._queues[True].began = ()
            return datagrams[:1]
        if sent and sent.datagrams is datagrams:
            # Fragment 1 has an RFC 7383 peer resend a response that got lost.
            return [datagrams[n - 1] for n in sorted(sent.wanted | sent.burst | {1})]
        return datagrams

    def takes(self, sa, notify, iv, exchange, mid, now):
        """Act on an acknowledgment, which was authenticated; `notify` is its body."""
        kind, data, _, spi_size = wire.parse_notify(notify)
        answer = kind == self._types[2]
        datagrams = ()
        if not answer:
            if mid == sa._mid and not self._begun(sa):
                datagrams = sa._request or ()
        elif sa._answered and mid == sa._peer_mid - 1:
            datagrams = sa._answered[1]
        if len(datagrams) < 2 or datagrams[0][22 if sa.floated else 18] != exchange:
            raise Drop("LATE_ACK")
        if spi_size:
            raise Drop("BAD_ACK")
        numbers = decode(data, len(datagrams))
        sent = self._sent.get(answer)
        if not sent or sent.datagrams is not datagrams:
            sent = _Sent(datagrams, _BUDGET if sa.state >= _S_UP else _BUDGET_EARLY)
            self._sent[answer] = sent
        if iv in sent.seen or len(sent.seen) >= _MAX_SEEN:
            raise Drop("REPLAYED_ACK")
        sent.seen.append(iv)
        # What waits for its turn needs no resend.
        waiting = [datagram for _, datagram in sa._out]
        numbers = {n for n in numbers if datagrams[n - 1] not in waiting}
        if now < sent.at + sa.rtt:
            # Said before that burst can have arrived, unless it is said once more.
            early = numbers & sent.burst
            numbers -= early
            sent.burst -= early
        sent.wanted |= numbers
        if numbers and not answer:
            sa.heard(now)
        self.timer(sa, now)
