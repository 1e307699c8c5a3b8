"""What every IKEv2 exchange shares: dispatch, protection, fragments, retransmission.

A `Machine` is one IKE SA without I/O.  Its owner hands in datagrams by `receive` and the passing
of time by `timer`; after each call it takes what `poll_out` and `next_event` return, until they
return None, and calls `timer` again at `next_timer`.  A datagram here is a UDP payload, the
non-ESP marker included where one belongs.

All that changes state goes through a table: (state, exchange, is it a response) leads to the
handler and to the states in which it may end.  What is not in the table is dropped and counted.
"""

import struct
from hashlib import sha256
from micropython import const

from . import wire
from .wire import Drop

_IKE_SA_INIT = const(34)

_I = const(0x08)
_R = const(0x20)

_SA = const(33)
_N = const(41)
_VENDOR = const(43)
_SK = const(46)
_SKF = const(53)
_LAST_KNOWN = const(48)  # payload types 33..48 are RFC 7296's own

_UNSUPPORTED_CRITICAL_PAYLOAD = const(1)
_INVALID_SYNTAX = const(7)

_MAX_MESSAGE = const(3000)
_QUEUE_MS = const(30000)  # life of an incomplete request of the peer's
_MARKER = b"\0\0\0\0"

_S_IDLE = const(0)
_S_DEAD = const(6)
STATES = ("IDLE", "IKE_SA_INIT", "IKE_INTERMEDIATE", "IKE_AUTH", "UP", "DELETING", "DOWN")


