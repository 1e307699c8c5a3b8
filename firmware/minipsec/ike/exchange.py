"""One exchange of an IKE SA: the request, the answer (RFC 7296 §2.1).

Times are milliseconds and come in as arguments.
"""

from micropython import const

_GUESS_MS = const(125)  # ours: after a resend, assume at least this round trip


class Outgoing:
    """A message of ours in its datagrams; for an answer, `digest` is that of the request."""

    def __init__(self, exchange, mid, datagrams, digest=None):
        self.exchange = exchange
        self.mid = mid
        self.datagrams = datagrams
        self.digest = digest

    # A request that is outstanding, and when it is sent again (RFC 7296 §2.4).

    def start(self, ms, first_ms, most, now):
        """The first of `most` sendings; the interval begins with `first_ms`, of usually `ms`.

        `tries` counts them; at `deadline` the request is given up.
        """
        self.tries = 1
        self.interval = first_ms
        self.deadline = now + (ms << most) - ms
        self._most = most
        # With a shorter first interval, the same number of sendings must fill the same time.
        self._growth = 2 if first_ms == ms else 3
        self.change(self.datagrams, now)

    def change(self, datagrams, now):
        """From now on send a changed version of the request, within the same time limit."""
        self.datagrams = datagrams
        # Several fragments take longer than one round trip, so they do not measure it.
        self._sent = now if len(datagrams) == 1 else None
        self.restart(now)

    def restart(self, now):
        """Start the retransmission interval anew; the time to give up stays."""
        self.due = self.deadline
        if self.tries < self._most:
            self.due = min(now + self.interval, self.due)

    def resent(self, now):
        """The request is sent again; the next interval is longer."""
        self.tries += 1
        self.interval *= self._growth
        if self._sent is not None:
            self._sent = now
        self.restart(now)

    def put_off(self, due):
        """Delay the next sending until `due`, but not beyond the deadline."""
        self.due = min(due, self.deadline)

    def heard(self, now):
        """The peer reported on fragments under way: start interval and tries anew."""
        self.interval //= self._growth ** (self.tries - 1)
        self.tries = 1
        self.restart(now)

    def untimed(self):
        """The answer comes in fragments, so it does not measure the round trip."""
        self._sent = None

    def round_trip(self, known, now):
        """The answer is here: return the round trip, or `known` where it was not measured."""
        if self._sent is not None:
            # After a resend we do not know which sending was answered: guess, and not too low.
            if self.tries == 1:
                return max(now - self._sent, 1)
            return known or max(now - self._sent, _GUESS_MS)
        return known
