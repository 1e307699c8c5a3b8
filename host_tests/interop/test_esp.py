"""ESP in its shapes on real networks: strongSwan where it knows them, else our own gateway."""

import signal

import pytest

from host_tests.interop.test_devgateway import DevGateway
from tools.dev.lab import (
    GATEWAY_4,
    GATEWAY_6,
    HIDDEN_4,
    SENSOR_4,
    SENSOR_6,
    SERVER_4,
    Lab,
    wait_until,
)

SUITES = {
    "aes128ccm8": "AES_CCM_8",
    "aes128ccm12": "AES_CCM_12",
    "aes128ccm16": "AES_CCM_16",
    "aes256ccm8": "AES_CCM_8",
    "aes256ccm12": "AES_CCM_12",
    "aes256ccm16": "AES_CCM_16",
}


@pytest.fixture
def lab():
    with Lab() as lab:
        yield lab


def finished(sensor, count):
    """The readings of a run that must have gone well, with all their echoes."""
    assert sensor.wait() == 0, sensor.output
    sent = [line["data"] for line in sensor.all("sent")]
    assert len(sent) == count
    assert [line["data"] for line in sensor.all("reply")] == sent
    assert sensor.first("stats")["drops"] == {}
    return sent


# strongSwan


def test_each_ccm_that_strongswan_has_carries_readings(lab):
    charon = lab.charon(
        edits=[("esp_proposals = aes128ccm8", "esp_proposals = " + ", ".join(SUITES))]
    )
    came_up = charon.watch()
    echo = lab.echo()
    expected = []
    for number, (suite, name) in enumerate(SUITES.items(), start=1):
        # With a size to pad to, and without one.
        pad_to = 200 if "16" in suite else 0
        sensor = lab.sensor({"esp": [suite], "esp_pad_to": pad_to}, readings=3)
        (child,) = came_up(number)[-1]["child-sas"].values()
        assert (child["encr-alg"], child["encr-keysize"]) == (name, suite[3:6])
        expected += finished(sensor, 3)
        assert sensor.first("agreed")["esp"] == suite
        sizes = {line["octets"] for line in sensor.all("sent")}
        if pad_to:
            assert sizes == {16 + 200 + 16}
    assert [line["data"].decode() for line in echo.received(len(expected))] == expected


def test_what_strongswan_does_not_know_is_offered_first_and_done_without(lab):
    lab.charon()
    lab.echo()
    sensor = lab.sensor({"esp": ["aes128ccm8iiv", "aes128ccm8"]}, readings=2)
    finished(sensor, 2)
    assert sensor.first("agreed")["esp"] == "aes128ccm8"


def refusal(sensor):
    assert sensor.wait() == 1, sensor.output
    (line,) = sensor.all("error")
    assert line["check"] and sensor.all("up") == []
    return line["error"], line["notify"]


@pytest.mark.parametrize("suite", ["aes128ccm8iiv", "aes128ccm8-esn"])
def test_alone_it_is_a_typed_error(lab, suite):
    """kernel-libipsec has no 64-bit numbers either."""
    lab.charon()
    sensor = lab.sensor({"esp": [suite], "retries": 0}, readings=1)
    assert refusal(sensor) == ("NoProposalChosen", "NO_PROPOSAL_CHOSEN")


HOST_TO_HOST = [
    ("remote_ts = 10.9.1.0/24", "remote_ts = 10.77.0.0/24"),
    ("local_ts = 10.3.0.0/16", "local_ts = 10.77.0.0/24"),
]


@pytest.mark.parametrize("mode", ["tunnel", "transport"])
def test_transport_mode_is_a_typed_error_where_strongswan_will_not_have_it(lab, mode):
    """It has no such tunnel between two hosts; or would like to, and kernel-libipsec refuses."""
    name = "cellar.static.example.org"
    edits = [*HOST_TO_HOST, ("esp_proposals", f"mode = {mode}\n        esp_proposals")]
    lab.charon(secrets={name: "psk"}, edits=edits)
    profile = {"id": name, "mode": "transport", "retries": 0}
    found = refusal(lab.sensor(profile, {"psk": "psk"}, readings=1))
    if mode == "tunnel":
        assert found == ("TsUnacceptable", "TS_UNACCEPTABLE")
    else:
        assert found == ("NoProposalChosen", "NO_PROPOSAL_CHOSEN")


def test_transport_mode_asked_of_a_gateway_that_gives_addresses_is_a_typed_error(lab):
    lab.charon()
    sensor = lab.sensor({"mode": "transport", "retries": 0}, readings=1)
    assert refusal(sensor) == ("FailedCpRequired", "FAILED_CP_REQUIRED")


def test_a_child_sa_outlives_three_sleeps_without_an_ike_message(lab):
    for policy in ("clock", "mark"):
        charon = lab.charon()
        echo = lab.echo()
        sensor = lab.sensor({"sleep": policy}, readings=1)
        data = finished(sensor, 1)
        (sa,) = charon.wait_sas(1)
        last = sensor.first("sent")["sn"]
        said = len(charon.log())
        for wake in range(1, 4):
            sensor.start()
            data += finished(sensor, 1)
            assert sensor.all("up") == [] and sensor.first("resumed")["inner"] == "10.9.0.1"
            assert sensor.first("sent")["sn"] > last
            last = sensor.first("sent")["sn"]
            stats = sensor.first("stats")
            assert (stats["datagrams_out"], stats["datagrams_in"]) == (1, 1)
            received = echo.received(1 + wake)
        assert [line["data"].decode() for line in received] == data
        assert [again["uniqueid"] for again in charon.list_sas()] == [sa["uniqueid"]]
        assert "[ENC] parsed" not in charon.log()[said:]  # which an IKE message would be
        charon.stop()
        echo.stop()


