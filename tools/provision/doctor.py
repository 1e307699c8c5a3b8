"""`doctor`: what the device says, what the gateway says, the likely cause, the fix."""

import contextlib
import dataclasses
import json
import re
import threading
from typing import Annotated

import typer
from rich.markup import escape

from ..gateway.config import key_state
from ..gateway.live import Charon, plain
from .board import Board, Refused, choose_port
from .identity import Identity
from .options import (
    VICI,
    DeviceArgument,
    InventoryOption,
    PortOption,
    ViciOption,
    console,
    fact,
    open_inventory,
    say,
)
from .problem import Problem
from .push import EXCHANGE, Push, contents, show_console

_SECONDS = 45.0  # the last retransmission of a default profile ends at 31 s
_SHOWN = 6  # lines of each side


@dataclasses.dataclass
class Findings:
    """All that could be learnt; None where there was no way to."""

    state: str
    rotating: bool = False
    board: str | None = None  # why the board could not be asked
    different: list | None = None  # its files that are not the inventory's
    unfinished: bool = False  # a push that was cut short
    quiet: bool = False  # its profile has it print nothing
    said: list = dataclasses.field(default_factory=list)  # its events: dicts
    lines: list = dataclasses.field(default_factory=list)  # its other lines
    gateway: str | None = None  # why charon could not be asked
    secret: str | None = None  # "known", "another key", "unknown"
    connections: int = 0
    sa: dict | None = None
    pool: str | None = None  # the name of a pool that is used up
    log: list = dataclasses.field(default_factory=list)  # charon's lines meanwhile

    def event(self, name):
        """The device's last event of a name, or {}."""
        found = [event for event in self.said if event.get("event") == name]
        return found[-1] if found else {}

    @property
    def up(self):
        """Has the device a tunnel, by what it says itself?"""
        names = [event.get("event") for event in self.said]
        return "error" not in names and any(n in names for n in ("up", "resumed", "sent"))

    @property
    def heard(self):
        """Did anything of the device's reach charon meanwhile?"""
        return any("received packet" in line for line in self.log)

    def logged(self, pattern):
        return any(re.search(pattern, line) for line in self.log)


def _error(*names):
    return lambda f: (
        not f.up
        and (f.event("error").get("error") in names or f.event("error").get("notify") in names)
    )


