"""Whole handshakes over simulated bad links: the firmware and the development gateway.

Two implementations, written apart from each other from the draft's text, real ciphers, IKE_AUTH
in 6 and 5 fragments. What one misread would show here.
"""

import pytest
from minipsec.handshake import intermediate
from minipsec.kex import methods

from tools.dev.peers.node import remember_exchanges
from tools.dev.peers import kem
from tools.dev.sim import handshake, link

pytestmark = pytest.mark.long

item = pytest.mark.item


@pytest.fixture(autouse=True, scope="module")
def quick_exchanges():
    restore = remember_exchanges()
    yield
    restore()


def independent(rate):
    return lambda rng: link.independent(rng, rate)


def kinds(run, side):
    """How many fragments, and how many messages in SK, a side sent."""
    sent = [datagram[20] for who, _, datagram in run.sent if who == side]
    return sent.count(handshake.SKF), sent.count(handshake.SK)


@item("ACK-01", "AMB-14", "FRG-03")
@pytest.mark.parametrize("policy", ["eager", "conservative"])
def test_without_loss_nothing_but_fragments_travels(policy):
    run = handshake.run(1, policy=policy)
    assert run.up
    assert kinds(run, "sensor") == (6, 0) and kinds(run, "gateway") == (5, 0)
    assert run.gateway.gateway.drops == {} and run.sensor.ike.drops == {}


@item("ACK-03", "ACK-09", "ACK-16", "AMB-08")
@pytest.mark.parametrize("draft", ["02", "03", "04"])
@pytest.mark.parametrize("policy", ["eager", "conservative"])
def test_at_30_percent_loss_every_handshake_completes(policy, draft):
    """AUTH verifies on both sides, so no acknowledgment became part of what is signed."""
    acks = 0
    for seed in range(12):
        run = handshake.run(
            seed, independent(0.3), policy, {"frag_ack_draft": draft}, frag_ack=draft
        )
        assert run.up and ("ike_sa" in [name for name, _ in run.gateway.events])
        acks += kinds(run, "sensor")[1] + kinds(run, "gateway")[1]
        assert not set(run.sensor.ike.drops) - {"REPLAYED_FRAGMENT", "LATE_ACK", "REPLAYED_ACK"}
    assert acks > 12 if policy == "eager" else acks


@item("E5", "ACK-08", "AMB-03")
@pytest.mark.parametrize(("ours", "theirs"), [("02", "03"), ("03", "02"), ("04", "02")])
def test_two_readings_of_the_R_bit_understand_each_other(ours, theirs):
    for seed in range(6):
        run = handshake.run(
            seed, independent(0.3), "eager", {"frag_ack_draft": theirs}, frag_ack=ours
        )
        assert run.up
        for who, _, datagram in run.sent:
            if datagram[20] == handshake.SK and len(datagram) < 110:
                assert datagram[23] & 0x20 or (who == "sensor" and ours != "02")


@item("ACK-02")
@pytest.mark.parametrize(
    ("changes", "settings"),
    [({"frag_ack": "off"}, {}), ({}, {"frag_ack": "off"}), ({}, {"fragmentation": False})],
)
def test_where_one_side_does_not_offer_it_none_is_sent(changes, settings):
    for seed in range(6):
        run = handshake.run(seed, independent(0.3), settings=settings, until=40000, **changes)
        assert (
            kinds(run, "sensor")[1] <= 5
            if settings.get("fragmentation") is False
            else (kinds(run, "sensor")[1] == kinds(run, "gateway")[1] == 0)
        )


@item("AMB-06", "ACK-02")
def test_its_types_without_our_vendor_id_are_a_strangers(monkeypatch):
    from minipsec.handshake import sa_init

    monkeypatch.setattr(sa_init, "VENDOR_ID", bytes(16))
    run = handshake.run(3, independent(0.3))
    assert not run.sensor.ike.acks
    assert kinds(run, "sensor")[1] == 0


@item("AMB-12", "AMB-13")
@pytest.mark.parametrize("room", [2, 4])
def test_a_queue_of_2_or_4_datagrams(room):
    """A burst of 6 and one of 5 through a socket that holds fewer."""

    def tail(rng):
        return link.tail_drop(room)

    plain = handshake.run(1, tail, frag_ack="off", until=32000)
    assert not plain.up
    for policy in ("eager", "conservative"):
        run = handshake.run(1, tail, policy)
        assert run.up and len(run.sent) < 60


@item("ACK-16", "FRG-12", "AMB-22")
def test_no_iv_is_used_twice_under_one_key_in_either_direction():
    for seed in range(10):
        run = handshake.run(seed, independent(0.4))
        for side in ("sensor", "gateway"):
            seen = {}
            for who, _, datagram in run.sent:
                if who == side and datagram[20] in (handshake.SK, handshake.SKF):
                    at = 4 + (36 if datagram[20] == handshake.SKF else 32)
                    iv = datagram[at : at + 8]
                    assert seen.setdefault(iv, datagram) == datagram
            assert seen


@item("FRG-25", "FRG-17", "AMB-05")
def test_late_and_doubled_datagrams():
    for seed in range(8):
        run = handshake.run(seed, independent(0.15), bend={"duplicate": 0.3, "reorder": 0.3})
        assert run.up


@item("AMB-04", "AMB-07", "AMB-08")
@pytest.mark.parametrize(("method", "ident"), [("mlkem512", 35), ("mlkem1024", 37)])
def test_with_an_ml_kem_exchange_after_which_the_keys_change(method, ident, monkeypatch):
    """IKE_INTERMEDIATE in up to 16 fragments each way; IntAuth and AUTH verify all the same."""
    monkeypatch.setattr(
        methods, "method", lambda n: kem.method(n) if n == ident else methods.METHODS[n]
    )
    monkeypatch.setattr(intermediate, "method", kem.method)
    acks = 0
    for seed in range(4):
        run = handshake.run(
            seed, independent(0.2), ike=[f"aes128ccm16-prfsha256-x25519-ke1_{method}"],
            fragment_size=176, settings={
                "fragment_size": 176, "ike": [f"aes128ccm16-prfsha256-x25519-ke1_{method}"],
            },
        )  # fmt: skip
        assert run.up
        assert {datagram[22] for _, _, datagram in run.sent} == {34, 43, 35}
        acks += sum(
            datagram[20] == handshake.SK and datagram[22] == 43 for _, _, datagram in run.sent
        )
    assert acks > 4
