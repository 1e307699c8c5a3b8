"""Whole sessions of the firmware on fake boards against the development gateway."""

import json

import pytest

from host_tests.boards.conftest import BOARDS, MAIN, PSK, named, profile
from tools.devgateway import RunningGateway

STATIC = ["127.0.0.1", "255.0.0.0", "127.0.0.254", "127.0.0.254"]


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_joins_its_network_and_sends_readings(fake, gateway, name):
    """Its clock wraps in the middle; addresses are tuples; four datagrams wait in a socket."""
    board = fake(name)
    board.give(
        profile(gateway, board, static_ip=STATIC, watchdog_ms=30000),
        {"psk": PSK, "wifi_key": "open sesame"},
    )
    events, seen = board.run(MAIN)
    assert [line["octets"] for line in named(events, "sent")]
    for line in named(events, "sent"):
        assert gateway.reading()["text"] == line["data"]
    assert len(named(events, "reply")) == 3
    assert named(events, "stats")[0]["drops"] == {}
    assert seen["made"] == 1
    assert seen["static"] == STATIC
    if board.facts["network"]["kind"] == "wifi":
        assert seen["joined"] == [["two words", "open sesame"]]
        # No power saving from the first message on, and again after IKE_AUTH.
        assert seen["pm"] == [0, 1]
    assert seen["watchdog"] == min(30000, board.facts["watchdog"]["max_ms"] or 30000)
    assert seen["fed"] > 10
    assert seen["widest_gap"] < 3000  # two slow key exchanges fit into the shortest one


@pytest.mark.parametrize("name", ["W5500_EVB_PICO", "ESP32_GENERIC"])
def test_a_board_makes_its_keys_from_noise(fake, gateway, name):
    board = fake(name)
    board.give(profile(gateway, board, readings=1), {"psk": PSK})
    for boot in range(2):
        _, seen = board.run(MAIN)
        rp2 = board.facts["port"] == "rp2"
        assert seen["noise_bits"] == (2048 if rp2 else 0)
        assert seen["urandom"] >= (200 if rp2 else 2048)
        assert [path for path in seen["flash_writes"] if "seed" in path] == ["seed.bin"]
        seed = (board.directory / "seed.bin").read_bytes()
        assert len(seed) == 40  # a seed and its check
        assert boot == 0 or seed != before  # noqa: F821
        before = seed  # noqa: F841


def test_an_esp32_connects_its_socket_to_an_ipv6_gateway(fake):
    board = fake("ESP32_GENERIC")
    with RunningGateway({"any": PSK}, host="::1") as gateway:
        board.give(profile(gateway, board, host="::1"), {"psk": PSK})
        events, seen = board.run(MAIN)
        assert len(named(events, "sent")) == 3
        assert gateway.reading()["text"]
    # Once for IKE_SA_INIT, once for all that comes after.
    assert seen["connects"] == [["::1", gateway.port], ["::1", gateway.natt_port]]


def test_an_rp2040_does_without(fake):
    board = fake("RPI_PICO_W")
    with RunningGateway({"any": PSK}, host="::1") as gateway:
        board.give(profile(gateway, board, host="::1"), {"psk": PSK})
        events, seen = board.run(MAIN)
        assert len(named(events, "sent")) == 3
    assert seen["connects"] == []


def naps(board, gateway, count, asleep_ms=600000, **more):
    """Run so many wake-ups; return their (events, seen)."""
    board.give(profile(gateway, board, readings=0, interval_ms=asleep_ms, **more), {"psk": PSK})
    return [board.run(MAIN, asleep_ms=asleep_ms if nap else 0) for nap in range(count)]


@pytest.mark.parametrize("name", ["RPI_PICO_W", "W5500_EVB_PICO", "ESP32_GENERIC_S3"])
def test_the_sa_outlives_deep_sleep_by_the_boards_own_policy(fake, gateway, name):
    """An RP2040's clock is at 2021-01-01 again each time, an ESP32's counts from 2000 and runs."""
    board = fake(name)
    runs = naps(board, gateway, 4, sleep=board.facts["sleep"])
    assert [bool(named(events, "up")) for events, _ in runs] == [True, False, False, False]
    assert [bool(named(events, "resumed")) for events, _ in runs] == [False, True, True, True]
    sns = [line["sn"] for events, _ in runs for line in named(events, "sent")]
    assert len(sns) == 4 and sns == sorted(set(sns))
    assert gateway.drops() == {}
    for _ in range(4):
        gateway.reading()
    for events, seen in runs:
        assert seen["slept"] == [["deep", 600000]]
        assert seen["off"] >= 1  # the radio, before the sleep
    later = [path for _, seen in runs[1:] for path in seen["flash_writes"]]
    if board.facts["port"] == "esp32":
        assert later == []
        ages = [named(events, "resumed")[0]["age_ms"] for events, _ in runs[1:]]
        assert all(n * 600000 < age < (n + 1) * 600000 for n, age in enumerate(ages, start=1))
        assert sns[1] - sns[0] >= 6000  # ticks of 100 ms
    else:
        assert set(later) == {"sa.mark"}


def test_an_rp2040_with_a_watchdog_sleeps_in_slices(fake, gateway):
    board = fake("RPI_PICO_W")
    ((_, seen),) = naps(board, gateway, 1, 21000, sleep="mark", watchdog_ms=8000)
    *slices, end = seen["slept"]
    assert end == ["reset", 0]
    assert sum(ms for _, ms in slices) == 21000
    assert all(kind == "light" and ms <= 4000 for kind, ms in slices)


def test_without_a_network_the_board_says_so_tries_on_and_keeps_its_readings(fake, gateway):
    """Wi-Fi comes back after 3 s; what was sampled meanwhile arrives, the oldest first."""
    board = fake("RPI_PICO_W")
    board.give(profile(gateway, board, readings=30, interval_ms=100, batch=8), {"psk": PSK})
    program = """
import asyncio, sensor
from host_tests.boards.fake import Facade
from minipsec import uplink
# 20 s without Wi-Fi become 1 s.
uplink.asyncio = Facade(asyncio, sleep_ms=lambda ms: asyncio.sleep_ms(ms // 20))

async def repair():
    await asyncio.sleep_ms(3000)
    board.radio = "works"

asyncio.create_task(repair())
sensor.run([])"""
    events, seen = board.run(program, radio="never")
    errors = named(events, "error")
    assert errors and "no network" in errors[0]["text"]
    assert len(seen["joined"]) >= 2  # each attempt starts afresh
    lines = "\n".join(line["data"] for line in named(events, "sent")).split("\n")
    assert [json.loads(line)["n"] for line in lines] == list(range(1, 31))
    assert len(named(events, "sent")) < 15
    arrived = "\n".join(gateway.reading()["text"] for _ in named(events, "sent"))
    assert arrived.split("\n") == lines


def test_a_lost_network_is_joined_again(fake, gateway):
    board = fake("RPI_PICO_W")
    more = {"liveness_ms": 300, "retransmit_ms": 100, "retransmit_tries": 2, "retry_max_ms": 1000}
    board.give(profile(gateway, board, readings=40, interval_ms=100, **more), {"psk": PSK})
    program = """
import asyncio, sensor

async def walk():
    await asyncio.sleep_ms(1000)
    board.nic.lose()

asyncio.create_task(walk())
sensor.run([])"""
    events, seen = board.run(program)
    assert len(seen["joined"]) == 2
    assert len(named(events, "up")) == 2
    ns = [json.loads(line["data"])["n"] for line in named(events, "sent")]
    assert ns == list(range(1, 41))
