"""port.py and network.py on fake boards: network, watchdog, clocks, addresses, sleep."""

import json

import pytest

from host_tests.board.conftest import BOARDS, asleep, item

START = """
import asyncio
from host_tests.board.fake import Facade
from minipsec.board import port, network as joining
asyncio = Facade(asyncio, sleep_ms=lambda ms: real_sleep(ms // 100))
real_sleep = asyncio._real.sleep_ms
joining.asyncio = asyncio
profile = {profile!r}

def tell(*values):
    print(json.dumps({{"event": "told", "values": values}}))

async def main():
{body}

asyncio.run(main())
"""
# One of each port and kind of interface; test_session has all five.
KINDS = ("RPI_PICO_W", "W5500_EVB_PICO", "ESP32_GENERIC_C3")
PROFILE = {
    "network": "wifi",
    "ssid": "cellar",
    "country": None,
    "security": "auto",
    "power_saving": "on",
    "static_ip": None,
    "watchdog_ms": 0,
}


def run(board, body, settings=None, **profile):
    """Run the body of a coroutine on the board; return (what it told, what the fakes saw)."""
    wired = {} if board.facts["network"]["kind"] == "wifi" else {"network": "ethernet"}
    text = START.format(
        profile={**PROFILE, **wired, **profile},
        body="\n".join("    " + line for line in body.strip().splitlines()),
    )
    # network is forgotten after each use, so it is kept here.
    text = text.replace(
        "from minipsec.board import port", "import minipsec\nfrom minipsec.board import port"
    )
    keep = "minipsec.forget = lambda *names: None\njoining.asyncio"
    text = text.replace("joining.asyncio", keep, 1)
    events, seen = board.run(text, **(settings or {}))
    return [event["values"] for event in events], seen


def test_wifi_is_joined_with_and_without_a_key(fake):
    for key in ("open sesame", None):
        secrets = {"wifi_key": key} if key else {}
        told, seen = run(fake("ESP32_GENERIC"), "tell(await port.online(profile))", **secrets)
        assert told == [[True]]
        assert seen["joined"] == [["cellar", key]]


def test_a_slow_access_point_is_waited_for(fake):
    told, seen = run(fake("RPI_PICO_W"), "tell(await port.online(profile))", {"radio": "slow"})
    # 20 s that pass a hundred times as fast here; the access point takes 2 s of ours.
    assert told == [[False]]
    body = (
        "tell(await port.online(profile))\nboard.radio = 'works'\ntell(await port.online(profile))"
    )
    told, seen = run(fake("RPI_PICO_W"), body, {"radio": "slow"})
    assert told == [[False], [True]]
    assert len(seen["joined"]) == 2


@pytest.mark.parametrize("name", KINDS)
def test_one_interface_for_ever_and_no_second_join(fake, name):
    body = "\n".join(["tell(await port.online(profile), port.nic.ifconfig()[0])"] * 3)
    told, seen = run(fake(name), body)
    assert told == [[True, "127.0.0.1"]] * 3
    assert seen["made"] == 1
    assert len(seen["joined"]) <= 1


@pytest.mark.parametrize("name", KINDS)
def test_without_a_network_the_interface_is_off_until_the_next_attempt(fake, name):
    body = "tell(await port.online(profile), port.nic.active())\n" * 2
    told, seen = run(fake(name), body, {"radio": "never"})
    assert told == [[False, False]] * 2
    assert seen["off"] == 2


def test_up_means_hands_off(fake):
    told, seen = run(fake("W5500_EVB_PICO"), "tell(await port.online(profile))", network="up")
    assert told == [[True]] and seen["made"] == 0


def test_a_pc_has_its_network_already(micropython):
    program = """
import asyncio
from minipsec.board import port
profile = {"network": "wifi", "power_saving": "on", "watchdog_ms": 9000}
port.begin(profile)
print(asyncio.run(port.online(profile)), port.nic, port._dog)
port.hurry(True)
port.deep_sleep(1000)
"""
    assert micropython(program).stdout.split() == ["True", "None", "None"]


@pytest.mark.parametrize("name", KINDS)
def test_power_saving_is_off_in_a_hurry_where_there_is_any(fake, name):
    body = "await port.online(profile)\nport.hurry(True)\nport.hurry(False)"
    board = fake(name)
    _, seen = run(board, body)
    assert seen["pm"] == ([0, 1] if board.facts["network"]["kind"] == "wifi" else [])
    _, seen = run(board, "port.hurry(True)")
    assert seen["pm"] == []


