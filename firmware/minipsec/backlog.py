"""Readings that wait for the tunnel, the oldest first."""

import asyncio
from micropython import const

_MAX = const(1200)  # octets of a datagram


class Backlog:
    """Up to `most` readings in RAM; then the oldest makes place, counted in `lost`."""

    def __init__(self, most):
        self._most = most
        self._ram = []
        self._ended = False
        self._more = asyncio.Event()
        self.lost = 0

    def put(self, reading):
        """Add a reading of 1 to 1200 octets."""
        if not 0 < len(reading) <= _MAX:
            raise ValueError("a reading has 1 to %d octets" % _MAX)
        if len(self._ram) >= self._most and not self.save():
            self._ram.pop(0)
            self.lost += 1
        self._ram.append(reading)
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
        """Forget what `next` returned, once it is sent; newer ones may have pushed it out."""
        for reading in readings:
            if self._ram and self._ram[0] is reading:
                self._ram.pop(0)

    def all(self):
        """Return an iterable of all readings."""
        return self._ram

    def save(self):
        """Put what is in RAM where it outlives a reset; False where that can't be."""
        return False
