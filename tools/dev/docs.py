"""`make docs`: what the READMEs show of the sources is made from the sources.

Pictures, firmware/states.svg from the state tables, firmware/house.svg from the imports, firmware/path.svg, and firmware/heap.svg from what
`make footprint` measured last; and in the pages of BLOCKS what stands between
`<!-- make docs: NAME -->` and `<!-- end -->`.  The same sources make the same octets, and
host_tests/rules/test_docs.py holds the files to them.
"""

import argparse
import ast
import importlib
import json
import pathlib
import re
import sys

import drawsvg

from tools.board import doctor
from tools.common import mpy
from tools.dev import house, size
from tools.dev.footprint import show
from tools.fleet import keys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIRMWARE = ROOT / "firmware"


EXCHANGES = {
    34: "IKE_SA_INIT",
    35: "IKE_AUTH",
    36: "CREATE_CHILD_SA",
    37: "INFORMATIONAL",
    43: "IKE_INTERMEDIATE",
}
# What moves the state without a message: the calls of the sensor's own side, and silence.
OURS = (
    ("IDLE", "start()", "IKE_SA_INIT"),
    ("IKE_SA_INIT", "no answer", "DOWN"),
    ("IKE_INTERMEDIATE", "no answer", "DOWN"),
    ("IKE_AUTH", "no answer", "DOWN"),
    ("UP", "no answer", "DOWN"),
    ("UP", "SNs used up", "DOWN"),
    ("UP", "delete()", "DELETING"),
    ("DELETING", "no answer", "DOWN"),
)


class DocsError(Exception):
    """Something has no words or no place in a README; the text says what."""


def firmware(name):
    """Import a module of firmware/ on CPython."""
    for path in (FIRMWARE, ROOT / "tools/dev/shims"):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
    return importlib.import_module("minipsec." + name)


# The state diagram.


def table():
    """Return {(state, exchange, response): (handler's name, (states in which it may end))}.

    Both stand in ike.sa: a row of its TABLE, and a comment behind it.
    """
    rows = firmware("ike.sa").TABLE
    text = (FIRMWARE / "minipsec/ike/sa.py").read_text()
    lines = text[text.index("TABLE = {") :].split("\n}\n")[0].splitlines()[1:]
    found = {}
    for (key, name), line in zip(rows.items(), lines, strict=True):
        row, _, comment = line.partition("  # ")
        assert f'): "{name}",' in row, line
        ends = comment.partition(":")[0].split(", ")
        found[key] = name, tuple(firmware("ike.sa").STATES.index(end) for end in ends)
    return found


def transitions():
    """Return [(state, label, [states that it may end in], is it a message)], in STATES' order."""
    states = firmware("ike.sa").STATES
    found = []
    for (state, exchange, response), (_, ends) in table().items():
        label = f"{EXCHANGES[exchange]} {'response' if response else 'request'}"
        found.append((states[state], label, [states[end] for end in ends], True))
    mentioned = {state for state, _, ends, _ in found for state in (state, *ends)}
    for state, label, end in OURS:
        if state == "IDLE" or state in mentioned:
            found.append((state, label, [end], False))
    return sorted(found, key=lambda row: states.index(row[0]))


def _grouped():
    """Return (states in order, {(state, end): [(label, is it a message)]})."""
    edges = {}
    for state, label, ends, message in transitions():
        for end in ends:
            edges.setdefault((state, end), []).append((label, message))
    named = {name for edge in edges for name in edge}
    return [state for state in firmware("ike.sa").STATES if state in named], edges


FONT = "Helvetica, Arial, DejaVu Sans, sans-serif"
INK, PALE = "#1f2933", "#7b8794"
FILLS = {"UP": "#d3f9d8", "DOWN": "#e4e7eb"}
LINE = 15  # height of a line of text


