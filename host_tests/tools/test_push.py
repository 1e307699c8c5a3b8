"""`push` onto a virtual board, through everything that can go wrong with it."""

import errno
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest

from tools.dev.lab.virtual_board import VirtualBoard
from tools.dev.lab import wait_until
from host_tests.tools.conftest import NEW
from tools.common import mpy
from tools.board import board as board_module
from tools.board import line, watch
from tools.board import push as push_module
from tools.board.board import Board
from tools.common.firmware import PACKAGE, build


WRITES = 200  # to flash, in the push that power cuts are tried on
SENSOR = """
import json, time
def run(argv):
    from minipsec import load_profile
    print(json.dumps({"event": "started", "interval": load_profile()["interval_ms"]}))
    while True:
        time.sleep_ms(50)
"""


PACKAGE_ITSELF = """
def load_profile():
    from .config import profile
    return profile.load_profile("profile.json")
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A small firmware: the real profile checker, and modules that do nothing.

    The whole one is pushed by test_story.py.
    """
    real = build("x64")
    package = tmp_path_factory.mktemp("package") / "__init__.py"
    package.write_text(PACKAGE_ITSELF)
    compiled = package.with_suffix(".mpy")
    mpy.compile_file(package, compiled)
    small = {
        **{
            f"{PACKAGE}{name}.mpy": real[f"{PACKAGE}{name}.mpy"]
            for name in (
                "errors",
                "crypto/__init__",
                "crypto/suites",
                "config/__init__",
                "config/checks",
                "config/profile",
                "config/proposals",
                "config/refused",
                "config/old",
                "config/secrets",
                "crypto/__init__",
                "crypto/suites",
            )
        },
        f"{PACKAGE}__init__.mpy": compiled.read_bytes(),
    }
    for n in range(6):
        small[f"{PACKAGE}module{n}.py"] = b"# module\n" * 300 + b"N = %d\n" % n
    return {**small, "main.py": real["main.py"], "sensor.py": SENSOR.encode()}


@pytest.fixture(autouse=True)
def small_firmware(built, monkeypatch):
    def instead(_architecture, sensor=None):
        return built | ({"sensor.py": pathlib.Path(sensor).read_bytes()} if sensor else {})

    monkeypatch.setattr(push_module.firmware, "build", instead)


def files(board):
    """{path: SHA-256} of all that is on a board; the board is at its prompt afterwards."""
    code = (
        "import os, hashlib\n"
        "def walk(d):\n"
        " for e in os.ilistdir(d):\n"
        "  p = d + '/' + e[0]\n"
        "  if e[1] & 0x4000:\n   yield from walk(p)\n"
        "  else:\n"
        "   with open(p, 'rb') as f:\n    yield p[1:], hashlib.sha256(f.read()).digest().hex()\n"
        "print(repr(dict(walk(''))))\n"
    )
    with Board(board.port) as connected:
        return connected.evaluate(code)


def edit(inventory, device, **changes):
    path = inventory / f"devices/{device}/profile.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def pushed(tool, device, board, inventory):
    """A board that has been pushed to; what is on it."""
    tool("push", device, "--port", board.port)
    return files(board)


def test_the_board_gets_firmware_profile_and_keys_and_starts(tool, device, board, inventory):
    said = tool("push", device, "--port", board.port)
    assert "verified by SHA-256" in said.out and "the profile is good" in said.out
    assert board.wait_event("started")["interval"] == 10000  # it boots from its own files
    assert board.resets[-1] == "hard"
    shown = tool("show", device).out
    assert "provisioned" in shown and "e66038b713952a30" in shown
    found = files(board)
    assert not any(name.startswith(".push") for name in found)
    local = (inventory / f"devices/{device}/profile.json").read_bytes()
    assert found["profile.json"] == hashlib.sha256(local).hexdigest()
    assert f"{PACKAGE}config/profile.mpy" in found


def test_only_what_differs_is_sent(tool, device, board, pushed, inventory):
    assert "sent                0 files" in tool("push", device, "--port", board.port).out
    edit(inventory, device, interval_ms=77)
    said = tool("push", device, "--port", board.port, "--dry-run")
    assert "would send          profile.json\n" in said.out
    assert "sent                1 file," in tool("push", device, "--port", board.port).out


