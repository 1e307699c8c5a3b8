"""The IKEv2 initiator, IKE_SA_INIT to IKE_AUTH (RFC 7815, RFC 7296).

`machine` says how to drive it.  When IKE_AUTH is done the table of `established` takes over.

Events are tuples:
  ("state", name)                  a new state
  ("hint", notify type)            an error that nobody authenticated; nothing changed
  ("agreed", {type: (id, bits)})   the IKE proposal
  ("up", child)                    IKE_AUTH done; `child` is a dict, see `auth._child`
  ("failed", kind, detail)         this IKE SA is over: ("notify", type), ("timeout", exchange),
                                   ("peer", what it did wrong), ("ppk", what is wrong with it)
  ("deleted",)                     the peer deleted this IKE SA
  ("answered",)                    the peer answered a request made after IKE_AUTH
  ("keys", ...)                    only with the profile key `keylog`
"""

import struct
from micropython import const

from . import auth
from .auth_method import chosen
from ..crypto import kdf
from ..ike import wire
from ..crypto.suites import aead, key_sizes
from ..ike.sa import Machine, sort
from ..ike.wire import Drop

_IKE_SA_INIT = const(34)
_IKE_AUTH = const(35)
_CREATE_CHILD_SA = const(36)
_INFORMATIONAL = const(37)
_IKE_INTERMEDIATE = const(43)

_I = const(0x08)

_SA = const(33)
_KE = const(34)
_NONCE = const(40)
_N = const(41)
_VENDOR = const(43)

_NO_ADDITIONAL_SAS = const(35)
_NAT_DETECTION_SOURCE_IP = const(16388)
_NAT_DETECTION_DESTINATION_IP = const(16389)
_COOKIE = const(16390)
_IKEV2_FRAGMENTATION_SUPPORTED = const(16430)
_USE_PPK = const(16435)
_INTERMEDIATE_EXCHANGE_SUPPORTED = const(16438)

_ENCR = const(1)  # transform type
_ADDKE1 = const(6)  # transform types 6..12 are ADDKE1..7 (RFC 9370 §2.2.1)
_ADDKE7 = const(12)

# Beside the notify types of fragment acknowledgment, which are private: only this makes them mean
# what we mean.  The first half of SHA-256("minipsec fragment acknowledgment 02").
VENDOR_ID = b"\x82\x59\x0f\x17\x20\xa7\x37\xfe\x59\xd9\x0f\x01\x33\xdb\x70\x47"

_S_INIT = const(1)
_S_INTERMEDIATE = const(2)
_S_AUTH = const(3)
_S_UP = const(4)
_S_DEAD = const(6)


