"""One IKE SA without I/O: its states, dispatch, protection, exchanges, fragments.

An `IkeSa` is made first and lives to the end of the SA, with its keys, its counter of IVs and its
Message IDs.  Its owner hands in datagrams by `receive` and the passing of time by `timer`; after
each call it takes what `poll_out` and `next_event` return, until they return None, and calls
`timer` again at `next_timer`.  A datagram here is a UDP payload, the non-ESP marker included where
one belongs.

From IKE_SA_INIT to IKE_AUTH it has a guest, a handshake.sa_init.Handshake; afterwards
`established` takes its place.  All that changes state goes through `TABLE`: (state, exchange, is
it a response) leads to the name of a handler, in the guest or in `established`.  A message without
a row in the table is dropped and counted.

Events are tuples:
  ("state", name)                  a new state
  ("hint", notify type)            an error that nobody authenticated; nothing changed
  ("agreed", {type: (id, bits)})   the IKE proposal
  ("up", child, picked, nat, peer_nat, with_ppk)
                                   IKE_AUTH done; `child` is a dict, see `auth.Auth`, the others
                                   are attributes of the Handshake
  ("failed", kind, detail)         this IKE SA is over: ("notify", type), ("timeout", exchange),
                                   ("peer", what it did wrong), ("ppk", what is wrong with it)
  ("deleted",)                     the peer deleted this IKE SA
  ("answered",)                    the peer answered a request made after IKE_AUTH
  ("ended",)                       it answered our DELETE
  ("lifetime", seconds)            the peer will end this SA after so long
  ("rekey",)                       the peer wants other keys: a new SA is due
  ("keys", ...)                    only with the profile key `keylog`
"""

import struct
from hashlib import sha256
from micropython import const

from . import wire
from .wire import Drop

# RFC 7296 §3.1: exchange types, flags.  IKE_INTERMEDIATE: RFC 9242.
_IKE_SA_INIT = const(34)
_IKE_AUTH = const(35)
_CREATE_CHILD_SA = const(36)
_INFORMATIONAL = const(37)
_INTERMEDIATE = const(43)
_I = const(0x08)
_R = const(0x20)
# RFC 7296 §3.2: payload types.  SKF: RFC 7383.
_SA = const(33)
_N = const(41)
_D = const(42)
_SK = const(46)
_LAST_KNOWN = const(48)  # 33..48 are RFC 7296's own
_SKF = const(53)
# RFC 7296 §3.10.1: notify types.
_UNSUPPORTED_CRITICAL_PAYLOAD = const(1)
_INVALID_SYNTAX = const(7)
_AUTHENTICATION_FAILED = const(24)
_FRAGMENT_ACK_REQ = const(50202)  # draft -02, from the private range
_FRAGMENT_ACK_RES = const(50203)
_MARKER = b"\0\0\0\0"  # RFC 3948 §2.2
_LONE = b"\0\1\0\1"  # RFC 7383 §2.5: fragment 1 of 1

# Ours.
_MAX_MESSAGE = const(3000)
_MAX_OUT = const(16)  # while more datagrams wait to be sent, refuse to answer
_FLOOR_MS = const(200)  # least retransmission interval with fragment acknowledgment
_GUESS_MS = const(125)  # after a resend, assume at least this round trip

_S_IDLE = const(0)
_S_INIT = const(1)
_S_INTERMEDIATE = const(2)
_S_AUTH = const(3)
_S_UP = const(4)
_S_DELETING = const(5)
_S_DEAD = const(6)
STATES = ("IDLE", "IKE_SA_INIT", "IKE_INTERMEDIATE", "IKE_AUTH", "UP", "DELETING", "DOWN")

# (state, exchange, is a response): the handler's name  # the states in which it may end: make docs
# draws the diagram from these lines, conformance/test_states.py holds them to be the truth.
TABLE = {
    (_S_INIT, _IKE_SA_INIT, True): "on_init",  # IKE_SA_INIT, IKE_INTERMEDIATE, IKE_AUTH
    (_S_INTERMEDIATE, _INTERMEDIATE, True): "on_intermediate",  # IKE_INTERMEDIATE, IKE_AUTH, DOWN
    (_S_INTERMEDIATE, _INFORMATIONAL, False): "on_informational",  # IKE_INTERMEDIATE
    (_S_INTERMEDIATE, _CREATE_CHILD_SA, False): "on_create_child",  # IKE_INTERMEDIATE
    (_S_AUTH, _IKE_AUTH, True): "on_auth",  # UP, DOWN
    (_S_AUTH, _INFORMATIONAL, False): "on_informational",  # IKE_AUTH
    (_S_AUTH, _CREATE_CHILD_SA, False): "on_create_child",  # IKE_AUTH
    (_S_UP, _INFORMATIONAL, False): "on_informational",  # UP, DOWN
    (_S_UP, _CREATE_CHILD_SA, False): "on_create_child",  # UP
    (_S_UP, _INFORMATIONAL, True): "on_answer",  # UP, DOWN: an answer beyond our bounds
    (_S_DELETING, _INFORMATIONAL, False): "on_informational",  # DELETING, DOWN
    (_S_DELETING, _CREATE_CHILD_SA, False): "on_create_child",  # DELETING
    (_S_DELETING, _INFORMATIONAL, True): "on_deleted",  # DOWN
}


