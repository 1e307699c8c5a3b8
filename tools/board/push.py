"""`push`: firmware, profile and keys onto a board, all of them or none.

Changed files go to /.push first, each verified there by its SHA-256; what is there already is
not sent again, so that an interrupted push goes on where it stopped. Then one function on the
board, EXCHANGE, renames them into place; /.push/plan tells how far that came, and main.py is out
of the way for as long as new and old files stand side by side, so that a board whose power goes
then waits at its prompt and never runs a mixture. After that the board tests itself; when that
fails the old files come back by the same way.
"""

import ast
import dataclasses
import json
import time
from typing import Annotated

import typer

from ..common import firmware, program

from .board import Board, Refused, choose_port, sha256, uninterrupted
from ..fleet.device import read_board
from ..common.files import write_private
from ..common.firmware import PACKAGE
from ..common.options import PortOption, WaitOption, bar, confirm, count, fact, say, verbatim, warn
from ..fleet.options import DeviceArgument, InventoryOption, open_inventory
from ..common.identity import Identity
from ..common.problem import BadInput, Interrupted, Problem
from .watch import parse, watch_start

_OLDEST = (1, 24, 0)
_MPY_VERSION = 6
_ELSEWHERE = "minipsec/"  # comes before lib/ when a board looks for a module
_TRIAL_SECONDS = 30  # for a program's import and its first reading
_SPARE_BLOCKS = 4  # for directories and the plan

# Plan: {"phase": "swap" | "test" | "back" | "clean", "files": [path], "fresh": [path that was not
# there before], "removed": [path]}. Each function may be called again after it was cut short.
EXCHANGE = """
import os, json
def _new(p):
    return ".push/new+" + p.replace("/", "+")
def _old(p):
    return ".push/old+" + p.replace("/", "+")
_HELD = ".push/held"
def _is(p):
    try:
        os.stat(p)
        return True
    except OSError:
        return False
def _steady():
    # After a power cut in a rename littlefs hides a neighbour of that file until the next write.
    try:
        with open(".steady", "w"):
            pass
        os.remove(".steady")
    except OSError:
        pass  # it is full
def _plan():
    if not _is(".push/plan"):
        return None
    with open(".push/plan") as f:
        return json.load(f)
def _phase(plan, phase):
    plan["phase"] = phase
    with open(".push/plan.new", "w") as f:
        json.dump(plan, f)
    os.rename(".push/plan.new", ".push/plan")
def _folders(paths):
    # The folders that these paths lie in, inner ones first.
    found = set()
    for p in paths:
        found.update([p[:i] for i in range(len(p)) if p[i] == "/"])
    return sorted(found, key=len, reverse=True)
def _make(p):
    for folder in reversed(_folders([p])):
        if not _is(folder):
            os.mkdir(folder)
def _tidy(paths):
    # An empty folder hides a module of its name, and minipsec hides lib/minipsec.
    for folder in _folders(paths):
        if folder != "lib":
            try:
                os.rmdir(folder)
            except OSError:
                pass
def _swap():
    plan = _plan()
    files = plan["files"]
    main = "main.py" in files
    if not (main and not _is(_new("main.py"))):
        if _is("main.py") and not _is(_HELD):
            os.rename("main.py", _HELD)
        for p in files:
            if p != "main.py" and _is(_new(p)):
                if _is(p) and not _is(_old(p)):
                    os.rename(p, _old(p))
                _make(p)
                os.rename(_new(p), p)
        for p in plan["removed"]:
            if _is(p):
                os.rename(p, _old(p))
        _tidy(plan["removed"])
        if main:
            os.rename(_new("main.py"), "main.py")
        elif _is(_HELD):
            os.rename(_HELD, "main.py")
    _phase(plan, "test")
def _back():
    plan = _plan()
    _phase(plan, "back")
    if "main.py" not in plan["files"]:
        if _is("main.py") and not _is(_HELD):
            os.rename("main.py", _HELD)
    elif _is("main.py") and (_is(_HELD) or "main.py" in plan["fresh"]):
        os.remove("main.py")
    for p in plan["files"] + plan["removed"]:
        if _is(_old(p)):
            _make(p)
            os.rename(_old(p), p)
        elif p in plan["fresh"] and p != "main.py" and _is(p):
            os.remove(p)
    _tidy(plan["fresh"])
    if _is(_HELD):
        os.rename(_HELD, "main.py")
    _clean()
def _clean():
    if not _is(".push"):
        return
    plan = _plan()
    if plan:
        _phase(plan, "clean")
    for name in os.listdir(".push"):
        if name != "plan":
            os.remove(".push/" + name)
    if plan:
        os.remove(".push/plan")
    try:
        os.rmdir(".push")
    except OSError:
        pass  # after a power cut littlefs may take an empty directory for one that is not
def _files(directory):
    # Every file below a directory, "" for those of the root alone.
    found = []
    try:
        for e in os.ilistdir("/" + directory.rstrip("/")):
            if e[1] & 0x8000:
                found.append(directory + e[0])
            elif directory:
                found += _files(directory + e[0] + "/")
    except OSError:
        pass
    return found
"""

