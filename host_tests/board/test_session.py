"""Whole sessions of the firmware on fake boards against the development gateway."""

import json

import pytest

from host_tests.board.conftest import BOARDS, LOOP, MAIN, PSK, RUN, asleep, named, profile
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
    assert seen["fed"] >= 3
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
        assert asleep(seen)[1] == 600000
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
    assert asleep(seen) == ("light", 21000)
    assert all(ms <= 4000 for _, ms in seen["slept"])


@pytest.mark.item("D1")
@pytest.mark.parametrize(
    ("name", "ms", "watchdog_ms"),
    [
        (name, ms, watchdog_ms)
        for name in ("RPI_PICO_W", "ESP32_GENERIC")
        for ms in (0, 1, 3600000, 4294966, 4294967, 7200000, 1 << 29)
        for watchdog_ms in (0, 8000)
        # A quarter of a million slices would take minutes here.
        if not (watchdog_ms and name == "RPI_PICO_W" and ms > 7200000)
    ],
)
def test_a_sleep_has_any_length(fake, gateway, name, ms, watchdog_ms):
    """An RP2040 sleeps 71 minutes in one piece at most; on an ESP32 0 would be for ever."""
    board = fake(name)
    policy = board.facts["sleep"]
    ((events, seen),) = naps(board, gateway, 1, ms, sleep=policy, watchdog_ms=watchdog_ms)
    assert len(named(events, "sent")) == 1
    if name == "RPI_PICO_W":
        how, slept = asleep(seen)
        assert how == "light" and ms - 2000 < slept <= ms  # less what passes in between
    else:
        assert asleep(seen) == ("deep", max(ms, 1))


# A host on USB, or a pin: the sleep ends at once, each time.
EARLY = """
import machine, time
calls = []
def lightsleep(ms):
    calls.append(ms)
    time._real.sleep_ms({early})
machine.lightsleep = lightsleep
began = time._real.ticks_ms()
try:
    import main
finally:
    took = time._real.ticks_diff(time._real.ticks_ms(), began)
    print(json.dumps({{"event": "early", "took": took, "calls": len(calls)}}))
"""


@pytest.mark.item("D2")
@pytest.mark.parametrize("watchdog_ms", [0, 8000])
@pytest.mark.parametrize("early", [0, 5])
def test_a_light_sleep_that_ends_early_is_gone_on_with(fake, gateway, watchdog_ms, early):
    board = fake("RPI_PICO_W")
    more = {"readings": 0, "interval_ms": 3000, "sleep": "mark", "watchdog_ms": watchdog_ms}
    board.give(profile(gateway, board, **more), {"psk": PSK})
    events, seen = board.run(EARLY.format(early=early))
    (told,) = named(events, "early")
    assert told["took"] >= 3000
    assert 1 < told["calls"] <= 3000 // 100 + 10  # and no hot loop
    assert seen["slept"] == [["reset", 0]]
    # Flash is written for the reading, and not for a sleep that was cut short.
    assert [path for path in seen["flash_writes"] if "sa." in path] == [
        "sa.mark", "sa.mark", "sa.bin",
    ]  # fmt: skip


@pytest.mark.item("D2")
def test_a_light_sleep_that_ends_early_once_in_a_while_sleeps_the_rest(fake, gateway):
    board = fake("RPI_PICO_W")
    more = {"readings": 0, "interval_ms": 60000, "sleep": "mark", "watchdog_ms": 8000}
    board.give(profile(gateway, board, **more), {"psk": PSK})
    program = """
import machine
real = machine.lightsleep
n = [0]
def lightsleep(ms):
    n[0] += 1
    real(ms if n[0] % 4 else ms * 6 // 10)
machine.lightsleep = lightsleep
import main"""
    _, seen = board.run(program)
    how, ms = asleep(seen)
    assert how == "light" and 60000 - 500 <= ms <= 60000


RAISES = """
import machine, time
def refuse(*_):
    raise {error}
for name in {names}:
    setattr(machine, name, refuse)
{more}
import main"""


