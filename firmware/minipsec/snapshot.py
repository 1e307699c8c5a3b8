"""A Child SA that outlives a sleep: put away, and taken up again only when that is safe.

A snapshot holds keys, SPIs, addresses, the SA's age, the last SN and the replay window; no IKE
SA, whose counters a copy would repeat.  Two policies, the profile key `sleep`:

"clock"  The snapshot lies in memory that survives the sleep, and costs no flash.  Taking it up
         erases it first, so that no two wake-ups go on from the same SN.  The wall clock carries
         the SN on by the time slept.
"mark"   For boards whose clock starts anew.  The snapshot lies in a file, written once an SA, and
         beside it a mark: no SN above it was ever used.  A wake-up goes on behind the mark, and a
         new one is in the file before the first packet leaves.

What is not whole, of another version, of another profile, or of doubtful age is refused: None,
and a new IKE SA is made (draft-minimal-esp §4, RFC 9333 §10).
"""

import struct
from hashlib import sha256
from micropython import const

from .sequence import ReplayWindow, Sequence

_VERSION = const(1)
_MAX = const(512)
_CHECK = const(8)  # octets of SHA-256 over what stands before them
_STEP = const(64)  # SNs that a mark reserves
_MAX_SLEEP_MS = const(400 * 86400 * 1000)

_TRANSPORT = const(1)
_IIV = const(2)
_ESN = const(4)
_NAT = const(8)
_CLEAN = const(1)

# version, flags, ICV, octets of key, of inner address, of gateway; our port; profile; age and wall clock in
# ms; packets; last SN; window's top and bits
_FIXED = ">BBBBBBH8sQQIQQ16s"
_MARK = ">B8sQBQ16s"


class Asleep:
    """Stands for the IKE SA that did not outlive the sleep: says and knows nothing."""

    asleep = True
    floated = True
    spi_i = b""

    def __init__(self, child):
        self.nat = child["nat"]
        self.drops = {}

    def receive(self, datagram, now):
        """Count an IKE message that nobody can read any more."""
        self.drops["NO_IKE_SA"] = self.drops.get("NO_IKE_SA", 0) + 1

    def fail(self, kind, detail):
        """End with an event, as a Machine does."""
        self._event = ("failed", kind, detail)

    def next_event(self):
        """Return the event of `fail`, or None."""
        event, self._event = self._event, None
        return event

    def nothing(self):
        """Return None: nothing to send, no timer."""

    _event = None
    poll_out = next_timer = nothing


def _sealed(octets):
    return octets + sha256(octets).digest()[:_CHECK]


def _opened(octets):
    """Return the octets without their check, or None."""
    body = octets[:-_CHECK]
    return (
        body if len(body) > _CHECK and sha256(body).digest()[:_CHECK] == octets[-_CHECK:] else None
    )


def _fingerprint(profile):
    """Return 8 octets that change with each key of the profile that shapes an SA."""
    h = sha256()
    for key in (
        "gateways",
        "id",
        "server",
        "server_port",
        "inner_port",
        "natt_port",
        "mode",
        "esp",
    ):
        h.update(repr(profile[key]).encode())
    for key in ("sn_tick_ms", "sleep", "encap"):
        h.update(repr(profile[key]).encode())
    return h.digest()[:8]


def _window(receiver):
    window = receiver.window if receiver else ReplayWindow()
    return window.top, window.seen.to_bytes(16, "big")


def pack(profile, child, sender, receiver, host, age, wall):
    """Return a snapshot: at most 512 octets, to be kept as secret as the PSK.

    `host` is the gateway's name or address; `age` the SA's milliseconds so far, `wall` the wall
    clock's.
    """
    flags = 0
    for bit, key in ((_TRANSPORT, "transport"), (_IIV, "iiv"), (_ESN, "esn"), (_NAT, "nat")):
        if child.get(key):
            flags |= bit
    host = host.encode()
    key = child["key_out"]
    top, seen = _window(receiver)
    octets = struct.pack(
        _FIXED,
        _VERSION,
        flags,
        child["icv"],
        len(key),
        len(child["inner"]),
        len(host),
        child["port"],
        _fingerprint(profile),
        age,
        wall,
        sender.packets,
        sender.numbers.last,
        top,
        seen,
    )
    octets += child["spi_in"] + child["spi_out"] + key + child["key_in"]
    octets = _sealed(octets + child["inner"] + child["server"] + host)
    if len(octets) > _MAX:
        raise ValueError
    return octets