# The board's own opinion: the profile is one, the stack loads, the known answers come out.
_SELF_TEST = """
import gc, sys
def _forget():
    for name in [m for m in sys.modules if m.startswith("minipsec")]:
        sys.modules.pop(name)
    gc.collect()
from minipsec import load_profile
load_profile()
_forget()
for _name in %r:
    __import__("minipsec." + _name)
_forget()
"""


# The program is imported as main.py will do it, and asked for a reading. Prints why it is no good.
_TRIAL = """
import gc
gc.collect()
import sensor
_wrong = None
if not callable(getattr(sensor, "run", getattr(sensor, "sample", None))):
    _wrong = "sensor.py has no sample()"
elif hasattr(sensor, "sample"):
    try:
        _reading = sensor.sample(1)
        if hasattr(_reading, "send"):
            import asyncio
            _reading = asyncio.run(_reading)
        if _reading is None:
            _wrong = "sample(1) returns None: there is nothing to send"
        elif not isinstance(_reading, (bytes, bytearray, memoryview)):
            _wrong = "sample(1) returns no octets but " + str(type(_reading))
        elif not _reading:
            _wrong = "sample(1) returns no octets at all"
    except Exception as _e:
        _wrong = "sample(1) raises " + repr(_e)
print(repr(_wrong))
"""


@dataclasses.dataclass
class Outcome:
    """What a push did."""

    sent: list
    kept: int
    removed: list
    octets: int = 0
    seconds: float = 0.0
    tests: str = ""
    wrong: str | None = None  # what is the matter with the program that is on the board now


def check_board(board, expected_board=None):
    """Refuse a board that this firmware cannot run on."""
    facts = board.facts
    version = ".".join(str(n) for n in facts["version"])
    upgrade = "flash a newer MicroPython: python -m tools flash shows how"
    if tuple(facts["version"]) < _OLDEST or facts["mpy"] & 0xFF != _MPY_VERSION:
        oldest = ".".join(str(n) for n in _OLDEST)
        raise Problem(
            f"MicroPython {version} on the board is too old, {oldest} is the oldest", upgrade
        )
    if facts["lacks"]:
        raise Problem(
            f"MicroPython on the board ({facts['machine']}) lacks {', '.join(facts['lacks'])}",
            "flash a standard build for the board",
        )
    wanted = firmware.board_facts(expected_board).get("arch") if expected_board else None
    if wanted and wanted != board.architecture:
        raise Problem(
            f"this is not a {expected_board}: its code is {board.architecture},"
            f" that one's {wanted} ({facts['machine']})",
            "plug in the right board, or correct the device's board with --board",
        )


