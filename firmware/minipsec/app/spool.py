"""A queue that continues in a file, which outlives a reset.

A reading that was on its way at a reset is sent a second time.

A record of the file is _FIELDS, the reading, and the CRC of both.  `serial` starts with 0 in each
file: it tells how many records are lost where some are damaged.  `more` is how many more records
were written with this one: it tells how many are lost where the end is cut off.
"""

import os
import struct
from binascii import crc32
from micropython import const

from .queue import Queue

_FIELDS = ">BHHB"  # _RECORD, octets, serial, more
_HEAD_SIZE = const(6)
_CRC = ">I"
_AROUND = const(10)  # octets of a record beside its reading
_RECORD = const(0xA5)
_MARK = b"\xa5"
_CHUNK = const(256)
_MAX_READING = const(1200)


class Spool(Queue):
    """A Queue that writes what RAM does not hold to the file at `path`, up to `room` octets.

    All readings of the file are older than those in RAM.  With `hold` the file forgets none of
    them before `close`, so that they can be sent once more.
    """

    def __init__(self, most, path, room, hold=False):
        super().__init__(most)
        self._path = path
        self._room = room
        self._hold = hold
        self._held = []  # readings that went out from RAM
        self._at = 0  # octets of the file that are done with
        self._done = 0  # readings of the file that went out
        self._count = 0  # readings of the file that did not
        self._serial = 0  # of the next record
        self._old = False  # a file of an older version
        self._waste = False  # does the file hold what is counted as lost, or still in RAM?
        try:
            os.stat(path)
            _remove(path + ".new")  # never finished
        except OSError:
            _rename(path)  # FAT removes the old file before it renames the new one
        self._size = self._octets()
        if self._size:
            self._look()

    def _look(self):
        """Look through the file at the start; count its readings, and once what is damaged."""
        end = more = 0
        for end, serial, more, _ in self._records(0):
            self.lost += serial - self._serial & 0xFFFF
            self._serial = serial + 1 & 0xFFFF
            self._count += 1
        if not self._count and self._head(0)[:1] != _MARK:
            self._old = True  # two octets of length, and the reading
            for end, _, _, _ in self._records(0):
                self._count += 1
            if end < self._size:
                # Nothing in an old file tells where a reading begins: give up all of them.
                self.lost = self._count + 1
                self._count = 0
                self._old = False
        elif end < self._size or more:
            self.lost += more or self._torn(end)
        self.found = self._count + self.lost
        if not self._count:
            self._forget()
        elif self.lost or self._old:
            self._waste = self.lost > 0
            self._rewrite()

    def _torn(self, at):
        """Return how many readings were lost from `at` on, where no record is whole."""
        head = self._head(at)
        if len(head) == _HEAD_SIZE:
            magic, n, serial, more = struct.unpack(_FIELDS, head)
            if (
                magic == _RECORD
                and serial == self._serial
                and at + n + _HEAD_SIZE + 4 > self._size
            ):
                return 1 + more  # it was cut off, with what followed
        return min(len(head), 1)

    def _head(self, at):
        try:
            with open(self._path, "rb") as f:
                f.seek(at)
                return f.read(_HEAD_SIZE)
        except OSError:
            return b""

    def _octets(self):
        try:
            return os.stat(self._path)[6]
        except OSError:
            return 0

    def save(self):
        """Move what is in RAM to the file; return False where it does not fit."""
        ram = self._ram
        if not ram:
            return True
        octets = sum([len(reading) + _AROUND for reading in ram])
        if self._old or self._size + octets > self._room:
            if self._hold or not (self._at or self._old) or not self._rewrite():
                return False
            if self._size + octets > self._room:
                return False
        saved = 0
        try:
            with open(self._path, "ab") as f:
                for reading in ram:
                    _write(f, reading, len(ram) - saved - 1, self._serial + saved)
                    saved += 1
            self._size += octets
        except (OSError, MemoryError):
            # Whole records stay; the rest is written once more, behind the torn one.
            self._waste = True
            try:
                saved = len([0 for _ in self._records(self._size)])
            except MemoryError:
                pass
            self._size = self._octets()
        self._serial = self._serial + saved & 0xFFFF
        self._count += saved
        del ram[:saved]
        return not ram

    def all(self):
        """Yield all readings."""
        n = self._count
        if n:
            for _, _, _, reading in self._records(self._at):
                n -= 1
                yield reading
            # These can be read no more.
            self._waste |= n > 0
            self.lost += n
            self._count -= n
        yield from self._ram

    def waiting(self):
        """Return how many readings wait."""
        return self._count + len(self._ram)

    def _drop(self, reading):
        if not self._count:
            if self._hold and len(self._held) < self._most:
                self._held.append(reading)
            return super()._drop(reading)
        for end, _, _, first in self._records(self._at):
            if first != reading:
                return False
            self._at = end
            self._done += 1
            self._count -= 1
            if not self._count and not self._hold:
                self._forget()
            return True

    def close(self, answered=True):
        """End; see Queue."""
        if not answered:
            self._ram = self._held + self._ram
            self.on_wire -= self._done + len(self._held)
            self._count += self._done
            self._at = self._done = 0
        self._held = []
        self._hold = False
        self._tidy()
        super().close()
        self._tidy()

    def _tidy(self):
        """Remove what the next boot must not find: readings that went out or are counted."""
        if self._at or self._waste:
            if self._count:
                self._rewrite()
            else:
                self._forget()

    def _records(self, at):
        """Yield (where it ends, serial, more, reading) of all whole records from `at` on."""
        read = _read_old if self._old else _read
        try:
            with open(self._path, "rb") as f:
                while True:
                    found = read(f, at)
                    if found:
                        yield found
                        at = found[0]
                        continue
                    f.seek(at + 1)
                    chunk = b"" if self._old else f.read(_CHUNK)
                    if not chunk:
                        return
                    n = chunk.find(_MARK)
                    at += 1 + (n if n >= 0 else len(chunk))
        except OSError:
            pass  # as if the file ended here

    def _rewrite(self):
        """Write what waits in the file into a new one; False where that fails."""
        new = self._path + ".new"
        size = n = 0
        try:
            with open(new, "wb") as f:
                for _, _, _, reading in self._records(self._at):
                    _write(f, reading, self._count - n - 1, n)
                    size += len(reading) + _AROUND
                    n += 1
            if n != self._count or not _rename(self._path):
                raise OSError
        except (OSError, MemoryError):
            _remove(new)
            return False
        self._size = size
        self._serial = n & 0xFFFF
        self._at = self._done = 0
        self._old = self._waste = False
        return True

    def _forget(self):
        self._done = 0
        self._waste = False
        if _remove(self._path):
            self._at = self._size = self._serial = 0
        else:
            self._at = self._size  # the file stays; skip all of it


