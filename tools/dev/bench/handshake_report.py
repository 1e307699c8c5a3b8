"""Tables, targets and the picture of `make bench`."""

import json

from .handshake_compare import DTLS

MUTUAL = "DTLS ECDHE-ECDSA, both certified"
ISSUED = "DTLS ECDHE-ECDSA, both certified by a CA"


def targets(result):
    """Return [(target, measured, reached)]."""
    found = []
    for name in ("X25519", "P-256", "X25519, ML-KEM-768"):
        ratio = result["handshake"][name]["ratio"]
        found.append((f"handshake CPU, {name}: at most DTLS's", f"{ratio:.2f} x", ratio <= 1))
    ours = result["handshake"]["X25519"]["octets"]
    for name, words in (
        (DTLS, "DTLS's, only the server certified, by itself"),
        (MUTUAL, "DTLS's, both certified, by themselves"),
        (ISSUED, "DTLS's, both certified by a CA"),
    ):
        ratio = ours / result["handshake"][name]["octets"]
        found.append(
            (f"handshake octets, X25519: at most half of {words}", f"{ratio:.2f} x", ratio <= 0.5)
        )
    packets = result["packets"]
    for way, words in (("seal", "sealed"), ("tunnel.send", "sent by `tunnel.send`")):
        most = max(packets[way]["garbage"].values())
        found.append(
            (f"garbage a reading {words}: at most 256 octets", f"{most:.0f}", most <= 256)
        )
    return found


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def handshakes(result):
    """Return the table that README.md has, too."""
    dtls = result["handshake"][DTLS]["octets"]
    rows = []
    for name, row in result["handshake"].items():
        octets = row["octets"], f"{row['octets'] / dtls:.2f}", row["datagrams"]
        rows.append((name, f"{row['cpu_ms']['median']:.1f}", f"{row['ratio']:.2f}", *octets))
    return table(("", "CPU, ms", "/ DTLS", "octets", "/ DTLS", "datagrams"), rows)


def markdown(result):
    """Return handshake.md."""
    shake, packets = result["handshake"], result["packets"]
    sizes = list(packets["seal"]["cpu_us"])
    ways = ("seal", "open", "tunnel.send", "DTLS write", "UDP send", "echo")
    start = result["start"]

    def key_exchange(name):
        if name == DTLS:
            return ""
        return f"{sum(result['exchange'][group]['median'] for group in name.split(', ')):.1f}"

    def whole(name):
        """A first handshake: loading what it needs, and it."""
        load = start[name if name in start else "DTLS"]["median"]
        return f"{load + shake[name]['cpu_ms']['median']:.1f}"

    loaded = ("X25519", "P-256", "X25519, ML-KEM-768", DTLS)
    parts = [
        "# Handshakes and readings beside DTLS\n",
        "Made by `make bench`; ../README.md says how to read it.\n",
        f"{result['interpreter']}; {result['ssl']}; {result['openssl']}; {result['machine']}; "
        f"{result['rounds']} rounds, medians.\n",
        "## Targets\n",
        "| target | measured | |\n| --- | --- | --- |",
        *(f"| {what} | {got} | {'yes' if ok else 'no'} |" for what, got, ok in targets(result)),
        "\n## A handshake\n",
        handshakes(result),
    ]
    if result["without_charon"]:
        parts.append(f"Skipped: {result['without_charon']}.\n")
    parts += [
        "## What is in it, ms of CPU\n",
        table(
            ("", "our half of the key exchange", "loading the code", "loading and handshake"),
            (
                (name, key_exchange(name),
                 f"{start[name if name in start else 'DTLS']['median']:.1f}", whole(name))
                for name in loaded
            ),
        ),
        f"Starting the interpreter itself: {start['interpreter']['median']:.0f} ms.\n",
        "## Readings a second of CPU, the best batch\n",
        table(
            ("", *(f"{size} octets" for size in sizes)),
            ((way, *(f"{1e6 / packets[way]['cpu_us'][size]['least']:,.0f}" for size in sizes))
             for way in ways),
        ),
        "## Microseconds of CPU over those of a DTLS write\n",
        table(
            ("", *(f"{size} octets" for size in sizes)),
            ((way, *(f"{packets[way]['ratio'][size]:.2f}" for size in sizes)) for way in ways[:5]),
        ),
        "## Octets of heap that a reading takes\n",
        table(
            ("", *(f"{size} octets" for size in sizes)),
            ((way, *(f"{packets[way]['garbage'][size]:.0f}" for size in sizes))
             for way in ways[:5]),
        ),
        "## The handshake with ML-KEM-768, in fragments\n",
        table(
            ("IP datagrams of at most", "datagrams", "octets", "CPU, ms", "/ the first"),
            (
                (row["fragment_size"], row["datagrams"], row["octets"],
                 f"{row['cpu_ms']['median']:.1f}", f"{row['ratio']:.2f}")
                for row in result["fragments"]
            ),
        ),
        "## Many tunnels in one process\n",
        table(
            ("tunnels", "CPU of a handshake, ms", "/ one alone", "handshakes a second of CPU",
             "octets of heap a tunnel"),
            (
                (row["tunnels"], f"{row['cpu_ms']['median']:.1f}", f"{row['ratio']:.2f}",
                 row["a_second"], row["heap"])
                for row in result["many"]
            ),
        ),
    ]  # fmt: skip
    return "\n".join(parts)


