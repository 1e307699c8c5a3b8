"""`make fuzz`: any octets into the core, for SECONDS=n; five minutes without it.

Guided by coverage with atheris, where that can be installed; else the same inputs are bent at
random. What must hold stands in tools/dev/fuzzing.py. An input that breaks it is kept
in build/fuzz/, and `python -m tools.dev.fuzz FILE` runs it again.
"""

import argparse
import os
import pathlib
import random
import subprocess
import sys
import time

from .pins import ensure

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACE = ROOT / "build/fuzz"
_PATHS = [ROOT, ROOT / "firmware", ROOT / "tools/dev/shims"]
sys.path[:0] = [str(path) for path in _PATHS if str(path) not in sys.path]

_MAX_LEN = 3200
_SLOW_S = 10  # one input that takes longer is a finding, too


def write_corpus():
    """Write one file for each datagram of the recorded sessions; return their directory."""
    from tools.dev import fuzzing

    directory = PLACE / "corpus"
    directory.mkdir(parents=True, exist_ok=True)
    for number, octets in enumerate(fuzzing.corpus()):
        (directory / f"session-{number:04}").write_bytes(octets)
    return directory


def guided(seconds):
    """Run atheris in a process of its own, since libFuzzer ends it; return its exit code."""
    corpus = write_corpus()
    found = PLACE / "found"
    found.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tools.dev.fuzz", "--child", str(found), str(corpus)]
    command += [f"-max_total_time={seconds}", f"-max_len={_MAX_LEN}", f"-timeout={_SLOW_S}"]
    command += [
        f"-artifact_prefix={PLACE}/",
        "-len_control=0",
        "-reload=0",
        "-print_final_stats=1",
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def child(arguments):
    import atheris

    with atheris.instrument_imports(include=["minipsec"]):
        from tools.dev import fuzzing
    fuzzing.steps()
    fuzzing.Allocating.every = 32
    atheris.Setup([sys.argv[0], *arguments], fuzzing.check)
    atheris.Fuzz()


def blind(seconds, seed=None):
    """Bend the corpus at random; return 1 when an input broke something."""
    from tools.dev import fuzzing

    seeds = list(fuzzing.corpus())
    seed = seed or int.from_bytes(os.urandom(4), "big")
    rng = random.Random(seed)
    end = told = time.monotonic()
    end += seconds
    runs = 0
    while (now := time.monotonic()) < end:
        octets = fuzzing.bent(rng, seeds)
        try:
            fuzzing.check(octets)
        except Exception:
            PLACE.mkdir(parents=True, exist_ok=True)
            path = PLACE / f"crash-{seed}-{runs}"
            path.write_bytes(octets)
            print(f"fuzz: {path.relative_to(ROOT)}", file=sys.stderr)
            raise
        runs += 1
        if now - told > 10:
            told = now
            print(f"fuzz: {runs} inputs, {end - now:.0f} s to go", flush=True)
    print(f"fuzz: {runs} inputs (seed {seed}), nothing found")
    return 0


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--child"]:
        child(argv[1:])
        return 0
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--blind", action="store_true", help="without atheris")
    parser.add_argument("inputs", nargs="*", type=pathlib.Path, help="run these once")
    options = parser.parse_args(argv)
    if options.inputs:
        from tools.dev import fuzzing

        for path in options.inputs:
            fuzzing.check(path.read_bytes())
            print(f"{path}: nothing wrong")
        return 0
    if not options.blind:
        problem = ensure("fuzz", "atheris")
        if not problem:
            return guided(options.seconds)
        print("fuzz: no atheris for this machine; inputs are bent at random")
    return blind(options.seconds)


if __name__ == "__main__":
    sys.exit(main())
