"""Readings that wait for the tunnel, oldest first, and a count of what became of each.

At any time, in `stats`,  sampled + found = on_wire + unsent + waiting.
"""

import asyncio
from micropython import const

_MAX = const(1200)  # octets of a datagram


def as_octets(value):
    """Return the owner's octets; TypeError for text, and for a number, which bytes() takes."""
    if isinstance(value, int):
        raise TypeError("expected octets, not " + repr(value))
    return bytes(value)


class Queue:
    """Up to `most` readings in RAM; one more pushes out the oldest, which counts as `lost`."""

    found = 0  # readings from before a reset or a sleep, see spool

    def __init__(self, most):
        self._most = most
        self._ram = []
        self._ended = False
        self._more = asyncio.Event()
        self.sampled = self.on_wire = self.lost = self.failed = 0

    def fail(self):
        """Count a sample that failed: it raised, or returned something that is no reading."""
        self.failed += 1

    def stats(self):
        """Return the counters for a line of the log."""
        return {
            "sampled": self.sampled,
            "found": self.found,
            "on_wire": self.on_wire,
            "unsent": self.lost,
            "waiting": self.waiting(),
            "sample_failed": self.failed,
        }

    def put(self, reading):
        """Add a reading of 1 to 1200 octets."""
        reading = as_octets(reading)  # copied, since the owner may change the buffer
        if not 0 < len(reading) <= _MAX:
            raise ValueError("a reading has 1 to %d octets" % _MAX)
        if len(self._ram) >= self._most and not self.save():
            self._ram.pop(0)
            self.lost += 1
        self._ram.append(reading)
        self.sampled += 1
        self._more.set()

    def end(self):
        """Say that no reading will follow."""
        self._ended = True
        self._more.set()

    async def next(self, count):
        """Wait for readings; return those that fit into one datagram, [] after the last one."""
        while True:
            found = self.oldest(count)
            if found or self._ended:
                return found
            self._more.clear()
            await self._more.wait()

    def oldest(self, count):
        """Return the oldest readings: at most `count`, and 1200 octets with a separator each."""
        found = []
        room = _MAX + 1
        for reading in self.all():
            room -= len(reading) + 1
            if len(found) == count or room < 0:
                break
            found.append(reading)
        return found

    def drop(self, readings):
        """Forget what `next` returned, once it is on the wire."""
        for reading in readings:
            if not self._drop(reading):
                self.lost -= 1  # newer readings had pushed it out while it was being sent
            self.on_wire += 1

    def _drop(self, reading):
        if self._ram and self._ram[0] is reading:
            return self._ram.pop(0)

    def all(self):
        """Return an iterable of all readings."""
        return self._ram

    def waiting(self):
        """Return how many readings wait."""
        return len(self._ram)

    def save(self):
        """Move what is in RAM to where it outlives a reset; return False if that can't be."""
        return False

    def close(self, answered=True):
        """End: save all that waits where it outlives a reset, else count it as unsent.

        Without `answered`, readings that went out since the start wait again, if still there.
        """
        if not self.save():
            self.lost += len(self._ram)
            self._ram = []
