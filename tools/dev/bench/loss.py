"""`make bench-loss`: one exchange with n fragments each way, and handshakes, over bad links.

Modes: `rfc7383` (RFC 7383 alone), `conservative` and `eager` (with fragment acknowledgment, that
policy at both ends) and `limit`, an oracle that sends exactly what was lost again one round trip
later. The initiator is the firmware's own machine, unchanged, under CPython; the responder and
the link are tools/dev/sim. handshake_loss.py is the part with whole handshakes. README.md beside
this file says how to read the results.

SEEDS=50 is a quick pass; it prints the table and leaves the kept results alone. PART=exchange or
PART=handshake makes one of the two alone.
"""

import argparse
import csv
import multiprocessing
import os
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
RESULTS = pathlib.Path(__file__).resolve().parent / "results"
for _place in (ROOT / "tools/dev/shims", ROOT / "firmware", ROOT):
    if str(_place) not in sys.path:
        sys.path.insert(0, str(_place))

from tools.dev.sim import exchange, link
from tools.dev.pins import require

MODES = ("rfc7383", "conservative", "eager", "limit")
FRAGMENTS = (3, 8, 20, 45)
LOSSES = (0, 1, 2, 5, 10, 20, 30)  # percent
SEEDS = 1000
COLUMNS = (
    "mode", "fragments", "loss", "pattern", "seeds", "success", "mean_rtt", "p95_rtt",
    "datagrams_per_fragment", "octets_per_fragment", "acks",
)  # fmt: skip

# What else was tried: {name: (mode, options of exchange.run)}.
VARIANTS = {
    "eager": ("eager", {}),
    "round trip not known": ("eager", {"known_rtt": 0}),
    "first timer 1 s": ("eager", {"first_timer": False}),
    "each report once": ("eager", {"copies": False}),
    "no pacing": ("eager", {"gap_ms": 0}),
    "round trip 20 ms": ("eager", {"rtt": 20}),
    "round trip 600 ms": ("eager", {"rtt": 600}),
    "jitter 20 ms": ("eager", {"jitter": 20.0}),
    "the gateway's gap 80 ms": ("eager", {"peer_gap_ms": 80}),
    "rfc7383": ("rfc7383", {}),
    "rfc7383, first timer 3 RTT": (
        "rfc7383",
        {"changes": {"retransmit_ms": 340, "retransmit_tries": 7}},
    ),
    "rfc7383, round trip 600 ms": ("rfc7383", {"rtt": 600}),
}
VARIANT_CELLS = ((20, 0), (20, 5), (20, 30), (45, 30))

CHUNK = 25


class Loss:
    """A loss for one direction, made from its generator; picklable."""

    def __init__(self, pattern, percent):
        self.pattern = pattern
        self.percent = percent

    def __call__(self, rng):
        if self.pattern == "independent":
            return link.independent(rng, self.percent / 100)
        if self.pattern == "bursts":
            return link.gilbert_elliott(rng, self.percent / 100)
        return link.tail_drop(int(self.pattern.rpartition("-")[2]))


def cells():
    """Every (mode, fragments, percent, pattern) of the main table."""
    patterns = [("independent", percent) for percent in LOSSES]
    patterns += [("tail-drop-8", 0), ("tail-drop-4", 0), ("bursts", 10), ("bursts", 30)]
    for pattern, percent in patterns:
        for fragments in FRAGMENTS:
            for mode in MODES:
                yield mode, fragments, percent, pattern


def one(mode, fragments, percent, pattern, seed, options):
    """One run: (success, ms, round trip, datagrams, octets, acks)."""
    rtt = options.get("rtt", exchange.RTT_MS)
    loss = Loss(pattern, percent)
    if mode == "limit":
        result = exchange.limit(fragments, seed, loss, **options)
    else:
        result = exchange.run(mode, fragments, seed, loss, **options)
    return result.success, result.ms / rtt, result.datagrams, result.octets, result.acks


def some(job):
    cell, seeds, options = job
    return [one(*cell, seed, options) for seed in seeds]