@pytest.mark.item("A8")
@pytest.mark.parametrize("name", ["RPI_PICO_W", "ESP32_GENERIC"])
@pytest.mark.parametrize("error", ["OSError(5)", "ValueError('sleep')", "RuntimeError()"])
def test_a_board_whose_sleep_raises_waits_awake_and_starts_anew(fake, gateway, name, error):
    board = fake(name)
    more = {"readings": 0, "interval_ms": 1000, "sleep": board.facts["sleep"]}
    board.give(profile(gateway, board, **more), {"psk": PSK})
    off = """
board.nic.active, real = lambda on=None: refuse() if on is False else real(on), board.nic.active
board.nic.deinit = refuse"""
    names = ["lightsleep", "deepsleep"]
    events, seen = board.run(RAISES.format(error=error, names=names, more=off))
    assert len(named(events, "sent")) == 1
    assert seen["slept"] == [["reset", 0]]


@pytest.mark.item("A8")
@pytest.mark.parametrize("main", [False, True])
@pytest.mark.parametrize("sleep", ["off", "mark"])
def test_a_reset_that_comes_back_is_followed_by_a_soft_one(fake, gateway, sleep, main):
    """Never by the prompt, with nothing said."""
    board = fake("RPI_PICO_W")
    board.give(profile(gateway, board, readings=0, sleep=sleep), {"psk": PSK})
    if sleep == "off":
        (board.directory / "profile.json").write_text("{")
    program = """
import machine, sys, time
time.sleep_ms = time.sleep = lambda ms: None
machine.reset = machine.lightsleep = lambda *ms: None
def tell(e, *_):
    print(json.dumps({"event": "told"}))
sys.print_exception = tell
try:
    RUN
except SystemExit:
    print(json.dumps({"event": "soft reset"}))
else:
    print(json.dumps({"event": "prompt"}))"""
    if main:
        (board.directory / "sensor.py").write_text("raise OSError(5)\n")
        run = "sys.path.insert(0, board.directory)\n    import main"
    else:
        run = (LOOP + "loop.AGAIN_MS = 1" + RUN).replace("\n", "\n    ")
    events, _ = board.run(program.replace("RUN", run))
    assert events[-1] == {"event": "soft reset"}


# A sensor.py that uses RTC memory itself, and what it saw there.
APPLICATION = """
import json, machine
rtc = machine.RTC()
before = rtc.memory()
n = before[-1] if before[:4] == b"APP1" else 0
print(json.dumps({"event": "told", "n": n, "octets": len(before)}))
def sample(k):
    return b"count %d" % (n + 1)
rtc.memory(b"APP1" + bytes([n + 1]))
"""
OWN = "import sys\nsys.path.insert(0, board.directory)\nimport main"


@pytest.mark.item("D7")
@pytest.mark.parametrize("errno", [28, 30])
@pytest.mark.parametrize("spool", [False, True])
def test_a_full_or_read_only_disk_stops_no_reading(fake, gateway, errno, spool):
    """From the first wake-up on, or from the second one on, which finds an SA there."""
    board = fake("RPI_PICO_W")
    program = f"""
import builtins, sys
from host_tests.board.fake import Facade
real = builtins.open
def refuse(*_):
    raise OSError({errno})
def opened(path, mode="r", *rest):
    return real(path, mode, *rest) if mode[0] == "r" else refuse()
builtins.open = opened
for name in ("rename", "remove"):
    setattr(sys.modules["os"], name, refuse)
import sensor
from minipsec.app import run as loop
sensor.SPOOL = "spool.bin" if {spool} else None
loop.run(sensor, [])"""
    more = {"readings": 0, "interval_ms": 600000, "sleep": "mark"}
    board.give(profile(gateway, board, **more), {"psk": PSK})
    for run in (program, program, MAIN, program, program, MAIN, MAIN, MAIN):
        events, seen = board.run(run)
        assert len(named(events, "sent")) == 1
        refused = [line["reason"] for line in named(events, "refused")]
        assert refused == (["NOT_KEPT"] if run is program else []), refused
        assert asleep(seen) == ("light", 600000)
    # One wake-up took up the SA from before, which the disk did not let go of, in vain.
    assert named(events, "resumed") and named(events, "reply")


