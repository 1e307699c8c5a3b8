"""A scripted gateway with IKE_INTERMEDIATE, ML-KEM and PPKs: a third reading of the RFCs.

It shares nothing with firmware/ nor with tools/devgateway. What it does wrong it does on demand:
`edit` changes the payloads of its answer, `bends` are arguments of `stage.Gateway.bend`.

    gateway = Hybrid(methods=(36,))
    node, gateway, sent = exchanging(gateway)   # the sensor's first IKE_INTERMEDIATE is out
    sent = node.receive(gateway.intermediate(sent)[0])
"""

import struct

from tools.dev.peers import stage
from tools.dev.peers import primitives
from tools.dev.peers.node import SECRETS, Node, Rand, profile
from tools.dev.peers.messages import (
    IKE_AUTH,
    KE,
    MARKER,
    SA,
    I,
    N,
    R,
    notify,
    payload_chain,
    proposal,
    protected,
    split,
)
from tools.dev.peers import kem

IKE_INTERMEDIATE, SK, SKF = 43, 46, 53
USE_PPK, PPK_IDENTITY, NO_PPK_AUTH, SUPPORTED = 16435, 16436, 16437, 16438
USE_PPK_INT, PPK_IDENTITY_KEY, FRAGMENTATION = 16445, 16446, 16430
NAMES = {35: "mlkem512", 36: "mlkem768", 37: "mlkem1024"}
CCM = "aes128ccm16-prfsha256-x25519"
PPK = b"\x77" * 32
PPK_ID = b"\x02ppk-1"
WITH_PPK = {"secrets": {**SECRETS, "ppk": "0x" + PPK.hex()}, "ppk_id": "ppk-1"}


def hybrid(*methods):
    """The name of a proposal with these additional key exchanges."""
    return "-".join([CCM, *(f"ke{n}_{NAMES[m]}" for n, m in enumerate(methods, 1))])


