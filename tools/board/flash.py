"""`flash`: MicroPython onto a board, by mpflash or esptool where one is installed."""

import pathlib
import shlex
import shutil
import subprocess
from typing import Annotated

import typer

from .board import Board, choose_port
from ..common.firmware import board_facts, known_boards
from ..common.options import PortOption, say
from ..common.problem import BadInput, Problem

_START = 20  # seconds for a board to start after it was flashed

_BY_HAND = {
    "uf2": (
        "Get the .uf2 of {board} from MicroPython's download page ({version} or newer).",
        "Hold BOOTSEL while you plug the board in: a drive RPI-RP2 appears.",
        "Copy the .uf2 onto that drive.",
    ),
    "esptool": (
        "Get the .bin of {board} from MicroPython's download page ({version} or newer).",
        "pip install esptool",
        "python -m tools flash --board {board} --port PORT --firmware THE.bin",
    ),
}


def commands(board, facts, port, image):
    """The commands that flash a board with what is installed here, [] where nothing is."""
    how = facts.get("flash", {})
    if image and how.get("how") == "esptool" and shutil.which("esptool"):
        base = ["esptool", "--chip", how["chip"], "--port", port]
        return [[*base, "erase-flash"], [*base, "write-flash", how["offset"], str(image)]]
    if not image and shutil.which("mpflash"):
        return [["mpflash", "flash", "--board", board, "--serial", port, "--version", "stable"]]
    return []


def flash(
    board: Annotated[str, typer.Option(help="The board, by MicroPython's name for it.")],
    port: PortOption = None,
    firmware: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="A .bin or .uf2 that is here already."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the commands, run none.")
    ] = False,
):
    """Put MicroPython on a board; esptool erases all that is on it.

    Uses mpflash (which fetches it, too) or esptool (with --firmware); where neither is installed,
    it tells the steps by hand.
    """
    facts = board_facts(board)
    if not facts:
        raise BadInput(f"--board: expected one of {', '.join(known_boards())}, got {board!r}")
    if firmware and not firmware.is_file():
        raise BadInput(f"--firmware: there is no file {firmware}")
    how = facts.get("flash", {}).get("how", "uf2")
    if not commands(board, facts, port or "PORT", firmware):
        steps = _BY_HAND[how]
        version = facts.get("micropython", "1.28")
        for number, step in enumerate(steps, 1):
            say(f"{number}. {step.format(board=board, version=version)}")
        say("With PyPI's mpflash installed, this command does all of it.")
        raise typer.Exit(0 if dry_run else 1)
    port = port or ("PORT" if dry_run else choose_port(None))
    for command in commands(board, facts, port, firmware):
        say("$ " + shlex.join(command))
        if dry_run:
            continue
        done = subprocess.run(command, check=False)
        if done.returncode:
            raise Problem(
                f"{command[0]} ended with {done.returncode}",
                "hold BOOT (or BOOTSEL) while you plug the board in, and run this again",
            )
    if not dry_run:
        _ask(port)


def _ask(port):
    """Say what runs on the board now, by its own word."""
    with Board(port, _START) as connected:
        facts = connected.facts
        connected.reset()
    say(f"{facts['machine']} runs MicroPython {'.'.join(map(str, facts['version']))}")
