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
_D = const(42)
_VENDOR = const(43)
_SK = const(46)
_SKF = const(53)
_LAST_KNOWN = const(48)  # payload types 33..48 are RFC 7296's own

_UNSUPPORTED_CRITICAL_PAYLOAD = const(1)
_INVALID_SYNTAX = const(7)
_AUTHENTICATION_FAILED = const(24)
_INFORMATIONAL = const(37)

_MAX_MESSAGE = const(3000)
_MAX_OUT = const(16)  # datagrams that wait to be sent while an answer is put behind them
_FLOOR_MS = const(200)  # of the retransmission interval where fragments are acknowledged
_GUESS_MS = const(125)  # least round trip taken for granted after a resend
_MARKER = b"\0\0\0\0"
_LONE = b"\0\1\0\1"  # fragment 1 of 1

_S_IDLE = const(0)
_S_DEAD = const(6)
STATES = ("IDLE", "IKE_SA_INIT", "IKE_INTERMEDIATE", "IKE_AUTH", "UP", "DELETING", "DOWN")


class Machine:
    """One IKE SA of ours, as the original initiator.

    `profile` is what store.load_profile returns; `rand(n)` returns n random octets.
    """

    state = _S_IDLE
    taken = ()  # inbound SPIs of our other SAs
    initial_contact = True  # no other SA of ours is with this gateway
    nat = None  # are we behind one? None: not known
    peer_nat = True  # may the gateway be behind one, or does it say so?
    with_ppk = False  # did a PPK go in?
    reply = False  # was the last datagram of poll_out an answer to a request?
    fragmentation = False  # negotiated (RFC 7383)
    message = None  # the response at hand: (its octets up to RESERVED of SK, plaintext)
    room = 0  # octets of UDP payload that one datagram of ours may have
    spi_r = bytes(8)
    spi_out = picked = None  # of the Child SA; what was agreed on for this one
    rtt = 0  # of the last exchange without fragments or resends, ms; 0: not known
    _rounds = 0  # IKE_SA_INITs sent anew in this retransmission interval
    _acks = None  # True when fragments may be acknowledged; then a fragack.Acks, see `acks`
    _table = {}
    _request = None  # datagrams of the outstanding request
    _exchange = 0
    _mid = 0  # Message ID of our next or outstanding request
    _peer_mid = 0  # Message ID that the peer's next request must have
    _answered = None  # (digest of the peer's last request, datagrams of our answer)
    _queue_due = None
    _sent = None  # when the request went out, where that tells the round trip
    _tries = _interval = _growth = _deadline = 0
    _due = None
    _iv = 0
    _ending = None  # the event with which this SA ends once an answer is out
    _tx = _rx = None

    def __init__(self, profile, rand):
        self.profile = profile
        self.rand = rand
        self.drops = {}
        # From here on datagrams go to natt_port and carry the non-ESP marker.
        self.floated = profile["port"] == profile["natt_port"]
        self.spi_i = spi(rand, 8)
        self._out = []
        self._events = []
        self._queues = {}  # incomplete messages: {is it a response: Reassembly}

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
        if self._acks and self._acks is not True:
            self._acks.timer(self, now)
        if self._due is None or now < self._due:
            return
        if now >= self._deadline:
            self.fail("timeout", self._exchange)
            return
        self._tries += 1
        self._interval *= self._growth
        if self._sent is not None:
            self._sent = now
        self._rounds = 0
        self.restart(now)
        self._resend(False, self._request)

    def acks(self):
        """Return the fragack.Acks of this SA, loaded with its first fragment; None without them."""
        if self._acks is True:
            from .fragack import Acks

            self._acks = Acks(self.profile)
        return self._acks

    def interval(self, ms, datagrams):
        """Return the first retransmission interval of a request; `ms` is that of the profile."""
        if self._acks and self.rtt:
            gap = self.profile["fragment_gap_ms"]
            ms = min(ms, max(_FLOOR_MS, 3 * self.rtt) + len(datagrams) * gap)
        return ms

    def _resend(self, answer, datagrams):
        if self._acks and len(datagrams) > 1:
            datagrams = self.acks().resend(self, answer)
        self.send(datagrams, answer)

    def restart(self, now):
        """Start the retransmission interval anew; the time to give up stays."""
        self._due = self._deadline
        if self._tries < self.profile["retransmit_tries"]:
            self._due = min(now + self._interval, self._due)

    def heard(self, now):
        """Start anew, tries as well: of what is under way in fragments the peer told something."""
        self._interval //= self._growth ** (self._tries - 1)
        self._tries = 1
        self.restart(now)

    def send(self, datagrams, reply=False):
        """Have datagrams for the owner to send."""
        for datagram in datagrams:
            self._out.append((reply, datagram))

    def next_timer(self):
        """Return the time at which `timer` wants to be called, or None."""
        times = [self._due, self._queue_due]
        if self._acks and self._acks is not True:
            times += self._acks.times(self)
        times = [time for time in times if time is not None]
        return min(times) if times else None

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
            row[0](self, view, now)
            return
        if spi_r != self.spi_r:
            raise Drop("UNKNOWN_SPI")
        # Of the exchange that we answered last: its request again, or an acknowledgment.
        late = self._answered if mid == self._peer_mid - 1 else None
        if late and not response and late[0] == sha256(view).digest():
            self._has_room()
            self._resend(True, late[1])
            return
        if response:
            expected = self._request and exchange == self._exchange and mid == self._mid
        else:
            expected = mid == self._peer_mid
        # After an exchange has ended, accept only acknowledgments.
        if not expected and not (late and self._acks and first >= _SK):
            raise Drop("OLD_MESSAGE_ID")
        outer = wire.payloads(first, view, 28)
        kind, first, body = outer[-1] if outer else (0, 0, b"")
        head = None
        sealed = body
        if kind == _SKF:
            if not self.fragmentation:
                raise Drop("UNEXPECTED_FRAGMENT")
            if bytes(body[:4]) == _LONE:
                # A whole message in one fragment is what it would be in an SK payload.
                kind = _SK
                sealed = body[4:]
        if kind == _SKF:
            if not expected:
                raise Drop("OLD_MESSAGE_ID")
            from .fragment import gather

            got = gather(self, outer, view, exchange, response, now)
            if not got:
                return
            first, plain, head = got
        elif kind == _SK:
            plain = self.unseal(view, sealed)
        else:
            raise Drop("NOT_PROTECTED")
        plain = memoryview(plain)
        try:
            payloads = wire.payloads(first, plain, 0)
        except Drop:
            if response:
                raise
            payloads = None
        acks = self._acks_in(payloads or (), response)
        if acks:
            if not self._acks or kind != _SK:
                raise Drop("UNEXPECTED_ACK")
            self._take_acks(acks, bytes(sealed[:16]), exchange, mid, now)
            return
        if not expected:
            raise Drop("OLD_MESSAGE_ID")
        if sealed is not body and self._queues.get(response):
            raise Drop("BAD_FRAGMENT")  # of a smaller Total than those that wait
        if response:
            self.message = head or wire.front(view, body), plain
            try:
                row[0](self, payloads, now)
            finally:
                self.message = None
            return
        self._has_room()
        self._queues.pop(False, None)
        self._queue_due = None
        self._peer_mid += 1
        answer = self._serve(row[0], payloads, now)
        # A request in fragments is answered again when its fragment 1 comes again.
        head = head or sha256(view).digest()
        self._answered = head, self.protect(exchange, _I | _R, mid, answer)
        self.send(self._answered[1], True)
        if self._ending:
            self.event(*self._ending)
            self.end()

    def _has_room(self):
        """Raise Drop while so much waits to be sent that one more answer has to wait outside."""
        if len(self._out) > _MAX_OUT:
            raise Drop("ANSWERS_WAIT")

    def _serve(self, handler, payloads, now):
        """Return the payloads that answer a peer's request, whose ICV was right."""
        if payloads is None:
            self.count("BAD_PAYLOAD")
            return [(_N, wire.notify(_INVALID_SYNTAX))]
        for kind, critical, _ in payloads:
            if critical and not _SA <= kind <= _LAST_KNOWN:
                self.count("CRITICAL_PAYLOAD")
                return [(_N, wire.notify(_UNSUPPORTED_CRITICAL_PAYLOAD, bytes((kind,))))]
        return handler(self, payloads, now)

    def _take_acks(self, acks, iv, exchange, mid, now):
        drops = []
        for n, ack in enumerate(acks):
            try:
                self.acks().takes(self, ack, iv + bytes((n,)), exchange, mid, now)
            except Drop as e:
                drops.append(e)
        # What one reports on may be over, and what another one does not.
        if len(drops) == len(acks):
            raise drops[0]
        for drop in drops:
            self.count(drop.args[0])

    def _acks_in(self, payloads, response):
        """Return the bodies of the acknowledgments among a message's payloads.

        Where that is not agreed on its notify types may mean anything.  Only a response that has
        nothing else is then kept from being taken for an answer.
        """
        if not (self._acks or response and len(payloads) == 1):
            return ()
        types = self.profile["frag_ack_types"][1:]
        return [
            body
            for kind, _, body in payloads
            if kind == _N and len(body) >= 4 and body[2] << 8 | body[3] in types
        ]

    def unseal(self, view, body):
        """Return the plaintext of an SK or SKF payload whose body is the end of `view`."""
        plain = self._rx.open(view[: len(view) - len(body)], body)
        if plain is None:
            raise Drop("BAD_ICV")
        return plain

    # Sending.

    def protect(self, exchange, flags, mid, payloads):
        """Return the datagrams of a message with an SK payload, or with SKF payloads."""
        first, plain = wire.chain(payloads)
        n = len(plain)
        room = self.room - (4 if self.floated else 0)
        if not self.fragmentation or 32 + self._tx.size(n) <= room:
            return [self.seal(exchange, flags, mid, _SK, first, b"", plain)]
        from .fragment import split

        return split(self, exchange, flags, mid, first, plain, room)

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
        """Send a request and keep its octets for resends, which are identical (RFC 7296 §2.1).

        While one is outstanding this is a changed version of it, within the same time limit.
        """
        if self._request is None:
            ms = self.profile["retransmit_ms"]
            self._deadline = now + (ms << self.profile["retransmit_tries"]) - ms
            self._interval = self.interval(ms, datagrams)
            # Begun sooner, as many sendings are to fill the same time.
            self._growth = 2 if self._interval == ms else 3
            self._tries = 1
        self._exchange = exchange
        self._request = datagrams
        # A message in fragments is under way for longer than the round trip.
        self._sent = now if len(datagrams) == 1 else None
        self.restart(now)
        self.send(datagrams)

    def request(self, exchange, payloads, now):
        """Send a protected request; False while another one is outstanding."""
        if self._request is not None:
            return False
        self.send_request(exchange, self.protect(exchange, _I, self._mid, payloads), now)
        return True

    def unanswered(self):
        """Return how often the outstanding request was sent; 0 when none is outstanding."""
        return 0 if self._request is None else self._tries

    def answer_came(self, now):
        """Close the outstanding exchange: its answer is here."""
        if self._sent is not None:
            # Which of several sends was answered is not known: a first guess, not too low.
            if self._tries == 1:
                self.rtt = max(now - self._sent, 1)
            elif not self.rtt:
                self.rtt = max(now - self._sent, _GUESS_MS)
        self._request.clear()
        self._request = self._due = None
        self._queues.pop(True, None)
        self._mid += 1

    def once(self, exchange, payloads):
        """Send a protected request as a last word that waits for no answer."""
        self.send(self.protect(exchange, _I, self._mid, payloads))
        self._mid += 1

    # States.

    def fail(self, kind, detail, *found):
        """End with a ("failed", ...) event; `found` is what came instead of what was expected."""
        self.end()
        self.event("failed", kind, detail, *found)

    def refuse(self, why, kind="peer", *found):
        """End an SA whose peer did not prove who it is, telling it so (RFC 7296 §2.21.2)."""
        self.once(_INFORMATIONAL, [(_N, wire.notify(_AUTHENTICATION_FAILED))])
        self.fail(kind, why, *found)

    def leave(self, kind, detail, *found):
        """End an authenticated SA of no use, deleting it at the peer (RFC 7815 §2.1, B.1)."""
        self.once(_INFORMATIONAL, [(_D, struct.pack(">BBH", 1, 0, 0))])
        self.fail(kind, detail, *found)

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
