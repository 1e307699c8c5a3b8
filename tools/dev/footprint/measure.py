"""What is measured on the 32-bit interpreter: modules as they are imported, a session's phases.

All figures are octets.  Heap comes in blocks of 16 there, as on a board.
"""

import ast
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from tools.common import mpy

from . import build

ROOT = build.ROOT
# For the peaks: the less there is, the quicker a collection.
HEAPS = {"frozen": 96 * 1024, "romfs": 112 * 1024, "files": 192 * 1024}
STEP = 256  # of the bisection
READINGS = 8

# The names of a session's phases, in order; several handshake states are one phase here.
PHASES = (
    "load_profile",
    "Tunnel",
    "IKE_SA_INIT",
    "IKE_INTERMEDIATE",
    "IKE_AUTH",
    "UP",
    "readings",
    "replace",
)
HANDSHAKE = ("IKE_SA_INIT", "IKE_INTERMEDIATE", "IKE_AUTH", "UP")

_IMPORTS = """
import gc, micropython, _host, parts
parts.install()
import minipsec
# Names in plenty now, so that their table need not grow in the middle of it.
for i in range(1300):
    getattr(parts, "name%d" % i, None)
def now():
    gc.collect()
    micropython.qstr_info()
    return _host.used(), _host.names()
now()
for name in NAMES:
    used, names = now()
    try:
        __import__(name)
    except ImportError:
        continue
    after, all_names = now()
    _host.note(name, after - used)
    _host.note("names of " + name, all_names - names)
"""


def in_order():
    """Return the modules of firmware/minipsec, each after those that it imports at once."""
    found = {}

    def visit(name):
        if name in found or name not in paths:
            return
        found[name] = None  # its place is kept until it is known
        for node in ast.parse(paths[name].read_text()).body:
            for inner in ast.walk(node) if isinstance(node, ast.Try) else (node,):
                if isinstance(inner, ast.ImportFrom) and inner.level:
                    for other in mpy.imported(paths[name], inner):
                        visit(other)
        del found[name]
        found[name] = True

    paths = mpy.modules()
    for name in paths:
        visit(name)
    return [name for name in found if name != "__init__"]


class Bench:
    """The images and recordings of one measurement, in a folder that goes with it."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="minipsec-footprint-")
        self.folder = pathlib.Path(self._folder.name)
        library = self.folder / "rom/lib"
        self.machine_code, self.loops = build.firmware(library / "minipsec")
        for path in (build.HERE / "board").glob("*.py"):
            mpy.compile_file(path, library / f"{path.stem}.mpy", arch=None)
        self.image = self.folder / "rom.romfs"
        build.image(self.folder / "rom", self.image)
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "tools.dev.footprint.record"],
            cwd=ROOT, env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise build.FootprintError(f"record: {done.stderr.strip()[-2000:]}")
        self.sessions = json.loads(done.stdout)
        return self

    def __exit__(self, *_):
        self._folder.cleanup()

    def run(self, program, how, heap=300 * 1024, files=(), **job):
        """Run a program beside the firmware; return what it noted."""
        files = dict(files)
        romfs = how != "files"
        if not romfs:
            library = self.folder / "rom/lib"
            for path in library.rglob("*.mpy"):
                files[f"/lib/{path.relative_to(library)}"] = str(path)
        return build.run(
            {
                "heap": heap,
                "romfs": str(self.image) if romfs else None,
                "path": ["", "/rom/lib" if romfs else "/lib", ".frozen"],
                "files": files,
                "program": program,
                "loops": self.loops,
                "sessions": [],
                "exact": False,
                "frozen": how == "frozen",
                **job,
            }
        )

    def modules(self, how):
        """Return {name: octets of heap that its import takes, its own imports not counted}."""
        names = [mpy.dotted(name) for name in in_order()]
        found = self.run(f"NAMES = {names}\n{_IMPORTS}", how)
        if found["error"]:
            raise build.FootprintError(found["error"])
        return {
            name: (found[mpy.dotted(name)], found[f"names of {mpy.dotted(name)}"])
            for name in in_order()
            if mpy.dotted(name) in found
        }

    def session(self, name, how, exact=False, heap=None):
        """Run one session; return what session.py and run.mjs report."""
        session = self.sessions[name]
        profile = {
            "gateway": "10.77.0.1",
            "gateway_id": "gw.example.org",
            "id": "sensor-1.example.org",
            "server": "10.3.0.10",
            "retransmit_ms": 60000,  # the clock is the PC's, and this takes its time
            "retries": 0,
            **session["profile"],
        }
        files = {}
        for file, octets in (("profile.json", profile), ("secrets.json", session["secrets"])):
            path = self.folder / file
            path.write_text(json.dumps(octets))
            files[f"/{file}"] = str(path)
        seeds = [bytes.fromhex(seed) for seed in session["seeds"]]
        return self.run(
            f"import session\nawait session.main({seeds}, {READINGS})\n",
            how, heap or HEAPS[how], files, sessions=session["datagrams"], exact=exact,
        )  # fmt: skip

    def phases(self, name, how):
        """Return {phase: peak} and {moment: live}, above an interpreter that does nothing.

        In `frozen` code is in the firmware, in `romfs` in a ROMFS, in `files` in .mpy files.
        """
        found = self.session(name, how, exact=True)
        if found["error"] or "failed" in found:
            raise build.FootprintError(f"{name}: {found['error'] or found['failed']}")
        empty = found["empty"]
        peaks = {}
        for phase in found["phases"]:
            peak = phase["peak"] - empty
            peaks[phase["name"]] = max(peak, peaks.get(phase["name"], 0))
        moments = ("profile", "tunnel", "up", "steady")
        live = {moment: found[moment] - empty for moment in moments}
        live["names"] = found["names at steady"] - found["names at empty"]
        return peaks, live

    def least_heap(self, name, how):
        """Return the smallest heap, to STEP octets, in which a handshake and readings succeed.

        Above what the interpreter itself takes of it; how the heap is cut up is part of it.
        """

        def passes(heap):
            try:
                found = self.session(name, how, heap=heap)
            except build.FootprintError:
                return False  # not even the interpreter came up
            return "steady" in found

        low, high = 24 * 1024, HEAPS[how]
        while high - low > STEP:
            middle = (low + high) // 2 // STEP * STEP
            if passes(middle):
                high = middle
            else:
                low = middle
        return high - self.session(name, how, heap=high)["empty"]


def everything(say=print):
    """Return all figures, and say how it goes."""
    with Bench() as bench:
        say("modules", flush=True)
        found = {
            "machine_code": bench.machine_code,
            "modules": {how: bench.modules(how) for how in HEAPS},
            "sessions": {},
        }
        for name in bench.sessions:
            found["sessions"][name] = {}
            for how in HEAPS:
                say(f"{name}, {how}: peaks", end="", flush=True)
                peaks, live = bench.phases(name, how)
                say(", least heap", flush=True)
                heap = bench.least_heap(name, how)
                found["sessions"][name][how] = {"peaks": peaks, "live": live, "heap": heap}
    return found
