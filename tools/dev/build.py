"""`make mpy`, `make romfs`, `make dist`, `make package`: what a board gets, for one board or all.

Everything is compiled for the board's own architecture, so that an error in native code shows here
and not on the board.  The same sources make the same octets.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib

from tools.common import mpy
from tools.common import firmware
from tools.common.problem import Problem

ROOT = mpy.ROOT
BUILD = ROOT / "build"
BOARDS = ROOT / "boards"
PACKAGE_JSON = ROOT / "package.json"

# What somebody has to say; the rest of a profile has defaults.
_PROFILE = {
    "gateway": "vpn.example.org",
    "gateway_id": "vpn.example.org",
    "id": "sensor-1.example.org",
    "server": "10.3.0.10",
    "interval_ms": 60000,
}
_NETWORKS = {"wifi": {"network": "wifi", "ssid": "NAME"}, "ethernet": {"network": "ethernet"}}


def boards():
    """Return {name: facts} of every board."""
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(BOARDS.glob("*/board.json"))
    }


def version():
    """Return the version that pyproject.toml gives everything here."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def compile_for(name, facts, directory):
    """Write the files of a board's file system below `directory`; return their paths there."""
    if directory.exists():
        shutil.rmtree(directory)
    files = firmware.build(facts["arch"])
    for path, octets in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(octets)
    return sorted(files)


def make_romfs(files, image):
    """Write a ROMFS image of the package alone: main.py and sensor.py stay in the file system."""
    with tempfile.TemporaryDirectory(prefix="minipsec-rom-") as directory:
        shutil.copytree(files / "lib", pathlib.Path(directory) / "lib")
        command = ["romfs", "--no-mpy", "--output", str(image), "build", directory]
        done = subprocess.run(
            [sys.executable, "-m", "mpremote", *command],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if done.returncode or not image.exists():
        raise Problem(f"mpremote romfs build: {(done.stdout + done.stderr).strip()}")
    return image.stat().st_size


def mip(paths):
    """Return mip's package description of {path under lib: place in this repository}."""
    return {
        "urls": [[target, place] for target, place in sorted(paths.items())],
        "deps": [],
        "version": version(),
    }


def sources_for_mip():
    """Return what package.json holds: the sources, relative to it, as `github:` wants them."""
    found = {}
    for name, path in mpy.modules().items():
        found[f"minipsec/{name}.py"] = str(path.relative_to(ROOT))
    return mip(found)


def example_profile(facts):
    """Return a profile for the board, to be filled in."""
    network = _NETWORKS[facts["network"]["kind"]]
    return {**_PROFILE, **network, "watchdog_ms": facts["watchdog"]["profile_ms"], "sleep": "off"}


def _write_json(path, value):
    path.write_text(json.dumps(value, indent=4) + "\n")


def write_mip(path, description):
    """Write a mip description, a line each file."""
    urls = ",\n".join("        " + json.dumps(url) for url in description["urls"])
    rest = json.dumps({key: description[key] for key in ("deps", "version")}, indent=4)
    path.write_text('{\n    "urls": [\n' + urls + "\n    ],\n" + rest[2:] + "\n")


def dist(name, facts, directory):
    """Put all that one board gets into `directory`; return its manifest."""
    paths = compile_for(name, facts, directory)
    octets = sum((directory / path).stat().st_size for path in paths)
    make_romfs(directory, directory / "minipsec.romfs")
    modules = {path.removeprefix("lib/"): path for path in paths if path.startswith("lib/")}
    write_mip(directory / "package.json", mip(modules))
    _write_json(directory / "profile.example.json", example_profile(facts))
    for file in ("README.md", "board.json"):
        shutil.copy(BOARDS / name / file, directory / file)
    manifest = {
        "board": name,
        "version": version(),
        "arch": facts["arch"],
        "on_board": {"files": paths, "octets": octets},
        "files": {
            str(path.relative_to(directory)): {
                "octets": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        },
    }
    _write_json(directory / "manifest.json", manifest)
    return manifest


def _say(name, text, path):
    print(f"build: {name}: {text}, in {path.relative_to(ROOT) if ROOT in path.parents else path}")


def build(what, name, facts, out):
    """Do one of mpy, romfs and dist for one board."""
    directory = out / name
    if what == "dist":
        manifest = dist(name, facts, directory / "dist")
        on_board = manifest["on_board"]
        files = f"{len(on_board['files'])} files, {on_board['octets']} octets on the board"
        _say(name, files, directory / "dist")
        return
    paths = compile_for(name, facts, directory / "mpy")
    modules = [path for path in paths if path.endswith(".mpy")]
    octets = sum((directory / "mpy" / path).stat().st_size for path in modules)
    if what == "mpy":
        _say(
            name, f"{len(modules)} modules for {facts['arch']}, {octets} octets", directory / "mpy"
        )
    else:
        image = directory / "minipsec.romfs"
        _say(name, f"{make_romfs(directory / 'mpy', image)} octets", image)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tools.dev.build", description=__doc__)
    parser.add_argument("what", choices=["mpy", "romfs", "dist", "package"])
    parser.add_argument("board", nargs="?", help="one of boards/; all of them without")
    parser.add_argument("--out", type=pathlib.Path, default=BUILD)
    given = parser.parse_args(arguments)
    if given.what == "package":
        write_mip(PACKAGE_JSON, sources_for_mip())
        return 0
    known = boards()
    if given.board and given.board not in known:
        expected = ", ".join(known)
        print(f"build: BOARD={given.board}: expected one of {expected}", file=sys.stderr)
        return 2
    try:
        for name in [given.board] if given.board else known:
            build(given.what, name, known[name], given.out)
    except Problem as problem:
        print(f"build: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
