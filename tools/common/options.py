"""What several commands have in common: options, how to speak."""

import json
import sys
import textwrap
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from .problem import BadInput, Problem

MODULE = "python -m tools"
# By which command these tools were started: in a checkout, or installed by pip under their name there.
PROGRAM = MODULE if __name__.startswith("tools.") else "minipsec"
_NARROW = 30  # columns that a text has at least

PortOption = Annotated[
    str | None,
    typer.Option(
        "--port", "-p", help="Serial port; the only board that is plugged in by default."
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        help="A board that sleeps: try so long, until it wakes.",
    ),
]
ViciOption = Annotated[
    str,
    typer.Option(
        "--vici",
        metavar="SOCKET",
        envvar="MINIPSEC_VICI",
        help="charon's vici socket: a path, or tcp://HOST:PORT.",
    ),
]
NoGatewayOption = Annotated[
    bool, typer.Option("--no-gateway", help="Leave charon alone; it is told by other means.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
VICI = "/var/run/charon.vici"

JsonOption = Annotated[
    bool, typer.Option("--json", help="JSON on standard output, for other programs.")
]

console = Console(highlight=False, soft_wrap=True)
complaints = Console(stderr=True, highlight=False, soft_wrap=True)


def printable(text):
    """Text with nothing in it that a terminal would obey: control characters become escapes.

    What boards, gateways and tables say is text of others, and reaches a terminal in no other way.
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in str(text).replace(MODULE, PROGRAM)
    )


def count(number, noun, nouns=None):
    """A number and its noun: 1 secret, 2 secrets."""
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"


def _put(where, prefix, text, style=None, title=None):
    """Print a line; a terminal gets it broken between words, everything else as it is."""
    head = Text(prefix, style=title or "")
    lines = [printable(text)]
    if where.is_terminal:
        lines = textwrap.wrap(
            lines[0],
            max(where.width - len(prefix), _NARROW),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    for number, line in enumerate(lines):
        start = head if not number else Text(" " * len(prefix))
        where.print(start + Text(line, style=style or ""))


def say(text=""):
    """Print a line."""
    _put(console, "", text)


def verbatim(line):
    """Print a line of a board's; a long one is left to the terminal."""
    console.print(Text(printable(line)))


def fact(title, text):
    """Print what is known under a title."""
    _put(console, f"  {title:<20}", text, title="dim")


def finding(title, text, style):
    """Print what the reader came for."""
    _put(console, f"{title:<15}" if text else title, text, title=style)


def table(head, rows):
    """Print rows of cells in columns. A cell is never cut: what has no room begins a new line."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    room = console.width if console.is_terminal else sum(widths) + 2 * len(widths)
    for number, row in enumerate([head, *rows]):
        line = ""
        for cell, width in zip(row, widths, strict=True):
            if line and len(line) + len(cell) > room:
                console.print(Text(line.rstrip(), style="" if number else "bold"))
                line = "    "
            line += f"{cell:<{width}}  "
        console.print(Text(line.rstrip(), style="" if number else "bold"))


def tell_json(value):
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def warn(text):
    """Say beside the results what the reader should know."""
    _put(complaints, "note: ", text, title="yellow")


def complain(problem):
    """Tell a `Problem`: one line, the only form that errors have."""
    first, *more = str(problem).split("\n")
    fix = f"; what to do: {problem.fix}" if problem.fix else ""
    _put(complaints, "error: ", first + ("" if more else fix), title="red")
    for number, line in enumerate(more, 1):
        _put(complaints, "       ", line + (fix if number == len(more) else ""))


def confirm(question, yes, flag="--yes"):
    """Ask before what cannot be undone; who cannot be asked has to say so by a flag."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput(f"{question} Say {flag}")
    if not typer.confirm(printable(question)):
        raise Problem("nothing was changed")


def bar(quiet=False):
    """A progress bar on a terminal, nothing elsewhere."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[what]}"),
        console=complaints,
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )
