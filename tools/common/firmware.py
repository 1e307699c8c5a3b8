"""The files that a board gets, for its architecture: {path on the board: octets}."""

import json
import pathlib
import tempfile

from . import mpy
from .problem import BadInput, Problem

_BOARDS = mpy.ROOT / "boards"
PACKAGE = "lib/minipsec/"  # where mip puts it, too


def build(architecture, application=None):
    """Compile firmware/ for an architecture; `application` replaces its sensor.py.

    Where mpy-cross makes no machine code for it, or it has none (""), modules that consist of
    such code are left out: the firmware does without, but for ML-KEM.
    """
    files = {}
    sources = mpy.sources()
    if application:
        application = pathlib.Path(application)
        if not application.is_file():
            raise BadInput(f"--sensor: there is no file {application}")
        sources["sensor"] = application
    with tempfile.TemporaryDirectory() as directory:
        target = pathlib.Path(directory) / "module.mpy"
        for name, path in sources.items():
            if not mpy.in_package(path):  # main and sensor, which their owner may read
                files[f"{name}.py"] = path.read_bytes()
                continue
            if not mpy.fits(path, architecture):
                continue
            try:
                mpy.compile_file(path, target, architecture or None)
            except mpy.CompileError as problem:
                if "invalid arch" in str(problem):
                    continue
                raise Problem(f"mpy-cross: {problem}") from None
            files[f"{PACKAGE}{name}.mpy"] = target.read_bytes()
    return files


def board_name(text):
    """MicroPython's name for a board, however somebody typed it."""
    return text.strip().upper().replace("-", "_")


def board_facts(name):
    """What boards/NAME/board.json says, {} where there is none."""
    if not name:
        return {}
    path = _BOARDS / board_name(name) / "board.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def known_boards():
    """The names of the boards that have a folder in boards/."""
    return sorted(path.parent.name for path in _BOARDS.glob("*/board.json"))
