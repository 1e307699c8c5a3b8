"""Fixtures for every test, and what `CI=true` and a missing root mean."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tools/dev/setup")]

import gateway as gateway_packages
import interpreter

CI = os.environ.get("CI") == "true"

# A shell's background job ignores Ctrl-C, and so would every program that the tests start and end by
# it: with a handler here they begin as in a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)


_LACKING = pytest.StashKey()
# Of these folders, the tests that run the core under CPython carry the mark `core`.
CORE = {"config", "crypto", "esp", "handshake", "hardening", "ike", "kex", "recorded"}
ELSEWHERE = {"fake", "lab", "micropython", "micropython_path"}  # fixtures of another interpreter


def _elsewhere(item):
    """Does another interpreter run it?"""
    chosen = item.callspec.params.values() if hasattr(item, "callspec") else ()
    names = {*getattr(item, "fixturenames", ()), *(word for word in chosen if type(word) is str)}
    return ELSEWHERE & names


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config, items):
    """Marks by folder: interop, and core but for what runs elsewhere or is marked `long`."""
    interop = []
    for item in items:
        folder = item.path.relative_to(HERE).parts[0] if HERE in item.path.parents else ""
        if folder == "interop":
            item.add_marker("interop")
            interop.append(item)
        elif folder in CORE and not _elsewhere(item) and not item.get_closest_marker("long"):
            item.add_marker("core")
    config.stash[_LACKING] = gateway_packages.lacking() if interop else None


def pytest_runtest_setup(item):
    """Without root or strongSwan interop is skipped: from here, so that it is one line."""
    why = item.config.stash[_LACKING]
    if why and item.get_closest_marker("interop"):
        pytest.skip(why)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """On CI nothing may hide: a skipped test counts as a failed one."""
    report = yield
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped on CI, where nothing may be skipped: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """The same for a module that skips itself while it is imported."""
    report = yield
    if CI and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"skipped on CI, where nothing may be skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def micropython_path():
    return interpreter.require_micropython()


@pytest.fixture
def micropython(micropython_path, tmp_path):
    """Run a program on the unix port: `micropython(code_or_path, *args)` -> CompletedProcess.

    firmware/ is on its path. `check=False` leaves the exit code to the test.
    """

    def run(program, *args, heap="4m", path=(), check=True, timeout=120, options=()):
        if not isinstance(program, os.PathLike):
            (tmp_path / "program.py").write_text(program)
            program = tmp_path / "program.py"
        search = [str(ROOT / "firmware"), *map(str, path), ".frozen"]
        done = subprocess.run(
            [micropython_path, *options, "-X", f"heapsize={heap}", str(program), *map(str, args)],
            check=False,
            env={**os.environ, "MICROPYPATH": ":".join(search), "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            pytest.fail(f"micropython ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    return run


_WATCHED = [ROOT / "host_tests" / name for name in ("ike", "handshake")]


@pytest.fixture(autouse=True)
def drops_change_nothing(request, monkeypatch):
    """Around each datagram that a test of these folders hands in; see the module."""
    if set(_WATCHED) & set(request.path.parents):
        from host_tests.unchanged import watch

        watch(monkeypatch, lambda reason, state: None)
