"""What strangers and broken peers send: dropped, counted by name, at a bounded cost."""

import random
import struct

import pytest
from minipsec.ike.fragment import MAX_OCTETS

from tools.dev.peers.bench import (
    INFORMATIONAL,
    REQ,
    RES,
    VENDOR,
    Bench,
    N,
    R,
    octets,
)
from host_tests.ike.test_fragments import ccm_pair, count_opens

item = pytest.mark.item


@item("FRG-18", "FRG-24", "AMB-18")
@pytest.mark.parametrize("flags", [R, 0])
def test_a_flood_of_fragments_with_a_bad_icv_leaves_no_trace(flags):
    bench = Bench(ciphers=ccm_pair())
    bench.request(500)
    for n in range(2000):
        forged = bench.fragment(1 + n % 64, 64, bytes(100), flags=flags)
        forged = forged[:-1] + bytes((forged[-1] ^ 1,))
        assert bench.send(forged) == []
    assert bench.drops == {"BAD_ICV": 2000}
    assert not bench.sa.incoming and bench.sa.next_timer() == bench.sa.request.due
    assert bench.sa.flights == {} and bench.sa.out == []


@item("FRG-16", "FRG-24")
def test_a_flood_of_impossible_numbers_is_not_even_decrypted():
    bench = Bench()
    bench.request()
    opened = count_opens(bench)
    rng = random.Random(1)
    for _ in range(500):
        number, total = rng.randrange(65536), rng.choice((0, 65, 1000, 65535))
        bench.send(bench.fragment(number, total, b"x"))
    assert opened == [] and bench.drops == {"BAD_FRAGMENT": 500}


@item("FRG-19", "FRG-24")
def test_totals_that_shrink_and_explode_keep_one_bounded_queue():
    """Even a peer with the keys gets no more memory than one message may have."""
    bench = Bench()
    bench.request()
    rng = random.Random(2)
    for _ in range(400):
        total = rng.randrange(1, 70)
        fragment = bench.fragment(rng.randrange(1, 70), total, bytes(rng.randrange(1, 400)))
        bench.send(fragment)
        assert len(bench.sa.incoming) <= 1
        assert sum(queue.octets for queue in bench.sa.incoming.values()) <= MAX_OCTETS
        if bench.sa.tx is None:
            break
    assert set(bench.drops) <= {
        "BAD_FRAGMENT", "REPLAYED_FRAGMENT", "TOO_LARGE", "BAD_PAYLOAD", "OLD_MESSAGE_ID",
    }  # fmt: skip


@item("AMB-18", "ACK-09", "AMB-15")
def test_a_flood_of_acknowledgments_for_all_sorts_of_exchanges():
    bench = Bench(retransmit_ms=60000)
    first = bench.request(900)
    total = len(first)
    rng = random.Random(3)
    sent = []
    for _ in range(3000):
        ack = bench.ack(
            *((rng.randrange(12), rng.randrange(12)) for _ in range(rng.randrange(3))),
            kind=rng.choice((REQ, RES)), mid=rng.choice((0, 1, 2, 5000)),
            flags=rng.choice((0, R)), exchange=rng.choice((INFORMATIONAL, 35, 43)),
        )  # fmt: skip
        bench.now += 3
        sent += bench.send(ack)
        bench.sa.request.due = bench.sa.request.deadline
    assert set(sent) <= set(first) and len(sent) <= 8 * total
    assert set(bench.drops) <= {"BAD_ACK", "LATE_ACK", "REPLAYED_ACK", "OLD_MESSAGE_ID"}
    bench.send(bench.message([(VENDOR, b"done")]))
    assert bench.sa.responses == [[(VENDOR, b"done")]]


@item("ACK-09", "AMB-18")
def test_an_acknowledgment_in_the_clear_is_not_looked_at():
    bench = Bench()
    bench.request(900)
    body = struct.pack(">BBHHH", 0, 0, REQ, 2, 9)
    for flags in (R, 0):
        chain = struct.pack(">BBH", 0, 0, 4 + len(body)) + body
        head = struct.pack(">BBBBII", N, 0x20, INFORMATIONAL, flags, 0, 28 + len(chain))
        assert bench.send(bytes(4) + bench.spis + head + chain) == []
    assert bench.drops == {"NOT_PROTECTED": 2}
    # Nor beside SK, where what stands in front of it is authenticated, but not its place.
    first, plain = 0, b""
    clear = bench.seal(46, INFORMATIONAL, R, 0, first, plain, clear=[(N, body)])
    assert bench.send(clear) == [] and bench.sa.responses == [[]]


@item("FRG-16", "FRG-18", "FRG-24", "AMB-02", "AMB-18")
@pytest.mark.parametrize("acks", [True, False])
def test_any_octet_bent_anywhere_is_dropped_by_a_named_reason(acks):
    """Of a fragment, a whole message and an acknowledgment, with real ciphers."""
    bench = Bench(acks=acks, ciphers=ccm_pair(), retransmit_ms=60000)
    bench.request(500)
    genuine = [
        bench.fragments([(VENDOR, octets(3))], 3)[1],
        bench.fragments([(VENDOR, octets(3))], 3, flags=0)[1],
        bench.message([(VENDOR, b"whole")]),
        bench.ack((2, 3)),
    ]
    for datagram in genuine:
        for at in range(4, len(datagram)):
            for bit in (1, 0x80):
                bent = bytearray(datagram)
                bent[at] ^= bit
                assert bench.send(bytes(bent)) == []
        for size in range(len(datagram)):
            assert bench.send(datagram[:size]) == []
    assert not bench.sa.responses and not bench.sa.requests and not bench.sa.incoming
    assert "BAD_ICV" in bench.drops and all(
        name.isupper() and count for name, count in bench.drops.items()
    )


@item("FRG-24", "AMB-18")
def test_noise_changes_nothing():
    rng = random.Random(5)
    bench = Bench(ciphers=ccm_pair())
    bench.request(500)
    before = bench.sa.next_timer()
    for _ in range(3000):
        noise = rng.randbytes(rng.randrange(0, 120))
        if rng.random() < 0.8:
            size = max(28, len(noise) + 28)
            head = struct.pack(
                ">BBBBII", rng.choice((46, 53)), 0x20, rng.choice((35, 37, 43)),
                rng.choice((0, R)), rng.randrange(2), size,
            )  # fmt: skip
            noise = bytes(4) + bench.spis + head + noise
        assert bench.send(noise) == []
    assert bench.sa.next_timer() == before and not bench.sa.incoming