def row(cell, seeds, runs):
    """The line of a cell. Times are of the runs that succeeded, all else of all of them."""
    mode, fragments, percent, pattern = cell
    times = sorted(time for success, time, *_ in runs if success)
    each = 2 * fragments
    return {
        "mode": mode,
        "fragments": fragments,
        "loss": percent,
        "pattern": pattern,
        "seeds": seeds,
        "success": round(len(times) / seeds, 4),
        "mean_rtt": round(statistics.fmean(times), 3) if times else "",
        "p95_rtt": round(times[min(len(times) - 1, 95 * len(times) // 100)], 3) if times else "",
        "datagrams_per_fragment": round(statistics.fmean(r[2] for r in runs) / each, 4),
        "octets_per_fragment": round(statistics.fmean(r[3] for r in runs) / each, 1),
        "acks": round(statistics.fmean(r[4] for r in runs), 2),
    }


def measure(work, seeds, say, some=some, row=row):
    """Run [(cell, options)]; return a row for each. A bar moves while it takes place.

    `some` runs a job in a process of its own, `row` makes a line of what came out.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    jobs = []
    for index, (cell, options) in enumerate(work):
        for first in range(0, seeds, CHUNK):
            chunk = range(first, min(first + CHUNK, seeds))
            jobs.append((index, (cell, chunk, options)))
    # The long ones first, so that no core waits for the last of them.
    jobs.sort(key=lambda job: -job[1][0][1])
    runs = [[] for _ in work]
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        multiprocessing.get_context("spawn").Pool() as pool,
        Progress(*columns, transient=True) as progress,
    ):
        task = progress.add_task(say, total=len(jobs) * CHUNK)
        for (index, _), got in zip(jobs, pool.imap(some, [job for _, job in jobs])):
            runs[index] += got
            progress.advance(task, CHUNK)
    return [row(cell, seeds, found) for (cell, _), found in zip(work, runs)]


def write(path, rows, columns=COLUMNS):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# Reading the results.


def find(rows, mode, fragments, percent, pattern="independent"):
    key = mode, fragments, percent, pattern
    return next(r for r in rows if (r["mode"], r["fragments"], r["loss"], r["pattern"]) == key)


def targets(rows):
    """[(what was wanted, what was measured, reached)]."""
    found = []

    def add(text, value, wanted):
        found.append((text, value, wanted))

    eager = find(rows, "eager", 45, 30)
    best = find(rows, "limit", 45, 30)
    add(
        "eager, 45 fragments, 30 %: success 100 %",
        f"{eager['success']:.2%}",
        eager["success"] == 1,
    )
    share = eager["datagrams_per_fragment"] / best["datagrams_per_fragment"]
    add("its datagrams at most 1.25 times the limit's", f"{share:.3f}", share <= 1.25)
    eager, plain, best = (find(rows, mode, 20, 30) for mode in ("eager", "rfc7383", "limit"))
    share = eager["mean_rtt"] / plain["mean_rtt"] if plain["mean_rtt"] else 0
    add(
        "20 fragments, 30 %: mean time at most 0.25 times plain RFC 7383's",
        f"{share:.3f} (of its {plain['success']:.0%} that succeed)", share <= 0.25,
    )  # fmt: skip
    share = eager["mean_rtt"] / best["mean_rtt"]
    add("and at most 1.5 times the limit's", f"{share:.3f}", share <= 1.5)
    for room in (8, 4):
        for fragments in (20, 45):
            drop = f"tail-drop-{room}"
            eager, plain = (find(rows, m, fragments, 0, drop) for m in ("eager", "rfc7383"))
            add(
                f"{room} of a burst get through, {fragments} fragments: eager always, plain never",
                f"{eager['success']:.0%} and {plain['success']:.0%}",
                eager["success"] == 1 and plain["success"] == 0,
            )
    extra = max(
        find(rows, mode, fragments, 0)["datagrams_per_fragment"] - 1
        for mode in MODES
        for fragments in FRAGMENTS
    )
    add("no loss: not one datagram too many", f"{extra:g}", extra == 0)
    return found


def table(rows, percents=(0, 1, 5, 10, 30)):
    """The Markdown of the main results."""
    lines = []
    for fragments in FRAGMENTS:
        lines += [
            f"### {fragments} fragments each way",
            "",
            "| loss | mode | success | mean, RTT | p95, RTT | datagrams a fragment | ACKs |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        wanted = [(percent, "independent") for percent in percents]
        wanted += [(0, "tail-drop-8"), (0, "tail-drop-4"), (30, "bursts")]
        for percent, pattern in wanted:
            for mode in MODES:
                r = find(rows, mode, fragments, percent, pattern)
                what = {"independent": f"{percent} %", "bursts": f"{percent} % in bursts"}
                time = [
                    f"{r[key]:.2f}" if r[key] != "" else "–" for key in ("mean_rtt", "p95_rtt")
                ]
                lines.append(
                    f"| {what.get(pattern, pattern)} | {mode} | {r['success']:.1%} | {time[0]} | "
                    f"{time[1]} | {r['datagrams_per_fragment']:.3f} | {r['acks']:.1f} |"
                )
        lines.append("")
    return "\n".join(lines)


def variants_table(rows):
    lines = [
        "| variant | fragments | loss | success | mean, RTT | datagrams a fragment | ACKs |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        time = f"{r['mean_rtt']:.2f}" if r["mean_rtt"] != "" else "–"
        lines.append(
            f"| {r['variant']} | {r['fragments']} | {r['loss']} % | {r['success']:.1%} | {time} | "
            f"{r['datagrams_per_fragment']:.3f} | {r['acks']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def targets_table(found):
    lines = ["| target | measured | reached |", "| --- | --- | --- |"]
    lines += [f"| {text} | {value} | {'yes' if good else 'no'} |" for text, value, good in found]
    return "\n".join(lines) + "\n"


COLOURS = {"rfc7383": "#b33", "conservative": "#c80", "eager": "#27a", "limit": "#777"}


def plots(rows, directory):
    """loss-time.png, loss-datagrams.png and loss-success.png, a panel for each n."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pictures = (
        ("time", "mean_rtt", "mean time in round trips, of the runs that succeeded", True),
        ("datagrams", "datagrams_per_fragment", "datagrams sent for each fragment", False),
        ("success", "success", "share of runs that succeeded", False),
    )
    for name, column, title, log in pictures:
        figure, panels = pyplot.subplots(1, len(FRAGMENTS), figsize=(12, 3.4), sharey=True)
        for fragments, panel in zip(FRAGMENTS, panels):
            for mode in MODES:
                line = [(p, find(rows, mode, fragments, p)[column]) for p in LOSSES]
                line = [(percent, value) for percent, value in line if value != ""]
                panel.plot(
                    *zip(*line), label=mode, color=COLOURS[mode], marker="o", markersize=3,
                    linestyle="--" if mode == "limit" else "-",
                )  # fmt: skip
            panel.set_title(f"{fragments} fragments each way", fontsize=9)
            panel.set_xlabel("loss, %", fontsize=8)
            panel.grid(alpha=0.3)
            panel.tick_params(labelsize=8)
            if log:
                panel.set_yscale("log")
        panels[0].legend(fontsize=8)
        figure.suptitle(title, fontsize=10)
        figure.tight_layout()
        # No date and no version inside: the same results make the same file.
        figure.savefig(directory / f"loss-{name}.png", dpi=110, metadata={"Software": None})
        pyplot.close(figure)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tools.dev.bench.loss", description=__doc__)
    parser.add_argument("--seeds", type=int, default=int(os.environ.get("SEEDS") or 0))
    parser.add_argument("--part", choices=("exchange", "handshake"))
    parser.add_argument("--to", type=pathlib.Path, help="where results go")
    options = parser.parse_args(arguments)
    quick = options.seeds and options.seeds < SEEDS // 2
    directory = options.to or (ROOT / "build/bench" if quick else RESULTS)
    directory.mkdir(parents=True, exist_ok=True)
    require("bench", "matplotlib")
    if options.part != "handshake":
        exchange_part(options.seeds or SEEDS, directory)
    if options.part != "exchange":
        from . import handshake_loss

        found = handshake_loss.make(options.seeds or handshake_loss.SEEDS, directory, measure)
        show_found(found)
    if quick:
        print("a quick pass: with so few seeds a miss may be chance")
    print(f"written to {directory}")
    return 0


def exchange_part(seeds, directory):
    """Measure one exchange with n fragments each way; write and show what came out."""
    from . import heap

    rows = measure([(cell, {}) for cell in cells()], seeds, "loss")
    write(directory / "loss.csv", rows)
    work, names = [], []
    for name, (mode, changes) in VARIANTS.items():
        for fragments, percent in VARIANT_CELLS:
            work.append(((mode, fragments, percent, "independent"), changes))
            names.append(name)
    others = measure(work, seeds, "variants")
    others = [{"variant": name, **r} for name, r in zip(names, others)]
    write(directory / "loss-variants.csv", others, ("variant", *COLUMNS))
    found = targets(rows)
    peak = heap.report()
    text = (
        f"# Fragments over links that lose: {seeds} seeds a line\n\n"
        f"Made by `make bench-loss`; ../README.md says how to read it.\n\n"
        f"## Targets\n\n{targets_table(found)}\n## Results\n\n{table(rows)}\n"
        f"## Variants\n\n{variants_table(others)}\n## Memory\n\n{peak}"
    )
    (directory / "loss.md").write_text(text)
    plots(rows, directory)
    show(found, rows, peak)


def show(found, rows, peak):
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.table import Table

    console = Console()
    table = Table(title="30 % loss")
    for heading in ("fragments", "mode", "success", "mean, RTT", "datagrams a fragment", "ACKs"):
        table.add_column(heading, justify="right")
    for fragments in FRAGMENTS:
        for mode in MODES:
            r = find(rows, mode, fragments, 30)
            time = f"{r['mean_rtt']:.2f}" if r["mean_rtt"] != "" else "–"
            share = f"{r['datagrams_per_fragment']:.3f}"
            table.add_row(
                str(fragments), mode, f"{r['success']:.1%}", time, share, f"{r['acks']:.1f}"
            )
        table.add_section()
    console.print(table)
    show_found(found)
    console.print(Markdown(peak))


def show_found(found):
    from rich.console import Console

    console = Console()
    for text, value, good in found:
        console.print(f"{'reached' if good else 'MISSED '}  {text}: {value}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
