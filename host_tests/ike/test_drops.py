"""Every reason for a drop, in the states in which it can be: it is counted and changes nothing.

What "nothing" is says `unchanged`, whose look around each datagram is there in all tests of the
core; here is one datagram at least for each reason that the code knows.
"""

import ast
import struct

import pytest
from minipsec.esp import inner

from tools.dev.peers.stage import (
    IN_STATE,
    UNDER_KEYS,
    UNKNOWN,
    WITH_PPK,
    assert_dropped,
    behind,
    between,
    checking,
    halfway,
    replaced,
    spoilt,
    started,
    up,
    waiting,
    without,
)
from host_tests.unchanged import watch
from tools.dev.peers.responder import (
    COOKIE,
    FRAGMENTATION,
    IKE_AUTH,
    INFORMATIONAL,
    KE,
    MARKER,
    NONCE,
    SA,
    SERVER,
    N,
    R,
    message,
    notify,
)
from tools.dev.peers.bench import RES, Bench, octets

PACKAGE = "firmware/minipsec"
FOLDERS = ("esp", "handshake", "ike")
# Raised and caught where an authenticated answer is read: it ends the SA, see handshake/test_auth.py.
REFUSALS = {"BAD_TS", "BAD_CP"}
# What a sender says of a reading, see esp/test_sequence.py.
OUTBOUND = {"SPENT", "TOO_EARLY"}


