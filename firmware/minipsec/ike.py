"""The IKEv2 initiator, IKE_SA_INIT to IKE_AUTH (RFC 7815, RFC 7296).

`machine` says how to drive it.  When IKE_AUTH is done the table of `established` takes over.

Events are tuples:
  ("state", name)                  a new state
  ("hint", notify type)            an error that nobody authenticated; nothing changed
  ("agreed", {type: (id, bits)})   the IKE proposal
  ("up", child)                    IKE_AUTH done; `child` is a dict, see `_child`
  ("failed", kind, detail)         this IKE SA is over: ("notify", type), ("timeout", exchange),
                                   ("peer", what it did wrong), ("ppk", what is wrong with it)
  ("deleted",)                     the peer deleted this IKE SA
  ("answered",)                    the peer answered a request made after IKE_AUTH
  ("keys", ...)                    only with the profile key `keylog`
"""

import struct
from hashlib import sha1
from micropython import const

from . import auth, kdf, wire
from .ccm import CCM, equal
from .dh import method, wipe
from .machine import Machine, sort, spi
from .wire import Drop

_IKE_SA_INIT = const(34)
_IKE_AUTH = const(35)
_CREATE_CHILD_SA = const(36)
_INFORMATIONAL = const(37)
_IKE_INTERMEDIATE = const(43)

_I = const(0x08)

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
_VENDOR = const(43)
_CP = const(47)

_INVALID_KE_PAYLOAD = const(17)
_AUTHENTICATION_FAILED = const(24)
_NO_ADDITIONAL_SAS = const(35)
_STATUS = const(16384)  # notify types from here on are no errors
_INITIAL_CONTACT = const(16384)
_NAT_DETECTION_SOURCE_IP = const(16388)
_NAT_DETECTION_DESTINATION_IP = const(16389)
_COOKIE = const(16390)
_IKEV2_FRAGMENTATION_SUPPORTED = const(16430)

_ENCR_AES_CBC = const(12)
_ENCR_AES_CCM_8_IIV = const(29)
_USE_TRANSPORT_MODE = const(16391)

_USE_PPK = const(16435)
_PPK_IDENTITY = const(16436)
_NO_PPK_AUTH = const(16437)
_INTERMEDIATE_EXCHANGE_SUPPORTED = const(16438)
_ADDKE1 = const(6)  # transform types 6..12 are ADDKE1..7 (RFC 9370 §2.2.1)
_ADDKE7 = const(12)

_PSK = const(2)  # RFC 7296 §3.8: Shared Key Message Integrity Code
_ESP = const(3)
_INTERNAL_IP4_ADDRESS = const(1)
_INTERNAL_IP6_ADDRESS = const(8)

_MAX_ROUNDS = const(3)  # COOKIE and INVALID_KE_PAYLOAD answers in one retransmission interval

_S_INIT = const(1)
_S_INTERMEDIATE = const(2)
_S_AUTH = const(3)
_S_UP = const(4)
_S_DEAD = const(6)


