"""sensor.py as its owner edits it: the hooks, batches, the spool, the LED, the log."""

import concurrent.futures
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host_tests.board.conftest import LOOP, PSK, RUN, asleep, named, profile
from tools.devgateway import RunningGateway


@pytest.fixture
def board(fake):
    return fake("RPI_PICO_W")


def run(board, edits="", **settings):
    """Run sensor.py after some edits of its owner's."""
    return board.run(LOOP + edits + RUN, **settings)


def counted(events):
    """Return the last counters of readings, those that are not 0; they must balance."""
    stats = named(events, "stats")[-1]
    keys = ("sampled", "found", "on_wire", "unsent", "waiting", "sample_failed")
    sampled, found, on_wire, unsent, waiting, _ = [stats[key] for key in keys]
    assert sampled + found == on_wire + unsent + waiting, stats
    return {key: stats[key] for key in keys if stats[key]}


def texts(gateway, count):
    return [gateway.reading()["text"] for _ in range(count)]


def test_the_owners_sample_is_what_arrives(board, gateway):
    board.give(profile(gateway, board), {"psk": PSK})
    run(board, "sensor.sample = lambda n: b'21.%d' % n")
    assert texts(gateway, 3) == ["21.1", "21.2", "21.3"]


def test_a_sample_that_fails_costs_one_reading(board, gateway):
    """An I2C error, nothing to say, too much to say: the next one is asked for all the same."""
    board.give(profile(gateway, board, readings=9), {"psk": PSK})
    edits = """
def sample(n):
    if n == 2:
        raise OSError(5)
    odd = {3: None, 4: bytes(1201), 5: b"", 6: "text", 7: 21, 8: True}
    return odd.get(n, b"reading %d" % n)
sensor.sample = sample"""
    events, _ = run(board, edits)
    assert counted(events) == {"sampled": 2, "on_wire": 2, "sample_failed": 6}
    assert [line["text"].split(":")[0] for line in named(events, "error")] == [
        f"sample({n})" for n in (2, 4, 5, 6, 7, 8)
    ]
    assert [line["data"] for line in named(events, "sent")] == ["reading 1", "reading 9"]
    assert texts(gateway, 2) == ["reading 1", "reading 9"]


@pytest.mark.item("A8")
@pytest.mark.parametrize("sleep", ["off", "mark"])
def test_a_sample_that_ends_by_what_is_no_exception_costs_one_reading(board, gateway, sleep):
    """A child task that was cancelled, a library that exits: neither ends sampling in silence."""
    board.give(profile(gateway, board, readings=6, sleep=sleep), {"psk": PSK})
    edits = """
import asyncio
class Odd(BaseException):
    pass
async def sample(n):
    if n == 2:
        waiting = asyncio.create_task(asyncio.sleep(5))
        await asyncio.sleep_ms(1)
        waiting.cancel()
        await waiting
    for m, error in ((3, SystemExit), (4, GeneratorExit), (5, Odd)):
        if n == m:
            raise error
    return b"reading %d" % n
sensor.sample = sample"""
    events, _ = run(board, edits)
    assert counted(events) == {"sampled": 2, "on_wire": 2, "sample_failed": 4}
    assert [line["text"].split(":")[0] for line in named(events, "error")] == [
        f"sample({n})" for n in (2, 3, 4, 5)
    ]
    assert texts(gateway, 2) == ["reading 1", "reading 6"]


@pytest.mark.item("A8")
def test_what_raises_between_two_readings_is_said_and_sampling_goes_on(board, gateway):
    board.give(profile(gateway, board, readings=4), {"psk": PSK})
    edits = """
class Time:
    calls = 0
    def __getattr__(self, name):
        return getattr(real, name)
    def ticks_add(self, at, ms):
        self.calls += 1
        if self.calls == 2:
            raise OSError(5)
        return real.ticks_add(at, ms)
real, loop.time = loop.time, Time()
loop.PAUSE_MS = 10
sensor.sample = lambda n: b"%d" % n"""
    events, _ = run(board, edits)
    assert counted(events) == {"sampled": 4, "on_wire": 4}
    assert [line["text"].split(":")[0] for line in named(events, "error")] == ["sampling"]
    assert texts(gateway, 4) == ["1", "2", "3", "4"]


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
real, loop.time = loop.time, Time()
def sample(n):
    due = loop.time.due
    real.sleep_ms(37)
    return b'%d' % due
sensor.sample = sample"""
    run(board, edits, ticks=1000)
    _, *due = [int(text) for text in texts(gateway, 6)]
    steps = [b - a for a, b in itertools.pairwise(due)]
    # Full intervals, in which neither the sensor's time nor a key exchange shows.
    assert all(step > 50 and (step + 20) % 100 < 40 for step in steps), due


@pytest.mark.item("A8")
@pytest.mark.parametrize(
    ("payloads", "kinds"),
    [
        (["quiet", "bad", "odd", "open the valve"], ["ValueError", "TypeError"]),
        (["ends", "open the valve"], ["CancelledError"]),
    ],
)
def test_a_command_gets_what_comes_down_and_its_answer_goes_up(board, payloads, kinds):
    edits = """
