"""IKE_SA_INIT as responder: cookies, proposal, key exchange, NAT detection.

RFC 7296 §1.2, §2.6, §2.7, §2.14, §2.23. Nothing is remembered for a request that is
answered with COOKIE, INVALID_KE_PAYLOAD or another error.
"""

import hashlib
import hmac
from ipaddress import ip_address

from . import wire
from .crypto import CryptoError, PrfHmac, answer_exchange, equal, first_skeyseed, ike_keys
from .ike import IkeSa
from .numbers import IKE_VERSION, Exchange, Flag, N, P, Protocol, T
from .proposals import select, without_additional
from .wire import Header, Notify, Payload

NONCE_SIZE = 32
NONCE_RANGE = range(16, 257)
COOKIE_LIFE_MS = 60_000  # how long a secret makes cookies; it verifies them for twice as long


class Cookies:
    """Stateless cookies (§2.6): version octet | HMAC(secret, Ni, address, SPIi)."""

    def __init__(self, rand):
        self._rand = rand
        self._secrets = {}
        self._version = 0
        self._changed = None

    def _rotate(self, now):
        if self._changed is None or now - self._changed >= COOKIE_LIFE_MS:
            self._version = (self._version + 1) & 0xFF
            kept = self._version - 1 & 0xFF
            self._secrets = {kept: self._secrets.get(kept), self._version: self._rand(32)}
            self._changed = now

    def _make(self, version, n_i, host, spi_i):
        secret = self._secrets.get(version)
        if secret is None:
            return None
        data = n_i + ip_address(host).packed + spi_i
        return bytes((version,)) + hmac.digest(secret, data, "sha256")[:24]

    def make(self, n_i, host, spi_i, now):
        self._rotate(now)
        return self._make(self._version, n_i, host, spi_i)

    def check(self, cookie, n_i, host, spi_i, now):
        self._rotate(now)
        expected = self._make(cookie[0], n_i, host, spi_i) if cookie else None
        return expected is not None and equal(expected, cookie)


def nat_hash(spi_i, spi_r, host, port):
    """NAT_DETECTION_*_IP data (§2.23)."""
    return hashlib.sha1(
        spi_i + spi_r + ip_address(host).packed + port.to_bytes(2, "big"), usedforsecurity=False
    ).digest()


def error_message(header, notify):
    """An unprotected answer with nothing but one notify; no SPI of ours in it."""
    answer = Header(
        header.spi_i,
        bytes(8),
        0,
        IKE_VERSION,
        header.exchange,
        Flag.RESPONSE,
        header.message_id,
        0,
    )
    return wire.encode_message(answer, [notify.payload()])


def _one(payloads, kind):
    found = [payload.body for payload in payloads if payload.type == kind]
    if len(found) != 1:
        raise wire.WireError("BAD_PAYLOADS")
    return found[0]