class Initiator(Machine):
    """One IKE SA and its Child SA, from the first IKE_SA_INIT to its end."""

    def __init__(self, profile, rand):
        super().__init__(profile, rand)
        self.encap = profile["encap"]  # ask for UDP encapsulation even without a NAT
        self.taken = ()  # inbound SPIs of our other SAs
        self.initial_contact = True  # no other SA of ours is with this gateway
        self.peer_nat = True  # may the gateway be behind one, or does it say so?
        self.nat = None  # are we behind a NAT? None: not known
        self._table = TABLE
        self._rounds = 0
        self._ppk = None  # how a PPK may go in: "auth" or "int"
        self.with_ppk = False  # it did
        self._before = None  # an Intermediate, between IKE_SA_INIT and IKE_AUTH
        self._cookie = b""
        self._ke = None
        self._local = self._remote = None

    def start(self, now, local=None, remote=None):
        """Send the first IKE_SA_INIT.

        `local` and `remote` are (packed address, port) for NAT detection, where known.
        """
        self._local = local
        self._remote = remote
        # RFC 7383 §2.5.1: without knowing the path, 576 octets of IPv4 or 1280 of IPv6.
        six = remote and len(remote[0]) == 16
        self.room = (self.profile["fragment_size"] or (1280 if six else 576)) - (48 if six else 28)
        self._n_i = self.rand(32)
        # `encap` asks for UDP encapsulation even without a NAT, by a hash that cannot match:
        # stock boards cannot receive plain ESP.
        self._nat_source = self._nat_hash(None if self.encap else local)
        self._nat_destination = self._nat_hash(remote)
        self._offer = [(1, b"", transforms) for _, transforms in self.profile["ike"]]
        self._groups = _groups(self._offer)
        self._ke_id = self._groups[0]
        self.go(_S_INIT)
        self._send_init(now)

    def authenticating(self):
        """Is IKE_AUTH on its way?"""
        return self.state == _S_AUTH

    def on_resend(self):
        """Each retransmission interval may have rounds of its own."""
        self._rounds = 0

    def end(self):
        """Stop everything and let go of the keys."""
        super().end()
        self._forget()

    def _forget(self):
        wipe(self._ke)
        wipe(self._before)
        self._before = self._plain = self._int_auth = None
        self._ke = self._n_i = self._n_r = self._message_i = self._message_r = None
        self.sk_d = self.sk_pi = self.sk_pr = None

    # IKE_SA_INIT.

    def _send_init(self, now):
        if self._ke is None:
            self._ke = method(self._ke_id)(self.rand)
        payloads = [
            (_SA, wire.sa_body(self._offer)),
            (_KE, struct.pack(">HH", self._ke_id, 0) + self._ke.public),
            (_NONCE, self._n_i),
            (_N, wire.notify(_NAT_DETECTION_SOURCE_IP, self._nat_source)),
            (_N, wire.notify(_NAT_DETECTION_DESTINATION_IP, self._nat_destination)),
        ]
        payloads.append((_N, wire.notify(_IKEV2_FRAGMENTATION_SUPPORTED)))
        if self.profile["frag_ack"] != "off":
            from .fragack import VENDOR_ID

            payloads.append((_N, wire.notify(self.profile["frag_ack_types"][0])))
            payloads.append((_VENDOR, VENDOR_ID))
        kinds = [kind for _, _, found in self._offer for kind, _, _ in found]
        more = max(kinds) >= _ADDKE1
        if self.profile["ppk_id"]:
            from .ppk import offers

            more = True
            for kind in offers():
                payloads.append((_N, wire.notify(kind)))
        if more:
            payloads.append((_N, wire.notify(_INTERMEDIATE_EXCHANGE_SUPPORTED)))
        if self._cookie:
            payloads.insert(0, (_N, wire.notify(_COOKIE, self._cookie)))
        first, body = wire.chain(payloads)
        n = 28 + len(body)
        head = wire.header(self.spi_i, bytes(8), first, _IKE_SA_INIT, _I, 0, n)
        self._message_i = head + body
        self._out.clear()
        self.send_request(_IKE_SA_INIT, [self.marked(self._message_i)], now)

    def _nat_hash(self, address):
        """SHA-1(SPIi | SPIr | address | port), RFC 7296 §2.23; random where it is not known."""
        if address is None:
            return self.rand(20)
        return _nat_hash(self.spi_i, bytes(8), address)

    def _on_init(self, payloads, now):
        found, notifies, vendors = sort(payloads)
        if _SA not in found:
            self._on_init_notify(notifies, now)
            return
        spi_r = bytes(self._view[8:16])
        if spi_r == bytes(8) or not (_KE in found and _NONCE in found):
            raise Drop("BAD_INIT")
        _, picked = wire.chosen(self._offer, found[_SA], 1)
        kinds = [kind for kind, _ in notifies]
        intermediate = _INTERMEDIATE_EXCHANGE_SUPPORTED in kinds
        more = [picked.get(kind, (0, 0))[0] for kind in range(_ADDKE1, _ADDKE7 + 1)]
        more = [ident for ident in more if ident]
        # RFC 9370 §2.2.1: not without IKE_INTERMEDIATE, and no method twice.
        if more and not (intermediate and len(set(more + [picked[4][0]])) > len(more)):
            raise Drop("BAD_INIT")
        way = None
        if self.profile["ppk_id"]:
            from .ppk import agreed

            way = agreed(kinds, intermediate)
            if not way and self.profile["ppk_required"]:
                # Nobody has authenticated this answer: another one may follow.
                self.event("hint", _USE_PPK)
                raise Drop("NO_PPK")
        ke = found[_KE]
        n_r = bytes(found[_NONCE])
        if not 16 <= len(n_r) <= 256 or len(ke) < 4:
            raise Drop("BAD_INIT")
        if ke[0] << 8 | ke[1] != self._ke_id or picked[4][0] != self._ke_id:
            raise Drop("BAD_KE")
        if len(ke) - 4 != self._ke.size:
            raise Drop("BAD_KE")
        shared = self._ke.shared(bytes(ke[4:]))
        if shared is None:
            raise Drop("BAD_KE")
        self._ke = None
        self.spi_r = spi_r
        self._n_r = n_r
        self._message_r = bytes(self._view)
        self._view = None
        self.picked = picked
        self._nat_check(notifies)
        self._fragment_check(kinds, vendors)
        self._ppk = way
        self.answer_came(now)
        self.make_keys(kdf.prf(self._n_i + n_r, shared))
        self.event("agreed", picked)
        if more or way == "int":
            from .intermediate import Intermediate

            self._before = Intermediate(more, way == "int")
            self._before.start(self, now)
        else:
            self.send_auth(now)

    def _on_init_notify(self, notifies, now):
        """React to an answer that refuses; nobody has authenticated it."""
        for kind, data in notifies:
            if kind == _COOKIE and 1 <= len(data) <= 64:
                if data == self._cookie:
                    raise Drop("OLD_COOKIE")  # sent back already; the answer came twice
                self._round()
                self._cookie = bytes(data)
            elif kind == _INVALID_KE_PAYLOAD and len(data) == 2:
                group = data[0] << 8 | data[1]
                if group not in self._groups or group == self._ke_id:
                    raise Drop("BAD_KE")
                self._round()
                self._ke_id = group
                wipe(self._ke)
                self._ke = None
            elif kind < _STATUS:
                # Anyone may have sent it: remembered for the final error, nothing more.
                self.event("hint", kind)
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
                self.floated = True
                if self._local:
                    self.nat = bytes(data) != _nat_hash(self.spi_i, self.spi_r, self._local)
            elif kind == _NAT_DETECTION_SOURCE_IP and self._remote:
                # One that fits is enough (RFC 7296 §2.23): then the gateway is behind no NAT.
                if bytes(data) == _nat_hash(self.spi_i, self.spi_r, self._remote):
                    self.peer_nat = False

    def _fragment_check(self, kinds, vendors):
        """Note whether both sides fragment, and acknowledge fragments (draft -02 §4)."""
        self.fragmentation = _IKEV2_FRAGMENTATION_SUPPORTED in kinds
        p = self.profile
        if p["frag_ack"] != "off" and self.fragmentation and p["frag_ack_types"][0] in kinds:
            from .fragack import VENDOR_ID, Acks

            # The type is from the private range: it means what we mean only beside our Vendor ID.
            if VENDOR_ID in vendors:
                self._acks = Acks(p)

    def make_keys(self, skeyseed):
        ident, bits = self.picked[1]
        cbc = ident == _ENCR_AES_CBC
        size = bits // 8 if cbc else bits // 8 + 3
        spis = self.spi_i + self.spi_r
        keys = kdf.sk_keys(skeyseed, self.nonces(), spis, size, 32 if cbc else 0)
        self.sk_d, sk_ai, sk_ar, sk_ei, sk_er, self.sk_pi, self.sk_pr = keys
        if cbc:
            from .cbc import CBC

            self._tx = CBC(sk_ei, sk_ai)
            self._rx = CBC(sk_er, sk_ar)
        else:
            self._tx = CCM(sk_ei, icv_size(ident))
            self._rx = CCM(sk_er, icv_size(ident))
        self._iv = 0
        if self.profile["keylog"]:
            self.event("keys", self.spi_i, self.spi_r, self.picked, sk_ei, sk_er, sk_ai, sk_ar)

    def nonces(self):
        """Return Ni | Nr."""
        return self._n_i + self._n_r

    # IKE_AUTH.

    def send_auth(self, now, int_auth=b""):
        """Send IKE_AUTH; `int_auth` is IntAuth where an IKE_INTERMEDIATE took place."""
        p = self.profile
        self._int_auth = int_auth
        self.spi_in = self._choose_spi()
        self._offer = [(_ESP, self.spi_in, transforms) for _, transforms in p["esp"]]
        inner = p["inner_address"]
        n = len(p["server"] or self._remote[0])
        anywhere = bytes(n), b"\xff" * n
        self._ts_i = (inner, inner) if inner else anywhere
        self._ts_r = p["remote_ts"] or anywhere
        transport = p["mode"] == "transport"
        if transport:
            # Host to host: the addresses outside are the ones inside.
            if self._local:
                self._ts_i = (self._local[0],) * 2
            self._ts_r = (self._remote[0],) * 2
        ident = _id_body(p["id"])
        payloads = [(_IDI, ident)]
        self._plain = None
        if self._ppk == "auth":
            from . import ppk

            payloads.append((_N, wire.notify(_PPK_IDENTITY, ppk.identity(p))))
            if not p["ppk_required"]:
                data = self._auth(self._message_i, self._n_r, self.sk_pi, ident)
                payloads.append((_N, wire.notify(_NO_PPK_AUTH, data)))
                self._plain = self.sk_d, self.sk_pr
            keys = ppk.mixed(p, self.sk_d, self.sk_pi, self.sk_pr)
            self.sk_d, self.sk_pi, self.sk_pr = keys
        data = self._auth(self._message_i, self._n_r, self.sk_pi, ident)
        if self.initial_contact:
            payloads.append((_N, wire.notify(_INITIAL_CONTACT)))
        if p["gateway_id"] != "any":
            payloads.append((_IDR, _id_body(p["gateway_id"])))
        payloads.append((_AUTH, struct.pack(">I", _PSK << 24) + data))
        if not inner and not transport:
            payloads.append((_CP, wire.cp_body(1, [(_address_type(n), b"")])))
        if transport:
            payloads.append((_N, wire.notify(_USE_TRANSPORT_MODE)))
        payloads.append((_SA, wire.sa_body(self._offer)))
        payloads.append((_TSI, wire.ts_body([self._ts_i])))
        payloads.append((_TSR, wire.ts_body([self._ts_r])))
        self.go(_S_AUTH)
        self.request(_IKE_AUTH, payloads, now)

    def _choose_spi(self):
        """Return our inbound SPI: one of the profile's that no SA of ours has, or a random one."""
        for fixed in self.profile["spi"] or ():
            value = fixed.to_bytes(4, "big")
            if value not in self.taken:
                return value
        while True:
            value = spi(self.rand, 4)
            if value not in self.taken:
                return value

    def _auth(self, message, nonce, sk_p, ident):
        pad = self.profile.get("psk_pad") or auth.psk_pad(self.profile["psk"])
        return auth.psk_auth(pad, message, nonce, sk_p, ident, self._int_auth)

    def _on_auth(self, payloads, now):
        found, notifies, _ = sort(payloads)
        refusal = [kind for kind, _ in notifies if kind < _STATUS]
        self.answer_came(now)
        if not (_AUTH in found and _IDR in found):
            if refusal:
                self.fail("notify", refusal[0])
            else:
                self.refuse("no AUTH payload")
            return
        idr = bytes(found[_IDR])
        wanted = self.profile["gateway_id"]
        if self._ppk == "auth":
            self.with_ppk = _PPK_IDENTITY in [kind for kind, _ in notifies]
            if not self.with_ppk:
                if self.profile["ppk_required"]:
                    self.refuse("no such PPK", "ppk")
                    return
                self.sk_d, self.sk_pr = self._plain
        data = self._auth(self._message_r, self._n_i, self.sk_pr, idr)
        if bytes(found[_AUTH][:1]) != bytes((_PSK,)) or not equal(found[_AUTH][4:], data):
            self.refuse("AUTH does not verify")
        elif wanted != "any" and idr[:1] + idr[4:] != bytes((wanted[0],)) + wanted[1]:
            self.refuse("IDr is not gateway_id")
        elif refusal:
            # The IKE SA stands without its Child SA: of no use to us (RFC 7815 §2.1).
            self._leave("notify", refusal[0])
        else:
            try:
                child = self._child(found, [kind for kind, _ in notifies])
            except Drop as e:
                self._leave("peer", e.args[0])
                return
            from . import established

            self._table = established.TABLE
            self._forget()
            self.spi_out = child["spi_out"]
            self.go(_S_UP)
            self.event("up", child)

    def _child(self, found, notifies):
        """Return what the Child SA needs, as a dict, or raise Drop with what is wrong.

        Keys: spi_in, spi_out (4 octets), key_in, key_out (AES key and salt), icv (octets),
        picked ({type: (id, bits)}), inner, server (packed addresses), transport, iiv, esn (flags).
        """
        if not (_SA in found and _TSI in found and _TSR in found):
            raise Drop("no Child SA")
        spi_out, picked = wire.chosen(self._offer, found[_SA], _ESP)
        if len(spi_out) != 4:
            raise Drop("BAD_SA")
        p = self.profile
        if p["mode"] == "transport":
            if _USE_TRANSPORT_MODE not in notifies:
                raise Drop("transport mode was refused")
            # A NAT may stand between these addresses (RFC 7296 §2.23.1): we look at no more.
            inner = self._local[0] if self._local else bytes(len(self._remote[0]))
            server = self._remote[0]
        else:
            server = p["server"]
            inner = p["inner_address"] or _assigned(found.get(_CP), len(server))
            ts_i = _within(found[_TSI], self._ts_i)
            ts_r = _within(found[_TSR], self._ts_r)
            _covers(ts_i, inner, p["inner_port"], "TSi without our inner address")
            _covers(ts_r, server, p["server_port"], "TSr without server")
        ident, bits = picked[1]
        keys = kdf.child_keys(self.sk_d, self.nonces(), bits // 8 + 3)
        return {
            "spi_in": self.spi_in,
            "spi_out": spi_out,
            "key_out": keys[0],
            "key_in": keys[1],
            "icv": icv_size(ident),
            "picked": picked,
            "inner": inner,
            "server": server,
            "transport": p["mode"] == "transport",
            "iiv": ident == _ENCR_AES_CCM_8_IIV,
            "esn": picked.get(5) == (1, 0),
        }

    # Ends.

    def refuse(self, why, kind="peer"):
        """End an SA whose peer did not prove who it is, telling it so (RFC 7296 §2.21.2)."""
        self.once(_INFORMATIONAL, [(_N, wire.notify(_AUTHENTICATION_FAILED))])
        self.fail(kind, why)

    def _leave(self, kind, detail):
        """End an authenticated SA of no use, deleting it at the peer (RFC 7815 §2.1, B.1)."""
        self.once(_INFORMATIONAL, [(_D, struct.pack(">BBH", 1, 0, 0))])
        self.fail(kind, detail)


def icv_size(ident):
    """Octets of ICV of an AES-CCM transform id: 14, 15, 16 are 8, 12, 16 (RFC 5282 §7.2).

    29 is the one of 8 with an implicit IV (RFC 8750 §5).
    """
    return 8 if ident == _ENCR_AES_CCM_8_IIV else 4 * ident - 48


def _groups(offer):
    return [ident for _, _, transforms in offer for kind, ident, _ in transforms if kind == 4]


def _nat_hash(spi_i, spi_r, address):
    return sha1(spi_i + spi_r + address[0] + struct.pack(">H", address[1])).digest()


def _id_body(identity):
    return struct.pack(">I", identity[0] << 24) + identity[1]


def _address_type(n):
    return _INTERNAL_IP4_ADDRESS if n == 4 else _INTERNAL_IP6_ADDRESS


def _assigned(body, n):
    """Return the address of `n` octets out of CFG_REPLY; IPv6 has a prefix length behind it."""
    if body is not None:
        kind, attributes = wire.parse_cp(body)
        for attribute, value in attributes:
            if kind == 2 and attribute == _address_type(n) and len(value) >= n:
                return value[:n]
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


def _on_intermediate(sa, payloads, now):
    sa._before.answer(sa, payloads, now)


def _before_auth(sa, payloads, now):
    """Answer a request that comes before the gateway has proved who it is; do nothing."""
    return []


def _no_child(sa, payloads, now):
    return [(_N, wire.notify(_NO_ADDITIONAL_SAS))]


# (state, exchange, is a response): (handler, the states in which it may end)
TABLE = {
    (_S_INIT, _IKE_SA_INIT, True): (Initiator._on_init, (_S_INIT, _S_INTERMEDIATE, _S_AUTH)),
    (_S_INTERMEDIATE, _IKE_INTERMEDIATE, True): (
        _on_intermediate,
        (_S_INTERMEDIATE, _S_AUTH, _S_DEAD),
    ),
    (_S_INTERMEDIATE, _INFORMATIONAL, False): (_before_auth, (_S_INTERMEDIATE,)),
    (_S_INTERMEDIATE, _CREATE_CHILD_SA, False): (_no_child, (_S_INTERMEDIATE,)),
    (_S_AUTH, _IKE_AUTH, True): (Initiator._on_auth, (_S_UP, _S_DEAD)),
    (_S_AUTH, _INFORMATIONAL, False): (_before_auth, (_S_AUTH,)),
    (_S_AUTH, _CREATE_CHILD_SA, False): (_no_child, (_S_AUTH,)),
}