@pytest.mark.item("D3")
def test_rtc_memory_is_the_applications_too(fake, gateway):
    """It writes all of it, reads back what it wrote, and that costs no handshake."""
    board = fake("ESP32_GENERIC")
    more = {"readings": 0, "interval_ms": 600000, "sleep": "clock"}
    board.give(profile(gateway, board, **more), {"psk": PSK})
    (board.directory / "sensor.py").write_text(APPLICATION)
    runs = [board.run(OWN, asleep_ms=600000 if nap else 0) for nap in range(4)]
    told = [named(events, "told")[0] for events, _ in runs]
    assert [(line["n"], line["octets"]) for line in told] == [(0, 0), (1, 5), (2, 5), (3, 5)]
    assert [bool(named(events, "resumed")) for events, _ in runs] == [False, True, True, True]
    assert not any(named(events, "refused") for events, _ in runs)
    assert gateway.drops() == {}


@pytest.mark.item("D3")
@pytest.mark.parametrize(
    ("boot", "reason"),
    [
        ("rtc.memory(b'mine')", "OVERWRITTEN"),
        ("o = bytearray(rtc.memory()); o[20] ^= 1; rtc.memory(o)", "DAMAGED"),
    ],
)
def test_what_was_written_over_our_part_is_said_and_costs_a_handshake(fake, gateway, boot, reason):
    """By a boot.py, before anything of ours was loaded."""
    board = fake("ESP32_GENERIC")
    naps(board, gateway, 1, sleep="clock")
    program = f"import machine\nrtc = machine.RTC()\n{boot}\n" + MAIN
    events, _ = board.run(program, asleep_ms=600000)
    assert [line["reason"] for line in named(events, "refused")] == [reason]
    assert named(events, "up") and named(events, "sent") and not named(events, "resumed")
    events, _ = board.run(MAIN, asleep_ms=600000)
    assert named(events, "resumed") and not named(events, "refused")


@pytest.mark.item("D3")
def test_without_room_in_rtc_memory_the_applications_part_stays_whole(fake, gateway):
    board = fake("ESP32_GENERIC")
    program = "import machine\n" + LOOP + "rtc = machine.RTC()\n"
    program += "print(json.dumps({'event': 'told', 'octets': len(rtc.memory())}))\n"
    program += "rtc.memory(bytes(1950))" + RUN
    more = {"readings": 0, "interval_ms": 600000, "sleep": "clock"}
    board.give(profile(gateway, board, **more), {"psk": PSK})
    runs = [board.run(program, asleep_ms=600000 if nap else 0) for nap in range(2)]
    for events, _ in runs:
        assert [line["reason"] for line in named(events, "refused")][-1] == "NO_ROOM"
        assert named(events, "up") and named(events, "sent")
    assert named(runs[1][0], "told")[0]["octets"] == 1950


@pytest.mark.item("D3")
def test_a_wake_up_without_the_radio_keeps_the_sa(fake, gateway):
    board = fake("ESP32_GENERIC")
    program = LOOP + "sensor.SPOOL = 'spool.bin'" + RUN
    more = {"readings": 0, "interval_ms": 600000, "sleep": "clock", "batch": 2}
    board.give(profile(gateway, board, **more), {"psk": PSK})
    runs = [board.run(program, asleep_ms=600000 if nap else 0) for nap in range(6)]
    assert [bool(named(e, "sent")) for e, _ in runs] == [False, True] * 3
    assert [bool(named(e, "up")) for e, _ in runs] == [False, True, False, False, False, False]
    assert [bool(named(e, "resumed")) for e, _ in runs] == [False, False, False, True, False, True]
    assert not any(named(events, "refused") for events, _ in runs)


