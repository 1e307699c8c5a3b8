"""The test files of the core that need no pytest, once more on the unix port."""

import ast
import pathlib

import pytest

HERE = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("app", "config", "crypto", "esp", "handshake", "ike", "recorded")
# A file that imports one of these can run on CPython only.
HOST_ONLY = {
    "cryptography",
    "hypothesis",
    "pathlib",
    "pytest",
    "scapy",
    "subprocess",
    "tracemalloc",
}


def imported(path):
    """Top names of what a file imports at its top level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def functions_in(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def names_in(path):
    return {test.name for test in functions_in(path)}


def shared():
    for folder in FOLDERS:
        for path in sorted((HERE / folder).glob("test_*.py")):
            fixtures = any(test.args.args for test in functions_in(path))
            if not fixtures and not HOST_ONLY & set(imported(path)):
                yield path


@pytest.mark.parametrize(
    "path", list(shared()), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_passes_on_the_unix_port(path, root, micropython):
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    done = micropython(
        HERE.parent / "tools/dev/run_tests.py", module, path=[root], heap="16m", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = {line[5:] for line in done.stdout.splitlines() if line.startswith("pass ")}
    assert passed == names_in(path)


def test_the_core_is_tested_on_both_interpreters():
    assert len(list(shared())) >= 3
