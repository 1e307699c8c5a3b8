"""The firmware on the unix port against strongSwan, as an owner would run the two."""

import json
import pathlib
import sys
import time

import pytest

from tools.dev.lab import GATEWAY_4, PSK, SENSOR_4, SENSOR_ID, SERVER_4, Lab, run
from tools.common import mpy

CCM16 = "aes128ccm16-prfsha256-x25519"
CCM8 = "aes128ccm8-prfsha256-x25519"

# Short, so that a silent gateway ends a test soon: sends at 0, 100, 300 ms, gives up at 700.
IMPATIENT = {"retransmit_ms": 100, "retransmit_tries": 3}


@pytest.fixture
def lab():
    with Lab() as lab:
        yield lab


@pytest.fixture
def nat_lab():
    with Lab(nat=True) as lab:
        yield lab


def readings(sensor):
    return [line["data"].encode() for line in sensor.all("sent")]


def assert_all_went_through(sensor, echo, count, inner):
    """Each reading reached the server in the clear, each echo came back to the sensor."""
    assert sensor.wait() == 0, sensor.output
    assert len(readings(sensor)) == count
    received = echo.received(count)
    assert [line["data"] for line in received] == readings(sensor)
    assert {line["from"] for line in received} == {inner}
    assert [line["data"].encode() for line in sensor.all("reply")] == readings(sensor)
    sns = [line["sn"] for line in sensor.all("sent")]
    assert all(0 < a < b for a, b in zip(sns, sns[1:], strict=False))
    assert sensor.first("stats")["drops"] == {}


def assert_error(sensor, notify, error, within):
    """The run ended with one typed error that names the notify and what to check.

    A default profile takes 31 s to give up, and a busy PC a second for what takes 50 ms.
    """
    began = time.monotonic()
    assert sensor.wait(within + 10) == 1, sensor.output
    assert time.monotonic() - began < within
    (line,) = sensor.all("error")
    assert line["notify"] == notify
    assert line["error"] == error
    assert line["text"] and line["check"]
    assert sensor.all("up") == []
    assert sensor.events[-1]["event"] == "stats"
    assert "Traceback" not in sensor.output
    return line


@pytest.mark.parametrize("proposal", [CCM16, CCM8])
def test_ten_readings_reach_the_server_and_their_echoes_the_sensor(lab, proposal):
    charon = lab.charon()
    came_up = charon.watch()
    echo = lab.echo()
    sensor = lab.sensor({"ike": [proposal]}, readings=10)
    up = sensor.wait_for("up")
    (sa,) = came_up(1)
    assert_all_went_through(sensor, echo, 10, "10.9.0.1")

    assert sensor.first("agreed")["ike"] == proposal
    assert sensor.first("agreed")["esp"] == "aes128ccm8"
    assert up["inner"] == "10.9.0.1"
    assert (sa["initiator-spi"], sa["responder-spi"]) == (up["spi_i"], up["spi_r"])
    assert sa["remote-id"] == SENSOR_ID
    (child,) = sa["child-sas"].values()
    assert (child["spi-in"], child["spi-out"]) == (up["spi_out"], up["spi_in"])
    assert child["encr-alg"] == "AES_CCM_8"
    assert child["remote-ts"] == ["10.9.0.1/32"]


def test_the_profile_decides_which_of_its_proposals_comes_first(lab):
    """By default charon follows its own order; here it is told to follow the sensor's."""
    lab.charon(settings={"prefer_configured_proposals": "no"})
    sensor = lab.sensor({"ike": [CCM8, CCM16]}, readings=1)
    assert sensor.wait() == 0
    assert sensor.first("agreed")["ike"] == CCM8


def test_the_sensor_deletes_its_sa_when_it_is_done(lab):
    charon = lab.charon()
    lab.echo()
    assert lab.sensor(readings=1).wait() == 0
    charon.wait_log("received DELETE for IKE_SA")
    assert charon.wait_sas(0) == []


def test_a_static_inner_address_needs_no_configuration_payload(lab):
    name = "cellar.static.example.org"
    charon = lab.charon(secrets={name: PSK})
    came_up = charon.watch()
    echo = lab.echo()
    sensor = lab.sensor({"id": name, "inner_address": "10.9.1.5"}, readings=10)
    (sa,) = came_up(1)
    assert_all_went_through(sensor, echo, 10, "10.9.1.5")
    assert sa["name"] == "minipsec-static"
    (child,) = sa["child-sas"].values()
    assert child["remote-ts"] == ["10.9.1.5/32"]


