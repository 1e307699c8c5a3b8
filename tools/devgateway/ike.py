"""One IKE SA of the responder: protection, Message IDs, fragments, resends, dispatch.

RFC 7296 §2.1-§2.3, §2.21; RFC 7383. The exchanges themselves stand in `intermediate`,
`auth` and `informational`.

A request passes three gates: its Message ID must be the expected one (the one before
gets the stored answer again), its ICV must be right, and (state, exchange) must be in
`_HANDLERS`. Every answer is stored until the next request is accepted.
"""

import hashlib
from ipaddress import ip_address

from . import auth, fragack, fragments, informational, intermediate, wire
from .crypto import CryptoError, PrfHmac
from .errors import Refuse
from .fragack import Flight, Reporter
from .fragments import Joined, Reassembly
from .numbers import IKE_VERSION, Exchange, Flag, N, P, T, name_of
from .wire import HEADER_SIZE, Header, Notify, Payload, WireError

HALF_OPEN = "half-open"  # IKE_SA_INIT answered, peer not authenticated
ESTABLISHED = "established"
DEAD = "dead"  # lingers only to answer resent requests

MAX_QUEUED_REQUESTS = 16

_HANDLERS = {
    (HALF_OPEN, Exchange.IKE_INTERMEDIATE): intermediate.handle,
    (HALF_OPEN, Exchange.IKE_AUTH): auth.handle,
    (ESTABLISHED, Exchange.INFORMATIONAL): informational.handle,
    (ESTABLISHED, Exchange.CREATE_CHILD_SA): informational.refuse_child,
}


class _Request:
    """A request of ours that waits for its response."""

    def __init__(self, exchange, payloads, done):
        self.exchange = exchange
        self.payloads = payloads
        self.done = done
        self.message_id = None
        self.flight = None
        self.tries = 0
        self.due = None


class _Answered:
    """The last request that was answered: what a resend of it looks like, and the answer."""

    def __init__(self, joined, flight, keys):
        self.exchange = joined.header.exchange
        self.digests = joined.digests
        self.total = joined.total
        self.flight = flight
        self.keys = keys  # in force in that exchange


class _Incoming:
    """A fragmented message that is not complete yet, and when to ask for the rest."""

    def __init__(self, header, endpoint, now, config):
        self.pieces = Reassembly(header, now, now + config.half_open_ms)
        self.reporter = Reporter(config.frag_ack, config.ack_gap_ms)
        self.endpoint = endpoint


