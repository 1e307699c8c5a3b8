"""The files that a board gets, for its architecture: {path on the board: octets}."""

import ast
import json
import pathlib
import re
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


def check_program(path):
    """Refuse a sensor.py that cannot run on any board; nothing has been sent yet."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise BadInput(f"--sensor: there is no file {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise BadInput(f"--sensor: {path} is no text in UTF-8") from None
    with tempfile.TemporaryDirectory() as directory:
        try:
            mpy.compile_file(path.absolute(), pathlib.Path(directory) / "sensor.mpy", None)
        except mpy.CompileError as error:
            place = re.search(r"line (\d+)", str(error))
            where = f"{path}, line {place[1]}" if place else path
            what = str(error).splitlines()[-1].strip()
            raise BadInput(f"--sensor: {where}: {what}", "mend it; nothing was sent") from None
    missing = _missing(text)
    if missing:
        raise BadInput(
            f"--sensor: {path} has no {', '.join(f'{name}()' for name in missing)}",
            "begin with a copy of firmware/sensor.py and edit its sample()",
        )


def _missing(text):
    """Names of ours that a program needs and does not have: run, and of the others those it uses."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return []  # MicroPython took it
    bound, used = set(), {"run"}
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name)
        elif isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
    return [] if "*" in bound else sorted((used & {"run", "sample", "command"}) - bound)


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
