"""Fragments on real links: strongSwan, then our development gateway, behind the same losses.

strongSwan knows RFC 7383 and no acknowledgment; it is offered one and must not be hurt by it.
"""

import gateway as gateway_packages
import pytest

from host_tests.interop.test_devgateway import DevGateway
from tools.dev.lab import Lab

pytestmark = pytest.mark.interop
item = pytest.mark.item

# strongSwan's answer to IKE_AUTH has 219 octets: 4 datagrams of its fragment_size 140. Losing
# the second of every four means losing the same one each time that it sends all of them.
SMALL = {"fragment_size": 140}
ONE_OF_FOUR = "udp sport 4500 numgen inc mod 4 1"


@pytest.fixture(autouse=True, scope="module")
def laboratory():
    why = gateway_packages.lacking()
    if why:
        pytest.skip(why)


@item("FRG-01", "FRG-04", "FRG-10", "FRG-20", "FRG-26", "ACK-02")
@pytest.mark.parametrize("theirs", [140, 256])
@pytest.mark.parametrize(
    ("size", "ike"),
    [
        (128, "aes128ccm16-prfsha256-x25519"),
        (200, "aes128ccm8-prfsha256-x25519"),
        (160, "aes128-sha256-prfsha256-x25519"),
    ],
)
def test_strongswan_and_the_sensor_fragment_to_each_other(size, ike, theirs):
    with Lab() as lab:
        lab.echo()
        edits = [("aes128ccm16-prfsha256-x25519,", ike + ",")]
        charon = lab.charon(settings={"fragment_size": theirs}, edits=edits)
        sensor = lab.sensor({"fragment_size": size, "ike": [ike]}, readings=2)
        assert sensor.wait() == 0, sensor.output
        assert "parsed IKE_AUTH request 1 [ EF(1/" in charon.log()
        assert "reassembled fragmented IKE message" in charon.log()
        # With 256 an answer that fits one datagram comes in SK though the request came in SKF.
        fits = theirs == 256 and "ccm" in ike
        assert ("generating IKE_AUTH response 1 [ EF(1/" in charon.log()) != fits
        assert sensor.first("stats")["drops"] == {}


@item("FRG-13", "FRG-17", "FRG-23")
@pytest.mark.parametrize("policy", ["eager", "conservative"])
def test_losses_that_rfc_7383_overcomes(policy):
    """One of five each way; the acknowledgment that we offered does not get in the way."""
    with Lab() as lab:
        lab.echo()
        lab.charon(settings=SMALL)
        lost = [
            lab.sensor_ns.drop("udp sport 4500 numgen inc mod 5 1"),
            lab.gateway_ns.drop("udp dport 4500 numgen inc mod 5 2"),
        ]
        profile = {
            "fragment_size": 128, "retransmit_ms": 150, "retransmit_tries": 7,
            "frag_ack_policy": policy,
        }  # fmt: skip
        sensor = lab.sensor(profile)
        sensor.wait_for("up", timeout=40)
        assert all(dropped() for dropped in lost)
        sensor.stop()


@item("ACK-02", "FRG-13")
def test_the_same_fragment_lost_each_time_keeps_a_sensor_from_strongswan_for_ever():
    """The case that acknowledgment is for."""
    with Lab() as lab:
        charon = lab.charon(settings=SMALL)
        dropped = lab.sensor_ns.drop(ONE_OF_FOUR)
        profile = {"fragment_size": 200, "retransmit_ms": 100, "retransmit_tries": 6}
        sensor = lab.sensor({**profile, "retries": 0}, readings=1)
        assert sensor.wait() == 1
        assert sensor.first("error")["error"] == "LinkDown"
        assert "into 4 fragments" in charon.log()
        assert dropped() == 6


@item("ACK-03", "ACK-09", "ACK-17", "AMB-08", "AMB-17")
@pytest.mark.parametrize("draft", ["02", "04"])
@pytest.mark.parametrize("policy", ["eager", "conservative"])
def test_the_same_loss_does_not_stop_a_gateway_that_acknowledges(policy, draft):
    with Lab() as lab:
        gateway = DevGateway(
            lab, "--fragment-size", "160", "--frag-ack", policy, "--ack-gap", "60",
            "--frag-ack-draft", draft,
        )  # fmt: skip
        lab.own(gateway)
        lost = [
            lab.sensor_ns.drop(ONE_OF_FOUR),
            lab.gateway_ns.drop("udp dport 4500 numgen inc mod 4 1"),
        ]
        profile = {
            "fragment_size": 128, "retransmit_ms": 300, "frag_ack": draft,
            "frag_ack_policy": policy,
        }  # fmt: skip
        sensor = lab.sensor(profile)
        up = sensor.wait_for("up", timeout=30)
        assert gateway.wait_for("ike_sa")["frag_ack"] is True
        assert all(dropped() for dropped in lost)
        assert up["datagrams_out"] < 40
        sensor.stop()
