"""The owner's sensor.py: what it must have, and what an old one must give up.

It has `sample`, maybe `command` and settings, and minipsec/app/run.py is the loop around them; or
it is a program of its own, which has `run`. Until November 2026 the loop stood in sensor.py itself:
an owner's copy of that kept the loop of its day, whatever a push brought.
"""

import ast
import pathlib
import re
import tempfile

from . import mpy
from .problem import BadInput, Problem

STOCK = mpy.FIRMWARE / "sensor.py"
# The loop in any sensor.py that had it; each of them had `run`, `session` and `reporter`.
_OURS = set(
    "run session work sampling sending obeying lamp _safely _failed _take _each_interval _profile "
    "_restart _LAST_REPLY_MS _PAUSE_MS _AGAIN_MS _LONG_MS".split()
)


def check_program(path, what="--sensor: "):
    """Refuse a sensor.py that cannot run on any board; nothing has been sent yet.

    `what` stands in front of its path in the error.
    """
    text = _read(pathlib.Path(path), what)
    missing = _missing(text)
    if missing:
        raise BadInput(
            f"{what}{path} has no {', '.join(f'{name}()' for name in missing)}",
            "begin with a copy of firmware/sensor.py and edit its sample()",
        )
    theirs = owners_part(text)
    if theirs is not None:
        raise BadInput(f"{what}{path} {OUTDATED}", how_to_move(theirs))


OUTDATED = "is of an older minipsec: it holds our loop, which push now brings by itself"


def how_to_move(theirs):
    """What an owner does with an old sensor.py in which so much is theirs."""
    if not theirs:
        return "nothing in it is yours: use firmware/sensor.py"
    return (
        f"move {', '.join(theirs)} and the imports for it into a copy of firmware/sensor.py, and"
        " push that with --sensor; leave the rest away"
    )


def owners_part(text):
    """Names in a sensor.py with our loop that are its owner's, or None where the loop is not there.

    What stands there as in firmware/sensor.py is nobody's.
    """
    old = _defined(text)
    if not {"run", "session"} <= old.keys() or "reporter" not in text:
        return None
    stock = _defined(STOCK.read_text(encoding="utf-8"))
    return [name for name in old if name not in _OURS and old[name] != stock.get(name)]


def _read(path, what):
    """Return the text of a program that MicroPython's compiler takes."""
    if not path.is_file():
        raise BadInput(f"{what}there is no file {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise BadInput(f"{what}{path} is no text in UTF-8") from None
    with tempfile.TemporaryDirectory() as directory:
        try:
            mpy.compile_file(path.absolute(), pathlib.Path(directory) / "sensor.mpy", None)
        except mpy.CompileError as error:
            place = re.search(r"line (\d+)", str(error))
            where = f"{path}, line {place[1]}" if place else path
            said = str(error).splitlines()[-1].strip()
            raise BadInput(f"{what}{where}: {said}", "mend it; nothing was sent") from None
    return text


def _tree(text):
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])  # MicroPython took it


def _defined(text):
    """{name: its code, without a docstring} of what a program defines at its top."""
    found = {}
    for node in _tree(text).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:]
            found[node.name] = ast.dump(node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                        found[name.id] = ast.dump(node.value)
    return found


def _missing(text):
    """Names of ours that a program needs and does not have: `sample`, but for one with `run`."""
    tree = _tree(text)
    if not tree.body:
        return []
    bound, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name)
        elif isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
    if "*" in bound:
        return []
    if "run" not in bound:
        used.add("sample")
    return sorted((used & {"run", "sample", "command"}) - bound)
