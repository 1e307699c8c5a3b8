"""A Child SA that outlives a sleep: put away, and taken up again only if that is safe.

Two pieces lie in a sleep.Memory.  "bin" is what never changes: keys, SPIs, addresses, the wall
clock at the SA's birth.  It has no IKE SA, since a copy would repeat its counters.  "mark" is the
rest, valid only with its "bin": an SN above all that were ever used, the clock, the replay window.
No packet leaves before a mark above its SN is there.  The profile key `sleep` chooses a policy:

"clock"  Both pieces lie in memory that survives the sleep and costs no flash, where the board has
         it.  A wake-up goes on above the mark and above the SA's age in milliseconds by the wall
         clock.  No SN was ever above the age at which it went out, so even an older copy that
         comes back repeats none.
"mark"   For boards whose clock starts anew.  Both pieces lie in files, and the mark alone counts.

A snapshot is refused, and a new IKE SA made, if it is not whole, belongs to another profile or SA,
is older than the SA may become, or contradicts the clock (draft-minimal-esp §4, RFC 9333 §10).
Cannot be detected: a restored "mark" (and, with "clock", a wall clock set back with it).
"""

import struct
from hashlib import sha256
from micropython import const

from .sequence import ReplayWindow, Sequence

_CHECK = const(8)  # octets of SHA-256
_AHEAD = const(16)  # after a reset a mark may be so many SNs ahead of the SA's age
_ALL = const(0xFFFFFFFFFFFFFFFF)  # a window with this top, all seen, lets nothing in
_SEEN = (1 << 128) - 1

_HEAD = const(">QBBBH4B")  # birth, octets of key and address, which gateway, _NUMBERS
_SIZE = const(17)
_NUMBERS = ("port", "cipher", "transport", "esn", "nat")
_OCTETS = ("spi_in", "spi_out", "key_out", "key_in", "inner", "server")
_STATE = const(">QQIQ16sBI")  # clock, last SN, packets, window's top and bits, silent, life

# Why a snapshot is refused.
_TORN = "NOT_WHOLE"  # one of its pieces is not there
_SEAL = "BAD_SEAL"  # cut off, damaged, or of another profile or version
_BACK = "CLOCK_WENT_BACK"
_AGE = "TOO_OLD"


class Refused(Exception):
    """There is a snapshot, but it proves too little; the text is the reason."""


def _digest(octets):
    return sha256(octets).digest()[:_CHECK]


def _seal(profile, octets):
    # Any change of the profile, or of this module's version, ends the SA.  `words` is left out:
    # its keys are tuples, whose order may differ at each boot.
    return _digest(octets + repr((6, dict(profile, words=0))).encode())


class Snapshot:
    """One Child SA: what it goes on with, and how that is kept.

    `child` is as auth._child returns it, with nat and port; `host` the gateway's name; `age`
    in milliseconds and `packets` so far; `numbers` its sequence.Sequence; `window` its
    sequence.ReplayWindow.  It is made of its two pieces, `octets` and `mark`; `state` is what the
    mark says, see _STATE.
    """

    def __init__(self, profile, memory, octets, mark, state, now, age):
        # `silent` are wake-ups in a row without an answer.  `life` is the age in ms at which a new
        # SA is due; the gateway may shorten it (RFC 4478).
        self.clock, last, self.packets, top, seen, self.silent, self.life = state
        _, k, a, i, *numbers = struct.unpack_from(_HEAD, octets)
        numbers += struct.unpack_from("4s4s%ds%ds%ds%ds" % (k, k, a, a), octets, _SIZE)
        self.child = child = dict(zip(_NUMBERS + _OCTETS, numbers))
        self.host = profile["gateway"][i]
        # After a reset without a farewell its window is closed, so a new SA is due at once.
        self.age = profile["lifetime_ms"] if top == _ALL else age
        self.window = ReplayWindow(profile["replay_window"], top, int.from_bytes(seen, "big"))
        self.mark = mark  # if memory holds another mark, another wake-up goes on with this SA
        self._memory = memory
        self.octets = octets
        self._seal = _seal(profile, octets)
        tick = paced = None
        if profile["sleep"] == "clock":
            tick, paced = profile["sn_tick_ms"], age
            last = max(last, age)
        self.numbers = Sequence(now - age, tick, last, child["esn"], self._reserve, paced)

    def _reserve(self, last):
        # Without its "bin" in memory no wake-up can go on with this SA, so no mark is needed.
        return self._write(last) or not self.mark

    def _write(self, last, top=_ALL, seen=_SEEN):
        memory = self._memory
        if self.mark and memory.read("mark") != self.mark:
            return False
        bits = seen.to_bytes(16, "big")
        packets = min(self.packets, 0xFFFFFFFF)
        mark = struct.pack(_STATE, self.clock, last, packets, top, bits, self.silent, self.life)
        mark += _digest(mark + self._seal)
        if self.mark:
            self.mark = mark
        return memory.write("mark", mark)

    def shorten(self, life):
        """A new SA is due at an age of `life` milliseconds, if not before."""
        self.life = min(self.life, life)

    def save(self, packets, window, clock, silent=0):
        """Put the SA away: it gives out no SN any more.  Return True when it is safe in memory.

        `clock` is the wall clock, with "mark" the SA's age, in milliseconds; `silent` counts the
        wake-ups in a row without an answer, this one included.
        """
        numbers = self.numbers
        numbers.end()
        self.packets = packets
        self.clock = clock
        self.silent = silent
        memory = self._memory
        return self._write(numbers.last, window.top, window.seen) and (
            memory.read("bin") == self.octets or memory.write("bin", self.octets)
        )


def fresh(profile, memory, child, host, now, clock):
    """Return the Snapshot of a new SA; an older one's is forgotten."""
    memory.erase()
    values = [child[key] for key in _OCTETS]
    head = len(values[2]), len(values[4]), profile["gateway"].index(host)
    octets = struct.pack(_HEAD, clock, *head, *[child[key] for key in _NUMBERS])
    octets += b"".join(values)
    state = clock, 0, 0, 0, b"", 0, profile["lifetime_ms"]
    return Snapshot(profile, memory, octets, None, state, now, 0)


def load(profile, memory, now, wall):
    """Return the Snapshot of the SA in memory, None where there is none; raise Refused.

    `now` is the monotonic clock by which the SA goes on, `wall` the wall clock, milliseconds.
    """
    octets = memory.read("bin")
    mark = memory.read("mark")
    if not octets:
        return None
    if not mark:
        raise Refused(_TORN)
    body = mark[:-_CHECK]
    if body + _digest(body + _seal(profile, octets)) != mark:
        raise Refused(_SEAL)
    state = struct.unpack(_STATE, body)
    clock, last, _, _, _, _, life = state
    age = clock + profile["interval_ms"]
    if profile["sleep"] == "clock":
        age = wall - struct.unpack_from(_HEAD, octets)[0]
        if wall < clock or last > age + _AHEAD:
            raise Refused(_BACK)
    if age >= life:
        raise Refused(_AGE)
    return Snapshot(profile, memory, octets, mark, state, now, age)
