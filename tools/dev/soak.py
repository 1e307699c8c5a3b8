"""`make soak`: 24 simulated hours in each of three ways of sleeping, and a million readings.

tools/dev/soak_day.py says what happens in them. HOURS, SEED and READINGS change how much.
What must hold is in `judge_life` and `judge_many`; the first thing that does not ends the run.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

from .setup import interpreter

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools/dev/soak_day.py"
MODES = ("off", "clock", "mark")
HEAP_SLACK = 2048  # octets that may be in use at the end and were not in the middle


class SoakError(Exception):
    """A reading without a fate, a number used twice, or a heap that grew."""


def run(*words, heap="24m", timeout=3600):
    """Run the program under MicroPython; return what it reports."""
    command = [interpreter.require_micropython(), "-X", f"heapsize={heap}", PROGRAM]
    done = subprocess.run(
        [*map(str, command), *map(str, words)],
        check=False,
        cwd=ROOT,
        env={**os.environ, "MICROPYPATH": f"{ROOT}/firmware:{ROOT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode:
        raise SoakError(f"{words}: ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _same(what, one, other):
    if one != other:
        raise SoakError(f"{what}: {one} and {other}")


def judge_life(report):
    """Each reading has one fate, told once; no number was used twice."""
    told, fates, counted = report["readings"], report["fates"], report["counted"]
    lost = fates.get("lost_air", 0) + fates.get("lost_gateway", 0)
    _same(
        "submitted, and sent + refused + gone with a reset",
        told["submitted"],
        told["sent"] + told["refused"] + told["reset"],
    )
    _same("sent, and delivered + reported lost", told["sent"], fates.get("delivered", 0) + lost)
    _same("sent, and the tunnels' count of it", told["sent"], counted["sent"])
    _same("refused, and the tunnels' count of it", told["refused"], counted["lost"])
    _same("answers, and the tunnels' count of them", told["answered"], counted["received"])
    _same("readings delivered twice, and none", report["twice"], 0)
    _same("numbers used twice under one SPI, and none", report["repeated_numbers"], 0)


def judge_many(report):
    """Everything left and the heap in use stays what it was."""
    _same("readings, and what left", report["readings"], report["on_wire"])
    # The first replacement loads what stays loaded.
    heap = [octets for replaced, octets in report["heap"] if replaced]
    if len(heap) < 5 or max(heap) - min(heap) > HEAP_SLACK:
        raise SoakError(f"the heap in use is not flat: {report['heap']}")


def _told(report):
    told, fates = report["readings"], report["fates"]
    happened = ", ".join(f"{n} {name}" for name, n in sorted(report["happened"].items()))
    return (
        f"{report['mode']:5} {report['hours']} h: {told['submitted']} readings, {told['sent']} sent ="
        f" {fates.get('delivered', 0)} delivered + {fates.get('lost_air', 0)} lost on the way"
        f" + {fates.get('lost_gateway', 0)} lost at the gateway; {told['refused']} refused,"
        f" {told['reset']} gone with a reset; {report['handshakes']} handshakes,"
        f" {report['resumed']} wake-ups without one; {happened}"
    )


def main(argv=None):
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--readings", type=int, default=1_000_000)
    options = parser.parse_args(argv)
    try:
        for mode in MODES:
            report = run(mode, options.hours, options.seed)
            print(_told(report), flush=True)
            judge_life(report)
        began = time.monotonic()
        report = run("many", options.readings, heap="1m")
        judge_many(report)
        print(
            f"{report['sent']} readings through one process in {time.monotonic() - began:.0f} s:"
            f" {report['replaced']} SAs replaced, heap in use"
            f" {report['heap'][0][1]} octets at first, {report['heap'][-1][1]} at the end"
        )
    except SoakError as problem:
        print(f"soak: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
