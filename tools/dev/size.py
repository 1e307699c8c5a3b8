"""How much of a board each firmware module takes: `.mpy` octets and RAM at import.

`.mpy` files are made as for boards: `mpy-cross -O3` (no asserts, no line
numbers), viper code for the Pico's ARMv6-M. RAM is the growth
of `gc.mem_alloc()` over the import of a module's `.mpy` when all that it imports
is already there, on the 64-bit unix port: objects there are twice a board's.

The budgets stand in host_tests/rules/budgets.toml; host_tests/rules/test_size.py holds
every module to them. `python -m tools.dev.size --propose` prints lines for modules
that have no budget or are over it.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import tomllib

from tools.common import mpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUDGETS = ROOT / "host_tests/rules/budgets.toml"

# What a session with a default profile loads: host_tests/rules/test_size.py watches one.
DEFAULT = set(
    "__init__ app/__init__ app/log board/__init__ board/port config/__init__ config/checks "
    "config/profile config/proposals config/secrets crypto/__init__ crypto/ccm crypto/kdf "
    "crypto/octets crypto/suites errors esp/__init__ esp/child esp/inner esp/sa esp/sequence "
    "handshake/__init__ handshake/auth handshake/auth_method handshake/sa_init heap ike/__init__ "
    "ike/established ike/sa ike/wire kex/__init__ kex/methods link tasks "
    "tunnel".split()
)

# What main.py's loop adds to that.
PROGRAM = DEFAULT | {"app/run", "app/queue"}

# Loaded only when the profile asks for a post-quantum exchange.
POST_QUANTUM = {"kex/mlkem", "kex/keccak"}

# Only an RP2040 gets it, on top of everything: what it does is done without it, too, but slower.
ACCELERATORS = {"kex/x25519_thumb"}

_MODULES_PROBE = """
import sys
before = set(sys.modules)
__import__({name!r})
print(' '.join(sorted(set(sys.modules) - before)))
"""

_RAM_PROBE = """
import gc, sys
for needed in {needed!r}:
    __import__(needed)