# (when, cause, fix), the first that holds; DEVICE in a fix is the device.
_APPLY = "python -m tools gateway apply"
_PUSH = "python -m tools push DEVICE"
_RULES = (
    (
        lambda f: f.state == "revoked",
        "the device was revoked: its key is good no more, and the gateway refuses it",
        "that is what revoking is for; to use the board again, make a device with `new` and push it",
    ),
    (
        lambda f: f.rotating,
        "a change of its key was interrupted half-way",
        "python -m tools rotate DEVICE",
    ),
    (
        lambda f: f.unfinished,
        "a push to the board was interrupted",
        _PUSH,
    ),
    (
        lambda f: "secrets.json" in (f.different or ()),
        "the board has another key than the inventory",
        _PUSH,
    ),
    (
        lambda f: "profile.json" in (f.different or ()),
        "the board has another profile than the inventory",
        _PUSH,
    ),
    (
        lambda f: f.up and f.secret in ("known", None),
        None,
        "nothing: the tunnel is up",
    ),
    (
        lambda f: f.secret == "another key" or f.logged("MAC mismatched"),
        "the gateway has another key of the device than the inventory",
        _APPLY,
    ),
    (
        lambda f: f.secret == "unknown" or f.logged("no shared key found"),
        "the gateway has no key of the device",
        _APPLY,
    ),
    (
        lambda f: f.gateway is None and not f.connections,
        "the gateway has no connection for the device",
        _APPLY,
    ),
    (
        lambda f: f.logged("no matching peer config|peer config not found"),
        "the gateway knows no connection for these two identities",
        f"compare gateway_id in the profile with local.id at the gateway; {_APPLY}",
    ),
    (
        _error("NO_PROPOSAL_CHOSEN", "INVALID_KE_PAYLOAD", "PostQuantumRefused"),
        "device and gateway have no suite of algorithms in common",
        f"{_APPLY} (ML-KEM needs strongSwan 6: --pq off otherwise)",
    ),
    (
        lambda f: f.pool or _error("INTERNAL_ADDRESS_FAILURE")(f),
        "the gateway has no inner address left to give",
        f"{_APPLY} --pool with a wider network",
    ),
    (
        _error("FAILED_CP_REQUIRED", "TS_UNACCEPTABLE"),
        "the gateway does not allow the device's inner address, or where it wants to send",
        f"compare server, remote_ts and inner_address in the profile; {_APPLY}",
    ),
    (
        lambda f: re.search(r"addrinfo|not found", f.event("error").get("text", "")),
        "the gateway's name means nothing to the device",
        "write the gateway's address into the profile, or mend the DNS of that network; " + _PUSH,
    ),
    (
        lambda f: re.search(r"(?i)wi-?fi|no network|ssid", f.event("error").get("text", "")),
        "the device has no network",
        "compare ssid in the profile and wifi_key in its secrets; " + _PUSH,
    ),
    (
        lambda f: f.logged("half-open IKE_SA limit"),
        "the gateway ignores new devices: too many begin at once from one address, as behind a NAT",
        "at the gateway, in strongswan.conf: cookie_threshold_ip = 1000, block_threshold = 1001",
    ),
    (
        lambda f: _error("LinkDown")(f) and f.gateway is None and not f.heard,
        "nothing of the device's reaches the gateway",
        "the address in gateway; the network there; a firewall that drops UDP 500 or 4500",
    ),
    (
        lambda f: _error("LinkDown")(f) and f.heard,
        "the gateway hears the device, but its answers do not come back",
        "routes and firewalls from the gateway towards the device; its NAT",
    ),
    (
        lambda f: f.gateway is not None and f.board is not None,
        "neither the board nor the gateway could be asked",
        "plug the board in, or run this where charon runs (--vici), or both",
    ),
    (
        lambda f: f.gateway is not None and not f.up,
        "the gateway could not be asked, and the device gets no tunnel",
        "start strongSwan there, or name its socket with --vici",
    ),
    (
        lambda f: f.board is None and f.quiet,
        "the device prints nothing: its profile says so",
        'python -m tools push DEVICE after "log": "text" in its profile',
    ),
    (
        lambda f: any("Traceback" in line for line in f.lines),
        "the program on the board ended with an exception",
        "mend sensor.py where the traceback points, and " + _PUSH,
    ),
    (
        lambda f: f.sa,
        None,
        "nothing: the tunnel is up",
    ),
)


def diagnose(findings):
    """Return (cause or None when all is well, fix)."""
    for when, cause, fix in _RULES:
        if when(findings):
            return cause, fix
    error = findings.event("error")
    if error:
        return error.get("text", "an error"), error.get("check", "the lines above")
    if findings.board is not None:
        return "the board could not be asked: " + findings.board, "plug it in, and run this again"
    return "no cause found", "python -m tools pull-log DEVICE; the gateway's log"


class _GatewayLog:
    """What charon logs while the block runs."""

    def __init__(self, vici):
        self.lines = []
        self._charon = Charon(vici)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self):
        self._charon.__enter__()
        self._thread.start()
        return self

    def _listen(self):
        with contextlib.suppress(Exception):
            for _, event in self._charon.vici.listen(["log"]):
                self.lines.append(plain(event).get("msg", ""))

    def __exit__(self, *_):
        import socket

        with contextlib.suppress(OSError):
            self._charon._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(2)
        self._charon.__exit__()


def parse(lines):
    """Split what a device prints into (events, other lines): JSON and text logs alike."""
    events, rest = [], []
    for line in lines:
        at = line.find('{"')
        if at >= 0:
            with contextlib.suppress(ValueError):
                event = json.loads(line[at:])
                if "event" in event:
                    events.append(event)
                    continue
        found = re.search(
            r"\b(state|agreed|up|resumed|sent|reply|hint|error|stats) (\w+=.*)", line
        )
        if found:
            parts = re.split(r" ?(\w+)=", found[2])[1:]
            events.append({"event": found[1], **dict(zip(parts[::2], parts[1::2], strict=True))})
        elif line.strip():
            rest.append(line)
    return events, rest