def test_a_static_address_is_refused_where_the_gateway_gives_addresses(lab):
    lab.charon()
    sensor = lab.sensor({"inner_address": "10.9.1.5"}, readings=1)
    line = assert_error(sensor, "FAILED_CP_REQUIRED", "FailedCpRequired", within=9)
    assert "inner_address" in line["check"]


@pytest.mark.parametrize(
    "identity", ["sensor@example.org", "keyid:cellar-7", "keyid:0x00ff10", "10.77.0.2"]
)
def test_each_kind_of_identity_authenticates(lab, identity):
    # strongSwan writes octets as keyid:#hex.
    lab.charon(secrets={identity.replace(":0x", ":#"): PSK})
    sensor = lab.sensor({"id": identity}, readings=1)
    assert sensor.wait() == 0, sensor.output


def test_a_text_psk_and_its_stored_pad_are_the_same_secret(lab):
    import hashlib
    import hmac

    lab.charon(secrets={SENSOR_ID: "correct horse"})
    assert lab.sensor(secrets={"psk": "correct horse"}, readings=1).wait() == 0
    pad = hmac.new(b"correct horse", b"Key Pad for IKEv2", hashlib.sha256).hexdigest()
    assert lab.sensor(secrets={"psk_pad": "0x" + pad}, readings=1).wait() == 0


def test_a_cookie_is_sent_back(lab):
    charon = lab.charon(settings={"cookie_threshold": 1, "cookie_threshold_ip": 1})
    echo = lab.echo()
    leave_half_open(lab, charon)
    sensor = lab.sensor(readings=3)
    assert_all_went_through(sensor, echo, 3, "10.9.0.1")
    assert "sending COOKIE notify" in charon.log()
    assert sensor.first("up")["datagrams_out"] == 3


@pytest.mark.item("B2")
@pytest.mark.parametrize("ms", [550, 700])
def test_cookies_over_a_round_trip_above_the_first_interval(lab, ms):
    """charon's cookie is another one each second; AUTH covers the request that it answered."""
    settings = {"cookie_threshold": 1, "cookie_threshold_ip": 1, "block_threshold": 0}
    charon = lab.charon(settings=settings)
    echo = lab.echo()
    leave_half_open(lab, charon)
    relay = [sys.executable, pathlib.Path(__file__).with_name("relay.py")]
    relay = lab.sensor_ns.start(*relay, "127.0.0.1", "10.77.0.1", ms)
    relay.wait_line(lambda line: line == "ready", what="the relay")
    sensor = lab.sensor({"gateway": "127.0.0.1"}, readings=1)
    assert sensor.wait() == 0, sensor.output
    assert len(echo.received(1)) == 1 and not sensor.all("error")
    assert charon.log().count("sending COOKIE notify") >= 2
    relay.stop()


def leave_half_open(lab, charon):
    """Start a handshake and abandon it: the gateway now counts one half-open SA."""
    abandoned = lab.sensor(IMPATIENT | {"natt_port": 9}, readings=1)
    charon.wait_log("generating IKE_SA_INIT response")
    abandoned.stop()


def test_readings_pass_a_nat(nat_lab):
    came_up = nat_lab.charon().watch()
    echo = nat_lab.echo()
    sensor = nat_lab.sensor(readings=10)
    up = sensor.wait_for("up")
    (sa,) = came_up(1)
    assert_all_went_through(sensor, echo, 10, "10.9.0.1")
    assert up["nat"] is True
    assert sa["remote-host"] == SENSOR_4
    assert 20000 <= int(sa["remote-port"]) < 30000


@pytest.mark.parametrize("nat", [False, True], ids=["direct", "nat"])
def test_a_handshake_may_start_on_port_4500(nat):
    with Lab(nat=nat) as lab:
        charon = lab.charon()
        echo = lab.echo()
        sensor = lab.sensor({"port": 4500}, readings=3)
        assert_all_went_through(sensor, echo, 3, "10.9.0.1")
        assert "[500] (" not in charon.log().split("sending packet", 1)[0]