class Machine:
    """One IKE SA of ours, as the original initiator.

    `profile` is what store.load_profile returns; `rand(n)` returns n random octets.
    """

    def __init__(self, profile, rand):
        self.profile = profile
        self.rand = rand
        self.state = _S_IDLE
        self.drops = {}
        # From here on datagrams go to natt_port and carry the non-ESP marker.
        self.floated = profile["port"] == profile["natt_port"]
        self.reply = False  # was the last datagram of poll_out an answer to a request?
        self.fragmentation = False  # negotiated (RFC 7383)
        self.room = 0  # octets of UDP payload that one datagram of ours may have
        self.spi_i = spi(rand, 8)
        self.spi_r = bytes(8)
        self.rtt = 0  # of the last exchange that needed no resend, ms
        self._acks = None  # a fragack.Acks once that is negotiated
        self._table = {}
        self._out = []
        self._events = []
        self._request = None  # datagrams of the outstanding request
        self._exchange = 0
        self._mid = 0  # Message ID of our next or outstanding request
        self._peer_mid = 0  # Message ID that the peer's next request must have
        self._answered = None  # (digest of the peer's last request, our answer)
        self._queues = {}  # incomplete messages: {is it a response: Reassembly}
        self._queue_due = None
        self._sent = 0
        self._tries = 0
        self._interval = 0
        self._due = None
        self._iv = 0
        self._ending = None  # the event with which this SA ends once an answer is out
        self._tx = self._rx = None

    # The owner's side.

    def receive(self, datagram, now):
        """Take one datagram from the network; True when it was meant for this SA and was new.

        Raises nothing, whatever the octets: what does not fit is dropped and counted in `drops`.
        """
        try:
            self._receive(datagram, now)
            return True
        except Drop as e:
            self.count(e.args[0])
            return False

    def timer(self, now):
        """Do what is due at `now`: resend, ask for fragments, give up."""
        if self._queue_due is not None and now >= self._queue_due:
            self._queue_due = None
            self._queues.pop(False, None)
        if self._acks:
            self._acks.timer(self, now)
        if self._due is None or now < self._due:
            return
        if self._tries >= self.profile["retransmit_tries"]:
            self.fail("timeout", self._exchange)
            return
        self._tries += 1
        self._interval *= 2
        self._due = now + self._interval
        self.on_resend()
        datagrams = self._request
        if self._acks:
            datagrams = self._acks.resend(datagrams)
        for datagram in datagrams:
            self._out.append((False, datagram))

    def on_resend(self):
        """Take note of a resend by timer."""

    def next_timer(self):
        """Return the time at which `timer` wants to be called, or None."""
        due = self._due
        for other in (self._queue_due, self._acks.next_timer() if self._acks else None):
            if other is not None and (due is None or other < due):
                due = other
        return due

    def poll_out(self):
        """Return the next datagram to send, or None; `reply` then tells what kind it is.

        A reply goes to where the request came from, all else to the gateway.
        """
        if not self._out:
            return None
        self.reply, datagram = self._out.pop(0)
        return datagram

    def next_event(self):
        """Return the next event, or None."""
        return self._events.pop(0) if self._events else None

    def count(self, reason):
        """Count one dropped datagram."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    # Receiving.

    def _receive(self, datagram, now):
        view = memoryview(datagram)
        if len(view) >= 4 and bytes(view[:4]) == _MARKER:
            view = view[4:]
        if len(view) > _MAX_MESSAGE:
            raise Drop("BAD_LENGTH")
        spi_i, spi_r, first, exchange, flags, mid = wire.parse_header(view)
        if spi_i != self.spi_i:
            raise Drop("UNKNOWN_SPI")
        if flags & _I:
            raise Drop("REFLECTED")
        response = bool(flags & _R)
        row = self._table.get((self.state, exchange, response))
        if row is None:
            raise Drop("UNEXPECTED")
        if exchange == _IKE_SA_INIT:
            if mid:
                raise Drop("OLD_MESSAGE_ID")
            self._view = view
            row[0](self, wire.payloads(first, view, 28), now)
            return
        if spi_r != self.spi_r:
            raise Drop("UNKNOWN_SPI")
        digest = None
        if not response:
            digest = sha256(view).digest()
            if self._answered and self._answered[0] == digest:
                for answer in self._answered[1]:
                    self._out.append((True, answer))
                return
        if mid != (self._mid if response else self._peer_mid):
            raise Drop("OLD_MESSAGE_ID")
        if response and (exchange != self._exchange or self._request is None):
            raise Drop("OLD_MESSAGE_ID")
        got = self._open(first, view, response, mid, now)
        if got is None:
            return  # a fragment, or an acknowledgment of ours
        first, plain = got
        if response:
            row[0](self, wire.payloads(first, plain, 0), now)
            return
        answer = self._serve(row[0], first, plain, now)
        self._queue_due = None
        self._peer_mid += 1
        # A request in fragments is answered again when its fragment 1 comes again.
        self._answered = digest, self.protect(exchange, _I | _R, mid, answer)
        for answer in self._answered[1]:
            self._out.append((True, answer))
        if self._ending:
            self.event(*self._ending)
            self.end()

    def _serve(self, handler, first, plain, now):
        """Return the payloads that answer a peer's request, whose ICV was right."""
        try:
            payloads = wire.payloads(first, plain, 0)
        except Drop as e:
            self.count(e.args[0])
            return [(_N, wire.notify(_INVALID_SYNTAX))]
        for kind, critical, _ in payloads:
            if critical and not _SA <= kind <= _LAST_KNOWN:
                self.count("CRITICAL_PAYLOAD")
                return [(_N, wire.notify(_UNSUPPORTED_CRITICAL_PAYLOAD, bytes((kind,))))]
        return handler(self, payloads, now)

    def _open(self, first, view, response, mid, now):
        """Return (first payload, plaintext) of the SK or SKF payload, which must be the last.

        None when there is nothing to handle yet.
        """
        outer = wire.payloads(first, view, 28)
        kind = outer[-1][0] if outer else 0
        if kind != _SK and kind != _SKF:
            raise Drop("NOT_PROTECTED")
        _, first, body = outer[-1]
        aad = len(view) - len(body)
        if kind == _SKF:
            return self._gather(first, body, view, aad + 4, response, mid, now)
        plain = self._rx.open(view[:aad], body)
        if plain is None:
            raise Drop("BAD_ICV")
        if self._acks and self._acks.takes(self, first, plain, response, now):
            return None
        self._queues.pop(response, None)
        return first, memoryview(plain)

    def _gather(self, first, body, view, aad, response, mid, now):
        """Keep one fragment; return the whole message when it was the last that missed."""
        if not self.fragmentation:
            raise Drop("UNEXPECTED_FRAGMENT")
        if len(body) < 4:
            raise Drop("BAD_LENGTH")
        number, total = struct.unpack_from(">HH", body)
        from .fragment import MAX_OCTETS, Reassembly

        queue = self._queues.get(response)
        if queue is None or queue.mid != mid:
            queue = Reassembly(mid)
        reason = queue.refuses(number, total)
        if reason:
            if self._acks and reason == "REPLAYED_FRAGMENT":
                self._acks.saw_resend(queue, response, now)
            raise Drop(reason)
        piece = self._rx.open(view[:aad], body[4:])
        if piece is None:
            raise Drop("BAD_ICV")
        self._queues[response] = queue
        # Both queues together stay inside the bound of one.
        if sum(q.octets for q in self._queues.values()) + len(piece) > MAX_OCTETS or not queue.add(
            number, total, first, piece
        ):
            del self._queues[response]
            raise Drop("BAD_FRAGMENT")
        if queue.complete():
            del self._queues[response]
            if self._acks:
                self._acks.stop(response)
            first, plain = queue.join()
            return first, memoryview(plain)
        if not response:
            self._queue_due = now + _QUEUE_MS
        if self._acks:
            self._acks.arm(self, queue, response, now)
        return None

    # Sending.

    def protect(self, exchange, flags, mid, payloads):
        """Return the datagrams of a message with an SK payload, or with SKF payloads."""
        first, plain = wire.chain(payloads)
        n = len(plain)
        room = self.room - (4 if self.floated else 0)
        if not self.fragmentation or 32 + self._tx.size(n) <= room:
            return [self.seal(exchange, flags, mid, _SK, first, b"", plain)]
        from .fragment import split

        size = room - 36
        while 36 + self._tx.size(size) > room:
            size -= 1
        pieces = split(first, plain, size)
        total = len(pieces)
        datagrams = []
        for first, piece in pieces:
            place = struct.pack(">HH", len(datagrams) + 1, total)
            datagrams.append(self.seal(exchange, flags, mid, _SKF, first, place, piece))
        return datagrams

    def seal(self, exchange, flags, mid, kind, first, place, plain):
        """Return one datagram with an SK payload, or SKF with its fragment numbers in `place`."""
        size = 4 + len(place) + self._tx.size(len(plain))
        head = wire.header(self.spi_i, self.spi_r, kind, exchange, flags, mid, 28 + size)
        head += struct.pack(">BBH", first, 0, size) + place
        # One counter for every ciphertext under this key, whatever it belongs to.
        self._iv += 1
        return self.marked(head, self._tx.seal(head, struct.pack(">Q", self._iv), plain))

    def marked(self, *parts):
        """Join the parts of a datagram, behind the non-ESP marker on port 4500."""
        return b"".join((_MARKER,) + parts if self.floated else parts)

    def send_request(self, exchange, datagrams, now):
        """Send a request and keep its octets for resends, which are identical (RFC 7296 §2.1)."""
        self._exchange = exchange
        self._request = datagrams
        self._sent = now
        self._tries = 1
        self._interval = self.profile["retransmit_ms"]
        self._due = now + self._interval
        for datagram in datagrams:
            self._out.append((False, datagram))

    def request(self, exchange, payloads, now):
        """Send a protected request; False while another one is outstanding."""
        if self._request is not None:
            return False
        self.send_request(exchange, self.protect(exchange, _I, self._mid, payloads), now)
        return True

    def answer_came(self, now):
        """Close the outstanding exchange: its answer is here."""
        if self._tries == 1:
            self.rtt = now - self._sent
        self._request = None
        self._due = None
        self._queues.pop(True, None)
        if self._acks:
            self._acks.done()
        self._mid += 1

    def once(self, exchange, payloads):
        """Send a protected request as a last word that waits for no answer."""
        for datagram in self.protect(exchange, _I, self._mid, payloads):
            self._out.append((False, datagram))
        self._mid += 1

    # States.

    def end_after_answer(self, *event):
        """End with this event, once the request at hand is answered."""
        self._ending = event

    def fail(self, kind, detail):
        """End with a ("failed", ...) event."""
        self.end()
        self.event("failed", kind, detail)

    def end(self):
        """Stop everything and let go of the keys."""
        self._request = self._due = self._answered = self._acks = self._queue_due = None
        self._tx = self._rx = None
        self._queues.clear()
        self.go(_S_DEAD)

    def go(self, state):
        """Enter a state and say so."""
        self.state = state
        self.event("state", STATES[state])

    def event(self, *event):
        """Have an event for the owner."""
        self._events.append(event)


def spi(rand, n):
    """Return a random SPI of `n` octets, not within 0..255 nor looking like a non-ESP marker."""
    while True:
        value = rand(n)
        if bytes(value[:3]) != b"\0\0\0":
            return bytes(value)


def sort(payloads):
    """Return ({type: body}, [(notify type, data)], [vendor ID]) of a response's payloads."""
    found = {}
    notifies = []
    vendors = []
    for kind, critical, body in payloads:
        if kind == _N:
            notifies.append(wire.parse_notify(body)[:2])
        elif kind == _VENDOR:
            vendors.append(bytes(body))
        elif kind in found:
            raise Drop("BAD_PAYLOAD")
        elif _SA <= kind <= _LAST_KNOWN:
            found[kind] = body
        elif critical:
            raise Drop("CRITICAL_PAYLOAD")
    return found, notifies, vendors
