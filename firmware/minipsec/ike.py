"""The IKEv2 initiator, IKE_SA_INIT to IKE_AUTH (RFC 7815, RFC 7296): a machine without I/O.

Theory of operation.  The owner calls `start`, hands in datagrams by `receive` and the passing of
time by `timer`; after each of these calls it takes what `poll_out` and `next_event` return, until
they return None, and calls `timer` again at `next_timer`.  A datagram here is a UDP payload,
the non-ESP marker included where one belongs.

All that changes state goes through `TABLE`: (state, exchange, is it a response) leads to the
handler and to the states in which it may end.  What is not in the table is dropped and counted.
When IKE_AUTH is done the table of `established` takes over.

Events are tuples:
  ("state", name)                  a new state
  ("hint", notify type)            an error that nobody authenticated; nothing changed
  ("agreed", {type: (id, bits)})   the IKE proposal
  ("up", child)                    IKE_AUTH done; `child` is a dict, see `_on_auth`
  ("failed", kind, detail)         this IKE SA is over: ("notify", type), ("timeout", exchange),
                                   ("peer", what it did wrong)
  ("deleted",)                     the peer deleted this IKE SA
  ("answered", exchange)           the peer answered a request made after IKE_AUTH
  ("keys", ...)                    only with the profile key `keylog`
"""

import struct
from hashlib import sha1, sha256
from micropython import const

from . import auth, kdf, wire
from .ccm import CCM, equal
from .dh import METHODS
from .wire import Drop

_IKE_SA_INIT = const(34)
_IKE_AUTH = const(35)
_CREATE_CHILD_SA = const(36)
_INFORMATIONAL = const(37)

_I = const(0x08)
_R = const(0x20)

_SA = const(33)
_KE = const(34)
_IDI = const(35)
_IDR = const(36)
_AUTH = const(39)
_NONCE = const(40)
_N = const(41)
_D = const(42)
_TSI = const(44)
_TSR = const(45)
_SK = const(46)
_CP = const(47)
_LAST_KNOWN = const(48)  # payload types 33..48 are RFC 7296's own

_UNSUPPORTED_CRITICAL_PAYLOAD = const(1)
_INVALID_SYNTAX = const(7)
_INVALID_KE_PAYLOAD = const(17)
_AUTHENTICATION_FAILED = const(24)
_STATUS = const(16384)  # notify types from here on are no errors
_INITIAL_CONTACT = const(16384)
_NAT_DETECTION_SOURCE_IP = const(16388)
_NAT_DETECTION_DESTINATION_IP = const(16389)
_COOKIE = const(16390)

_PSK = const(2)  # RFC 7296 §3.8: Shared Key Message Integrity Code
_ESP = const(3)
_INTERNAL_IP4_ADDRESS = const(1)

_MAX_ROUNDS = const(3)  # COOKIE and INVALID_KE_PAYLOAD answers in one retransmission interval
_MAX_MESSAGE = const(3000)
_MARKER = b"\0\0\0\0"

_S_IDLE = const(0)
_S_INIT = const(1)
_S_AUTH = const(2)
_S_UP = const(3)
_S_DELETING = const(4)
_S_DEAD = const(5)
STATES = ("IDLE", "IKE_SA_INIT", "IKE_AUTH", "UP", "DELETING", "DOWN")


