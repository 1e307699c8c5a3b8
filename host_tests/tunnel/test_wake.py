"""Wake-ups of the real sensor on the unix port, where the end of a process stands for the sleep."""

import contextlib
import json
import os
import socket
import subprocess

import pytest

from tools.dev.lab import Sensor
from tools.common import mpy
from tools.devgateway import RunningGateway

HOST = "127.0.0.1"

# What a wake-up has no use for: the handshake and all that belongs to it.
ASLEEP = {
    "app.led", "app.spool", "board.address", "board.entropy", "board.network", "board.raw_esp",
    "crypto.cbc", "crypto.drbg", "crypto.kdf", "handshake.auth", "handshake.intermediate",
    "handshake.ppk", "handshake.sa_init", "ike.established", "ike.fragack", "ike.fragment",
    "ike.sa", "ike.wire", "kex.groups", "kex.keccak", "kex.methods", "kex.mlkem",
    "kex.x25519_thumb", "refusals", "selftest",
}  # fmt: skip
# The checkers of profiles are forgotten again.
GONE = {"config." + name for name in "checks keylog old profile proposals refused secrets".split()}

MODULES = """
import sys
import sensor
from minipsec.app import run as loop
log = loop.reporter("json")

def tell(event, fields):
    log(event, fields)
    if event == "sent":
        print("loaded", " ".join(sys.modules))

loop.reporter = lambda kind: tell
sys.exit(loop.run(sensor, [%r, "1"]))
"""

# Takes up the SA, changes something, sends readings, takes what answers, sleeps again.
SESSION = """
import asyncio, sys
sys.path.append(".frozen")
from minipsec import load_profile; from minipsec.board import port
from minipsec.app.log import reporter
from minipsec.tunnel import Tunnel
profile = load_profile(sys.argv[1])
log = reporter("json")

async def session():
    tunnel = Tunnel.resume(profile, log) or Tunnel(profile, log)
    async with tunnel:
%s
asyncio.run(session())
"""


@pytest.fixture(scope="module")
def firmware(tmp_path_factory):
    directory = tmp_path_factory.mktemp("firmware")
    mpy.stage(directory)
    return directory


@pytest.fixture
def gateway():
    with RunningGateway({"any": "wake"}) as gateway:
        yield gateway


@pytest.fixture
def asleep(gateway, firmware):
    """Make sensors that have an SA and sleep: `asleep(sleep="mark", ..)` -> Sensor."""
    made = []

    def make(firmware=firmware, **profile):
        sensor = Sensor(
            {
                "gateway": HOST,
                "port": gateway.port,
                "natt_port": gateway.natt_port,
                "sleep": "clock",
                "retry_max_ms": 1000,
                **profile,
            },
            {"psk": "wake"},
            1,
            firmware=firmware,
        )
        made.append(sensor)
        assert sensor.wait() == 0, sensor.output
        assert sensor.first("reply")
        return sensor

    yield make
    for sensor in made:
        sensor.stop()


def session(micropython, sensor, body, **options):
    """Run a wake-up of our own; return its events."""
    body = "".join(" " * 8 + line + "\n" for line in body.strip().splitlines())
    done = micropython(SESSION % body, sensor.profile_path, **options)
    return [json.loads(line) for line in done.stdout.splitlines()]


def named(events, name):
    return [event for event in events if event["event"] == name]


def told(gateway, name):
    return [fields for event, fields in gateway.history if event == name]


def dropped(gateway):
    """Stop the gateway; return what it dropped."""
    gateway.stop()
    return told(gateway, "stats")[0]["drops"]


def test_a_wake_up_loads_nothing_of_the_handshake(asleep, micropython, firmware):
    sensor = asleep()
    program = f"import sys\nsys.path[:0] = [{str(firmware)!r}]\n"
    done = micropython(program + MODULES % str(sensor.profile_path), heap="256k")
    assert '"resumed"' in done.stdout
    (loaded,) = [line for line in done.stdout.splitlines() if line.startswith("loaded")]
    ours = {
        name.removeprefix("minipsec.") for name in loaded.split() if name.startswith("minipsec.")
    }
    assert not ours & (ASLEEP | GONE), ours
    # A module that goes by another name now is still looked for.
    assert {name.replace("/", ".") for name in mpy.modules()} > ASLEEP | GONE
    assert {"esp.snapshot", "esp.sequence", "esp.sa", "crypto.ccm", "link", "tunnel"} <= ours