def test_a_dry_run_writes_nothing(tool, device, board):
    files(board)  # its first start has made a file system
    before = board.flash.read_bytes()
    said = tool("push", device, "--port", board.port, "--dry-run")
    assert "nothing was changed" in said.out and "secrets.json" in said.out
    assert board.flash.read_bytes() == before
    assert "provisioned" not in tool("list").out


def test_the_old_program_goes_on_after_a_dry_run_and_after_a_push_that_was_refused(
    tool, device, board, pushed, tmp_path
):
    for words, code in (("--dry-run",), 0), (("--board", "RPI_PICO_W"), 1):
        start = len(board.output)
        tool("push", device, "--port", board.port, *words, code=code)
        board.wait_event("started", start=start)


@pytest.mark.parametrize("platform", ["rp2", "esp32"])
def test_the_watchdog_of_the_boards_own_program_does_not_end_a_push(
    tool, device, tmp_path, inventory, monkeypatch, platform
):
    """It cannot be switched off in MicroPython, and counts on over soft resets."""
    edit(inventory, device, watchdog_ms=5000)
    pretend = {"platform": platform, "_machine": "Board with RP2040"}
    with VirtualBoard(tmp_path / "board", pretend=pretend) as board:
        tool("push", device, "--port", board.port)
        dog = "import machine\ndog = machine.WDT(timeout=5000)\nimport time\nprint('dog')\n"
        with Board(board.port) as connected:
            connected.write(
                "main.py", dog.encode() + b"while True:\n time.sleep(1)\n dog.feed()\n"
            )
            connected.reset()
        board.wait_output(r"dog\r?\n")
        assert board.watchdog == 5000
        before = board.resets[:]
        with Board(board.port) as connected:
            assert connected.evaluate("print(6 * 7)") == 42
            # Stopped where it can be, else given time enough to work on it.
            assert board.watchdog == (0 if platform == "rp2" else 600000)
        assert "watchdog" not in board.resets[len(before) :]


def test_a_board_that_sleeps_is_waited_for(tool, device, board, inventory):
    asleep = "import machine, time\nprint('awake')\ntime.sleep(1)\nmachine.deepsleep(2000)\n"
    with Board(board.port) as connected:
        connected.write("main.py", asleep.encode())
        connected.reset()
    board.wait_output("awake")
    wait_until(lambda: board.asleep, 10, "its sleep")
    tool("push", device, "--port", board.port, "--wait", "40", "--replace-main")
    assert "provisioned" in tool("show", device).out


def test_no_key_is_told_anywhere(tool, device, board, inventory, monkeypatch):
    class NoProcess(subprocess.Popen):
        def __init__(self, *words, **options):
            if threading.current_thread() is threading.main_thread():
                raise AssertionError("a process was started, whose arguments all may read")
            super().__init__(*words, **options)  # the virtual board's

    monkeypatch.setattr(subprocess, "Popen", NoProcess)
    key = json.loads((inventory / f"devices/{device}/secrets.json").read_text())["psk"]
    said = [tool("push", device, "--port", board.port, *more) for more in ((), ("--dry-run",))]
    told = "".join(part.out + part.err for part in said) + tool("show", device).out
    assert key[2:] not in told + board.output


def test_modules_that_are_no_more_or_in_the_way_are_removed(tool, device, board, pushed):
    with Board(board.port) as connected:
        connected.make_directories(["minipsec"])
        connected.write("minipsec/ike.py", b"raise Exception\n")
        connected.write(f"{PACKAGE}gone.mpy", b"old")
        connected.write("sensor.mpy", b"old")
        connected.write("mine.txt", b"not ours")
    tool("push", device, "--port", board.port)
    assert files(board) == {**pushed, "mine.txt": hashlib.sha256(b"not ours").hexdigest()}


