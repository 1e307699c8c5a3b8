"""ESP sequence numbers taken from the clock, and the inbound replay window.

Sender (draft-minimal-esp §4, RFC 9333 §4): SN = max(last + 1, first + ticks since the SA was
made).  A sender that sleeps needs no stored counter, since the clock went on without it.
Receiver: RFC 4303 §3.4.3.
"""

from micropython import const

_FIRST = const(1)
_MAX_LEAD = const(0x10000)  # SNs that bursts may run ahead of the clock
_MAX_STEP_MS = const(400 * 86400 * 1000)  # a step forward beyond this is a clock fault
_END = 0xFFFFFFFF  # never reached by a tunnel, which replaces its SA when `spent` says so
_NEAR = 0xF0000000


class Sequence:
    """Sequence numbers of one outbound SA, strictly increasing, never 0, never wrapped.

    `birth` and every `now` are milliseconds of one clock that keeps running for the SA's life;
    `tick_ms` is the length of a tick.
    """

    def __init__(self, birth, tick_ms=100, last=0):
        self.birth = birth
        self.tick_ms = tick_ms
        self.last = last
        self.bursts = 0
        self._seen = birth

    def next(self, now):
        """Return the next SN, or None when this SA must send nothing more.

        None means: make a new SA.  Either the space is used up, or the clock jumped so far that
        the rest of it would be burnt, or bursts ran too far ahead of the clock.
        """
        if now - self._seen > _MAX_STEP_MS:
            return None
        if now > self._seen:
            self._seen = now
        clock = _FIRST + (self._seen - self.birth) // self.tick_ms
        sn = clock
        if sn <= self.last:
            sn = self.last + 1
            self.bursts += 1
        if sn > _END or sn - clock > _MAX_LEAD:
            return None
        self.last = sn
        return sn

    def spent(self):
        """Is it time for a new SA?"""
        return self.last >= _NEAR


class ReplayWindow:
    """The inbound window of one SA: `size` SNs wide; 0 accepts everything but SN 0."""

    def __init__(self, size=64):
        self._size = size
        self._top = 0
        self._seen = 0

    def check(self, sn):
        """Return True if this SN may still come; changes nothing."""
        if not sn:
            return False
        if not self._size or sn > self._top:
            return True
        age = self._top - sn
        return age < self._size and not self._seen >> age & 1

    def commit(self, sn):
        """Mark an SN that `check` let in and whose ICV was right."""
        if not self._size:
            return
        if sn > self._top:
            step = sn - self._top
            self._seen = (
                1 if step >= self._size else self._seen << step & (1 << self._size) - 1 | 1
            )
            self._top = sn
        else:
            self._seen |= 1 << (self._top - sn)
