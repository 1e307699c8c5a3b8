"""IKE message fragmentation: cutting and joining plaintext (RFC 7383 §2.5, §2.6).

It also holds what an IkeSa does about missing fragments, by `fragack`.  Loaded for the first
message that is too large for one datagram.
"""

import struct
from micropython import const

from . import wire
from .wire import Drop

# RFC 7296 §3.1, §3.2
_I = const(0x08)
_R = const(0x20)
_N = const(41)
_SK = const(46)
_SKF = const(53)
# Draft -02, from the private range
_FRAGMENT_ACK_REQ = const(50202)
_FRAGMENT_ACK_RES = const(50203)

# Ours.
_S_UP = const(4)  # a state of an IkeSa
_QUEUE_MS = const(30000)  # life of an incomplete request of the peer's
MAX_FRAGMENTS = const(64)
MAX_OCTETS = const(8192)  # of one message, both ways


def split(sa, exchange, flags, mid, first, plain, room):
    """Return the datagrams of a message in SKF payloads, each with at most `room` octets.

    The first piece names the first inner payload, the others 0 (RFC 7383 §2.5.2).  Raises
    ValueError when the message is beyond our bounds.
    """
    size = room - 36
    while 36 + sa.tx.size(size) > room:
        size -= 1
    if len(plain) > size * min(MAX_FRAGMENTS, MAX_OCTETS // sa.room):
        raise ValueError("message too large")
    plain = memoryview(plain)
    total = -(-len(plain) // size)
    datagrams = []
    for at in range(0, len(plain), size):
        place = struct.pack(">HH", len(datagrams) + 1, total)
        piece = plain[at : at + size]
        datagrams.append(sa.seal(exchange, flags, mid, _SKF, 0 if at else first, place, piece))
    return datagrams


def gather(sa, outer, view, exchange, response, now):
    """Keep one fragment; if it was the last one, return the message as IkeSa._open does."""
    _, first, body = outer[-1]
    number, total = _place(body)
    queue = sa.incoming.get(response)
    if queue and (queue.exchange != exchange or queue.total < total):
        queue = None  # the peer cut it anew into smaller pieces: forget the earlier ones
    if queue and queue.has(number, total):
        if queue.reporter:
            queue.reporter.repeated(number, sa.gap, sa.rtt, now)
        raise Drop("REPLAYED_FRAGMENT")
    # Only fragment 1 may have payloads in the clear before it (RFC 7383 §2.5.3).
    if number > 1 and len(outer) > 1:
        raise Drop("BAD_FRAGMENT")
    piece = sa.open(view, body[4:])
    if not piece:
        raise Drop("BAD_FRAGMENT")
    queue = queue or Incoming(exchange, total, _reporter(sa, total))
    # A request and a response together stay within the bound of one message.
    other = sa.incoming.get(not response)
    if queue.octets + len(piece) + (other.octets if other else 0) > MAX_OCTETS:
        sa.incoming.pop(response, None)
        if response:
            sa.fail("peer", "TOO_LARGE")
        raise Drop("TOO_LARGE")
    queue.add(number, first, piece, wire.head(view, body, response) if number == 1 else None, now)
    sa.incoming[response] = queue
    if response:
        sa.request.untimed()
    if queue.complete():
        del sa.incoming[response]
        return queue.join() + (None, False)
    if queue.reporter:
        end, gap = queue.reporter.arrived(number, queue.missing(), sa.gap, sa.rtt, now)
        sa.learn(gap)
        if response:
            # The response has begun to come, and more of it may be under way.
            if False in sa.flights:
                sa.flights[False].arrived()
            sa.request.heard(end)


def _place(body):
    """Return (fragment number, total) of an SKF payload's body; Drop beyond our bounds."""
    if len(body) < 4:
        raise Drop("BAD_LENGTH")
    number, total = struct.unpack_from(">HH", body)
    if not 1 <= number <= total <= MAX_FRAGMENTS:
        raise Drop("BAD_FRAGMENT")
    return number, total


def _reporter(sa, total):
    """Return a Reporter for a message in fragments; None without agreement on it."""
    if not sa.acks:
        return None
    from .fragack import Reporter

    p = sa.profile
    return Reporter(total, p["fragment_gap_ms"], p["frag_ack_policy"] == "eager")


def timer(sa, now):
    """Do what is due for messages of which fragments are missing: resend, report."""
    for flight in sa.flights.values():
        sa.send(flight.burst(now))
    queue = sa.incoming.get(False)
    if queue and now >= queue.expires:
        del sa.incoming[False]
    for response, queue in sa.incoming.items():
        reporter = queue.reporter
        if reporter and reporter.due is not None and now >= reporter.due:
            _ask(sa, queue, response, now)


def times(sa):
    """Return when there is something to do, as a list; None: nothing."""
    found = [flight.due for flight in sa.flights.values()]
    for response, queue in sa.incoming.items():
        if not response:
            found.append(queue.expires)
        if queue.reporter:
            found.append(queue.reporter.due)
    return found


def _begun(sa):
    """Has the response begun to come?  Then the peer has all of our request.

    For all we know: when fragment 1 of it brings nothing new, it may lack some after all.
    """
    queue = sa.incoming.get(True)
    return queue and queue.reporter and not queue.reporter.nudged


def again(sa, datagrams, answer):
    """Return the datagrams of a message of ours that are to be sent again, all or some."""
    if not answer and _begun(sa):
        # Fragment 1 has the peer resend its response.
        sa.incoming[True].reporter.nudge()
        return datagrams[:1]
    return sa.flights[answer].again() if answer in sa.flights else datagrams


def _ask(sa, queue, response, now):
    """Report what is missing of a message."""
    from .fragack import fitting

    p = sa.profile
    # -02 sets R in both kinds of reports; -03 only in reports on requests.
    flags = _I if response and p["frag_ack"] != "02" else _I | _R
    mid = sa.mid if response else sa.peer_mid
    fit = fitting(sa.tx.size, sa.room)
    copies, reports = queue.reporter.ask(queue.missing(), fit, sa.gap, sa.rtt, now)
    for data in reports:
        plain = wire.chain([(_N, wire.notify(_FRAGMENT_ACK_REQ + response, data))])[1]
        sa.send([sa.seal(queue.exchange, flags, mid, _SK, _N, b"", plain)] * copies)


def acknowledged(sa, acks, iv, exchange, mid, now):
    """Act on the acknowledgments in a message whose ICV was right."""
    drops = []
    for n, ack in enumerate(acks):
        try:
            _acknowledged(sa, ack, iv + bytes((n,)), exchange, mid, now)
        except Drop as e:
            drops.append(e)
    # The message is dropped only if all of its acknowledgments are.
    if len(drops) == len(acks):
        raise drops[0]
    for drop in drops:
        sa.count(drop.args[0])


def _acknowledged(sa, ack, mark, exchange, mid, now):
    from .fragack import Flight, decode

    kind, data, _, spi_size = wire.parse_notify(ack)
    answer = kind == _FRAGMENT_ACK_RES
    message = sa.answered if answer else None if _begun(sa) else sa.request
    if (
        not message
        or message.mid != mid
        or message.exchange != exchange
        or len(message.datagrams) < 2
    ):
        raise Drop("LATE_ACK")
    if spi_size:
        raise Drop("BAD_ACK")
    missing = decode(data, len(message.datagrams))
    early = sa.state < _S_UP
    flight = sa.flights.get(answer) or Flight(message.datagrams, early)
    sa.flights[answer] = flight
    waiting = [datagram for _, datagram in sa.out]
    if flight.acknowledge(missing, mark, waiting, sa.rtt, now) and not answer:
        message.heard(now)
    timer(sa, now)


class Incoming:
    """The fragments of one message of the peer that have come so far.

    `reporter` is the fragack.Reporter that asks for the others, or None.
    """

    octets = 0
    expires = 0  # when to give up an incomplete request
    _first = 0
    _head = None  # from fragment 1: a request's digest, a response's octets in the clear

    def __init__(self, exchange, total, reporter):
        self.exchange = exchange
        self.total = total
        self.reporter = reporter
        self._parts = {}

    def has(self, number, total):
        """Is this fragment here already?  Drop if its Total is smaller (RFC 7383 §2.6)."""
        if total < self.total:
            raise Drop("BAD_FRAGMENT")
        return number in self._parts

    def add(self, number, first, piece, head, now):
        """Keep a fragment whose ICV was right; only fragment 1 needs `first` and `head`."""
        self.octets += len(piece)
        self._parts[number] = piece
        self.expires = now + _QUEUE_MS
        if number == 1:
            self._first = first
            self._head = head

    def complete(self):
        """Is every fragment there?"""
        return len(self._parts) == self.total

    def join(self):
        """Return (first inner payload, plaintext, head); let go of the pieces."""
        plain = bytearray(self.octets)
        at = 0
        for number in range(1, self.total + 1):
            piece = self._parts.pop(number)
            plain[at : at + len(piece)] = piece
            at += len(piece)
        return self._first, plain, self._head

    def missing(self):
        """Return the numbers that are missing, ascending."""
        return [n for n in range(1, self.total + 1) if n not in self._parts]
