"""What holds in every schedule: IVs, the order of a resend, bounds on work and memory."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minipsec.ike.fragment import MAX_OCTETS

from tools.dev.peers.bench import (
    CREATE_CHILD_SA,
    INFORMATIONAL,
    INTERMEDIATE,
    REQ,
    RES,
    VENDOR,
    Bench,
    R,
    octets,
)
from tools.dev.sim import exchange, link

item = pytest.mark.item


def iv_of(datagram):
    at = 4 + (36 if datagram[20] == 53 else 32)
    return datagram[at : at + 8]


class Watch:
    """Every datagram of one side: an IV belongs to one octet string for ever."""

    def __init__(self):
        self.by_iv = {}

    def __call__(self, datagram):
        assert self.by_iv.setdefault(iv_of(datagram), datagram) == datagram


steps = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.integers(0, 1500)),
        st.tuples(st.just("respond"), st.integers(1, 30), st.randoms(use_true_random=False)),
        st.tuples(st.just("ask"), st.integers(1, 30), st.randoms(use_true_random=False)),
        st.tuples(
            st.just("ack"),
            st.sampled_from([REQ, RES]),
            st.integers(1, 15),
            st.integers(0, 9),
            st.sampled_from([0, R]),
        ),  # fmt: skip
        st.tuples(st.just("wait"), st.integers(0, 1500)),
        st.tuples(st.just("answer"), st.integers(0, 900)),
    ),
    max_size=40,
)


@item("ACK-16", "AMB-22", "FRG-12", "FRG-24")
@settings(max_examples=150, deadline=None)
@given(steps, st.sampled_from(["eager", "conservative"]), st.sampled_from([0, 3, 100, 900]))
def test_no_iv_is_used_twice_in_any_schedule(steps, policy, rtt):
    bench = Bench(frag_ack_policy=policy, rtt=rtt, fragment_size=200)
    watch = Watch()
    for step in steps:
        if bench.sa.tx is None:
            break
        sent = play(bench, step)
        for datagram in sent:
            watch(datagram)
        assert sum(queue.octets for queue in bench.sa.incoming.values()) <= MAX_OCTETS
        assert len(bench.sa._events) < 10
    ivs = sorted(int.from_bytes(iv, "big") for iv in watch.by_iv)
    assert ivs == list(range(1, len(ivs) + 1))


def play(bench, step):
    kind, *values = step
    sa = bench.sa
    if kind == "request":
        return bench.request(values[0]) if sa.request is None else []
    if kind in ("respond", "ask"):
        count, rng = values
        mid, flags = (sa.mid, R) if kind == "respond" else (sa.peer_mid, 0)
        where = {"mid": mid, "flags": flags, "exchange": INFORMATIONAL}
        fragments = bench.fragments([(VENDOR, octets(count))], count, **where)
        arrivals = rng.choices(fragments, k=rng.randrange(2 * count + 1))
        return bench.send(*arrivals, after=rng.randrange(30))
    if kind == "ack":
        which, low, more, flags = values
        mid = sa.mid if which == REQ else max(sa.peer_mid - 1, 0)
        return bench.send(bench.ack((low, low + more), kind=which, mid=mid, flags=flags))
    if kind == "answer":
        sa.answer = [(VENDOR, bytes(values[0]))]
        return []
    return bench.wait(values[0])


@item("ACK-16", "FRG-12")
@pytest.mark.parametrize("mode", ["rfc7383", "conservative", "eager"])
def test_no_iv_is_used_twice_in_either_direction_of_a_lossy_exchange(mode):
    for seed in range(25):
        watches = {"initiator": Watch(), "responder": Watch()}
        exchange.run(
            mode, random.Random(seed).choice((3, 8, 20, 45)), seed,
            lambda rng: link.independent(rng, 0.3),
            tap=lambda side, now, datagram: watches[side](datagram),
            duplicate=0.1, reorder=0.2, corrupt=0.05,
        )  # fmt: skip
        assert watches["initiator"].by_iv and (watches["responder"].by_iv or mode == "rfc7383")


@item("ACK-10", "ACK-17")
@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(1, 20), max_size=8), max_size=6), st.integers(0, 150))
def test_each_burst_ascends_and_holds_only_what_was_asked_for(lists, pause):
    bench = Bench(frag_ack_policy="conservative", retransmit_ms=60000, rtt=0)
    total = len(bench.request(107 * 20 - 4))
    assert total == 20
    asked = set()
    sent = []
    for numbers in lists:
        asked |= numbers
        burst = bench.send(bench.ack(*((n, n) for n in sorted(numbers)))) or bench.wait(pause)
        numbers = bench.numbers(burst)
        assert numbers == sorted(set(numbers))
        sent += numbers
    sent += bench.numbers(bench.wait(60))
    assert set(sent) == asked


@item("ACK-09")
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([REQ, RES]), st.binary(max_size=16),
            st.sampled_from([INFORMATIONAL, CREATE_CHILD_SA, INTERMEDIATE]),
            st.integers(0, 3), st.sampled_from([0, R]), st.binary(max_size=2),
        ),
        max_size=20,
    )
)  # fmt: skip
def test_no_acknowledgment_whatever_it_says_moves_an_exchange(acks):
    bench = Bench(retransmit_ms=60000)
    bench.sa.answer = [(VENDOR, octets(40))]
    bench.send(bench.message([], flags=0))
    first = bench.request(900)
    sa = bench.sa
    r = sa.request
    before = sa.state, sa.mid, sa.peer_mid, r.exchange, r.deadline, r.tries
    answers = set(sa.answered.datagrams)
    for kind, data, where, mid, flags, spi in acks:
        ack = bench.ack(kind=kind, data=data, exchange=where, mid=mid, flags=flags, spi=spi)
        assert set(bench.send(ack)) <= set(first) | answers
    assert (sa.state, sa.mid, sa.peer_mid, r.exchange, r.deadline, r.tries) == before
    assert sa.request is r
    assert not sa.responses and len(sa.requests) == 1
    bench.send(bench.message([(VENDOR, b"done")]))
    assert sa.responses == [[(VENDOR, b"done")]]