class IkeSa:
    def __init__(self, gateway, spi_i, spi_r, choice, keys, n_i, n_r, endpoint, now):
        self.gateway = gateway
        self.spi_i = spi_i
        self.spi_r = spi_r
        self.choice = choice
        self.keys = keys
        self.next_keys = None  # in force once the current answer is sealed
        self.prf = PrfHmac(choice.transform(T.PRF).id)
        self.n_i = n_i
        self.n_r = n_r
        self.endpoint = endpoint
        self.state = HALF_OPEN
        self.dies = now + gateway.config.half_open_ms  # None once established
        self.init_request = self.init_response = b""
        self.peer_behind_nat = self.behind_nat = False
        self.identity = None
        self.addresses = []  # from the pool
        self.children = {}  # spi_in -> ChildSa
        # Extensions that both sides announced
        self.fragmentation = self.frag_ack = False
        self.intermediate = False
        self.use_ppk = self.use_ppk_int = self.ppk_used = False
        self.pending_groups = choice.additional_groups()
        self.intermediates = 0
        self._int_auth = [b"", b""]  # initiator's, responder's
        self._auth_message_id = 0
        # Messages
        self.expected = 1  # Message ID of the next request (0 was IKE_SA_INIT)
        self._answered = None
        self._incoming = None  # fragments of a request
        self._incoming_response = None
        self._next_own = 0
        self._request = None
        self._queue = []

    def negotiate(self, notifies, vendor_ids):
        """Extensions: note what the peer announced, return the payloads that agree to it."""
        config = self.gateway.config
        answer = []
        if config.fragmentation and N.IKEV2_FRAGMENTATION_SUPPORTED in notifies:
            self.fragmentation = True
            answer.append(Notify(N.IKEV2_FRAGMENTATION_SUPPORTED).payload())
            announced = N.FRAGMENT_ACK_SUPPORTED in notifies and fragack.VENDOR_ID in vendor_ids
            if config.frag_ack != "off" and announced:
                self.frag_ack = True
                answer.append(Notify(N.FRAGMENT_ACK_SUPPORTED).payload())
                answer.append(Payload(P.VENDOR_ID, fragack.VENDOR_ID))
        if config.intermediate and N.INTERMEDIATE_EXCHANGE_SUPPORTED in notifies:
            self.intermediate = True
            answer.append(Notify(N.INTERMEDIATE_EXCHANGE_SUPPORTED).payload())
        if config.ppks:
            # One of the two, never both (RFC 9867 §3.1).
            if self.intermediate and N.USE_PPK_INT in notifies:
                self.use_ppk_int = True
                answer.append(Notify(N.USE_PPK_INT).payload())
            elif N.USE_PPK in notifies:
                self.use_ppk = True
                answer.append(Notify(N.USE_PPK).payload())
        return answer

    # Receiving

    def receive(self, header, data, endpoint, now):
        """Handle one message of this SA. Raises WireError or CryptoError for a drop."""
        if header.spi_i != self.spi_i:
            raise WireError("UNKNOWN_SPI")
        if not header.flags & Flag.INITIATOR:
            raise WireError("BAD_FLAGS")
        payloads = wire.parse_payloads(header.next_payload, data[HEADER_SIZE:])
        if len(payloads) != 1 or payloads[0].type not in (P.SK, P.SKF):
            raise WireError("NOT_PROTECTED")
        if payloads[0].type == P.SKF and not self.fragmentation:
            raise WireError("SKF_NOT_AGREED")
        if header.flags & Flag.RESPONSE:
            self._receive_response(header, data, payloads[0], endpoint, now)
        elif header.message_id == self.expected:
            self._receive_request(header, data, payloads[0], endpoint, now)
        elif header.message_id == self.expected - 1 and self._answered is not None:
            self._receive_answered(header, data, payloads[0], endpoint, now)
        elif header.message_id < self.expected:
            raise WireError("OLD_MESSAGE_ID")
        else:
            raise WireError("FUTURE_MESSAGE_ID")

    @staticmethod
    def _open(data, sealed, keys):
        """`Joined` of a message with one SK payload."""
        aad = data[: len(data) - len(sealed.body)]
        return Joined(
            wire.parse_header(data),
            sealed.inner,
            data[HEADER_SIZE + 1],
            keys.from_initiator.open(aad, sealed.body),
            frozenset([hashlib.sha256(data).digest()]),
        )

    def _gather(self, incoming, data, payload, keys, endpoint, now):
        """Add a fragment; `Joined` when it was the last one missing, else None."""
        fragment = fragments.parse_fragment(data, payload)
        if incoming.pieces.known(fragment):
            incoming.reporter.arrived(now, copy=True)
            raise WireError("DUPLICATE_FRAGMENT")
        plain = keys.from_initiator.open(fragment.aad, fragment.sealed)
        incoming.pieces.add(fragment, plain, now)
        incoming.reporter.arrived(now)
        incoming.endpoint = endpoint
        self.gateway.count("fragments_in")
        return incoming.pieces.join(self.gateway.config.any_fragment_resends)

    def _receive_request(self, header, data, payload, endpoint, now):
        if self.state == DEAD:
            raise WireError("DEAD_SA")
        handler = _HANDLERS.get((self.state, header.exchange))
        if handler is None or (handler is intermediate.handle and not self.intermediate):
            raise WireError("UNEXPECTED_EXCHANGE")
        if payload.type == P.SK:
            joined = self._open(data, payload, self.keys)
            if self._ack_of(joined):
                raise WireError("UNEXPECTED_ACK")
        else:
            incoming = self._incoming
            if incoming is None or incoming.pieces.header.exchange != header.exchange:
                incoming = _Incoming(header, endpoint, now, self.gateway.config)
            joined = self._gather(incoming, data, payload, self.keys, endpoint, now)
            self._incoming = incoming
            if joined is None:
                return
        self._incoming = None
        self.endpoint = endpoint
        self._answer(handler, joined, now)

    def _answer(self, handler, joined, now):
        header, keys = joined.header, self.keys
        if header.exchange == Exchange.IKE_AUTH:
            self._auth_message_id = header.message_id
        payloads, fatal = self._run(handler, joined, now)
        flags = Flag.RESPONSE
        if header.exchange == Exchange.IKE_INTERMEDIATE:
            self._cover(0, keys.sk_pi, joined.header, (joined.first, joined.flags, joined.inner))
            first, inner = wire.encode_payloads(payloads)
            answer = self._header(header.exchange, flags, header.message_id)
            self._cover(1, keys.sk_pr, answer, (first, 0, inner))
        datagrams = self._protect(keys, header.exchange, flags, header.message_id, payloads)
        flight = Flight(
            datagrams,
            fragack.MAX_IDLE_BURSTS
            if self.state == ESTABLISHED
            else fragack.MAX_IDLE_BURSTS_UNAUTHENTICATED,
        )
        self._answered = _Answered(joined, flight, keys)
        self.expected += 1
        self._send(datagrams, self.endpoint, now)
        if self.next_keys is not None:
            self.keys, self.next_keys = self.next_keys, None
            self.gateway.keys_changed(self)
        if fatal:
            self.die(now)

    def _cover(self, side, sk_p, header, inner):
        """Chain one message of IKE_INTERMEDIATE into IntAuth (RFC 9242 §3.3.2)."""
        covered = intermediate.covered_octets(header, inner)
        self._int_auth[side] = self.prf(sk_p, self._int_auth[side] + covered)

    def _run(self, handler, joined, now):
        """(payloads of the answer, fatal) from a handler or from what it refuses."""
        try:
            try:
                payloads = wire.parse_payloads(joined.first, joined.inner)
                for payload in payloads:
                    if payload.type in (P.SK, P.SKF):
                        raise WireError("NESTED_SK")
                    if payload.critical and not self.gateway.knows(payload.type):
                        raise Refuse(
                            N.UNSUPPORTED_CRITICAL_PAYLOAD,
                            "critical payload %d" % payload.type,
                            bytes((payload.type,)),
                            fatal=self.state == HALF_OPEN,
                        )
                return handler(self, payloads, now), False
            except WireError as error:
                self.gateway.drop(error.reason)
                raise Refuse(N.INVALID_SYNTAX, error.reason, fatal=True) from None
        except Refuse as refusal:
            self.next_keys = None
            self.gateway.error(refusal.notify.type, self.endpoint, str(refusal), self.identity)
            return [refusal.notify.payload()], refusal.fatal

    def _receive_answered(self, header, data, payload, endpoint, now):
        """A message with the Message ID of the last answered request: a resend or an ACK."""
        answered = self._answered
        if header.exchange != answered.exchange:
            raise WireError("OLD_MESSAGE_ID")
        if hashlib.sha256(data).digest() in answered.digests:
            self.gateway.count("answers_resent")
            self._send(answered.flight.resend(), endpoint, now)
        elif payload.type == P.SKF:
            # Fragment 1 of the request, cut smaller, also asks for the answer (RFC 7383 §2.6.1).
            fragment = fragments.parse_fragment(data, payload)
            if fragment.number != 1 or fragment.total <= answered.total:
                raise WireError("OLD_FRAGMENT")
            answered.keys.from_initiator.open(fragment.aad, fragment.sealed)
            answered.digests |= {fragment.digest}
            answered.total = fragment.total
            self.gateway.count("answers_resent")
            self._send(answered.flight.resend(), endpoint, now)
        elif self.frag_ack:
            joined = self._open(data, payload, answered.keys)
            self._acknowledged(joined, now)
        else:
            raise WireError("OLD_MESSAGE_ID")

    def _receive_response(self, header, data, payload, endpoint, now):
        request = self._request
        ours = request is not None and request.message_id == header.message_id
        if payload.type == P.SKF:
            if not ours or header.exchange != request.exchange:
                raise WireError("UNEXPECTED_RESPONSE")
            incoming = self._incoming_response
            if incoming is None:
                incoming = _Incoming(header, endpoint, now, self.gateway.config)
            joined = self._gather(incoming, data, payload, self.keys, endpoint, now)
            self._incoming_response = incoming
            if joined is None:
                return
        else:
            answered = self._answered
            late = answered is not None and header.message_id == self.expected - 1
            if not ours and not (self.frag_ack and late):
                raise WireError("UNEXPECTED_RESPONSE")
            try:
                joined = self._open(data, payload, self.keys)
            except CryptoError:
                if not (self.frag_ack and late) or answered.keys is self.keys:
                    raise
                joined = self._open(data, payload, answered.keys)
            if self._ack_of(joined):
                self._acknowledged(joined, now)
                return
            if not ours or header.exchange != request.exchange:
                raise WireError("UNEXPECTED_RESPONSE")
        payloads = wire.parse_payloads(joined.first, joined.inner)
        self._request = self._incoming_response = None
        if request.done is not None:
            request.done(self, payloads, now)
        if self.state != DEAD:
            self._start_next(now)

    # Fragment acknowledgment

    def _ack_of(self, joined):
        """The fragment acknowledgments in a message, if both sides agreed to use them."""
        if not self.frag_ack:
            return []
        try:
            payloads = wire.parse_payloads(joined.first, joined.inner)
            found = [wire.parse_notify(p.body) for p in payloads if p.type == P.NOTIFY]
        except WireError:
            return []  # no acknowledgment; what it is, its handler says
        return [notify for notify in found if notify.type in fragack.ACK_TYPES]

    def _acknowledged(self, joined, now):
        """Resend what the peer misses of our last answer (_RES) or of our request (_REQ)."""
        header = joined.header
        acks = self._ack_of(joined)
        if not acks:
            raise WireError("OLD_MESSAGE_ID")
        (digest,) = joined.digests
        self.gateway.count("acks_received")
        for ack in acks:
            flight = self._flight_of(ack.type, header)
            if flight is None or ack.spi:
                raise WireError("BAD_ACK")
            missing = fragack.decode_pairs(ack.data, len(flight.datagrams))
            request = self._request
            if flight.acknowledge(missing, digest + bytes((acks.index(ack),)), now):
                if request is not None and flight is request.flight:
                    # Start the interval anew; keep the number of tries.
                    request.due = now + (self.gateway.config.retransmit_ms << request.tries - 1)
        self._burst(now)

    def _flight_of(self, kind, header):
        """The `Flight` that an acknowledgment reports on, None if it is not in flight any more."""
        answered, request = self._answered, self._request
        if kind == N.FRAGMENT_ACK_RES and answered is not None:
            if (self.expected - 1, answered.exchange) == (header.message_id, header.exchange):
                return answered.flight
        if kind == N.FRAGMENT_ACK_REQ and request is not None:
            if (request.message_id, request.exchange) == (header.message_id, header.exchange):
                return request.flight
        return None

    def _flights(self):
        flights = []
        if self._answered is not None:
            flights.append(self._answered.flight)
        if self._request is not None:
            flights.append(self._request.flight)
        return flights

    def _burst(self, now):
        for flight in self._flights():
            if flight.due is not None and now >= flight.due:
                datagrams = flight.burst(now)
                self.gateway.counters["fragments_resent"] += len(datagrams)
                self._send(datagrams, self.endpoint, now)

    def _report(self, incoming, kind, now):
        """Tell the peer which fragments of its message are missing."""
        header = incoming.pieces.header
        numbers = incoming.pieces.missing()
        incoming.reporter.told(now)
        room = self._limit(incoming.endpoint) - HEADER_SIZE - 4
        room = self.keys.from_responder.room(room) - 8
        for notify in fragack.notifies(kind, numbers, room):
            self.gateway.count("acks_sent")
            # -02 sets R on both kinds (§3.1); -03 clears it in a report on a response.
            flags = Flag.RESPONSE
            if kind == N.FRAGMENT_ACK_RES and self.gateway.config.frag_ack_draft != "02":
                flags = 0
            message = self._seal(
                self.keys, header.exchange, flags, header.message_id, [notify.payload()]
            )
            self._send([message], incoming.endpoint, now)

    # Sending

    def _limit(self, endpoint):
        version = ip_address(endpoint.host).version
        size = self.gateway.config.fragment_size
        return fragments.message_limit(size, version, endpoint.natt)

    def _header(self, exchange, flags, message_id):
        return Header(self.spi_i, self.spi_r, P.SK, IKE_VERSION, exchange, flags, message_id, 0)

    def _seal(self, keys, exchange, flags, message_id, payloads):
        """One message with an SK payload."""
        first, inner = wire.encode_payloads(payloads)
        cipher = keys.from_responder
        size = 4 + cipher.sealed_size(len(inner))
        header = self._header(exchange, flags, message_id)._replace(length=HEADER_SIZE + size)
        aad = header.encode() + bytes((first, 0)) + size.to_bytes(2, "big")
        return aad + cipher.seal(aad, inner, self.gateway.rand)

    def _protect(self, keys, exchange, flags, message_id, payloads):
        """The messages that carry `payloads`: one with SK, or several with SKF."""
        first, inner = wire.encode_payloads(payloads)
        limit = self._limit(self.endpoint)
        size = HEADER_SIZE + 4 + keys.from_responder.sealed_size(len(inner))
        if not self.fragmentation or size <= limit or not inner:
            return [self._seal(keys, exchange, flags, message_id, payloads)]
        header = self._header(exchange, flags, message_id)
        messages = fragments.split(
            keys.from_responder, header, first, inner, limit, self.gateway.rand
        )
        self.gateway.counters["fragments_out"] += len(messages)
        return messages

    def _send(self, messages, endpoint, now):
        self.gateway.send_ike_messages(messages, endpoint, now)

    def request(self, exchange, payloads, now, done=None):
        """Queue a request of ours; `done(sa, payloads, now)` runs at its response.

        Without an answer after all resends the SA is dead (RFC 7296 §2.4).
        """
        if self.state != ESTABLISHED or len(self._queue) >= MAX_QUEUED_REQUESTS:
            return False
        self._queue.append(_Request(exchange, payloads, done))
        self._start_next(now)
        return True

    def _start_next(self, now):
        if self._request is not None or not self._queue:
            return
        request = self._request = self._queue.pop(0)
        request.message_id = self._next_own
        self._next_own += 1
        request.flight = Flight(
            self._protect(self.keys, request.exchange, 0, request.message_id, request.payloads)
        )
        self._transmit(request, now)

    def _transmit(self, request, now):
        request.due = now + (self.gateway.config.retransmit_ms << request.tries)
        request.tries += 1
        self._send(request.flight.resend(), self.endpoint, now)

    # Time

    def next_timer(self):
        times = [self.dies]
        if self._request is not None:
            times.append(self._request.due)
        times += [flight.due for flight in self._flights()]
        for incoming in (self._incoming, self._incoming_response):
            if incoming is not None:
                times.append(incoming.pieces.expires)
                if self.frag_ack:
                    times.append(incoming.reporter.due)
        return min((time for time in times if time is not None), default=None)

    def timer(self, now):
        """Run what is due. True if this SA is to be forgotten."""
        if self.dies is not None and now >= self.dies:
            if self.state == HALF_OPEN:
                self.gateway.count("half_open_expired")
            return True
        if self._incoming is not None:
            self._incoming = self._wait_for(self._incoming, N.FRAGMENT_ACK_REQ, now)
        if self._incoming_response is not None:
            self._incoming_response = self._wait_for(
                self._incoming_response, N.FRAGMENT_ACK_RES, now
            )
        self._burst(now)
        request = self._request
        if request is not None and now >= request.due:
            if request.tries >= self.gateway.config.retransmit_tries:
                exchange = name_of(Exchange, request.exchange)
                self.gateway.closed(self, "no answer to %s" % exchange)
                self.die(now)
            else:
                self.gateway.count("requests_resent")
                self._transmit(request, now)
        return False

    def _wait_for(self, incoming, kind, now):
        """Report what an incomplete message lacks, or give it up and return None."""
        if now >= incoming.pieces.expires:
            self.gateway.count("reassemblies_expired")
            return None
        due = incoming.reporter.due
        if self.frag_ack and due is not None and now >= due:
            self._report(incoming, kind, now)
        return incoming

    def establish(self, now):
        self.state = ESTABLISHED
        self.dies = None

    def die(self, now):
        """Drop children and addresses at once; linger to answer resends."""
        if self.state == DEAD:
            return
        self.state = DEAD
        self.dies = now + self.gateway.config.linger_ms
        self._request = self._incoming = self._incoming_response = None
        self._queue = []
        self.gateway.release(self)

    def signed_octets(self, initiator, id_body, keys=None):
        """What AUTH covers (RFC 7296 §2.15, RFC 9242 §3.3.2)."""
        keys = keys or self.keys
        int_auth = b""
        if self.intermediates:
            int_auth = b"".join(self._int_auth) + self._auth_message_id.to_bytes(4, "big")
        if initiator:
            return self.init_request + self.n_r + self.prf(keys.sk_pi, id_body) + int_auth
        return self.init_response + self.n_i + self.prf(keys.sk_pr, id_body) + int_auth
