"""At least 100,000 bent copies of real datagrams: dropped, counted, nothing else.

The unix port is fed every eighth of them.
"""

import sys

from host_tests.checklist import item, long
from tools.dev.peers.node import remember_exchanges
from host_tests.recorded.bent import Bender
from tools.dev.peers.replay import Replay, load, names

SHARE = 8 if sys.implementation.name == "micropython" else 1
SPLICES = 64 // SHARE

# Answers to IKE_SA_INIT are much alike, and a mutant that leads somewhere costs a new handshake:
# some are bent at every bit, the others at every third; that with P-256 in it is slow.
INIT_SHARES = {
    "charon-cookie": 1,
    "charon-virtual": 1,
    "devgateway-plain": 1,
    "charon-invalid-ke": 20,
}

# What the bent datagrams must have met; a reason that is gone means a check that is gone.
REASONS = (
    "BAD_FRAGMENT",
    "BAD_ICV",
    "BAD_INIT",
    "BAD_KE",
    "BAD_LENGTH",
    "BAD_PAYLOAD",
    "BAD_SA",
    "BAD_VERSION",
    "NOT_PROTECTED",
    "OLD_MESSAGE_ID",
    "REFLECTED",
    "REPLAY",
    "REPLAYED_FRAGMENT",
    "UNEXPECTED",
    "UNEXPECTED_ESP",
    "UNEXPECTED_FRAGMENT",
    "UNKNOWN_SPI",
)


def incoming(name):
    replay = Replay(load(name))
    return [replay.datagram(index) for index in replay.inputs]


@long
@item("MIN-03", "MIN-08", "MIN-16")
def test_bent_datagrams_are_dropped_and_counted_and_the_genuine_one_still_counts():
    restore = remember_exchanges()
    others = incoming("charon-terminate")
    fed = moved = 0
    reasons = set()
    try:
        for name in names():
            strangers = [d for d in others if name != "charon-terminate"]
            bender = Bender(load(name), strangers)
            bender.run(SHARE, SHARE * INIT_SHARES.get(name, 3), SPLICES)
            fed += bender.fed
            moved += bender.moved
            reasons |= set(bender.reasons)
    finally:
        restore()
    print(fed, "fed,", moved, "of them well-formed and unauthenticated")
    assert fed >= 100_000 // SHARE
    assert moved < fed // 4
    missing = [reason for reason in REASONS if reason not in reasons]
    assert not missing or SHARE > 1, missing


@long
def test_readings_in_any_order_arrive_once():
    replay = Replay(load("charon-virtual"))
    esp = [i for i in replay.inputs if replay.datagram(i)[:4] != bytes(4) and i > replay.inputs[1]]
    assert len(esp) == 10
    replay.to(esp[0])
    for order in (reversed(esp), esp):
        for index in order:
            replay.node.receive(replay.datagram(index), 0)
    assert len(replay.node.got) == 10
    assert replay.node.drops == {"REPLAY": 10}


@long
def test_fragments_in_any_order_make_the_same_message():
    for turn in range(4):
        replay = Replay(load("charon-fragments"))
        parts = [i for i in replay.inputs if replay.datagram(i)[:4] == bytes(4)][:4]
        replay.to(parts[0])
        for index in parts[turn:][::-1] + parts[:turn]:
            assert replay.node.state == "IKE_AUTH"
            replay.node.receive(replay.datagram(index), 0)
        assert replay.node.state == "UP", turn
        assert not replay.node.ike.drops


@long
def test_an_answer_that_overtakes_its_question_is_dropped():
    for name in ("charon-virtual", "devgateway-plain"):
        replay = Replay(load(name))
        init, authentication = replay.inputs[:2]
        last = replay.inputs[-1]
        replay.to(init)
        for index in (authentication, last):
            replay.node.receive(replay.datagram(index), 0)
            assert replay.node.state == "IKE_SA_INIT"
        replay.to(authentication)
        replay.node.receive(replay.datagram(last), 0)
        assert replay.node.state == "IKE_AUTH"
        assert sum(replay.node.ike.drops.values()) == 3
        replay.to_end()
        assert replay.node.state == "DOWN"
