"""The interpreter under Node.js; without Node.js one line says why these tests are skipped."""

import pytest

from tools.dev.footprint import build, measure
from tools.dev.setup import node


def pytest_runtest_setup(item):
    """From here, so that it is one line."""
    if "bench" in item.fixturenames and not node.commands():
        pytest.skip(node.MISSING)


@pytest.fixture(scope="session")
def bench():
    try:
        build.interpreter()
    except build.NotInstalled as problem:
        pytest.skip(str(problem).partition("\n")[0])
    with measure.Bench() as made:
        yield made


@pytest.fixture
def run(bench):
    """Run a program on the interpreter, `run(program, heap)` -> what it noted; an error fails."""

    def run(program, heap=64 * 1024, how="romfs"):
        found = bench.run(program, how, heap)
        assert found["error"] is None, found["error"]
        return found

    return run
