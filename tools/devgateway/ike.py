"""One IKE SA of the responder: protection, Message IDs, resends, dispatch.

RFC 7296 §2.1-§2.3, §2.21. The exchanges themselves stand in `auth` and `informational`.

A request passes three gates: its Message ID must be the expected one (the one before
gets the stored answer again), its ICV must be right, and (state, exchange) must be in
`_HANDLERS`. Every answer is stored until the next request is accepted.
"""

import hashlib

from . import auth, informational, wire
from .crypto import PrfHmac
from .errors import Refuse
from .numbers import IKE_VERSION, Exchange, Flag, N, P, T, name_of
from .wire import HEADER_SIZE, Header

HALF_OPEN = "half-open"  # IKE_SA_INIT answered, peer not authenticated
ESTABLISHED = "established"
DEAD = "dead"  # lingers only to answer resent requests

MAX_MESSAGE_ID = 0xFFFFFFFF
MAX_QUEUED_REQUESTS = 16


_HANDLERS = {
    (HALF_OPEN, Exchange.IKE_AUTH): auth.handle,
    (ESTABLISHED, Exchange.INFORMATIONAL): informational.handle,
    (ESTABLISHED, Exchange.CREATE_CHILD_SA): informational.refuse_child,
}


class _Outstanding:
    """A request of ours that waits for its response."""

    def __init__(self, exchange, payloads, done):
        self.exchange = exchange
        self.payloads = payloads
        self.done = done
        self.message_id = None
        self.datagrams = []
        self.tries = 0
        self.due = None


