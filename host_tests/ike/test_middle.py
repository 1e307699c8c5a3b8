"""A man in the middle who records: what he sends again, elsewhere or in another order is of no use.

He sees and delivers every datagram of both ends, but has no keys.
"""

import pytest

from tools.dev.peers.third_party import GATEWAY, SENSOR, STRANGER, Chaos, Link
from tools.dev.peers.stage import drops, picture
from host_tests.checklist import item
from minipsec.ike import established

# name: (profile, settings of the gateway)
SESSIONS = {
    "plain": ({}, {}),
    "cookie": ({}, {"cookie": True}),
    "another group": (
        {"ike": ["aes128ccm16-prfsha256-x25519-ecp256"]},
        {"ike": ("aes128ccm16-prfsha256-ecp256",)},
    ),
    "fragments": ({"fragment_size": 200, "frag_ack": "off"}, {"fragment_size": 200}),
    "acknowledged fragments": ({"fragment_size": 200}, {"fragment_size": 200}),
    "IKE_INTERMEDIATE": ({"ppk_id": "ppk-1", "frag_ack": "off"}, {}),
    # A name so long that IKE_INTERMEDIATE goes in fragments, too.
    "acknowledged fragments of IKE_INTERMEDIATE": (
        {"ppk_id": "p" * 255, "fragment_size": 160},
        {"fragment_size": 160},
    ),
    "CBC": (
        {"ike": ["aes128-sha256-prfsha256-x25519"]},
        {"ike": ("aes128-sha256-prfsha256-x25519",)},
    ),
    "extended sequence numbers": ({"esp": ["aes128ccm8-esn"]}, {"esp": ("aes128ccm8-esn",)}),
}


def steps():
    """A tunnel's life, step by step: what to do, and what must be true when all is delivered."""

    def reading(n):
        def act(link):
            link.now += 100
            link.send(b"reading %d" % n)

        return act, lambda link: len(link.node.got) == n == len(link.readings)

    yield Link.start, lambda link: link.node.state == "UP"
    yield reading(1)
    yield lambda link: link.ask("liveness"), lambda link: link.node.state == "UP"
    yield reading(2)
    yield lambda link: link.call(established.check), lambda link: link.node.all("answered")
    yield lambda link: link.ask("liveness"), lambda link: link.node.state == "UP"
    yield reading(3)
    yield lambda link: link.call(established.delete), lambda link: link.node.state == "DOWN"


def replay(link, to, source=None):
    """Deliver everything that was ever sent to one end; nothing may come of it.

    The sensor sends at most what it answered before, to the octet.
    """
    node = link.node
    for sender, datagram in link.recorded[:]:
        before, counted, events = picture(node.ike), drops(node), len(node.events)
        got, readings, sas = len(node.got), len(link.readings), len(link.gateway.sas)
        known = {octets for _, octets in link.recorded}
        came = link.give(to, datagram, source)
        if to == SENSOR:
            if came:
                assert {octets for _, octets in came} <= known and sender == GATEWAY
            else:
                assert drops(node) == counted + 1, datagram.hex()
            assert picture(node.ike) == before
            assert len(node.events) == events
        assert len(node.got) == got and len(link.readings) == readings
        assert len(link.gateway.sas) == sas
    link.settle()


@item("MIN-03", "MIN-14", "MIN-15", "MIN-16")
@pytest.mark.parametrize("name", SESSIONS)
def test_what_is_replayed_or_reflected_at_any_time_changes_nothing(name):
    link = Link(*SESSIONS[name])
    for act, done in steps():
        act(link)
        link.settle()
        while link.waiting or (not done(link) and link.pass_time()):
            link.settle()
        assert done(link)
        state = link.node.state
        for to in (SENSOR, GATEWAY):
            for source in (None, STRANGER):
                replay(link, to, source)
        assert link.node.state == state and done(link)
    assert link.node.got == [b"reading 1", b"reading 2", b"reading 3"] == link.readings
    assert link.node.all("failed") == []


