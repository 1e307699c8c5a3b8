"""Readings that wait for the tunnel, the oldest first, and what became of each one.

At any time, in `stats`,  sampled + found = on_wire + unsent + waiting.
"""

import asyncio
from micropython import const

_MAX = const(1200)  # octets of a datagram


def as_octets(value):
    """Return the owner's octets; TypeError for text and for a number, which is no length here."""
    if isinstance(value, int):
        raise TypeError("expected octets, not " + repr(value))
    return bytes(value)


class Backlog:
    """Up to `most` readings in RAM; then the oldest makes place, counted in `lost`."""

    found = 0  # readings that were there from before a reset or a sleep, see spool

    def __init__(self, most):
        self._most = most
        self._ram = []
        self._ended = False
        self._more = asyncio.Event()
        self.sampled = self.on_wire = self.lost = self.failed = 0

    def fail(self):
        """Count a reading that there is not: its sensor raised, or what it gave is none."""
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
        reading = as_octets(reading)  # a buffer of the owner's may change
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
        """Wait for readings; return what fits into one datagram, [] after the last one."""
        while True:
            found = self.oldest(count)
            if found or self._ended:
                return found
            self._more.clear()
            await self._more.wait()

    def oldest(self, count):
        """Return the oldest readings: `count` at most, 1200 octets with one between each two."""
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
                self.lost -= 1  # newer ones had pushed it out while it was on its way
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
        """Put what is in RAM where it outlives a reset; False where that can't be."""
        return False

    def close(self, answered=True):
        """End, with all that waits put where it outlives a reset, or else counted as unsent.

        Without `answered` what went out since the start waits again, where it is still there.
        """
        if not self.save():
            self.lost += len(self._ram)
            self._ram = []
