"""Put a tunnel's SA away for a sleep, into RTC memory or files, and take it up again.

Loaded where the profile's `sleep` asks for it.
"""

import os
import time

from .board import port
from .esp import snapshot
from .link import Link


def load(tunnel):
    """Return the snapshot.Snapshot of the SA that `put_away` kept, or None."""
    memory = tunnel.memory
    try:
        if memory.refused:
            raise snapshot.Refused(memory.refused)
        return snapshot.load(tunnel.profile, memory, tunnel.clock.now(), wall())
    except snapshot.Refused as e:
        _refuse(tunnel, str(e))


def take_up(tunnel, awake):
    """Go on with the SA that outlived the sleep; where that fails a new one is made."""
    try:
        Link(tunnel, awake.host, awake)
    except OSError:
        # Its port is taken, or there is no network.
        _refuse(tunnel, "NO_SOCKET")


def put_away(tunnel, link):
    """Keep the SA of a tunnel's link, which may be None.

    Return (whether `load` can take it up, whether the answers that used to come are missed).
    """
    memory = tunnel.memory
    kept = missed = False
    if link:
        silent, missed = _silent(tunnel, link)
        if silent < tunnel.profile["silent_wakes"] and not missed:
            clock = memory.clock(tunnel.clock.now() - link.born)
            kept = link.snapshot.save(link.sender.packets, link.receiver.window, clock, silent)
            if not kept:
                _refuse(tunnel, "NOT_KEPT")
        else:
            memory.erase()
    if not memory.keep():
        kept = False
        _refuse(tunnel, "NO_ROOM")
    return kept, missed


def _silent(tunnel, link):
    """Return (wake-ups in a row without an answer, are answers missed that used to come).

    After too many of them the gateway may have lost the SA.  A sign of life is an answer in this
    wake-up, or the handshake in it; one that sent nothing does not count.
    """
    awake = link.snapshot
    sent = link.sender.packets - awake.packets
    if link.ike or link.heard:
        return 0, False
    if not sent:
        return awake.silent, False
    tunnel.counters["unconfirmed"] += sent
    missed = link.receiver.window.top > 0
    most = tunnel.profile["silent_wakes"]
    if awake.silent + 1 >= most and not missed:
        text = "no answer in %d wake-ups: the next one asks the gateway by a new IKE SA" % most
        tunnel.log("warning", {"text": text})
    return awake.silent + 1, missed


def _refuse(tunnel, reason):
    """Say why there is no SA to go on with."""
    tunnel.log("refused", {"reason": reason})


def wall():
    """Return the wall clock in milliseconds; its epoch is the board's."""
    return time.time_ns() // 1000000


class Memory:
    """Where an SA outlives a sleep: RTC memory, or the files sa.bin and sa.mark in `directory`.

    With `flash` it uses files even where there is RTC memory, and never the wall clock.  The
    reader has to notice a write that was cut off.  Only `keep` writes RTC memory.
    """

    def __init__(self, directory="", flash=False):
        self._flash = flash
        self._rtc = self._pieces = self.refused = None
        if not flash:
            try:
                from machine import RTC

                self._rtc = RTC().memory
            except (ImportError, AttributeError):
                pass
        if self._rtc:
            from .board.nvram import take

            octets, self.refused = take(self._rtc)
            end = octets[0] + 1 if octets else 0
            self._pieces = {"mark": octets[1:end], "bin": octets[end:]}
        self._path = directory + "sa."
        self.writes = 0  # to flash

    def clock(self, age):
        """Return the wall clock in milliseconds if it runs on in a sleep, else `age`."""
        return age if self._flash else wall()

    def read(self, name):
        """Return the piece "bin" or "mark"; None or no octets where there is none."""
        if self._pieces:
            return self._pieces[name]
        try:
            with open(self._path + name, "rb") as f:
                return f.read(600)
        except OSError:
            return None

    def write(self, name, octets):
        """Keep a piece; return True when it is safe.

        A file outlives any reset.  RTC memory outlives a sleep; after a reset it is empty.
        """
        if self._pieces:
            self._pieces[name] = octets
            return True
        self.writes += 1
        try:
            with open(self._path + name, "wb") as f:
                f.write(octets)
                f.flush()  # on a PC that is fsync
        except OSError:
            return False
        return True

    def erase(self):
        """Forget it all."""
        if self._pieces:
            self._pieces = {"mark": b"", "bin": b""}
            return
        try:
            os.remove(self._path + "bin")
            self.writes += 1
        except OSError:
            pass

    def keep(self):
        """Before a sleep, write the pieces to RTC memory; return False where they do not fit."""
        if not self._pieces:
            return True
        from .board.nvram import put

        mark = self._pieces["mark"]
        return put(self._rtc, bytes((len(mark),)) + mark + self._pieces["bin"])
