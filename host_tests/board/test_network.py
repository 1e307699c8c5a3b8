"""The network a board is really in: Wi-Fi that refuses, lies or wants its settings, IPv6, strangers."""

import json
import socket

import pytest

from host_tests.board.conftest import PSK, item, named, profile
from tools.devgateway import RunningGateway

QUICK = {
    "liveness_ms": 300,
    "retransmit_ms": 50,
    "retransmit_tries": 3,
    "retry_max_ms": 1000,
}
# `after(ms, what)` happens while sensor.py runs.
PROGRAM = """
import asyncio, sensor
from minipsec.app import run as loop
from host_tests.board import fake as fakes
fakes.hurry_network(40)
loop.PAUSE_MS = 60

async def _after(ms, what):
    await asyncio.sleep_ms(ms)
    what()

def after(ms, what):
    asyncio.create_task(_after(ms, what))

def end():
    raise PowerOff(0)

{edits}
loop.run(sensor, [])"""


def run(board, gateway, edits="", settings=None, secrets=None, host="127.0.0.1", **more):
    more = QUICK | more
    given = profile(gateway, board, host=host, **more)
    if more.get("mode") == "transport":
        del given["server"]
    board.give(given, {"psk": PSK, **(secrets or {})})
    return board.run(PROGRAM.format(edits=edits), **(settings or {}))


@item("F8")
@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("ESP32_GENERIC", 202, "its key is refused"),
        ("ESP32_GENERIC", 201, "it is not in reach"),
        ("RPI_PICO_W", -3, "its key is refused"),
        ("RPI_PICO_W", -2, "it is not in reach"),
    ],
)
def test_without_wifi_the_error_names_it_and_says_why(fake, gateway, name, status, words):
    settings = {"radio": "never", "status": status}
    events, _ = run(fake(name), gateway, "after(2000, end)", settings)
    line = named(events, "error")[0]
    assert line["error"] == "LinkDown"
    assert words in line["text"] and str(status) in line["text"] and "two words" in line["text"]
    assert "wifi_key" in line["check"] and "firewall" not in line["check"]


@item("F8")
def test_without_a_cable_the_error_is_about_ethernet(fake, gateway):
    events, _ = run(fake("W5500_EVB_PICO"), gateway, "after(2000, end)", {"radio": "never"})
    line = named(events, "error")[0]
    assert "Ethernet" in line["text"] and "cable" in line["check"]


@item("G1")
@pytest.mark.parametrize("name", ["RPI_PICO_W", "ESP32_GENERIC"])
def test_country_security_and_power_saving_are_the_profiles(fake, gateway, name):
    more = {"country": "DE", "security": "wpa3", "power_saving": "off"}
    events, seen = run(fake(name), gateway, **more)
    assert len(named(events, "sent")) == 3
    assert seen["country"] == "DE"
    # An ESP32 knows no such argument, and finds out by itself.
    assert seen["security"] == (0x1000004 if name == "RPI_PICO_W" else None)
    assert set(seen["pm"]) == {0}


@item("G1")
def test_power_saving_that_the_owner_switched_off_stays_off(fake, gateway):
    edits = "board.nic.active(True)\nboard.nic.config(pm=0)"
    _, seen = run(fake("RPI_PICO_W"), gateway, edits)
    assert seen["pm"][-1] == 0


DEAF = """
fill, sendto = fakes.Socket._fill, fakes.Socket.sendto
active = board.nic.active
dead = []

def _fill(self):
    while dead:
        try:
            self._real.recvfrom(1600)
        except OSError:
            return
    fill(self)

def cycled(on=None):
    if on is False:
        dead.clear()
    return active(on)

fakes.Socket._fill = _fill
fakes.Socket.sendto = lambda self, octets, to: len(octets) if dead else sendto(self, octets, to)
board.nic.active = cycled
after(500, lambda: dead.append(True))
"""


@item("D9")
def test_wifi_that_says_connected_and_passes_nothing_is_switched_off_and_on(fake, gateway):
    board = fake("RPI_PICO_W")
    events, seen = run(board, gateway, DEAF, readings=60, interval_ms=50, retransmit_tries=2)
    assert len(named(events, "up")) == 2
    errors = [line["error"] for line in named(events, "error")]
    assert 4 <= len(errors) <= 6 and set(errors) == {"LinkDown"}
    last = json.loads(named(events, "sent")[-1]["data"])
    assert last["n"] == 60


@item("A9")
def test_a_w5500_is_asked_only_when_it_is_on(fake, gateway):
    events, seen = run(fake("W5500_EVB_PICO"), gateway)
    assert len(named(events, "sent")) == 3
    assert seen["asked_when_off"] == 0 and seen["made"] == 1


@item("A9")
def test_a_w5500_in_a_network_of_ipv6_alone_is_connected(fake):
    edits = "fakes.Ethernet.isconnected_ = fakes.Ethernet.isconnected"
    with RunningGateway({"any": PSK}, host="::1") as gateway:
        board = fake("W5500_EVB_PICO")
        # The fake's sockets ask for a connection; that of a W5500 is there all the same.
        edits = """
fakes.Socket.sendto = lambda self, octets, to: self._real.sendto(
    octets, fakes.real_socket.getaddrinfo(*to)[0][-1])
room = board.facts["network"]["udp_queue"]
def _fill(self):
    try:
        while len(self._queue) < room:
            self._queue.append(self._real.recvfrom(1600))
    except OSError:
        pass
fakes.Socket._fill = _fill
"""
        events, _ = run(board, gateway, edits, {"radio": "six"}, host="::1")
    assert len(named(events, "sent")) == 3


