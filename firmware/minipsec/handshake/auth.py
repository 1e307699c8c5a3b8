"""IKE_AUTH: who both ends are, and the Child SA (RFC 7296 §1.2, §2.15; PPK: RFC 8784)."""

import struct
from micropython import const

from ..crypto import kdf
from ..ike import wire
from ..crypto.kdf import prf
from ..crypto.suites import key_sizes
from ..ike.sa import sort, spi
from ..ike.wire import Drop

_IKE_AUTH = const(35)

_SA = const(33)
_IDI = const(35)
_IDR = const(36)
_AUTH = const(39)
_N = const(41)
_TSI = const(44)
_TSR = const(45)
_CP = const(47)

_STATUS = const(16384)  # notify types from here on are no errors
_INITIAL_CONTACT = const(16384)
_USE_TRANSPORT_MODE = const(16391)
_PPK_IDENTITY = const(16436)
_NO_PPK_AUTH = const(16437)

_ESP = const(3)
_ENCR = const(1)  # transform types
_ESN = const(5)
_INTERNAL_IP4_ADDRESS = const(1)
_INTERNAL_IP6_ADDRESS = const(8)

_S_AUTH = const(3)
_S_UP = const(4)


def _signed(sa, message, nonce, sk_p, ident):
    """Return what AUTH of the side whose first message and ID body these are covers, in parts.

    `nonce` is the other side's (RFC 7296 §2.15; IntAuth: RFC 9242 §3.3.2).
    """
    return message, nonce, prf(sk_p, ident), sa._int_auth


def send(sa, now, int_auth=b""):
    """Send IKE_AUTH; `int_auth` is IntAuth where an IKE_INTERMEDIATE took place."""
    p = sa.profile
    sa._int_auth = int_auth
    sa.spi_in = choose_spi(sa)
    sa._offer = [(_ESP, sa.spi_in, transforms) for _, transforms in p["esp"]]
    inner = p["inner_address"]
    n = len(p["server"] or sa._remote[0])
    anywhere = bytes(n), b"\xff" * n
    ts_i = (inner, inner) if inner else anywhere
    ts_r = p["remote_ts"] or anywhere
    transport = p["mode"] == "transport"
    if transport:
        # Host to host: the addresses outside are the ones inside.
        if sa._local:
            ts_i = (sa._local[0],) * 2
        ts_r = (sa._remote[0],) * 2
    ident = _id_body(p["id"])
    method = sa.method
    payloads = [(_IDI, ident)]
    payloads += method.payloads
    if sa._ppk == "auth":
        from . import ppk

        payloads.append((_N, wire.notify(_PPK_IDENTITY, ppk.identity(p))))
        if not p["ppk_required"]:
            data = method.sign(*_signed(sa, sa._message_i, sa._n_r, sa.sk_pi, ident))
            payloads.append((_N, wire.notify(_NO_PPK_AUTH, data)))
            sa._plain = sa.sk_d, sa.sk_pr
        sa.sk_d, sa.sk_pi, sa.sk_pr = ppk.mixed(p, sa.sk_d, sa.sk_pi, sa.sk_pr)
    if sa.initial_contact:
        payloads.append((_N, wire.notify(_INITIAL_CONTACT)))
    if p["gateway_id"] != "any":
        payloads.append((_IDR, _id_body(p["gateway_id"])))
    data = method.sign(*_signed(sa, sa._message_i, sa._n_r, sa.sk_pi, ident))
    payloads.append((_AUTH, struct.pack(">I", method.method << 24) + data))
    if transport:
        payloads.append((_N, wire.notify(_USE_TRANSPORT_MODE)))
    elif not inner:
        payloads.append((_CP, wire.cp_body(1, [(_address_type(n), b"")])))
    payloads.append((_SA, wire.sa_body(sa._offer)))
    payloads.append((_TSI, wire.ts_body([ts_i])))
    payloads.append((_TSR, wire.ts_body([ts_r])))
    sa._ts = ts_i, ts_r
    sa.go(_S_AUTH)
    sa.request(_IKE_AUTH, payloads, now)


