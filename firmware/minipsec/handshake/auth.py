"""IKE_AUTH: who both ends are, and the Child SA (RFC 7296 §1.2, §2.15; PPK: RFC 8784)."""

import struct
from micropython import const

from ..crypto import kdf
from ..ike import wire
from ..crypto.kdf import prf
from ..crypto.suites import key_sizes
from ..ike.sa import spi
from ..ike.wire import Drop, sort

# RFC 7296 §3.1, §3.2
_IKE_AUTH = const(35)
_SA = const(33)
_IDI = const(35)
_IDR = const(36)
_AUTH = const(39)
_N = const(41)
_TSI = const(44)
_TSR = const(45)
_CP = const(47)
# §3.10.1; PPK: RFC 8784
_STATUS = const(16384)  # notify types from here on are no errors
_INITIAL_CONTACT = const(16384)
_USE_TRANSPORT_MODE = const(16391)
_PPK_IDENTITY = const(16436)
_NO_PPK_AUTH = const(16437)
# §3.3.1, §3.3.2: a protocol, transform types
_ESP = const(3)
_ENCR = const(1)
_ESN = const(5)
# §3.13.1, §3.15
_UDP = const(17)
_CFG_REQUEST = const(1)
_CFG_REPLY = const(2)
_INTERNAL_IP4_ADDRESS = const(1)
_INTERNAL_IP6_ADDRESS = const(8)

# Ours: a state, see ike.sa.
_S_AUTH = const(3)


class Auth:
    """IKE_AUTH of a Handshake.  `ppk` uses a PPK; `int_auth` is IntAuth (RFC 9242 §3.3.2)."""

    _plain = None  # SK_d, SK_pi and SK_pr without the PPK, if it is optional

    def __init__(self, handshake, ppk, int_auth):
        self._handshake = handshake
        self._ppk = ppk
        self._int_auth = int_auth

    def send(self, now):
        """Send IKE_AUTH."""
        h = self._handshake
        sa = h.sa
        p = sa.profile
        self.spi_in = choose_spi(p["spi"], h.taken, sa.rand)
        self._offer = [(_ESP, self.spi_in, transforms) for _, transforms in p["esp"]]
        self._ts = ts_i, ts_r = self._selectors()
        ident = _id_body(p["id"])
        payloads = [(_IDI, ident)]
        payloads += h.method.payloads
        if self._ppk:
            payloads += self._mix_ppk(ident)
        if h.initial_contact:
            payloads.append((_N, wire.notify(_INITIAL_CONTACT)))
        if p["gateway_id"] != "any":
            payloads.append((_IDR, _id_body(p["gateway_id"])))
        data = h.method.sign(*self._signed(h.message_i, h.n_r, h.sk_pi, ident))
        payloads.append((_AUTH, struct.pack(">I", h.method.method << 24) + data))
        if p["mode"] == "transport":
            payloads.append((_N, wire.notify(_USE_TRANSPORT_MODE)))
        elif not p["inner_address"]:
            kind = _address_type(len(ts_i[0]))
            payloads.append((_CP, wire.cp_body(_CFG_REQUEST, [(kind, b"")])))
        payloads.append((_SA, wire.sa_body(self._offer)))
        payloads.append((_TSI, wire.ts_body([ts_i])))
        payloads.append((_TSR, wire.ts_body([ts_r])))
        sa.go(_S_AUTH)
        sa.ask(_IKE_AUTH, payloads, now)

    def _selectors(self):
        """Return TSi and TSr that we offer, each as (first, last) address."""
        h = self._handshake
        p = h.sa.profile
        inner = p["inner_address"]
        n = len(p["server"] or h.remote[0])
        anywhere = bytes(n), b"\xff" * n
        ts_i = (inner, inner) if inner else anywhere
        ts_r = p["remote_ts"] or anywhere
        if p["mode"] == "transport":
            # Host to host: inner and outer addresses are the same.
            if h.local:
                ts_i = (h.local[0],) * 2
            ts_r = (h.remote[0],) * 2
        return ts_i, ts_r

    def _mix_ppk(self, ident):
        """Mix the PPK into the keys; return the notifies that say so (RFC 8784 §3)."""
        from . import ppk

        h = self._handshake
        p = h.sa.profile
        payloads = [(_N, wire.notify(_PPK_IDENTITY, ppk.identity(p)))]
        keys = h.sk_d, h.sk_pi, h.sk_pr
        if not p["ppk_required"]:
            signed = self._signed(h.message_i, h.n_r, h.sk_pi, ident)
            payloads.append((_N, wire.notify(_NO_PPK_AUTH, h.method.sign(*signed))))
            self._plain = keys
        h.use(*ppk.mixed(p, *keys))
        return payloads

    def _signed(self, message, nonce, sk_p, ident):
        """Return, in parts, what a side's AUTH covers (RFC 7296 §2.15; IntAuth: RFC 9242 §3.3.2).

        `message` and `ident` are that side's first message and ID body, `nonce` the other side's.
        """
        return message, nonce, prf(sk_p, ident), self._int_auth

    def answer(self, payloads, now):
        """Take the gateway's answer: the SA comes up, or ends."""
        h = self._handshake
        sa = h.sa
        found, notifies, _ = sort(payloads)
        kinds = [kind for kind, _ in notifies]
        refusal = [kind for kind in kinds if kind < _STATUS]
        sa.answer_came(now)
        p = sa.profile
        if not (_AUTH in found and _IDR in found):
            if refusal:
                sa.fail("notify", refusal[0])
            else:
                sa.refuse("no AUTH payload")
            return
        with_ppk = h.with_ppk
        if self._ppk:
            with_ppk = _PPK_IDENTITY in kinds
            if not with_ppk:
                if p["ppk_required"]:
                    sa.refuse("no such PPK", "ppk")
                    return
                h.use(*self._plain)
        wanted = p["gateway_id"]
        idr = bytes(found[_IDR])
        auth = bytes(found[_AUTH])
        # If the gateway used another method, no secret of ours could have fitted.
        other = auth[:1] if auth[:1] != bytes((h.method.method,)) else b""
        signed = self._signed(h.message_r, h.n_i, h.sk_pr, idr)
        if other or not h.method.verify(auth[4:], *signed):
            sa.refuse("AUTH does not verify", "peer", *other)
        elif wanted != "any" and idr[:1] + idr[4:] != bytes((wanted[0],)) + wanted[1]:
            sa.refuse("IDr is not gateway_id", "peer", idr)
        elif refusal:
            # An IKE SA without a Child SA is of no use to us (RFC 7815 §2.1).
            sa.leave("notify", refusal[0])
        else:
            self._establish(found, notifies, kinds, with_ppk)

    def _establish(self, found, notifies, kinds, with_ppk):
        """The gateway is authenticated: take its Child SA, or leave."""
        h = self._handshake
        sa = h.sa
        try:
            child = self._child(found, kinds)
        except Drop as e:
            sa.leave("peer", *e.args)
            return
        from ..ike.established import lifetime_in

        sa.establish(child["spi_out"])
        for notify in notifies:
            child["lifetime"] = child.get("lifetime") or lifetime_in(*notify)
        sa.event("up", child, h.picked, h.nat, h.peer_nat, with_ppk)

    def _child(self, found, notifies):
        """Return what the Child SA needs, as a dict, or raise Drop with what is wrong.

        Keys: spi_in, spi_out (4 octets), cipher (transform id), key_in, key_out (see suites.aead),
        picked ({type: (id, bits)}), inner, server (packed addresses), transport, esn (flags), and
        lifetime (seconds), where the gateway says so.
        """
        if not (_SA in found and _TSI in found and _TSR in found):
            raise Drop("no Child SA")
        spi_out, picked = wire.chosen(self._offer, found[_SA], _ESP)
        if len(spi_out) != 4:
            raise Drop("BAD_SA")
        if spi_out[:3] == b"\0\0\0":
            raise Drop("its SPI for ESP is one of 0 to 255, which are reserved")
        h = self._handshake
        p = h.sa.profile
        server = p["server"]
        transport = p["mode"] == "transport"
        if transport:
            if _USE_TRANSPORT_MODE not in notifies:
                raise Drop("transport mode was refused")
            # A NAT may change these addresses (RFC 7296 §2.23.1), so the selectors tell nothing.
            server = h.remote[0]
            inner = h.local[0] if h.local else bytes(len(server))
        else:
            inner = p["inner_address"] or _assigned(found.get(_CP), len(server))
            ts_i, ts_r = self._ts
            ts_i = _within(found[_TSI], *ts_i)
            ts_r = _within(found[_TSR], *ts_r)
            _covers(ts_i, inner, p["inner_port"], "TSi without our inner address")
            _covers(ts_r, server, p["server_port"], "TSr without server")
        size = sum(key_sizes(*picked[_ENCR]))
        key_out, key_in = kdf.child_keys(h.sk_d, h.nonces(), size)
        return {
            "spi_in": self.spi_in,
            "spi_out": spi_out,
            "key_out": key_out,
            "key_in": key_in,
            "cipher": picked[_ENCR][0],
            "picked": picked,
            "inner": inner,
            "server": server,
            "transport": transport,
            "esn": picked.get(_ESN) == (1, 0),
        }


