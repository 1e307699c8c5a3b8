"""The second half of `make bench-loss`: whole handshakes, X25519 alone and with ML-KEM behind it.

IKE_SA_INIT, IKE_INTERMEDIATE where ML-KEM was asked for, IKE_AUTH, until the sensor's tunnel is
up. The sensor is firmware/'s core under CPython, the gateway tools/devgateway; link and clock are
those of tools/dev/sim. Key exchange values are computed once for all runs
(tools/dev/sim/key_exchanges.py), all else in each; `proof` makes one handshake of each kind with
nothing kept, its ML-KEM by firmware's own code on MicroPython. README.md beside this file says
how to read the results.
"""

import csv
import functools
import statistics

from tools.dev.sim import handshake, key_exchanges, link

SEEDS = 200
RTT_MS = 100
UDP_IP = 28
SK, SKF = 46, 53
EXCHANGES = {34: "IKE_SA_INIT", 43: "IKE_INTERMEDIATE", 35: "IKE_AUTH"}

ML_KEM = ("mlkem512", "mlkem768", "mlkem1024")
METHODS = ("x25519", *ML_KEM)
ALONE = "mlkem512-alone"  # in IKE_SA_INIT, without X25519
TITLES = {
    "x25519": "X25519 alone",
    "mlkem512": "X25519, ML-KEM-512",
    "mlkem768": "X25519, ML-KEM-768",
    "mlkem1024": "X25519, ML-KEM-1024",
    ALONE: "ML-KEM-512 alone",
}
MTUS = (256, 576, 1280)  # octets of an IPv4 packet: `fragment_size` at both ends
MODES = ("rfc7383", "conservative", "eager")
LOSSES = (0, 1, 2, 5, 10, 20, 30)  # percent
FEW_LOSSES = (0, 5, 10, 20, 30)  # where the rest would say nothing new
TAIL_DROPS = (("tail-drop-4", 0), ("tail-drop-2", 0))
COLUMNS = (
    "method", "mtu", "mode", "pattern", "loss", "seeds", "success", "agreed", "mean_ms",
    "p95_ms", "mean_rtt", "p95_rtt", "later_ms", "datagrams_out", "datagrams_in", "octets_out",
    "octets_in", "acks",
)  # fmt: skip

# What a mode means: profile keys, settings of the gateway, bends of the link to the sensor.
_OFF = {"frag_ack": "off"}
_QUICK = {"retransmit_ms": 340, "retransmit_tries": 7}
QUICK = ("rfc7383-quick", "eager-quick")
ENDS = {
    "rfc7383": (_OFF, _OFF, {}),
    "conservative": ({"frag_ack_policy": "conservative"}, {"frag_ack": "conservative"}, {}),
    "eager": ({"frag_ack_policy": "eager"}, {"frag_ack": "eager"}, {}),
    # The profile's timer at 3.4 round trips from IKE_SA_INIT on, gives up after 43 s.
    "rfc7383-quick": ({**_OFF, **_QUICK}, _OFF, {}),
    "eager-quick": ({"frag_ack_policy": "eager", **_QUICK}, {"frag_ack": "eager"}, {}),
    # A gateway without RFC 7383: longer messages in IP fragments.
    "ip-fragments": (_OFF, {"fragmentation": False}, {}),
    # The same, and a board whose stack does not join those, as an ESP32's.
    "no-reassembly": (_OFF, {"fragmentation": False}, {"reassembly": False}),
}


def percents(mtu):
    return FEW_LOSSES if mtu == 256 else LOSSES


def tail_drops(mtu):
    """(pattern, percent) of a socket in which a burst finds so many places."""
    return (*TAIL_DROPS, ("tail-drop-4", 10)) if mtu == 256 else TAIL_DROPS


def cells():
    """Every (method, mtu, mode, pattern, percent) that is measured."""
    for mtu in MTUS:
        for method in METHODS:
            for mode in MODES:
                for percent in percents(mtu):
                    yield method, mtu, mode, "independent", percent
                for pattern, percent in tail_drops(mtu):
                    yield method, mtu, mode, pattern, percent
    for percent in FEW_LOSSES:
        for mode in QUICK:
            yield "mlkem768", 576, mode, "independent", percent
        yield ALONE, 1280, "eager", "independent", percent
        for method in ML_KEM:
            for mtu in (576, 1280):
                yield method, mtu, "ip-fragments", "independent", percent
    for method in ML_KEM:
        for mtu in (576, 1280, 1500):
            yield method, mtu, "no-reassembly", "independent", 0


