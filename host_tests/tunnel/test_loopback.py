"""Sensors against the development gateway over real sockets on loopback; no root needed."""

import json
import os
import signal
import sys

import pytest

from tools.dev.lab import GATEWAY_ID, PSK, ROOT, SENSOR_ID, Process, Sensor, wait_until
from tools.devgateway.server import RunningGateway

QUICK = {
    "retransmit_ms": 100,
    "retransmit_tries": 3,
    "liveness_ms": 300,
    "retry_max_ms": 1000,
    "interval_ms": 20,
}


@pytest.fixture
def started():
    """`started(gateway, profile, ..)` -> Sensor; ended with the test."""
    sensors = []

    def start(gateway, profile=None, **options):
        where = {"gateway": "127.0.0.1", "port": gateway.port, "natt_port": gateway.natt_port}
        sensors.append(Sensor(where | (profile or {}), **options))
        return sensors[-1]

    yield start
    for sensor in sensors:
        sensor.stop()


def established(gateway):
    return list(gateway.call(lambda gateway, now: tuple(gateway.established_sas())))


def readings(gateway, id=SENSOR_ID):
    return [
        fields["text"]
        for name, fields in list(gateway.history)
        if name == "reading" and fields["id"] == id
    ]


def sent(sensor):
    return [line["data"] for line in sensor.all("sent")]


# Families