def reasons(root):
    """Every reason in the core's code: what a Drop is made of."""
    found = set()
    for path in [path for name in FOLDERS for path in (root / PACKAGE / name).glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            value = None
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Drop" and node.args:
                value = node.args[0]
            elif isinstance(node, ast.Return):
                value = node.value
            text = getattr(value, "value", None)
            if isinstance(text, str) and text.isupper():
                found.add(text)
    return found


def headers():
    for state in IN_STATE:
        node, gateway = IN_STATE[state]()
        spi_i, spi_r = node.ike.spi_i, node.ike.spi_r
        mark = MARKER if node.ike.floated else b""
        good = mark + message(spi_i, spi_r, INFORMATIONAL, R, 7, [])
        at = len(mark)
        for datagram in (
            good[:-1],
            good + b"x",
            good + bytes(3000),
            mark,
            mark + b"\0" * 27,
            MARKER + message(b"stranger", spi_r, INFORMATIONAL, R, 7, []),
            good[: at + 17] + b"\x30" + good[at + 18 :],
            mark + message(spi_i, spi_r, INFORMATIONAL, R | 8, 7, []),
            mark + message(spi_i, spi_r, 99, R, 0, []),
            mark + message(spi_i, spi_r, 34, 0, 0, []),
        ):
            if len(datagram) > 8:
                assert_dropped(node, datagram)
            else:
                node.ike.receive(datagram, 0)


def answers_to_init():
    bad_sa = replaced(SA, lambda body: body[:-1])
    low = replaced(KE, lambda body: body[:4] + bytes(len(body) - 4))
    another = replaced(KE, lambda body: b"\0\x13" + body[2:])
    for secrets in ({}, {**WITH_PPK, "ppk_required": True}):
        node, gateway = started(**secrets)
        request = node.out[-1]
        ppk = [notify(16435)] if secrets else []
        for edit in (
            bad_sa,
            low,
            another,
            without(NONCE),
            without(SA),
            without(KE),
            behind((UNKNOWN, b"", True)),
            behind((SA, b"")),
            behind((N, b"\0")),
        ):
            answer = gateway.init(request, lambda payloads, edit=edit: edit(payloads) + ppk)
            assert_dropped(node, answer)
        for refusal in ((17, b"\0\x0e"), (COOKIE, b""), (COOKIE, bytes(65)), (17, b"\0\x1f")):
            assert_dropped(node, gateway.refuse_init(request, notify(*refusal)))
        gateway.ike = (1, 16)
        assert_dropped(node, b"".join((gateway.init(request)[:20], b"\0\0\0\1", b"rest")))
        mid = bytearray(gateway.init(request))
        mid[23] = 1
        assert_dropped(node, bytes(mid))
        # An error is told of, and that is all.
        node.receive(gateway.refuse_init(request, notify(14)))
        if secrets:
            node.receive(gateway.init(request))
            assert "NO_PPK" in node.ike.drops and node.state == "IKE_SA_INIT"
        node.receive(gateway.refuse_init(request, notify(COOKIE, b"cookie")))
        node.receive(gateway.refuse_init(request, notify(COOKIE, b"cookie")))
        if not secrets:
            node, gateway = started(
                ike=["aes128ccm16-prfsha256-x25519", "aes128ccm16-prfsha256-ecp256"]
            )
            for n in range(6):
                group = (b"\0\x13", b"\0\x1f")[n & 1]
                node.receive(gateway.refuse_init(node.out[0], notify(17, group)))


def protected():
    for state in UNDER_KEYS:
        node, gateway = IN_STATE[state]()
        good = gateway.bend()
        mid = gateway.mid - 1
        for datagram in (
            spoilt(good),
            gateway.bend(mid=mid + 5),
            gateway.bend(mid=mid, spi_r=b"another8"),
            gateway.bend(mid=mid, kind=53, place=b"\0\1\0\2"),
            MARKER + message(gateway.spi_i, gateway.spi_r, INFORMATIONAL, 0, mid, []),
            MARKER + message(gateway.spi_i, gateway.spi_r, INFORMATIONAL, 0, mid, [(N, b"")]),
        ):
            assert_dropped(node, datagram)
    for make, exchange, mid in ((halfway, IKE_AUTH, 1), (between, 43, 1), (checking, 37, 2)):
        node, gateway = make()
        for chain in ((N, b"\0\0\0\3"), (46, b"\0\0\0\4"), (N, b"\0\0\0\4x")):
            assert_dropped(node, gateway.bend(exchange, R, mid, chain=chain))
        if make is not checking:
            for payloads in ([(UNKNOWN, b"", True)], [(SA, b""), (SA, b"")], [(N, b"")]):
                assert_dropped(node, gateway.bend(exchange, R, mid, payloads))
    # Replays of an answered request while answers wait to be sent.
    node, gateway = up()
    request = gateway.request(INFORMATIONAL, [])
    for _ in range(40):
        node.ike.receive(request, 0)
    assert node.ike.drops["ANSWERS_WAIT"] > 0
    assert len(node._pump(0)) <= 18
    for _ in range(40):
        node.ike.receive(gateway.request(INFORMATIONAL, []), 0)
    assert len(node._pump(0)) <= 18


def fragments():
    for response in (False, True):
        flags = R if response else 0
        bench = Bench(rtt=0)
        if response:
            bench.request(500)
        made = bench.fragments([(43, octets(4))], 4, flags=flags, mid=bench.sa.mid)
        bench.send(made[0], made[1])
        where = {"flags": flags, "mid": bench.sa.mid}
        for datagram in (
            made[1],
            bench.fragment(0, 4, b"x", **where),
            bench.fragment(5, 4, b"x", **where),
            bench.fragment(3, 65, b"x", **where),
            bench.fragment(3, 3, b"x", **where),
            bench.fragment(3, 4, b"", **where),
            bench.fragment(3, 4, b"x", clear=[(43, b"clear")], **where),
            bench.seal(53, INFORMATIONAL, flags, bench.sa.mid, 0, b"", b""),
            made[3][:-1] + bytes((made[3][-1] ^ 1,)),
        ):
            before = len(bench.drops), sum(bench.drops.values())
            bench.send(datagram)
            assert sum(bench.drops.values()) == before[1] + 1
    # One that is whole and no chain of payloads, in fragments again and again.
    bench = Bench()
    bench.request()
    for _ in range(200):
        for n in (1, 2, 3):
            bench.send(bench.fragment(n, 3, bytes(90), 41 if n == 1 else 0, mid=bench.sa.mid))
    assert bench.drops == {"BAD_PAYLOAD": 200} and not bench.sa.incoming
    bench.send(bench.message([], mid=bench.sa.mid))
    assert bench.sa.responses == [[]]
    # Beyond our bounds, in a request.
    bench = Bench()
    for n in range(1, 12):
        bench.send(bench.fragment(n, 64, bytes(1400), flags=0))
    assert "TOO_LARGE" in bench.drops


def acknowledgments():
    for answer in (False, True):
        bench = Bench()
        mid = 0
        if answer:
            bench.sa.answer = [(43, octets(5))]
            bench.send(bench.message([], flags=0))
            where = {"flags": 0x20, "mid": mid, "kind": RES}
        else:
            bench.request(900)
            where = {"flags": 0, "mid": mid}
        good = bench.ack((2, 2), **where)
        bench.send(good)
        for datagram in (
            good,
            bench.ack((3, 2), **where),
            bench.ack((0, 2), **where),
            bench.ack((1, 200), **where),
            bench.ack(data=b"xyz", **where),
            bench.ack((2, 2), spi=b"spi!", **where),
            bench.ack((2, 2), exchange=35, **where),
        ):
            before = sum(bench.drops.values())
            bench.send(datagram)
            assert sum(bench.drops.values()) == before + 1, bench.drops
    bench = Bench(acks=False)
    bench.request()
    bench.send(bench.ack((1, 1), mid=bench.sa.mid, flags=R))
    assert bench.drops == {"UNEXPECTED_ACK": 1}


def inside_esp():
    node, gateway = up()
    us, server = node.child["inner"], SERVER
    head = inner.header(server, us, 5000, 5000)

    def packet(payload=b"reading", head=head):
        made = bytearray(len(head) + len(payload))
        inner.complete(made, 0, head, payload)
        return bytes(made)

    good = packet()
    six = b"\x60" + good[1:]
    for made, kind in (
        (good[:19], 4),
        (b"\x4f" + good[1:20], 4),
        (good[:10] + b"xx" + good[12:], 4),
        (good[:-1] + b"x", 4),
        (packet(head=inner.header(us, us, 5000, 5000)), 4),
        (packet(head=inner.header(server, server, 5000, 5000)), 4),
        (packet(head=inner.header(server, us, 5001, 5000)), 4),
        (six, 4),
        (good, 41),
        (good, 59),  # a dummy packet
        (summed(good, 6, b"\x20\0"), 4),
        (summed(good, 9, b"\1"), 4),
    ):
        before = sum(node.drops.values())
        node.receive(gateway.esp(made, kind))
        assert sum(node.drops.values()) == before + 1 and node.got == []
    fine = gateway.esp(good)
    text = bytearray(gateway.esp(good))
    for datagram in (fine[:12], fine[:-1], b"spi?" + fine[4:], spoilt(fine), bytes(text[:8])):
        node.receive(datagram)
    gateway.sn += 1
    iv = struct.pack(">Q", gateway.sn)
    front = gateway.spi_sensor + struct.pack(">I", gateway.sn)
    node.receive(
        front + iv + gateway._esp_out.seal(iv, good[:-2] + b"x\1\1\4" + b"\0\0\0\4", front)
    )
    node.receive(front + iv + gateway._esp_out.seal(iv, b"xxxxx\7\7\4", front))
    node.receive(fine)
    assert node.got == [b"reading"]
    node.receive(fine)
    assert node.got == [b"reading"] and node.drops["REPLAY"] == 1


def summed(packet, at, octets):
    """The same with other octets in its IPv4 header, whose checksum fits again."""
    made = bytearray(packet[:at] + octets + packet[at + len(octets) :])
    made[10:12] = bytes(2)
    total = sum(struct.unpack(">10H", made[:20]))
    made[10:12] = struct.pack(">H", 0xFFFF - total % 0xFFFF)
    return bytes(made)


@pytest.mark.item("B6")
def test_each_reason_for_a_drop_is_met_and_changes_nothing(root, monkeypatch):
    met = set()
    watch(monkeypatch, lambda reason, state: met.add(reason))
    for scenario in (
        headers, answers_to_init, protected, fragments, acknowledgments, inside_esp,
    ):  # fmt: skip
        scenario()
    assert reasons(root) - REFUSALS - OUTBOUND - met == set()
    assert len(met) > 30


@pytest.mark.item("B6")
def test_a_change_that_a_drop_leaves_is_noticed(monkeypatch):
    """What the look before and after is worth: an attribute that stays behind fails."""
    from minipsec.ike import wire
    from minipsec.ike.sa import IkeSa

    real = IkeSa._receive

    def leaves(sa, datagram, now):
        sa.left = len(datagram)
        real(sa, datagram, now)

    monkeypatch.setattr(IkeSa, "_receive", leaves)
    watch(monkeypatch, lambda reason, state: None)
    node, _ = waiting()
    with pytest.raises(AssertionError, match="left"):
        node.ike.receive(b"short", 0)
    assert wire.Drop


@pytest.mark.item("B6")
def test_fragments_agreed_on_in_ike_sa_init_only(monkeypatch):
    node, gateway = halfway()
    assert_dropped(node, gateway.bend(IKE_AUTH, R, 1, kind=53, place=b"\0\1\0\1"))
    assert node.ike.drops == {"UNEXPECTED_FRAGMENT": 1} and FRAGMENTATION
