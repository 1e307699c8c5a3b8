"""The IKEv2 initiator, IKE_SA_INIT to IKE_AUTH (RFC 7815, RFC 7296).

A `Handshake` is the guest of an ike.sa.IkeSa until IKE_AUTH is done.  Its events are the SA's.
"""

import struct
from micropython import const

from .auth import Auth
from .auth_method import chosen
from ..crypto import kdf
from ..ike import wire
from ..crypto.suites import aead, key_sizes
from ..ike.wire import Drop, sort

# RFC 7296 §3.1, §3.2
_IKE_SA_INIT = const(34)
_I = const(0x08)
_SA = const(33)
_KE = const(34)
_NONCE = const(40)
_N = const(41)
_VENDOR = const(43)
# §3.10.1; RFC 7383, 8784, 9242
_NO_ADDITIONAL_SAS = const(35)
_NAT_DETECTION_SOURCE_IP = const(16388)
_NAT_DETECTION_DESTINATION_IP = const(16389)
_COOKIE = const(16390)
_IKEV2_FRAGMENTATION_SUPPORTED = const(16430)
_USE_PPK = const(16435)
_FRAGMENT_ACK_SUPPORTED = const(50201)  # draft -02, from the private range
_INTERMEDIATE_EXCHANGE_SUPPORTED = const(16438)
# §3.3.1, §3.3.2: a protocol, transform types; RFC 9370 §2.2.1: 6..12 are ADDKE1..7
_IKE = const(1)
_ENCR = const(1)
_T_KE = const(4)
_ADDKE1 = const(6)
_ADDKE7 = const(12)
# RFC 7383 §2.5.1: without knowing the path, octets of IPv4 or IPv6 that arrive in one piece.
_LEAST_IP4 = const(576)
_LEAST_IP6 = const(1280)

# Ours.
# The notify types of fragment acknowledgment are private; this Vendor ID says that they mean what
# we mean.  It is the first half of SHA-256("minipsec fragment acknowledgment 02").
VENDOR_ID = b"\x82\x59\x0f\x17\x20\xa7\x37\xfe\x59\xd9\x0f\x01\x33\xdb\x70\x47"


