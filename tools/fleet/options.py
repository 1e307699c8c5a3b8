"""Which inventory a command works on, and which device of it."""

import contextlib
import pathlib
from typing import Annotated

import typer

from ..common.problem import Problem
from .inventory import Inventory, default_path


def open_inventory(path, create=False):
    return Inventory(path or default_path(), create)


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


def _devices(incomplete: str):
    """Identities that a shell may complete to."""
    with contextlib.suppress(Problem), open_inventory(None) as found:
        return [row["id"] for row in found.rows() if row["id"].startswith(incomplete)]
    return []


DeviceArgument = Annotated[
    str,
    typer.Argument(
        metavar="DEVICE",
        help="Identity, or its first part where that is enough.",
        autocompletion=_devices,
    ),
]
