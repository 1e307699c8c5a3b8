"""A backlog that goes on in a file: what the file holds outlives a reset.

A reading that was on its way at a reset is sent a second time.
"""

import os
import struct

from .backlog import Backlog


class Spool(Backlog):
    """A Backlog; what RAM has no room for goes to the file at `path`, up to `room` octets.

    A reading is two octets of length and its own.  All that the file holds is older than what is
    in RAM.
    """

    def __init__(self, most, path, room):
        super().__init__(most)
        self._path = path
        self._room = room
        self._at = 0  # octets of the file that are done with
        try:
            self._size = os.stat(path)[6]
        except OSError:
            self._size = 0

    def drop(self, readings):
        """Forget what `next` returned, once it is sent; it may be in the file by now."""
        for reading in readings:
            if self._at == self._size:
                super().drop((reading,))
            elif self._read(self._at) == reading:
                self._at += 2 + len(reading)
                if self._at == self._size:
                    self._forget()

    def save(self):
        """Move what is in RAM to the file; False where there is no room."""
        octets = b"".join([struct.pack(">H", len(r)) + r for r in self._ram])
        if not octets:
            return True
        if self._size + len(octets) > self._room:
            return False
        try:
            with open(self._path, "ab") as f:
                f.write(octets)
        except OSError:
            return False
        self._size += len(octets)
        self._ram = []
        return True

    def all(self):
        """Yield all readings."""
        at = self._at
        while at < self._size:
            reading = self._read(at)
            if reading is None:
                # No file of ours, or cut off: what is left of it is worth nothing.
                self._forget()
                break
            at += 2 + len(reading)
            yield reading
        yield from self._ram

    def _read(self, at):
        try:
            with open(self._path, "rb") as f:
                f.seek(at)
                head = f.read(2)
                n = struct.unpack(">H", head)[0] if len(head) == 2 else 0
                reading = f.read(n)
        except OSError:
            return None
        return reading if n and len(reading) == n else None

    def _forget(self):
        self._at = self._size = 0
        try:
            os.remove(self._path)
        except OSError:
            pass
