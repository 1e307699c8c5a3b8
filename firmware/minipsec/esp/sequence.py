"""ESP sequence numbers taken from the clock, and the inbound replay window.

Sender (draft-minimal-esp §4, RFC 9333 §4): SN = max(last + 1, first + ticks since the SA was
made).  A sender that sleeps needs no stored counter, since the clock went on without it.
Receiver: RFC 4303 §3.4.3 and, with extended sequence numbers, its appendix A2.
"""

from micropython import const

from ..errors import Drop

_FIRST = const(1)
_MAX_STEP_MS = const(400 * 86400 * 1000)  # a larger step forward is a clock fault
_MAX_LEAD = const(0x10000)  # SNs that bursts may run ahead of the clock
_NEAR = const(0x01000000)  # `spent` asks for a new SA so many SNs before the end
_STEP = const(16)  # SNs that the first mark reserves; each further mark twice as many
_MAX_STEP = const(1024)


class Sequence:
    """Sequence numbers of one outbound SA, strictly increasing, never 0, never wrapped.

    `birth` and every `now` are milliseconds of one clock that runs for the SA's whole life.
    `tick_ms` is the length of a tick; 0 makes a plain counter that ignores the clock.  `last` is
    the highest SN that may have been used.  With `reserve`, no SN goes out above a mark that
    `reserve(mark)` has put where a reset does not reach it; it returns False when it could not.

    `paced` is for SAs that go on after a sleep above their age in milliseconds (see snapshot): the
    age at which this wake-up began.  From then on there is at most one SN for each 2 ms.  So no SN
    is above the age at which it goes out, whatever the two clocks' speeds.
    """

    def __init__(self, birth, tick_ms=100, last=0, esn=False, reserve=None, paced=None):
        self.birth = birth
        self.tick_ms = tick_ms
        self.last = last
        self.bursts = 0  # SNs that ran ahead of the clock
        self._end = (1 << 64 if esn else 1 << 32) - 1
        self._seen = birth  # the clock's highest value so far
        self._reserve = reserve
        self._step = _STEP
        self._mark = last
        self._paced = paced

    def early(self, now):
        """Return the milliseconds until the next SN may go out; 0 if it may go at once."""
        sn = self.last + 1
        if self._paced is None or sn > self._end:
            return 0
        return max(2 * sn - self._paced - max(now, self._seen) + self.birth, 0)

    def next(self, now):
        """Return the next SN.

        Raises Drop.  TOO_EARLY means that `early` is not 0.  SPENT means that this SA must send
        nothing more and a new one is due: the SNs are used up, or the clock jumped so far that the
        rest of them would be lost, or bursts ran too far ahead of the clock, or no mark could be
        reserved.
        """
        if now - self._seen > _MAX_STEP_MS:
            raise Drop("SPENT")
        # A clock that steps back stands still until it has caught up.
        self._seen = max(now, self._seen)
        age = self._seen - self.birth
        sn = self.last + 1
        clock = _FIRST + age // self.tick_ms if self.tick_ms else sn
        if self._paced is not None:
            if self.early(now):
                raise Drop("TOO_EARLY")
            clock = min(clock, (self._paced + age) // 2)
        elif sn > clock:
            self.bursts += 1
            if sn - clock > _MAX_LEAD:
                raise Drop("SPENT")
        sn = max(sn, clock)
        if sn > self._end:
            raise Drop("SPENT")
        if self._reserve and sn > self._mark:
            mark = min(sn + self._step, self._end)
            if not self._reserve(mark):
                raise Drop("SPENT")
            self._mark = mark
            self._step = min(2 * self._step, _MAX_STEP)
        self.last = sn
        return sn

    def end(self):
        """Give out nothing more."""
        self._end = 0

    def spent(self):
        """Is it time for a new SA?"""
        return self._end - self.last < _NEAR


class ReplayWindow:
    """The inbound window of one SA: `size` SNs wide; 0 accepts everything but SN 0."""

    def __init__(self, size=64, top=0, seen=0):
        self.size = size
        self.top = top
        self.seen = seen  # bit n: SN top - n came

    def check(self, sn):
        """Return True if this SN may still come; changes nothing."""
        if not sn or sn >> 64:
            return False
        if not self.size or sn > self.top:
            return True
        age = self.top - sn
        return age < self.size and not self.seen >> age & 1

    def commit(self, sn):
        """Mark an SN as seen; only after `check` and a right ICV."""
        if not self.size:
            self.top = max(self.top, sn)  # `extend` needs it
        elif sn > self.top:
            step = sn - self.top
            self.seen = 1 if step >= self.size else self.seen << step & (1 << self.size) - 1 | 1
            self.top = sn
        else:
            self.seen |= 1 << (self.top - sn)

    def extend(self, low):
        """Return the SN that 32 received bits most likely mean (RFC 4303 appendix A2).

        Past the end of the 64-bit space it returns an SN that `check` refuses.  Without a window
        it returns the SN nearest to the top.
        """
        high = self.top >> 32
        bottom = (self.top & 0xFFFFFFFF) - (self.size or 1 << 31) + 1
        if bottom >= 0:
            # The window lies within one run of the low half.
            if low < bottom:
                high += 1
        elif low >= bottom & 0xFFFFFFFF and high:
            high -= 1
        return high << 32 | low
