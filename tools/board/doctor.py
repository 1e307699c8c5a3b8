"""`doctor`: what the device says, what the gateway says, the likely cause, the fix."""

import contextlib
import dataclasses
import json
import re
import socket
import threading
import time
from typing import Annotated

import typer

from ..gateway.config import key_state
from ..gateway.live import Charon, Heard, last_heard, plain
from .board import Board, Refused, choose_port
from ..common.firmware import PACKAGE
from ..common.identity import Identity
from ..common.options import (
    VICI,
    JsonOption,
    PortOption,
    ViciOption,
    count,
    fact,
    finding,
    say,
    tell_json,
)
from ..fleet.options import DeviceArgument, InventoryOption, open_inventory
from ..common.problem import Interrupted, Problem
from .push import EXCHANGE, Push, contents
from .watch import parse, traceback_in

_SECONDS = 45.0  # the last retransmission of a default profile ends at 31 s
_SHOWN = 6  # lines of each side
_GRACE = 1.0  # seconds for a reading to reach the gateway
_FIRST_READING = 5.0  # seconds that a reading is waited for once the tunnel is up
_QUIET_SECONDS = 15.0  # for the tunnel of a device that prints nothing


@dataclasses.dataclass
class Findings:
    """All that could be learnt; None where there was no way to."""

    state: str
    rotating: bool = False
    board: str | None = None  # why the board could not be asked
    board_fix: str = "plug it in, and run this again"
    by_gateway: bool = False  # nobody wanted the board to be asked
    chip: str | None = None  # the board's, where the device was pushed to another
    different: list | None = None  # its files that are not the inventory's
    bare: bool = False  # it has none of the firmware
    unfinished: bool = False  # a push that was cut short
    quiet: bool = False  # its profile has it print nothing when all is well
    interval_ms: int = 10000  # between its datagrams
    prompt: bool = False  # it stands at its prompt
    said: list = dataclasses.field(default_factory=list)  # its events: dicts
    lines: list = dataclasses.field(default_factory=list)  # its other lines
    gateway: str | None = None  # why charon could not be asked
    secret: str | None = None  # "known", "another key", "unknown"
    connections: int = 0
    sa: dict | None = None
    last: Heard | None = None  # when the gateway last heard the device
    pool: str | None = None  # the name of a pool that is used up
    log: list = dataclasses.field(default_factory=list)  # charon's lines meanwhile

    def event(self, name):
        """The device's last event of a name, or {}."""
        found = [event for event in self.said if event.get("event") == name]
        return found[-1] if found else {}

    @property
    def up(self):
        """Has the device a tunnel, by what it says itself at last?"""
        up = False
        for event in self.said:
            if event.get("event") in ("up", "resumed", "sent", "error"):
                up = event["event"] != "error"
        return up

    @property
    def reached(self):
        """Did anything of the device's reach charon meanwhile?"""
        return any("received packet" in line for line in self.log)

    @property
    def silent(self):
        """Has the gateway heard nothing for so long that a reading should have come?"""
        return self.last is not None and self.last.silent(self.interval_ms)

    @property
    def well_at_gateway(self):
        """Has the gateway a tunnel with the device, its key, and packets when they are due?

        None is due as long as the board itself says that it is up and has sent none.
        """
        heard = self.last and self.last.ago is not None
        due = self.event("sent") or not self.up
        return self.secret == "known" and self.sa and not self.silent and (heard or not due)

    @property
    def error(self):
        """What the device's last error says, as text."""
        return str(self.event("error").get("text", ""))

    @property
    def traceback(self):
        return traceback_in(self.lines)

    def logged(self, pattern):
        return any(re.search(pattern, line) for line in self.log)


def _error(*names):
    return lambda f: (
        not f.up
        and (f.event("error").get("error") in names or f.event("error").get("notify") in names)
    )