def choose_spi(sa):
    """Return our inbound SPI: one of the profile's that no SA of ours has, or a random one."""
    fixed = sa.profile["spi"] or []
    for value in fixed:
        value = value.to_bytes(4, "big")
        if value not in sa.taken:
            return value
    while True:
        value = spi(sa.rand, 4)
        if value not in sa.taken:
            return value


def answer(sa, payloads, now):
    """Take the gateway's answer: the SA is up, or at its end."""
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
    if sa._ppk == "auth":
        sa.with_ppk = _PPK_IDENTITY in kinds
        if not sa.with_ppk:
            if p["ppk_required"]:
                sa.refuse("no such PPK", "ppk")
                return
            sa.sk_d, sa.sk_pr = sa._plain
    wanted = p["gateway_id"]
    idr = bytes(found[_IDR])
    auth = bytes(found[_AUTH])
    # Another method says that no secret of ours could have helped.
    other = auth[:1] if auth[:1] != bytes((sa.method.method,)) else b""
    signed = _signed(sa, sa._message_r, sa._n_i, sa.sk_pr, idr)
    if other or not sa.method.verify(auth[4:], *signed):
        sa.refuse("AUTH does not verify", "peer", *other)
    elif wanted != "any" and idr[:1] + idr[4:] != bytes((wanted[0],)) + wanted[1]:
        sa.refuse("IDr is not gateway_id", "peer", idr)
    elif refusal:
        # The IKE SA stands without its Child SA: of no use to us (RFC 7815 §2.1).
        sa.leave("notify", refusal[0])
    else:
        try:
            child = _child(sa, found, kinds)
        except Drop as e:
            sa.leave("peer", *e.args)
            return
        from ..ike.established import TABLE, lifetime_in

        sa._table = TABLE
        sa.forget()
        sa.spi_out = child["spi_out"]
        sa.go(_S_UP)
        for notify in notifies:
            child["lifetime"] = child.get("lifetime") or lifetime_in(*notify)
        sa.event("up", child)


def _child(sa, found, notifies):
    """Return what the Child SA needs, as a dict, or raise Drop with what is wrong.

    Keys: spi_in, spi_out (4 octets), cipher (transform id), key_in, key_out (see suites.aead),
    picked ({type: (id, bits)}), inner, server (packed addresses), transport, esn (flags).
    """
    if not (_SA in found and _TSI in found and _TSR in found):
        raise Drop("no Child SA")
    spi_out, picked = wire.chosen(sa._offer, found[_SA], _ESP)
    if len(spi_out) != 4:
        raise Drop("BAD_SA")
    if spi_out[:3] == b"\0\0\0":
        raise Drop("its SPI for ESP is one of 0 to 255, which are reserved")
    p = sa.profile
    server = p["server"]
    transport = p["mode"] == "transport"
    if transport:
        if _USE_TRANSPORT_MODE not in notifies:
            raise Drop("transport mode was refused")
        # A NAT may stand between these addresses (RFC 7296 §2.23.1): we look at no more.
        server = sa._remote[0]
        inner = sa._local[0] if sa._local else bytes(len(server))
    else:
        inner = p["inner_address"] or _assigned(found.get(_CP), len(server))
        ts_i, ts_r = sa._ts
        ts_i = _within(found[_TSI], *ts_i)
        ts_r = _within(found[_TSR], *ts_r)
        _covers(ts_i, inner, p["inner_port"], "TSi without our inner address")
        _covers(ts_r, server, p["server_port"], "TSr without server")
    size = sum(key_sizes(*picked[_ENCR]))
    key_out, key_in = kdf.child_keys(sa.sk_d, sa.nonces(), size)
    return {
        "spi_in": sa.spi_in,
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


def _within(body, low, high):
    """Return the selectors of a TS payload; Drop when one goes beyond what we offered."""
    found = wire.parse_ts(body)
    for _, _, _, first, last in found:
        if len(first) != len(low) or not low <= first <= last <= high:
            raise Drop("traffic selectors wider than asked for", found)
    return found


def _covers(selectors, address, port, complaint):
    for protocol, low, high, first, last in selectors:
        if protocol in (0, 17) and low <= port <= high and first <= address <= last:
            return
    raise Drop(complaint, selectors, address, port)
