"""One exchange of an IKE SA: the keys, the request, the answer (RFC 7296 §2.1, §2.14).

Times are milliseconds and come in as arguments.
"""

import struct
from micropython import const

from .wire import Drop

_GUESS_MS = const(125)  # ours: least round trip taken for granted after a resend


class Keys:
    """The two ciphers of an IKE SA and the one counter of IVs of whatever we send."""

    def __init__(self, tx, rx, iv=0):
        self.tx = tx
        self.rx = rx
        self.iv = iv

    def seal(self, head, plain):
        """Return the ciphertext behind `head`, its IV and its ICV included.

        No IV may come twice under one key, whatever it belongs to (RFC 5282 §3).
        """
        self.iv += 1
        return self.tx.seal(head, struct.pack(">Q", self.iv), plain)

    def open(self, view, body):
        """Return the plaintext of an SK or SKF payload whose body is the end of `view`."""
        plain = self.rx.open(view[: len(view) - len(body)], body)
        if plain is None:
            raise Drop("BAD_ICV")
        return plain


class Outgoing:
    """A message of ours in its datagrams; `digest` is that of the request, if it is an answer."""

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
        # Begun sooner, as many sendings are to fill the same time.
        self._growth = 2 if first_ms == ms else 3
        self.change(self.datagrams, now)

    def change(self, datagrams, now):
        """Send a changed version of it from now on, within the same time limit."""
        self.datagrams = datagrams
        # A message in fragments is under way for longer than the round trip.
        self._sent = now if len(datagrams) == 1 else None
        self.restart(now)

    def restart(self, now):
        """Start the retransmission interval anew; the time to give up stays."""
        self.due = self.deadline
        if self.tries < self._most:
            self.due = min(now + self.interval, self.due)

    def resent(self, now):
        """It is sent again, after a longer interval each time."""
        self.tries += 1
        self.interval *= self._growth
        if self._sent is not None:
            self._sent = now
        self.restart(now)

    def put_off(self, due):
        """Let the next sending be due then, at most at the end."""
        self.due = min(due, self.deadline)

    def heard(self, now):
        """Start anew, tries as well: of what is under way in fragments the peer told something."""
        self.interval //= self._growth ** (self.tries - 1)
        self.tries = 1
        self.restart(now)

    def untimed(self):
        """Its answer comes in fragments, and tells no round trip."""
        self._sent = None

    def round_trip(self, known, now):
        """Return the round trip, its answer being here, or what is known of it."""
        if self._sent is not None:
            # Which of several sends was answered is not known: a first guess, not too low.
            if self.tries == 1:
                return max(now - self._sent, 1)
            return known or max(now - self._sent, _GUESS_MS)
        return known
