"""The interpreter, the images and the recordings that a measurement needs, all below build/."""

import fcntl
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tools.common import mpy
from tools.dev.setup import node

from . import viper

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build/footprint"
PACKAGE = "node_modules/@micropython/micropython-webassembly-pyscript"


class FootprintError(Exception):
    """Something could not be built or run; the text says what."""


class NotInstalled(FootprintError):
    """npm could not fetch the interpreter; the text is what it said."""


def _run(*command, cwd=None):
    command = [*node.commands().get(command[0], command[:1]), *command[1:]]
    try:
        done = subprocess.run(
            command, cwd=cwd, check=False, capture_output=True, text=True, timeout=240
        )
    except subprocess.TimeoutExpired:
        raise FootprintError(f"{command[0]}: no end after four minutes") from None
    if done.returncode:
        raise FootprintError(f"{command[0]}: {(done.stdout + done.stderr).strip()[-2000:]}")
    return done.stdout


def interpreter():
    """Return (folder of the npm package, the adapted .wasm), built when something changed."""
    if not node.commands():
        raise FootprintError(node.MISSING)
    with open(HERE / "package.json") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two tests at once: the second finds it done
        return _interpreter()


def _interpreter():
    names = ("package.json", "package-lock.json", ".npmrc", "interpreter.mjs")
    wanted = "".join((HERE / name).read_text() for name in names)
    stamp, wasm = BUILD / "stamp", BUILD / "board.wasm"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("setup: a 32-bit MicroPython by npm, into build/footprint ...", flush=True)
        BUILD.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        for name in names:
            shutil.copy(HERE / name, BUILD / name)
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            _run("npm", "ci", *quiet, cwd=BUILD)
        except FootprintError as problem:
            raise NotInstalled(f"the footprint needs an interpreter from npm; {problem}") from None
        _run("node", "interpreter.mjs", f"{PACKAGE}/micropython.wasm", wasm, cwd=BUILD)
        stamp.write_text(wanted)
    return BUILD / PACKAGE, wasm


def machine_code(path):
    """Return the octets of machine code in a module, as compiled for an RP2040."""
    source = path.read_text()
    with tempfile.TemporaryDirectory(prefix="minipsec-footprint-") as temporary:
        rest = pathlib.Path(temporary) / path.name
        rest.write_text(viper.without(source))
        with_it = mpy.compile_file(path, rest.with_suffix(".mpy"))
        return with_it - mpy.compile_file(rest, rest.with_suffix(".mpy"))


def firmware(directory):
    """Compile firmware/minipsec as this interpreter wants it; return ({name: octets}, loops).

    Viper functions become calls, and as much heap as their machine code takes on a board, unless
    it is frozen into the firmware.  What
    cannot be compiled without a board's own assembler is left out, as on boards without it.
    """
    code, loops = {}, {}
    for name, path in mpy.modules().items():
        source, functions = viper.split(path.read_text(), name)
        if functions:
            code[name] = machine_code(path)
            source += f"\n_machine_code = bytes({code[name]} if _loops.in_heap else 0)\n"
        loops.update(functions)
        changed = directory / f"{name}.py"
        changed.parent.mkdir(parents=True, exist_ok=True)
        changed.write_text(source)
        try:
            mpy.compile_file(changed, changed.with_suffix(".mpy"), arch=None)
        except mpy.CompileError:
            if "asm_thumb" not in source:
                raise
        changed.unlink()
    return code, loops


def image(directory, target):
    """Write a ROMFS image of a folder."""
    mpremote = [sys.executable, "-m", "mpremote", "romfs"]
    _run(*mpremote, "--no-mpy", "--output", str(target), "build", str(directory))


def run(job):
    """Run one job of run.mjs; return what it reports."""
    package, wasm = interpreter()
    job = {"interpreter": str(package), "wasm": str(wasm), **job}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        return json.loads(_run("node", str(HERE / "run.mjs"), file.name).splitlines()[-1])
