"""The command line, called as a person calls it, with an inventory of its own."""

import dataclasses
import re

import gateway as gateway_packages
import pytest

from tools.dev.lab.virtual_board import VirtualBoard
from tools.dev.lab import Charon, Lab
from tools import cli
from tools.board import watch


@dataclasses.dataclass
class Said:
    """What a command left: exit code, standard output, standard error and its lines."""

    code: int
    out: str
    err: str
    lines: int


@pytest.fixture
def inventory(tmp_path, monkeypatch):
    """The directory of an inventory that is not there yet."""
    path = tmp_path / "inventory"
    monkeypatch.setenv("MINIPSEC_INVENTORY", str(path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MINIPSEC_WIFI_KEY", raising=False)
    return path


@pytest.fixture(autouse=True)
def believed_soon(monkeypatch):
    """A program that has said something is believed to run on; tests of one that ends change it."""
    monkeypatch.setattr(watch, "_GRACE", 0.2)


@pytest.fixture
def as_patient_as_with_people(monkeypatch):
    """A program may still end for so long after its first word."""
    monkeypatch.setattr(watch, "_GRACE", 2.0)


@pytest.fixture
def tool(inventory, capsys):
    """`tool("new", "--id", ..)` -> Said; `code` is what the command must end with, None if either."""

    def run(*words, code=0):
        capsys.readouterr()
        ended = cli.run([str(word) for word in words])
        said = capsys.readouterr()
        assert code in (ended, None), f"{words}: {ended}\n{said.out}{said.err}"
        if ended and words[0] != "doctor":  # whose findings are no error of its own
            # One message, never a traceback.
            assert said.err.count("error:") == 1 and "Traceback" not in said.err, said.err
        return Said(ended, said.out, re.sub(r"\s+", " ", said.err), said.err.count("\n"))

    return run


NEW = ("new", "--gateway", "gw.example.org", "--server", "10.3.0.10", "--id")


@pytest.fixture
def device(tool):
    """A device in the inventory: its identity."""
    tool(*NEW, "sensor-1.example.org")
    return "sensor-1.example.org"


@pytest.fixture
def board(tmp_path):
    with VirtualBoard(tmp_path / "board") as board:
        yield board


class BareCharon(Charon):
    """strongSwan as it is installed: it knows nobody."""

    def load(self):
        return ""


@pytest.fixture
def lab():
    """The laboratory, for a test that carries the mark `interop`."""
    why = gateway_packages.lacking()
    if why:
        pytest.skip(why)
    with Lab() as lab:
        yield lab


@pytest.fixture
def charon(lab, monkeypatch):
    """A charon that knows nobody, and that the tools find."""
    charon = lab.own(BareCharon(lab.gateway_ns, lab.directory, secrets={}, config=""))
    monkeypatch.setenv("MINIPSEC_VICI", str(charon.socket))
    return charon