def test_a_sensor_of_ones_own_stays_with_its_device(tool, device, board, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(SENSOR.replace("started", "my sensor"))
    tool("push", device, "--port", board.port, "--sensor", mine)
    board.wait_output("my sensor")
    assert "sent                0 files" in tool("push", device, "--port", board.port).out


def test_a_sensor_that_is_not_there_is_told(tool, device, board, monkeypatch):
    monkeypatch.setattr(push_module.firmware, "build", build)
    said = tool("push", device, "-p", board.port, "--sensor", "none.py", code=2)
    assert "no file none.py" in said.err


# What can go wrong.


@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_unplugged_in_the_middle_the_next_run_goes_on(
    tool, device, board, pushed, inventory, built, monkeypatch, part
):
    """The cable is pulled after a part of all that a whole push sends."""
    new = {path: octets + b"#\n" for path, octets in built.items() if path.endswith(".py")}
    monkeypatch.setattr(push_module.firmware, "build", lambda *_: built | new)
    with monkeypatch.context() as nothing:
        # How much that is, a board tells to which the same was pushed before.
        nothing.setattr(push_module.Push, "exchange", lambda *_: None)
        before = board.received
        tool("push", device, "--port", board.port, code=None)
        octets = board.received - before
        with Board(board.port) as connected:
            connected.run(push_module.EXCHANGE + "_clean()")
    assert files(board) == pushed
    board.unplug_after(int(octets * part))
    said = tool("push", device, "--port", board.port, code=1)
    assert "plug it in again" in said.err
    board.plug()
    before = board.received
    assert "done" in tool("push", device, "--port", board.port).out
    if part < 0.95:
        assert board.received - before < octets * (1.4 - part)
    there = files(board)
    assert not any(name.startswith(".push") for name in there)
    assert all(there[path] == hashlib.sha256(octets).hexdigest() for path, octets in new.items())


@pytest.mark.parametrize("part", [0.02, 0.5, 0.8, 0.95])
def test_a_power_cut_leaves_the_old_files_or_the_new_ones_or_a_prompt(
    tool, device, board, pushed, built, monkeypatch, part
):
    """Wherever a write to flash is cut, no mixture of old and new modules ever runs.

    test_exchange.py does it for every write of the part where files change places.
    """
    new = {path: octets + b"#\n" for path, octets in built.items() if "module" in path}
    new["sensor.py"] = SENSOR.replace("started", "renewed").encode()
    monkeypatch.setattr(push_module.firmware, "build", lambda *_: built | new)
    wanted = {path: hashlib.sha256(octets).hexdigest() for path, octets in new.items()}
    board.unplug()
    board.cut_after(1 + int(part * WRITES))
    start = len(board.output)
    board.plug()
    board.wait_event("started", start=start)
    tool("push", device, "--port", board.port, code=1)
    assert not board.plugged
    start = len(board.output)
    board.plug()
    board.wait_output(">>> |started|renewed", start=start)
    started = [line["event"] for line in board.events(start=start)]
    there = files(board)
    if started:
        assert len({there[path] == (wanted if "renewed" in started else pushed)[path]
                    for path in new}) == 1  # fmt: skip
        assert all(there[path] in (pushed[path], wanted[path]) for path in new)
    else:
        assert "main.py" not in there
    tool("push", device, "--port", board.port)
    there = files(board)
    assert all(there[path] == wanted[path] for path in new)
    assert not any(name.startswith(".push") for name in there)


def test_the_number_of_writes_that_those_cuts_are_spread_over(
    tool, device, board, pushed, built, monkeypatch
):
    new = {path: octets + b"#\n" for path, octets in built.items() if "module" in path}
    new["sensor.py"] = SENSOR.replace("started", "renewed").encode()
    monkeypatch.setattr(push_module.firmware, "build", lambda *_: built | new)
    board.unplug()
    board.cut_after(100000)
    start = len(board.output)
    board.plug()
    board.wait_event("started", start=start)
    tool("push", device, "--port", board.port)
    files(board)
    assert 0.8 * WRITES < 100000 - board._config["cut"] < 1.2 * WRITES


def test_a_failed_self_test_brings_the_old_files_back(tool, device, board, pushed, inventory):
    edit(inventory, device, colour="green", interval_ms=5)  # this tool does not know each key
    said = tool("push", device, "--port", board.port, code=1)
    assert "the board is as it was before" in said.err and "unknown key" in said.err
    assert files(board) == pushed
    start = len(board.output)
    board.hard_reset()
    assert board.wait_event("started", start=start)["interval"] == 10000  # the old profile


def test_a_wrong_known_answer_brings_the_old_files_back(
    tool, device, board, pushed, built, monkeypatch, tmp_path
):
    source = tmp_path / "selftest.py"
    source.write_text(
        "def run():\n    print('aes-ccm  WRONG, 3 ms')\n    print('selftest FAILED')\n"
    )
    mpy.compile_file(source, tmp_path / "selftest.mpy", "x64")
    more = {f"{PACKAGE}selftest.mpy": (tmp_path / "selftest.mpy").read_bytes()}
    monkeypatch.setattr(push_module.firmware, "build", lambda *_: built | more)
    said = tool("push", device, "--port", board.port, code=1)
    assert "self-test failed" in said.err and "aes-ccm WRONG" in said.err
    assert files(board) == pushed


def test_a_first_push_that_fails_leaves_an_empty_board(tool, device, board, inventory):
    edit(inventory, device, colour="green")
    tool("push", device, "--port", board.port, code=1)
    assert files(board) == {}
    edit(inventory, device, colour=None)
    path = inventory / f"devices/{device}/profile.json"
    profile = json.loads(path.read_text())
    del profile["colour"]
    path.write_text(json.dumps(profile))
    tool("push", device, "--port", board.port)


def test_a_full_file_system_is_told_and_nothing_is_changed(tool, device, tmp_path):
    with VirtualBoard(tmp_path / "small", blocks=22) as board:
        with Board(board.port) as connected:
            connected.write("data.csv", bytes(40000))
        before = files(board)
        said = tool("push", device, "--port", board.port, code=1)
        assert "file system is full" in said.err and "KB are needed" in said.err
        assert files(board) == before
        with Board(board.port) as connected:
            connected.run("import os\nos.remove('data.csv')")
        said = tool("push", device, "--port", board.port, code=1)
        assert "file system is full" in said.err  # 88 KB are too few for anything
    with VirtualBoard(tmp_path / "larger", blocks=60) as board:
        tool("push", device, "--port", board.port)


def test_a_program_of_someone_else_is_not_replaced_unasked(tool, device, board):
    with Board(board.port) as connected:
        connected.write("main.py", b"print('thermostat')\n")
    said = tool("push", device, "--port", board.port, code=1)
    assert "main.py of another program" in said.err
    assert list(files(board)) == ["main.py"]
    tool("push", device, "--port", board.port, "--replace-main")


def test_another_board_than_the_device_s_is_refused(tool, inventory, board):
    tool(*NEW, "pico.example.org", "--board", "RPI_PICO_W", "--ssid", "cellar")
    said = tool("push", "pico", "--port", board.port, code=1)
    assert "not a RPI_PICO_W" in said.err and "armv6m" in said.err
    assert files(board) == {}


@pytest.mark.parametrize(
    "pretend, words",
    [
        ({"version": [1, 19, 1]}, "MicroPython 1.19.1 on the board is too old"),
        ({"_mpy": 0x0505}, "too old"),
    ],
)
def test_a_micropython_that_is_too_old_is_told(tool, device, tmp_path, pretend, words):
    with VirtualBoard(tmp_path / "old", pretend=pretend) as board:
        said = tool("push", device, "--port", board.port, code=1)
        assert words in said.err and "flash" in said.err


@pytest.mark.item("J9")
def test_a_port_in_use_one_that_is_not_there_and_none_are_told(tool, device, board, tmp_path):
    import serial

    with serial.Serial(board.port, exclusive=True):
        for words in ("push", device, "--port"), ("pull-log", "--port"), ("stats", device, "-p"):
            said = tool(*words, board.port, code=1)
            assert "another program has it" in said.err
    assert "is the board plugged in" in tool("push", device, "-p", "/dev/ttyNO", code=1).err
    assert "no board found" in tool("push", device, code=1).err
    (tmp_path / "file").write_text("x")
    for path in tmp_path / "file", "/dev/null", tmp_path:
        assert "no serial port" in tool("push", device, "-p", path, code=1).err, path


@pytest.mark.item("J9")
@pytest.mark.parametrize(
    "number, gid, words",
    [
        (errno.EACCES, "dialout", "usermod -aG dialout"),
        (errno.EACCES, "root", "sudo"),
        (errno.EPERM, "dialout", "usermod -aG dialout"),
        (errno.EBUSY, "dialout", "another program has it"),
        (errno.ENXIO, "dialout", "is the board plugged in"),
        (errno.EIO, "dialout", "plug the board in again"),
    ],
)
def test_why_a_port_does_not_open_is_told_by_its_errno(
    tool, device, monkeypatch, tmp_path, number, gid, words
):
    import grp

    import serial

    port = tmp_path / "ttyUSB0"
    port.touch()
    os.chown(port, 0, grp.getgrnam(gid).gr_gid) if os.getuid() == 0 else pytest.skip("root")

    def refuse(*_, **__):
        raise serial.SerialException(number, f"could not open port {port}")

    monkeypatch.setattr(serial, "serial_for_url", refuse)
    for command in ("push", device, "--port", port), ("pull-log", "--port", port):
        said = tool(*command, code=1)
        assert words in said.err
        assert ("another program" in said.err) == (number == errno.EBUSY)


def test_a_board_that_says_nothing_is_told(tool, device, tmp_path, monkeypatch):
    """A port with something else behind it."""
    import os
    import pty
    import tty

    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    monkeypatch.setattr("tools.board.board._ATTEMPTS", (0.2, 0.2))
    monkeypatch.setattr("tools.board.board._SILENCE", 0.5)
    said = tool("push", device, "--port", os.ttyname(theirs), code=1)
    assert "does not answer" in said.err
    os.close(ours)
    os.close(theirs)


def test_two_pushes_of_one_device_do_not_meet(tool, device, board, inventory):
    from tools.fleet.inventory import Inventory

    with Inventory() as found, found.working_on(found.find(device)):
        said = tool("push", device, "--port", board.port, code=1)
    assert "another process works on" in said.err


def test_secrets_that_others_may_read_are_refused(tool, device, board, inventory):
    (inventory / f"devices/{device}/secrets.json").chmod(0o644)
    assert "chmod 600" in tool("push", device, "--port", board.port, code=1).err


# What push says of the program that it has brought (J4).

OURS = (
    SENSOR
    + """
def sample(n):
    return b"21.5"
"""
)
BROKEN = {
    "a syntax error": ("def run(argv)\n    pass\n", 2, "SyntaxError"),
    "no sample()": ("x = 1\n", 2, "has no sample()"),
    "no sample() for its run()": ("def run(argv):\n    sample(1)\n", 2, "has no sample()"),
    "no UTF-8": ("# caf\xe9\n" + OURS, 2, "UTF-8"),
    "an import that fails": ("import no_such_module\n" + OURS, 1, "no module named"),
    "an exception at import": (OURS + "1 / 0\n", 1, "divide"),
    "a loop at import": ("while True:\n    pass\n" + OURS, 1, "does not end"),
    "a loop at import that prints": ("while True:\n    print(1)\n" + OURS, 1, "does not end"),
    "an exception in sample": (OURS.replace("return b", "raise OSError(19) # "), 1, "OSError(19,"),
    "an exception in an async sample": (
        OURS.replace("def sample", "async def sample").replace("return b", "raise OSError(19) # "),
        1,
        "OSError(19,",
    ),
    "None": (OURS.replace('return b"21.5"', "pass"), 1, "returns None"),
    "text": (OURS.replace("return b", "return "), 1, "no octets but <class 'str'>"),
    "an end": ("def run(argv):\n    return 0\n", 1, "left the board at its prompt"),
    "an exception in run": ("def run(argv):\n    {}['x']\n", 1, "KeyError: x (File"),
    "a name that is not there": ("def run(argv):\n    smaple(1)\n", 1, "NameError"),
    "an event, and then an end": (OURS.replace("while True", "for _ in range(9)"), 1, "prompt"),
    "silence": ("import time\ndef run(argv):\n    time.sleep(1000)\n", 1, "did not say a word"),
}


@pytest.mark.item("J4")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_program_is_never_done(
    tool, device, board, pushed, inventory, tmp_path, monkeypatch, as_patient_as_with_people, kind
):
    text, code, words = BROKEN[kind]
    monkeypatch.setattr(push_module, "_TRIAL_SECONDS", 3)
    monkeypatch.setattr(watch, "_FIRST_EVENT", 6.0)
    mine = tmp_path / "mine.py"
    mine.write_bytes(text.encode("latin-1"))
    resets = len(board.resets)
    said = tool("push", device, "--port", board.port, "--sensor", mine, code=code)
    assert words in said.err and "done" not in said.out, said
    if code == 2:
        assert len(board.resets) == resets  # the board was not even asked
    loads = code == 1 and "the board is as it was before" not in said.err
    assert (inventory / f"devices/{device}/sensor.py").exists() == loads
    if not loads:
        assert files(board) == pushed


# A sensor.py from before November 2026, which holds our loop.

OLD = """
import asyncio, json, time
from minipsec import load_profile
from minipsec.backlog import Backlog
from minipsec.report import reporter

LED = None
QUEUE = 32
SPOOL = None

def sample(n):
    \'\'\'Return the n-th reading.\'\'\'
    return json.dumps({"n": n, "uptime_ms": time.ticks_ms()}).encode()

def command(octets):
    \'\'\'Take a message.\'\'\'

_PAUSE_MS = 4000

async def session(tunnel, profile, backlog):
    await tunnel.send(sample(1))

async def work(profile, readings, log):
    pass

def run(argv):
    profile = load_profile(*argv[:1])
    return asyncio.run(work(profile, 0, reporter(profile["log"])))
"""
EDITED = OLD.replace("LED = None", "LED = 15").replace(
    "return json", "return json.dumps(topic())\n\ndef topic():\n    return json"
)


@pytest.mark.parametrize("command", ["given to push", "kept, push", "kept, rotate"])
def test_an_old_sensor_py_is_refused_and_its_owner_told_what_to_move(
    tool, device, board, pushed, inventory, tmp_path, command
):
    mine = tmp_path / "mine.py"
    kept = inventory / f"devices/{device}/sensor.py"
    resets = len(board.resets)
    words = ("push", device, "--port", board.port)
    if command == "given to push":
        mine.write_text(EDITED)
        words += ("--sensor", mine)
    else:
        kept.write_text(EDITED)
        if command == "kept, rotate":
            words = ("rotate", device, "--no-gateway", "--port", board.port)
    said = tool(*words, code=2)
    assert "holds our loop" in said.err
    assert "move LED, sample, topic and" in " ".join(said.err.split())
    assert len(board.resets) == resets  # the board was not even asked
    assert kept.exists() == (command != "given to push")
    assert files(board) == pushed


def test_an_old_sensor_py_that_is_only_on_the_board_is_not_lost(
    tool, device, board, pushed, built, monkeypatch
):
    stock = built | {"sensor.py": (mpy.FIRMWARE / "sensor.py").read_bytes()}
    monkeypatch.setattr(push_module.firmware, "build", lambda *_: stock)
    words = ("push", device, "--port", board.port)
    for text, code in (EDITED, 2), (OLD, 0):  # in this one nothing is its owner's
        with Board(board.port) as connected:
            connected.write("sensor.py", text.encode())
        before = files(board)
        said = tool(*words, "--dry-run", code=code)
        if code:
            assert "move LED, sample, topic and" in " ".join(said.err.split())
            assert "mpremote cp :sensor.py" in " ".join(said.err.split())
            tool(*words, code=2)
            said = tool(*words, "--dry-run", "--replace-main")
        assert "sensor.py" in said.out.split("would send")[1].splitlines()[0]
        assert files(board) == before


def test_a_program_of_ones_own_with_such_names_is_none_of_ours(tool, device, board, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(SENSOR + "\ndef session():\n    pass\n\ndef work():\n    pass\n")
    tool("push", device, "--port", board.port, "--sensor", mine)
    board.wait_event("started")


@pytest.mark.item("J4")
@pytest.mark.parametrize("usb", [False, True], ids=["a UART bridge", "USB"])
def test_follow_misses_nothing_where_the_port_stays_and_a_traceback_nowhere(
    tool, device, tmp_path, as_patient_as_with_people, usb
):
    broken = tmp_path / "broken.py"
    broken.write_text("print('its first word')\ndef run(argv):\n    raise OSError(5)\n")
    with VirtualBoard(tmp_path / "board", usb=usb) as board:
        words = ("push", device, "--port", board.port, "--follow", "3", "--sensor", broken)
        said = tool(*words, code=1)
        # It has ended, or it raised and waits for its next start; USB loses what came before.
        assert "OSError" in said.err, said.err
        assert usb or "its first word" in said.out


@pytest.mark.item("J4")
def test_a_usb_port_that_is_gone_before_the_restart_is_acknowledged_is_a_restart(
    tool, device, tmp_path, monkeypatch
):
    real = line.Line.exec_raw_no_follow

    def gone(serial_line, code):
        real(serial_line, code)
        if code == board_module._RESET:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(line.Line, "exec_raw_no_follow", gone)
    with VirtualBoard(tmp_path / "board", usb=True) as board:
        assert "done" in tool("push", device, "--port", board.port).out
        assert "nothing was changed" in tool("push", device, "-p", board.port, "--dry-run").out


@pytest.mark.item("J4")
@pytest.mark.parametrize("usb", [False, True], ids=["a UART bridge", "USB"])
def test_a_program_that_is_told_to_print_nothing_is_asked_whether_it_runs(
    tool, device, inventory, tmp_path, monkeypatch, as_patient_as_with_people, usb
):
    monkeypatch.setattr(watch, "_MAY_BE_QUIET", 1.0)
    edit(inventory, device, log="off")
    silent, ended = tmp_path / "silent.py", tmp_path / "ended.py"
    silent.write_text("import time\ndef run(argv):\n    time.sleep(1000)\n")
    ended.write_text("def run(argv):\n    return 0\n")
    with VirtualBoard(tmp_path / "board", usb=usb) as board:
        said = tool("push", device, "--port", board.port, "--sensor", silent)
        assert "nothing, as its profile has it" in said.out and "done" in said.out
        said = tool("push", device, "--port", board.port, "--sensor", ended, code=1)
        assert "at its prompt" in said.err


@pytest.mark.item("J13")
def test_follow_says_when_the_network_is_up_and_ike_begins(tool, device, board, tmp_path):
    mine = tmp_path / "mine.py"
    told = SENSOR.replace('"started"', '"state", "state": "IKE_SA_INIT"')
    mine.write_text(told)
    said = tool("push", device, "--port", board.port, "--follow", "1", "--sensor", mine)
    assert "is up; IKE_SA_INIT leaves" in said.out
    assert "\\x1b" not in said.out


@pytest.mark.item("C8")
def test_what_a_board_says_moves_no_terminal(tool, device, board, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(SENSOR.replace("    while", "    print('\\x1b[2J[bold]')\n    while"))
    said = tool("push", device, "--port", board.port, "--follow", "2", "--sensor", mine)
    assert "\\x1b[2J[bold]" in said.out and "\x1b" not in said.out
    board.hard_reset()
    said = tool("pull-log", "--port", board.port, "--seconds", "1", code=None)
    assert "\x1b" not in said.out


# A board that restarts under push while its port stays, and one that never lets go (J13).

RESTARTS = {  # what the board's program says from then on
    "an event": b"print('{\"event\": \"sent\"}')\n",
    "an event in another order": b"print('{\"n\": 1, \"event\": \"sent\"}')\n",
    "an event as text": b"print('sent octets=4')\n",
    "a banner": b"print('MicroPython v1.29')\n",
    "numbers": b"print(7)\n",
}


@pytest.mark.item("J13")
@pytest.mark.parametrize("kind", RESTARTS)
def test_a_board_that_restarts_under_push_is_noticed(tool, device, board, monkeypatch, kind):
    main = b"import time\nwhile True:\n " + RESTARTS[kind] + b" time.sleep_ms(20)\n"
    restart = (
        f"with open('main.py', 'wb') as f:\n f.write({main!r})\nimport machine\nmachine.reset()"
    )
    late = 3 if kind == "numbers" else 60  # these say nothing: it shows when time is over
    monkeypatch.setattr(
        push_module.Push, "self_test", lambda push: push.board.run(restart, timeout=late)
    )
    began = time.monotonic()
    said = tool("push", device, "--port", board.port, code=1)
    assert "restarted in the middle" in said.err
    assert time.monotonic() - began < 50


@pytest.mark.item("J13")
def test_push_has_an_overall_limit(tool, device, board, monkeypatch):
    real = push_module.Board
    monkeypatch.setattr(push_module, "Board", lambda port, wait: real(port, wait, limit=4))
    monkeypatch.setattr(push_module.Push, "self_test", lambda push: push.board.run(
        "import time\nwhile True:\n    print(1)\n    time.sleep_ms(100)", timeout=500))  # fmt: skip
    said = tool("push", device, "--port", board.port, code=1)
    assert "kept this waiting for 4 s" in said.err


# boot.py (F12).

BOOTS = {
    "loops": (b"import time\nwhile True:\n    time.sleep_ms(50)\n", "boot.py on the board does not end"),
    "prints": (b"import time\nwhile True:\n    print('> \\x04')\n    time.sleep_ms(50)\n", "does not end"),
    "swallows": (
        b"import time\nwhile True:\n    try:\n        time.sleep_ms(50)\n    except:\n        print('no')\n",
        None,
    ),
    "is slow": (b"import time\ntime.sleep(1.5)\n", ""),
    "speaks as the prompt does": (b"for n in range(40):\n    print('>', n, '\\x04')\n", ""),
}  # fmt: skip


@pytest.mark.item("F12")
@pytest.mark.parametrize("kind", BOOTS)
def test_a_boot_py_that_does_not_end_is_named(tool, device, board, monkeypatch, kind):
    monkeypatch.setattr(line, "_BOOT", 6)
    text, words = BOOTS[kind]
    if words is None:
        monkeypatch.setattr(board_module, "_ATTEMPTS", (1, 2))  # it answers none of them
    with Board(board.port) as connected:
        connected.write("boot.py", text)
        connected.reset()
    time.sleep(0.5)
    said = tool("push", device, "--port", board.port, code=0 if words == "" else 1)
    if words:
        assert words in said.err and "resume rm :boot.py" in said.err
    elif words is None:
        assert "does not answer" in said.err


# The wrong chip (J6).


@pytest.mark.item("J6")
def test_an_identity_does_not_move_to_a_second_board_unasked(
    tool, device, board, pushed, tmp_path
):
    with VirtualBoard(tmp_path / "second", unique_id="aa" * 8) as second:
        said = tool("push", device, "--port", second.port, code=2)
        assert "is on another board" in said.err and "aaaaaaaaaaaaaaaa" in said.err
        assert files(second) == {}
        words = ("rotate", device, "--no-gateway", "--port", second.port)
        assert "is on another board" in tool(*words, code=2).err
        assert "would be asked for" in tool("push", device, "-p", second.port, "--dry-run").err
        tool("push", device, "--port", second.port, "--replace")
    assert "aaaaaaaaaaaaaaaa" in tool("show", device).out


@pytest.mark.item("J6")
def test_a_board_does_not_get_another_identity_unasked(tool, device, board, pushed, inventory):
    tool(*NEW, "other.example.org")
    said = tool("push", "other", "--port", board.port, code=2)
    assert f"this board is {device}'s" in said.err and files(board) == pushed
    tool("push", "other", "--port", board.port, "--replace")
    loser = json.loads(tool("show", device, "--json").out)
    assert (loser["state"], loser["chip"]) == ("new", None)
    assert "was given to other.example.org" in loser["history"][-1]["what"]
    # Nor does one that another inventory has filled, or whose chip this one does not know.
    tool("push", "other", "--port", board.port)
    with Board(board.port) as connected:
        connected.write("profile.json", b'{"id": "far.example.org"}')
        connected.reset()
    said = tool("push", "other", "--port", board.port, code=2)
    assert "far.example.org" in said.err and "--replace" in said.err


@pytest.mark.item("J6")
def test_a_board_of_a_revoked_device_is_free(tool, device, board, pushed):
    tool("revoke", device, "--no-gateway", "--yes", code=None)
    assert "revoked" in tool("show", device).out
    tool(*NEW, "next.example.org")
    tool("push", "next", "--port", board.port)


# Ctrl-C (J10).


@pytest.mark.item("J10")
@pytest.mark.parametrize("where", ["stage", "exchange", "self_test", "differences", "accept"])
def test_ctrl_c_leaves_one_line_and_a_running_board(
    tool, device, board, pushed, built, inventory, monkeypatch, where
):
    new = {path: octets + b"#\n" for path, octets in built.items() if "module" in path}
    monkeypatch.setattr(push_module.firmware, "build", lambda *_: built | new)
    real = getattr(push_module.Push, where)

    def interrupted(push, *arguments):
        if where == "exchange":  # in the middle of what runs on the board
            real(push, *arguments)
        push.board._transport.exec_raw_no_follow("import time\ntime.sleep(30)")
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr(push_module.Push, where, interrupted)
    start = len(board.output)
    before = tool("show", device).out
    said = tool("push", device, "--port", board.port, code=130)
    assert said.lines == 1 and "interrupted; the board" in said.err and "restarted" in said.err
    board.wait_event("started", start=start)
    assert board.resets[-1] == "hard"
    assert tool("show", device).out == before
    there = files(board)
    assert {path: there[path] for path in pushed} == pushed
    monkeypatch.setattr(push_module.Push, where, real)
    tool("push", device, "--port", board.port)
    assert not any(name.startswith(".push") for name in files(board))


@pytest.mark.item("J10")
def test_ctrl_c_while_the_board_is_watched_leaves_it_running(tool, device, board, monkeypatch):
    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr(push_module, "watch_start", interrupt)
    said = tool("push", device, "--port", board.port, code=130)
    assert said.lines == 1 and "runs on, unwatched" in said.err
    board.wait_event("started")
    assert "provisioned" in tool("show", device).out
