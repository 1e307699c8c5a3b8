"""`doctor`, `stats` and `pull-log`: the cause that is named for what both sides say."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import threading
import types

import pytest

from tools.dev.lab.virtual_board import VirtualBoard
from tools.dev.lab import GATEWAY_4, GATEWAY_ID, SENSOR_4, SERVER_4
from host_tests.tools.conftest import NEW
from tools.board import doctor as doctor_module
from tools.common import firmware
from tools.board import line
from tools.board.board import Board
from tools.gateway.live import Heard
from tools.board.doctor import Findings, diagnose
from tools.board.watch import parse


def error(name, notify=None, text="t"):
    return {"event": "error", "error": name, "notify": notify, "text": text, "check": "c"}


UP = {"event": "up", "inner": "10.9.0.1"}
SENT = {"event": "sent", "sn": 1}
KNOWN = {"secret": "known", "connections": 1}
SA = {"sa": {"state": "ESTABLISHED"}, "last": Heard(ago=1, up=9)}
STALE = {"sa": {"state": "ESTABLISHED"}, "last": Heard(ago=36, up=7000)}
DEAF = {"sa": {"state": "ESTABLISHED"}, "last": Heard(ago=None, up=5)}
TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "sensor.py", line 7, in sample',
    "OSError: 19",
]
OUTDATED = [
    "Traceback (most recent call last):",
    '  File "main.py", line 8, in <module>',
    '  File "sensor.py", line 14, in <module>',
    "ImportError: no module named 'minipsec.report'",
]
HEARD = ["received packet: from 10.77.0.2[5000] to 10.77.0.1[500] (300 bytes)"]


@pytest.mark.item("J3")
@pytest.mark.parametrize(
    "findings, cause, fix",
    [
        ({"state": "revoked", "said": [UP]}, "was revoked", "new"),
        ({"rotating": True, "said": [UP]}, "interrupted half-way", "rotate DEVICE"),
        ({"unfinished": True}, "push to the board was interrupted", "push DEVICE"),
        ({"different": ["secrets.json"]}, "another key than the inventory", "push DEVICE"),
        ({"different": ["profile.json"], "said": [UP]}, "another profile", "push DEVICE"),
        ({**KNOWN, **SA, "said": [UP]}, None, "the tunnel is up"),
        ({**KNOWN, **SA, "said": [error("LinkDown"), UP]}, None, "the tunnel is up"),
        ({**KNOWN, **SA, "said": [UP, error("LinkDown")]}, "answers do not", "firewalls"),
        ({"gateway": "no charon", "said": [UP]}, "nobody asked the gateway", "--vici"),
        ({"gateway": "no charon", "said": [UP, SENT]}, "nobody asked the gateway", "--vici"),
        (
            {**KNOWN, **SA, "different": ["lib/minipsec/esp/sa.mpy"], "said": [UP]},
            "other files",
            "push",
        ),
        ({**KNOWN, **SA, "bare": True, "different": ["x"]}, "no firmware of ours", "push DEVICE"),
        ({**KNOWN, **SA, "chip": "aa", "said": [UP]}, "another board", "--replace"),
        ({**KNOWN, **SA}, "the device says nothing", "push DEVICE"),
        ({**KNOWN, **SA, "prompt": True}, "stands at its prompt", "push DEVICE"),
        ({**KNOWN, **SA, "said": [UP], "prompt": True}, "stands at its prompt", "push DEVICE"),
        ({**KNOWN, **SA, "said": [UP], "lines": TRACEBACK}, "OSError: 19 (File", "sensor.py"),
        ({**KNOWN, "lines": OUTDATED}, "no module named 'minipsec.report'", "an old one"),
        ({**KNOWN, **STALE, "said": [UP]}, "heard nothing of the device for 36 s", "power"),
        ({**KNOWN, **DEAF, "said": [UP]}, None, "no reading is due yet"),
        ({**KNOWN, **DEAF, "said": [UP, SENT]}, "do not reach the gateway", "4500"),
        ({**KNOWN, "said": [UP]}, "knows of none", "--vici"),
        ({**KNOWN, **SA, "board": "unplugged"}, "could not be asked: unplugged", "plug it in"),
        ({**KNOWN, **SA, "quiet": True}, None, "nothing"),
        ({**KNOWN, **STALE, "quiet": True}, "heard nothing", "power"),
        ({"secret": "unknown", "connections": 1}, "has no key of the device", "gateway apply"),
        ({"secret": "another key", "connections": 1}, "another key of the device", "apply"),
        (
            {**KNOWN, "log": ["tried 1 shared key for 'a' - 'b', but MAC mismatched"]},
            "another key of the device",
            "apply",
        ),
        ({"secret": "known", "connections": 0}, "has no connection", "gateway apply"),
        (
            {**KNOWN, "said": [error("AuthenticationFailed")], "log": ["no matching peer config"]},
            "no connection for these two identities",
            "gateway_id",
        ),
        (
            {**KNOWN, "said": [error("NoProposalChosen", "NO_PROPOSAL_CHOSEN")]},
            "no suite of algorithms",
            "strongSwan 6",
        ),
        (
            {**KNOWN, "said": [error("InternalAddressFailure", "INTERNAL_ADDRESS_FAILURE")]},
            "no inner address left",
            "--pool",
        ),
        ({**KNOWN, "pool": "minipsec"}, "no inner address left", "--pool"),
        (
            {**KNOWN, "said": [error("TsUnacceptable", "TS_UNACCEPTABLE")]},
            "does not allow",
            "remote_ts",
        ),
        (
            {**KNOWN, "said": [error("LinkDown", text="cannot reach gw: OSError('addrinfo')")]},
            "name means nothing",
            "DNS",
        ),
        ({**KNOWN, "said": [error("LinkDown")]}, "nothing of the device's reaches", "firewall"),
        ({**KNOWN, "said": [error("LinkDown")], "log": HEARD}, "answers do not come back", "NAT"),
        (
            {**KNOWN, "said": [error("LinkDown")], "log": ["per-IP half-open IKE_SA limit of 4"]},
            "too many begin at once",
            "cookie_threshold_ip",
        ),
        ({"gateway": "charon does not answer", "said": [error("LinkDown")]}, "be asked", "--vici"),
        ({"gateway": "charon does not answer", "board": "none"}, "neither", "--vici"),
        ({**KNOWN, "quiet": True}, "prints nothing", '"log"'),
        ({**KNOWN, "lines": ["Traceback (most recent call last):"]}, "exception", "sensor.py"),
        ({**KNOWN, **SA, "board": "--no-board", "by_gateway": True}, None, "is up"),
        ({**KNOWN, **STALE, "board": "--no-board", "by_gateway": True}, "for 36 s", "power"),
        ({**KNOWN, **DEAF, "board": "--no-board", "by_gateway": True}, "nothing by it", "10 s"),
        ({**KNOWN, **DEAF, "quiet": True}, "heard nothing by it yet", "run this again"),
        ({**KNOWN, "board": "--no-board", "by_gateway": True}, "has no tunnel", "plugged in"),
        ({**KNOWN, "said": [error("NoEntropy", text="no noise")]}, "no noise", "c"),
        ({**KNOWN, "board": "no board found"}, "no board found", "plug it in"),
        ({**KNOWN, "said": [{"event": "state"}]}, "no cause found", "pull-log"),
    ],
)
def test_the_first_rule_that_holds_names_the_cause(findings, cause, fix):
    found, advice = diagnose(Findings(**{"state": "active", **findings}))
    assert (found is None) == (cause is None)
    assert cause is None or cause in found
    assert fix in advice


def test_text_logs_and_json_logs_say_the_same():
    lines = [
        "MicroPython v1.29.0",
        '>>> {"event": "up", "inner": "10.9.0.1"}',
        "error error=LinkDown notify=None text=no answer from the gateway check=gateway, port",
        '{"broken',
        "up spi_i=00 inner=10.9.0.2 ms=80",
    ]
    events, rest = parse(lines)
    assert [event["event"] for event in events] == ["up", "error", "up"]
    assert events[1]["text"] == "no answer from the gateway"
    assert events[2]["inner"] == "10.9.0.2"
    assert rest == [lines[0], lines[3]]


@pytest.mark.item("C8")
@pytest.mark.parametrize(
    "line",
    [
        'reading {"event": "up"}',
        "reply octets=3 data=up inner=10.9.0.1 ms=1",
        "the user said: up inner=10.9.0.1",
        '{"event": ["up"]}',
        '{"event": "up"',
        '{"a":' + "[" * 100000,
    ],
)
def test_what_stands_in_a_line_of_somebody_else_s_is_no_event(line):
    events, _ = parse([line])
    assert "up" not in [event["event"] for event in events]


# On a board.

SENSOR = """
import json, time
def run(argv):
    for n in range(100000):
        print(json.dumps({"event": "sent", "n": n, "sn": 10 * n}))
        time.sleep_ms(50)
