"""`compute(cases)`: the firmware's results for a list of cases, on CPython and on the unix port."""

import json
import pathlib

import pytest

from host_tests.crypto import compute as program

HERE = pathlib.Path(__file__).resolve().parent


def hexed(case):
    return [part.hex() if isinstance(part, bytes) else part for part in case]


@pytest.fixture(params=["cpython", "micropython"])
def compute(request, tmp_path):
    def on_cpython(cases):
        return [program.compute(hexed(case)) for case in cases]

    def on_micropython(cases):
        run = request.getfixturevalue("micropython")
        path = tmp_path / "cases.json"
        path.write_text(json.dumps([hexed(case) for case in cases]))
        lines = run(HERE / "compute.py", path, heap="32m").stdout.splitlines()
        assert len(lines) == len(cases)
        return [None if line == "refused" else bytes.fromhex(line) for line in lines]

    return on_cpython if request.param == "cpython" else on_micropython