@pytest.mark.parametrize("policy", ["clock", "mark"])
def test_many_wake_ups_are_one_sa_and_one_datagram_each(asleep, gateway, policy):
    sensor = asleep(sleep=policy, esp=["aes256ccm16-esn", "aes128ccm8", "aes128ccm12"])
    for _ in range(6):
        sensor.start(1)
        assert sensor.wait() == 0, sensor.output
        assert sensor.first("resumed") and sensor.first("reply")
        stats = sensor.first("stats")
        assert (stats["datagrams_out"], stats["datagrams_in"]) == (1, 1)
    assert len(told(gateway, "child_sa")) == 1 and dropped(gateway) == {}


def test_the_seal_of_a_profile_is_the_same_at_each_start(micropython, tmp_path):
    """`words` has tuples for keys, and their hashes depend on where the heap lies."""
    program = """
from minipsec.config import profile as store; from minipsec.esp import snapshot
p = store.check_profile({"gateway": "g", "gateway_id": "any", "id": "s@x", "server": "10.0.0.1",
    "esp": ["aes128ccm8", "aes256ccm16-esn", "aes128ccm12", "aes128ccm8iiv", "aes256ccm8"],
    "ike": ["aes256ccm16-prfsha256-x25519", "aes128ccm8-prfsha256-ecp256-modp2048"]})
print(snapshot._seal(p, b"").hex())
"""
    assert len({micropython(program).stdout for _ in range(12)}) == 1


def test_readings_go_on_with_a_new_sa_when_the_numbers_are_used_up(asleep, gateway, micropython):
    for policy in ("mark", "clock"):
        sensor = asleep(sleep=policy)
        gateway.reading()
        events = session(
            micropython,
            sensor,
            """
numbers = tunnel._link.sender.numbers
numbers._end = numbers.last + 6
for n in range(20):
    await tunnel.send(b"%d" % n)
await tunnel.suspend()
""",
        )
        assert len(named(events, "resumed")) == len(named(events, "up")) == 1
        assert [gateway.reading()["text"] for _ in range(20)] == [str(n) for n in range(20)]
    assert dropped(gateway) == {}


def test_a_mark_that_cannot_be_kept_stops_the_sa_and_not_the_reading(asleep, gateway, micropython):
    """A full disk, a read-only one: the reading takes a new SA, which nobody can take up."""
    sensor = asleep(sleep="mark")
    gateway.reading()
    events = session(
        micropython,
        sensor,
        """
tunnel.memory.write = lambda name, octets: False
await tunnel.send(b"by a new SA")
print('{"event": "kept", "kept": %d}' % await tunnel.suspend())
""",
    )
    assert gateway.reading()["text"] == "by a new SA"
    assert [event["error"] for event in named(events, "error")].count("SaEnded") == 1
    assert named(events, "refused")[0]["reason"] == "NOT_KEPT"
    assert not named(events, "kept")[0]["kept"]
    assert dropped(gateway) == {}


def test_a_second_process_with_the_same_files_gets_an_sa_of_its_own(asleep, gateway):
    sensor = asleep(interval_ms=100)
    gateway.reading()
    sensor.start(8)
    sensor.wait_for("resumed")
    environment = {**os.environ, **sensor._environment}
    command = [str(word) for word in [*sensor._command, 3]]
    other = subprocess.run(
        command, check=True, env=environment, capture_output=True, text=True, timeout=30
    )
    events = [json.loads(line) for line in other.stdout.splitlines()]
    assert named(events, "resumed") == [] and len(named(events, "up")) == 1
    assert sensor.wait() == 0, sensor.output
    # The gateway forgot the first one's SA for the second one's, as INITIAL_CONTACT says; but no
    # number came twice.
    assert "REPLAY" not in dropped(gateway)


def test_a_taken_port_means_a_new_sa(asleep, gateway):
    sensor = asleep()
    octets = (sensor.directory / "sa.bin").read_bytes()
    port = int.from_bytes(octets[11:13], "big")
    assert 49152 <= port < 65536
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", port))
        sensor.start(1)
        assert sensor.wait() == 0
    assert sensor.all("resumed") == [] and len(sensor.all("up")) == 1


