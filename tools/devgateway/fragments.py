"""IKE fragmentation (RFC 7383): splitting what we send, joining what comes.

A fragment is protected alone; what is stored here has passed its ICV.
"""

import hashlib
import struct
from typing import NamedTuple

from .numbers import P
from .wire import HEADER_SIZE, Header, WireError

SKF_PREFIX = 8  # generic payload header, Fragment Number, Total Fragments
MAX_FRAGMENTS = 64  # of one message that we accept
MAX_MESSAGE = 65536  # octets of one joined message
DEFAULT_LIMIT = {4: 576, 6: 1280}  # whole IP datagrams (§2.5.1)
IP_UDP_SIZE = {4: 28, 6: 48}
MARKER_SIZE = 4


class Fragment(NamedTuple):
    """An SKF payload before it is opened; `first` is its Next Payload octet."""

    number: int
    total: int
    first: int
    flags: int
    sealed: bytes
    aad: bytes
    digest: bytes


def parse_fragment(data, payload):
    """`Fragment` of the SKF `payload` that ends the message `data`; WireError if impossible."""
    if len(payload.body) < 4:
        raise WireError("BAD_FRAGMENT")
    number, total = struct.unpack_from(">HH", payload.body)
    if not 1 <= number <= total or total > MAX_FRAGMENTS:
        raise WireError("BAD_FRAGMENT")
    if (payload.inner == P.NONE) != (number > 1):
        # §2.5: only fragment 1 tells the first inner type. An empty message is never split.
        raise WireError("BAD_FRAGMENT")
    start = len(data) - len(payload.body) + 4
    return Fragment(
        number,
        total,
        payload.inner,
        data[HEADER_SIZE + 1],
        data[start:],
        data[:start],
        hashlib.sha256(data).digest(),
    )


def message_limit(fragment_size, ip_version, marker):
    """Octets of the largest IKE message, given the largest IP datagram (0: the default)."""
    size = fragment_size or DEFAULT_LIMIT[ip_version]
    return size - IP_UDP_SIZE[ip_version] - (MARKER_SIZE if marker else 0)


def split(cipher, header, first, inner, limit, rand):
    """IKE messages of at most `limit` octets that carry `inner` in SKF payloads (§2.5)."""
    room = max(1, cipher.room(limit - HEADER_SIZE - SKF_PREFIX))
    pieces = [inner[at : at + room] for at in range(0, len(inner), room)]
    if len(pieces) > 0xFFFF:
        raise ValueError("message too long for its fragment size")
    messages = []
    for index, piece in enumerate(pieces):
        size = SKF_PREFIX + cipher.sealed_size(len(piece))
        head = header._replace(next_payload=P.SKF, length=HEADER_SIZE + size)
        aad = head.encode() + struct.pack(
            ">BBHHH", first if index == 0 else 0, 0, size, index + 1, len(pieces)
        )
        messages.append(aad + cipher.seal(aad, piece, rand))
    return messages


class Joined(NamedTuple):
    """A whole protected message in clear.

    `flags` is the octet after Next Payload in the SK header, which IntAuth covers. `digests` are
    those of the datagrams that, when they come again, ask for our answer again.
    """

    header: Header
    first: int
    flags: int
    inner: bytes
    digests: frozenset
    total: int = 1


class Reassembly:
    """The fragments of one message. `arrived` is when the latest new one came."""

    def __init__(self, header, now, expires):
        self.header = header
        self.total = 0
        self.arrived = now
        self.expires = expires
        self._size = 0
        self._pieces = {}  # number -> (Fragment, plain octets)

    def known(self, fragment):
        """Raise for a fragment of no use; True for an exact copy of a stored fragment."""
        if fragment.total < self.total:
            raise WireError("FRAGMENT_TOTAL")
        if fragment.total > self.total or fragment.number not in self._pieces:
            return False
        if self._pieces[fragment.number][0].digest != fragment.digest:
            raise WireError("FRAGMENT_DIFFERS")
        return True

    def add(self, fragment, plain, now):
        """Store a fragment whose ICV was right; a larger Total starts anew (§2.6)."""
        if not plain:
            raise WireError("EMPTY_FRAGMENT")
        if fragment.total > self.total:
            self._pieces.clear()
            self._size = 0
            self.total = fragment.total
        if self._size + len(plain) > MAX_MESSAGE:
            raise WireError("MESSAGE_TOO_LONG")
        self._pieces[fragment.number] = (fragment, plain)
        self._size += len(plain)
        self.arrived = now

    def missing(self):
        """Numbers not here yet, ascending."""
        return [n for n in range(1, self.total + 1) if n not in self._pieces]

    def join(self, any_digest=False):
        """`Joined`, or None while something is missing.

        A resend of fragment 1 asks for the answer again (§2.6.1); of any fragment with
        `any_digest`.
        """
        if not self.total or len(self._pieces) < self.total:
            return None
        parts = [self._pieces[number] for number in range(1, self.total + 1)]
        first = parts[0][0]
        digests = {part[0].digest for part in (parts if any_digest else parts[:1])}
        inner = b"".join(part[1] for part in parts)
        return Joined(self.header, first.first, first.flags, inner, frozenset(digests), self.total)