def _write(f, reading, more, serial):
    """Write one record in pieces, so that the heap need not hold a copy of the reading."""
    head = struct.pack(_FIELDS, _RECORD, len(reading), serial & 0xFFFF, min(more, 255))
    f.write(head)
    f.write(reading)
    f.write(struct.pack(_CRC, crc32(reading, crc32(head))))


def _read(f, at):
    """Return (end, serial, more, reading) of the record at `at`, or None if it is not whole."""
    f.seek(at)
    octets = f.read(_HEAD_SIZE)
    if len(octets) == _HEAD_SIZE and octets[0] == _RECORD:
        _, n, serial, more = struct.unpack(_FIELDS, octets)
        if 0 < n <= _MAX_READING:
            reading = f.read(n)
            crc = f.read(4)
            if len(crc) == 4 and struct.unpack(_CRC, crc)[0] == crc32(reading, crc32(octets)):
                return at + _HEAD_SIZE + n + 4, serial, more, reading


def _read_old(f, at):
    f.seek(at)
    head = f.read(2)
    n = struct.unpack(">H", head)[0] if len(head) == 2 else 0
    reading = f.read(n)
    if 0 < n <= _MAX_READING and len(reading) == n:
        return at + 2 + n, 0, 0, reading


def _remove(path):
    try:
        os.remove(path)
        return True
    except OSError:
        return False


def _rename(path):
    try:
        os.rename(path + ".new", path)
        return True
    except OSError:
        return False
