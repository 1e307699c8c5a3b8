"""The gateway without any input or output of its own.

`receive(datagram, endpoint, now)` and `timer(now)` return the datagrams to send as
(octets, endpoint) pairs; octets are whole UDP payloads, marker included. `now` is in
milliseconds on any clock that never goes back, `rand(n)` gives n random octets. What
happens is told to `on_event(name, fields)`.
"""

import heapq
import os
from collections import Counter
from ipaddress import ip_address
from typing import NamedTuple

from . import inner, sa_init, wire
from .crypto import CryptoError
from .esp import EspError
from .ike import DEAD, ESTABLISHED, HALF_OPEN
from .inner import InnerError
from .keylog import KeyLog
from .numbers import (
    IKE_VERSION,
    KEEPALIVE,
    NON_ESP_MARKER,
    CfgAttr,
    Exchange,
    Flag,
    Ip,
    N,
    P,
    Protocol,
    name_of,
)
from .pool import Pool
from .sa_init import Cookies
from .wire import HEADER_SIZE, Payload

_KNOWN_PAYLOADS = frozenset(P)
MIN_SPI = 256  # RFC 4303 §2.1


class Endpoint(NamedTuple):
    """Where a datagram came from and which of our sockets took it.

    `natt` is the NAT traversal port, where IKE wears the non-ESP marker and ESP travels.
    `raw` is ESP straight on IP (protocol 50), where there is no port.
    """

    host: str
    port: int
    natt: bool = False
    local_host: str = "0.0.0.0"
    local_port: int = 500
    raw: bool = False