def test_two_sensors_have_addresses_and_answers_of_their_own(lab):
    other = {"id": "sensor-2.example.org", "inner_port": 5002}
    psk = "0x" + "22" * 32
    came_up = lab.charon(secrets={SENSOR_ID: "0x" + "11" * 32, other["id"]: psk}).watch()
    echo = lab.echo()
    sensors = [
        lab.sensor(secrets={"psk": "0x" + "11" * 32}, readings=10),
        lab.sensor(other, {"psk": psk}, readings=10),
    ]
    inner = [sensor.wait_for("up")["inner"] for sensor in sensors]
    assert len(came_up(2)) == 2
    assert [sensor.wait() for sensor in sensors] == [0, 0]
    assert sorted(inner) == ["10.9.0.1", "10.9.0.2"]
    for sensor, address in zip(sensors, inner, strict=True):
        mine = [line["data"] for line in echo.received(20) if line["from"] == address]
        assert mine == readings(sensor)
        assert [line["data"].encode() for line in sensor.all("reply")] == mine


def test_a_lost_datagram_each_way_only_delays(lab):
    lab.charon()
    echo = lab.echo()
    dropped = [
        lab.gateway_ns.drop("udp dport { 500, 4500 } numgen inc mod 2 0"),
        lab.gateway_ns.drop("udp sport { 500, 4500 } numgen inc mod 3 0", hook="output"),
    ]
    sensor = lab.sensor({"retransmit_ms": 100}, readings=1)
    sensor.wait_for("up")
    assert all(count() > 0 for count in dropped)
    lab.gateway_ns.undrop()
    assert sensor.wait() == 0, sensor.output
    assert len(echo.received()) <= 1


# What goes wrong, and how it is said.


def test_a_wrong_psk_is_refused_by_the_gateway(lab):
    lab.charon()
    sensor = lab.sensor(secrets={"psk": "0x" + "00" * 31 + "01"}, readings=1)
    line = assert_error(sensor, "AUTHENTICATION_FAILED", "AuthenticationFailed", within=9)
    assert "secret" in line["check"]


def test_an_identity_that_the_gateway_does_not_know_is_refused(lab):
    lab.charon()
    sensor = lab.sensor({"id": "stranger.example.org"}, readings=1)
    line = assert_error(sensor, "AUTHENTICATION_FAILED", "AuthenticationFailed", within=9)
    assert "id" in line["check"]


def test_a_gateway_with_another_identity_is_refused_by_the_sensor(lab):
    """The sensor says whom it wants (IDr), so it is charon that finds no such connection."""
    lab.charon()
    sensor = lab.sensor({"gateway_id": "other.example.org"}, readings=1)
    assert sensor.wait(10) == 1, sensor.output
    (line,) = sensor.all("error")
    assert line["error"] in ("AuthenticationFailed", "PeerMisbehaved")
    assert "gateway_id" in line["check"] or line["notify"] == "AUTHENTICATION_FAILED"
    assert sensor.all("up") == []


def test_a_gateway_that_does_not_know_the_psk_is_refused_by_the_sensor(lab):
    """Mutual: the gateway accepts any PSK of ours, yet cannot prove that it has it."""
    gateway_psk = {"ike-gw": "gw.example.org"}
    lab.charon(secrets={SENSOR_ID: "0x" + "33" * 32, gateway_psk["ike-gw"]: "0x" + "44" * 32})
    sensor = lab.sensor(secrets={"psk": "0x" + "44" * 32}, readings=1)
    assert sensor.wait(10) == 1, sensor.output
    assert sensor.all("up") == []
    assert sensor.first("error")["error"] in ("AuthenticationFailed", "PeerMisbehaved")


def test_no_common_ike_proposal_is_named(lab):
    edit = (f"proposals = {CCM16}, {CCM8}", "proposals = aes256gcm16-prfsha384-ecp384")
    lab.charon(edits=[edit])
    sensor = lab.sensor(IMPATIENT, readings=1)
    line = assert_error(sensor, "NO_PROPOSAL_CHOSEN", "NoProposalChosen", within=9)
    assert "proposals" in line["check"]
    assert [hint["notify"] for hint in sensor.all("hint")] == ["NO_PROPOSAL_CHOSEN"]