def choose_spi(fixed, taken, rand):
    """Return an inbound SPI that no SA of ours has: one of the profile's, or a random one."""
    for value in fixed or ():
        value = value.to_bytes(4, "big")
        if value not in taken:
            return value
    while True:
        value = spi(rand, 4)
        if value not in taken:
            return value


def _id_body(identity):
    return struct.pack(">I", identity[0] << 24) + identity[1]


def _address_type(n):
    return _INTERNAL_IP4_ADDRESS if n == 4 else _INTERNAL_IP6_ADDRESS


def _assigned(body, n):
    """Return the address of `n` octets in CFG_REPLY; a prefix length follows one of IPv6."""
    if body is not None:
        kind, attributes = wire.parse_cp(body)
        for attribute, value in attributes:
            if kind == _CFG_REPLY and attribute == _address_type(n) and len(value) >= n:
                return value[:n]
    raise Drop("no inner address in CFG_REPLY")


def _within(body, low, high):
    """Return the selectors of a TS payload; Drop when one goes beyond what we offered."""
    found = wire.parse_ts(body)
    for _, _, _, first, last in found:
        if len(first) != len(low) or not low <= first <= last <= high:
            raise Drop("traffic selectors wider than asked for", found)
    return found


def _covers(selectors, address, port, complaint):
    for protocol, low, high, first, last in selectors:
        if protocol in (0, _UDP) and low <= port <= high and first <= address <= last:
            return
    raise Drop(complaint, selectors, address, port)
