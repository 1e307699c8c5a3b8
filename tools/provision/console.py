"""`pull-log` and `stats`: what a board says, and how it is."""

import pathlib
from typing import Annotated

import typer

from ..gateway.live import Charon
from .board import Board, choose_port, listen, quiet_line
from .doctor import parse
from .files import private_file
from .identity import Identity
from .options import (
    VICI,
    DeviceArgument,
    InventoryOption,
    PortOption,
    ViciOption,
    fact,
    open_inventory,
    say,
)
from .problem import Problem
from .push import Push, contents

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
        lines = octets.decode(errors="replace").splitlines()
        _keep(lines, out)
        return
    with quiet_line(port) as line:
        lines = listen(line, seconds, out=None if out else say)
    if out:
        _keep(lines, out)
    elif not lines:
        raise Problem(
            f"the board said nothing in {seconds:g} s",
            'its profile may have "log": "off"; or it waits for its next reading: --seconds',
        )


def _keep(lines, out):
    if not out:
        for line in lines:
            say(line)
        return
    with private_file(out) as file:
        file.writelines(line + "\n" for line in lines)
    say(f"{len(lines)} lines in {out}")


def stats(
    name: DeviceArgument,
    port: PortOption = None,
    vici: ViciOption = VICI,
    seconds: Annotated[float, typer.Option(help="How long to listen to it first.")] = 3,
    inventory: InventoryOption = None,
):
    """Tell how a device is: its program, memory and files, and its traffic at the gateway.

    It is listened to first; then it is stopped, asked, and restarted.
    """
    with open_inventory(inventory) as found:
        row = found.find(name)
        port = choose_port(port)
        with quiet_line(port) as line:
            events, rest = parse(listen(line, seconds))
        with Board(port) as board:
            facts, state = board.facts, board.evaluate(_STATE)
            different = None
            if row["state"] != "revoked":
                wanted = contents(found, row, board.architecture)
                different = Push(board, wanted).differences()[0]
            board.reset()
        say(row["id"])
        version = ".".join(map(str, facts["version"]))
        fact("board", f"{facts['machine']}, MicroPython {version}, chip {facts['chip']}")
        fact("heap", f"{state['free']} octets free, {state['used']} used at its prompt")
        fact("file system", f"{state['disk']} of {state['disk_size']} octets free")
        if different is not None:
            fact("files", "the inventory's" if not different else f"other: {', '.join(different)}")
        _tell_program(events, rest)
        _tell_gateway(row, vici)


def _tell_program(events, rest):
    sent = [event for event in events if event["event"] == "sent"]
    if sent:
        fact("readings", f"{len(sent)} while listening, the last has SN {sent[-1].get('sn')}")
    for event in events:
        if event["event"] == "error":
            fact("error", event.get("text"))
        elif event["event"] == "stats":
            fact("counters", ", ".join(f"{k} {v}" for k, v in event.items() if k != "event"))
    if not events:
        fact("program", rest[-1] if rest else "said nothing while it was listened to")


def _tell_gateway(row, vici):
    try:
        with Charon(vici) as charon:
            sas = charon.sas_of(Identity.of(row))
    except Problem as problem:
        fact("gateway", f"not asked: {problem}")
        return
    if not sas:
        fact("gateway", "has no tunnel with it")
    for sa in sas:
        for child in sa.get("child-sas", {}).values():
            counts = ", ".join(
                f"{child.get(f'packets-{way}', '?')} packets {way}" for way in ("in", "out")
            )
            fact("gateway", f"{sa['state']} for {sa.get('established', '?')} s, {counts}")