"""


@pytest.fixture
def talking(tool, device, board, monkeypatch):
    """A board whose program prints readings and knows no network."""
    small = {
        "main.py": b"import sensor\nsensor.run([])\n",
        "sensor.py": SENSOR.encode(),
        "lib/minipsec/__init__.py": b"def load_profile():\n    pass\n",
    }
    monkeypatch.setattr(firmware, "build", lambda *_: dict(small))
    tool("push", device, "--port", board.port)
    board.wait_event("sent")
    return board


def test_a_log_is_taken_down_without_disturbing_the_board(tool, talking, tmp_path):
    resets = list(talking.resets)
    assert '"sn": ' in tool("pull-log", "--port", talking.port, "--seconds", "2").out
    out = tmp_path / "log.txt"
    tool("pull-log", "--port", talking.port, "--seconds", "2", "--out", out)
    assert '"sn": ' in out.read_text()
    assert talking.resets == resets
    said = tool("pull-log", "--port", talking.port, "--file", "/sensor.py")
    assert "time.sleep_ms(50)" in said.out
    said = tool("pull-log", "--port", talking.port, "--file", "/none", code=1)
    assert "no file /none" in said.err


def test_a_board_that_says_nothing_is_told(tool, board):
    board.wait_output(">>> ")
    said = tool("pull-log", "--port", board.port, "--seconds", "0.3", code=1)
    assert "said nothing" in said.err


def test_stats_tell_memory_files_and_readings(tool, device, talking):
    said = tool("stats", device, "--port", talking.port, "--seconds", "2", "--vici", "/none").out
    assert "octets free" in said and "the inventory's" in said
    assert "while listening, the last has SN" in said
    assert "not asked: charon does not answer" in said
    assert talking.resets[-1] == "hard"


@pytest.mark.item("J3")
def test_doctor_without_a_gateway_tells_what_the_board_says_and_calls_nothing_well(
    tool, device, talking
):
    words = ("doctor", device, "--port", talking.port, "--seconds", "5", "--vici", "/none")
    said = tool(*words, code=1)
    assert re.search("gateway +not asked: charon does not answer", said.out)
    assert "the board says that its tunnel is up" in said.out and "well" not in said.out


@pytest.mark.item("J10")
def test_stats_ask_the_gateway_before_they_restart_the_board(tool, device, talking, monkeypatch):
    asked = []

    class Charon:
        def __init__(self, _):
            pass

        def __enter__(self):
            asked.append(len(talking.resets))
            return self

        def __exit__(self, *_):
            pass

        def sas_of(self, _):
            child = {"packets-in": "7", "packets-out": "6", "use-in": "2"}
            return [{"state": "ESTABLISHED", "established": "50", "child-sas": {"a": child}}]

    monkeypatch.setattr("tools.board.console.Charon", Charon)
    before = len(talking.resets)
    said = tool("stats", device, "--port", talking.port, "--seconds", "1").out
    assert "7 packets in, 6 packets out, last heard 2 s ago" in said
    assert asked == [before] and len(talking.resets) > before
    said = tool("stats", device, "--port", talking.port, "--seconds", "1", "--json").out
    told = json.loads(said)
    assert told["different_files"] == [] and told["sas"][0]["established"] == "50"


@pytest.mark.item("J10")
def test_ctrl_c_ends_a_log_that_is_kept_all_the_same(tool, talking, tmp_path):
    out = tmp_path / "log.txt"
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    tool("pull-log", "--port", talking.port, "--seconds", "60", "--out", out)
    assert '"sn": ' in out.read_text()


@pytest.mark.item("J3", "J11")
@pytest.mark.parametrize(
    "state, cause",
    [
        ("empty lib", "no firmware of ours"),
        ("other files", "other files than the inventory"),
        ("traceback", "raises OSError: [Errno 5] EIO"),
        ("prompt", "stands at its prompt"),
        ("silent", "the device says nothing"),
        ("boot.py", "boot.py on the board does not end"),
        ("unplugged", "cannot open"),
    ],
)
def test_doctor_calls_no_board_well_that_is_not(
    tool, device, talking, monkeypatch, state, cause
):  # fmt: skip
    """Whatever charon says: it has an SA that was heard a second ago."""

    def heard(findings, *_):
        findings.secret, findings.connections = "known", 1
        findings.sa, findings.last = {"state": "ESTABLISHED"}, Heard(ago=1, up=100)

    monkeypatch.setattr(doctor_module, "ask_gateway", heard)
    nobody = lambda _: contextlib.nullcontext(types.SimpleNamespace(lines=[]))
    monkeypatch.setattr(doctor_module, "_GatewayLog", nobody)
    monkeypatch.setattr(doctor_module, "Charon", nobody)
    monkeypatch.setattr(line, "_BOOT", 4)
    small = dict(firmware.build(""))
    port = talking.port
    with Board(port) as board:
        if state == "empty lib":
            board.run("import os\nos.remove('lib/minipsec/__init__.py')")
        elif state == "other files":
            board.write("sensor.py", SENSOR.encode() + b"#")
        elif state == "boot.py":
            board.write("boot.py", b"while True:\n    pass\n")
        elif state in ("traceback", "prompt", "silent"):
            ends = {"traceback": "raise OSError(5)", "prompt": "pass", "silent": "while 1: pass"}
            small["sensor.py"] = f"def run(argv):\n    {ends[state]}\n".encode()
            board.write("sensor.py", small["sensor.py"])
            monkeypatch.setattr(firmware, "build", lambda *_: dict(small))
        board.reset()
    if state == "unplugged":
        talking.unplug()
    words = ("doctor", device, "--port", port, "--seconds", "4")
    said = tool(*words, code=1).out
    assert "likely cause" in said and cause in said and "all is well" not in said
    told = json.loads(tool(*words, "--json", code=1).out)
    assert not told["well"] and cause in told["cause"]


# Against strongSwan: what is really said, not what we think is said.


whole_firmware = functools.cache(firmware.build)


@pytest.mark.interop
@pytest.mark.parametrize(
    "breaking, cause",
    [
        ("nothing", None),
        ("not applied", "has no key of the device"),
        ("another key there", "another key of the device"),
        ("another key here", "another key than the inventory"),
        ("gateway_id", "no connection for these two identities"),
        ("unreachable", "nothing of the device's reaches the gateway"),
        ("proposals", "no suite of algorithms in common"),
        ("selectors", "does not allow"),
    ],
)
def test_doctor_names_what_was_broken(
    tool, inventory, lab, charon, tmp_path, tmp_path_factory, monkeypatch, breaking, cause
):
    monkeypatch.setattr(firmware, "build", whole_firmware)
    row = {"id": "a.b", "gateway": GATEWAY_4, "gateway_id": GATEWAY_ID, "server": SERVER_4,
           "retransmit_ms": 100, "retransmit_tries": 3, "log": "json"}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps([row]))
    tool("fleet", "import", tmp_path / "a.json")
    directory = inventory / "devices/a.b"
    profile = json.loads((directory / "profile.json").read_text())

    def edit(name="profile.json", **changes):
        path = directory / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    if breaking != "not applied":
        tool("gateway", "apply")
    if breaking == "another key there":
        edit("secrets.json", psk="0x" + "11" * 32)
    elif breaking == "gateway_id":
        edit(gateway_id="other.example.org")
    elif breaking == "unreachable":
        edit(gateway="10.77.0.9")
    elif breaking == "proposals":
        edit(ike=["aes256ccm16-prfsha256-ecp256"])
    elif breaking == "selectors":
        edit(remote_ts="10.4.0.0/16", server="10.4.0.1")
    board = lab.own(VirtualBoard(tmp_path / "board", lab.sensor_ns, SENSOR_4))
    flash = tmp_path_factory.getbasetemp() / "doctor.flash"
    if flash.exists():  # all that differs from test to test is the profile
        shutil.copy(flash, board.flash)
    board.plug()
    tool("push", "a.b", "--port", board.port)
    shutil.copy(board.flash, flash)
    if breaking == "another key here":
        edit("secrets.json", psk="0x" + "11" * 32)
    said = tool("doctor", "a.b", "--port", board.port, "--seconds", "15", code=None)
    assert said.code == (0 if cause is None else 1), said.out
    assert (cause or "all is well") in said.out
    assert profile["id"] in said.out


@pytest.mark.interop
def test_doctor_without_the_board_asks_the_gateway_only(tool, inventory, lab, charon):
    tool(*NEW, "a.b")
    said = tool("doctor", "a.b", "--no-board", code=1)
    assert "has no key of the device" in said.out
