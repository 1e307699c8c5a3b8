"""The files that a board gets, for its architecture: {path on the board: octets}."""

import json
import pathlib
import tempfile

from .. import mpy
from .problem import BadInput, Problem

_BOARDS = mpy.ROOT / "boards"
PACKAGE = "lib/minipsec/"  # where mip puts it, too


def build(architecture, application=None):
    """Compile firmware/ for an architecture; `application` replaces its sensor.py."""
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
            if path.parent.name != "minipsec":  # main and sensor, which their owner may read
                files[f"{name}.py"] = path.read_bytes()
                continue
            try:
                mpy.compile_file(path, target, architecture or None)
            except mpy.CompileError as problem:
                raise Problem(f"mpy-cross: {problem}") from None
            files[f"{PACKAGE}{name}.mpy"] = target.read_bytes()
    return files


def board_facts(name):
    """What boards/NAME/board.json says, {} where there is none."""
    if not name:
        return {}
    path = _BOARDS / name / "board.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def known_boards():
    """The names of the boards that have a folder in boards/."""
    return sorted(path.parent.name for path in _BOARDS.glob("*/board.json"))