def plot(result, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(11, 7))
    bars(panels[0][0], result["handshake"], lambda row: row["ratio"], "CPU of a handshake / DTLS")
    dtls = result["handshake"][DTLS]["octets"]
    bars(
        panels[0][1], result["handshake"], lambda row: row["octets"] / dtls,
        "octets of a handshake / DTLS",
    )  # fmt: skip
    packets, panel = result["packets"], panels[1][0]
    sizes = list(packets["seal"]["cpu_us"])
    for way, colour in (
        ("tunnel.send", "C0"), ("open", "C9"), ("seal", "C2"), ("DTLS write", "C3"),
        ("UDP send", "C7"),
    ):  # fmt: skip
        times = [packets[way]["cpu_us"][size]["least"] for size in sizes]
        panel.plot(range(len(sizes)), times, marker="o", label=way, color=colour)
    panel.set_xticks(range(len(sizes)), sizes)
    panel.set_xlabel("payload, octets", fontsize=8)
    panel.set_title("CPU of a reading, microseconds", fontsize=9)
    panel.set_ylim(bottom=0)
    panel.legend(fontsize=7)
    panel = panels[1][1]
    for key, name, mark, colour in (
        ("datagrams", "fragments", "o", "C0"),
        ("tunnels", "many", "s", "C1"),
    ):
        rows = result[name]
        what = (
            "ML-KEM-768, by datagrams both ways" if name == "fragments" else "X25519, by tunnels"
        )
        panel.plot(
            [row[key] for row in rows], [row["ratio"] for row in rows],
            marker=mark, color=colour, label=what,
        )  # fmt: skip
    panel.set_title("CPU of a handshake over that of the first one here", fontsize=9)
    panel.set_ylim(0, 1.3 * max(row["ratio"] for row in result["fragments"] + result["many"]))
    panel.legend(fontsize=7)
    for panel in panels.flat:
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=7)
    figure.tight_layout()
    # No date and no version inside: the same results make the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def bars(panel, rows, value, title):
    names = list(reversed(rows))
    colours = ["C3" if "DTLS" in name else "C7" if "charon" in name else "C0" for name in names]
    labels = [name.replace(", ", ",\n") for name in names]
    panel.barh(labels, [value(rows[name]) for name in names], color=colours)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_title(title, fontsize=9)


def write(result, directory):
    result["targets"] = targets(result)
    (directory / "handshake.json").write_text(json.dumps(result, indent=1) + "\n")
    (directory / "handshake.md").write_text(markdown(result))
    plot(result, directory / "handshake.png")


def show(result):
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(markdown(result)))
