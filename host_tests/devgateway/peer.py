"""A tiny IKEv2 initiator in CPython, for testing the development gateway alone.

Synchronous: each method builds one message or takes one answer, so that a test can
bend every step. It borrows the gateway's codec and crypto; what those are worth is
shown by the tests against scapy, charon and the firmware.
"""

import random
import struct
from ipaddress import ip_address, ip_network

from tools.devgateway import wire
from tools.devgateway.crypto import (
    PrfHmac,
    first_skeyseed,
    ike_keys,
    psk_auth,
    psk_pad,
    start_exchange,
)
from tools.devgateway.esp import ChildSa
from tools.devgateway.gateway import Endpoint
from tools.devgateway.inner import Packet, build_ip, build_udp, parse_ip, parse_udp
from tools.devgateway.numbers import (
    IKE_VERSION,
    NON_ESP_MARKER,
    Cfg,
    CfgAttr,
    Exchange,
    Flag,
    N,
    P,
    Protocol,
    T,
)
from tools.devgateway.proposals import offer, parse_suite, select
from tools.devgateway.sa_init import nat_hash
from tools.devgateway.wire import Header, Notify, Payload, identity_from_text

HERE = Endpoint("192.0.2.7", 40500, False, "192.0.2.1", 500)
HERE_NATT = Endpoint("192.0.2.7", 44500, True, "192.0.2.1", 4500)


def seeded(seed=1):
    """A deterministic `rand(n)`."""
    return random.Random(seed).randbytes


