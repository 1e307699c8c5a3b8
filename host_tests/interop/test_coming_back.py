"""A running sensor and a strongSwan that ends, restarts, moves, falls silent or presses for keys.

The echo server behind the gateway is the witness of what arrived.
"""

import os
import pathlib
import shutil
import time

import pytest

from tools.dev.lab import GATEWAY_4, SENSOR_ID, Lab, wait_until

# Silence is noticed in 0.3 s + 0.7 s, and pauses are a second at most.
QUICK = {
    "retransmit_ms": 100,
    "retransmit_tries": 3,
    "liveness_ms": 300,
    "retry_max_ms": 1000,
    "interval_ms": 20,
}
ELSEWHERE = "10.77.0.3"


@pytest.fixture
def lab():
    with Lab() as lab:
        yield lab


@pytest.fixture
def nat_lab():
    with Lab(nat=True) as lab:
        yield lab


def sent(sensor):
    return [line["data"].encode() for line in sensor.all("sent")]


def arrived(echo):
    return [line["data"] for line in echo.received()]


def running(lab, **changes):
    """A sensor that reports for ever and has had three answers."""
    sensor = lab.sensor(QUICK | changes, readings=0)
    sensor.wait_for("reply", count=3)
    return sensor


def assert_back(sensor, ups=2, timeout=10):
    """It came up again and its readings are answered again; return the line of the new SA."""
    line = sensor.wait_for("up", count=ups, timeout=timeout)
    sensor.wait_for("reply", count=len(sensor.all("reply")) + 5)
    return line


def missing(sensor, echo):
    """End the sensor; return the readings that never arrived. None came twice or out of order."""
    sensor.signal(9)
    sensor.wait()
    readings = sent(sensor)
    got = arrived(echo)
    if got[-1] not in readings:
        got.pop()  # it was ended between sending the last one and saying so
    assert len(set(got)) == len(got)
    assert got == [data for data in readings if data in set(got)]
    return [data for data in readings[: readings.index(got[-1])] if data not in set(got)]


def assert_only_the_last_are_missing(sensor, echo, most):
    """At most so many readings are missing, all of them from just before the sensor knew."""
    lost = missing(sensor, echo)
    assert len(lost) <= most, lost
    before = []
    waiting = []
    for line in sensor.events:
        if line["event"] == "sent":
            waiting.append(line["data"].encode())
        elif line["event"] in ("error", "up"):
            before += waiting[-most:] if most else ()
            waiting = []
    assert set(lost) <= set(before)


# The gateway ends it.


@pytest.mark.parametrize("what", ["ike", "child"])
def test_terminate_is_said_and_survived(lab, what):
    charon = lab.charon()
    echo = lab.echo()
    sensor = running(lab)
    if what == "ike":
        charon.terminate()
    else:
        charon.swanctl("--terminate", "--child", "readings")
    line = sensor.wait_for("error")
    assert (line["error"], line["notify"]) == ("SaEnded", "DELETE")
    assert line["check"]
    up = assert_back(sensor)
    assert up["spi_i"] != sensor.first("up")["spi_i"]
    (sa,) = charon.wait_sas(1)
    assert sa["initiator-spi"] == up["spi_i"]
    assert len(sensor.all("error")) == 1
    assert_only_the_last_are_missing(sensor, echo, most=2)


def test_a_killed_gateway_is_missed_and_found_again_after_its_restart(lab):
    """It forgot every SA and says nothing to packets of SAs that it does not know."""
    charon = lab.charon()
    echo = lab.echo()
    sensor = running(lab)
    charon.kill()
    charon.start()
    # Readings wait from the first question that is not answered, and an SA is tried beside.
    sensor.wait_for("warning")
    assert_back(sensor)
    # What went out until the silence was noticed is gone: 0.4 s of it.
    assert_only_the_last_are_missing(sensor, echo, most=40)


def test_a_gateway_that_is_silent_for_long_is_tried_again_and_again(lab):
    charon = lab.charon()
    echo = lab.echo()
    sensor = running(lab)
    lab.gateway_ns.drop("udp dport { 500, 4500 }")
    sensor.wait_for("error", count=4)
    held = len(sent(sensor))
    lab.gateway_ns.undrop()
    assert_back(sensor)
    assert {line["error"] for line in sensor.all("error")} == {"LinkDown"}
    # While it was down no reading went out: each waited for its turn.
    assert held < 120
    assert len(charon.wait_sas(1)) == 1
    assert_only_the_last_are_missing(sensor, echo, most=120)


