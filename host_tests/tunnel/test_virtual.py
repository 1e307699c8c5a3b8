"""The virtual_*.py beside this file, run under MicroPython: each of their tests is one here."""

import ast
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = sorted(HERE.glob("virtual_*.py"))


def found(path):
    """Each test of a program, with what its `@item("..")` says."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            ids = [ast.literal_eval(id) for mark in node.decorator_list for id in mark.args]
            yield pytest.param(path, node.name, marks=pytest.mark.item(*ids) if ids else ())


_results = {}


@pytest.mark.parametrize(
    ("path", "name"),
    [test for path in PROGRAMS for test in found(path)],
    ids=lambda value: value.stem if isinstance(value, pathlib.Path) else value,
)
def test_on_a_clock_that_leaps(path, name, root, micropython):
    if path not in _results:
        module = f"host_tests.tunnel.{path.stem}"
        program = root / "tools/dev/run_tests.py"
        _results[path] = micropython(
            program, module, path=[root], heap="6m", check=False, timeout=90
        )
    done = _results[path]
    if f"pass {name}\n" not in done.stdout:
        found = re.search(rf"fail {name}\n.*?(?=^(?:pass|fail) |\Z)", done.stdout, re.M | re.S)
        pytest.fail((found.group(0) if found else done.stdout) + done.stderr, pytrace=False)