import asyncio
def command(octets):
    if octets == b"bad":
        raise ValueError(octets)
    if octets == b"odd":
        return 7
    if octets == b"ends":
        raise asyncio.CancelledError
    return b"done: " + octets if octets != b"quiet" else None
sensor.command = command
sensor.sample = lambda n: b"%d" % n"""
    with RunningGateway({"any": PSK}, echo=False) as gateway:
        board.give(profile(gateway, board, readings=4, interval_ms=300), {"psk": PSK})
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(run, board, edits)
            assert texts(gateway, 1) == ["1"]
            for payload in payloads:
                gateway.send_udp("10.3.0.10", 5000, 5000, payload.encode())
            assert sorted(texts(gateway, 4)) == ["2", "3", "4", "done: open the valve"]
            events, _ = running.result()
    assert [line["data"] for line in named(events, "reply")] == payloads
    for error, kind in zip(named(events, "error"), kinds, strict=True):
        assert error["error"] == "Failure" and error["text"].startswith("command: " + kind)


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
        assert asleep(seen) == ("light", 20)  # and no radio that burns the battery meanwhile
    with RunningGateway({"any": PSK}, port=ports[0], natt_port=ports[1]) as gateway:
        events, _ = run(board, SPOOL)
        arrived = texts(gateway, len(named(events, "sent")))
    assert len(arrived) == 3


def test_without_a_spool_what_was_lost_is_counted(board, gateway):
    board.give(profile(gateway, board, readings=12, interval_ms=50), {"psk": PSK})
    edits = """
import asyncio
from minipsec.board import port
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
    assert counted(events) == {"sampled": 12, "on_wire": 4, "unsent": 8}
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
    program = LOOP + "out = []\nimport minipsec.app.log as r\n"
    program += "r.print = lambda *words: out.append(' '.join(words))\n"
    program += "try:\n    loop.run(sensor, [])\nfinally:\n    print(json.dumps({'event': 'log', 'out': out}))"
    events, _ = board.run(program)
    out = events[0]["out"]
    assert len(out) == (1 if log == "errors" else 0)
    assert not out or out[0].startswith("error ") and "AUTHENTICATION_FAILED" in out[0]


# What a board does, and not a PC: it neither ends nor goes on without a pause.
LIVES = """
import sensor
from minipsec.app import run as loop
paused = []
import minipsec.board.port as port
def restart(ms):
    paused.append(ms)
    print(json.dumps({"event": "restart", "ms": ms}))
    raise PowerOff(0)
port.restart = restart
"""


@pytest.mark.item("A8")
@pytest.mark.parametrize(
    ("spoilt", "text"),
    [
        ({"interval_ms": -1}, "interval_ms"),
        ({"id": None}, "id"),
        (None, "profile.json"),
    ],
)
def test_a_board_with_a_bad_profile_says_so_and_looks_again_later(board, gateway, spoilt, text):
    board.give(profile(gateway, board, **(spoilt or {})), {"psk": PSK})
    if spoilt is None:
        (board.directory / "profile.json").write_text('{"gateway": ')
    program = (
        LIVES
        + """
class Said:
    def write(self, text):
        if text.strip():
            print(json.dumps({"event": "said", "text": text}))
loop.sys = Facade(loop.sys, stderr=Said())
def said(text, file):
    file.write(str(text))
loop.print = said
loop.run(sensor, [])"""
    )
    events, _ = board.run("from host_tests.board.fake import Facade" + program)
    assert [line["ms"] for line in named(events, "restart")] == [60000]
    assert text in named(events, "said")[0]["text"]


@pytest.mark.item("A8")
@pytest.mark.parametrize("sleep", ["off", "mark"])
@pytest.mark.parametrize(
    "broken",
    [
        "loop.Queue = fail",
        "sensor.SPOOL = 7",
        "import minipsec.tunnel as t\nt.Tunnel.stats = fail",
    ],
)
def test_what_nobody_expects_is_said_and_the_board_starts_anew(board, gateway, broken, sleep):
    board.give(profile(gateway, board, sleep=sleep, readings=1), {"psk": PSK})
    program = (
        LIVES
        + f"""
def fail(*_):
    raise RuntimeError("nobody expects this")
{broken}
loop.run(sensor, [])"""
    )
    events, seen = board.run(program)
    (error,) = named(events, "error")
    assert error["error"] == "Failure" and error["check"]
    if sleep == "off":
        assert [line["ms"] for line in named(events, "restart")] == [4000]
    else:
        assert asleep(seen) == ("light", 20)