@pytest.mark.parametrize("name", KINDS)
def test_the_watchdog_is_as_long_as_the_board_takes(fake, name):
    board = fake(name)
    most = board.facts["watchdog"]["max_ms"] or 1 << 29
    for ms in (5000, 60000):
        _, seen = run(board, "port.begin(profile)\nport.begin(profile)", watchdog_ms=ms)
        assert seen["watchdog"] == min(ms, most)
    assert run(board, "port.begin(profile)")[1]["watchdog"] is None


@item("A8")
def test_an_idle_program_feeds_it_as_long_as_all_who_promised_are_heard_of(fake):
    board = fake("RPI_PICO_W")
    # The feeder sleeps a quarter of the 5 s: 3 s of idling are two or three meals.
    body = "joining.asyncio = asyncio._real\nport.begin(profile)\nawait real_sleep(3000)"
    _, seen = run(board, body, watchdog_ms=5000)
    assert 2 <= seen["fed"] <= 4 and seen["widest_gap"] < 1500
    late = "from minipsec.tasks import alive\nalive('sampling', 1000)\n" + body
    _, seen = run(board, late, watchdog_ms=5000)
    assert seen["fed"] <= 1
    told, seen = run(
        board, late + "\nalive('sampling', None)\nawait real_sleep(3000)", watchdog_ms=5000
    )
    assert 2 <= seen["fed"] <= 4
    # Nor is a look at the clock a sign that readings move.
    body = "clock = port.Clock()\nport.begin(profile)\nfor _ in range(50):\n    clock.now()"
    assert run(board, body, watchdog_ms=5000)[1]["fed"] == 0


def test_a_key_exchange_is_fed_for_before_it_begins(fake):
    """The slowest takes 3.2 s on an RP2040 and nothing can feed in between."""
    board = fake("RPI_PICO_W")
    body = "port.begin(profile)\nfed = board.seen['fed']\nport.rand(32)\ntell(board.seen['fed'] - fed)"
    assert run(board, body, watchdog_ms=5000)[0] == [[1]]


def test_a_clock_over_the_wrap_of_ticks(fake):
    body = """
clock = port.Clock()
before = port.time.ticks_ms()
await real_sleep(600)
tell(clock.now(), before > port.time.ticks_ms())
"""
    ((ms, wrapped),), _ = run(fake("ESP32_GENERIC_C3"), body, {"ticks": (1 << 30) - 200})
    assert wrapped and 590 <= ms < 60000  # not a wrap more or less, however busy the PC


@pytest.mark.parametrize("name", KINDS)
def test_the_wall_clock_has_the_boards_epoch(fake, name):
    board = fake(name)
    ((ms,),), _ = run(board, "from minipsec.sleep import wall\ntell(wall())")
    if board.facts["clock"]["epoch"] == 1970:
        assert 0 <= ms - 1609459200000 < 5000  # 2021-01-01, after each hard reset
    else:
        assert 0 <= ms < 5000  # 2000-01-01


def test_tuples_for_addresses(fake):
    body = """
address = port.resolve("127.0.0.1", 500)
tell(address, port.with_port(address, 4500), list(port.packed(address)[0]), port.packed(address)[1])
tell(port.packed(("fd00::1", 500)), port.with_port(("fd00::1", 500), 4500))
tell(port.resolve("::1", 500))
from minipsec.errors import address_text as text
tell(text(b"\\x0a\\1\\2\\3"), text(bytes(15) + b"\\1"))
"""
    for name in ("RPI_PICO_W", "ESP32_GENERIC_S3"):
        told, _ = run(fake(name), body)
        assert told[0] == [["127.0.0.1", 500], ["127.0.0.1", 4500], [127, 0, 0, 1], 500]
        assert told[1] == [None, ["fd00::1", 4500]]
        assert told[2] == [["::1", 500]]
        assert told[3] == ["10.1.2.3", "0:0:0:0:0:0:0:1"]


