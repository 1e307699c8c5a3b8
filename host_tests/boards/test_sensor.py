"""sensor.py as its owner edits it: the hooks, batches, the spool, the LED, the log."""

import concurrent.futures
import itertools

import pytest

from host_tests.boards.conftest import PSK, named, profile
from tools.devgateway import RunningGateway


@pytest.fixture
def board(fake):
    return fake("RPI_PICO_W")


def run(board, edits="", **settings):
    """Run sensor.py after some edits of its owner's."""
    return board.run(f"import sensor\n{edits}\nsensor.run([])", **settings)


def texts(gateway, count):
    return [gateway.reading()["text"] for _ in range(count)]


def test_the_owners_sample_is_what_arrives(board, gateway):
    board.give(profile(gateway, board), {"psk": PSK})
    run(board, "sensor.sample = lambda n: b'21.%d' % n")
    assert texts(gateway, 3) == ["21.1", "21.2", "21.3"]


def test_a_sample_that_fails_costs_one_reading(board, gateway):
    """An I2C error, nothing to say, too much to say: the next one is asked for all the same."""
    board.give(profile(gateway, board, readings=6), {"psk": PSK})
    edits = """
def sample(n):
    if n == 2:
        raise OSError(5)
    return {3: None, 4: bytes(1201), 5: b""}.get(n, b"reading %d" % n)
sensor.sample = sample"""
    events, _ = run(board, edits)
    assert [line["data"] for line in named(events, "sent")] == ["reading 1", "reading 6"]
    assert texts(gateway, 2) == ["reading 1", "reading 6"]


def test_readings_keep_their_pace_while_sensor_and_gateway_are_slow(board, gateway):
    """Told by when each one is due, since a busy PC may wake it up at any time after that."""
    board.give(profile(gateway, board, readings=6, interval_ms=100), {"psk": PSK})
    edits = """
class Time:
    due = 0
    def __getattr__(self, name):
        return getattr(real, name)
    def ticks_add(self, at, ms):
        self.due = real.ticks_add(at, ms)
        return self.due
real, sensor.time = sensor.time, Time()
def sample(n):
    due = sensor.time.due
    real.sleep_ms(37)
    return b'%d' % due
sensor.sample = sample"""
    run(board, edits, ticks=1000)
    _, *due = [int(text) for text in texts(gateway, 6)]
    steps = [b - a for a, b in itertools.pairwise(due)]
    # Full intervals, in which neither the sensor's time nor a key exchange shows.
    assert all(step > 50 and (step + 20) % 100 < 40 for step in steps), due


def test_a_command_gets_what_comes_down_and_its_answer_goes_up(board):
    edits = """
def command(octets):
    if octets == b"bad":
        raise ValueError(octets)
    return b"done: " + octets if octets != b"quiet" else None
sensor.command = command
sensor.sample = lambda n: b"%d" % n"""
    with RunningGateway({"any": PSK}, echo=False) as gateway:
        board.give(profile(gateway, board, readings=4, interval_ms=300), {"psk": PSK})
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(run, board, edits)
            assert texts(gateway, 1) == ["1"]
            for payload in (b"quiet", b"bad", b"open the valve"):
                gateway.send_udp("10.3.0.10", 5000, 5000, payload)
            assert sorted(texts(gateway, 4)) == ["2", "3", "4", "done: open the valve"]
            events, _ = running.result()
    assert [line["data"] for line in named(events, "reply")] == ["quiet", "bad", "open the valve"]


def test_batches_are_lines_of_one_datagram(board, gateway):
    board.give(profile(gateway, board, readings=10, interval_ms=0, batch=4), {"psk": PSK})
    events, _ = run(board, "sensor.sample = lambda n: b'%d' % n")
    sent = [line["data"] for line in named(events, "sent")]
    assert "\n".join(sent).split("\n") == [str(n) for n in range(1, 11)]
    assert texts(gateway, len(sent)) == sent


def wakes(board, count, edits, **settings):
    return [run(board, edits, asleep_ms=60000 if n else 0, **settings) for n in range(count)]


SPOOL = "sensor.SPOOL = 'spool.bin'\nsensor.sample = lambda n: b'%d' % sensor.time.time_ns()"


def test_the_radio_stays_off_until_a_batch_is_full(board, gateway):
    board.give(profile(gateway, board, readings=0, sleep="mark", batch=3), {"psk": PSK})
    runs = wakes(board, 6, SPOOL)
    assert [len(seen["joined"]) for _, seen in runs] == [0, 0, 1, 0, 0, 1]
    assert [len(named(events, "sent")) for events, _ in runs] == [0, 0, 1, 0, 0, 1]
    assert all(seen["slept"] for _, seen in runs)
    assert [len(text.split("\n")) for text in texts(gateway, 2)] == [3, 3]
    assert not (board.directory / "spool.bin").exists()


def test_what_could_not_be_sent_before_a_sleep_is_sent_after_it(board):
    with RunningGateway({"any": PSK}) as gateway:
        settings = {"retransmit_ms": 50, "retransmit_tries": 2, "sleep": "mark"}
        board.give(profile(gateway, board, readings=0, **settings), {"psk": PSK})
        ports = gateway.port, gateway.natt_port
    runs = wakes(board, 2, SPOOL)
    for events, seen in runs:
        assert named(events, "error")[0]["error"] == "LinkDown"
        assert seen["slept"] == [["deep", 20]]  # and no radio that burns the battery meanwhile
    with RunningGateway({"any": PSK}, port=ports[0], natt_port=ports[1]) as gateway:
        events, _ = run(board, SPOOL)
        arrived = texts(gateway, len(named(events, "sent")))
    assert len(arrived) == 3


def test_without_a_spool_what_was_lost_is_counted(board, gateway):
    board.give(profile(gateway, board, readings=12, interval_ms=50), {"psk": PSK})
    edits = """
import asyncio
from minipsec import port
online = port.online
taken = []
async def late(profile):
    while len(taken) < 12:
        await asyncio.sleep_ms(10)
    return await online(profile)
port.online = late
sensor.QUEUE = 4
def sample(n):
    taken.append(n)
    return b'%d' % n
sensor.sample = sample"""
    events, _ = run(board, edits)
    assert named(events, "stats")[0]["unsent"] == 8
    assert texts(gateway, 4) == ["9", "10", "11", "12"]


def test_the_led_shows_the_tunnel(board, gateway):
    board.give(profile(gateway, board), {"psk": PSK})
    _, seen = run(board, "sensor.LED = 'LED'")
    assert seen["pins"] == {"LED": [1]}
    assert run(board)[1]["pins"] == {}


@pytest.mark.parametrize("log", ["errors", "off"])
def test_a_log_of_errors_is_short_and_off_is_silent(board, gateway, log):
    board.give(
        profile(gateway, board, log=log, retransmit_ms=2000, retransmit_tries=1, sleep="mark"),
        {"psk": "wrong"},
    )
    program = "import sensor\nout = []\nimport minipsec.report as r\n"
    program += "r.print = lambda *words: out.append(' '.join(words))\n"
    program += (
        "try:\n    sensor.run([])\nfinally:\n    print(json.dumps({'event': 'log', 'out': out}))"
    )
    events, _ = board.run(program)
    out = events[0]["out"]
    assert len(out) == (1 if log == "errors" else 0)
    assert not out or out[0].startswith("error ") and "AUTHENTICATION_FAILED" in out[0]