@pytest.mark.item("A8")
@pytest.mark.parametrize(
    "error", ["OSError(5)", "RuntimeError('x')", "ValueError()", "MemoryError()"]
)
@pytest.mark.parametrize("where", ["Tunnel.resume", "Tunnel.connect", "Tunnel.receive"])
def test_a_session_that_raises_is_followed_by_another_one(board, gateway, where, error):
    board.give(profile(gateway, board, readings=3), {"psk": PSK})
    edits = f"""
from minipsec.tunnel import Tunnel
loop.PAUSE_MS = 10
name = {where!r}.split(".")[1]
real = getattr(Tunnel, name)
left = [2]
def first(*args, **more):
    if left[0]:
        left[0] -= 1
        raise {error}
    return real(*args, **more)
setattr(Tunnel, name, staticmethod(first) if name == "resume" else first)
"""
    events, _ = run(board, edits)
    assert len(named(events, "error")) == 2
    assert named(events, "error")[0]["error"] in ("Failure", "OutOfMemory")
    assert counted(events)["sampled"] == counted(events)["on_wire"] == 3
    assert {gateway.reading()["text"] for _ in range(3)}


@pytest.mark.item("D8")
@pytest.mark.parametrize("spool", [False, True])
def test_readings_in_ram_at_an_error_are_counted(board, spool):
    with RunningGateway({"any": PSK}) as gateway:
        more = {"readings": 1, "sleep": "mark", "retransmit_ms": 50, "retransmit_tries": 2}
        board.give(profile(gateway, board, **more), {"psk": PSK})
    edits = SPOOL if spool else ""
    events, _ = run(board, edits)
    assert named(events, "error")
    assert counted(events) == {"sampled": 1, "waiting" if spool else "unsent": 1}


@pytest.mark.item("D4")
def test_with_a_spool_a_gateway_that_forgot_the_sa_costs_no_reading(board):
    edits = "sensor.SPOOL = 'spool.bin'\nsensor.sample = lambda n: b'%d' % (10 * boot + n)"
    with RunningGateway({"any": PSK}) as gateway:
        more = {"readings": 0, "sleep": "mark", "interval_ms": 600000}
        board.give(profile(gateway, board, **more), {"psk": PSK})
        ports = gateway.port, gateway.natt_port
        run(board, "boot = 1\n" + edits)
        assert texts(gateway, 1) == ["11"]
    with RunningGateway({"any": PSK}, port=ports[0], natt_port=ports[1]) as gateway:
        events, _ = run(board, "boot = 2\n" + edits)
        assert named(events, "sent") and named(events, "stats")[0]["unconfirmed"] == 1
        assert counted(events) == {"sampled": 1, "waiting": 1}
        events, _ = run(board, "boot = 3\n" + edits)
        assert named(events, "up")
        assert counted(events) == {"sampled": 1, "found": 1, "on_wire": 2}
        assert texts(gateway, 2) == ["21", "31"]
        assert not (board.directory / "spool.bin").exists()


HISTORIES = st.lists(
    st.sampled_from(["ok", "no gateway", "forgot", "sample fails", "reset", "torn"]), max_size=4
)


@pytest.mark.item("D8")
@given(HISTORIES, st.booleans())
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_in_any_history_of_wake_ups_the_counters_balance(fake, history, with_spool):
    """Boots of one board: each stats line balances, and what waits is found again."""
    board = fake("RPI_PICO_W")
    for path in board.directory.iterdir():
        path.unlink()
    edits = "sensor.QUEUE = 2\nsensor.SPOOL = %r\n" % ("spool.bin" if with_spool else None)
    with RunningGateway({"any": PSK}) as gateway:
        ports = {"port": gateway.port, "natt_port": gateway.natt_port}
        more = {"readings": 4, "sleep": "mark", "retransmit_ms": 50, "retransmit_tries": 1}
        board.give(profile(gateway, board, **more), {"psk": PSK})
    waited = None
    for what in [*history, "ok"]:
        more = ""
        if what == "sample fails":
            more = "\ndef sample(n):\n    raise OSError(5)\nsensor.sample = sample"
        if what == "reset":
            more = "\ndef sample(n):\n    raise PowerOff(0)\nsensor.sample = sample"
        spool = board.directory / "spool.bin"
        if what == "torn" and spool.exists():
            spool.write_bytes(spool.read_bytes()[:-3])
        if what == "no gateway":
            events, _ = run(board, edits + more)
        else:
            with RunningGateway({"any": PSK}, echo=what != "forgot", **ports):
                events, _ = run(board, edits + more)
        if what == "reset":
            waited = None
            continue
        found = counted(events).get("found", 0)
        assert waited is None or found == waited
        waited = counted(events).get("waiting", 0)
        assert with_spool or not waited