class Push:
    """One push over one connection."""

    def __init__(self, board, wanted, ours=True, trial=False):
        self.board = board
        self.wanted = wanted
        self._ours = ours
        self._trial = trial  # is the owner's program tried out, too?
        self._wrong = None
        self._bar = bar()

    def _load(self):
        self.board.run(EXCHANGE)

    def settle(self):
        """End what an earlier push left in the middle; True when there was something."""
        self._load()
        plan = self.board.evaluate("_steady()\nprint(repr(_plan()))")
        if not plan:
            return False
        if plan["phase"] == "swap":
            self.board.run("_swap()", timeout=60)
        if plan["phase"] in ("swap", "test"):
            self.accept()
        else:
            self.board.run("_back()" if plan["phase"] == "back" else "_clean()", timeout=60)
        return True

    def differences(self):
        """Return (paths to send, paths that are right already, paths to remove, hashes)."""
        self._load()
        hashes = self.board.hashes(self.wanted)
        send = [p for p, octets in self.wanted.items() if hashes[p] != sha256(octets)]
        kept = [p for p in self.wanted if p not in send]
        there = self.board.evaluate(
            f"print(repr([p for d in ('', {_ELSEWHERE!r}, {PACKAGE!r}) for p in _files(d)]))",
            timeout=60,
        )
        # Modules that are ours no more, and what would be imported in place of a file of ours.
        homes = (PACKAGE, _ELSEWHERE)
        removed = [p for p in there if p not in self.wanted and p.startswith(homes)]
        removed += [p for p in there if p == "sensor.mpy"]
        return send, kept, removed, hashes

    def stage(self, send):
        """Bring files to /.push and verify them there; return octets that went over the line."""
        board = self.board
        staged = {p: ".push/new+" + p.replace("/", "+") for p in send}
        board.make_directories([".push"])
        hashes = board.hashes(staged.values())
        todo = [p for p in send if hashes[staged[p]] != sha256(self.wanted[p])]
        self._check_room(todo)
        octets = 0
        with self._bar as shown:
            task = shown.add_task("pushing", total=len(send), what="")
            shown.advance(task, len(send) - len(todo))
            for path in todo:
                shown.update(task, what=path)
                self._write(staged[path], self.wanted[path], path)
                octets += len(self.wanted[path])
                shown.advance(task)
        return octets

    def _write(self, where, octets, path):
        try:
            self.board.write(where, octets)
        except Refused as problem:
            if "28" in problem.kind or "ENOSPC" in problem.kind:
                raise self._full(f"no room for {path}") from None
            raise
        if self.board.hashes([where])[where] != sha256(octets):
            raise Problem(
                f"{path}: what the board holds is not what was sent",
                "run this again; if it stays so, the flash or the cable is bad",
            )

    def _check_room(self, todo):
        block = self.board.facts["block"]
        need = sum(-(-len(self.wanted[p]) // block) for p in todo) + _SPARE_BLOCKS
        free = self.board.evaluate("import os\nv = os.statvfs('/')\nprint(v[0] * v[3])") // block
        if need > free:
            raise self._full(
                f"{need * block // 1024} KB are needed and {free * block // 1024} KB are free"
            )

    def _full(self, text):
        self.board.restart()
        self._load()
        self.board.run("_clean()", timeout=60)
        return Problem(
            f"the board's file system is full: {text}; nothing was changed",
            "delete files of yours there (mpremote ls, mpremote rm) and run this again",
        )

    def exchange(self, send, removed, hashes):
        """Put staged files in the place of the old ones."""
        fresh = [p for p in send if hashes[p] is None]
        plan = {"files": send, "fresh": fresh, "removed": removed}
        self.board.run(f"_phase({plan!r}, 'swap')\n_swap()", timeout=120)

    def accept(self):
        """Have the board test itself; keep the new files, or bring the old ones back."""
        what = "the self-test failed"
        try:
            self.board.restart()
            told = self.self_test()
            what = "sensor.py does not load"
            self._try_program()
        except Refused as problem:
            self.board.restart()
            self._load()
            self.board.run("_back()", timeout=120)
            raise Problem(
                f"{what}, the board is as it was before: {problem.kind}{problem.place}",
                "a profile that it refuses, or a board that this firmware does not fit"
                if "test" in what
                else "mend it, and push it again with --sensor",
            ) from None
        self._load()
        self.board.run("_clean()", timeout=120)
        return told

    def _try_program(self):
        if self._trial:
            self.board.restart()
            said = self.board.run(_TRIAL, timeout=_TRIAL_SECONDS, theirs=True)
            self._wrong = ast.literal_eval(said.splitlines()[-1])  # behind what it prints itself

    def _take_back(self):
        """After a Ctrl-C while files changed places: the old ones, or the new ones, whole."""
        with uninterrupted():
            self.board.restart()
            self._load()
            plan = self.board.evaluate("_steady()\nprint(repr(_plan()))")
            if plan:
                undo = plan["phase"] in ("swap", "test", "back")
                self.board.run("_back()" if undo else "_clean()", timeout=120)

    def self_test(self):
        """Return what the board's self-test said; `Refused` when it failed."""
        here = [name for name in ("tunnel", "selftest") if f"{PACKAGE}{name}.mpy" in self.wanted]
        self.board.run(_SELF_TEST % here[:1], timeout=120)
        if "selftest" not in here:
            return "the profile is good"
        said = self.board.run("from minipsec import selftest\nselftest.run()", timeout=300)
        if "selftest passed" not in said:
            wrong = [line for line in said.splitlines() if "WRONG" in line]
            raise Refused("", ", ".join(wrong) or said.strip()[-200:])
        return f"the profile is good, {said.count(' ok, ')} known answers came out right"

    def run(self, dry=False):
        """The whole of it; return an `Outcome`."""
        began = time.monotonic()
        if not dry and self.settle():
            warn("an earlier push had been interrupted; it was brought to its end")
        send, kept, removed, hashes = self.differences()
        self._check_main(hashes)
        self._check_sensor(hashes)
        outcome = Outcome(send, len(kept), removed)
        if dry:
            outcome.octets = sum(len(self.wanted[p]) for p in send)
            return outcome
        if send or removed:
            outcome.octets = self.stage(send)
            try:
                self.exchange(send, removed, hashes)
                outcome.tests = self.accept()
            except KeyboardInterrupt:
                self._take_back()
                raise
        else:
            self.board.restart()
            outcome.tests = self.self_test()
            self._try_program()
        outcome.wrong = self._wrong
        outcome.seconds = time.monotonic() - began
        return outcome

    def _check_main(self, hashes):
        if not self._ours or hashes.get("main.py") in (None, sha256(self.wanted["main.py"])):
            return
        main = self.board.read("main.py") or b""
        if b"sensor" not in main:
            raise Problem(
                "the board has a main.py of another program; nothing was changed",
                "save it (mpremote cp :main.py .) and run this again with --replace-main",
            )

    def _check_sensor(self, hashes):
        """Refuse to lose an owner's part that only an old sensor.py on the board has."""
        wanted = self.wanted["sensor.py"]
        if not self._ours or wanted != program.STOCK.read_bytes():
            return
        if hashes.get("sensor.py") in (None, sha256(wanted)):
            return
        text = (self.board.read("sensor.py") or b"").decode(errors="replace")
        theirs = program.owners_part(text)
        if theirs:
            raise BadInput(
                f"the board's sensor.py {program.OUTDATED}; nothing was changed",
                f"save it (mpremote cp :sensor.py .); {program.how_to_move(theirs)};"
                " or lose it with --replace-main",
            )


@dataclasses.dataclass
class Options:
    """What was typed behind `push`."""

    port: str | None
    board_name: str | None
    sensor: str | None
    replace_main: bool
    dry_run: bool
    follow: float
    replace: bool
    wait: float


def check_device(inventory, row, coming=False):
    """Refuse a device that cannot be pushed; return its keys."""
    if row["state"] == "revoked":
        raise Problem(f"{row['id']} is revoked: its keys are gone", "make a device with `new`")
    inventory.profile(row)  # refuses a wrong one
    secrets = inventory.secrets(row, coming)
    if secrets is None:
        raise Problem(f"{inventory.secrets_path(row, coming)} is missing")
    return secrets


def own_program(inventory, row):
    """The path of a device's own sensor.py in the inventory, or None."""
    path = inventory.directory(row) / "sensor.py"
    return path if path.exists() else None


def check_own_program(inventory, row):
    """Refuse a device's own sensor.py that was good for an older minipsec."""
    path = own_program(inventory, row)
    if path:
        program.check_program(path, f"{row['id']}: ")


def contents(inventory, row, architecture, application=None, coming=False):
    """Every file of a device: firmware, profile, keys."""
    secrets = check_device(inventory, row, coming)
    files = firmware.build(architecture, application or own_program(inventory, row))
    if f"{PACKAGE}kex/mlkem.mpy" not in files and inventory.profile(row).get("pq", "off") != "off":
        raise Problem(
            f"{row['id']} asks for ML-KEM, which needs machine code that this board does not take",
            f'"pq": "off" in {inventory.profile_path(row)}',
        )
    files["profile.json"] = inventory.profile_path(row).read_bytes()
    files["secrets.json"] = json.dumps(secrets).encode()
    return files


def fingerprint(files):
    """A short name for a set of firmware files; profile and keys are not in it."""
    names = sorted(p for p in files if not p.endswith(".json"))
    return sha256("".join(p + sha256(files[p]) for p in names).encode())[:12]


def push(
    name: DeviceArgument,
    port: PortOption = None,
    board_name: Annotated[
        str | None, typer.Option("--board", metavar="BOARD", help="Correct the device's board.")
    ] = None,
    sensor: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Your sensor.py, for this device from now on."),
    ] = None,
    replace_main: Annotated[
        bool,
        typer.Option(
            "--replace-main", help="Replace a main.py of another program, an old sensor.py."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent; change nothing.")
    ] = False,
    follow: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="Show what the board prints from its start on."
        ),
    ] = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Another board than before, or another's board.")
    ] = False,
    wait: WaitOption = 0,
    inventory: InventoryOption = None,
):
    """Put firmware, profile and keys on a board, verify them there, and see its program start.

    Only what differs is sent. Interrupted? Run it again: it goes on where it stopped. When the
    board's self-test fails, or your program does not load, it gets its old files back.
    """
    options = Options(port, board_name, sensor, replace_main, dry_run, follow, replace, wait)
    with open_inventory(inventory) as found:
        row = found.find(name)
        with found.working_on(row):
            push_device(found, row, options)