def test_after_a_reset_in_the_middle_the_reading_goes_out_and_a_new_sa_follows(lab):
    """Killed between resume and suspend, as by a watchdog."""
    charon = lab.charon()
    echo = lab.echo()
    sensor = lab.sensor({"sleep": "mark", "interval_ms": 300}, readings=1)
    finished(sensor, 1)
    sensor.start(readings=50)
    sensor.wait_for("sent", count=2)
    last = sensor.all("sent")[-1]["sn"]
    sensor.signal(signal.SIGKILL)
    sensor.wait()
    sensor.start(readings=4)
    assert sensor.wait() == 0, sensor.output
    names = [line["event"] for line in sensor.events]
    assert names.index("resumed") < names.index("sent") < names.index("up")
    assert sensor.first("sent")["sn"] > last
    assert sensor.all("reply")  # by the new SA
    for line in sensor.all("sent"):
        assert line["data"].encode() in [got["data"] for got in echo.received()]
    # The old one is about to be deleted: nobody is left who could answer for it.
    wait_until(
        lambda: [sa["state"] for sa in charon.list_sas()].count("ESTABLISHED") == 1, 5, "one SA"
    )


# The development gateway


def listed(gateway, count):
    gateway.wait_for("reading", count)
    return [line["text"] for line in gateway.all("reading")]


@pytest.mark.parametrize("outside", [GATEWAY_4, GATEWAY_6], ids=["IPv4", "IPv6"])
def test_implicit_iv_64_bit_numbers_and_transport_mode(lab, outside):
    bind = "::" if outside == GATEWAY_6 else "0.0.0.0"
    gateway = DevGateway(
        lab, "--bind", bind, "--esp", "aes128ccm8iiv", "--esp", "aes256ccm8iiv-esn",
        "--esp", "aes128ccm16-esn",
    )  # fmt: skip
    expected = []
    sizes = {}
    for suite, mode in (
        ("aes128ccm8iiv", "tunnel"),
        ("aes128ccm8iiv", "transport"),
        ("aes256ccm8iiv-esn", "transport"),
        ("aes128ccm16-esn", "tunnel"),
    ):
        profile = {"gateway": outside, "esp": [suite, "aes128ccm8"], "mode": mode}
        sensor = lab.sensor({**profile, "server": SERVER_4, "esp_pad_to": 96}, readings=2)
        expected += finished(sensor, 2)
        assert sensor.first("agreed")["esp"] == suite
        own = SENSOR_6 if outside == GATEWAY_6 else SENSOR_4
        if mode == "transport":
            child = gateway.all("child_sa")[-1]
            assert child["inner"] == own
        sizes[suite, mode] = {line["octets"] for line in sensor.all("sent")}
    assert listed(gateway, len(expected)) == expected
    assert sizes["aes128ccm8iiv", "transport"] == {8 + 96 + 8}
    assert sizes["aes128ccm16-esn", "tunnel"] == {16 + 96 + 16}
    gateway.stop()
    assert gateway.wait_for("stats")["drops"] == {}


@pytest.mark.parametrize("outside", [GATEWAY_4, GATEWAY_6], ids=["IPv4", "IPv6"])
def test_without_a_nat_esp_goes_straight_on_ip(lab, outside):
    bind = "::" if outside == GATEWAY_6 else "0.0.0.0"
    gateway = DevGateway(lab, "--bind", bind, "--raw-esp", "--no-encap", "--esp", "aes128ccm8iiv")
    seen = lab.gateway_ns.drop("meta l4proto esp counter ip ttl 0")  # counts, drops nothing
    for mode in ("tunnel", "transport"):
        sensor = lab.sensor(
            {"gateway": outside, "encap": False, "mode": mode, "esp": ["aes128ccm8iiv"]},
            readings=3,
        )
        sent = finished(sensor, 3)
        assert listed(gateway, 3)[-3:] == sent
        assert sensor.first("up")["nat"] is False
    listing = lab.gateway_ns.run("nft", "list", "chain", "inet", "loss", "input")
    assert "packets 6 " in listing, listing
    assert seen() == 0


def test_behind_a_nat_esp_stays_in_udp_even_where_it_might_go_alone():
    with Lab(nat=True) as lab:
        gateway = DevGateway(lab, "--raw-esp", "--no-encap")
        sensor = lab.sensor({"encap": False, "mode": "transport"}, readings=3)
        sent = finished(sensor, 3)
        assert listed(gateway, 3) == sent
        assert sensor.first("up")["nat"] is True
        assert sensor.first("up")["inner"] == HIDDEN_4


def test_fixed_spis_are_taken_in_turn_and_warned_of_once(lab):
    gateway = DevGateway(lab)
    sensor = lab.sensor(
        {"spi": [4096, 4097], "lifetime_ms": 1500, "interval_ms": 200}, readings=20
    )
    assert sensor.wait() == 0, sensor.output
    (warning,) = sensor.all("warning")
    assert "privacy" in warning["text"] and "DoS" in warning["text"]
    spis = [line["spi_in"] for line in sensor.all("up")]
    assert len(spis) >= 2
    assert spis == ["00001000", "00001001"] * (len(spis) // 2) + ["00001000"] * (len(spis) % 2)
    assert len(listed(gateway, 20)) == 20
