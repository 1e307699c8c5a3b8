"""Each single datagram of a session, times each fault: up, or a typed error, in time.

`pytest host_tests/hardening/test_matrix.py -s` prints how the runs ended.
"""

import pytest

from tools.dev.peers.node import remember_exchanges
from host_tests.hardening.session import FAULTS, GATEWAY, SENSOR, VARIANTS, Session, gave_up_ms
from minipsec import refusals, explain

pytestmark = pytest.mark.long

IKE_SA_INIT = 34
SENT = [b"reading 0", b"reading 1", b"reading 2"]


@pytest.fixture(scope="module", autouse=True)
def quick_exchanges():
    restore = remember_exchanges()
    yield
    restore()


def session(name, at=None, fault=None):
    deleter = GATEWAY if name == "deleted-by-the-gateway" else SENSOR
    return Session(*VARIANTS[name], at, FAULTS.get(fault), deleter).run()


def exchange(datagram):
    """The exchange type of an IKE message, 0 for ESP."""
    if datagram[:4] == bytes(4):
        return datagram[22]
    return datagram[18] if datagram[16:18] in (b"\x21\x20", b"\x29\x20") else 0


def ended(run):
    """The event with which the SA ended."""
    return [e for e in run.node.events if e[0] in ("failed", "deleted", "ended")]


def judge(run, at, fault):
    """Assert what must hold after any one fault; return a word for how it ended."""
    node, p = run.node, run.profile
    side, _, suffered = run.sent[at]
    kind = exchange(suffered)
    assert node.state == "DOWN"
    (end,) = ended(run)
    assert node.ike.next_timer() is None
    exchanges = 2 + bool(p["ppk_id"])
    if not run.up:
        # Nobody protects IKE_SA_INIT; who bends its octets can end the attempt, and no more.
        assert fault.startswith("corrupt") and kind == IKE_SA_INIT, (end, node.ike.drops)
        error = explain.failure(end)
        assert isinstance(error, refusals.MinipsecError) and error.check
        assert run.times["DOWN"] <= exchanges * gave_up_ms(p)
        assert not run.readings and not node.got
        return type(error).__name__
    assert run.times["UP"] <= (exchanges - 1) * gave_up_ms(p) + 1000
    # What was lost is lost, nothing came twice, and nothing that was not sent.
    for got, direction in ((run.readings, SENSOR), (node.got, GATEWAY)):
        assert len(set(got)) == len(got) and set(got) <= set(SENT)
        missing = len(SENT) - len(got)
        if missing:
            assert missing == 1 and kind == 0 and fault not in ("duplicate", "repeat", "reflect")
            assert side == direction or (direction == GATEWAY and side == SENSOR)
    if end[0] == "failed":
        # The gateway's DELETE came and its answer was lost: it asks again, and finds nobody.
        raise AssertionError(end)
    assert run.times["DOWN"] <= run.times["UP"] + 40000 + gave_up_ms(p)
    return end[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_without_a_fault_everything_arrives(name):
    run = session(name)
    assert run.readings == run.node.got == SENT
    assert not run.node.all("failed") and not run.node.ike.drops
    kinds = {exchange(datagram) for _, _, datagram in run.sent}
    assert {34, 35, 37, 0} <= kinds and (43 in kinds) == ("ppk_id" in VARIANTS[name][0])


# One bent octet is much like another: all of them for two sessions, two for the others.
THOROUGH = ("plain", "intermediate-fragments")
BENT = ("corrupt-6", "corrupt-last")
PAIRS = [
    (name, fault)
    for name in VARIANTS
    for fault in FAULTS
    if name in THOROUGH or fault in BENT or not fault.startswith("corrupt")
]


@pytest.mark.parametrize(("name", "fault"), PAIRS)
def test_one_fault_ends_in_a_tunnel_or_in_a_typed_error_in_time(name, fault):
    ends = {}
    for at in range(len(session(name).sent)):
        run = session(name, at, fault)
        try:
            word = judge(run, at, fault)
        except AssertionError as e:
            side, ms, datagram = run.sent[at]
            raise AssertionError(
                f"datagram {at}, {len(datagram)} octets, {side}, {ms} ms: "
                f"{run.node.state} {ended(run)} {run.times} {run.node.ike.drops}"
            ) from e
        ends[word] = ends.get(word, 0) + 1
    print(name, fault, ends)
    assert ends