def _unasked(f):
    return f"the board could not be asked: {f.board}"


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
        lambda f: f.chip,
        "this is another board than the device was pushed to",
        "plug in its own; or, if it moved to this one, python -m tools push DEVICE --replace",
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
        lambda f: f.bare,
        "the board has no firmware of ours",
        _PUSH,
    ),
    (
        lambda f: f.different,
        "the board runs other files than the inventory has for it",
        _PUSH,
    ),
    (
        lambda f: f.traceback and "ImportError" in f.traceback and "sensor.py" in f.traceback,
        lambda f: f"the sensor.py on the board does not load: {f.traceback}",
        "put the module that it names on the board; is it one of minipsec's, sensor.py is an old one:"
        " move its sample() into a copy of firmware/sensor.py, and " + _PUSH + " --sensor FILE",
    ),
    (
        lambda f: f.traceback,
        lambda f: f"the program on the board raises {f.traceback}",
        "mend sensor.py there, and " + _PUSH + " --sensor FILE",
    ),
    (
        lambda f: f.prompt,
        "the program on the board has ended: it stands at its prompt",
        "python -m tools pull-log while it restarts; " + _PUSH,
    ),
    (
        lambda f: f.board is None and f.up and f.gateway is not None,
        "nobody asked the gateway whether it hears the device; the board says that its tunnel is up",
        "name charon's socket (--vici), or run this where charon runs",
    ),
    (
        lambda f: f.well_at_gateway and (f.up or f.by_gateway or (f.quiet and f.board is None)),
        None,
        lambda f: (
            "nothing: the tunnel is up, and "
            + ("no reading is due yet" if f.last.ago is None else "the gateway hears the device")
        ),
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
        lambda f: (
            f.board is not None and not f.by_gateway and f.secret == "known" and f.connections
        ),
        lambda f: _unasked(f),
        lambda f: f.board_fix,
    ),
    (
        lambda f: f.sa and f.silent,
        lambda f: (
            "the gateway keeps a tunnel, but has heard nothing of the device for "
            + (f"{f.last.up} s" if f.last.ago is None else f"{f.last.ago} s")
        ),
        "look at the device: power, network, its program; python -m tools doctor DEVICE beside it",
    ),
    (
        lambda f: f.sa and f.last.ago is None and not f.up and (f.by_gateway or f.quiet),
        "the gateway has a tunnel with the device, and has heard nothing by it yet",
        lambda f: f"a reading is due every {f.interval_ms / 1000:g} s: run this again then",
    ),
    (
        lambda f: f.up and f.sa,
        "readings leave the board and do not reach the gateway",
        "a firewall or NAT that passes IKE and drops ESP: UDP 4500, or protocol 50 without a NAT",
    ),
    (
        lambda f: f.up and f.gateway is None and not f.sa and f.secret == "known",
        "the device says that it has a tunnel, and this gateway knows of none",
        "is it another gateway? compare gateway in the profile; --vici names the one to ask",
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
        lambda f: re.search(r"addrinfo|not found", f.error),
        "the gateway's name means nothing to the device",
        "write the gateway's address into the profile, or mend the DNS of that network; " + _PUSH,
    ),
    (
        lambda f: re.search(r"(?i)wi-?fi|no network|ssid", f.error),
        "the device has no network",
        "compare ssid in the profile and wifi_key in its secrets; " + _PUSH,
    ),
    (
        lambda f: f.logged("half-open IKE_SA limit"),
        "the gateway ignores new devices: too many begin at once from one address, as behind a NAT",
        "at the gateway, in strongswan.conf: cookie_threshold_ip = 1000, block_threshold = 1001",
    ),
    (
        lambda f: _error("LinkDown")(f) and f.gateway is None and not f.reached and not f.sa,
        "nothing of the device's reaches the gateway",
        "the address in gateway; the network there; a firewall that drops UDP 500 or 4500",
    ),
    (
        lambda f: _error("LinkDown")(f) and (f.reached or f.sa),
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
        lambda f: f.by_gateway and not f.sa,
        "the gateway has no tunnel with the device",
        "python -m tools doctor DEVICE with its board plugged in",
    ),
    (
        lambda f: f.board is None and f.quiet and not f.said,
        "the gateway hears nothing of the device, which prints nothing: its profile says so",
        'python -m tools push DEVICE after "log": "text" in its profile',
    ),
)


def diagnose(findings):
    """Return (cause or None when all is well, fix)."""
    for when, cause, fix in _RULES:
        if when(findings):
            return [part(findings) if callable(part) else part for part in (cause, fix)]
    error = findings.event("error")
    if error:
        return findings.error or "an error", str(error.get("check", "the lines above"))
    if findings.board is not None:
        return _unasked(findings), findings.board_fix
    if not findings.said:
        return (
            "the device says nothing",
            "does it hang? python -m tools push DEVICE watches it start",
        )
    return "no cause found", "python -m tools pull-log; the gateway's log"


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
        with contextlib.suppress(OSError):
            self._charon._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(2)
        self._charon.__exit__()


def ask_gateway(findings, row, keys, charon):
    """What charon knows of the device now."""
    identity = Identity.of(row)
    names = charon.secrets_of(identity)
    findings.secret = key_state(names, identity, keys)
    findings.connections = len(charon.connections())
    sas = [sa for sa in charon.sas_of(identity) if sa["state"] == "ESTABLISHED"]
    findings.sa = sas[0] if sas else None
    findings.last = last_heard(sas)
    for name, pool in charon.pools().items():
        if int(pool.get("online", 0)) >= int(pool.get("size", 1)):
            findings.pool = name