class Handshake:
    """From the first IKE_SA_INIT to the answer to IKE_AUTH, for the IkeSa `sa`.

    `local` and `remote` are (packed address, port) for NAT detection, or None.  `encap` asks for
    UDP encapsulation even without a NAT.  `initial_contact` says that no other SA of ours is with
    this gateway.  `taken` are the inbound SPIs of our other SAs.
    """

    _before = None  # an Intermediate, between IKE_SA_INIT and IKE_AUTH
    _auth = None  # an Auth, from then on
    _retry = None  # a sa_init_retry.Retry, once an answer refused
    _ke = _ppk = None  # the key pair; how a PPK may be used: "auth" or "int"

    def __init__(self, sa, local=None, remote=None, encap=True, initial_contact=True, taken=()):
        self.sa = sa
        self.local = local
        self.remote = remote
        self.initial_contact = initial_contact
        self.taken = taken
        self.method = chosen(sa.profile)  # of authentication
        self.nat = None  # are we behind one? None: not known
        self.peer_nat = True  # may the gateway be behind one?
        self._encap = encap

    def start(self, now):
        """Send the first IKE_SA_INIT."""
        sa = self.sa
        p = sa.profile
        self.n_i = sa.rand(32)
        self.offer = [(_IKE, b"", transforms) for _, transforms in p["ike"]]
        transforms = [t for _, _, transforms in self.offer for t in transforms]
        self.ke_id = [ident for kind, ident, _ in transforms if kind == _T_KE][0]
        # With `encap` the hash cannot match, so the gateway sees a NAT and encapsulates ESP.
        source = self._nat_hash(sa.spi_r, None if self._encap else self.local)
        there = self._nat_hash(sa.spi_r, self.remote)
        self._notes = notes = [
            (_N, wire.notify(_NAT_DETECTION_SOURCE_IP, source)),
            (_N, wire.notify(_NAT_DETECTION_DESTINATION_IP, there)),
            (_N, wire.notify(_IKEV2_FRAGMENTATION_SUPPORTED)),
        ]
        notes += self.method.announce
        if p["frag_ack"] != "off":
            notes.append((_N, wire.notify(_FRAGMENT_ACK_SUPPORTED)))
            notes.append((_VENDOR, VENDOR_ID))
        kinds = []
        if p["ppk_id"]:
            from .ppk import offers

            kinds += offers()
        if kinds or max(transforms)[0] >= _ADDKE1:
            kinds.append(_INTERMEDIATE_EXCHANGE_SUPPORTED)
        for kind in kinds:
            notes.append((_N, wire.notify(kind)))
        self.since = now  # requests since then may still be answered
        self._send(now)

    def end(self):
        """Overwrite the private keys of key exchanges that will not be completed."""
        self._wipe()
        if self._before:
            self._before.wipe()

    # IKE_SA_INIT.

    def resending(self, now):
        """The timer resends a request; an IKE_SA_INIT takes a held cookie."""
        if self._retry and self._retry.resending():
            self.since = now
            self.sa.request.change(self._request(), now)

    def _send(self, now):
        """Send IKE_SA_INIT, the first or another one."""
        self.sa.begin(_IKE_SA_INIT, self._request(), now)

    def _request(self):
        """Make IKE_SA_INIT and keep it for AUTH; return its datagram in a list."""
        if self._ke is None:
            from ..kex.methods import method

            self._ke = method(self.ke_id)(self.sa.rand, self.sa.step)
        payloads = [
            (_SA, wire.sa_body(self.offer)),
            (_KE, struct.pack(">HH", self.ke_id, 0) + self._ke.public),
            (_NONCE, self.n_i),
        ] + self._notes
        if self._retry and self._retry.cookie:
            payloads.insert(0, (_N, wire.notify(_COOKIE, self._retry.cookie)))
        first, body = wire.chain(payloads)
        n = 28 + len(body)
        head = wire.header(self.sa.spi_i, bytes(8), first, _IKE_SA_INIT, _I, 0, n)
        self.message_i = head + body
        return [self.sa.marked(self.message_i)]

    def _wipe(self):
        if self._ke:
            from ..kex.methods import wipe

            wipe(self._ke)
            self._ke = None

    def _nat_hash(self, spi_r, address):
        """Return NAT detection data; random where the address is not known."""
        if address is None:
            return self.sa.rand(20)
        return wire.nat_hash(self.sa.spi_i + spi_r, *address)

    def on_init(self, view, now):
        """Take an answer to IKE_SA_INIT; keep nothing of it before all of it is accepted."""
        found, notifies, vendors = sort(wire.payloads(view[16], view, 28))
        if _SA not in found:
            if self._retrying().refused(self, notifies, now):
                self._send(now)
            return
        sa = self.sa
        p = sa.profile
        kinds = [kind for kind, _ in notifies]
        _, picked = wire.chosen(self.offer, found[_SA], _IKE)
        spi_r = bytes(view[8:16])
        n_r = bytes(found.get(_NONCE, b""))
        more = _additional(picked)
        intermediate = _INTERMEDIATE_EXCHANGE_SUPPORTED in kinds
        if (
            spi_r == bytes(8)
            or not 16 <= len(n_r) <= 256
            or len(found.get(_KE, b"")) < 4
            or (more and not intermediate)
        ):
            raise Drop("BAD_INIT")
        ppk = self._agreed(kinds, intermediate)
        shared = self._shared(bytes(found[_KE]), picked[_T_KE][0])
        # The answer is accepted.
        self._ke = self._retry = self._notes = self.offer = None
        self._ppk = ppk
        self.n_r = n_r
        self.picked = picked
        self.message_r = bytes(view)
        six = self.remote and len(self.remote[0]) == 16
        room = (p["fragment_size"] or (_LEAST_IP6 if six else _LEAST_IP4)) - (48 if six else 28)
        fragmentation = _IKEV2_FRAGMENTATION_SUPPORTED in kinds
        # Do both sides acknowledge fragments (draft -02 §4)?  The notify type is private, so it
        # counts only beside our Vendor ID.
        acks = fragmentation and p["frag_ack"] != "off" and VENDOR_ID in vendors
        acks = acks and _FRAGMENT_ACK_SUPPORTED in kinds
        sa.agree(spi_r, room, fragmentation, acks, self._detect_nat(notifies, spi_r))
        sa.answer_came(now)
        self.make_keys(kdf.prf(self.n_i + n_r, shared))
        sa.event("agreed", picked)
        if more or ppk == "int":
            from .intermediate import Intermediate

            self._before = Intermediate(self, more, ppk == "int")
            self._before.start(now)
        else:
            self.authenticate(now)

    def _retrying(self):
        if not self._retry:
            from .sa_init_retry import Retry

            self._retry = Retry()
        return self._retry

    def take_group(self, group, now):
        """Go on with another key exchange method.

        An answer names its group, so it is never taken for the answer to another request.
        """
        self.ke_id = group
        self.since = now
        self._wipe()

    def _agreed(self, kinds, intermediate):
        """Return how a PPK may be used: "auth", "int" or None; Drop if the profile needs one."""
        p = self.sa.profile
        if not p["ppk_id"]:
            return None
        from .ppk import agreed

        ppk = agreed(kinds, intermediate)
        if not ppk and p["ppk_required"]:
            # The answer is not authenticated: wait for another one.
            self._retrying().hint(self.sa, _USE_PPK)
            raise Drop("NO_PPK")
        return ppk

    def _shared(self, ke, group):
        """Return the shared secret for a KE payload's body of this group, or raise Drop."""
        shared = None
        if ke[0] << 8 | ke[1] == group == self.ke_id and len(ke) - 4 == self._ke.size:
            shared = self._ke.shared(ke[4:])
        if shared is None:
            raise Drop("BAD_KE")
        return shared

    def _detect_nat(self, notifies, spi_r):
        """Detect a NAT; True if the gateway does so and has port 4500, too (RFC 7296 §2.23)."""
        floats = False
        for kind, data in notifies:
            if kind == _NAT_DETECTION_DESTINATION_IP:
                floats = True
                if self.local:
                    self.nat = data != self._nat_hash(spi_r, self.local)
            elif kind == _NAT_DETECTION_SOURCE_IP and self.remote:
                # One hash that fits is enough: the gateway is not behind a NAT.
                if data == self._nat_hash(spi_r, self.remote):
                    self.peer_nat = False
        return floats

    # What comes after it.

    def make_keys(self, skeyseed, with_ppk=False):
        """Make the keys of IKE out of SKEYSEED (RFC 7296 §2.14), which may have the PPK."""
        sa = self.sa
        self.with_ppk = with_ppk
        ident, bits = self.picked[_ENCR]
        spis = sa.spi_i + sa.spi_r
        keys = kdf.sk_keys(skeyseed, self.nonces(), spis, *key_sizes(ident, bits))
        sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr = keys
        self.use(sk_d, sk_pi, sk_pr)
        sa.use(aead(ident, sk_ei + sk_ai), aead(ident, sk_er + sk_ar))
        if sa.profile["keylog"]:
            sa.event("keys", sa.spi_i, sa.spi_r, self.picked, sk_ei, sk_er, sk_ai, sk_ar)

    def nonces(self):
        """Return Ni | Nr."""
        return self.n_i + self.n_r

    def use(self, sk_d, sk_pi, sk_pr):
        """Use these three keys from now on."""
        self.sk_d = sk_d
        self.sk_pi = sk_pi
        self.sk_pr = sk_pr

    def authenticate(self, now, int_auth=b""):
        """Send IKE_AUTH; `int_auth` is IntAuth where an IKE_INTERMEDIATE took place."""
        self._before = None
        self._auth = Auth(self, self._ppk == "auth", int_auth)
        self._auth.send(now)

    def on_intermediate(self, payloads, now):
        """Take an answer to IKE_INTERMEDIATE."""
        self._before.answer(payloads, now)

    def on_auth(self, payloads, now):
        """Take the answer to IKE_AUTH."""
        self._auth.answer(payloads, now)

    def on_informational(self, payloads, now):
        """Answer a request of a gateway that is not authenticated yet, and do nothing else."""
        return []

    def on_create_child(self, payloads, now):
        """Refuse it."""
        return [(_N, wire.notify(_NO_ADDITIONAL_SAS))]


def _additional(picked):
    """Return the key exchange methods for IKE_INTERMEDIATE, in order (RFC 9370 §2.2.1)."""
    more = [picked.get(kind, (0,))[0] for kind in range(_ADDKE1, _ADDKE7 + 1)]
    more = [ident for ident in more if ident]
    if len(set(more + [picked[_T_KE][0]])) <= len(more):
        raise Drop("BAD_INIT")  # no method twice
    return more
