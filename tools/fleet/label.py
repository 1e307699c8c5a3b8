"""`label`: a QR code with a device's identity, for its housing. Nothing secret is in it."""

import pathlib
import sys
from typing import Annotated

import typer

from ..common.identity import Identity
from ..common.options import count, say
from .options import InventoryOption, open_inventory
from ..common.problem import BadInput, Problem

_FORMS = (".svg", ".png", ".pdf", ".txt")
_SIGNS = "█▀▄"  # of a code on a terminal


def label(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE]...", help="One or several devices.")
    ] = None,
    all_devices: Annotated[
        bool, typer.Option("--all", help="Every device that is not revoked.")
    ] = False,
    out: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE|DIR", help="An .svg, .png or .pdf, or a directory for many."),
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="svg|png|pdf")] = "svg",
    inventory: InventoryOption = None,
):
    """Make a QR code with a device's identity and nothing else; on the terminal without --out."""
    import segno

    if form not in ("svg", "png", "pdf"):
        raise BadInput(f"--format: expected svg, png or pdf, got {form!r}")
    with open_inventory(inventory) as found:
        rows = [row for row in found.rows() if row["state"] != "revoked"] if all_devices else []
        rows += [found.find(name) for name in names or ()]
        rows = list({row["key"]: row for row in rows}.values())
    if not rows:
        raise BadInput("name a device, or say --all")
    if len(rows) > 1 and out is None:
        raise BadInput("--out: name a directory for so many")
    directory = out if out and (len(rows) > 1 or out.is_dir() or not out.suffix) else None
    for row in rows:
        code = segno.make(row["id"], error="m", micro=False)
        if out is None:
            _check_terminal()
            code.terminal(compact=True)
            say(row["id"])
            return
        path = directory / f"{Identity.of(row).file_name}.{form}" if directory else out
        if path.suffix.lower() not in _FORMS:
            raise BadInput(f"--out: expected a name that ends in .svg, .png or .pdf, got {path}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            code.save(str(path), scale=8)
        except OSError as error:
            raise Problem(f"cannot write {path}: {error.strerror}") from None
    say(f"{count(len(rows), 'label')} in {directory or out}")


def _check_terminal():
    """Refuse a terminal that has no signs to draw with."""
    try:
        _SIGNS.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        raise Problem(
            f"a code cannot be shown in {sys.stdout.encoding}", "name a file: --out label.svg"
        ) from None