class Drawing:
    """Boxes, arrows and text on white, by drawsvg."""

    def __init__(self, width, height, title):
        self._d = drawsvg.Drawing(width, height, id_prefix="a")
        self._d.append_title(title)
        self._d.append(drawsvg.Rectangle(0, 0, width, height, fill="#ffffff"))
        self._heads = {}

    def box(self, x, y, width, height, text, fill="#e7f0fd", dash=None):
        self._d.append(
            drawsvg.Rectangle(
                x, y, width, height, rx=8, fill=fill, stroke=INK, stroke_dasharray=dash
            )
        )
        lines = [text] if isinstance(text, str) else text
        top = y + height / 2 - (len(lines) - 1) * LINE / 2
        for n, line in enumerate(lines):
            self.text(x + width / 2, top + n * LINE + 4.5, line, "middle", bold=n == 0)

    def text(self, x, y, text, anchor="start", bold=False, color=INK):
        weight = "bold" if bold else "normal"
        self._d.append(
            drawsvg.Text(
                text,
                12,
                x,
                y,
                font_family=FONT,
                text_anchor=anchor,
                fill=color,
                font_weight=weight,
            )
        )

    def lines(self, x, y, labels, anchor="start"):
        """Labels [(text, is it a message)] under each other, the last one at `y`."""
        for n, (text, message) in enumerate(labels):
            up = (len(labels) - 1 - n) * LINE
            self.text(x, y - up, text, anchor, color=INK if message else PALE)

    def arrow(self, *points, dash=None, color=INK, head=True):
        if head and color not in self._heads:
            mark = drawsvg.Marker(-0.9, -0.5, 0.1, 0.5, scale=9, orient="auto")
            mark.append(drawsvg.Lines(-0.9, 0.45, -0.9, -0.45, 0.1, 0, fill=color, close=True))
            self._heads[color] = mark
        flat = [value for point in points for value in point]
        options = {"marker_end": self._heads[color]} if head else {}
        self._d.append(
            drawsvg.Lines(*flat, fill="none", stroke=color, stroke_dasharray=dash, **options)
        )

    def svg(self):
        return self._d.as_svg() + "\n"


def state_diagram():
    """States in a column; what keeps a state stands right of it, ways to the end go left."""
    states, edges = _grouped()
    last = states[-1]
    width, height, left, trunk = 170, 42, 220, 30
    middle, right = left + width / 2, left + width
    # Ways past the next state each have a lane of their own, right of the boxes.
    skips = [
        (a, b) for a, b in edges if a != b and b != last and states.index(b) != states.index(a) + 1
    ]
    lane = {edge: right + 22 + 20 * n for n, edge in enumerate(skips)}
    beside = right + 34 + 20 * len(skips)
    tops, y = {}, 20
    for n, state in enumerate(states):
        tops[state] = y
        after = states[n + 1] if n + 1 < len(states) else None
        below = [len(edges.get((state, end), ())) for end in (after, *(b for _, b in skips))]
        y += height + 22 + LINE * max(1, *below)
    drawing = Drawing(beside + 210, y + 8, "States of an IKE SA")
    for (a, b), labels in edges.items():
        at, to = tops[a] + height / 2, tops[b] + height / 2
        dash = None if any(message for _, message in labels) else "5 4"
        below = tops[a] + height + 6 + LINE * len(labels)
        if a == b:
            drawing.text(beside, at - (len(labels) - 1) * LINE / 2 + 4.5, "\u21ba", bold=True)
            drawing.lines(beside + 18, at + (len(labels) - 1) * LINE / 2 + 4.5, labels)
        elif (a, b) in lane:
            x = lane[a, b]
            drawing.arrow((right, at), (x, at), (x, to), (right + 1, to), dash=dash)
            drawing.lines(x + 8, below, labels)
        elif b == last and states.index(b) != states.index(a) + 1:
            drawing.arrow((left, at), (trunk, at), (trunk, to), (left - 1, to), dash=dash)
            said = [label for label in labels if label[1]]
            rest = [label for label in labels if not label[1]]
            drawing.lines(trunk + 6, at - 5, said)
            drawing.lines(trunk + 6, at + LINE * len(rest), rest)
        else:
            drawing.arrow((middle, tops[a] + height), (middle, tops[b] - 1), dash=dash)
            drawing.lines(middle - 8, below, labels, "end")
    for state in states:
        drawing.box(left, tops[state], width, height, state, FILLS.get(state, "#e7f0fd"))
    drawing.text(
        trunk,
        y,
        "\u21ba the state stays. Gray: no message. What is not drawn is dropped and counted.",
    )
    return drawing.svg()


