"""Our part of RTC memory, which the application may use as well.

It is there only during a sleep, behind what the application has there.  The first import of
minipsec takes it out.  From then until the next sleep all of the memory is the application's.
"""

import struct
from binascii import crc32
from micropython import const

_ROOM = const(2048)  # octets, on an ESP32
_MARKED = const(0x6D70)
_END = ">IHHH"  # CRC of our octets, how many, the same inverted, _MARKED
_END_SIZE = const(10)

_taken = None  # what the first import took out, until `take` is called


def take(memory):
    """Return (our octets, None), or (b"", the reason) if lost; `memory` is RTC().memory."""
    global _taken
    taken = _look(memory) or _taken or (b"", None)
    _taken = None
    return taken


def put(memory, octets):
    """Put our octets behind the application's; return False where they do not fit."""
    n = len(octets)
    theirs = memory()
    if len(theirs) + n + _END_SIZE > _ROOM:
        return False
    try:
        memory(theirs + octets + struct.pack(_END, crc32(octets), n, n ^ 0xFFFF, _MARKED))
    except (OSError, ValueError):
        return False  # this board has less RTC memory
    return True


def put_back():
    """Before a sleep, put back what nobody has taken: the next wake-up may."""
    if _taken:
        from machine import RTC

        put(RTC().memory, take(RTC().memory)[0])


def _look(memory):
    octets = memory()
    at = len(octets) - _END_SIZE
    if at >= 0:
        crc, n, inverted, magic = struct.unpack_from(_END, octets, at)
        if magic == _MARKED and n ^ inverted == 0xFFFF and n <= at:
            memory(octets[: at - n])
            found = octets[at - n : at]
            return (found, None) if crc32(found) == crc else (b"", "DAMAGED")


def _start():
    global _taken
    try:
        import machine

        memory = machine.RTC().memory
        _taken = _look(memory)
        # Every sleep begins with our part in place, even an empty one.
        if not _taken and memory() and machine.reset_cause() == machine.DEEPSLEEP_RESET:
            _taken = b"", "OVERWRITTEN"
    except (ImportError, AttributeError):
        pass
    except Exception as e:
        # Raise nothing: a board whose import of minipsec fails stops at the prompt.
        _taken = b"", repr(e)


_start()