def unpack(profile, octets):
    """Return (child, host, age, wall, packets, last SN, replay window), or None."""
    size = struct.calcsize(_FIXED)
    body = _opened(octets)
    if body is None or len(body) < size or body[0] != _VERSION:
        return None
    _, flags, icv, k, a, h, port, mine, age, wall, packets, last, top, seen = struct.unpack_from(
        _FIXED, body
    )
    if mine != _fingerprint(profile) or len(body) != size + 8 + 2 * (k + a) + h:
        return None
    parts = []
    for n in (4, 4, k, k, a, a, h):
        parts.append(bytes(body[size : size + n]))
        size += n
    child = {
        "spi_in": parts[0],
        "spi_out": parts[1],
        "key_out": parts[2],
        "key_in": parts[3],
        "inner": parts[4],
        "server": parts[5],
        "icv": icv,
        "port": port,
        "transport": bool(flags & _TRANSPORT),
        "iiv": bool(flags & _IIV),
        "esn": bool(flags & _ESN),
        "nat": bool(flags & _NAT),
    }
    window = ReplayWindow(profile["replay_window"], top, int.from_bytes(seen, "big"))
    return child, parts[6].decode(), age, wall, packets, last, window


def _mark(child, last, clean, receiver=None):
    ident = sha256(child["key_out"] + child["spi_out"]).digest()[:8]
    return _sealed(struct.pack(_MARK, _VERSION, ident, last, clean, *_window(receiver)))


def save(profile, child, sender, receiver, host, age, wall, memory):
    """Put an SA away; True when it is safe there.  `memory` is a port.Memory."""
    if profile["sleep"] == "mark":
        # The mark goes first: a snapshot without one is refused.
        if not memory.write_mark(_mark(child, sender.numbers.last, bool(receiver), receiver)):
            return False
        if memory.read():
            return True  # this SA's own: a new SA erases what was there
    return memory.write(pack(profile, child, sender, receiver, host, age, wall))


def load(profile, now, wall, memory):
    """Return (child, host, packets, Sequence, replay window, age in ms), or None.

    `now` is the monotonic clock by which the SA goes on, `wall` the wall clock, milliseconds.
    Without a replay window nothing that comes in can be trusted to be new.
    """
    octets = memory.read()
    found = octets and unpack(profile, octets)
    if not found:
        return None
    child, host, age, then, packets, last, window = found
    if profile["sleep"] == "clock":
        # Erased before anything can be sent: this SN state is used once.
        slept = max(wall - then, 0)
        if not memory.erase() or slept > _MAX_SLEEP_MS:
            return None
        age += slept
        numbers = Sequence(now - age, profile["sn_tick_ms"], last, child["esn"])
        return child, host, packets, numbers, window, age
    octets = memory.read_mark() or b""
    mark = _opened(octets)
    if mark is None or len(mark) != struct.calcsize(_MARK):
        return None
    _, _, last, clean, top, seen = struct.unpack(_MARK, mark)
    window.top, window.seen = top, int.from_bytes(seen, "big")
    if mark[:9] != _mark(child, 0, 0)[:9]:
        return None  # another version's, or another SA's
    if not clean:
        window = None  # a reset without a farewell: what came in last is not known
    return child, host, packets, reserved(child, last, memory), window, age


def reserved(child, last, memory):
    """Return the Sequence of the "mark" policy: a counter whose marks go to `memory`."""
    return Sequence(
        0, 0, last, child["esn"], lambda mark: memory.write_mark(_mark(child, mark, 0)), _STEP
    )
