"""`make mutants`: one small change at a time in ESP, AES-CCM, ike/ and the handover at UP.

cosmic-ray makes the changes; a process of its own, forked for each, runs the module's tests on
one. host_tests/hardening/mutants.toml names the changes that survive and says why; any other that
does is a test that is missing, and ends this with 1. MODULE=name runs one module alone.
"""

import argparse
import contextlib
import importlib.abc
import importlib.util
import io
import os
import pathlib
import signal
import sys
import time
import tomllib

from ..common import mpy
from .pins import require

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPLAINED = ROOT / "host_tests/hardening/mutants.toml"
_PATHS = [ROOT, ROOT / "firmware", ROOT / "tools/dev/shims"]
sys.path[:0] = [str(path) for path in _PATHS if str(path) not in sys.path]

TESTS = {
    "esp/sequence": ("esp/test_sequence.py", "esp/test_sequence_edges.py", "esp/test_snapshot.py"),
    "crypto/ccm": (
        "crypto/test_ccm.py",
        "crypto/test_ccm_edges.py",
        "esp/test_esp.py",
        "crypto/test_ccm_vectors.py",
    ),
    "esp/sa": (
        "esp/test_esp.py",
        "esp/test_esp_edges.py",
        "esp/test_esp_variants.py",
        "hardening/test_published.py",
    ),
    "ike/fragack": (
        "ike/test_fragack.py",
        "ike/test_fragack_edges.py",
        "ike/test_fragack_bad_input.py",
    ),
    "ike/fragment": ("ike/test_fragments.py", "ike/test_fragack_bad_input.py"),
    "ike/wire": ("ike/test_wire.py", "ike/test_requests.py"),
    "ike/sa": (
        "ike/test_established.py",
        "ike/test_states.py",
        "ike/test_requests.py",
        "ike/test_timers.py",
    ),
    "ike/established": ("ike/test_established.py", "ike/test_states.py", "ike/test_requests.py"),
    "handshake/auth": ("handshake/test_auth.py", "handshake/test_errors.py"),
    "handshake/sa_init": ("handshake/test_init.py", "handshake/test_cookies.py"),
}
# One replacement of each operator is enough to see whether a test looks at it.
_ONE_FOR = {
    "Add": "Sub", "Sub": "Add", "Mul": "Add", "FloorDiv": "Mul", "Mod": "Mul", "LShift": "RShift",
    "RShift": "LShift", "BitAnd": "BitOr", "BitOr": "BitAnd", "BitXor": "BitAnd", "Div": "Mul",
    "Pow": "Mul",
}  # fmt: skip
_LEFT_OUT = ("Variable", "ExceptionReplacer", "RemoveDecorator", "Is_", "NotEq_Is", "Eq_Is")
SECONDS = 300  # of the tests; a change that makes them run longer is noticed, too
TIMES = 5  # their processor time without any change, then as well


def wanted(name):
    """Is this one of cosmic-ray's operators that we use?"""
    short = name.rpartition("/")[2]
    if any(part in short for part in _LEFT_OUT) or "IsNot" in short or short.endswith("_Is"):
        return False
    if short.startswith("ReplaceBinaryOperator_"):
        _, one, other = short.split("_")
        return _ONE_FOR.get(one) == other
    return True


def mutants(source):
    """Yield (what was done, the changed source) for each change."""
    import difflib

    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    seen = {source}
    for name in sorted(filter(wanted, operator_names())):
        operator = get_operator(name)()
        occurrence = 0
        while (changed := mutate_code(source, operator, occurrence)) is not None:
            occurrence += 1
            if changed not in seen:
                seen.add(changed)
                lines = difflib.ndiff(source.splitlines(), changed.splitlines())
                lines = [line for line in lines if line[:2] in ("- ", "+ ")]
                yield " => ".join(line[2:].strip() for line in lines), changed


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a changed source for one module of minipsec."""

    def __init__(self, name, source):
        self._name, self._source = mpy.dotted(name), source

    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name == self._name else None

    def exec_module(self, module):
        exec(compile(self._source, f"{self._name}, changed", "exec"), module.__dict__)


def passes(name, source, seconds=SECONDS):
    """Run the module's tests on a source, in a process of its own.

    Return the seconds of processor time that it took; 0 when a test noticed, or it took more.
    """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 2
        try:
            signal.alarm(SECONDS)
            signal.setitimer(signal.ITIMER_PROF, seconds)
            os.nice(5)
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 1)
            os.dup2(nothing, 2)
            sys.meta_path.insert(0, _Changed(name, source))
            import pytest

            words = ["-q", "-x", "-p", "no:cacheprovider", "-p", "tools.dev.quick"]
            words += ["-k", "not page and not micropython", "--rootdir", str(ROOT)]
            words += [str(ROOT / "host_tests" / path) for path in TESTS[name]]
            with contextlib.redirect_stdout(io.StringIO()):
                code = int(pytest.main(words))
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    return 0 if os.waitstatus_to_exitcode(status) else usage.ru_utime + usage.ru_stime


def warm_up():
    """Import what each child needs, and nothing of minipsec."""
    import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401
    import hypothesis.strategies  # noqa: F401
    import pytest  # noqa: F401


def explained():
    """Return {module: {change: why it may survive}}."""
    return tomllib.loads(EXPLAINED.read_text()) if EXPLAINED.exists() else {}


def reason(reasons, change):
    """The explanation of a change: of itself, or of a part of it."""
    return next((why for part, why in reasons.items() if part in change), None)


def run(name):
    """Try each change of a module; return those that survive without an explanation."""
    source = mpy.modules()[name].read_text()
    seconds = TIMES * passes(name, source)
    if not seconds:
        raise SystemExit(f"mutants: the tests of {name} fail without any change")
    reasons = explained().get(name, {})
    began = told = time.monotonic()
    survived = []
    known = count = 0
    for change, changed in mutants(source):
        count += 1
        if passes(name, changed, seconds):
            if reason(reasons, change):
                known += 1
            else:
                survived.append(change)
                print(f"  {name}: survives: {change}", flush=True)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"  {name}: {count} changes in {told - began:.0f} s", flush=True)
    noticed = count - known - len(survived)
    print(
        f"{name}: {count} changes, {noticed} noticed, {known} survive for a reason,"
        f" {len(survived)} without one, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return survived


def main(argv=None):
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--module", choices=TESTS, action="append")
    options = parser.parse_args(argv)
    require("mutants", "cosmic_ray")
    warm_up()
    return 1 if any([run(name) for name in options.module or TESTS]) else 0


if __name__ == "__main__":
    sys.exit(main())