@item("MIN-16")
@pytest.mark.parametrize("name", SESSIONS)
def test_replays_within_the_handshake_do_not_keep_it_from_its_end(name):
    """After every single datagram all that was seen so far comes again, to both ends."""
    link = Link(*SESSIONS[name])
    link.start()
    seen = 0
    while link.node.state != "UP":
        if link.waiting:
            link.deliver()
        else:
            assert link.pass_time()
        if len(link.recorded) == seen:
            continue
        seen = len(link.recorded)
        state, floated = link.node.state, link.node.ike.floated
        for _, datagram in link.recorded[:]:
            for to in (SENSOR, GATEWAY):
                link.give(to, datagram)
            assert (link.node.state, link.node.ike.floated) == (state, floated) or state != "UP"
    link.settle()
    link.send(b"hello")
    link.settle()
    assert link.node.got == link.readings == [b"hello"]
    assert not link.node.all("failed")


@item("MIN-16")
@pytest.mark.parametrize("name", SESSIONS)
def test_an_earlier_session_says_nothing_to_a_later_one(name):
    """The whole recording of one tunnel, played to the next one in each of its steps."""
    old = Link(*SESSIONS[name], seed=b"yesterday")
    for act, done in steps():
        act(old)
        old.settle()
        while not done(old):
            assert old.pass_time()
            old.settle()
    link = Link(*SESSIONS[name], seed=b"today")
    for act, done in steps():
        act(link)
        while True:
            for _, datagram in old.recorded:
                before, counted = picture(link.node), drops(link.node)
                assert link.give(SENSOR, datagram) == []
                assert drops(link.node) == counted + 1
                assert picture(link.node) == before
            if link.waiting:
                link.deliver()
            elif done(link) or not link.pass_time():
                break
        assert done(link)


@pytest.mark.parametrize("name", SESSIONS)
@pytest.mark.parametrize("seed", range(12))
def test_in_any_order_with_copies_reflections_and_losses_each_reading_arrives_once(name, seed):
    changes, settings = SESSIONS[name]
    link = Link(changes, {**settings, "replay_window": 128}, b"chaos %d" % seed)
    chaos = Chaos(link, seed, loss=0.1 if seed % 2 else 0)
    link.start()
    chaos.run(lambda: link.node.state == "UP")
    assert not link.node.all("failed")
    sent = [b"reading %d" % n for n in range(20)]
    for payload in sent:
        link.now += 100
        link.send(payload)
    link.ask("liveness")
    link.call(established.check)
    chaos.run(lambda: not link.waiting and link.node.all("answered"))
    assert len(set(link.readings)) == len(link.readings) and set(link.readings) <= set(sent)
    assert len(set(link.node.got)) == len(link.node.got) and set(link.node.got) <= set(sent)
    if not chaos.loss:
        assert len(link.readings) == len(link.node.got) == len(sent)
    assert link.node.state == "UP"
    link.call(established.delete)
    chaos.run(lambda: link.node.state == "DOWN")
    assert link.node.all("ended") and not link.node.all("failed")


@item("AMB-08")
def test_what_is_signed_has_no_acknowledgments_in_it():
    """Both ends check AUTH, and with it IntAuth, after asking for fragments of IKE_INTERMEDIATE."""
    asked = 0
    for seed in range(20):
        link = Link(*SESSIONS["acknowledged fragments of IKE_INTERMEDIATE"], b"signed %d" % seed)
        chaos = Chaos(link, seed, loss=0.25)
        link.start()
        chaos.run(lambda: link.node.state in ("IKE_AUTH", "UP", "DOWN"))
        counters = link.gateway.counters
        asked += bool(counters["acks_sent"] and counters["acks_received"])
        chaos.run(lambda: link.node.state in ("UP", "DOWN"))
        assert link.node.state == "UP", link.node.events
    assert asked >= 3


def test_the_link_itself_loses_nothing():
    link = Link()
    for act, done in steps():
        act(link)
        link.settle()
        assert done(link)
    assert drops(link.node) == 0 and not link.gateway.drops