class Initiator:
    """One IKE SA and its Child SA, from the first IKE_SA_INIT to its end.

    `profile` is what store.load_profile returns; `rand(n)` returns n random octets.
    """

    def __init__(self, profile, rand):
        self.profile = profile
        self._rand = rand
        self.state = _S_IDLE
        self.drops = {}
        self.nat = None  # are we behind a NAT? None: not known
        # From here on datagrams go to natt_port and carry the non-ESP marker.
        self.floated = profile["port"] == profile["natt_port"]
        self.reply = False  # was the last datagram of poll_out an answer to a request?
        self.spi_i = _spi(rand, 8)
        self.spi_r = bytes(8)
        self._table = TABLE
        self._out = []
        self._events = []
        self._request = None  # datagrams of the outstanding request
        self._exchange = 0
        self._mid = 0  # Message ID of our next or outstanding request
        self._peer_mid = 0  # Message ID that the peer's next request must have
        self._answered = None  # (digest of the peer's last request, our answer)
        self._tries = 0
        self._interval = 0
        self._due = None
        self._rounds = 0
        self._cookie = b""
        self._ke = None
        self._iv = 0
        self._ending = False  # the answer on its way out is this SA's last
        self._tx = self._rx = None
        self._local = self._remote = None

    # The owner's side.

    def start(self, now, local=None, remote=None):
        """Send the first IKE_SA_INIT.

        `local` and `remote` are (packed address, port) for NAT detection, where known.
        """
        self._local = local
        self._remote = remote
        self._n_i = self._rand(32)
        self._offer = [(1, b"", transforms) for _, transforms in self.profile["ike"]]
        self._groups = _groups(self._offer)
        self._ke_id = self._groups[0]
        self.go(_S_INIT)
        self._send_init(now)

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
        """Do what is due at `now`: resend, or give up."""
        if self._due is None or now < self._due:
            return
        if self._tries >= self.profile["retransmit_tries"]:
            self._fail("timeout", self._exchange)
            return
        self._tries += 1
        self._rounds = 0
        self._interval *= 2
        self._due = now + self._interval
        for datagram in self._request:
            self._out.append((False, datagram))

    def next_timer(self):
        """Return the time at which `timer` wants to be called, or None."""
        return self._due

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
        row = self._table.get((self.state, exchange, bool(flags & _R)))
        if row is None:
            raise Drop("UNEXPECTED")
        if exchange == _IKE_SA_INIT:
            if mid:
                raise Drop("OLD_MESSAGE_ID")
            self._message_r = view
            row[0](self, wire.payloads(first, view, 28), now)
            return
        if spi_r != self.spi_r:
            raise Drop("UNKNOWN_SPI")
        if flags & _R:
            if mid != self._mid or exchange != self._exchange or self._request is None:
                raise Drop("OLD_MESSAGE_ID")
            first, plain = self._open(first, view)
            row[0](self, wire.payloads(first, plain, 0), now)
            return
        digest = sha256(view).digest()
        if self._answered and self._answered[0] == digest:
            self._out.append((True, self._answered[1]))
            return
        if mid != self._peer_mid:
            raise Drop("OLD_MESSAGE_ID")
        first, plain = self._open(first, view)
        answer = self._serve(row[0], first, plain, now)
        self._peer_mid += 1
        answer = self._protect(exchange, _I | _R, mid, answer)
        self._answered = digest, answer
        self._out.append((True, answer))
        if self._ending:
            self._events.append(("deleted",))
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

    def _open(self, first, view):
        """Return (first payload, plaintext) of the SK payload, which must be the last."""
        outer = wire.payloads(first, view, 28)
        if not outer or outer[-1][0] != _SK:
            raise Drop("NOT_PROTECTED")
        _, first, body = outer[-1]
        plain = self._rx.open(view[: len(view) - len(body)], body)
        if plain is None:
            raise Drop("BAD_ICV")
        return first, memoryview(plain)

    # Sending.

    def _protect(self, exchange, flags, mid, payloads):
        """Return the datagram of a message with an SK payload."""
        first, plain = wire.chain(payloads)
        size = self._tx.size(len(plain)) + 4
        head = wire.header(self.spi_i, self.spi_r, _SK, exchange, flags, mid, 28 + size)
        head += struct.pack(">BBH", first, 0, size)
        # One counter for every ciphertext under this key, whatever it belongs to.
        self._iv += 1
        return self._marked(head, self._tx.seal(head, struct.pack(">Q", self._iv), plain))

    def _marked(self, *parts):
        return b"".join((_MARKER,) + parts if self.floated else parts)

    def _send_request(self, exchange, datagrams, now):
        """Send a request and keep its octets for resends, which are identical (RFC 7296 §2.1)."""
        self._exchange = exchange
        self._request = datagrams
        self._tries = 1
        self._interval = self.profile["retransmit_ms"]
        self._due = now + self._interval
        for datagram in datagrams:
            self._out.append((False, datagram))

    def request(self, exchange, payloads, now):
        """Send a protected request; False while another one is outstanding."""
        if self._request is not None:
            return False
        self._send_request(exchange, [self._protect(exchange, _I, self._mid, payloads)], now)
        return True

    def answer_came(self):
        """Close the outstanding exchange: its answer is here."""
        self._request = None
        self._due = None
        self._mid += 1

    def _send_init(self, now):
        if self._ke is None:
            self._ke = METHODS[self._ke_id](self._rand)
        payloads = [
            (_SA, wire.sa_body(self._offer)),
            (_KE, struct.pack(">HH", self._ke_id, 0) + self._ke.public),
            (_NONCE, self._n_i),
            (_N, wire.notify(_NAT_DETECTION_SOURCE_IP, self._nat_hash(self._source()))),
            (_N, wire.notify(_NAT_DETECTION_DESTINATION_IP, self._nat_hash(self._remote))),
        ]
        if self._cookie:
            payloads.insert(0, (_N, wire.notify(_COOKIE, self._cookie)))
        first, body = wire.chain(payloads)
        n = 28 + len(body)
        head = wire.header(self.spi_i, bytes(8), first, _IKE_SA_INIT, _I, 0, n)
        self._message_i = head + body
        self._out.clear()
        self._send_request(_IKE_SA_INIT, [self._marked(self._message_i)], now)

    def _source(self):
        # `encap` asks for UDP encapsulation even without a NAT, by a hash that cannot match:
        # stock boards cannot receive plain ESP.
        return None if self.profile["encap"] else self._local

    def _nat_hash(self, address):
        """SHA-1(SPIi | SPIr | address | port), RFC 7296 §2.23; random where it is not known."""
        if address is None:
            return self._rand(20)
        return _nat_hash(self.spi_i, self.spi_r, address)

    # IKE_SA_INIT.

    def _on_init(self, payloads, now):
        found, notifies = _sort(payloads)
        if _SA not in found:
            self._on_init_notify(notifies, now)
            return
        spi_r = bytes(self._message_r[8:16])
        if spi_r == bytes(8) or not (_KE in found and _NONCE in found):
            raise Drop("BAD_INIT")
        _, picked = wire.chosen(self._offer, found[_SA], 1)
        ke = found[_KE]
        n_r = bytes(found[_NONCE])
        if not 16 <= len(n_r) <= 256 or len(ke) < 4:
            raise Drop("BAD_INIT")
        if ke[0] << 8 | ke[1] != self._ke_id or picked[4][0] != self._ke_id:
            raise Drop("BAD_KE")
        if len(ke) - 4 != METHODS[self._ke_id].size:
            raise Drop("BAD_KE")
        shared = self._ke.shared(bytes(ke[4:]))
        if shared is None:
            raise Drop("BAD_KE")
        self._ke = None
        self.spi_r = spi_r
        self._n_r = n_r
        self._message_r = bytes(self._message_r)
        self.picked = picked
        self._nat_check(notifies)
        self.answer_came()
        self._make_keys(shared)
        self._events.append(("agreed", picked))
        self._send_auth(now)

    def _on_init_notify(self, notifies, now):
        """React to an answer that refuses; nobody has authenticated it."""
        for kind, data in notifies:
            if kind == _COOKIE and 1 <= len(data) <= 64:
                self._round()
                self._cookie = bytes(data)
            elif kind == _INVALID_KE_PAYLOAD and len(data) == 2:
                group = data[0] << 8 | data[1]
                if group not in self._groups or group == self._ke_id:
                    raise Drop("BAD_KE")
                self._round()
                self._ke_id = group
                self._ke = None
            elif kind < _STATUS:
                # Anyone may have sent it: remembered for the final error, nothing more.
                self._events.append(("hint", kind))
                raise Drop("UNAUTHENTICATED_ERROR")
            else:
                continue
            tries, interval = self._tries, self._interval
            self._send_init(now)
            self._tries, self._interval = tries, interval
            return
        raise Drop("BAD_INIT")

    def _round(self):
        self._rounds += 1
        if self._rounds > _MAX_ROUNDS:
            raise Drop("TOO_MANY_ROUNDS")

    def _nat_check(self, notifies):
        """Note whether a NAT is between us, and go to port 4500 (RFC 7296 §2.23)."""
        for kind, data in notifies:
            if kind == _NAT_DETECTION_DESTINATION_IP:
                if self._local:
                    seen = bytes(data) == _nat_hash(self.spi_i, self.spi_r, self._local)
                    self.nat = not seen
                self.floated = True

    def _make_keys(self, shared):
        nonces = self._n_i + self._n_r
        skeyseed = kdf.prf(nonces, shared)
        ident, bits = self.picked[1]
        size = bits // 8 + 3
        keys = kdf.sk_keys(skeyseed, nonces, self.spi_i + self.spi_r, size, 0)
        self._sk_d, _, _, sk_ei, sk_er, self._sk_pi, self._sk_pr = keys
        icv = icv_size(ident)
        self._tx = CCM(sk_ei, icv)
        self._rx = CCM(sk_er, icv)
        self._iv = 0
        if self.profile["keylog"]:
            self._events.append(("keys", self.spi_i, self.spi_r, sk_ei, sk_er, bits, icv))

    # IKE_AUTH.

    def _send_auth(self, now):
        p = self.profile
        self.spi_in = _spi(self._rand, 4)
        self._offer = [(_ESP, self.spi_in, transforms) for _, transforms in p["esp"]]
        anywhere = (bytes(4), b"\xff" * 4)
        inner = p["inner_address"]
        self._ts_i = (inner, inner) if inner else anywhere
        ident = _id_body(p["id"])
        data = auth.psk_auth(self._pad(), self._message_i, self._n_r, self._sk_pi, ident)
        payloads = [(_IDI, ident), (_N, wire.notify(_INITIAL_CONTACT))]
        if p["gateway_id"] != "any":
            payloads.append((_IDR, _id_body(p["gateway_id"])))
        payloads.append((_AUTH, struct.pack(">I", _PSK << 24) + data))
        if not inner:
            payloads.append((_CP, wire.cp_body(1, [(_INTERNAL_IP4_ADDRESS, b"")])))
        payloads.append((_SA, wire.sa_body(self._offer)))
        payloads.append((_TSI, wire.ts_body([self._ts_i])))
        payloads.append((_TSR, wire.ts_body([p["remote_ts"]])))
        self.go(_S_AUTH)
        self.request(_IKE_AUTH, payloads, now)

    def _pad(self):
        return self.profile.get("psk_pad") or auth.psk_pad(self.profile["psk"])

    def _on_auth(self, payloads, now):
        found, notifies = _sort(payloads)
        refusal = [kind for kind, _ in notifies if kind < _STATUS]
        self.answer_came()
        if not (_AUTH in found and _IDR in found):
            if refusal:
                self._fail("notify", refusal[0])
            else:
                self._refuse("no AUTH payload")
            return
        idr = bytes(found[_IDR])
        wanted = self.profile["gateway_id"]
        data = auth.psk_auth(self._pad(), self._message_r, self._n_i, self._sk_pr, idr)
        if bytes(found[_AUTH][:1]) != bytes((_PSK,)) or not equal(found[_AUTH][4:], data):
            self._refuse("AUTH does not verify")
        elif wanted != "any" and idr[:1] + idr[4:] != bytes((wanted[0],)) + wanted[1]:
            self._refuse("IDr is not gateway_id")
        elif refusal or not (_SA in found and _TSI in found and _TSR in found):
            # The IKE SA stands without its Child SA: of no use to us (RFC 7815 §2.1).
            self._leave("notify", refusal[0]) if refusal else self._leave("peer", "no Child SA")
        else:
            try:
                child = self._child(found)
            except Drop as e:
                self._leave("peer", e.args[0])
                return
            from . import established

            self._table = established.TABLE
            self._message_i = self._message_r = self._n_i = self._n_r = None
            self._sk_d = self._sk_pi = self._sk_pr = None
            self.spi_out = child["spi_out"]
            self.go(_S_UP)
            self._events.append(("up", child))

    def _child(self, found):
        """Return what the Child SA needs, as a dict, or raise Drop with what is wrong.

        Keys: spi_in, spi_out (4 octets), key_in, key_out (AES key and salt), icv (octets),
        picked ({type: (id, bits)}), inner (packed address).
        """
        spi_out, picked = wire.chosen(self._offer, found[_SA], _ESP)
        if len(spi_out) != 4:
            raise Drop("BAD_SA")
        inner = self.profile["inner_address"] or _assigned(found.get(_CP))
        ts_i = _within(found[_TSI], self._ts_i)
        ts_r = _within(found[_TSR], self.profile["remote_ts"])
        _covers(ts_i, inner, self.profile["inner_port"], "TSi without our inner address")
        _covers(ts_r, self.profile["server"], self.profile["server_port"], "TSr without server")
        ident, bits = picked[1]
        keys = kdf.child_keys(self._sk_d, self._n_i + self._n_r, bits // 8 + 3)
        return {
            "spi_in": self.spi_in,
            "spi_out": spi_out,
            "key_out": keys[0],
            "key_in": keys[1],
            "icv": icv_size(ident),
            "picked": picked,
            "inner": inner,
        }

    # Ends.

    def end_after_answer(self):
        """The peer deleted this SA: answer it, then end."""
        self._ending = True

    def _refuse(self, why):
        """End an SA whose peer did not prove who it is, telling it so (RFC 7296 §2.21.2)."""
        self._once([(_N, wire.notify(_AUTHENTICATION_FAILED))])
        self._fail("peer", why)

    def _leave(self, kind, detail):
        """End an authenticated SA of no use, deleting it at the peer (RFC 7815 §2.1, B.1)."""
        self._once([(_D, struct.pack(">BBH", 1, 0, 0))])
        self._fail(kind, detail)

    def _once(self, payloads):
        # A last word that waits for no answer.
        message = self._protect(_INFORMATIONAL, _I, self._mid, payloads)
        self._mid += 1
        self._out.append((False, message))

    def _fail(self, kind, detail):
        self.end()
        self._events.append(("failed", kind, detail))

    def end(self):
        """Stop everything and let go of the keys."""
        self._request = self._due = self._answered = None
        self._tx = self._rx = self._ke = None
        self._n_i = self._n_r = self._message_i = self._message_r = None
        self._sk_d = self._sk_pi = self._sk_pr = None
        self.go(_S_DEAD)

    def go(self, state):
        """Enter a state and say so."""
        self.state = state
        self._events.append(("state", STATES[state]))


def icv_size(ident):
    """Octets of ICV of an AES-CCM transform id (RFC 5282 §7.2): 14, 15, 16 are 8, 12, 16."""
    return 4 * ident - 48


def _spi(rand, n):
    # Above 255 (RFC 4303 §2.1), and never starting like a non-ESP marker.
    while True:
        spi = rand(n)
        if bytes(spi[:3]) != b"\0\0\0":
            return bytes(spi)


def _groups(offer):
    return [ident for _, _, transforms in offer for kind, ident, _ in transforms if kind == 4]


def _nat_hash(spi_i, spi_r, address):
    return sha1(spi_i + spi_r + address[0] + struct.pack(">H", address[1])).digest()


def _sort(payloads):
    """Return ({type: body}, [(notify type, data)]); each type but Notify stands once."""
    found = {}
    notifies = []
    for kind, critical, body in payloads:
        if kind == _N:
            notifies.append(wire.parse_notify(body)[:2])
        elif kind in found:
            raise Drop("BAD_PAYLOAD")
        elif _SA <= kind <= _LAST_KNOWN:
            if kind != 43:  # Vendor IDs come in numbers
                found[kind] = body
        elif critical:
            raise Drop("CRITICAL_PAYLOAD")
    return found, notifies


def _id_body(identity):
    return struct.pack(">I", identity[0] << 24) + identity[1]


def _assigned(body):
    """Return the address out of CFG_REPLY."""
    if body is not None:
        kind, attributes = wire.parse_cp(body)
        for attribute, value in attributes:
            if kind == 2 and attribute == _INTERNAL_IP4_ADDRESS and len(value) == 4:
                return value
    raise Drop("no inner address in CFG_REPLY")


def _within(body, offered):
    """Return the selectors of a TS payload; Drop when one goes beyond what we offered."""
    found = wire.parse_ts(body)
    low, high = offered
    for _, _, _, first, last in found:
        if len(first) != len(low) or not low <= first <= last <= high:
            raise Drop("traffic selectors wider than asked for")
    return found


def _covers(selectors, address, port, complaint):
    for protocol, low, high, first, last in selectors:
        if protocol in (0, 17) and low <= port <= high and first <= address <= last:
            return
    raise Drop(complaint)


def _nothing(sa, payloads, now):
    """Answer a request that comes before the gateway has proved who it is; do nothing."""
    return []


# (state, exchange, is a response): (handler, the states in which it may end)
TABLE = {
    (_S_INIT, _IKE_SA_INIT, True): (Initiator._on_init, (_S_INIT, _S_AUTH)),
    (_S_AUTH, _IKE_AUTH, True): (Initiator._on_auth, (_S_UP, _S_DEAD)),
    (_S_AUTH, _INFORMATIONAL, False): (_nothing, (_S_AUTH,)),
}
