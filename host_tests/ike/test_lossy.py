"""Exchanges over simulated bad links: the firmware's machine against an independent responder.

`make bench-loss` measures the same at length; here stands what must hold in each run.
"""

import itertools
import random
import statistics

import pytest

from tools.dev.sim import exchange, link
from tools.dev.sim.exchange import SIZE
from tools.dev.sim.pcap import Recorder

pytestmark = pytest.mark.long

item = pytest.mark.item
SEEDS = range(25)


def independent(rate):
    return lambda rng: link.independent(rng, rate)


def tail_drop(room):
    return lambda rng: link.tail_drop(room)


def runs(mode, fragments, loss=None, seeds=SEEDS, **options):
    return [exchange.run(mode, fragments, seed, loss, **options) for seed in seeds]


@item("AMB-14", "AMB-17", "ACK-15")
@pytest.mark.parametrize("mode", ["rfc7383", "conservative", "eager"])
@pytest.mark.parametrize("fragments", [3, 8, 20, 45])
@pytest.mark.parametrize(("rtt", "jitter"), [(100, 4), (100, 25), (20, 8), (1, 0), (600, 120)])
def test_without_loss_not_one_datagram_too_many(mode, fragments, rtt, jitter):
    for result in runs(mode, fragments, seeds=range(3), rtt=rtt, jitter=jitter):
        assert result.success and result.acks == 0
        assert result.datagrams == 2 * fragments


@item("FRG-15")
@pytest.mark.parametrize("gap_ms", [1, 2, 10])
def test_the_core_hands_out_datagrams_one_by_one_so_that_a_driver_can_pace_them(gap_ms):
    """Fragments, resends and reports alike; nothing is lost or doubled by the pauses."""
    left = []
    result = exchange.run(
        "eager", 20, 1, independent(0.2), gap_ms=gap_ms,
        tap=lambda side, now, datagram: left.append(now) if side == "initiator" else None,
    )  # fmt: skip
    assert result.success and len(left) > 20
    assert all(later - earlier >= gap_ms - 1e-6 for earlier, later in itertools.pairwise(left))


@pytest.mark.parametrize("gap_ms", [0, 2, 10, 40])
@pytest.mark.parametrize("mode", ["conservative", "eager"])
def test_without_loss_also_at_another_pace(mode, gap_ms):
    for result in runs(mode, 20, seeds=range(3), gap_ms=gap_ms):
        assert result.datagrams == 40 and result.acks == 0


@item("AMB-12", "AMB-13")
@pytest.mark.parametrize("room", [4, 8])
@pytest.mark.parametrize("fragments", [20, 45])
def test_where_a_queue_takes_4_or_8_of_a_burst_only_acknowledgment_completes(room, fragments):
    """A Pico W's UDP socket queues 4; RFC 7383 alone loses the same fragments each time."""
    for result in runs("rfc7383", fragments, tail_drop(room), seeds=range(3)):
        assert not result.success
    for result in runs("conservative", fragments, tail_drop(room), seeds=range(3)):
        assert result.success
    for result in runs("eager", fragments, tail_drop(room), seeds=range(3)):
        assert result.success
        best = exchange.limit(fragments, 0, tail_drop(room))
        assert result.ms < 2 * best.ms and result.datagrams < 1.25 * best.datagrams


@item("H1", "AMB-17")
@pytest.mark.parametrize("rtt", [10, 100, 300])
@pytest.mark.parametrize("gap", [40, 70, 100])
@pytest.mark.parametrize("policy", ["eager", "conservative"])
def test_a_gateway_that_paces_its_fragments_sends_each_once(policy, gap, rtt):
    result = exchange.run(policy, 14, 1, rtt=rtt, jitter=rtt / 10, peer_gap_ms=gap)
    assert result.success and (result.datagrams, result.acks) == (28, 0)
    for seed in SEEDS:
        bent = exchange.run(
            policy, 14, seed, rtt=rtt, jitter=rtt / 5, peer_gap_ms=gap, reorder=0.2, duplicate=0.2
        )
        assert bent.success and bent.datagrams <= 28 * 1.3


@item("H1")
@pytest.mark.parametrize("gap", [40, 70, 100])
def test_over_a_link_that_loses_its_pace_costs_time_and_few_datagrams(gap):
    for loss in (independent(0.1), lambda rng: link.gilbert_elliott(rng, 0.1, 200)):
        quick = runs("eager", 14, loss)
        paced = runs("eager", 14, loss, peer_gap_ms=gap)
        assert all(result.success for result in paced)
        sent, least = (statistics.mean(r.datagrams for r in some) for some in (paced, quick))
        assert sent < 1.25 * least


@item("ACK-13", "ACK-17", "AMB-05")
@pytest.mark.parametrize("fragments", [3, 8, 20, 45])
def test_eager_completes_at_30_percent(fragments):
    results = runs("eager", fragments, independent(0.3))
    limits = [exchange.limit(fragments, seed, independent(0.3)) for seed in SEEDS]
    assert all(result.success for result in results)
    sent = statistics.mean(result.datagrams for result in results)
    least = statistics.mean(result.datagrams for result in limits)
    assert sent < (1.25 if fragments >= 20 else 1.6) * least


@item("ACK-14")
def test_conservative_completes_at_30_percent():
    assert all(result.success for result in runs("conservative", 20, independent(0.3)))