class IkeSa:
    def __init__(self, gateway, spi_i, spi_r, choice, keys, n_i, n_r, endpoint, now):
        self.gateway = gateway
        self.spi_i = spi_i
        self.spi_r = spi_r
        self.choice = choice
        self.keys = keys
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
        self.expected = 1  # Message ID of the next request (0 was IKE_SA_INIT)
        self._answered = None  # digest of the last request
        self._answer = []
        self._next_own = 0
        self._outstanding = None
        self._queue = []

    def negotiate(self, notifies, vendor_ids):
        """Extensions: note what the peer announced, return the payloads that agree to it."""
        return []

    # Receiving

    def receive(self, header, data, endpoint, now):
        """Handle one message of this SA. Raises WireError or CryptoError for a drop."""
        if header.spi_i != self.spi_i:
            raise wire.WireError("UNKNOWN_SPI")
        if not header.flags & Flag.INITIATOR:
            raise wire.WireError("BAD_FLAGS")
        if header.flags & Flag.RESPONSE:
            self._receive_response(header, data, now)
        else:
            self._receive_request(header, data, endpoint, now)

    def _open(self, header, data):
        """(first inner payload type, inner octets) of a protected message."""
        payloads = wire.parse_payloads(header.next_payload, data[HEADER_SIZE:])
        if not payloads or payloads[-1].type != P.SK:
            raise wire.WireError("NOT_PROTECTED")
        sealed = payloads[-1]
        aad = data[: len(data) - len(sealed.body)]
        return sealed.inner, self.keys.from_initiator.open(aad, sealed.body)

    def _receive_request(self, header, data, endpoint, now):
        if header.message_id == self.expected - 1 and self._answered is not None:
            if hashlib.sha256(data).digest() != self._answered:
                raise wire.WireError("OLD_MESSAGE_ID")
            self.gateway.count("answers_resent")
            self._send(self._answer, endpoint)
            return
        if header.message_id < self.expected:
            raise wire.WireError("OLD_MESSAGE_ID")
        if header.message_id > self.expected:
            raise wire.WireError("FUTURE_MESSAGE_ID")
        if self.state == DEAD:
            raise wire.WireError("DEAD_SA")
        handler = _HANDLERS.get((self.state, header.exchange))
        if handler is None:
            raise wire.WireError("UNEXPECTED_EXCHANGE")
        first, inner = self._open(header, data)
        self.endpoint = endpoint
        payloads, fatal = self._run(handler, header, first, inner, now)
        self._answered = hashlib.sha256(data).digest()
        self._answer = self._protect(header.exchange, Flag.RESPONSE, header.message_id, payloads)
        self.expected += 1
        self._send(self._answer, endpoint)
        if fatal:
            self.die(now)

    def _run(self, handler, header, first, inner, now):
        """(payloads of the answer, fatal) from a handler or from what it refuses."""
        try:
            try:
                payloads = wire.parse_payloads(first, inner)
                for payload in payloads:
                    if payload.type in (P.SK, P.SKF):
                        raise wire.WireError("NESTED_SK")
                    if payload.critical and not self.gateway.knows(payload.type):
                        raise Refuse(
                            N.UNSUPPORTED_CRITICAL_PAYLOAD,
                            "critical payload %d" % payload.type,
                            bytes((payload.type,)),
                            fatal=self.state == HALF_OPEN,
                        )
                return handler(self, payloads, now), False
            except wire.WireError as error:
                self.gateway.drop(error.reason)
                raise Refuse(N.INVALID_SYNTAX, error.reason, fatal=True) from None
        except Refuse as refusal:
            self.gateway.error(refusal.notify.type, self.endpoint, str(refusal), self.identity)
            return [refusal.notify.payload()], refusal.fatal

    def _receive_response(self, header, data, now):
        request = self._outstanding
        if request is None or header.message_id != request.message_id:
            raise wire.WireError("UNEXPECTED_RESPONSE")
        if header.exchange != request.exchange:
            raise wire.WireError("UNEXPECTED_EXCHANGE")
        first, inner = self._open(header, data)
        payloads = wire.parse_payloads(first, inner)
        self._outstanding = None
        if request.done is not None:
            request.done(self, payloads, now)
        if self.state != DEAD:
            self._start_next(now)

    # Sending

    def _protect(self, exchange, flags, message_id, payloads):
        """The datagrams (IKE messages without marker) of a protected message."""
        first, inner = wire.encode_payloads(payloads)
        cipher = self.keys.from_responder
        size = cipher.sealed_size(len(inner))
        header = Header(
            self.spi_i, self.spi_r, P.SK, IKE_VERSION, exchange, flags, message_id,
            HEADER_SIZE + 4 + size,
        )  # fmt: skip
        aad = header.encode() + bytes((first, 0)) + (4 + size).to_bytes(2, "big")
        return [aad + cipher.seal(aad, inner, self.gateway.rand)]

    def _send(self, datagrams, endpoint):
        for datagram in datagrams:
            self.gateway.send_ike(datagram, endpoint)

    def request(self, exchange, payloads, now, done=None):
        """Queue a request of ours; `done(sa, payloads, now)` runs at its response.

        Without an answer after all resends the SA is dead (RFC 7296 §2.4).
        """
        if self.state != ESTABLISHED or len(self._queue) >= MAX_QUEUED_REQUESTS:
            return False
        self._queue.append(_Outstanding(exchange, payloads, done))
        self._start_next(now)
        return True

    def _start_next(self, now):
        if self._outstanding is not None or not self._queue:
            return
        request = self._outstanding = self._queue.pop(0)
        request.message_id = self._next_own
        self._next_own += 1
        request.datagrams = self._protect(
            request.exchange, 0, request.message_id, request.payloads
        )
        self._transmit(request, now)

    def _transmit(self, request, now):
        request.due = now + (self.gateway.config.retransmit_ms << request.tries)
        request.tries += 1
        self._send(request.datagrams, self.endpoint)

    # Time

    def next_timer(self):
        times = [self.dies]
        if self._outstanding is not None:
            times.append(self._outstanding.due)
        return min((time for time in times if time is not None), default=None)

    def timer(self, now):
        """Run what is due. True if this SA is to be forgotten."""
        if self.dies is not None and now >= self.dies:
            if self.state == HALF_OPEN:
                self.gateway.count("half_open_expired")
            return True
        request = self._outstanding
        if request is not None and now >= request.due:
            if request.tries >= self.gateway.config.retransmit_tries:
                exchange = name_of(Exchange, request.exchange)
                self.gateway.closed(self, "no answer to %s" % exchange)
                self.die(now)
            else:
                self.gateway.count("requests_resent")
                self._transmit(request, now)
        return False

    def establish(self, now):
        self.state = ESTABLISHED
        self.dies = None

    def die(self, now):
        """Drop children and addresses at once; linger to answer resends."""
        if self.state == DEAD:
            return
        self.state = DEAD
        self.dies = now + self.gateway.config.linger_ms
        self._outstanding = None
        self._queue = []
        self.gateway.release(self)

    def signed_octets(self, initiator, id_body):
        """What AUTH covers (§2.15)."""
        if initiator:
            return self.init_request + self.n_r + self.prf(self.keys.sk_pi, id_body)
        return self.init_response + self.n_i + self.prf(self.keys.sk_pr, id_body)
