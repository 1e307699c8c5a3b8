"""Make sure that Node.js and npm are there: `make footprint` measures on an interpreter in them.

`python tools/setup/node.py` as root on Debian or Ubuntu installs what is missing; elsewhere it
says in one line what the footprint lacks, and exits 0 unless `--require` is given.
"""

import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import debian

# Package -> a command that shows it is there.
PACKAGES = {"nodejs": "node", "npm": "npm"}
_OLDEST = 18


def lacking():
    """Return None when the footprint can be measured here, else one line that says why not."""
    for package, command in PACKAGES.items():
        if not shutil.which(command):
            return f"the footprint needs Node.js {_OLDEST} and npm; {package} is missing"
    done = subprocess.run(["node", "--version"], check=False, capture_output=True, text=True)
    major = done.stdout.strip().lstrip("v").partition(".")[0]
    if not major.isdigit() or int(major) < _OLDEST:
        return f"the footprint needs Node.js {_OLDEST}, this is {done.stdout.strip() or 'none'}"
    return None


if __name__ == "__main__":
    try:
        debian.ensure(PACKAGES, why="Node.js for the footprint")
        why = lacking()
    except debian.Missing as problem:
        why = str(problem)
    if why:
        print(f"setup: {why}", file=sys.stderr)
        raise SystemExit(2 if "--require" in sys.argv else 0)
