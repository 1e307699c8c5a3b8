"""The figures of the last `make footprint`, results.json, as tables and a picture for READMEs."""

import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results.json"

# Octets above an empty interpreter that are aimed at, on a board with 32-bit objects.
TARGETS = {"X25519": 40960, "X25519, ML-KEM-768": 61440, "steady": 12288}

WHERE = {"frozen": "frozen", "romfs": "in a ROMFS", "files": "`.mpy` files"}
_PHASES = {
    "load_profile": "`load_profile()`, modules included",
    "Tunnel": "`Tunnel(profile)`",
    "IKE_SA_INIT": "IKE_SA_INIT: key pair, shared secret",
    "IKE_INTERMEDIATE": "IKE_INTERMEDIATE: ML-KEM",
    "IKE_AUTH": "IKE_AUTH",
    "UP": "hand-over to ESP",
    "readings": "readings and replies",
    "replace": "a second handshake beside the first SA",
}
_MOMENTS = {
    "tunnel": "live before the handshake",
    "up": "live after it",
    "steady": "live between readings",
    "names": "names loaded (not octets)",
}
HANDSHAKE = ("IKE_SA_INIT", "IKE_INTERMEDIATE", "IKE_AUTH", "UP")


def results():
    return json.loads(RESULTS.read_text())


def handshake(figures):
    """Return the peak of a whole handshake."""
    return max(figures["peaks"].get(phase, 0) for phase in HANDSHAKE)


def _number(value):
    return "" if value is None else f"{value:,}"


def _markdown(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def sessions(found=None):
    """Return the table of phases: a column for each key exchange and place of the code."""
    found = (found or results())["sessions"]
    columns = [(name, how) for name in found for how in WHERE]
    head = ["peak heap, octets"] + [f"{name}, {WHERE[how]}" for name, how in columns]

    def row(title, pick):
        return [title] + [_number(pick(found[name][how])) for name, how in columns]

    rows = [
        row(title, lambda f, phase=phase: f["peaks"].get(phase))
        for phase, title in _PHASES.items()
    ]
    rows.append(row("**handshake**", handshake))
    rows += [
        row(title, lambda f, moment=moment: f["live"].get(moment))
        for moment, title in _MOMENTS.items()
    ]
    rows.append(row("least heap that serves", lambda f: f["heap"]))
    return _markdown(head, rows)


def modules(found=None):
    """Return the table of modules: heap at import, machine code, names."""
    found = found or results()
    by_place = found["modules"]
    rows = []
    for name in sorted(by_place["romfs"]):
        heap = [_number(by_place[how][name][0]) for how in WHERE]
        code = found["machine_code"].get(name)
        rows.append([f"`{name}`", *heap, _number(code), str(by_place["romfs"][name][1])])
    head = ["module", *WHERE.values(), "of it machine code", "new names"]
    return _markdown(head, rows)


_COLORS = {"X25519": "#4c78a8", "X25519, ML-KEM-768": "#f58518"}
_BARS = ("load_profile", *HANDSHAKE, "readings", "steady", "replace")


def picture(found=None):
    """Return a bar chart of the peaks of each phase with frozen code, and of the targets."""
    import drawsvg

    found = (found or results())["sessions"]
    left, top, width, height, group = 60, 40, 880, 260, 100
    scale = height / 65536
    drawing = drawsvg.Drawing(width, top + height + 70, id_prefix="f")
    drawing.append_title("Peak heap of each phase of a session, octets on 32 bit")
    drawing.append(drawsvg.Rectangle(0, 0, width, top + height + 70, fill="#ffffff"))

    def text(words, x, y, anchor="middle", color="#1f2933"):
        font = "Helvetica, Arial, DejaVu Sans, sans-serif"
        drawing.append(
            drawsvg.Text(words, 12, x, y, text_anchor=anchor, fill=color, font_family=font)
        )

    def level(octets):
        return round(top + height - octets * scale, 1)

    for kib in range(0, 65, 16):
        y = level(kib * 1024)
        drawing.append(drawsvg.Line(left, y, width - 10, y, stroke="#e4e7eb"))
        text(f"{kib} KiB", left - 6, y + 4, "end", "#7b8794")
    for n, phase in enumerate(_BARS):
        x = left + 12 + n * group
        for m, (name, color) in enumerate(_COLORS.items()):
            figures = found[name]["frozen"]
            value = figures["live"]["steady"] if phase == "steady" else figures["peaks"].get(phase)
            if not value:
                continue
            y = level(value)
            bar = round(value * scale, 1)
            drawing.append(drawsvg.Rectangle(x + 38 * m, y, 34, bar, fill=color))
            text(f"{value / 1024:.1f}", x + 38 * m + 17, y - 4)
        text("live between" if phase == "steady" else phase, x + 36, top + height + 18)
        if phase == "steady":
            text("readings", x + 36, top + height + 32)
    for m, (name, color) in enumerate(_COLORS.items()):
        y = level(TARGETS[name])
        first = left + 12 + _BARS.index(HANDSHAKE[0]) * group - 8
        last = first + len(HANDSHAKE) * group
        drawing.append(
            drawsvg.Line(first, y, last, y, stroke=color, stroke_dasharray="6 4", stroke_width=2)
        )
        drawing.append(drawsvg.Rectangle(left + 230 * m, 10, 12, 12, fill=color))
        text(name, left + 18 + 230 * m, 20, "start")
    y = level(TARGETS["steady"])
    first = left + 12 + _BARS.index("steady") * group - 8
    drawing.append(drawsvg.Line(first, y, first + 92, y, stroke="#1f2933", stroke_dasharray="6 4"))
    text(
        "KiB above an empty interpreter, code frozen; dashed: what is aimed at",
        left, top + height + 58, "start", "#7b8794",
    )  # fmt: skip
    return drawing.as_svg() + "\n"