def test_a_half_open_sa_that_the_gateway_forgets_is_only_one_attempt_lost(lab):
    charon = lab.charon(settings={"half_open_timeout": 1})
    echo = lab.echo()
    sensor = running(lab, retransmit_ms=400)
    dropped = lab.gateway_ns.drop("udp dport 4500 udp length > 250")  # IKE_AUTH
    charon.terminate()
    charon.wait_log("half open IKE_SA with .* after timeout")
    assert dropped() >= 2
    lab.gateway_ns.undrop()
    assert_back(sensor)
    assert [line["error"] for line in sensor.all("error")] == ["SaEnded", "LinkDown"]
    assert_only_the_last_are_missing(sensor, echo, most=2)


# Something moved.


def test_a_nat_that_forgot_its_mapping_costs_no_reading(nat_lab):
    """strongSwan goes on sending to the old port; a new SA mends that (make before break)."""
    charon = nat_lab.charon()
    echo = nat_lab.echo()
    sensor = running(nat_lab)
    assert sensor.first("up")["nat"] is True
    nat_lab.remap("30000-39999")
    up = assert_back(sensor)
    assert up["spi_i"] != sensor.first("up")["spi_i"]
    assert sensor.all("error") == []
    (sa,) = charon.wait_sas(1)
    assert 30000 <= int(sa["remote-port"]) < 40000
    # What the router dropped as it restarted is missing, and nothing later.
    lost = [sent(sensor).index(data) for data in missing(sensor, echo)]
    assert len(lost) <= 15
    assert not lost or lost == list(range(lost[0], lost[0] + len(lost)))


def test_an_interface_that_goes_and_comes_loses_nothing_but_what_is_on_the_wire(lab):
    """Shorter than it takes to give the gateway up: readings wait, and go out by this SA or the next."""
    lab.charon()
    echo = lab.echo()
    sensor = running(lab, liveness_ms=20000, retransmit_tries=7)
    lab.sensor_ns.ip("link", "set", "wan", "down")

    def still():
        mark = len(sent(sensor))
        time.sleep(1)
        return len(sent(sensor)) == mark

    wait_until(still, 5, "readings that wait")
    lab.sensor_ns.ip("link", "set", "wan", "up")
    sensor.wait_for("reply", count=len(sensor.all("reply")) + 10)
    assert sensor.all("error") == []
    assert len(missing(sensor, echo)) <= 2


def test_an_interface_that_is_gone_for_long_ends_the_sa_and_it_comes_back(lab):
    lab.charon()
    echo = lab.echo()
    sensor = running(lab)
    lab.sensor_ns.ip("link", "set", "wan", "down")
    sensor.wait_for("error", count=3)
    lab.sensor_ns.ip("link", "set", "wan", "up")
    assert_back(sensor)
    assert {line["error"] for line in sensor.all("error")} == {"LinkDown"}
    assert_only_the_last_are_missing(sensor, echo, most=2)


def test_a_new_address_of_the_sensors_is_no_loss(lab):
    """A DHCP server gave another one: packets leave from it, and the gateway follows."""
    charon = lab.charon()
    echo = lab.echo()
    sensor = running(lab)
    lab.sensor_ns.ip("addr", "add", "10.77.0.7/24", "dev", "wan")
    lab.sensor_ns.ip("addr", "del", "10.77.0.2/24", "dev", "wan")
    # The kernel takes a secondary address away with its primary one.
    lab.sensor_ns.ip("addr", "replace", "10.77.0.7/24", "dev", "wan")
    assert_back(sensor)
    (sa,) = charon.wait_sas(1)
    assert sa["remote-host"] == "10.77.0.7"
    assert_only_the_last_are_missing(sensor, echo, most=2)


@pytest.fixture
def hosts(lab):
    """Write the sensor's hosts file: `hosts(address)` is where gw.test is then."""
    folder = pathlib.Path("/etc/netns") / lab.sensor_ns.name
    folder.mkdir(parents=True)
    path = folder / "hosts"

    def write(address):
        # In place: `ip netns exec` mounts this very file over /etc/hosts.
        with open(path, "w") as file:
            file.write(f"127.0.0.1 localhost\n{address} gw.test\n")

    write(GATEWAY_4)
    yield write
    shutil.rmtree(folder)
    if not os.listdir(folder.parent):
        folder.parent.rmdir()


def test_a_gateway_whose_name_is_now_elsewhere_is_found_there(lab, hosts):
    lab.charon()
    echo = lab.echo()
    sensor = running(lab, gateway="gw.test")
    lab.gateway_ns.ip("addr", "add", f"{ELSEWHERE}/24", "dev", "wan")
    lab.gateway_ns.drop(f"ip daddr {GATEWAY_4} udp dport {{ 500, 4500 }}")
    sensor.wait_for("error")
    hosts(ELSEWHERE)
    assert_back(sensor)
    assert_only_the_last_are_missing(sensor, echo, most=120)