def handle(gateway, header, data, endpoint, now):
    """The answer to an IKE_SA_INIT request: (octets, `IkeSa` or None).

    WireError if the request is malformed: then it is dropped without an answer.
    """
    config = gateway.config
    payloads = wire.parse_payloads(header.next_payload, data[wire.HEADER_SIZE :])
    for payload in payloads:
        if payload.type in (P.SK, P.SKF):
            raise wire.WireError("BAD_PAYLOADS")
        if payload.critical and not gateway.knows(payload.type):
            unknown = Notify(N.UNSUPPORTED_CRITICAL_PAYLOAD, bytes((payload.type,)))
            return error_message(header, unknown), None
    n_i = _one(payloads, P.NONCE)
    if len(n_i) not in NONCE_RANGE:
        raise wire.WireError("BAD_NONCE")
    group, public = wire.parse_ke(_one(payloads, P.KE))
    offers = wire.parse_sa(_one(payloads, P.SA))
    notifies = [wire.parse_notify(p.body) for p in payloads if p.type == P.NOTIFY]
    vendor_ids = [p.body for p in payloads if p.type == P.VENDOR_ID]

    if config.cookie or gateway.half_open() >= config.cookie_threshold:
        first = notifies[0] if payloads[0].type == P.NOTIFY else Notify(0)
        if first.type != N.COOKIE or not gateway.cookies.check(
            first.data, n_i, endpoint.host, header.spi_i, now
        ):
            cookie = gateway.cookies.make(n_i, endpoint.host, header.spi_i, now)
            gateway.count("cookies_sent")
            return error_message(header, Notify(N.COOKIE, cookie)), None
    if gateway.half_open() >= config.max_half_open or len(gateway.sas) >= config.max_sas:
        raise wire.WireError("TOO_MANY_SAS")

    kinds = {notify.type for notify in notifies}
    suites = config.ike_suites
    if not config.intermediate or N.INTERMEDIATE_EXCHANGE_SUPPORTED not in kinds:
        suites = [cut for cut in map(without_additional, suites) if cut is not None]
    choice = select(suites, offers, Protocol.IKE)
    if choice is None:
        gateway.error(N.NO_PROPOSAL_CHOSEN, endpoint, "no IKE proposal in common")
        return error_message(header, Notify(N.NO_PROPOSAL_CHOSEN)), None
    wanted = choice.transform(T.KE).id
    if group != wanted:
        return error_message(header, Notify(N.INVALID_KE_PAYLOAD, wanted.to_bytes(2, "big"))), None
    try:
        our_public, shared = answer_exchange(group, public, gateway.rand)
    except CryptoError:
        gateway.error(N.INVALID_SYNTAX, endpoint, "bad key exchange value")
        return error_message(header, Notify(N.INVALID_SYNTAX)), None

    spi_r = gateway.new_ike_spi()
    n_r = gateway.rand(NONCE_SIZE)
    skeyseed = first_skeyseed(PrfHmac(choice.transform(T.PRF).id), n_i, n_r, shared)
    keys = ike_keys(choice, skeyseed, n_i, n_r, header.spi_i, spi_r)
    sa = IkeSa(gateway, header.spi_i, spi_r, choice, keys, n_i, n_r, endpoint, now)

    answer = [
        Payload(P.SA, wire.encode_sa([choice.answer(b"")])),
        Payload(P.KE, wire.encode_ke(group, our_public)),
        Payload(P.NONCE, n_r),
    ]
    answer += _nat_detection(sa, config, header, notifies, endpoint, gateway.rand)
    answer += sa.negotiate(kinds, vendor_ids)
    sa.init_request = data
    sa.init_response = wire.encode_message(
        Header(header.spi_i, spi_r, 0, IKE_VERSION, Exchange.IKE_SA_INIT, Flag.RESPONSE, 0, 0),
        answer,
    )
    return sa.init_response, sa


def _nat_detection(sa, config, header, notifies, endpoint, rand):
    """Judge the peer's two hashes and give ours; none if the peer sent none."""
    sources = [n.data for n in notifies if n.type == N.NAT_DETECTION_SOURCE_IP]
    targets = [n.data for n in notifies if n.type == N.NAT_DETECTION_DESTINATION_IP]
    if not sources or not targets:
        return []
    here = (endpoint.local_host, endpoint.local_port)
    there = (endpoint.host, endpoint.port)
    zero = header.spi_r
    sa.peer_behind_nat = nat_hash(sa.spi_i, zero, *there) not in sources
    sa.behind_nat = nat_hash(sa.spi_i, zero, *here) not in targets
    own = nat_hash(sa.spi_i, sa.spi_r, *here)
    if config.encap:
        own = rand(20)
    return [
        Notify(N.NAT_DETECTION_SOURCE_IP, own).payload(),
        Notify(N.NAT_DETECTION_DESTINATION_IP, nat_hash(sa.spi_i, sa.spi_r, *there)).payload(),
    ]