@item("A9", "A7")
@pytest.mark.parametrize("found", ["raise OSError(-2)", "return []"])
def test_a_name_that_has_no_ipv4_address_says_to_write_the_address_itself(fake, gateway, found):
    edits = f"""
import socket
real = socket.getaddrinfo
def getaddrinfo(host, *rest):
    if host == "gw.example.org":
        {found}
    return real(host, *rest)
socket.getaddrinfo = getaddrinfo
after(1500, end)
"""
    events, _ = run(fake("RPI_PICO_W"), gateway, edits, host="gw.example.org")
    errors = named(events, "error")
    assert len(errors) >= 2
    assert errors[0]["error"] == "LinkDown" and "gw.example.org" in errors[0]["text"]
    assert "IPv6" in errors[0]["check"]


@item("A6")
@pytest.mark.parametrize("name", ["ESP32_GENERIC", "RPI_PICO_W"])
def test_transport_mode_with_an_ipv6_gateway_is_refused_at_once(fake, name):
    with RunningGateway({"any": PSK}, host="::1") as gateway:
        edits = "after(3000, end)"
        events, _ = run(fake(name), gateway, edits, host="::1", mode="transport")
    line = named(events, "error")[0]
    assert line["error"] == "UsageError" and "tunnel" in line["check"]


STRANGER = """
import socket as sockets
def empty():
    probe = fakes.real_socket.socket()
    probe = fakes.real_socket.socket(fakes.real_socket.AF_INET, fakes.real_socket.SOCK_DGRAM)
    for port in PORTS:
        probe.sendto(b"", fakes.real_socket.getaddrinfo("127.0.0.1", port)[0][-1])
PORTS = []
bind = fakes.Socket.bind
def bound(self, address):
    bind(self, address)
    PORTS.append(address[1])
fakes.Socket.bind = bound
sample = sensor.sample
def strange(n):
    empty()
    return sample(n)
sensor.sample = strange
"""


@item("A4")
def test_an_empty_datagram_of_a_stranger_is_dropped_and_counted_by_an_sa_that_slept(fake, gateway):
    board = fake("ESP32_GENERIC")
    more = {"sleep": "clock", "readings": 3, "interval_ms": 100}
    drops = []
    for nap in range(2):
        edits = STRANGER
        events, _ = run(board, gateway, edits, {"asleep_ms": 1000 if nap else 0}, **more)
        assert named(events, "resumed" if nap else "up")
        assert len(named(events, "sent")) == 3 and len(named(events, "reply")) == 3
        drops.append(named(events, "stats")[0]["drops"])
    assert drops[1]["BAD_LENGTH"] >= 1


@item("D10")
def test_answers_to_readings_that_waited_find_room(fake, gateway):
    board = fake("RPI_PICO_W")
    edits = """
import minipsec
from minipsec.board import port
online = port.online
taken = []
async def late(profile, afresh=False):
    while len(taken) < 32:
        await asyncio.sleep_ms(10)
    return await online(profile)
port.online = late
sample = sensor.sample
def counted(n):
    taken.append(n)
    return sample(n)
sensor.sample = counted
board.facts["network"]["udp_queue"] = 64
"""
    events, seen = run(board, gateway, edits, readings=32, interval_ms=10)
    assert len(named(events, "sent")) == 32
    drops = named(events, "stats")[0]["drops"]
    assert drops == {} and len(named(events, "reply")) == 32, (drops, seen["lost"])


KILL = """
from minipsec import tunnel as tunnels
def kill():
    print(json.dumps({{"event": "told", "values": ["killed"]}}))
    fed = board.seen["fed"]
    alive[0].{what}.cancel()
    after(400, lambda: board.seen.update(fed_before=board.seen["fed"] - fed))
alive = []
start = tunnels.Tunnel._start
def started(self, *rest):
    start(self, *rest)
    alive.append(self)
tunnels.Tunnel._start = started
import machine
wdt = machine.WDT
from minipsec.board import port as port_max
port_max._MAX_DOG = 400
after(800, kill)
def late():
    board.seen["fed_at_end"] = board.seen["fed"]
    end()
after(3500, lambda: board.seen.update(fed_later=board.seen["fed"]))
after(4500, late)
"""


@item("A8")
def test_the_watchdog_bites_when_the_keeper_is_dead(fake, gateway):
    board = fake("RPI_PICO_W")
    edits = KILL.format(what="_keeper")
    _, seen = run(board, gateway, edits, readings=0, interval_ms=50, watchdog_ms=5000)
    assert seen["fed_at_end"] == seen["fed_later"]  # nobody feeds any more


@item("A8")
@pytest.mark.parametrize("what", ["_link._reader"])
def test_a_pump_that_stands_still_is_noticed_and_the_tunnel_comes_back(fake, gateway, what):
    board = fake("RPI_PICO_W")
    edits = KILL.format(what=what)
    events, seen = run(board, gateway, edits, readings=0, interval_ms=50, watchdog_ms=5000)
    assert named(events, "error")[0]["error"] == "Failure"
    assert len(named(events, "up")) == 2
    assert seen["fed_at_end"] > seen["fed_later"]


@item("A8")
def test_a_log_or_an_led_that_raises_ends_nothing_and_is_counted(fake, gateway):
    edits = """
lines = []
def log(event, fields):
    lines.append((event, fields))
    if event != "stats":
        raise RuntimeError("no room on the card")
    print(json.dumps(dict(fields, event="stats")))
loop.reporter = lambda kind: log
"""
    events, _ = run(fake("RPI_PICO_W"), gateway, edits)
    stats = named(events, "stats")[0]
    assert stats["sent"] == 3 and stats["skipped"] > 3 and stats["faults"] == 0
