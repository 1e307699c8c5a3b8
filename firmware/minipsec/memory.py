"""Where an SA outlives a sleep, RTC memory or files, and how a tunnel goes there and comes back.

Loaded where the profile's `sleep` asks for it.
"""

import os
import time

from . import port, snapshot
from .link import Link


def wake(tunnel):
    """Load what `put_away` kept; take it up at once where there is a network."""
    p = tunnel.profile
    tunnel._awake = snapshot.load(p, tunnel.memory, tunnel.clock.now(), wall())
    if tunnel._awake and p["network"] == "up":
        take_up(tunnel)


def take_up(tunnel):
    """Go on with the SA that outlived the sleep; where that fails a new one is made."""
    awake, tunnel._awake = tunnel._awake, None
    try:
        Link(tunnel, awake.host, awake)
    except OSError:
        pass  # its port is taken, or there is no network


def put_away(tunnel):
    """Keep the SA of a tunnel and let go of its link; True when `wake` can take it up."""
    link = tunnel._link
    memory = tunnel.memory
    if not link or tunnel._next:
        return False
    clock = memory.clock(tunnel.clock.now() - link.born)
    window = link.receiver.window
    # Answers used to come, and now they don't: the gateway may have lost the SA, or the
    # link a datagram.  One time in four the next wake-up makes a new SA.
    silent = link.waiting is not None and window.top and not link.heard
    if silent and port.noise(1)[0] < 64:
        memory.erase()
    elif link.snapshot.save(link.sender.packets, window, clock):
        tunnel._link = None
        link.close()
        return True
    return False


def wall():
    """Return the wall clock in milliseconds; its epoch is the board's."""
    return time.time_ns() // 1000000


class Memory:
    """Where an SA outlives a sleep: RTC memory, or the files sa.bin and sa.mark in `directory`.

    With `flash` files are used even where there is RTC memory, and the wall clock is not asked.
    A write that was cut off is for the reader to notice.
    """

    def __init__(self, directory="", flash=False):
        self._flash = flash
        self._rtc = None
        if not flash:
            try:
                from machine import RTC

                self._rtc = RTC().memory
            except (ImportError, AttributeError):
                pass
        self._path = directory + "sa."
        self.writes = 0  # to flash

    def clock(self, age):
        """Return the milliseconds of the clock that runs on in a sleep, or else `age`."""
        return age if self._flash else wall()

    def read(self, name):
        """Return the piece "bin" or "mark"; None or nothing where there is none."""
        if self._rtc:
            octets = self._rtc()
            end = octets[0] + 1 if octets else 0
            return octets[1:end] if name == "mark" else octets[end:]
        try:
            with open(self._path + name, "rb") as f:
                return f.read(600)
        except OSError:
            return None

    def write(self, name, octets):
        """Keep a piece; True when a reset cannot reach it any more."""
        if self._rtc:
            mark, rest = self.read("mark"), self.read("bin")
            if name == "mark":
                mark = octets
            else:
                rest = octets
            self._rtc(bytes((len(mark),)) + mark + rest)
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
        if self._rtc:
            self._rtc(b"")
            return
        try:
            os.remove(self._path + "bin")
            self.writes += 1
        except OSError:
            pass