class Peer:
    """One initiator. Set attributes before a step to change what it sends."""

    def __init__(
        self,
        psk=b"secret",
        id="sensor-1.example.org",
        ike=("aes128ccm16-prfsha256-x25519",),
        esp=("aes128ccm8",),
        inner=None,
        seed=1,
    ):
        self.rand = seeded(seed)
        self.psk = psk
        self.identity = identity_from_text(id)
        self.ike = [parse_suite(name, Protocol.IKE) for name in ike]
        self.esp = [parse_suite(name, Protocol.ESP) for name in esp]
        self.inner = inner
        self.spi_i = self.rand(8)
        self.spi_r = bytes(8)
        self.n_i = self.rand(32)
        self.spi_esp = self.rand(4)
        self.group = self.ike[0].transforms[T.KE][0].id
        self.half = start_exchange(self.group, self.rand)
        self.cookie = None
        self.init_notifies = []
        self.init_extra = []
        self.auth_extra = []
        self.auth_notifies = [Notify(N.INITIAL_CONTACT)]
        self.ts_i = None
        self.ts_r = [wire.selector_of(ip_network("0.0.0.0/0"))]
        self.message_id = 0
        self.child = None
        self.keys = None
        self.int_auth = [b"", b""]
        self.intermediates = 0

    # IKE_SA_INIT

    def init_request(self):
        proposals = [offer(suite, number + 1) for number, suite in enumerate(self.ike)]
        here = HERE
        payloads = []
        if self.cookie is not None:
            payloads.append(Notify(N.COOKIE, self.cookie).payload())
        payloads += [
            Payload(P.SA, wire.encode_sa(proposals)),
            Payload(P.KE, wire.encode_ke(self.group, self.half.public)),
            Payload(P.NONCE, self.n_i),
            Notify(
                N.NAT_DETECTION_SOURCE_IP,
                nat_hash(self.spi_i, bytes(8), here.host, here.port),
            ).payload(),
            Notify(
                N.NAT_DETECTION_DESTINATION_IP,
                nat_hash(self.spi_i, bytes(8), here.local_host, here.local_port),
            ).payload(),
        ]
        payloads += [notify.payload() for notify in self.init_notifies] + self.init_extra
        header = Header(
            self.spi_i, bytes(8), 0, IKE_VERSION, Exchange.IKE_SA_INIT, Flag.INITIATOR, 0, 0
        )
        self.init_data = wire.encode_message(header, payloads)
        return self.init_data

    def take_init(self, data):
        """Payloads of the answer; keys are made if it agreed to something."""
        header = wire.parse_header(data)
        payloads = wire.parse_payloads(header.next_payload, data[28:])
        self.init_answer_notifies = [
            wire.parse_notify(p.body) for p in payloads if p.type == P.NOTIFY
        ]
        bodies = {payload.type: payload.body for payload in payloads}
        if P.SA not in bodies:
            return payloads
        self.init_answer = data
        self.spi_r = header.spi_r
        (answer,) = wire.parse_sa(bodies[P.SA], None)
        self.choice = select(self.ike, [answer], Protocol.IKE)
        assert self.choice is not None
        group, public = wire.parse_ke(bodies[P.KE])
        assert group == self.group
        self.n_r = bodies[P.NONCE]
        self.prf = PrfHmac(self.choice.transform(T.PRF).id)
        skeyseed = first_skeyseed(self.prf, self.n_i, self.n_r, self.half.finish(public))
        self.keys = ike_keys(self.choice, skeyseed, self.n_i, self.n_r, self.spi_i, self.spi_r)
        self.message_id = 1
        return payloads

    def use_group(self, group):
        """A new KE after INVALID_KE_PAYLOAD."""
        self.group = group
        self.half = start_exchange(group, self.rand)

    # Protected messages

    def header(self, exchange, message_id=None, flags=Flag.INITIATOR):
        message_id = self.message_id if message_id is None else message_id
        return Header(self.spi_i, self.spi_r, P.SK, IKE_VERSION, exchange, flags, message_id, 0)

    def protect(self, exchange, payloads, message_id=None, flags=Flag.INITIATOR):
        first, inner = wire.encode_payloads(payloads)
        return self.protect_octets(exchange, first, inner, message_id, flags)

    def protect_octets(self, exchange, first, inner, message_id=None, flags=Flag.INITIATOR):
        cipher = self.keys.from_initiator
        size = 4 + cipher.sealed_size(len(inner))
        header = self.header(exchange, message_id, flags)._replace(length=28 + size)
        aad = header.encode() + bytes((first, 0)) + size.to_bytes(2, "big")
        return aad + cipher.seal(aad, inner, self.rand)

    def fragments(self, exchange, payloads, count, message_id=None, flags=Flag.INITIATOR):
        """The payloads in `count` SKF messages."""
        first, inner = wire.encode_payloads(payloads)
        return self.fragment_octets(exchange, first, inner, count, message_id, flags)

    def fragment_octets(
        self, exchange, first, inner, count, message_id=None, flags=Flag.INITIATOR
    ):
        edges = [len(inner) * at // count for at in range(count + 1)]
        pieces = [inner[low:high] for low, high in zip(edges, edges[1:])]
        header = self.header(exchange, message_id, flags)
        return [
            self.fragment(header, first if number == 1 else 0, piece, number, count)
            for number, piece in enumerate(pieces, 1)
        ]

    def fragment(self, header, first, piece, number, total):
        """One SKF message, whatever the numbers are."""
        cipher = self.keys.from_initiator
        size = 8 + cipher.sealed_size(len(piece))
        header = header._replace(next_payload=P.SKF, length=28 + size)
        aad = header.encode() + struct.pack(">BBHHH", first, 0, size, number, total)
        return aad + cipher.seal(aad, piece, self.rand)

    def open(self, *datagrams):
        """(header, payloads) of a protected message from the gateway, fragmented or not."""
        header, first, inner = self.open_octets(*datagrams)
        return header, wire.parse_payloads(first, inner)

    def open_octets(self, *datagrams):
        parts = {}
        for data in datagrams:
            header = wire.parse_header(data)
            (sealed,) = wire.parse_payloads(header.next_payload, data[28:])
            number = total = 1
            body, first = sealed.body, sealed.inner
            if sealed.type == P.SKF:
                number, total = struct.unpack(">HH", body[:4])
                assert bool(first) == (number == 1)
                body = body[4:]
            aad = data[: len(data) - len(body)]
            parts[number] = (first, self.keys.from_responder.open(aad, body))
        assert sorted(parts) == list(range(1, total + 1))
        inner = b"".join(parts[number][1] for number in sorted(parts))
        return header, parts[1][0], inner

    # IKE_INTERMEDIATE

    def cover(self, side, header, first, inner):
        """IntAuth over one message (RFC 9242 §3.3.2), from the figure in that section."""
        a = header._replace(next_payload=46, length=32 + len(inner)).encode()
        a += bytes((first, 0)) + (len(inner) + 4).to_bytes(2, "big")
        sk_p = self.keys.sk_pr if side else self.keys.sk_pi
        self.int_auth[side] = self.prf(sk_p, self.int_auth[side] + a + inner)

    def intermediate_octets(self, payloads):
        """(first, inner) of an IKE_INTERMEDIATE request, covered by IntAuth."""
        first, inner = wire.encode_payloads(payloads)
        self.cover(0, self.header(Exchange.IKE_INTERMEDIATE), first, inner)
        return first, inner

    def take_intermediate(self, *datagrams):
        header, first, inner = self.open_octets(*datagrams)
        payloads = wire.parse_payloads(first, inner)
        self.cover(1, header, first, inner)
        self.message_id += 1
        self.intermediates += 1
        return payloads

    def new_keys(self, skeyseed):
        self.keys = ike_keys(self.choice, skeyseed, self.n_i, self.n_r, self.spi_i, self.spi_r)

    def int_auth_octets(self):
        if not self.intermediates:
            return b""
        return b"".join(self.int_auth) + self.message_id.to_bytes(4, "big")

    # Fragment acknowledgment

    def ack(self, kind, pairs, exchange, message_id, flags=None, **notify):
        """A FRAGMENT_ACK message; R is set as the draft's -02 says."""
        if flags is None:
            flags = Flag.INITIATOR | Flag.RESPONSE
        data = b"".join(struct.pack(">HH", *pair) for pair in pairs)
        payload = Notify(kind, data, **notify).payload()
        return self.protect(exchange, [payload], message_id, flags)

    def read_ack(self, data):
        """(header, notify type, pairs) of an acknowledgment from the gateway."""
        header, (payload,) = self.open(data)
        notify = wire.parse_notify(payload.body)
        assert notify.protocol == 0 and notify.spi == b""
        pairs = list(struct.iter_unpack(">HH", notify.data))
        return header, notify.type, pairs

    # IKE_AUTH

    def auth_payloads(self):
        id_body = self.identity.encode()
        octets = self.init_data + self.n_r + self.prf(self.keys.sk_pi, id_body)
        octets += self.int_auth_octets()
        data = psk_auth(self.prf, psk_pad(self.prf, self.psk), octets)
        payloads = [Payload(P.IDI, id_body), Payload(P.AUTH, wire.encode_auth(2, data))]
        if self.inner is None:
            request = [(CfgAttr.INTERNAL_IP4_ADDRESS, b"")]
            payloads.append(Payload(P.CP, wire.encode_cfg(Cfg.REQUEST, request)))
            ts_i = [wire.selector_of(ip_network("0.0.0.0/0"))]
        else:
            address = ip_address(self.inner)
            ts_i = [wire.Selector(address, address)]
        proposals = [
            offer(suite, number + 1, self.spi_esp) for number, suite in enumerate(self.esp)
        ]
        payloads += [
            Payload(P.SA, wire.encode_sa(proposals)),
            Payload(P.TSI, wire.encode_selectors(self.ts_i or ts_i)),
            Payload(P.TSR, wire.encode_selectors(self.ts_r)),
        ]
        payloads += [notify.payload() for notify in self.auth_notifies]
        return payloads + self.auth_extra

    def auth_request(self):
        return self.protect(Exchange.IKE_AUTH, self.auth_payloads())

    def take_auth(self, *datagrams):
        """Payloads of the answer as {type: body}, its notify types as a list."""
        _, payloads = self.open(*datagrams)
        bodies = {payload.type: payload.body for payload in payloads}
        notifies = [wire.parse_notify(p.body).type for p in payloads if p.type == P.NOTIFY]
        if P.AUTH in bodies:
            self._verify(bodies)
        if P.SA in bodies:
            self._take_child(bodies)
        self.message_id += 1
        return bodies, notifies

    def _verify(self, bodies):
        octets = self.init_answer + self.n_i + self.prf(self.keys.sk_pr, bodies[P.IDR])
        octets += self.int_auth_octets()
        expected = psk_auth(self.prf, psk_pad(self.prf, self.psk), octets)
        assert wire.parse_auth(bodies[P.AUTH]) == (2, expected)

    def _take_child(self, bodies):
        choice = select(self.esp, wire.parse_sa(bodies[P.SA], None), Protocol.ESP)
        size = ChildSa.keymat_size(choice)
        keymat = self.prf.plus(self.keys.sk_d, self.n_i + self.n_r, size)
        swapped = keymat[size // 2 :] + keymat[: size // 2]
        ts_i = wire.parse_selectors(bodies[P.TSI])
        ts_r = wire.parse_selectors(bodies[P.TSR])
        notifies = [wire.parse_notify(bodies[P.NOTIFY])] if P.NOTIFY in bodies else []
        transport = any(notify.type == N.USE_TRANSPORT_MODE for notify in notifies)
        self.child = ChildSa(choice, self.spi_esp, swapped, 64, ts_i, ts_r, transport)
        self.address = ts_i[0].first

    # ESP

    def udp(self, payload, to="10.3.0.10", port=5000, source_port=5000):
        """An ESP datagram with a UDP payload inside."""
        packet = build_udp(self.address, ip_address(to), source_port, port, payload)
        return self.packet(packet)

    def packet(self, packet: Packet):
        if self.child.transport:
            return self.child.seal(packet.protocol, packet.payload, self.rand)
        kind = 4 if packet.source.version == 4 else 41
        return self.child.seal(kind, build_ip(packet), self.rand)

    def open_udp(self, datagram):
        """(source, source port, destination port, payload) of an ESP datagram."""
        kind, plain, _ = self.child.open(datagram)
        if self.child.transport:
            packet = Packet(self.child.ts_remote[0].first, self.address, kind, plain)
            return packet.source, *parse_udp(packet)
        packet = parse_ip(plain, 4 if kind == 4 else 6)
        return packet.source, *parse_udp(packet)


def only(datagrams):
    """The one datagram of a gateway's output, without the marker."""
    ((data, endpoint),) = datagrams
    return data[4:] if endpoint.natt and data[:4] == NON_ESP_MARKER else data


def bare(datagrams):
    """A gateway's output as IKE messages without marker."""
    return [
        data[4:] if end.natt and data[:4] == NON_ESP_MARKER else data for data, end in datagrams
    ]


def natt(message):
    """An IKE message as it travels on the NAT traversal port."""
    return NON_ESP_MARKER + message


def connect(gateway, peer, now=0):
    """IKE_SA_INIT on the IKE port and IKE_AUTH on the NAT traversal port; answer of IKE_AUTH."""
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, now)))
    return peer.take_auth(only(gateway.receive(natt(peer.auth_request()), HERE_NATT, now)))