@pytest.mark.item("A2")
@pytest.mark.parametrize("error", ["OSError(19)", "RuntimeError()", "SyntaxError()"])
def test_a_sensor_py_that_raises_at_its_import_is_tried_again(board, error):
    """The owner's bus answers nothing at power-on: not the prompt, for ever and in silence."""
    (board.directory / "sensor.py").write_text(f"raise {error}\n")
    program = """
import sys, time
def sleep(s):
    print(json.dumps({"event": "paused", "s": s}))
time.sleep = sleep
sys.print_exception = lambda e: print(json.dumps({"event": "told", "text": repr(e)}))
sys.path.insert(0, board.directory)
import main"""
    events, seen = board.run(program)
    assert sum(line["s"] for line in named(events, "paused")) == 60
    assert len(named(events, "told")) == 12  # again and again, for a console that comes late
    assert seen["slept"] == [["reset", 0]]


@pytest.mark.parametrize(
    "gone", ["minipsec.report import reporter", "minipsec.app.queue import Backlog"]
)
def test_an_old_sensor_py_on_the_board_is_told_where_its_loop_is_now(board, gone):
    """As with a lib/ and main.py that were copied by hand."""
    (board.directory / "sensor.py").write_text(f"from {gone}\n")
    program = """
import builtins, sys, time
time.sleep = lambda s: None
sys.print_exception = lambda e: None
real = print
def said(*words, **more):
    real(json.dumps({"event": "told", "text": words[0]}))
builtins.print = said
sys.path.insert(0, board.directory)
try:
    import main
finally:
    builtins.print = real"""
    events, seen = board.run(program)
    told = "\n".join(line["text"] for line in named(events, "told"))
    assert told.count("sensor.py of an older minipsec? Keep sample(), command()") == 12
    assert seen["slept"] == [["reset", 0]]


def test_sample_and_command_may_be_async_and_take_their_time(board):
    edits = """
import asyncio
async def sample(n):
    if n == 2:
        raise OSError(5)
    await asyncio.sleep_ms(300)
    return b"%d" % n if n < 5 else None
async def command(octets):
    await asyncio.sleep_ms(10)
    return b"done: " + octets
sensor.sample = sample
sensor.command = command"""
    with RunningGateway({"any": PSK}, echo=False) as gateway:
        board.give(profile(gateway, board, readings=5, interval_ms=100), {"psk": PSK})
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(run, board, edits)
            assert texts(gateway, 1) == ["1"]
            gateway.send_udp("10.3.0.10", 5000, 5000, b"open the valve")
            assert sorted(texts(gateway, 3)) == ["3", "4", "done: open the valve"]
            events, _ = running.result()
    assert counted(events) == {"sampled": 3, "on_wire": 3, "sample_failed": 1}
    assert [line["text"].split(":")[0] for line in named(events, "error")] == ["sample(2)"]


def test_an_interval_of_the_owners_is_kept_between_readings_and_asleep(board, gateway):
    edits = "sensor.INTERVAL_MS = 700"
    board.give(profile(gateway, board, interval_ms=60000), {"psk": PSK})
    events, _ = run(board, edits)
    assert counted(events) == {"sampled": 3, "on_wire": 3}
    board.give(profile(gateway, board, interval_ms=60000, sleep="mark"), {"psk": PSK})
    _, seen = run(board, edits)
    assert asleep(seen) == ("light", 700)


@pytest.mark.parametrize("interval", ["-1", "'1min'"])
def test_an_interval_that_is_none_is_told_like_a_bad_profile(board, gateway, interval):
    board.give(profile(gateway, board), {"psk": PSK})
    program = "loop.print = lambda e, file: print(json.dumps({'event': 'said', 'text': str(e)}))"
    events, _ = board.run(LIVES + f"sensor.INTERVAL_MS = {interval}\n{program}" + RUN)
    assert [line["ms"] for line in named(events, "restart")] == [60000]
    assert "INTERVAL_MS" in named(events, "said")[0]["text"]


def test_a_sensor_py_of_a_sample_alone_is_enough(board, gateway):
    (board.directory / "sensor.py").write_text("def sample(n):\n    return b'21.%d' % n\n")
    board.give(profile(gateway, board), {"psk": PSK})
    events, _ = board.run("import sys\nsys.path.insert(0, board.directory)\nimport main")
    assert texts(gateway, 3) == ["21.1", "21.2", "21.3"]
    assert len(named(events, "reply")) == 3


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_program_of_ones_own_runs_in_place_of_the_loop(board, kind):
    program = f"import json\n{kind} run(argv):\n    print(json.dumps({{'event': 'mine', 'argv': argv}}))\n"
    (board.directory / "sensor.py").write_text(program)
    events, _ = board.run("import sys\nsys.path.insert(0, board.directory)\nimport main")
    assert events == [{"event": "mine", "argv": []}]
