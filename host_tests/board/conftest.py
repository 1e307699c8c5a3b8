"""Fixtures for fake boards."""

import json
import os
import pathlib
import subprocess

import pytest

from tools.devgateway import RunningGateway

ROOT = pathlib.Path(__file__).resolve().parents[2]
BOARDS = sorted(path.parent.name for path in ROOT.glob("boards/*/board.json"))
item = pytest.mark.item

# What most tests of whole sessions start from.
PSK = "correct horse battery staple"
WIFI = {"network": "wifi", "ssid": "two words"}
MAIN = "import main"
# What a test puts its edits behind, and what it ends with.
LOOP = "import sensor\nfrom minipsec.app import run as loop\n"
RUN = "\nloop.run(sensor, [])\n"

_START = """
import json, sys
sys.path[:] = [{root!r}, {firmware!r}, ".frozen"]
from host_tests.board.fake import Board, PowerOff
board = Board({name!r}, {directory!r}, {boards!r}, **json.loads({settings!r})).plug_in()
import os
os.chdir({directory!r})
try:
{program}
except PowerOff:
    pass
print(json.dumps({{"event": "board", "seen": board.seen}}))
"""


class Fake:
    """One fake board and its flash: `run(program, **settings)` is one time of power."""

    def __init__(self, name, directory, micropython):
        self.name = name
        self.facts = json.loads((ROOT / "boards" / name / "board.json").read_text())
        self.directory = directory
        self._micropython = micropython

    def run(self, program, timeout=60, **settings):
        """Return (events, seen): the JSON lines it printed, and what the fakes saw."""
        text = _START.format(
            root=str(ROOT),
            firmware=str(ROOT / "firmware"),
            name=self.name,
            directory=str(self.directory),
            boards=str(ROOT / "boards"),
            settings=json.dumps(settings),
            program="\n".join("    " + line for line in program.splitlines()),
        )
        path = self.directory / "time-of-power.py"
        path.write_text(text)
        done = subprocess.run(
            [self._micropython, "-X", "heapsize=4m", str(path)],
            check=False,
            env={key: value for key, value in os.environ.items() if key != "MICROPYPATH"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert events and events[-1]["event"] == "board", done.stdout + done.stderr
        return events[:-1], events[-1]["seen"]

    def give(self, profile, secrets):
        """Put profile.json and secrets.json into its flash."""
        (self.directory / "profile.json").write_text(json.dumps(profile))
        path = self.directory / "secrets.json"
        path.write_text(json.dumps(secrets))
        path.chmod(0o600)


@pytest.fixture
def fake(micropython_path, tmp_path):
    """`fake("RPI_PICO_W")` is a board with an empty flash."""

    def make(name):
        directory = tmp_path / name
        directory.mkdir(mode=0o700, exist_ok=True)
        return Fake(name, directory, micropython_path)

    return make


@pytest.fixture
def gateway():
    with RunningGateway({"any": PSK}) as gateway:
        yield gateway


def network(board):
    return WIFI if board.facts["network"]["kind"] == "wifi" else {"network": "ethernet"}


def profile(gateway, board, host="127.0.0.1", **more):
    return {
        "gateway": host,
        "port": gateway.port,
        "natt_port": gateway.natt_port,
        "gateway_id": "any",
        "id": "sensor-1.example.org",
        "server": "10.3.0.10",
        "interval_ms": 20,
        "readings": 3,
        "log": "json",
        **network(board),
        **more,
    }


def named(events, name):
    return [line for line in events if line["event"] == name]


def asleep(seen):
    """Return how a board slept, "deep", "light" or not at all, and for how many ms in all."""
    *parts, (end, ms) = seen["slept"]
    if end == "deep":
        assert not parts
        return end, ms
    assert end == "reset" and {kind for kind, _ in parts} <= {"light"}
    return "light", sum(ms for _, ms in parts)
