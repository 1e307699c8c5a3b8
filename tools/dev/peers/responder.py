"""A scripted IKEv2 responder that does as it is told, right or wrong.

It has a reading of the RFCs of its own, its messages are those of messages.py, and it takes nothing from firmware/, except under
MicroPython, where `cryptography` is missing, the primitives (AES-CCM, SHA-256, X25519) themselves.

    gateway = Responder()
    answer = gateway.init(request)                   # IKE_SA_INIT
    answer = gateway.auth(request)                   # IKE_AUTH; `gateway.got` is what it held
    answer = gateway.request(INFORMATIONAL, [])      # a request of its own
    gateway.read(answer)                             # (exchange, flags, message id, payloads)
    packet = gateway.esp(b"payload")

`init` and `auth` take `edit`, a function from the list of payloads [(type, body)] to another.
"""

import struct

from tools.dev.peers import primitives
from tools.dev.peers.messages import (
    AUTH, COOKIE, CP, CREATE_CHILD_SA, D, FRAGMENTATION, HEADER_SIZE, I, IDI, IDR, IKE_AUTH,
    IKE_SA_INIT, INFORMATIONAL, KE, MARKER, N, NAT_DESTINATION, NAT_SOURCE, NONCE, R, SA, SK, SKF,
    TSI, TSR, V, message, nat_hash, notify, parsed, payload_chain, proposal, protected, selector,
    split,
)  # fmt: skip

PSK = bytes(range(7, 39))
GATEWAY_ID = (2, b"gw.example.org")
ASSIGNED = bytes((10, 9, 0, 1))
SERVER = bytes((10, 3, 0, 10))
ANYWHERE = (bytes(4), b"\xff" * 4)