@pytest.mark.parametrize("name", KINDS)
def test_a_burst_beyond_the_queue_is_lost_and_what_is_there_is_drained(fake, name):
    board = fake(name)
    body = """
await port.online(profile)
receiver = port.UDP(("127.0.0.1", 500))
sender = port.UDP(("127.0.0.1", 500))
for n in range(10):
    sender.send(b"%d" % n, ("127.0.0.1", receiver.port))
await real_sleep(20)
got = []
while True:
    found = receiver.receive()
    if not found:
        break
    got.append((found[0].decode(), found[1][1] == sender.port))
tell(got, receiver.local[0] == bytes((127, 0, 0, 1)), receiver.local[1] == receiver.port)
"""
    room = board.facts["network"]["udp_queue"]
    (told,), seen = run(board, body)
    assert told == [[[str(n), True] for n in range(room)], True, True]
    assert seen["lost"] == 10 - room


def test_sending_without_a_network_is_a_loss_and_no_error(fake):
    body = """
await port.online(profile)
udp = port.UDP(("127.0.0.1", 500))
port.nic.active(False)
tell(udp.send(b"x", ("127.0.0.1", 500)), udp.receive())
"""
    assert run(fake("RPI_PICO_W"), body)[0] == [[False, None]]


def test_esp_straight_on_ip_is_refused_by_an_error_that_the_driver_knows(fake):
    body = """
from minipsec.board.raw_esp import ESP
for target in (("127.0.0.1", 500), ("::1", 500)):
    try:
        ESP(target)
    except (OSError, AttributeError) as e:
        tell(type(e).__name__)
"""
    assert run(fake("RPI_PICO_W"), body)[0] == [["OSError"]] * 2


@pytest.mark.parametrize("name", KINDS)
def test_sleep_switches_the_interface_off_first(fake, name):
    _, seen = run(fake(name), "await port.online(profile)\nport.deep_sleep(5000)")
    assert asleep(seen)[1] == 5000
    assert seen["off"] >= 1


def test_the_table_of_ports_says_what_the_boards_say(root):
    source = (root / "firmware/minipsec/board/port.py").read_text()
    table = eval(source.split("_PORTS = ")[1].split("\n")[0])
    for name in BOARDS:
        facts = json.loads((root / "boards" / name / "board.json").read_text())
        strong, sendto_6, longest, awake = table[facts["port"]]
        assert not strong
        assert sendto_6 == facts["network"]["sendto_ipv6"]
        assert longest == (facts["watchdog"]["max_ms"] or 1 << 29)
        assert awake == facts["watchdog"]["runs_in_sleep"]


@item("A8", "A9")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("odd", ["status", "ipconfig"])
def test_a_driver_that_knows_no_ipv6_or_no_state_joins_all_the_same(fake, name, odd):
    body = f"""
def refuse(*_):
    raise ValueError("unknown config param")
from host_tests.board import fake
late = [5]
for kind in (fake.WLAN, fake.Ethernet):
    kind.{odd} = refuse
    def isconnected(self):
        late[0] -= 1
        return late[0] < 0
    kind.isconnected = isconnected
    if "{odd}" == "ipconfig":
        kind.status = lambda *_: 2
tell(await port.online(profile), port.why)"""
    told, _ = run(fake(name), body)
    assert told == [[True, ""]]


@item("A3")
def test_power_saving_without_memory_for_it_is_left_as_it_is(fake):
    body = """
await port.online(profile)
def refuse(*_):
    raise MemoryError
joining.hurry = refuse
port.hurry(True)
from minipsec import tasks
tell(tasks.skipped > 0)"""
    told, _ = run(fake("RPI_PICO_W"), body)
    assert told == [[True]]


@item("A8")
def test_a_clock_that_steps_back_stands_still(fake):
    body = """
import time
clock = port.Clock()
before = clock.now()
real = time.ticks_ms
for back in (1, 50, 1 << 26):
    time.ticks_ms = lambda: time.ticks_add(real(), -back)
    clock.now()
time.ticks_ms = real
tell(clock.now() - before)
real = port.time.ticks_ms()
port.time.ticks_ms = lambda: time.ticks_add(real, 10 * 86400000)
at = clock.now()
tell(clock.now() - at, at > 9 * 86400000)"""
    told, _ = run(fake("ESP32_GENERIC"), body)
    assert told[0][0] < (1 << 26) + 10000
    assert told[1] == [0, True]