@pytest.mark.parametrize("outside", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("inside", ["10.3.0.10", "fd03::10"])
def test_each_family_travels_in_each(started, outside, inside):
    with RunningGateway({"any": PSK}, host=outside, pool6="fd09::/120") as gateway:
        sensor = started(gateway, {"gateway": outside, "server": inside}, readings=5)
        assert sensor.wait() == 0, sensor.output
        assert readings(gateway) == sent(sensor)
        assert len(sensor.all("reply")) == 5
        assert (":" in sensor.first("up")["inner"]) == (":" in inside)
        assert gateway.drops() == {} and sensor.first("stats")["drops"] == {}


def test_a_static_ipv6_address_inside(started):
    with RunningGateway({"any": PSK}) as gateway:
        profile = {"server": "fd03::10", "inner_address": "fd09:1::5"}
        sensor = started(gateway, profile, readings=3)
        assert sensor.wait() == 0, sensor.output
        assert gateway.wait_for("child_sa")["inner"] == "fd09:1::5"
        assert readings(gateway) == sent(sensor)


def test_the_gateway_may_be_a_name(started):
    with RunningGateway({"any": PSK}) as gateway:
        sensor = started(gateway, {"gateway": ["gateway.invalid", "localhost"]}, readings=1)
        # localhost may be ::1 first, where nobody listens.
        code = sensor.wait()
        assert code == 0 or sensor.all("error")[-1]["error"] == "LinkDown"
        assert sensor.all("error")[0]["error"] == "LinkDown"
        assert "gateway.invalid" in sensor.all("error")[0]["text"]


# Replacement


def test_twenty_replacements_by_time_and_by_packets_lose_double_and_delay_nothing(started):
    with RunningGateway({"any": PSK}) as gateway:
        profiles = [
            {"lifetime_ms": 1000, "interval_ms": 20},
            {"id": "sensor-2.example.org", "max_packets": 10, "interval_ms": 20},
        ]
        sensors = [started(gateway, profile, readings=1060) for profile in profiles]
        assert [sensor.wait() for sensor in sensors] == [0, 0]
        for sensor in sensors:
            stats = sensor.first("stats")
            assert stats["replaced"] >= 20
            assert stats["failed"] == stats["lost"] == 0
            assert sensor.all("error") == []
            mine = readings(gateway, sensor.profile["id"])
            assert mine == sent(sensor)
            assert [line["data"] for line in sensor.all("reply")] == mine
        assert established(gateway) == []
        assert gateway.drops() == {}


def test_replacements_over_a_bad_link_double_nothing_and_lose_only_what_the_link_lost(started):
    with RunningGateway({"any": PSK}, loss=15, seed=7) as gateway:
        profile = QUICK | {"lifetime_ms": 1000, "retransmit_tries": 6, "liveness_ms": 2000}
        sensor = started(gateway, profile, readings=200)
        assert sensor.wait() == 0, sensor.output
        stats = sensor.first("stats")
        assert stats["replaced"] >= 3
        got = readings(gateway)
        assert len(set(got)) == len(got)
        assert set(got) <= set(sent(sensor))
        # While a lost IKE_AUTH holds them up, some find no place in the application's queue.
        count = len(sent(sensor))
        assert 200 <= count + stats.get("unsent", 0) <= 200 + stats["replaced"], (count, stats)
        assert len(got) >= count * 0.75
        assert sensor.all("error") == []


def test_a_gateway_that_asks_for_cookies_replaces_as_well(started):
    with RunningGateway({"any": PSK}, cookie=True) as gateway:
        sensor = started(gateway, {"lifetime_ms": 1000, "interval_ms": 20}, readings=150)
        assert sensor.wait() == 0, sensor.output
        assert sensor.first("stats")["replaced"] >= 2
        assert readings(gateway) == sent(sensor)


# Coming back


@pytest.mark.parametrize("how", ["ike", "child"])
def test_a_deleted_sa_is_said_and_survived(started, how):
    with RunningGateway({"any": PSK}) as gateway:
        sensor = started(gateway, QUICK, readings=0)
        sensor.wait_for("reply", count=3)
        if how == "ike":
            gateway.delete_all()
        else:
            (child,) = gateway.call(lambda gateway, now: tuple(gateway.children.values()))
            gateway.call(lambda gateway, now: gateway.delete_child(child, now))
        line = sensor.wait_for("error")
        assert (line["error"], line["notify"]) == ("SaEnded", "DELETE")
        sensor.wait_for("up", count=2)
        sensor.wait_for("reply", count=len(sensor.all("reply")) + 5)
        assert len(established(gateway)) == 1
        got = readings(gateway)
        # A reading is there before the sensor says that it sent it.
        wait_until(lambda: set(got) <= set(sent(sensor)), 5, "the sensor's lines")
        assert got == [text for text in sent(sensor) if text in set(got)]
        assert len(set(sent(sensor)) - set(got)) <= 3


def test_with_no_retries_a_delete_ends_the_run_with_1(started):
    with RunningGateway({"any": PSK}) as gateway:
        sensor = started(gateway, {"retries": 0, "interval_ms": 20}, readings=0)
        sensor.wait_for("reply")
        gateway.delete_all()
        assert sensor.wait(10) == 1
        (line,) = sensor.all("error")
        assert (line["error"], line["notify"]) == ("SaEnded", "DELETE")


class Command:
    """`python -m tools devgateway` as a process that can be killed and started again."""

    def __init__(self, directory):
        self._secrets = directory / "psk.json"
        self._secrets.write_text(json.dumps({"psk": PSK}))
        self.port = self.natt_port = 0
        self.start()

    def start(self):
        command = [sys.executable, "-m", "tools", "devgateway", "--json", "--id", GATEWAY_ID]
        command += ["--secrets", self._secrets, "--bind", "127.0.0.1"]
        command += ["--port", self.port, "--natt-port", self.natt_port]
        self.process = Process(command, cwd=ROOT, split=True)
        ready = json.loads(self.process.wait_line(lambda line: '"ready"' in line))
        self.port, self.natt_port = ready["port"], ready["natt_port"]

    def kill(self):
        self.process.signal(signal.SIGKILL)
        self.process.wait()


def test_a_killed_gateway_is_missed_and_found_again_after_its_restart(started, tmp_path):
    gateway = Command(tmp_path)
    sensor = started(gateway, QUICK, readings=0)
    sensor.wait_for("reply", count=3)
    gateway.kill()
    sensor.wait_for("error", count=2)
    gateway.start()
    sensor.wait_for("up", count=2)
    sensor.wait_for("reply", count=len(sensor.all("reply")) + 5)
    assert {line["error"] for line in sensor.all("error")} == {"LinkDown"}
    gateway.process.stop()


# Memory

PROGRAM = """
import asyncio, gc, sys
from minipsec import load_profile
from minipsec.tunnel import Tunnel

async def main():
    pause, every = int(sys.argv[2]), int(sys.argv[3])
    tunnel = Tunnel(load_profile(sys.argv[1]))
    await tunnel.connect()
    for n in range(1, 1 + int(sys.argv[4])):
        await tunnel.send(b"reading %06d" % n)
        assert await tunnel.receive(2000), n
        await asyncio.sleep_ms(pause)
        if not n % every:
            gc.collect()
            print(n, gc.mem_alloc(), tunnel.counters["replaced"])
    await tunnel.close()

asyncio.run(main())
"""


@pytest.fixture
def heap(micropython, tmp_path):
    """`heap(changes of the profile, ms from reading to reading, every, count)`

    Returns [(reading, octets in use, replacements so far)] of every so many readings.
    """

    def run(changes, pause, every, count):
        with RunningGateway({"any": PSK}) as gateway:
            profile = {
                "gateway": "127.0.0.1",
                "port": gateway.port,
                "natt_port": gateway.natt_port,
                "gateway_id": GATEWAY_ID,
                "id": SENSOR_ID,
                "server": "10.3.0.10",
            }
            path = tmp_path / "profile.json"
            path.write_text(json.dumps(profile | changes))
            secrets = os.open(tmp_path / "secrets.json", os.O_WRONLY | os.O_CREAT, 0o600)
            with open(secrets, "w") as file:
                json.dump({"psk": PSK}, file)
            done = micropython(PROGRAM, path, pause, every, count, heap="512k")
            assert len(readings(gateway)) == count
        return [tuple(map(int, line.split())) for line in done.stdout.splitlines()]

    return run


def test_the_heap_after_ten_thousand_readings_is_that_after_a_hundred(heap):
    found = heap({}, 0, 100, 10000)
    assert (found[0][0], found[-1][0]) == (100, 10000)
    assert found[-1][1] <= found[0][1]


def test_the_heap_after_several_replacements_is_that_after_the_first(heap):
    found = heap({"lifetime_ms": 3000}, 10, 5, 1800)  # the last one lingers for a third of it
    lowest = {}
    for _, octets, replaced in found:
        lowest[replaced] = min(octets, lowest.get(replaced, octets))
    assert len(lowest) >= 5
    *_, last, _ = lowest.values()
    assert last <= lowest[1]