class Responder:
    """See the module. Attributes may be changed before each step."""

    def __init__(self, psk=PSK, ike=(1, 16), esp=(1, 14), assign=ASSIGNED):
        self.psk = psk
        self.ident = GATEWAY_ID
        # (number of the proposal, id of the AES-CCM transform) that it chooses
        self.ike = ike
        self.esp_choice = esp
        self.assign = assign
        self.nonce = bytes(range(100, 132))
        self.spi_r = b"\x91\x92\x93\x94\x95\x96\x97\x98"
        self.spi_esp = b"\xc0\xff\xee\x01"
        self.spi_i = None
        self.ts_i = self.ts_r = None
        self.notifies = []  # more notifies in the IKE_SA_INIT answer
        self.natt = True  # send NAT_DETECTION
        self.marker = False
        self.mid = 0  # of its next own request
        self._iv = 0
        self.sn = 0
        self._pair = primitives.X25519(b"\x42" * 32)

    # IKE_SA_INIT

    def read_init(self, datagram):
        """Take an IKE_SA_INIT request apart into `self.init_got`, {type: body}, and `order`."""
        self.marker = datagram[:4] == MARKER
        octets = datagram[4:] if self.marker else datagram
        self.request_octets = octets
        head = parsed(octets)
        self.spi_i = head.spi_i
        assert head[4:] == (IKE_SA_INIT, I, 0, len(octets))
        payloads = split(head.first, octets[HEADER_SIZE:])
        self.order = [kind for kind, _, _ in payloads]
        self.init_got = {kind: body for kind, _, body in payloads if kind != N}
        self.init_notifies = [(b[2] << 8 | b[3], b[4:]) for k, _, b in payloads if k == N]
        return payloads

    def init(self, datagram, edit=None, flags=R, mid=0):
        """Answer IKE_SA_INIT and make the keys."""
        self.read_init(datagram)
        ke = self.init_got[KE]
        self.n_i = self.init_got[NONCE]
        shared = self._pair.shared(ke[4:])
        number, cipher = self.ike
        payloads = [
            (SA, proposal(number, 1, b"", [(1, cipher, 128), (2, 5, 0), (4, 31, 0)])),
            (KE, struct.pack(">HH", 31, 0) + self._pair.public),
            (NONCE, self.nonce),
        ]
        if self.natt:
            payloads.append(notify(NAT_SOURCE, bytes(20)))
            payloads.append(notify(NAT_DESTINATION, bytes(20)))
        payloads += [notify(*entry) for entry in self.notifies]
        if edit:
            payloads = edit(payloads)
        body = message(self.spi_i, self.spi_r, IKE_SA_INIT, flags, mid, payloads)
        self.response_octets = body
        self._keys(shared, cipher)
        return self._marked(body)

    def refuse_init(self, datagram, *payloads, spi_r=bytes(8)):
        """Answer IKE_SA_INIT with notifies alone."""
        self.read_init(datagram)
        body = message(self.spi_i, spi_r, IKE_SA_INIT, R, 0, payloads)
        return self._marked(body)

    def _marked(self, octets):
        return MARKER + octets if self.marker else octets

    def _keys(self, shared, cipher):
        self._take_keys(primitives.prf(self.n_i + self.nonce, shared), cipher)

    def _take_keys(self, skeyseed, cipher):
        nonces = self.n_i + self.nonce
        keys = primitives.prf_plus(skeyseed, nonces + self.spi_i + self.spi_r, 3 * 32 + 2 * 19)
        self.sk_d, self.sk_pi, self.sk_pr = keys[:32], keys[70:102], keys[102:134]
        icv = {14: 8, 15: 12, 16: 16}[cipher]
        self._in = primitives.CCM(keys[32:51], icv)
        self._out = primitives.CCM(keys[51:70], icv)
        self._iv = 0

    # Protected messages

    def protect(self, text, exchange, flags, mid, first, spi_i=None, spi_r=None, **bent):
        """A datagram with an SK payload around `text`, which has its padding; see `protected`."""
        self._iv += 1
        iv = struct.pack(">Q", self._iv)
        return MARKER + protected(
            spi_i or self.spi_i, spi_r or self.spi_r, exchange, flags, mid, first,
            8 + len(text) + self._out.icv, lambda aad: iv + self._out.seal(iv, text, aad), **bent,
        )  # fmt: skip

    def seal(self, exchange, flags, mid, first, plain, pad=0, spi_r=None):
        """A datagram with an SK payload around octets of any kind."""
        text = plain + bytes(pad) + bytes((pad,))
        return self.protect(text, exchange, flags, mid, first, spi_r=spi_r)

    def send(self, exchange, flags, mid, payloads, pad=0):
        first, plain = payload_chain(payloads)
        return self.seal(exchange, flags, mid, first, plain, pad)

    def open(self, datagram):
        """(exchange, flags, message id, SK or SKF, first payload, SKF's numbers, plaintext)."""
        octets = datagram[4:] if datagram[:4] == MARKER else datagram
        head = parsed(octets)
        assert (head.spi_i, head.spi_r, head.version) == (self.spi_i, self.spi_r, 0x20)
        assert head.size == len(octets)
        ((kind, first, body),) = split(head.first, octets[HEADER_SIZE:])
        place = body[:4] if kind == SKF else b""
        sealed = body[len(place) :]
        text = self._in.open(sealed[:8], sealed[8:], octets[: len(octets) - len(sealed)])
        assert text is not None, "the sensor's ICV is wrong"
        assert text[-1] == 0
        self.last_iv = sealed[:8]
        return head.exchange, head.flags, head.mid, kind, first, place, text[:-1]

    def read(self, datagram):
        """(exchange, flags, message id, [(type, critical, body)]) of what the sensor protected."""
        exchange, flags, mid, kind, first, _, plain = self.open(datagram)
        assert kind == SK
        return exchange, flags, mid, split(first, plain)

    # IKE_AUTH

    def read_auth(self, datagram):
        """Take an IKE_AUTH request apart and verify its AUTH; `self.got` is {type: body}."""
        exchange, flags, mid, payloads = self.read(datagram)
        assert (exchange, flags, mid) == (IKE_AUTH, I, 1)
        self._take_auth(payloads)
        signed = self.request_octets + self.nonce + primitives.prf(self.sk_pi, self.got[IDI])
        self.authentic = self.got[AUTH] == b"\2\0\0\0" + primitives.prf(self.pad, signed)
        return payloads

    def _take_auth(self, payloads):
        self.auth_order = [kind for kind, _, _ in payloads]
        self.got = {kind: body for kind, _, body in payloads if kind != N}
        self.auth_notifies = [(b[2] << 8 | b[3], b[4:]) for k, _, b in payloads if k == N]
        self.pad = primitives.prf(self.psk, b"Key Pad for IKEv2")
        self.spi_sensor = self.got[SA][8:12]

    def auth_payloads(self):
        """The payloads of a good IKE_AUTH answer to the request that was read."""
        prf = primitives.prf
        ident = struct.pack(">B3x", self.ident[0]) + self.ident[1]
        signed = self.response_octets + self.n_i + prf(self.sk_pr, ident)
        number, cipher = self.esp_choice
        inner = self.assign
        payloads = [(IDR, ident), (AUTH, b"\2\0\0\0" + prf(self.pad, signed))]
        if CP in self.got:
            payloads.append((CP, struct.pack(">B3xHH", 2, 1, 4) + inner))
        else:
            inner = self.got[TSI][12:16]
        return payloads + [
            (SA, proposal(number, 3, self.spi_esp, [(1, cipher, 128), (5, 0, 0)])),
            (TSI, self.ts_i or selector(inner, inner)),
            (TSR, self.ts_r or self.got[TSR]),
        ]

    def auth(self, datagram, edit=None, flags=R, mid=1):
        """Answer IKE_AUTH and make the Child SA's keys."""
        self.read_auth(datagram)
        assert self.authentic, "the sensor's AUTH does not verify"
        payloads = self.auth_payloads()
        if edit:
            payloads = edit(payloads)
        self.child_keys()
        return self.send(IKE_AUTH, flags, mid, payloads)

    def child_keys(self):
        keymat = primitives.prf_plus(self.sk_d, self.n_i + self.nonce, 38)
        icv = {14: 8, 15: 12, 16: 16}[self.esp_choice[1]]
        self._esp_in = primitives.CCM(keymat[:19], icv)
        self._esp_out = primitives.CCM(keymat[19:], icv)

    # Its own requests

    def request(self, exchange, payloads, mid=None, flags=0, pad=0):
        """A request of the gateway's; Message IDs count up unless told otherwise."""
        if mid is None:
            mid = self.mid
            self.mid += 1
        return self.send(exchange, flags, mid, payloads, pad)

    # ESP

    def read_esp(self, packet):
        """(SPI, SN, inner packet) of an ESP packet from the sensor, padding checked."""
        text = self._esp_in.open(packet[8:16], packet[16:], packet[:8])
        assert text is not None, "the sensor's ESP does not open"
        pad = text[-2]
        assert text[-1] == 4 and text[-2 - pad : -2] == bytes(range(1, pad + 1))
        return packet[:4], int.from_bytes(packet[4:8], "big"), text[: -2 - pad]

    def esp(self, inside, next_header=4):
        """An ESP packet for the sensor around an inner packet."""
        self.sn += 1
        pad = -(len(inside) + 2) & 3
        text = inside + bytes(range(1, pad + 1)) + bytes((pad, next_header))
        iv = struct.pack(">Q", self.sn)
        head = self.spi_sensor + struct.pack(">I", self.sn)
        return head + iv + self._esp_out.seal(iv, text, head)