def path_diagram():
    """A reading's way from the sensor to the server."""
    drawing = Drawing(820, 200, "From a sensor through the gateway to the server")
    drawing.box(20, 20, 170, 110, ["sensor", "sensor.py", "minipsec", "MicroPython"])
    drawing.box(450, 20, 150, 110, ["gateway", "strongSwan", "swanctl.conf"], "#fff3bf")
    drawing.box(680, 20, 120, 110, ["server", "any UDP", "program"], "#d3f9d8")
    drawing.box(240, 20, 160, 30, "Wi-Fi, NAT, Internet", "#f5f7fa", "5 4")
    for y, left, right, text in (
        (78, 190, 450, "IKEv2: UDP 500, then 4500"),
        (112, 190, 450, "readings: ESP in UDP 4500"),
        (78, 600, 680, "plain UDP"),
    ):
        middle = (left + right) / 2
        drawing.arrow((middle, y), (right - 1, y))
        drawing.arrow((middle, y), (left + 1, y))
        drawing.text(middle, y - 6, text, "middle")
    for x, *lines in (
        (105, "inner_address,", "or one of the gateway's pool"),
        (525, "gateway, gateway_id"),
        (740, "server,", "server_port"),
    ):
        for n, line in enumerate(lines):
            drawing.text(x, 150 + n * LINE, line, "middle", color=PALE)
    drawing.text(20, 190, "Below each: the keys of the profile that name it.", color=PALE)
    return drawing.svg()


# Blocks of the pages.


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def profile_keys():
    """A table for each group of keys, under what the group says of itself."""
    tables = {}
    for row in keys.rows():
        if row.default is keys.REQUIRED:
            shown = "required"
        else:
            shown = "" if row.default is None else f"`{json.dumps(row.default)}`"
        cells = [f"`{row.key}`", shown, row.expected.replace("|", "\\|"), row.meaning]
        tables.setdefault(row.group, []).append(cells)
    head = ["key", "default", "value", "what it means"]
    return "\n\n".join(f"**{group}**\n\n{_table(head, t)}" for group, t in tables.items())


MARK = "<--"  # what an owner has to change in swanctl.conf


def marked():
    """Return [(section, setting, what the comment says of it)] of swanctl.conf's marked lines."""
    sections, said, found = [], None, []
    for line in (ROOT / "tools/gateway/swanctl.conf").read_text().splitlines():
        line = line.strip()
        if line.startswith("#"):
            if line.endswith(MARK):
                said = " ".join(line.strip("# ").replace(MARK, "").split())
            continue
        if said is not None and "=" in line:
            found.append((".".join(sections), line, said))
            said = None
        if line.endswith("{"):
            sections.append(line[:-1].partition(":")[0].strip())
        elif line == "}":
            sections.pop()
    return found


def swanctl_conf():
    rows = [[f"`{section}`", f"`{line}`", said] for section, line, said in marked()]
    return _table(["in the section", "the line", "what it says"], rows)


def _kept(name):
    return json.loads((ROOT / "tools/dev/bench/results" / name).read_text())


def takes():
    """What minipsec takes of a board, out of the budgets and of what was measured last."""
    flash = {key: round(octets / 1000) for key, octets in size.budgets()["total"].items()}
    heap = {
        kind: {how: round(show.handshake(found) / 1000) for how, found in hows.items()}
        for kind, hows in show.results()["sessions"].items()
    }
    plain, hybrid = heap["X25519"], heap["X25519, ML-KEM-768"]
    made = _kept("handshake.json")["handshake"]["X25519"]
    ways = _kept("esp.json")["ways"]
    more = {
        way: ways[way]["octets"]["8"] - 8
        for way in ("tunnel", "transport implicit IV", "DTLS 1.2")
    }
    (ladder,) = [row for row in _kept("asm.json")["wholes"] if row["what"] == "X25519"]
    rows = [
        [
            "flash",
            f"{flash['mpy_default']} KB of `.mpy` at most that a session loads, {flash['mpy']} KB for "
            f"all there is, {flash['mpy_with_mlkem']} KB with ML-KEM",
            "`make size`",
        ],
        [
            "heap, most of it in use during a handshake",
            f"{plain['frozen']} KB frozen into the firmware, {plain['files']} KB from `.mpy` files; with "
            f"ML-KEM-768 {hybrid['frozen']} and {hybrid['files']} KB",
            "`make footprint`",
        ],
        [
            "a handshake",
            f"{made['datagrams']} datagrams, {made['octets']:,} octets, and {made['ratio']:.2f} of the "
            "CPU time that DTLS takes on the same interpreter",
            "`make bench`",
        ],
        [
            "a reading",
            f"its octets and {more['tunnel']} more on the air, {more['transport implicit IV']} at the "
            f"least; DTLS {more['DTLS 1.2']}",
            "`make bench-esp`",
        ],
        [
            "X25519 on an RP2040",
            f"{ladder['ms']:.0f} ms, counted under emulation",
            "`make bench-asm`",
        ],
    ]
    return _table(["", "", "measured by"], rows)


