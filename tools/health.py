"""How healthy the code is: `make coverage`, `make types`, `make mutants`.

Each needs packages of its own, which are installed when it runs first.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from .pins import require

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLACE = ROOT / "build/health"

LEAST = 95  # percent of the core's branches
# What is not the core: it needs a board, a socket or asyncio, and is tested on the unix port.
NOT_CORE = {
    "__init__", "backlog", "lamp", "link", "port", "report", "selftest", "sources", "spool",
    "store", "tunnel", "unix", "uplink",
}  # fmt: skip
# Viper: CPython cannot run it. host_tests/mlkem and host_tests/esp do so on the unix port.
MACHINE_CODE = {"fast", "keccak", "mlkem"}
# Where the core runs under CPython, without a network or another interpreter.
CORE_TESTS = ("core", "conformance", "dh", "drbg", "esp", "fragments", "hardening", "mlkem", "pq")
CORE_TESTS += ("recorded",)
# What takes another interpreter, or long without taking another branch.
NOT_HERE = (
    "interop or micropython or unix_port or board or sensor or docs or main or port or checklist"
    " or soak or matrix or fuzz or mutants or random or lossy or handshake or thousand or histories"
    " or wycheproof or any_time or later_one or rejection_secret or lazily or come_to_the_same"
)


def _tests():
    return [str(ROOT / "host_tests" / name) for name in CORE_TESTS]


def coverage(_):
    """Run the core's tests under CPython; report branches per module; 1 when below LEAST."""
    require("coverage", "coverage")
    PLACE.mkdir(parents=True, exist_ok=True)
    data = f"--data-file={PLACE / 'coverage'}"
    source = f"--source={ROOT / 'firmware/minipsec'}"
    command = [sys.executable, "-m", "coverage", "run", data, "--branch", source, "-m", "pytest"]
    command += [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "host_tests.hardening.quick",
        "-k",
        f"not ({NOT_HERE})",
        *_tests(),
    ]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        return 1
    found = PLACE / "coverage.json"
    subprocess.run(
        [sys.executable, "-m", "coverage", "json", "-q", data, "-o", str(found)],
        cwd=ROOT,
        check=True,
    )
    return _judge_coverage(json.loads(found.read_text())["files"])


def _judge_coverage(files):
    rows = []
    for path, file in sorted(files.items()):
        name = pathlib.Path(path).stem
        if name not in NOT_CORE | MACHINE_CODE:
            s = file["summary"]
            rows.append(
                (name, s["num_branches"], s["covered_branches"], s["percent_covered"], file)
            )
    total = taken = 0
    print(
        f"{'module':14} {'branches':>8} {'taken':>6} {'of them':>8} {'with lines':>10}  not taken"
    )
    for name, branches, covered, percent, file in rows:
        total += branches
        taken += covered
        missing = " ".join(f"{a}->{b}" for a, b in file["missing_branches"])
        share = f"{100 * covered / branches:.1f} %" if branches else "-"
        print(f"{name:14} {branches:8} {covered:6} {share:>8} {percent:8.1f} %  {missing}")
    share = 100 * taken / total
    print(f"{'core':14} {total:8} {taken:6} {share:6.1f} %")
    print("machine code, which CPython cannot run: " + ", ".join(sorted(MACHINE_CODE)))
    if share < LEAST:
        print(f"health: less than {LEAST} % of the core's branches", file=sys.stderr)
        return 1
    return 0


def main(argv=None):
    parser = argparse.ArgumentParser(prog="health", description=__doc__.partition("\n")[0])
    commands = {"coverage": coverage}
    parser.add_argument("what", choices=commands)
    options = parser.parse_args(argv)
    return commands[options.what](options)


if __name__ == "__main__":
    sys.exit(main())