def losses(pattern, percent):
    """What handshake.run takes. A socket that is too small is the sensor's."""

    def independent(rng):
        return link.independent(rng, percent / 100)

    if pattern == "independent":
        return independent
    room = int(pattern.rpartition("-")[2])
    return independent, lambda rng: link.either(independent(rng), link.tail_drop(room))


def changes(method):
    """Profile keys that ask for a method."""
    if method == ALONE:
        return {"ike": ["aes128ccm16-prfsha256-mlkem512"]}
    return {} if method == "x25519" else {"pq": "require", "pq_method": method}


def handshake_of(cell, seed):
    """One run. Seeds are those of the link and of both ends' randomness."""
    method, mtu, mode, pattern, percent = cell
    profile, settings, bend = ENDS[mode]
    size = mtu
    if mode in ("ip-fragments", "no-reassembly"):
        bend, size = ({"mtu": mtu}, {**bend, "mtu": mtu}), 9000
    return handshake.run(
        seed, losses(pattern, percent), from_start=True, until=100_000, rtt=RTT_MS, bend=bend,
        settings={"fragment_size": size, "fragment_gap_ms": 0, **settings},
        **{"port": None, "fragment_size": size, "policy": profile.get("frag_ack_policy", "eager"),
           **{key: value for key, value in profile.items() if key != "frag_ack_policy"},
           **changes(method)},
    )  # fmt: skip


def exchange_of(datagram):
    """(exchange type, first payload) of a datagram with or without the non-ESP marker."""
    at = 4 if datagram[:4] == handshake.MARKER else 0
    return datagram[at + 18], datagram[at + 16]


def is_ack(datagram):
    """Is this an acknowledgment? Of what is sent in SK here, all else is longer."""
    exchange, payload = exchange_of(datagram)
    return exchange in (43, 35) and payload == SK and len(datagram) < 110


@functools.cache
def _remember():
    """Have this process compute each key exchange value once, from now on."""
    context = key_exchanges.remembered()
    context.__enter__()
    return context


def one(cell, seed):
    """(success, ms, ms of IKE_SA_INIT or None, datagrams out, in, octets out, in, acks)."""
    run = handshake_of(cell, seed)
    out, back = run.ways
    return (
        run.up,
        run.ms,
        run.sensor.when.get("agreed"),
        out.sent,
        back.sent,
        out.octets + UDP_IP * out.sent,
        back.octets + UDP_IP * back.sent,
        sum(is_ack(datagram) for _, _, datagram in run.sent),
    )


def some(job):
    cell, seeds, _ = job
    _remember()
    return [one(cell, seed) for seed in seeds]