class IkeSa:
    """One IKE SA of ours, as the original initiator.

    `profile` is what profile.load_profile returns; `rand(n)` returns n random octets; `step` is
    called several times a second by a key exchange that takes seconds.
    """

    table = TABLE
    state = _S_IDLE
    handshake = None  # the guest, from `start` to IKE_AUTH
    tx = rx = None  # the ciphers of IKE, out and in
    request = None  # the Outgoing that is outstanding
    answered = None  # an Outgoing: our answer to the peer's last request
    mid = 0  # Message ID of our next or outstanding request
    peer_mid = 0  # Message ID that the peer's next request must have
    reply = False  # was the last datagram of poll_out an answer to a request?
    fragmentation = False  # negotiated (RFC 7383)
    acks = False  # fragment acknowledgment: negotiated
    message = None  # the response at hand: (its octets up to RESERVED of SK, plaintext)
    room = 0  # octets of UDP payload that one datagram of ours may have
    spi_r = bytes(8)
    spi_out = None  # the Child SA's SPI
    gap = None  # between two fragments of the peer's, ms; None: not known
    rtt = 0  # of the last exchange without fragments or resends, ms; 0: not known

    def __init__(self, profile, rand, step=None):
        self.profile = profile
        self.rand = rand
        self.step = step
        self.drops = {}
        # From here on datagrams go to natt_port and carry the non-ESP marker.
        self.floated = profile["port"] == profile["natt_port"]
        self.spi_i = spi(rand, 8)
        self.incoming = {}  # incomplete messages: {is it a response: fragment.Incoming}
        self.flights = {}  # {is it an answer: fragack.Flight}: ours that the peer lacks part of
        self.out = []  # [(is it an answer to a request, datagram)] that wait to be sent
        self._events = []

    # The owner's side.

    def start(self, now, handshake):
        """Take the guest in and let it send the first IKE_SA_INIT."""
        self.handshake = handshake
        self.go(_S_INIT)
        handshake.start(now)

    def receive(self, datagram, now):
        """Take one datagram from the network; True when it was meant for this SA and was new.

        Raises nothing, whatever the octets are: a bad datagram is dropped and counted in `drops`.
        """
        try:
            self._receive(datagram, now)
            return True
        except Drop as e:
            self.count(e.args[0])
            return False

    def timer(self, now):
        """Do what is due at `now`: resend, ask for fragments, give up."""
        if self.incoming or self.flights:
            from .fragment import timer

            timer(self, now)
        request = self.request
        if request is None or now < request.due:
            return
        if now >= request.deadline:
            self.fail("timeout", request.exchange)
            return
        if self.handshake:
            self.handshake.resending(now)
        request.resent(now)
        self._resend(request, False)

    def next_timer(self):
        """Return the time at which `timer` wants to be called, or None."""
        times = [self.request.due] if self.request else []
        if self.incoming or self.flights:
            from .fragment import times as more

            times += more(self)
        times = [time for time in times if time is not None]
        return min(times) if times else None

    def poll_out(self):
        """Return the next datagram to send, or None; `reply` then tells what kind it is.

        A reply goes to where its request came from, any other datagram to the gateway.
        """
        if not self.out:
            return None
        self.reply, datagram = self.out.pop(0)
        return datagram

    def next_event(self):
        """Return the next event, or None."""
        return self._events.pop(0) if self._events else None

    def unanswered(self):
        """Return how often the outstanding request was sent; 0 when none is outstanding."""
        return self.request.tries if self.request else 0

    def count(self, reason):
        """Count one dropped datagram."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    # Receiving: several gates in a row, each of which raises Drop.

    def _receive(self, datagram, now):
        handler, view, first, exchange, response, mid = self._gate(datagram)
        if exchange == _IKE_SA_INIT:
            self.handle(handler, view, now)
            return
        # This may be the peer's last request resent, or an acknowledgment of our answer to it.
        late = self.answered if mid == self.peer_mid - 1 else None
        if late and not response and late.digest == sha256(view).digest():
            self._has_room()
            self._resend(late, True)
            return
        # No name for the request here: its octets are to be free once it is answered.
        if response:
            expected = self.request and (exchange, mid) == (
                self.request.exchange,
                self.request.mid,
            )
        else:
            expected = mid == self.peer_mid
        # After an exchange has ended, accept only acknowledgments.
        if not expected and not (late and self.acks and first >= _SK):
            raise Drop("OLD_MESSAGE_ID")
        opened = self._open(view, first, exchange, response, expected, now)
        if not opened:
            return
        first, plain, head, iv, lone = opened
        plain = memoryview(plain)
        try:
            payloads = wire.payloads(first, plain, 0)
        except Drop:
            if response:
                raise
            payloads = None
        if self._took_acks(payloads, iv, exchange, response, mid, now):
            return
        if not expected:
            raise Drop("OLD_MESSAGE_ID")
        if lone and response in self.incoming:
            raise Drop("BAD_FRAGMENT")  # its Total is smaller than that of those that wait
        if response:
            self._on_response(handler, payloads, (head, plain), now)
        else:
            self._on_request(handler, exchange, payloads, head, now)

    def _gate(self, datagram):
        """Return (handler, view, first payload, exchange, is it a response, Message ID)."""
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
        handler = self.table.get((self.state, exchange, response))
        if handler is None:
            raise Drop("UNEXPECTED")
        if exchange == _IKE_SA_INIT:
            if mid:
                raise Drop("OLD_MESSAGE_ID")
        elif spi_r != self.spi_r:
            raise Drop("UNKNOWN_SPI")
        return handler, view, first, exchange, response, mid

    def _open(self, view, first, exchange, response, expected, now):
        """Open an SK or SKF payload; return None while other fragments are missing.

        Else return (first payload, plaintext, head, IV, is it a message in one fragment).  The head
        of a request is its digest, of a response the octets in the clear.  The IV is None where
        several fragments made the message.
        """
        outer = wire.payloads(first, view, 28)
        kind, first, body = outer[-1] if outer else (0, 0, b"")
        sealed = body
        if kind == _SKF:
            if not self.fragmentation:
                raise Drop("UNEXPECTED_FRAGMENT")
            if bytes(body[:4]) != _LONE:
                if not expected:
                    raise Drop("OLD_MESSAGE_ID")
                from .fragment import gather

                return gather(self, outer, view, exchange, response, now)
            # A message in one fragment is treated like one in an SK payload.
            sealed = body[4:]
        elif kind != _SK:
            raise Drop("NOT_PROTECTED")
        plain = self.open(view, sealed)
        head = wire.head(view, body, response)
        return first, plain, head, bytes(sealed[:16]), sealed is not body

    def open(self, view, body):
        """Return the plaintext of an SK or SKF payload whose body is the end of `view`."""
        plain = self.rx.open(view[: len(view) - len(body)], body)
        if plain is None:
            raise Drop("BAD_ICV")
        return plain

    def _on_response(self, handler, payloads, message, now):
        self.message = message
        try:
            self.handle(handler, payloads, now)
        finally:
            self.message = None

    def _on_request(self, handler, exchange, payloads, digest, now):
        self._has_room()
        self.incoming.pop(False, None)
        mid = self.peer_mid
        self.peer_mid += 1
        payloads = self._serve(handler, payloads, now)
        # The digest of a request in fragments is that of fragment 1: that one asks again.
        datagrams = self.protect(exchange, _I | _R, mid, payloads or ())
        self.answered = Outgoing(exchange, mid, datagrams, digest)
        self.flights.pop(True, None)
        self.send(datagrams, True)
        if payloads is None:
            self.event("deleted")
            self.end()

    def _has_room(self):
        """Raise Drop while too much waits to be sent for one more answer."""
        if len(self.out) > _MAX_OUT:
            raise Drop("ANSWERS_WAIT")

    def _serve(self, handler, payloads, now):
        """Return the payloads that answer a request of the peer, whose ICV was right.

        None is an empty answer, after which this SA is deleted.
        """
        if payloads is None:
            self.count("BAD_PAYLOAD")
            return [(_N, wire.notify(_INVALID_SYNTAX))]
        for kind, critical, _ in payloads:
            if critical and not _SA <= kind <= _LAST_KNOWN:
                self.count("CRITICAL_PAYLOAD")
                return [(_N, wire.notify(_UNSUPPORTED_CRITICAL_PAYLOAD, bytes((kind,))))]
        return self.handle(handler, payloads, now)

    def handle(self, name, given, now):
        """Call a handler of the table, in the guest or in `established`."""
        if self.handshake:
            return getattr(self.handshake, name)(given, now)
        from . import established

        return getattr(established, name)(self, given, now)

    # Fragment acknowledgment.

    def _took_acks(self, payloads, iv, exchange, response, mid, now):
        """Act on the acknowledgments among a message's payloads; return False if there are none.

        Without agreement on them, their notify types may mean anything.  Then only a response that
        holds nothing else is refused, so that it is not taken for an answer.
        """
        if not payloads or not (self.acks or response and len(payloads) == 1):
            return False
        acks = [body for kind, _, body in payloads if kind == _N and _is_ack(body)]
        if not acks:
            return False
        if not self.acks or iv is None:
            raise Drop("UNEXPECTED_ACK")
        from .fragment import acknowledged

        acknowledged(self, acks, iv, exchange, mid, now)
        return True

    def _resend(self, message, answer):
        """Send a message of ours again; of one in fragments perhaps not all."""
        datagrams = message.datagrams
        if len(datagrams) > 1:
            from .fragment import again

            datagrams = again(self, datagrams, answer)
        self.send(datagrams, answer)

    # Sending.

    def send(self, datagrams, reply=False):
        """Queue datagrams for the owner to send."""
        for datagram in datagrams:
            self.out.append((reply, datagram))

    def protect(self, exchange, flags, mid, payloads):
        """Return the datagrams of a message with an SK payload, or with SKF payloads."""
        first, plain = wire.chain(payloads)
        room = self.room - (4 if self.floated else 0)
        if not self.fragmentation or 32 + self.tx.size(len(plain)) <= room:
            return [self.seal(exchange, flags, mid, _SK, first, b"", plain)]
        from .fragment import split

        return split(self, exchange, flags, mid, first, plain, room)

    def seal(self, exchange, flags, mid, kind, first, place, plain):
        """Return one datagram with an SK payload, or SKF with its fragment numbers in `place`.

        One counter of IVs serves every message, since none may come twice under one key (RFC 5282
        §3).
        """
        size = 4 + len(place) + self.tx.size(len(plain))
        head = wire.header(self.spi_i, self.spi_r, kind, exchange, flags, mid, 28 + size)
        head += struct.pack(">BBH", first, 0, size) + place
        self._iv += 1
        return self.marked(head, self.tx.seal(head, struct.pack(">Q", self._iv), plain))

    def marked(self, *parts):
        """Join the parts of a datagram, behind the non-ESP marker on port 4500."""
        return b"".join((_MARKER,) + parts if self.floated else parts)

    def begin(self, exchange, datagrams, now):
        """Send a request and keep its octets for resends, which are identical (RFC 7296 §2.1).

        While a request is outstanding, this replaces it within the same time limit.
        """
        if self.request:
            self.out.clear()
            self.request.change(datagrams, now)
        else:
            p = self.profile
            ms = p["retransmit_ms"]
            self.request = Outgoing(exchange, self.mid, datagrams)
            self.request.start(ms, self.first_interval(ms, datagrams), p["retransmit_tries"], now)
        self.send(datagrams)

    def first_interval(self, ms, datagrams):
        """Return a request's first retransmission interval; `ms` is the profile's."""
        if self.acks and self.rtt:
            gap = self.profile["fragment_gap_ms"]
            ms = min(ms, max(_FLOOR_MS, 3 * self.rtt) + len(datagrams) * gap)
        return ms

    def ask(self, exchange, payloads, now):
        """Send a protected request; False while another one is outstanding."""
        if self.request:
            return False
        self.begin(exchange, self.protect(exchange, _I, self.mid, payloads), now)
        return True

    def answer_came(self, now):
        """The answer is here: close the outstanding exchange."""
        self.rtt = self.request.round_trip(self.rtt, now)
        self.request = None
        self.flights.pop(False, None)
        self.incoming.pop(True, None)
        self.mid += 1

    def once(self, exchange, payloads):
        """Send a last protected request, without waiting for its answer."""
        self.send(self.protect(exchange, _I, self.mid, payloads))
        self.mid += 1

    # States.

    def agree(self, spi_r, room, fragmentation, acks, floats):
        """Keep what IKE_SA_INIT agreed on; `floats` changes to port 4500 (RFC 7296 §2.23)."""
        self.spi_r = spi_r
        self.room = room
        self.fragmentation = fragmentation
        self.acks = acks
        self.floated = self.floated or floats

    def learn(self, gap):
        """Keep the gap between two fragments of the peer."""
        self.gap = gap

    def use(self, tx, rx):
        """Use these ciphers from now on, with new keys."""
        self.tx = tx
        self.rx = rx
        self._iv = 0

    def establish(self, spi_out):
        """IKE_AUTH is done, and the handshake with it."""
        from . import established  # noqa: F401  load it now, while there is memory

        self.handshake.end()
        self.handshake = None
        self.spi_out = spi_out
        self.go(_S_UP)

    def fail(self, kind, detail, *found):
        """End with a ("failed", ...) event; `found` is what came in place of what was expected."""
        self.end()
        self.event("failed", kind, detail, *found)

    def refuse(self, why, kind="peer", *found):
        """End an SA whose peer did not prove who it is, and tell the peer (RFC 7296 §2.21.2)."""
        self.once(_INFORMATIONAL, [(_N, wire.notify(_AUTHENTICATION_FAILED))])
        self.fail(kind, why, *found)

    def leave(self, kind, detail, *found):
        """End an authenticated SA of no use: delete it at the peer (RFC 7815 §2.1, B.1)."""
        self.once(_INFORMATIONAL, [(_D, struct.pack(">BBH", 1, 0, 0))])
        self.fail(kind, detail, *found)

    def end(self):
        """Stop everything and let go of the keys."""
        if self.handshake:
            self.handshake.end()
        self.handshake = self.request = self.answered = self.tx = self.rx = None
        self.acks = False
        self.incoming.clear()
        self.flights.clear()
        self.go(_S_DEAD)

    def go(self, state):
        """Enter a state and say so."""
        self.state = state
        self.event("state", STATES[state])

    def event(self, *event):
        """Queue an event for the owner."""
        self._events.append(event)


class Outgoing:
    """A message of ours in its datagrams; for an answer, `digest` is that of the request."""

    def __init__(self, exchange, mid, datagrams, digest=None):
        self.exchange = exchange
        self.mid = mid
        self.datagrams = datagrams
        self.digest = digest

    # A request that is outstanding, and when it is sent again (RFC 7296 §2.4).

    def start(self, ms, first_ms, most, now):
        """The first of `most` sendings; the interval begins with `first_ms`, of usually `ms`.

        `tries` counts them; at `deadline` the request is given up.
        """
        self.tries = 1
        self.interval = first_ms
        self.deadline = now + (ms << most) - ms
        self._most = most
        # With a shorter first interval, the same number of sendings must fill the same time.
        self._growth = 2 if first_ms == ms else 3
        self.change(self.datagrams, now)

    def change(self, datagrams, now):
        """From now on send a changed version of the request, within the same time limit."""
        self.datagrams = datagrams
        # Several fragments take longer than one round trip, so they do not measure it.
        self._sent = now if len(datagrams) == 1 else None
        self.restart(now)

    def restart(self, now):
        """Start the retransmission interval anew; the time to give up stays."""
        self.due = self.deadline
        if self.tries < self._most:
            self.due = min(now + self.interval, self.due)

    def resent(self, now):
        """The request is sent again; the next interval is longer."""
        self.tries += 1
        self.interval *= self._growth
        if self._sent is not None:
            self._sent = now
        self.restart(now)

    def put_off(self, due):
        """Delay the next sending until `due`, but not beyond the deadline."""
        self.due = min(due, self.deadline)

    def heard(self, now):
        """The peer reported on fragments under way: start interval and tries anew."""
        self.interval //= self._growth ** (self.tries - 1)
        self.tries = 1
        self.restart(now)

    def untimed(self):
        """The answer comes in fragments, so it does not measure the round trip."""
        self._sent = None

    def round_trip(self, known, now):
        """The answer is here: return the round trip, or `known` where it was not measured."""
        if self._sent is not None:
            # After a resend we do not know which sending was answered: guess, and not too low.
            if self.tries == 1:
                return max(now - self._sent, 1)
            return known or max(now - self._sent, _GUESS_MS)
        return known


def spi(rand, n):
    """Return a random SPI of `n` octets that is above 255 and unlike a non-ESP marker."""
    while True:
        value = rand(n)
        if bytes(value[:3]) != b"\0\0\0":
            return bytes(value)


def _is_ack(body):
    """Does this Notify payload acknowledge fragments?"""
    return len(body) >= 4 and _FRAGMENT_ACK_REQ <= body[2] << 8 | body[3] <= _FRAGMENT_ACK_RES