class Gateway:
    def __init__(self, config, rand=os.urandom, on_event=None):
        self.config = config
        self.rand = rand
        self.on_event = on_event
        self.cookies = Cookies(rand)
        self.sas = {}  # our SPI -> IkeSa
        self.children = {}  # our SPI -> ChildSa
        self.drops = Counter()
        self.counters = Counter()
        self.pools = {}
        if config.pool:
            self.pools[CfgAttr.INTERNAL_IP4_ADDRESS] = Pool(config.pool)
        if config.pool6:
            self.pools[CfgAttr.INTERNAL_IP6_ADDRESS] = Pool(config.pool6)
        self.keylog = KeyLog(config.keylog) if config.keylog else None
        self._by_init = {}  # IKE_SA_INIT request octets -> IkeSa
        self._out = []
        self._paced = []  # heap of (due, serial, message, endpoint)
        self._serial = 0

    # The four calls that a driver makes

    def receive(self, datagram, endpoint, now):
        """Handle one datagram; the datagrams to send in return, [] for most bad ones."""
        self.counters["datagrams_in"] += 1
        try:
            self._demultiplex(bytes(datagram), endpoint, now)
        except (wire.WireError, CryptoError, EspError, InnerError) as error:
            self.drop(error.reason)
        return self._drain()

    def timer(self, now):
        """Run what is due at `now`."""
        while self._paced and self._paced[0][0] <= now:
            _, _, message, endpoint = heapq.heappop(self._paced)
            self.send_ike(message, endpoint)
        for sa in list(self.sas.values()):
            if sa.timer(now):
                self._forget(sa)
        return self._drain()

    def next_timer(self):
        """When `timer` wants to be called, or None."""
        times = [sa.next_timer() for sa in self.sas.values()]
        if self._paced:
            times.append(self._paced[0][0])
        return min((time for time in times if time is not None), default=None)

    def shutdown(self, now):
        """Queue a DELETE for every established IKE SA; the datagrams to send."""
        for sa in list(self.sas.values()):
            self._delete(sa, now, "shutdown")
        return self._drain()

    # Requests of ours

    def delete(self, sa, now):
        """Tell the peer that this IKE SA is gone (RFC 7296 §1.4.1)."""
        self._delete(sa, now, "deleted by us")
        return self._drain()

    def _delete(self, sa, now, reason):
        def done(sa, payloads, now):
            self.closed(sa, reason)
            sa.die(now)

        body = wire.encode_delete(Protocol.IKE, [])
        sa.request(Exchange.INFORMATIONAL, [Payload(P.DELETE, body)], now, done)

    def delete_child(self, child, now):
        """Tell the peer that this Child SA is gone."""

        def done(sa, payloads, now):
            self.remove_child(child, "deleted by us")

        body = wire.encode_delete(Protocol.ESP, [child.spi_in])
        child.ike.request(Exchange.INFORMATIONAL, [Payload(P.DELETE, body)], now, done)
        return self._drain()

    def liveness(self, sa, now, done=None):
        """An empty INFORMATIONAL request (RFC 7296 §2.4); `done(sa, payloads, now)` at its answer."""
        sa.request(Exchange.INFORMATIONAL, [], now, done)
        return self._drain()

    def send_inner(self, child, packet):
        """Seal an `inner.Packet` for the sensor."""
        self._seal_packet(child, packet)
        return self._drain()

    def send_udp(self, child, source, source_port, destination_port, payload):
        """A UDP datagram from `source` (behind the gateway) to the sensor's inner address."""
        packet = inner.build_udp(
            ip_address(source), child.inner, source_port, destination_port, payload
        )
        return self.send_inner(child, packet)

    def send_dummy(self, child, size=0):
        """A dummy packet (RFC 4303 §2.6): next header 59, `size` octets of no meaning."""
        self._seal(child, Ip.NO_NEXT, self.rand(size))
        return self._drain()

    def send_icmp(self, child, source, kind, code, body=bytes(4)):
        """An ICMP message to the sensor, e.g. (3, 3) for port unreachable."""
        return self.send_inner(
            child, inner.build_icmp(ip_address(source), child.inner, kind, code, body)
        )

    # Reading what came in

    def _demultiplex(self, datagram, endpoint, now):
        if endpoint.raw:
            self._esp(datagram, endpoint)
        elif not endpoint.natt:
            self._ike(datagram, endpoint, now)
        elif datagram[:4] == NON_ESP_MARKER:
            self._ike(datagram[4:], endpoint, now)
        elif datagram == KEEPALIVE:
            self.counters["keepalives"] += 1
        else:
            self._esp(datagram, endpoint)

    def _ike(self, data, endpoint, now):
        if len(data) >= HEADER_SIZE and data[17] >> 4 > IKE_VERSION >> 4:
            self._refuse_version(data, endpoint)
            return
        header = wire.parse_header(data)
        if header.spi_i == bytes(8):
            raise wire.WireError("BAD_SPI")
        if header.spi_r != bytes(8):
            sa = self.sas.get(header.spi_r)
            if sa is None:
                raise wire.WireError("UNKNOWN_SPI")
            sa.receive(header, data, endpoint, now)
            return
        if header.exchange != Exchange.IKE_SA_INIT or header.message_id != 0:
            raise wire.WireError("UNEXPECTED_EXCHANGE")
        if header.flags & Flag.RESPONSE or not header.flags & Flag.INITIATOR:
            raise wire.WireError("BAD_FLAGS")
        known = self._by_init.get(data)
        if known is not None:
            if known.expected == 1:  # nothing but IKE_SA_INIT so far
                self.count("answers_resent")
                self.send_ike(known.init_response, endpoint)
                return
            raise wire.WireError("OLD_MESSAGE_ID")
        answer, sa = sa_init.handle(self, header, data, endpoint, now)
        if sa is not None:
            self.sas[sa.spi_r] = sa
            self._by_init[data] = sa
            if self.keylog:
                self.keylog.ike(sa)
        self.send_ike(answer, endpoint)

    def _refuse_version(self, data, endpoint):
        """Tell a peer with a later major version ours, unless it responds (RFC 7296 §2.5)."""
        self.drop("BAD_VERSION")
        if data[19] & Flag.RESPONSE:
            return
        header = wire.Header(data[:8], data[8:16], 0, IKE_VERSION, data[18], Flag.RESPONSE, 0, 0)
        header = header._replace(message_id=int.from_bytes(data[20:24], "big"))
        notify = wire.Notify(N.INVALID_MAJOR_VERSION)
        self.send_ike(wire.encode_message(header, [notify.payload()]), endpoint)

    def _esp(self, datagram, endpoint):
        child = self.children.get(datagram[:4])
        if child is None:
            raise EspError("UNKNOWN_SPI")
        next_header, payload, newest = child.open(datagram)
        if newest:
            # The outer address is learned from authenticated packets only (RFC 7296 §2.23).
            child.raw = endpoint if endpoint.raw else None
            if not endpoint.raw:
                child.ike.endpoint = endpoint
        self.counters["esp_in"] += 1
        if next_header == Ip.NO_NEXT:
            self.counters["dummies"] += 1
            return
        packet = self._inner_packet(child, next_header, payload)
        if packet.protocol == Ip.UDP:
            self._udp(child, packet)
            return
        if not child.admits(packet.source, None, packet.destination, None, packet.protocol):
            raise InnerError("INNER_ADDRESS")
        reply = inner.echo_reply(packet)
        if reply is None:
            raise InnerError("INNER_PROTOCOL")
        self.counters["pings"] += 1
        if self.config.echo:
            self._seal_packet(child, reply)

    @staticmethod
    def _inner_packet(child, next_header, payload):
        if child.transport:
            return inner.Packet(child.inner, child.ts_local[0].first, next_header, payload)
        if next_header not in (Ip.IPV4, Ip.IPV6):
            raise InnerError("INNER_PROTOCOL")
        return inner.parse_ip(payload, 4 if next_header == Ip.IPV4 else 6)

    def _udp(self, child, packet):
        # A NAT breaks the checksum of transport mode; ESP has protected it (RFC 3948 §3.1.2).
        source_port, destination_port, payload = inner.parse_udp(packet, not child.transport)
        if not child.admits(
            packet.source, source_port, packet.destination, destination_port, Ip.UDP
        ):
            raise InnerError("INNER_ADDRESS")
        self.counters["readings"] += 1
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            text = None
        self.event(
            "reading",
            inner=str(packet.source),
            src_port=source_port,
            dst_port=destination_port,
            octets=len(payload),
            text=text,
            hex=payload.hex(),
            destination=str(packet.destination),
            id=str(child.ike.identity),
            spi_in=child.spi_in.hex(),
        )
        if self.config.echo:
            back = inner.build_udp(
                packet.destination, packet.source, destination_port, source_port, payload
            )
            self._seal_packet(child, back)

    # Services for the exchanges

    def knows(self, payload_type):
        return payload_type in _KNOWN_PAYLOADS

    def half_open(self):
        return sum(sa.state == HALF_OPEN for sa in self.sas.values())

    def established_sas(self):
        return [sa for sa in self.sas.values() if sa.state == ESTABLISHED]

    def new_ike_spi(self):
        while True:
            spi = self.rand(8)
            if spi != bytes(8) and spi not in self.sas:
                return spi

    def new_esp_spi(self):
        while True:
            spi = self.rand(4)
            if int.from_bytes(spi, "big") >= MIN_SPI and spi not in self.children:
                return spi

    def keys_changed(self, sa):
        if self.keylog:
            self.keylog.ike(sa)

    def established(self, sa):
        self.event(
            "ike_sa",
            spi_i=sa.spi_i.hex(),
            spi_r=sa.spi_r.hex(),
            id=str(sa.identity),
            proposal=sa.choice.name,
            peer="%s:%d" % sa.endpoint[:2],
            nat=sa.peer_behind_nat,
            ppk=sa.ppk_used,
            frag_ack=sa.frag_ack,
            intermediates=sa.intermediates,
        )

    def add_child(self, sa, child):
        child.ike = sa
        sa.children[child.spi_in] = child
        self.children[child.spi_in] = child
        if self.keylog:
            self.keylog.esp(child)
        self.event(
            "child_sa",
            spi_in=child.spi_in.hex(),
            spi_out=child.spi_out.hex(),
            inner=str(child.inner),
            esp=child.choice.name,
            ts_i=[str(ts) for ts in child.ts_remote],
            ts_r=[str(ts) for ts in child.ts_local],
            id=str(sa.identity),
            mode="transport" if child.transport else "tunnel",
        )

    def remove_child(self, child, reason):
        self.children.pop(child.spi_in, None)
        child.ike.children.pop(child.spi_in, None)
        self.event(
            "delete", protocol="ESP", spi_in=child.spi_in.hex(), id=str(child.ike.identity),
            reason=reason,
        )  # fmt: skip

    def replace_older(self, sa, now):
        """INITIAL_CONTACT: the peer has no other SA with us any more (RFC 7296 §2.4)."""
        for other in list(self.sas.values()):
            if other is not sa and other.state == ESTABLISHED and other.identity == sa.identity:
                self.closed(other, "initial contact")
                other.die(now)

    def closed(self, sa, reason):
        if sa.state == DEAD:
            return
        self.event(
            "delete", protocol="IKE", spi_i=sa.spi_i.hex(), spi_r=sa.spi_r.hex(),
            id=str(sa.identity), reason=reason,
        )  # fmt: skip

    def release(self, sa):
        """Let go of everything that a dying IKE SA holds besides itself."""
        for spi in list(sa.children):
            self.children.pop(spi, None)
        sa.children.clear()
        self.release_addresses(sa)

    def release_addresses(self, sa):
        for address in sa.addresses:
            kind = CfgAttr.INTERNAL_IP4_ADDRESS
            if address.version == 6:
                kind = CfgAttr.INTERNAL_IP6_ADDRESS
            self.pools[kind].release(address)
        sa.addresses = []

    def _forget(self, sa):
        self.release(sa)
        self.sas.pop(sa.spi_r, None)
        self._by_init.pop(sa.init_request, None)

    # Output

    def send_ike(self, message, endpoint):
        self._emit(NON_ESP_MARKER + message if endpoint.natt else message, endpoint)

    def send_ike_messages(self, messages, endpoint, now):
        """The messages of one flight, `fragment_gap_ms` apart."""
        for index, message in enumerate(messages):
            due = now + index * self.config.fragment_gap_ms
            if due == now:
                self.send_ike(message, endpoint)
            else:
                self._serial += 1
                heapq.heappush(self._paced, (due, self._serial, message, endpoint))

    def _seal_packet(self, child, packet):
        if child.transport:
            self._seal(child, packet.protocol, packet.payload)
        else:
            kind = Ip.IPV4 if packet.source.version == 4 else Ip.IPV6
            self._seal(child, kind, inner.build_ip(packet))

    def _seal(self, child, next_header, payload):
        endpoint = child.raw or child.ike.endpoint
        if not endpoint.raw and not endpoint.natt:
            if not self.config.raw_esp:
                self.drop("NO_ESP_PATH")
                return
            endpoint = endpoint._replace(port=0, local_port=0, raw=True)
        self.counters["esp_out"] += 1
        self._emit(child.seal(next_header, payload, self.rand), endpoint)

    def _emit(self, datagram, endpoint):
        self.counters["datagrams_out"] += 1
        self.counters["octets_out"] += len(datagram)
        self._out.append((datagram, endpoint))

    def _drain(self):
        out, self._out = self._out, []
        return out

    # Telling

    def event(self, name, **fields):
        if self.on_event is not None:
            self.on_event(name, fields)

    def count(self, name):
        self.counters[name] += 1

    def drop(self, reason):
        self.drops[reason] += 1
        self.event("drop", reason=reason)

    def error(self, notify, endpoint, text, identity=None):
        self.event(
            "error",
            notify=name_of(N, notify),
            text=text,
            id=str(identity) if identity is not None else None,
            peer="%s:%d" % endpoint[:2],
        )

    def stats(self):
        """Counters as a dict: `drops` by reason and the rest by name."""
        return {"drops": dict(self.drops), "sas": len(self.sas), **self.counters}