def ask_gateway(findings, row, keys, charon):
    """What charon knows of the device now."""
    identity = Identity.of(row)
    names = charon.secrets_of(identity)
    findings.secret = key_state(names, identity, keys)
    findings.connections = len(charon.connections())
    for sa in charon.sas_of(identity):
        if sa["state"] == "ESTABLISHED":
            findings.sa = sa
    for name, pool in charon.pools().items():
        if int(pool.get("online", 0)) >= int(pool.get("size", 1)):
            findings.pool = name


def _settled(line):
    events, rest = parse([line])
    settled = ("up", "error", "resumed", "sent")
    return any(event["event"] in settled for event in events) or "Traceback" in line


def ask_board(findings, found, row, port, seconds):
    """Compare a board with the inventory, restart it, and hear what it says."""
    port = choose_port(port)
    with Board(port) as board:
        findings.unfinished = bool(
            board.evaluate(EXCHANGE + "print(repr(_plan()))") if row["state"] != "revoked" else 0
        )
        if row["state"] != "revoked":
            wanted = contents(found, row, board.architecture)
            send, _, removed, _ = Push(board, wanted).differences()
            findings.different = [*send, *removed]
        profile = board.read("profile.json")
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            findings.quiet = json.loads(profile).get("log") == "off"
        board.reset()
    if findings.quiet:
        return
    lines = show_console(port, seconds, _settled, quiet=True)
    findings.said, findings.lines = parse(lines)


def doctor(
    name: DeviceArgument,
    port: PortOption = None,
    vici: ViciOption = VICI,
    no_board: Annotated[
        bool, typer.Option("--no-board", help="The board is not here: ask the gateway only.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="How long the board has for its tunnel.")] = (
        _SECONDS
    ),
    inventory: InventoryOption = None,
):
    """Find out why a device has no tunnel: ask it, ask the gateway, name the cause and the fix.

    The board is restarted, so that it tells from the beginning.
    """
    with open_inventory(inventory) as found:
        row = found.find(name)
        findings = Findings(row["state"], found.secrets_path(row, coming=True).exists())
        keys = found.secrets(row)
        with contextlib.ExitStack() as stack:
            try:
                log = stack.enter_context(_GatewayLog(vici))
                findings.log = log.lines
            except Problem as problem:
                findings.gateway = str(problem)
            if no_board:
                findings.board = "--no-board"
            else:
                try:
                    ask_board(findings, found, row, port, seconds)
                except (Problem, Refused) as problem:
                    findings.board = str(problem)
            if findings.gateway is None:
                with Charon(vici) as charon:
                    ask_gateway(findings, row, keys, charon)
        tell(row, findings)
        cause, fix = diagnose(findings)
        if cause:
            console.print(f"[bold red]likely cause[/bold red]  {escape(cause)}")
        else:
            console.print("[bold green]all is well[/bold green]")
        console.print(f"[bold]what to do[/bold]    {escape(fix.replace('DEVICE', row['id']))}")
    if cause:
        raise typer.Exit(1)


_WORTH = (
    r"no shared key|MAC mismatched|no matching|unacceptable|no virtual IP|not found|AUTH_FAILED"
    r"|NO_PROP|established|received packet|failed|half-open|deleting"
)


def tell(row, findings):
    """Print what both sides said."""
    say(row["id"])
    fact("inventory", findings.state + (", its key is being changed" if findings.rotating else ""))
    if findings.board is not None:
        fact("device", f"not asked: {findings.board}")
    else:
        if findings.different:
            fact("device", f"{len(findings.different)} files are not the inventory's")
        words = [_words(event) for event in findings.said if event["event"] != "state"]
        for line in (words + findings.lines)[-_SHOWN:] or ["nothing"]:
            fact("device says", line)
    if findings.gateway is not None:
        fact("gateway", f"not asked: {findings.gateway}")
        return
    fact("gateway", f"its key is {findings.secret}, {findings.connections} connections")
    if findings.sa:
        fact("gateway", f"it has a tunnel since {findings.sa.get('established', '?')} s")
    for line in [line for line in findings.log if re.search(_WORTH, line)][-_SHOWN:]:
        fact("gateway says", line)


def _words(event):
    parts = [f"{k}={v}" for k, v in event.items() if k in ("error", "notify", "text", "inner")]
    return " ".join([event["event"], *parts])