def test_no_common_esp_proposal_is_named(lab):
    lab.charon(edits=[("esp_proposals = aes128ccm8", "esp_proposals = aes256gcm16")])
    sensor = lab.sensor(readings=1)
    line = assert_error(sensor, "NO_PROPOSAL_CHOSEN", "NoProposalChosen", within=9)
    assert "esp_proposals" in line["check"]


def test_traffic_selectors_without_an_overlap_are_named(lab):
    lab.charon()
    sensor = lab.sensor({"server": "10.4.0.1", "remote_ts": "10.4.0.0/16"}, readings=1)
    line = assert_error(sensor, "TS_UNACCEPTABLE", "TsUnacceptable", within=9)
    assert "remote_ts" in line["check"]


def test_an_empty_pool_is_named(lab):
    charon = lab.charon(edits=[("addrs = 10.9.0.0/24", "addrs = 10.9.0.1-10.9.0.1")])
    lab.echo()
    holder = lab.sensor({"interval_ms": 200}, readings=0)
    holder.wait_for("up")
    charon.write_secrets({SENSOR_ID: "0x" + "55" * 32, "sensor-2.example.org": "0x" + "66" * 32})
    charon.load()
    sensor = lab.sensor({"id": "sensor-2.example.org"}, {"psk": "0x" + "66" * 32}, readings=1)
    line = assert_error(sensor, "INTERNAL_ADDRESS_FAILURE", "InternalAddressFailure", within=9)
    assert "pool" in line["check"]


def test_silence_ends_as_link_down_in_the_documented_time(lab):
    began = time.monotonic()
    sensor = lab.sensor(IMPATIENT, readings=1)  # nobody listens
    line = assert_error(sensor, None, "LinkDown", within=9)
    assert time.monotonic() - began > 0.7
    assert "firewall" in line["check"]
    assert sensor.first("stats")["datagrams_out"] == 3


def test_a_black_hole_ends_as_link_down_too(lab):
    lab.charon()
    lab.gateway_ns.drop("udp dport { 500, 4500 }")
    assert_error(lab.sensor(IMPATIENT, readings=1), None, "LinkDown", within=9)


def test_a_firewall_that_lets_only_port_500_pass_is_link_down(lab):
    lab.charon()
    lab.gateway_ns.drop("udp dport 4500")
    line = assert_error(lab.sensor(IMPATIENT, readings=1), None, "LinkDown", within=9)
    assert "4500" in line["check"]


def test_a_host_name_that_does_not_exist_is_link_down(lab):
    sensor = lab.sensor({"gateway": "gateway.invalid"}, readings=1)
    assert_error(sensor, None, "LinkDown", within=20)


def test_terminate_at_the_gateway_is_obeyed_at_once(lab):
    """`swanctl --terminate` while the sensor is up; with no retries that is its end."""
    charon = lab.charon()
    echo = lab.echo()
    sensor = lab.sensor({"retries": 0}, readings=0)
    sensor.wait_for("reply", count=3)
    mark = len(charon.log())
    charon.terminate()
    assert sensor.wait(10) == 1, sensor.output
    (line,) = sensor.all("error")
    assert line["notify"] == "DELETE"
    assert line["check"]
    charon.wait_log("IKE_SA deleted", start=mark)
    assert charon.wait_sas(0) == []
    assert "retransmit" not in charon.log()[mark:]
    # What arrived is a prefix of what was sent.
    arrived = [line["data"] for line in echo.received()]
    assert readings(sensor)[: len(arrived)] == arrived


def test_after_a_terminate_the_sensor_comes_back_by_itself(lab):
    charon = lab.charon()
    echo = lab.echo()
    sensor = lab.sensor({"interval_ms": 20}, readings=0)
    sensor.wait_for("reply", count=3)
    charon.terminate()
    line = sensor.wait_for("error")
    assert line["notify"] == "DELETE"
    again = sensor.wait_for("up", count=2)
    assert again["spi_i"] != sensor.first("up")["spi_i"]
    (sa,) = charon.wait_sas(1)
    assert sa["initiator-spi"] == again["spi_i"]
    before = len(echo.received())
    echo.received(before + 5)


