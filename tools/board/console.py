"""`pull-log` and `stats`: what a board says, and how it is."""

import contextlib
import pathlib
from typing import Annotated

import typer

from ..gateway.live import Charon, last_heard
from .board import Board, choose_port
from ..common.files import private_file
from ..common.identity import Identity
from ..common.options import (
    VICI,
    JsonOption,
    PortOption,
    ViciOption,
    count,
    fact,
    printable,
    say,
    tell_json,
    verbatim,
)
from ..fleet.options import DeviceArgument, InventoryOption, open_inventory
from ..common.problem import Problem
from .push import Push, contents
from .watch import Console, parse, traceback_in

_STATE = """
import gc, sys, time, os
gc.collect()
v = os.statvfs("/")
print(repr({"free": gc.mem_free(), "used": gc.mem_alloc(), "disk": v[0] * v[3],
            "disk_size": v[0] * v[2], "uptime": time.ticks_ms()}))
"""


def pull_log(
    port: PortOption = None,
    seconds: Annotated[float, typer.Option(help="How long to listen; Ctrl-C ends it, too.")] = 10,
    out: Annotated[
        pathlib.Path | None, typer.Option(metavar="FILE", help="Into this file, not shown.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Fetch a file of the board instead; this restarts it."),
    ] = None,
):
    """Take down what a board prints, without disturbing it; or fetch a log file from it."""
    port = choose_port(port)
    if file:
        with Board(port) as board:
            octets = board.read(file)
            board.reset()
        if octets is None:
            raise Problem(f"there is no file {file} on the board")
        _keep(octets.decode(errors="replace").splitlines(), out)
        return
    with Console(port) as console:
        with contextlib.suppress(KeyboardInterrupt):
            console.listen(seconds, out=None if out else verbatim)
        lines = console.lines + ([console.begun] if console.begun else [])
    if not lines:
        raise Problem(
            f"the board said nothing in {seconds:g} s",
            'its profile may have "log": "off"; or it waits for its next reading: --seconds',
        )
    if out:
        _keep(lines, out)
    elif console.begun:
        verbatim(console.begun)


def _keep(lines, out):
    if not out:
        for line in lines:
            verbatim(line)
        return
    with private_file(out) as file:
        file.writelines(printable(line) + "\n" for line in lines)
    say(f"{count(len(lines), 'line')} in {out}")


def stats(
    name: DeviceArgument,
    port: PortOption = None,
    vici: ViciOption = VICI,
    seconds: Annotated[float, typer.Option(help="How long to listen to it first.")] = 3,
    as_json: JsonOption = False,
    inventory: InventoryOption = None,
):
    """Tell how a device is: its program, memory and files, and its traffic at the gateway.

    It is listened to first, and the gateway is asked; then it is stopped, asked, and restarted.
    """
    with open_inventory(inventory) as found:
        row = found.find(name)
        port = choose_port(port)
        with Console(port) as console:
            console.listen(seconds)
            events, rest = parse([*console.lines, console.begun])
        # Before the restart, which ends what is counted there.
        sas, not_asked = _ask_gateway(row, vici)
        with Board(port) as board:
            facts, state = board.facts, board.evaluate(_STATE)
            different = None
            if row["state"] != "revoked":
                wanted = contents(found, row, board.architecture)
                different = Push(board, wanted).differences()[0]
            board.reset()
    if as_json:
        told = {"id": row["id"], "board": facts, "state": state, "different_files": different}
        tell_json({**told, "events": events, "lines": rest, "sas": sas, "gateway": not_asked})
        return
    say(row["id"])
    version = ".".join(map(str, facts["version"]))
    fact("board", f"{facts['machine']}, MicroPython {version}, chip {facts['chip']}")
    if row["chip"] and row["chip"] != facts["chip"]:
        fact("", f"not the board that it was pushed to, chip {row['chip']}")
    fact("heap", f"{state['free']} octets free, {state['used']} used at its prompt")
    fact("file system", f"{state['disk']} of {state['disk_size']} octets free")
    if different is not None:
        fact("files", "the inventory's" if not different else f"other: {', '.join(different)}")
    _tell_program(events, rest)
    _tell_gateway(sas, not_asked)


def _tell_program(events, rest):
    sent = [event for event in events if event["event"] == "sent"]
    if sent:
        readings = count(len(sent), "reading")
        fact("readings", f"{readings} while listening, the last has SN {sent[-1].get('sn')}")
    for event in events:
        if event["event"] == "error":
            fact("error", event.get("text"))
        elif event["event"] == "stats":
            fact("counters", ", ".join(f"{k} {v}" for k, v in event.items() if k != "event"))
    wrong = traceback_in(rest)
    if wrong:
        fact("program", f"raises {wrong}")
    elif not events:
        fact("program", rest[-1] if rest else "said nothing while it was listened to")


def _ask_gateway(row, vici):
    """(SAs that charon has with a device, None), or (None, why it was not asked)."""
    try:
        with Charon(vici) as charon:
            return charon.sas_of(Identity.of(row)), None
    except Problem as problem:
        return None, str(problem)


def _tell_gateway(sas, not_asked):
    if sas is None:
        fact("gateway", f"not asked: {not_asked}")
        return
    if not sas:
        fact("gateway", "has no tunnel with it")
    for sa in sas:
        for child in sa.get("child-sas", {}).values():
            counts = ", ".join(
                f"{child.get(f'packets-{way}', '?')} packets {way}" for way in ("in", "out")
            )
            ago = last_heard([sa]).ago
            heard = "never heard" if ago is None else f"last heard {ago} s ago"
            fact("gateway", f"{sa['state']} for {sa.get('established', '?')} s, {counts}, {heard}")