gc.collect()
before = gc.mem_alloc()
__import__({name!r})
gc.collect()
print(gc.mem_alloc() - before)
"""


LOADED = {"mpy_default": DEFAULT, "mpy_program": PROGRAM}


class SizeError(Exception):
    """A module does not import; the text says which and why."""


def _probe(program, directory):
    from tools.dev.setup.interpreter import require_micropython

    done = subprocess.run(
        [require_micropython(), "-X", "heapsize=8m", "-c", program],
        check=False,
        env={**os.environ, "MICROPYPATH": f"{directory}:.frozen"},
        cwd=directory,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SizeError(f"{done.stdout}{done.stderr}".strip())
    return done.stdout.split()


def ram(name, directory):
    """Octets of heap that importing `name` takes, its own imports not counted."""
    modules = _probe(_MODULES_PROBE.format(name=name), directory)
    needed = [module for module in modules if module != name]
    return int(_probe(_RAM_PROBE.format(name=name, needed=needed), directory)[0])


def measure():
    """Return {name: {"mpy": octets, "ram": octets or None, "lines": n}}.

    The files beside the package (main, sensor) run when imported, so they have no RAM figure;
    neither have accelerators for another chip than this PC's.
    """
    with tempfile.TemporaryDirectory(prefix="minipsec-size-") as temporary:
        sizes = mpy.build(pathlib.Path(temporary) / "board")
        directory = pathlib.Path(temporary) / "here"
        mpy.stage(directory)
        rows = {}
        for name, path in mpy.sources().items():
            in_package = mpy.in_package(path)
            rows[name] = {
                "mpy": sizes[name],
                "ram": ram(mpy.dotted(name), directory)
                if in_package and mpy.fits(path, mpy.HERE)
                else None,
                "lines": len(path.read_text().splitlines()),
                "package": in_package,
            }
    return rows


def budgets():
    """Return host_tests/rules/budgets.toml: {"total": {..}, "mpy": {module: octets}, "ram": {..}}."""
    return tomllib.loads(BUDGETS.read_text())


def totals(rows):
    """Return the sums that have budgets: a default session of an owner's program and of main.py,
    all without and all with ML-KEM.

    None of them has the accelerators.
    """
    package = {
        name: row["mpy"]
        for name, row in rows.items()
        if row["package"] and name not in ACCELERATORS
    }
    classic = sum(size for name, size in package.items() if name not in POST_QUANTUM)
    default = sum(size for name, size in package.items() if name in DEFAULT)
    program = sum(size for name, size in package.items() if name in PROGRAM)
    return {
        "mpy_default": default,
        "mpy_program": program,
        "mpy": classic,
        "mpy_with_mlkem": sum(package.values()),
    }


def violations(rows, limits):
    """Return one line for each module without a budget and for each that is over it."""
    found = []
    for name, row in rows.items():
        for kind in ("mpy", "ram"):
            if row[kind] is None:
                continue
            limit = limits[kind].get(name)
            if limit is None:
                found.append(f"{name}: no {kind} budget in host_tests/rules/budgets.toml")
            elif row[kind] > limit:
                found.append(f"{name}: {kind} {row[kind]} is over its budget {limit}")
    for kind, value in totals(rows).items():
        if value > limits["total"][kind]:
            found.append(f"total: {kind} {value} is over its budget {limits['total'][kind]}")
    for kind in ("mpy", "ram"):
        found += [
            f"{name}: has a {kind} budget but no file" for name in limits[kind].keys() - rows
        ]
    return found


def propose(rows, limits):
    """Print budget lines for what has none or is over it: what is measured and a little."""
    for kind in ("mpy", "ram"):
        print(f"[{kind}]")
        for name, row in rows.items():
            if row[kind] is not None and row[kind] > limits[kind].get(name, -1):
                print(f"{name} = {-(-row[kind] * 21 // 20 // 32) * 32}")


def main():
    from rich.console import Console
    from rich.table import Table

    console = Console()
    try:
        rows = measure()
    except (SizeError, mpy.CompileError) as problem:
        console.print(f"size: {problem}", markup=False)
        return 1
    limits = budgets()
    if sys.argv[1:] == ["--propose"]:
        propose(rows, limits)
        return 0

    def cell(value, limit):
        if value is None:
            return "", ""
        return f"[red]{value}[/red]" if limit is None or value > limit else str(value), str(limit)

    table = Table(title="firmware/ on a board, octets")
    table.add_column("module")
    for heading in ("lines", ".mpy", "budget", "RAM at import", "budget"):
        table.add_column(heading, justify="right")
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["mpy"]):
        octets = cell(row["mpy"], limits["mpy"].get(name))
        taken = cell(row["ram"], limits["ram"].get(name))
        table.add_row(name, str(row["lines"]), *octets, *taken)
    table.add_section()
    sums = totals(rows)
    for kind, title in (
        ("mpy_default", "a default profile"),
        ("mpy_program", "a default profile with main.py"),
        ("mpy", "minipsec"),
        ("mpy_with_mlkem", "minipsec with ML-KEM"),
    ):
        memory = sum(
            row["ram"] or 0
            for name, row in rows.items()
            if kind == "mpy_with_mlkem"
            or (name in LOADED[kind] if kind in LOADED else name not in POST_QUANTUM)
        )
        table.add_row(title, "", *cell(sums[kind], limits["total"][kind]), str(memory), "")
    more = sum(rows[name]["mpy"] for name in ACCELERATORS)
    table.add_row("on an RP2040 in addition: " + ", ".join(ACCELERATORS), "", str(more))
    console.print(table)
    console.print(
        f"mpy-cross {' '.join(mpy.FLAGS)}, viper code for {mpy.BOARD}. "
        "RAM on the 64-bit unix port, imports of a module not counted; a board has half-size objects."
    )
    wrong = violations(rows, limits)
    for line in wrong:
        console.print(f"size: {line}", style="red")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