def test_a_sensor_that_lost_power_comes_back_as_the_same_one(lab):
    charon = lab.charon()
    echo = lab.echo()
    first = lab.sensor(readings=0)
    first.wait_for("reply")
    first.signal(9)
    again = lab.sensor(readings=3)
    assert again.wait() == 0, again.output
    assert again.first("up")["inner"] == first.first("up")["inner"]
    assert [json.loads(r["data"])["n"] for r in echo.received()[-3:]] == [1, 2, 3]
    charon.wait_log("received DELETE for IKE_SA")
    assert charon.wait_sas(0) == []


def test_icmp_errors_inside_the_tunnel_are_tolerated(lab):
    """No server listens: the gateway's kernel answers each reading with port unreachable."""
    charon = lab.charon()
    sensor = lab.sensor(readings=5)
    assert sensor.wait() == 0, sensor.output
    assert sensor.all("reply") == []
    assert sum(sensor.first("stats")["drops"].values()) >= 1
    charon.wait_log("received DELETE for IKE_SA")


def test_the_server_sees_plain_datagrams_from_the_profiles_ports(lab):
    lab.charon()
    echo = lab.echo(SERVER_4, 6001)
    sensor = lab.sensor({"server_port": 6001, "inner_port": 1234}, readings=1)
    assert sensor.wait() == 0
    assert [line["port"] for line in echo.received(1)] == [1234]


def test_only_ike_and_esp_in_udp_leave_the_sensor(lab, tmp_path):
    """What a reading says is nowhere on the wire in the clear."""
    lab.charon()
    lab.echo()
    capture = lab.sensor_ns.capture(tmp_path / "wire.pcap")
    sensor = lab.sensor(readings=3)
    assert sensor.wait() == 0
    capture.stop()
    wire = (tmp_path / "wire.pcap").read_bytes()
    assert len(wire) > 1000
    assert not any(reading in wire for reading in readings(sensor))
    assert b'"n"' not in wire and b"uptime" not in wire


def test_tshark_reads_a_session_with_the_key_log_and_not_without(lab, tmp_path):
    lab.charon()
    lab.echo()
    keylog = tmp_path / "ikev2_decryption_table"
    keylog.touch(0o600)
    capture = lab.sensor_ns.capture(tmp_path / "wire.pcap")
    sensor = lab.sensor({"keylog": str(keylog)}, readings=1)
    assert sensor.wait() == 0, sensor.output
    capture.stop()

    def shown(*options):
        return run("tshark", "-r", tmp_path / "wire.pcap", "-O", "isakmp", "-V", *options)

    assert SENSOR_ID not in shown()
    keys = [f"-ouat:ikev2_decryption_table:{line}" for line in keylog.read_text().splitlines()]
    assert len(keys) == 1
    opened = shown(*keys)
    assert SENSOR_ID in opened
    assert "INITIAL_CONTACT" in opened
    assert "[correct]" in opened or "Integrity Checksum" in opened


def test_a_key_log_that_others_can_read_is_refused(lab, tmp_path):
    keylog = tmp_path / "keys"
    keylog.touch(0o644)
    lab.charon()
    sensor = lab.sensor({"keylog": str(keylog)}, readings=1)
    assert sensor.wait() == 2, sensor.output
    assert sensor.stderr.count("\n") == 0 and "chmod 600" in sensor.stderr
    assert keylog.read_text() == ""


def test_the_compiled_firmware_runs_in_144_kib(lab, tmp_path):
    """Boards get .mpy; objects of the 64-bit unix port are twice as large as theirs."""
    mpy.stage(tmp_path)
    lab.charon()
    echo = lab.echo()
    sensor = lab.sensor(readings=10, heap="144k", firmware=tmp_path)
    assert_all_went_through(sensor, echo, 10, "10.9.0.1")


def test_the_gateway_may_be_a_name(lab):
    """Resolved by the host's own resolver, here its hosts file."""
    lab.charon()
    sensor = lab.sensor({"gateway": "localhost"} | IMPATIENT, readings=1)
    assert sensor.wait(10) == 1  # nobody there, yet resolved: silence, not a name failure
    assert sensor.first("error")["error"] == "LinkDown"
    assert GATEWAY_4 not in sensor.output