def push_device(found, row, options):
    check_device(found, row)
    board_name = read_board(options.board_name) if options.board_name else None
    if options.sensor:
        program.check_program(options.sensor)
    else:
        check_own_program(found, row)
    port = choose_port(options.port, options.wait)
    with Board(port, options.wait) as board:
        check_board(board, board_name or row["board"])
        chip = board.facts["chip"]
        others = check_chip(found, row, board, options.replace, options.dry_run)
        files = contents(found, row, board.architecture, options.sensor)
        outcome = Push(board, files, not options.replace_main, trial=True).run(options.dry_run)
        if options.dry_run:
            board.reset()
            _tell_dry_run(row, board, outcome)
            return
        with uninterrupted():
            _remember(found, row, files, chip, board_name, options.sensor, others)
        console = board.start()
    say(row["id"])
    _tell_board(board)
    fact(
        "sent", f"{count(len(outcome.sent), 'file')}, {outcome.octets} octets, verified by SHA-256"
    )
    fact("right already", count(outcome.kept, "file"))
    fact("self-test", outcome.tests)
    fact("time", f"{outcome.seconds:.1f} s; restarted")
    with console:
        see_it_start(found.profile(row), console, outcome.wrong, options.follow)
    say(f"{row['id']}: done")


def _tell_board(board):
    version = ".".join(map(str, board.facts["version"]))
    fact("board", f"{board.facts['machine']}, MicroPython {version}")