def test_gateways_of_a_list_are_tried_in_turn_at_first_and_later(lab):
    lab.gateway_ns.ip("addr", "add", f"{ELSEWHERE}/24", "dev", "wan")
    lab.charon()
    echo = lab.echo()
    sensor = running(lab, gateway=["10.77.0.9", "nowhere.invalid", GATEWAY_4, ELSEWHERE])  # fmt: skip
    assert sensor.first("up")["gateway"] == GATEWAY_4
    assert len(sensor.all("error")) == 2
    lab.gateway_ns.drop(f"ip daddr {GATEWAY_4} udp dport {{ 500, 4500 }}")
    assert assert_back(sensor)["gateway"] == ELSEWHERE
    assert_only_the_last_are_missing(sensor, echo, most=120)


# What the gateway asks for.


def test_dpd_of_the_gateway_is_answered(lab):
    charon = lab.charon(edits=[("dpd_delay = 0s", "dpd_delay = 1s")])
    lab.echo()
    sensor = lab.sensor({"interval_ms": 3500, "liveness_ms": 0}, readings=2)
    assert sensor.wait() == 0, sensor.output
    log = charon.log()
    assert log.count("sending DPD request") >= 2
    assert "retransmit" not in log
    assert len(sensor.all("up")) == 1


@pytest.mark.parametrize(
    "edit",
    [
        (
            "rekey_time = 0s\n    reauth",
            "rekey_time = 3s\n    rand_time = 0s\n    over_time = 20s\n    reauth",
        ),
        (
            "rekey_time = 0s\n        #",
            "rekey_time = 3s\n        rand_time = 0s\n        life_time = 20s\n        #",
        ),
    ],
    ids=["ike", "child"],
)
def test_a_gateway_that_presses_for_new_keys_gets_new_sas_and_every_reading(lab, edit):
    charon = lab.charon(edits=[edit])
    echo = lab.echo()
    sensor = running(lab)
    sensor.wait_for("up", count=3, timeout=15)
    assert sensor.all("error") == []
    assert "NO_ADD_SAS" in charon.log()
    assert len(wait_until(lambda: charon.list_sas(), 5, "an SA")) <= 2
    assert_only_the_last_are_missing(sensor, echo, most=0)


@pytest.mark.item("D6")
def test_a_gateway_that_wants_us_to_authenticate_again_is_served_in_time(lab):
    """strongSwan tells by AUTH_LIFETIME when (RFC 4478), and ends the SA where nobody comes."""
    times = "reauth_time = 10s\n    rand_time = 0s\n    over_time = 1s"
    charon = lab.charon(edits=[("reauth_time = 0s", times)])
    echo = lab.echo()
    sensor = running(lab)
    sensor.wait_for("up", count=4, timeout=45)
    assert sensor.all("error") == []
    assert "AUTH_LFT" in charon.log()
    assert_only_the_last_are_missing(sensor, echo, most=0)


@pytest.mark.item("H4", "I5")
def test_twenty_replacements_lose_double_and_delay_no_reading(lab):
    """By time and by packets, side by side."""
    psk = "0x" + "22" * 32
    charon = lab.charon(secrets={SENSOR_ID: psk, "sensor-2.example.org": psk})
    echo = lab.echo()
    steady = {"interval_ms": 25, "lifetime_ms": 1000}
    other = {"id": "sensor-2.example.org", "inner_port": 5002, "interval_ms": 25}
    sensors = [
        lab.sensor(steady, {"psk": psk}, readings=830),
        lab.sensor(other | {"experimental": {"max_packets": 10}}, {"psk": psk}, readings=880),
    ]
    assert [sensor.wait() for sensor in sensors] == [0, 0]
    for sensor, port in zip(sensors, (5000, 5002), strict=True):
        stats = sensor.first("stats")
        assert stats["replaced"] >= 20
        assert stats["failed"] == stats["lost"] == 0
        assert sensor.all("error") == []
        mine = [line["data"] for line in echo.received() if line["port"] == port]
        assert mine == sent(sensor)
        # On a busy machine answers come in bursts, and a program that is late has room for eight.
        answers = [line["data"].encode() for line in sensor.all("reply")]
        assert answers == [data for data in mine if data in set(answers)]
        assert len(answers) + stats["drops"].get("INBOX_FULL", 0) == len(mine)
    wait_until(lambda: not charon.list_sas(), 5, "every SA to be deleted")
    assert charon.log().count("due to uniqueness policy") >= 20