class Hybrid(stage.Gateway):
    """`methods` are the ADDKEs that it agrees to, `ppk` how it takes a PPK: "auth" or "int"."""

    def __init__(self, methods=(36,), ppk=None, fragments=0, **settings):
        super().__init__(**settings)
        self.methods = list(methods)
        self.ppk = ppk
        self.ppks = {PPK_ID: PPK}
        self.fragments = fragments  # in how many pieces it answers, 0: in one SK
        self.announces = [SUPPORTED, FRAGMENTATION]
        if ppk:
            self.announces.append({"auth": USE_PPK, "int": USE_PPK_INT}[ppk])
        self.int_auth_i = self.int_auth_r = b""
        self.auth_mid = 1
        self.seen = []  # payloads of each IKE_INTERMEDIATE request
        self.new_keys = None

    # IKE_SA_INIT

    def init(self, datagram, edit=None, **where):
        transforms = [(1, self.ike[1], 128), (2, 5, 0), (4, 31, 0)]
        transforms += [(6 + n, method, 0) for n, method in enumerate(self.methods)]

        def extended(payloads):
            made = [(SA, proposal(self.ike[0], 1, b"", transforms)), *payloads[1:]]
            made += [notify(kind) for kind in self.announces]
            return edit(made) if edit else made

        return super().init(datagram, extended, **where)

    # IKE_INTERMEDIATE

    def join(self, datagrams):
        """(exchange, flags, message id, first, plaintext) of a message in SK or in fragments."""
        parts = {}
        for datagram in datagrams:
            exchange, flags, mid, kind, first, place, text = self.open(datagram)
            number, total = struct.unpack(">HH", place) if kind == SKF else (1, 1)
            parts[number] = first, text
        assert sorted(parts) == list(range(1, total + 1)) and total == len(datagrams)
        plain = b"".join(text for _, (_, text) in sorted(parts.items()))
        return exchange, flags, mid, parts[1][0], plain

    def covered(self, flags, mid, first, plain, reserved=0, outer=()):
        """A | P of RFC 9242 §3.3.2, drawn as the figure there."""
        return protected(
            self.spi_i, self.spi_r, IKE_INTERMEDIATE, flags, mid, first, len(plain),
            lambda _: plain, outer=outer, reserved=reserved,
        )  # fmt: skip

    def read_intermediate(self, datagrams):
        """Take a request of the sensor's; [(type, body)] of it."""
        exchange, flags, mid, first, plain = self.join(datagrams)
        assert (exchange, flags, mid) == (IKE_INTERMEDIATE, I, self.auth_mid)
        covered = self.covered(flags, mid, first, plain)
        self.int_auth_i = primitives.prf(self.sk_pi, self.int_auth_i + covered)
        payloads = [(kind, body) for kind, _, body in split(first, plain)]
        self.seen.append(payloads)
        return payloads

    def good_answer(self, payloads):
        """The payloads of a right answer; `self.new_keys` are what follows it."""
        answer = []
        nonces = self.n_i + self.nonce
        sk_d, skeyseed = self.sk_d, None
        for kind, body in payloads:
            if kind == KE:
                method = int.from_bytes(body[:2], "big")
                assert method == self.methods[len(self.seen) - 1] and body[2:4] == bytes(2)
                ciphertext, shared = kem.encapsulate(method, body[4:])
                answer.append((KE, body[:4] + ciphertext))
                skeyseed = primitives.prf(sk_d, shared + nonces)
                sk_d = primitives.prf_plus(skeyseed, nonces + self.spi_i + self.spi_r, 32)
            elif kind == N and int.from_bytes(body[2:4], "big") == PPK_IDENTITY_KEY:
                ident, proof = body[4:-8], body[-8:]
                ppk = self.ppks.get(ident)
                spis = self.spi_i + self.spi_r
                if ppk and primitives.prf(ppk, nonces + spis)[:8] == proof:
                    answer.append(notify(PPK_IDENTITY, ident))
                    skeyseed = primitives.prf_plus(ppk, sk_d, 32)
        self.new_keys = skeyseed
        return answer

    def intermediate(self, datagrams, edit=None, **bends):
        """Take a request and answer it; new keys from then on. Returns the datagrams."""
        answer = self.good_answer(self.read_intermediate(datagrams))
        return self.answer(edit(answer) if edit else answer, **bends)

    def answer(self, payloads, mid=None, reserved=0, outer=(), chain=None):
        mid = self.auth_mid if mid is None else mid
        first, plain = chain or (payload_chain(payloads) if payloads else (0, b""))
        covered = self.covered(R, mid, first, plain, reserved, outer)
        self.int_auth_r = primitives.prf(self.sk_pr, self.int_auth_r + covered)
        where = {"exchange": IKE_INTERMEDIATE, "flags": R, "mid": mid, "reserved": reserved}
        if self.fragments:
            size = -(-len(plain) // self.fragments)
            made = [
                self.bend(
                    **{**where, "reserved": reserved if n == 0 else 0},
                    outer=outer if n == 0 else (),
                    kind=SKF,
                    chain=(first if n == 0 else 0, plain[n * size : (n + 1) * size]),
                    place=struct.pack(">HH", n + 1, self.fragments),
                )
                for n in range(self.fragments)
            ]
        else:
            made = [self.bend(**where, outer=outer, chain=(first, plain))]
        self.auth_mid += 1
        if self.new_keys:
            self._take_keys(self.new_keys, self.ike[1])
            self.new_keys = None
        return made

    # IKE_AUTH

    def int_auth(self):
        """What is signed besides; nothing where no IKE_INTERMEDIATE took place."""
        if not self.seen:
            return b""
        return self.int_auth_i + self.int_auth_r + struct.pack(">I", self.auth_mid)

    def read_auth(self, *datagrams):
        exchange, flags, mid, first, plain = self.join(datagrams)
        assert (exchange, flags, mid) == (IKE_AUTH, I, self.auth_mid)
        payloads = split(first, plain)
        self._take_auth(payloads)
        prf = primitives.prf
        ident = self.got[35]
        signed = self.request_octets + self.nonce

        def data(sk_pi):
            return prf(self.pad, signed + prf(sk_pi, ident) + self.int_auth())

        named = [body for kind, body in self.auth_notifies if kind == PPK_IDENTITY]
        plain_auth = [body for kind, body in self.auth_notifies if kind == NO_PPK_AUTH]
        self.mixed = bool(named) and named[0] in self.ppks and self.ppk == "auth"
        auth = self.got[39][4:]
        if self.mixed:
            for name in ("sk_d", "sk_pi", "sk_pr"):
                old = getattr(self, name)
                setattr(self, name, primitives.prf_plus(self.ppks[named[0]], old, 32))
        elif plain_auth:
            auth = plain_auth[0]
        self.authentic = auth == data(self.sk_pi) and self.got[39][:4] == b"\2\0\0\0"
        return payloads

    def auth_payloads(self):
        payloads = super().auth_payloads()
        prf = primitives.prf
        signed = self.response_octets + self.n_i + prf(self.sk_pr, payloads[0][1])
        payloads[1] = (39, b"\2\0\0\0" + prf(self.pad, signed + self.int_auth()))
        if self.mixed:
            payloads.append(notify(PPK_IDENTITY))
        return payloads

    def auth(self, *datagrams, edit=None):
        self.read_auth(*datagrams)
        assert self.authentic, "the sensor's AUTH does not verify"
        payloads = self.auth_payloads()
        self.child_keys()
        return self.send(IKE_AUTH, R, self.auth_mid, edit(payloads) if edit else payloads)


def sensor(seed=b"hybrid", secrets=None, **changes):
    """A sensor; `changes` are profile keys."""
    values = {"frag_ack": "off", **changes}
    return Node(profile(secrets or SECRETS, **values), Rand(seed))


def exchanging(gateway=None, **changes):
    """(sensor, gateway, the first message after IKE_SA_INIT)."""
    gateway = gateway or Hybrid()
    changes.setdefault("ike", [hybrid(*gateway.methods)])
    if gateway.ppk:
        changes = {**WITH_PPK, **changes}
    node = sensor(**changes)
    sent = node.receive(gateway.init(node.start()[0]))
    assert sent, (node.state, node.ike.drops)
    return node, gateway, sent


def keys_of(node):
    """SK_d, SK_pi and SK_pr with which the sensor goes on."""
    handshake = node.ike.handshake
    return handshake.sk_d, handshake.sk_pi, handshake.sk_pr


def give(node, datagrams, now=0):
    """Hand in datagrams; what the sensor sends."""
    sent = []
    for datagram in datagrams:
        sent += node.receive(datagram, now)
    return sent


def finish(node, gateway, sent):
    """IKE_AUTH, and readings both ways."""
    assert node.state == "IKE_AUTH", (node.state, node.ike.drops, node.events[-2:])
    assert node.receive(gateway.auth(*sent)) == []
    assert node.state == "UP", (node.ike.drops, node.events)
    _, _, inside = gateway.read_esp(node.send(b"21.5"))
    assert inside.endswith(b"21.5")


def run(gateway=None, **changes):
    """A whole handshake; (sensor, gateway) with the tunnel up."""
    node, gateway, sent = exchanging(gateway, **changes)
    while node.state == "IKE_INTERMEDIATE":
        sent = give(node, gateway.intermediate(sent))
    finish(node, gateway, sent)
    return node, gateway


def failure(node):
    """The event with which the attempt ended."""
    assert node.state == "DOWN"
    (event,) = node.all("failed")
    assert not node.all("up")
    return event