def _tell_dry_run(row, board, outcome):
    say(f"{row['id']}: a dry run, nothing was changed")
    _tell_board(board)
    fact("would send", ", ".join(outcome.sent) or "nothing")
    fact("would remove", ", ".join(outcome.removed) or "nothing")
    fact("octets", outcome.octets)


def _remember(found, row, files, chip, board_name, sensor, others):
    """Bring the inventory to what the board holds now."""
    if sensor:
        write_private(found.directory(row) / "sensor.py", files["sensor.py"].decode())
    for other in others:
        found.set_state(other, "new", chip=None)
        found.note(other, f"its board, chip {chip}, was given to {row['id']}")
    columns = {"chip": chip, "firmware": fingerprint(files)}
    if board_name:
        columns["board"] = board_name
    found.set_state(row, row["state"] if row["state"] == "active" else "provisioned", **columns)
    found.note(row, f"pushed firmware {fingerprint(files)} to chip {chip}")


def see_it_start(profile, console, wrong=None, follow=0):
    """Watch the program until it has shown that it runs; `Problem` when it does not.

    `wrong` is what its trial has shown before.
    """
    end = time.monotonic() + follow
    may_be_quiet = profile.get("log") in ("off", "errors") or profile.get("sleep", "off") != "off"
    try:
        started = watch_start(console, may_be_quiet, _follow if follow else None)
        if not started.wrong and not wrong:
            fact("program", f"runs; it says: {started.says}")
        console.listen(end - time.monotonic(), out=_follow if follow else None)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the board has its files and runs on, unwatched") from None
    if started.wrong:
        raise Problem(started.wrong, started.fix)
    if wrong:
        raise Problem(
            f"the board has its files, but {wrong}",
            "mend sample() in sensor.py, or what it measures with, and push it again",
        )


