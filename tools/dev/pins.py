"""Packages that only one target needs: installed into .venv when that target runs first."""

import importlib.util
import pathlib
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def pins(group):
    """Return the pinned requirements of a group of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"][group]


def ensure(group, module, target=None):
    """Have a module of a group importable; return what pip said if that failed, else "".

    With `target` the packages go to that directory instead, unless it is as it should be.
    """
    wanted = pins(group)
    stamp = target and target / "pins.txt"
    if target:
        if stamp.exists() and stamp.read_text() == "\n".join(wanted):
            return ""
    elif importlib.util.find_spec(module):
        return ""
    print(f"setup: {len(wanted)} pinned packages for this ...", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", *wanted]
    command += ["--upgrade", "--target", str(target)] if target else []
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        return done.stdout + done.stderr
    if target:
        stamp.write_text("\n".join(wanted))
    importlib.invalidate_caches()
    return ""


def require(group, module, target=None):
    """The same, and the end of the program when it fails."""
    problem = ensure(group, module, target)
    if problem:
        raise SystemExit(f"setup: pip could not install {module}:\n{problem}")
