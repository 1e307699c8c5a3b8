"""Each value is computed here; and the bridge to the driver that runs cases on the unix port."""

import pathlib

import pytest

from minipsec.kex import methods
from tools.dev.peers import node

ROOT = pathlib.Path(__file__).resolve().parents[2]
DRIVER = ROOT / "tools/dev/sim/mlkem_driver.py"


def _word(argument):
    return argument.hex() or "-" if isinstance(argument, (bytes, bytearray)) else str(argument)


def _value(word):
    if word == "none":
        return None
    return b"" if word == "-" else bytes.fromhex(word)


@pytest.fixture(autouse=True)
def _computed(monkeypatch):
    """Here each value is computed, also where others have them remembered."""
    monkeypatch.setattr(methods, "method", node.computed)


@pytest.fixture
def run(micropython, tmp_path):
    """`run([(operation, argument, ..), ..])` -> for each case a list of octet strings or None."""

    def run(cases):
        path = tmp_path / "cases.txt"
        path.write_text("".join(" ".join(map(_word, case)) + "\n" for case in cases))
        lines = micropython(DRIVER, path).stdout.splitlines()
        assert len(lines) == len(cases)
        return [[_value(word) for word in line.split()] for line in lines]

    return run