def ask_board(findings, found, row, port, seconds):
    """Compare a board with the inventory, restart it, and hear what it says."""
    port = choose_port(port)
    with Board(port) as board:
        chip = board.facts["chip"]
        findings.chip = chip if row["chip"] and chip and chip != row["chip"] else None
        if row["state"] != "revoked":
            findings.unfinished = bool(board.evaluate(EXCHANGE + "print(repr(_plan()))"))
            wanted = contents(found, row, board.architecture)
            send, _, removed, _ = Push(board, wanted).differences()
            findings.different = [*send, *removed]
            kept_of_ours = [p for p in wanted if p.startswith(PACKAGE) and p not in send]
            findings.bare = not kept_of_ours
        profile = board.read("profile.json")
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            findings.quiet = json.loads(profile).get("log") in ("off", "errors")
        console = board.start()
    with console:
        try:
            _hear(console, findings.quiet, seconds)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; the board runs on") from None
        findings.prompt = console.at_prompt or (
            (console.gap or findings.quiet) and console.ask_for_prompt()
        )
    findings.said, findings.lines = parse(console.lines)


def _hear(console, quiet, seconds):
    """Listen until the device has sent a reading, or has failed, or its time is over."""
    end = time.monotonic() + seconds
    up_at = None
    while time.monotonic() < end and not console.at_prompt:
        for event in parse(console.read())[0]:
            if event["event"] in ("error", "sent"):
                console.listen(_GRACE)
                return
            if event["event"] in ("up", "resumed") and up_at is None:
                up_at = time.monotonic()
        if up_at is not None and time.monotonic() > up_at + _FIRST_READING:
            return
        if quiet and time.monotonic() > end - seconds + min(seconds, _QUIET_SECONDS):
            return


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
    as_json: JsonOption = False,
    inventory: InventoryOption = None,
):
    """Find out why a device has no tunnel: ask it, ask the gateway, name the cause and the fix.

    The board is restarted, so that it tells from the beginning. All is well only when the board
    runs the inventory's files and its tunnel is up, and the gateway, if it can be asked, hears it.
    """
    with open_inventory(inventory) as found:
        row = found.find(name)
        findings = Findings(row["state"], found.secrets_path(row, coming=True).exists())
        findings.interval_ms = _interval(found, row)
        keys = found.secrets(row)
        with contextlib.ExitStack() as stack:
            try:
                log = stack.enter_context(_GatewayLog(vici))
                findings.log = log.lines
            except Problem as problem:
                findings.gateway = str(problem)
            if no_board:
                findings.board, findings.by_gateway = "--no-board", True
            else:
                try:
                    ask_board(findings, found, row, port, seconds)
                except Interrupted:
                    raise
                except (Problem, Refused) as problem:
                    findings.board = str(problem)
                    findings.board_fix = problem.fix or findings.board_fix
            if findings.gateway is None:
                with Charon(vici) as charon:
                    ask_gateway(findings, row, keys, charon)
        cause, fix = diagnose(findings)
        fix = fix.replace("DEVICE", row["id"])
        if as_json:
            told = dataclasses.asdict(findings)
            tell_json({"id": row["id"], "well": not cause, "cause": cause, "fix": fix, **told})
        else:
            tell(row, findings)
            if cause:
                finding("likely cause", cause, "bold red")
            else:
                finding("all is well", "", "bold green")
            finding("what to do", fix, "bold")
    if cause:
        raise typer.Exit(1)


def _interval(found, row):
    """Milliseconds between a device's datagrams."""
    profile = found.profile(row)
    try:
        return int(profile.get("interval_ms", 10000)) * int(profile.get("batch", 1))
    except (TypeError, ValueError):
        return 10000


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
            other = ", ".join(findings.different[:3]) + (", .." if findings.different[3:] else "")
            verb = "is" if len(findings.different) == 1 else "are"
            files = count(len(findings.different), "file")
            fact("device", f"{files} {verb} not the inventory's: {other}")
        words = [_words(event) for event in findings.said if event["event"] != "state"]
        for line in (words + findings.lines)[-_SHOWN:] or ["nothing"]:
            fact("device says", line)
    if findings.gateway is not None:
        fact("gateway", f"not asked: {findings.gateway}")
        return
    connections = count(findings.connections, "connection")
    fact("gateway", f"its key is {findings.secret}, {connections}")
    if findings.sa:
        ago = findings.last.ago
        heard = "never heard by it" if ago is None else f"last heard by it {ago} s ago"
        fact("gateway", f"it has a tunnel since {findings.last.up} s, {heard}")
    for line in [line for line in findings.log if re.search(_WORTH, line)][-_SHOWN:]:
        fact("gateway says", line)


def _words(event):
    parts = [f"{k}={v}" for k, v in event.items() if k in ("error", "notify", "text", "inner")]
    return " ".join([event["event"], *parts])