def test_without_a_network_the_board_says_so_tries_on_and_keeps_its_readings(fake, gateway):
    """Wi-Fi comes back after 3 s; what was sampled meanwhile arrives, the oldest first."""
    board = fake("RPI_PICO_W")
    board.give(profile(gateway, board, readings=30, interval_ms=100, batch=8), {"psk": PSK})
    program = """
import asyncio, sensor
from minipsec.app import run as loop
from host_tests.board.fake import hurry_network

hurry_network(20)  # 20 s without Wi-Fi become 1 s

async def repair():
    await asyncio.sleep_ms(3000)
    board.radio = "works"

asyncio.create_task(repair())
loop.run(sensor, [])"""
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
from minipsec.app import run as loop

async def walk():
    await asyncio.sleep_ms(1000)
    board.nic.lose()

asyncio.create_task(walk())
loop.run(sensor, [])"""
    events, seen = board.run(program)
    assert len(seen["joined"]) == 2
    assert len(named(events, "up")) == 2
    ns = [json.loads(line["data"])["n"] for line in named(events, "sent")]
    assert ns == list(range(1, 41))


ODD_RTC = {
    "raises OSError": "lambda: Facade(None, memory=refuse(OSError(5)))",
    "raises RuntimeError": "lambda: Facade(None, memory=refuse(RuntimeError()))",
    "gives None": "lambda: Facade(None, memory=lambda *_: None)",
    "is not to be had": "refuse(OSError(5))",
}


@pytest.mark.item("A8", "D3")
@pytest.mark.parametrize("odd", ODD_RTC)
def test_rtc_memory_that_does_not_work_costs_the_sa_alone(fake, gateway, odd):
    """Not the import of minipsec, which would end at the prompt."""
    board = fake("ESP32_GENERIC")
    program = f"""
import machine
from host_tests.board.fake import Facade
def refuse(error):
    def raises(*_):
        raise error
    return raises
machine.RTC = {ODD_RTC[odd]}
import main"""
    more = {"readings": 0, "interval_ms": 600000, "sleep": "clock"}
    board.give(profile(gateway, board, **more), {"psk": PSK})
    for nap in range(2):
        events, seen = board.run(program, asleep_ms=600000 if nap else 0)
        assert named(events, "up") and len(named(events, "sent")) == 1
        assert asleep(seen) == ("deep", 600000)


@pytest.mark.item("D3")
def test_a_board_with_less_rtc_memory_says_so(fake, gateway):
    board = fake("ESP32_GENERIC")
    program = """
import machine
from host_tests.board.fake import Facade
def memory(octets=None):
    if octets is not None and len(octets) > 64:
        raise ValueError("buffer too long")
    return board.rtc_memory() if octets is None else board.rtc_memory(octets)
machine.RTC = lambda: Facade(None, memory=memory)
import main"""
    more = {"readings": 0, "interval_ms": 600000, "sleep": "clock"}
    board.give(profile(gateway, board, **more), {"psk": PSK})
    events, _ = board.run(program)
    assert [line["reason"] for line in named(events, "refused")] == ["NO_ROOM"]
    assert len(named(events, "sent")) == 1


@pytest.mark.item("A8")
@pytest.mark.parametrize("name", ["RPI_PICO_W", "W5500_EVB_PICO", "ESP32_GENERIC"])
@pytest.mark.parametrize("odd", ["()", "None", "('',)", "refuse()", "('1.2', '', '', '')"])
def test_an_interface_that_does_not_tell_its_address_still_carries(fake, gateway, name, odd):
    board = fake(name)
    board.give(profile(gateway, board, readings=1), {"psk": PSK})
    program = f"""
import network
from host_tests.board import fake
def refuse():
    raise RuntimeError
for kind in (fake.WLAN, fake.Ethernet):
    kind.ifconfig = lambda *_: {odd}
import main"""
    events, _ = board.run(program)
    assert named(events, "up") and not named(events, "error")
    assert len(named(events, "sent")) == 1
