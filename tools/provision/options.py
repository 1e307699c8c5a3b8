"""What several commands have in common: options, the inventory, how to speak."""

import pathlib
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..inventory import Inventory, default_path

InventoryOption = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--inventory",
        "-i",
        metavar="DIR",
        envvar="MINIPSEC_INVENTORY",
        help="Where devices are kept; ~/minipsec-inventory when nothing is said.",
    ),
]
DeviceArgument = Annotated[
    str, typer.Argument(metavar="DEVICE", help="Identity, or its first part where that is enough.")
]
PortOption = Annotated[
    str | None,
    typer.Option(
        "--port", "-p", help="Serial port; the only board that is plugged in by default."
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait", metavar="SECONDS", help="A board that sleeps: try so long, until it wakes."
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
VICI = "/var/run/charon.vici"

console = Console(highlight=False, soft_wrap=True)
complaints = Console(stderr=True, highlight=False, soft_wrap=True)


def open_inventory(path, create=False):
    return Inventory(path or default_path(), create)


def say(text=""):
    """Print a line as it is, brackets and all."""
    console.print(escape(str(text)))


def fact(title, text):
    console.print(f"  [dim]{title:<20}[/dim]{escape(str(text))}")


def warn(text):
    complaints.print(f"[yellow]note:[/yellow] {escape(str(text))}")


def complain(problem):
    """Tell a `Problem`."""
    complaints.print(f"[red]error:[/red] {escape(str(problem))}")
    if problem.fix:
        complaints.print(f"  [dim]what to do:[/dim] {escape(problem.fix)}")


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