def row(cell, seeds, runs):
    """The line of a cell. Times are of the runs that succeeded, all else of all of them."""
    times = sorted(run[1] for run in runs if run[0])
    mean = statistics.fmean(times) if times else None
    later = statistics.fmean(run[1] - run[2] for run in runs if run[0]) if times else None
    p95 = times[min(len(times) - 1, 95 * len(times) // 100)] if times else None

    def rounded(value, digits):
        return "" if value is None else round(value, digits)

    counts = [round(statistics.fmean(run[at] for run in runs), 2) for at in range(3, 8)]
    return {
        **dict(zip(("method", "mtu", "mode", "pattern", "loss"), cell)),
        "seeds": seeds,
        "success": round(len(times) / seeds, 4),
        "agreed": round(sum(run[2] is not None for run in runs) / seeds, 4),
        "mean_ms": rounded(mean, None),
        "p95_ms": rounded(p95, None),
        "mean_rtt": rounded(mean and mean / RTT_MS, 2),
        "p95_rtt": rounded(p95 and p95 / RTT_MS, 2),
        "later_ms": rounded(later, None),
        **dict(zip(COLUMNS[-5:], counts)),
    }


def find(rows, *cell):
    names = ("method", "mtu", "mode", "pattern", "loss")
    return next(row for row in rows if tuple(row[name] for name in names) == cell)


# One handshake of each kind, nothing of it computed before.


def proof(method, mtu=576):
    """Make a handshake with every value computed, ML-KEM by firmware's code on MicroPython.

    Returns [(side, exchange, [octets of its IP datagrams])] in order; raises RuntimeError unless
    both ends have the same keys and the runs that are measured have the same datagrams.
    """
    cell = method, mtu, "eager", "independent", 0
    with key_exchanges.using(key_exchanges.board):
        real = handshake_of(cell, 0)
    with key_exchanges.remembered():
        quick = handshake_of(cell, 0)
    shapes = []
    for run in (real, quick):
        (child,) = run.gateway.gateway.children.values()
        ours, theirs = run.sensor.events[-1][1], [key for key in child.keys if key]
        if not run.up or [bytes(ours["key_out"]), bytes(ours["key_in"])] != theirs:
            raise RuntimeError(f"{method}: the two ends have different keys")
        shapes.append([(side, *exchange_of(data), len(data)) for side, _, data in run.sent])
    if shapes[0] != shapes[1]:
        raise RuntimeError(f"{method}: what was kept between runs changed what is sent")
    messages = []
    for side, exchange, _, size in shapes[0]:
        if not messages or messages[-1][:2] != (side, EXCHANGES[exchange]):
            messages.append((side, EXCHANGES[exchange], []))
        messages[-1][2].append(size + UDP_IP)
    return messages


def proofs():
    """{(method, mtu): messages} of every kind, as `proof` returns them."""
    kinds = [(method, mtu) for mtu in MTUS for method in METHODS] + [(ALONE, 1280)]
    return {kind: proof(*kind) for kind in kinds}


# Reading the results.


def facts(rows):
    """[(what was expected, what was measured, holds)]."""
    found = []
    extra = [
        find(rows, method, mtu, mode, "independent", 0)[f"datagrams_{way}"]
        - find(rows, method, mtu, "rfc7383", "independent", 0)[f"datagrams_{way}"]
        for method in METHODS
        for mtu in MTUS
        for mode in MODES
        for way in ("out", "in")
    ]
    found.append(("no loss: not one datagram more than RFC 7383's", f"{max(extra):g} more",
                  max(extra) == 0))  # fmt: skip
    for mtu, pattern in ((256, "tail-drop-4"), (576, "tail-drop-2")):
        for method in ("mlkem768", "mlkem1024"):
            plain, eager = (
                find(rows, method, mtu, m, pattern, 0)["success"] for m in ("rfc7383", "eager")
            )
            room = pattern.rpartition("-")[2]
            found.append((
                f"{TITLES[method]}, MTU {mtu}, room for {room} of a burst: eager always, "
                "RFC 7383 never",
                f"{eager:.0%} and {plain:.0%}", eager == 1 and plain == 0,
            ))  # fmt: skip
    for percent in (5, 10, 20, 30):
        plain, eager = (
            find(rows, "mlkem768", 576, mode, "independent", percent)
            for mode in ("rfc7383", "eager")
        )
        share = eager["later_ms"] / plain["later_ms"] if plain["later_ms"] else 0
        found.append((
            f"{TITLES['mlkem768']}, MTU 576, {percent} %: what follows IKE_SA_INIT takes eager "
            "at most half as long as RFC 7383",
            f"{share:.2f} ({eager['success']:.1%} succeed, {plain['success']:.1%})",
            share <= 0.5,
        ))  # fmt: skip
    pairs = [
        (find(rows, way, mtu, "eager", "independent", 30) for way in ("x25519", method))
        for method in ML_KEM
        for mtu in MTUS
    ]
    behind = max(
        (alone["success"] - hybrid["success"] for alone, hybrid in pairs if hybrid["acks"]),
        default=0,
    )
    found.append((
        "30 %, eager: with ML-KEM in fragments at most 2 of 100 more fail than with X25519 alone",
        f"{100 * behind:.1f}", behind <= 0.02,
    ))  # fmt: skip
    return found


def _time(value):
    return f"{value / 1000:.1f}" if value != "" else "never"


def _each(rows, cell, key, show):
    method, mtu, pattern, percent = cell
    return " / ".join(show(find(rows, method, mtu, m, pattern, percent)[key]) for m in MODES)


def _table(head, lines):
    marks = ["---"] + ["---:"] * (head.count("|") - 2)
    return "\n".join([head, f"| {' | '.join(marks)} |", *lines]) + "\n"


def _percent(value):
    return f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def modes_table(rows, kinds):
    """Lines of [(title, (method, mtu, pattern, percent))], the three modes side by side."""
    lines = []
    for title, cell in kinds:
        found = [find(rows, *cell[:2], mode, *cell[2:]) for mode in MODES]
        sent, octets = (
            [r[f"{what}_out"] + r[f"{what}_in"] for r in found] for what in ("datagrams", "octets")
        )
        lines.append(
            f"| {title} | {_each(rows, cell, 'success', _percent)} | "
            f"{_each(rows, cell, 'mean_ms', _time)} | {_each(rows, cell, 'p95_ms', _time)} | "
            f"{_each(rows, cell, 'later_ms', _time)} | "
            f"{' / '.join(f'{n:.1f}' for n in sent)} | "
            f"{' / '.join(f'{n:,.0f}' for n in octets)} |"
        )
    head = "| | succeed | mean, s | 95 of 100 within, s | without IKE_SA_INIT, s | datagrams "
    return _table(head + "| octets |", lines)


def single_table(rows, kinds):
    lines = []
    for title, cell in kinds:
        r = find(rows, *cell)
        sent = r["datagrams_out"] + r["datagrams_in"]
        lines.append(
            f"| {title} | {_percent(r['success'])} | {_time(r['mean_ms'])} | "
            f"{_time(r['p95_ms'])} | {sent:.1f} |"
        )
    return _table("| | succeed | mean, s | 95 of 100 within, s | packets |", lines)


def sizes_table(proven):
    """What a handshake is made of where nothing is lost."""
    lines = []
    for (method, mtu), messages in proven.items():
        parts = {}
        for side, exchange, sizes in messages:
            parts[exchange, side] = sizes
        cells = []
        for exchange in EXCHANGES.values():
            for side in ("sensor", "gateway"):
                sizes = parts.get((exchange, side))
                count = f"{len(sizes)}: " if sizes and len(sizes) > 1 else ""
                cells.append(f"{count}{sum(sizes)}" if sizes else "–")
        total = [sum(sum(sizes) for side, _, sizes in messages if side == who)
                 for who in ("sensor", "gateway")]  # fmt: skip
        lines.append(
            f"| {TITLES[method]} | {mtu} | {' | '.join(cells)} | {total[0]} | {total[1]} |"
        )
    head = "| | MTU | IKE_SA_INIT out | in | IKE_INTERMEDIATE out | in | IKE_AUTH out | in | all out | in |"
    return _table(head, lines)


def facts_table(found):
    lines = [f"| {text} | {value} | {'yes' if good else 'no'} |" for text, value, good in found]
    return "\n".join(["| expected | measured | holds |", "| --- | --- | --- |", *lines]) + "\n"


def text(rows, proven, seeds):
    """The Markdown page."""
    out = [
        f"# Handshakes over links that lose: {seeds} seeds a line\n",
        "Made by `make bench-loss`; ../README.md says how to read it. Where three figures stand "
        "side by side they are those of RFC 7383 alone, conservative and eager acknowledgment. "
        f"The round trip is {RTT_MS} ms: 1.0 s are ten of them.\n",
        f"![picture](handshake-loss.png)\n\n## Expected\n\n{facts_table(facts(rows))}",
        "## Octets where nothing is lost\n",
        "IP and UDP headers included; `n:` is in how many datagrams. Of each line one handshake "
        "was computed as a whole, its ML-KEM by firmware's code on MicroPython and by another "
        "implementation at the gateway, and both ends had the same keys.\n",
        sizes_table(proven),
    ]
    for mtu in MTUS:
        out.append(f"## MTU {mtu}\n")
        kinds = [
            (f"{TITLES[method]}, {percent} %", (method, mtu, "independent", percent))
            for method in METHODS
            for percent in percents(mtu)
        ]
        out.append(modes_table(rows, kinds))
    out.append("## A socket with little room\n")
    kinds = [
        (
            f"{TITLES[method]}, MTU {mtu}, room for {room}" + (f", {loss} %" if loss else ""),
            (method, mtu, f"tail-drop-{room}", loss),
        )
        for method in METHODS
        for mtu in MTUS
        for room, loss in ((int(pattern[-1]), loss) for pattern, loss in tail_drops(mtu))
    ]
    out.append(modes_table(rows, kinds))
    out.append("## A quicker timer: `retransmit_ms` 340, ML-KEM-768, MTU 576\n")
    kinds = []
    for percent in FEW_LOSSES:
        for mode in ("rfc7383", "rfc7383-quick", "eager", "eager-quick"):
            title = f"{percent} %, {mode}"
            kinds.append((title, ("mlkem768", 576, mode, "independent", percent)))
    out.append(single_table(rows, kinds))
    out.append("## A gateway without RFC 7383\n")
    kinds = []
    for method in ML_KEM:
        for mtu in (576, 1280):
            for percent in FEW_LOSSES:
                title = f"{TITLES[method]}, MTU {mtu}, {percent} %, IP fragments"
                kinds.append((title, (method, mtu, "ip-fragments", "independent", percent)))
    for method in ML_KEM:
        for mtu in (576, 1280, 1500):
            title = f"{TITLES[method]}, MTU {mtu}, the board joins no IP fragments"
            kinds.append((title, (method, mtu, "no-reassembly", "independent", 0)))
    out.append(single_table(rows, kinds))
    out.append("## ML-KEM-512 alone, in IKE_SA_INIT\n")
    kinds = []
    for percent in FEW_LOSSES:
        cell = (ALONE, 1280, "eager", "independent", percent)
        kinds.append((f"MTU 1280, {percent} %", cell))
    out.append(single_table(rows, kinds))
    return "\n".join(out)


COLOURS = {"rfc7383": "#b33", "conservative": "#c80", "eager": "#27a"}
LABELS = {"rfc7383": "RFC 7383 alone", "conservative": "conservative", "eager": "eager"}


def plot(rows, path):
    """Time by loss for MTU 576 and 1280, success by loss, and the socket with little room."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(4, len(METHODS), figsize=(12, 10.5), sharey="row")
    for column, method in enumerate(METHODS):
        panels[0][column].set_title(TITLES[method], fontsize=10)
        for at, mtu in enumerate((576, 1280)):
            for mode in MODES:
                cells = [find(rows, method, mtu, mode, "independent", p) for p in LOSSES]
                line = [(r["loss"], r["mean_ms"] / 1000) for r in cells if r["mean_ms"] != ""]
                style = {"color": COLOURS[mode], "marker": "o", "markersize": 3}
                panels[at][column].plot(*zip(*line), label=LABELS[mode], **style)
                panels[2][column].plot(
                    LOSSES, [100 * r["success"] for r in cells], linestyle="-:"[at], **style
                )
            panels[at][column].set_yscale("log")
            panels[at][column].set_yticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", 1, 2, 5, 10])
            panels[at][column].minorticks_off()
        _bars(rows, method, panels[3][column])
    for panel in panels[:3].flat:
        panel.set_xlabel("loss, %", fontsize=8)
    for panel in panels.flat:
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=8)
    labels = (
        "mean s, MTU 576", "mean s, MTU 1280", "% that succeed\n(dotted: MTU 1280)",
        "mean s, a socket with room\nfor 4 or 2 of a burst",
    )  # fmt: skip
    for panel, label in zip(panels[:, 0], labels):
        panel.set_ylabel(label, fontsize=9)
    panels[0][0].legend(fontsize=8)
    figure.suptitle(
        f"From the first datagram to the tunnel, round trip {RTT_MS} ms "
        "(times: of the handshakes that succeed)",
        fontsize=10,
    )
    figure.tight_layout()
    # No date and no version inside: the same results make the same file.
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)


def _bars(rows, method, panel):
    kinds = [(256, 4), (576, 4), (576, 2), (1280, 2)]
    for at, mode in enumerate(MODES):
        for place, (mtu, room) in enumerate(kinds):
            value = find(rows, method, mtu, mode, f"tail-drop-{room}", 0)["mean_ms"]
            where = place + (at - 1) * 0.27
            if value == "":
                panel.text(where, 0.03, "never", rotation=90, ha="center", va="bottom",
                           fontsize=8, color=COLOURS[mode])  # fmt: skip
            else:
                panel.bar(where, value / 1000, 0.25, color=COLOURS[mode])
    panel.set_xlim(-0.6, len(kinds) - 0.4)
    panel.set_xticks(range(len(kinds)), [f"MTU {mtu}\nroom {room}" for mtu, room in kinds])


def make(seeds, directory, measure):
    """Measure all cells, write table, page and picture to `directory`; return the facts."""
    proven = proofs()
    rows = measure([(cell, {}) for cell in cells()], seeds, "handshakes", some, row)
    with open(directory / "handshake-loss.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (directory / "handshake-loss.md").write_text(text(rows, proven, seeds))
    plot(rows, directory / "handshake-loss.png")
    return facts(rows)