def _follow(line):
    """Show a line of the board, and say beside it when it is on the network and begins IKE."""
    verbatim(line)
    for event in parse([line])[0]:
        if event["event"] == "state" and event.get("state") == "IKE_SA_INIT":
            fact("network", "is up; IKE_SA_INIT leaves")


def check_chip(found, row, board, replace=False, dry=False):
    """Ask before a device moves to another chip, or a chip to another device.

    Return the rows of the devices that lose this board. What is on it counts as well as what the
    inventory remembers, since another inventory may have filled it.
    """
    chip = board.facts["chip"]
    rows = {other["key"]: other for other in found.rows("new", "provisioned", "active")}
    others = {
        key: other
        for key, other in rows.items()
        if chip and other["chip"] == chip and key != row["key"]
    }
    why = []
    if row["chip"] and chip and row["chip"] != chip:
        why.append(f"{row['id']} is on another board (chip {row['chip']}, this one's is {chip})")
    there = _identity_on(board)
    if there and there.key != row["key"] and there.key in rows:
        others[there.key] = rows[there.key]
    names = [other["id"] for other in others.values()]
    if there and there.key != row["key"] and found.get(there.key) is None:
        names.append(f"{there}, which this inventory does not know")
    why += [f"this board is {name}'s" if "," not in name else f"this board is that of {name}"
            for name in names]  # fmt: skip
    if not why:
        return []
    text = "; ".join(why)
    if dry and not replace:
        warn(f"{text}: it would be asked for, or --replace")
        return []
    confirm(f"{text}. Replace it?", replace, "--replace, or plug in the right board")
    return list(others.values())


def _identity_on(board):
    """Whose profile is on a board, or None."""
    try:
        return Identity(json.loads(board.read("profile.json") or b"")["id"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