def causes():
    """A row for each rule of doctor whose words are the same for every device."""
    rows = [
        [part.replace("|", "\\|") for part in (cause, fix)]
        for _, cause, fix in doctor._RULES
        if isinstance(cause, str) and isinstance(fix, str)
    ]
    return _table(["cause", "fix"], rows)


def errors():
    """A row for each error, in the order of errors.py."""
    module = firmware("refusals")
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, module.MinipsecError)
        and value not in (module.MinipsecError, module.PeerError)
        and value.notify is None
    ]
    rows = [[f"`{c.__name__}`", "", c.__doc__.partition("\n")[0], c.check] for c in own]
    for kind in module._REFUSALS:
        refusal = module.refusal(kind)
        rows.append([f"`{refusal.__name__}`", f"`{refusal.notify}`", "", refusal.check])
    return _table(["`error`", "`notify`", "what happened", "`check`"], rows)


def _imports(path):
    """(modules of ours that it loads with itself, those that it loads when it needs them)."""
    tree = ast.parse(path.read_text())
    late = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            late.update(id(inner) for inner in ast.walk(node))
    found = ([], [])
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            found[id(node) in late].extend(mpy.imported(path, node))
    first = sorted(set(found[0]))
    return first, sorted(set(found[1]) - set(first))


def rooms():
    imports = {name: _imports(path) for name, path in mpy.modules().items()}
    return house.picture(imports, Drawing)


def modules():
    rows = []
    for name, path in mpy.modules().items():
        summary = ast.get_docstring(ast.parse(path.read_text())).partition("\n\n")[0]
        first, later = _imports(path)
        names = ", ".join(first)
        if later:
            names += ("; " if names else "") + f"*{', '.join(later)}*"
        rows.append([f"`{name}`", " ".join(summary.split()).rstrip("."), names])
    return _table(["module", "what it is", "imports"], rows)


BLOCKS = {
    "README.md": {"takes": takes},
    "firmware/README.md": {"modules": modules},
    "firmware/docs/profile.md": {"profile keys": profile_keys},
    "firmware/docs/errors.md": {"errors": errors},
    "firmware/docs/sizes.md": {
        "takes": takes,
        "heap of phases": show.sessions,
        "heap of modules": show.modules,
    },
    "tools/docs/doctor.md": {"causes": causes},
    "tools/docs/strongswan.md": {"swanctl.conf": swanctl_conf},
}
PICTURES = {
    "firmware/states.svg": state_diagram,
    "firmware/house.svg": rooms,
    "firmware/path.svg": path_diagram,
    "firmware/heap.svg": show.picture,
}


def filled(text, blocks, name):
    """Return a README with each block between its two comments made anew."""
    for block, make in blocks.items():
        place = re.compile(rf"(<!-- make docs: {re.escape(block)} -->\n).*?(<!-- end -->)", re.S)
        if len(place.findall(text)) != 1:
            raise DocsError(f"{name}: no place, or several, for: {block}")
        made = make()
        text = place.sub(lambda match: match[1] + made + "\n" + match[2], text)
    return text


def pages():
    """Return {path below ROOT: text} of every page for people, in order."""
    found = [ROOT / "README.md"]
    for folder in ("boards", "firmware", "host_tests", "tools"):
        found += sorted((ROOT / folder).rglob("*.md"))
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for path in found
        if "node_modules" not in path.parts
    }


def made():
    """Return {path: what it should be} of every file that is made here, wholly or in part."""
    files = {name: make() for name, make in PICTURES.items()}
    for name, blocks in BLOCKS.items():
        files[name] = filled((ROOT / name).read_text(), blocks, name)
    return files


def outdated():
    """Return the names of files that are not what the sources make now."""
    return [
        name
        for name, text in made().items()
        if not (ROOT / name).exists() or (ROOT / name).read_text() != text
    ]


def main(argv=None):
    argparse.ArgumentParser(prog="docs", description=__doc__.partition("\n")[0]).parse_args(argv)
    try:
        changed, files = outdated(), made()
    except DocsError as problem:
        print("docs:", problem, file=sys.stderr)
        return 1
    for name in changed:
        (ROOT / name).write_text(files[name])
        print("docs: wrote", name)
    if not changed:
        print("docs: all up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