# One wake-up's reading; the server may be silent, so the wait is short.
WAKE = """
await tunnel.send(b"anyone there?")
await tunnel.receive(timeout_ms=300)
kept = await tunnel.suspend()
unconfirmed = tunnel.stats()["unconfirmed"]
print('{"event": "kept", "kept": %d, "unconfirmed": %d}' % (kept, unconfirmed))
"""


@contextlib.contextmanager
def forgetful(firmware, echo=True, **profile):
    """A sensor that sleeps with an SA that its gateway has forgotten; and that gateway."""
    with RunningGateway({"any": "wake"}, echo=echo) as gateway:
        ports = {"port": gateway.port, "natt_port": gateway.natt_port}
        more = {"gateway": HOST, "sleep": "mark", **ports, **profile}
        sensor = Sensor(more, {"psk": "wake"}, 1, firmware=firmware)
        assert sensor.wait() == 0 and bool(sensor.all("reply")) == echo
    with RunningGateway({"any": "wake"}, echo=echo, **ports) as gateway:
        yield sensor, gateway
    sensor.stop()


@pytest.mark.item("D4")
def test_a_gateway_that_lost_the_sa_costs_one_reading_where_the_server_answers(
    micropython, firmware
):
    with forgetful(firmware) as (sensor, gateway):
        events = session(micropython, sensor, WAKE)
        assert named(events, "resumed")
        (told,) = named(events, "kept")
        assert (told["kept"], told["unconfirmed"]) == (0, 1)
        events = session(micropython, sensor, WAKE)
        assert named(events, "up") and named(events, "reply")
        (told,) = named(events, "kept")
        assert (told["kept"], told["unconfirmed"]) == (1, 0)
        assert gateway.reading()["text"] == "anyone there?"
        # From now on it answers.
        events = session(micropython, sensor, WAKE)
        assert named(events, "resumed") and named(events, "kept")[0]["kept"]


@pytest.mark.item("D4")
@pytest.mark.parametrize("most", [1, 3, None])
def test_a_gateway_that_lost_the_sa_costs_a_bounded_number_where_nothing_answers(
    micropython, firmware, most
):
    more = {"silent_wakes": most} if most else {}
    with forgetful(firmware, echo=False, **more) as (sensor, gateway):
        lost = warnings = 0
        while True:
            events = session(micropython, sensor, WAKE)
            if named(events, "up"):
                break
            assert named(events, "resumed")
            lost += 1
            assert named(events, "kept")[0]["unconfirmed"] == 1
            warnings += len(named(events, "warning"))
        assert lost == (most or 6) and warnings == 1
        assert gateway.reading()["text"] == "anyone there?"
        # It holds for as many again.
        for _ in range(most or 6):
            assert named(session(micropython, sensor, WAKE), "resumed")
        assert named(session(micropython, sensor, WAKE), "up")


@pytest.mark.item("D4")
def test_a_server_that_stays_silent_costs_one_handshake_more_and_then_as_many_as_before(
    micropython, firmware
):
    """Its answers stopped, and not for want of the gateway: the new SA never had any."""
    with RunningGateway({"any": "wake"}, echo=True) as gateway:
        ports = {"port": gateway.port, "natt_port": gateway.natt_port}
        sensor = Sensor(
            {"gateway": HOST, "sleep": "mark", **ports}, {"psk": "wake"}, 1, firmware=firmware
        )
        assert sensor.wait() == 0 and sensor.first("reply")
    with RunningGateway({"any": "wake"}, echo=False, **ports):
        ups = [bool(named(session(micropython, sensor, WAKE), "up")) for _ in range(9)]
    assert ups == [False, True] + 6 * [False] + [True]
    sensor.stop()


@pytest.mark.item("D6")
def test_an_sa_whose_gateway_ended_it_in_the_sleep_is_not_taken_up(asleep, micropython):
    sensor = asleep(sleep="mark", interval_ms=600000)
    body = """
assert tunnel.up.is_set()
tunnel.on_rare("lifetime", tunnel._link, %d)  # RFC 4478
await tunnel.send(b"x")
await tunnel.receive(timeout_ms=5000)
await tunnel.suspend()"""
    events = session(micropython, sensor, body % 86400)
    assert named(events, "resumed") and not named(events, "refused")
    assert named(session(micropython, sensor, body % 300), "resumed")
    events = session(micropython, sensor, body % 300)
    assert [event["reason"] for event in named(events, "refused")] == ["TOO_OLD"]
    assert named(events, "up") and not named(events, "resumed")