@pytest.mark.parametrize("mode", ["conservative", "eager"])
@pytest.mark.parametrize("bad_ms", [4, 12, 40])
def test_bursts_of_loss(mode, bad_ms):
    results = runs(mode, 20, lambda rng: link.gilbert_elliott(rng, 0.2, bad_ms))
    assert all(result.success for result in results)


@pytest.mark.parametrize("text", [".x", ".xx", "..x", "xx.", "....xxxx", "x" * 12 + "." * 8])
def test_patterns_of_loss(text):
    """With every second and third datagram of three lost, RFC 7383 hardly ever ends."""
    for result in runs("eager", 20, lambda rng: link.pattern(text), seeds=range(3)):
        assert result.success


@item("FRG-17", "FRG-18", "FRG-25", "AMB-18")
@pytest.mark.parametrize("mode", ["rfc7383", "conservative", "eager"])
def test_duplicates_late_and_bent_datagrams(mode):
    """Octets are compared at the end of each run: what is joined is what was sent."""
    for loss in (None, independent(0.05)):
        results = runs(mode, 20, loss, duplicate=0.3, reorder=0.3, corrupt=0.05, jitter=40)
        assert all(result.success for result in results)


def test_bent_datagrams_are_counted_by_a_named_reason():
    named = {
        "BAD_ICV", "BAD_LENGTH", "BAD_VERSION", "UNKNOWN_SPI", "UNEXPECTED", "REFLECTED",
        "OLD_MESSAGE_ID", "BAD_PAYLOAD", "BAD_FRAGMENT", "REPLAYED_FRAGMENT", "NOT_PROTECTED",
        "REPLAYED_ACK", "LATE_ACK",
    }  # fmt: skip
    seen = set()
    for result in runs("eager", 8, corrupt=0.6, seeds=range(150)):
        seen |= set(result.drops["initiator"])
    assert "BAD_ICV" in seen and seen <= named


@item("FRG-21")
@pytest.mark.parametrize("mode", ["rfc7383", "conservative", "eager"])
@pytest.mark.parametrize("cut", [0, 1])
def test_one_way_links_end_at_the_time_to_give_up(mode, cut):
    made = []

    def loss(rng):
        made.append(rng)
        return link.everything if len(made) % 2 == 1 - cut else link.nothing

    for result in runs(mode, 8, loss, seeds=range(2)):
        assert not result.success and result.ms == exchange.GIVE_UP_MS
        # 8 fragments and 4 to 6 resends of at most 8, each answered by at most as many.
        assert result.datagrams <= 2 * 8 * 8


@item("AMB-12", "AMB-18")
@pytest.mark.parametrize("mode", ["conservative", "eager"])
def test_no_run_sends_more_than_the_stated_multiple(mode):
    """Per direction: the message, 8 times its fragments on request, 7 times by the timer."""
    for rate in (0.5, 0.7):
        for fragments in (3, 20):
            for result in runs(mode, fragments, independent(rate)):
                assert result.datagrams - result.acks <= 2 * fragments * (1 + 8 + 7)


def test_the_round_trip_unknown_costs_time_and_nothing_else():
    for mode in ("conservative", "eager"):
        results = runs(mode, 20, independent(0.3), known_rtt=0)
        assert all(result.success for result in results)


@pytest.mark.parametrize("known", [10, 30, 300])
def test_a_wrong_round_trip_costs_datagrams_or_time_and_nothing_else(known):
    results = runs("eager", 20, independent(0.2), known_rtt=known)
    assert all(result.success for result in results)
    assert statistics.mean(result.datagrams for result in results) < 3 * 2 * 20


def test_a_run_depends_on_its_seed_alone():
    first = runs("eager", 20, independent(0.3), seeds=range(4), duplicate=0.1, reorder=0.1)
    again = runs("eager", 20, independent(0.3), seeds=range(4), duplicate=0.1, reorder=0.1)
    assert first == again and len({result.ms for result in first}) == 4


def test_a_run_can_be_read_by_wireshark(tmp_path):
    from scapy.utils import rdpcap

    recorder = Recorder()
    exchange.run("eager", 3, 1, tap=recorder)
    recorder.write(tmp_path / "run.pcap")
    packets = rdpcap(str(tmp_path / "run.pcap"))
    assert len(packets) == 6
    assert float(packets[-1].time) > 0.05
    assert {len(packet) for packet in packets} <= set(range(100, SIZE + 1))


# The link itself.


def rate_of(lost, count=20000):
    return sum(lost(now) for now in range(count)) / count


def test_losses_lose_what_they_say():
    assert abs(rate_of(link.independent(random.Random(1), 0.3)) - 0.3) < 0.02
    assert abs(rate_of(link.gilbert_elliott(random.Random(1), 0.2, 5)) - 0.2) < 0.02
    assert rate_of(link.pattern("..x"), 9) == 1 / 3
    assert rate_of(link.nothing) == 0 and rate_of(link.everything) == 1
    assert rate_of(link.either(link.pattern("x."), link.pattern(".x"))) == 1
    drop = link.tail_drop(4)
    assert [drop(now) for now in (0, 2, 4, 6, 8, 10, 30, 31)] == [False] * 4 + [True] * 2 + [
        False
    ] * 2


def test_bursts_of_loss_last_as_long_as_asked_for_at_any_pace():
    for step in (0.1, 1.0):
        lost = link.gilbert_elliott(random.Random(3), 0.2, 20)
        times = [n * step for n in range(200000)]
        lasted = [
            step * len(list(group)) for bad, group in itertools.groupby(map(lost, times)) if bad
        ]
        assert abs(statistics.mean(lasted) - 20) < 3
