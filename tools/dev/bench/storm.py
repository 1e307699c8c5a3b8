"""`make bench-storm`: a thousand sensors whose gateway returns at one moment.

The tunnels are firmware/'s own on a clock that leaps (fleet.py, under MicroPython); the gateway
can serve 100 handshakes a second and drops the rest. Results are storm.csv, storm.md and storm.png:
IKE_SA_INITs a second at the gateway, and the tunnels that are back. SENSORS=200 is a quick pass
that leaves the kept results alone.
"""

import argparse
import collections
import csv
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
RESULTS = pathlib.Path(__file__).resolve().parent / "results"
sys.path[:0] = [str(ROOT), str(ROOT / "tools/dev/setup")]

import interpreter
from tools.dev import pins

SENSORS = 1000
CAPACITY = 100
TITLES = {
    "restart": "restarted within 5 s, having deleted every SA",
    "reboot": "rebooted within 60 s, having deleted every SA",
    "cut10": "gone without a word for 10 minutes",
    "cut60": "gone without a word for an hour",
}


def simulate(scenario, sensors, seed=1):
    """Return ([ms of each IKE_SA_INIT], [ms at which a tunnel was back], most attempts of one).

    0 is the moment at which the gateway returns.
    """
    done = subprocess.run(
        [interpreter.require_micropython(), "-X", "heapsize=512m",
         str(ROOT / "tools/dev/bench/fleet.py"), scenario, str(sensors), str(seed)],
        check=False,
        env={**os.environ, "MICROPYPATH": f"{ROOT / 'firmware'}:{ROOT}:.frozen"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"bench: fleet.py {scenario}: {done.stdout[-500:]}{done.stderr}")
    words = [line.split() for line in done.stdout.splitlines()]
    inits = [int(line[1]) for line in words if line[0] == "init"]
    ups = [int(line[1]) for line in words if line[0] == "up"]
    return inits, ups, int(words[-1][2])


def per_second(times):
    return collections.Counter(ms // 1000 for ms in times)


def summary(scenario, sensors, inits, ups, attempts):
    """One row of the table."""
    after = per_second([ms for ms in inits if ms >= 0])
    away = per_second([ms for ms in inits if ms < 0])
    return {
        "scenario": scenario,
        "sensors": sensors,
        "peak_away": max(away.values(), default=0),
        "peak_after": max(after.values(), default=0),
        "inits_after": sum(after.values()),
        "back": len(ups),
        "median_s": round(statistics.median(ups) / 1000, 1),
        "last_s": round(max(ups) / 1000, 1),
        "attempts": attempts,
    }


def table(rows):
    text = (
        "| the gateway was | INITs/s while away, peak | after, peak | after, in all |"
        " back: half, s | all, s | attempts of one sensor, most |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    )
    for row in rows:
        text += (
            f"| {TITLES[row['scenario']]} | {row['peak_away']} | {row['peak_after']} |"
            f" {row['inits_after']} | {row['median_s']} | {row['last_s']} | {row['attempts']} |\n"
        )
    return text


def plot(found, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(11, 6))
    for panel, (scenario, (inits, ups, _)) in zip(panels.flat, found.items(), strict=True):
        first = -65 if min(inits) > -70000 else -60
        last = 60 if max(ups) < 60000 else 330
        seconds = range(first, last)
        counts = per_second(inits)
        panel.bar(seconds, [counts[s] for s in seconds], width=1, color="#3b6ea5")
        panel.axvline(0, color="black", linewidth=0.8)
        panel.axhline(CAPACITY, color="#999999", linewidth=0.8, linestyle="--")
        panel.set_title(TITLES[scenario], fontsize=9)
        panel.set_xlabel("seconds after the gateway's return", fontsize=8)
        panel.set_ylabel("IKE_SA_INITs a second", fontsize=8, color="#3b6ea5")
        panel.tick_params(labelsize=8)
        back = panel.twinx()
        ups = sorted(ups)
        back.plot([ms / 1000 for ms in ups], range(1, 1 + len(ups)), color="#b5472f")
        back.set_ylabel("tunnels that are back", fontsize=8, color="#b5472f")
        back.set_ylim(0, len(ups) * 1.05)
        back.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tools.dev.bench.storm", description=__doc__)
    parser.add_argument("--sensors", type=int, default=int(os.environ.get("SENSORS") or SENSORS))
    parser.add_argument("--to", type=pathlib.Path, help="where results go")
    options = parser.parse_args(arguments)
    directory = options.to or (RESULTS if options.sensors == SENSORS else ROOT / "build/bench")
    directory.mkdir(parents=True, exist_ok=True)

    pins.require("bench", "matplotlib")
    found = {name: simulate(name, options.sensors) for name in TITLES}
    rows = [summary(name, options.sensors, *result) for name, result in found.items()]
    with open(directory / "storm.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("scenario", "second", "inits", "back"))
        for name, (inits, ups, _) in found.items():
            counts, back = per_second(inits), per_second(ups)
            for second in range(max(min(counts), -120), 1 + max(*counts, *back)):
                writer.writerow((name, second, counts[second], back[second]))
    text = (
        f"# {options.sensors} sensors, one gateway that serves {CAPACITY} handshakes a second\n\n"
        "Made by `make bench-storm`. The histogram is storm.png, its numbers are storm.csv.\n\n"
    ) + table(rows)
    (directory / "storm.md").write_text(text)
    plot(found, directory / "storm.png")
    print(text)
    print(f"written to {directory}")


if __name__ == "__main__":
    main()