class Initiator(Machine):
    """One IKE SA and its Child SA, from the first IKE_SA_INIT to its end."""

    _ppk = None  # how a PPK may go in: "auth" or "int"
    _plain = None  # SK_d and SK_pr without the PPK, where the gateway may do without
    _before = None  # an Intermediate, between IKE_SA_INIT and IKE_AUTH
    _cookie = b""
    _held = None  # a cookie that the next sending is to carry
    _early = 0  # sendings that a cookie brought about before their time
    _hints = 0, ()  # how often we had sent when errors were told of, and which
    _ke = None

    def __init__(self, profile, rand, step=None):
        super().__init__(profile, rand)
        self.step = step  # called several times a second by a key exchange that takes seconds
        self.method = chosen(profile)  # of authentication
        self.encap = profile["encap"]  # ask for UDP encapsulation even without a NAT
        self._table = TABLE

    def start(self, now, local=None, remote=None):
        """Send the first IKE_SA_INIT.

        `local` and `remote` are (packed address, port) for NAT detection, where known.
        """
        self._local = local
        self._remote = remote
        p = self.profile
        # RFC 7383 §2.5.1: without knowing the path, 576 octets of IPv4 or 1280 of IPv6.
        six = remote and len(remote[0]) == 16
        self.room = (p["fragment_size"] or (1280 if six else 576)) - (48 if six else 28)
        self._n_i = self.rand(32)
        self._offer = [(1, b"", transforms) for _, transforms in p["ike"]]
        transforms = [t for _, _, transforms in self._offer for t in transforms]
        self._ke_id = [ident for kind, ident, _ in transforms if kind == 4][0]
        # `encap` asks for UDP encapsulation even without a NAT, by a hash that cannot match:
        # stock boards cannot receive plain ESP.
        source = self._nat_hash(None if self.encap else local)
        self._notes = notes = [
            (_N, wire.notify(_NAT_DETECTION_SOURCE_IP, source)),
            (_N, wire.notify(_NAT_DETECTION_DESTINATION_IP, self._nat_hash(remote))),
            (_N, wire.notify(_IKEV2_FRAGMENTATION_SUPPORTED)),
        ]
        notes += self.method.announce
        if p["frag_ack"] != "off":
            notes.append((_N, wire.notify(p["frag_ack_types"][0])))
            notes.append((_VENDOR, VENDOR_ID))
        kinds = []
        if p["ppk_id"]:
            from .ppk import offers

            kinds += offers()
        if kinds or max(transforms)[0] >= _ADDKE1:
            kinds.append(_INTERMEDIATE_EXCHANGE_SUPPORTED)
        for kind in kinds:
            notes.append((_N, wire.notify(kind)))
        self.go(_S_INIT)
        self._since = now  # what was sent from then on may still be answered
        self.send_init(now)

    def end(self):
        """Stop everything and let go of the keys."""
        super().end()
        self.forget()

    def forget(self):
        """Let go of all that only a handshake needs."""
        if self._ke:
            from ..kex.methods import wipe

            wipe(self._ke)
        if self._before:
            self._before.wipe()
            self._before = None
        if self._plain:
            self._plain = None
        self._ke = self._int_auth = self._n_i = self._n_r = self._message_i = self._message_r = (
            None
        )
        self.sk_d = self.sk_pi = self.sk_pr = self.method = None

    # IKE_SA_INIT.

    def timer(self, now):
        """Do what is due at `now`; a resend carries the cookie that was held for it."""
        if self._held and now >= self._due:
            from .sa_init_retry import release

            release(self, now)
        super().timer(now)

    def send_init(self, now):
        """Send IKE_SA_INIT, the first or another one."""
        self._out.clear()
        self.send_request(_IKE_SA_INIT, self.init_request(), now)

    def init_request(self):
        """Make IKE_SA_INIT, which AUTH covers from now on; return its datagram in a list."""
        if self._ke is None:
            from ..kex.methods import method

            self._ke = method(self._ke_id)(self.rand, self.step)
        payloads = [
            (_SA, wire.sa_body(self._offer)),
            (_KE, struct.pack(">HH", self._ke_id, 0) + self._ke.public),
            (_NONCE, self._n_i),
        ] + self._notes
        if self._cookie:
            payloads.insert(0, (_N, wire.notify(_COOKIE, self._cookie)))
        first, body = wire.chain(payloads)
        n = 28 + len(body)
        head = wire.header(self.spi_i, bytes(8), first, _IKE_SA_INIT, _I, 0, n)
        self._message_i = head + body
        return [self.marked(self._message_i)]

    def _nat_hash(self, address):
        """Return what tells of a NAT; random where the address is not known."""
        if address is None:
            return self.rand(20)
        return wire.nat_hash(self.spi_i + self.spi_r, *address)

    def _on_init(self, view, now):
        # Nothing is kept of an answer before all of it was taken.
        found, notifies, vendors = sort(wire.payloads(view[16], view, 28))
        if _SA not in found:
            from .sa_init_retry import refused

            refused(self, notifies, now)
            return
        p = self.profile
        spi_r = bytes(view[8:16])
        ke = bytes(found.get(_KE, b""))
        n_r = bytes(found.get(_NONCE, b""))
        _, picked = wire.chosen(self._offer, found[_SA], 1)
        kinds = [kind for kind, _ in notifies]
        intermediate = _INTERMEDIATE_EXCHANGE_SUPPORTED in kinds
        more = [picked.get(kind, (0,))[0] for kind in range(_ADDKE1, _ADDKE7 + 1)]
        more = [ident for ident in more if ident]
        group = picked[4][0]
        # RFC 9370 §2.2.1: not without IKE_INTERMEDIATE, and no method twice.
        if (
            spi_r == bytes(8)
            or not 16 <= len(n_r) <= 256
            or len(ke) < 4
            or (more and not (intermediate and len(set(more + [group])) > len(more)))
        ):
            raise Drop("BAD_INIT")
        ppk = None
        if p["ppk_id"]:
            from .ppk import agreed

            ppk = agreed(kinds, intermediate)
            if not ppk and p["ppk_required"]:
                # Nobody has authenticated this answer: another one may follow.
                from .sa_init_retry import hint

                hint(self, _USE_PPK)
                raise Drop("NO_PPK")
        shared = None
        if ke[0] << 8 | ke[1] == group == self._ke_id and len(ke) - 4 == self._ke.size:
            shared = self._ke.shared(ke[4:])
        if shared is None:
            raise Drop("BAD_KE")
        self._ppk = ppk
        self._ke = self._held = None
        self.spi_r = spi_r
        self._n_r = n_r
        self._message_r = bytes(view)
        del self._notes, self._ke_id
        self.picked = picked
        # Is a NAT between us?  To port 4500 then, and where nothing is known (RFC 7296 §2.23).
        for kind, data in notifies:
            if kind == _NAT_DETECTION_DESTINATION_IP:
                self.floated = True
                if self._local:
                    self.nat = data != self._nat_hash(self._local)
            elif kind == _NAT_DETECTION_SOURCE_IP and self._remote:
                # One that fits is enough (RFC 7296 §2.23): then the gateway is behind no NAT.
                if data == self._nat_hash(self._remote):
                    self.peer_nat = False
        # Do both sides fragment, and acknowledge fragments (draft -02 §4)?
        self.fragmentation = _IKEV2_FRAGMENTATION_SUPPORTED in kinds
        if p["frag_ack"] != "off" and self.fragmentation and p["frag_ack_types"][0] in kinds:
            # The type is from the private range: it means what we mean only beside our Vendor ID.
            if VENDOR_ID in vendors:
                self._acks = True
        self.answer_came(now)
        self.make_keys(kdf.prf(self._n_i + n_r, shared))
        self.event("agreed", picked)
        if more or ppk == "int":
            from .intermediate import Intermediate

            self._before = Intermediate(more, ppk == "int")
            self._before.start(self, now)
        else:
            auth.send(self, now)

    def make_keys(self, skeyseed):
        """Make the keys of IKE out of SKEYSEED (RFC 7296 §2.14)."""
        ident, bits = self.picked[_ENCR]
        spis = self.spi_i + self.spi_r
        keys = kdf.sk_keys(skeyseed, self.nonces(), spis, *key_sizes(ident, bits))
        self.sk_d, sk_ai, sk_ar, sk_ei, sk_er, self.sk_pi, self.sk_pr = keys
        self._tx = aead(ident, sk_ei + sk_ai)
        self._rx = aead(ident, sk_er + sk_ar)
        self._iv = 0
        if self.profile["keylog"]:
            self.event("keys", self.spi_i, self.spi_r, self.picked, sk_ei, sk_er, sk_ai, sk_ar)

    def nonces(self):
        """Return Ni | Nr."""
        return self._n_i + self._n_r


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
    (_S_AUTH, _IKE_AUTH, True): (auth.answer, (_S_UP, _S_DEAD)),
    (_S_AUTH, _INFORMATIONAL, False): (_before_auth, (_S_AUTH,)),
    (_S_AUTH, _CREATE_CHILD_SA, False): (_no_child, (_S_AUTH,)),
}
