"""The commands that work on the inventory alone: new, list, show, fleet import, fleet export, edit."""

import contextlib
import inspect
import os
import pathlib
import sys
from typing import Annotated

import typer

from .inventory import STATES
from .device import FIELDS, FROM_BOARD, REQUIRED, SECRETS, device, duration_text
from .keys import refused
from ..common.files import private_file
from ..common.firmware import board_facts
from ..common.options import JsonOption, count, fact, say, table, tell_json, warn
from .options import DeviceArgument, InventoryOption, open_inventory
from ..common.problem import BadInput, Problem
from .table import add_devices, differing, read_devices, settings, write_devices

# What fixed SPIs cost, in the firmware's words.
FIXED_SPI = refused.FIXED_SPI.removeprefix("spi: ")

fleet = typer.Typer(no_args_is_help=True, help="Many devices at once: tables in and out.")


def new(csv=None, inventory=None, **given):
    """Make a device: a profile, a secret key of 32 octets, a row in the inventory.

    What is not given is asked for. With --csv the flags stand in for missing columns.
    """
    given["wifi_key"] = os.environ.get("MINIPSEC_WIFI_KEY")
    given["ppk"] = "yes" if given.get("ppk") else None
    given = {name: given.get(name) for name in FIELDS}
    if csv:
        if given["id"]:
            raise BadInput("--id and --csv: the identities stand in the file")
        _import(csv, given, inventory)
        return
    if sys.stdin.isatty():
        _ask(
            given, inventory, all_of_it=not (given["id"] and given["gateway"] and given["server"])
        )
    wanted = device(given)
    if wanted.network == "wifi" and not wanted.given["wifi_key"]:
        warn(f"no key for the Wi-Fi network {wanted.ssid}: it is taken for an open one")
    if wanted.spi:
        warn(FIXED_SPI)
    with open_inventory(inventory, create=True) as found:
        _add(found, wanted)


def _add(found, wanted):
    """Add one device; the same command a second time changes nothing."""
    row = found.get(wanted.identity.key)
    if row and row["state"] == "revoked":
        raise BadInput(f"{wanted.id} was revoked: give the new device a new identity")
    if row:
        other = differing(found.profile(row), wanted)
        keys = found.secrets(row) or {}
        other += [name for name, key in wanted.given.items() if key and key != keys.get(name)]
        if other:
            how = (
                f"edit {found.secrets_path(row)}"
                if other[0] in SECRETS
                else f"python -m tools edit {wanted.id}"
            )
            raise BadInput(
                f"{wanted.id} is in the inventory already, with another {', '.join(other)}",
                f"{how}, or choose another identity",
            )
        warn(f"{wanted.id} is in the inventory already, just so; nothing was changed")
    else:
        found.add([wanted])
    row = found.get(wanted.identity.key)
    say(row["id"])
    fact("profile", found.profile_path(row))
    fact("secrets", f"{found.secrets_path(row)} (only you can read it)")
    _next(row)


def _next(row):
    """What to do for a device to come up as it is now."""
    fact("next", "python -m tools gateway apply")
    fact("", f"python -m tools push {row['id']} --port PORT")


def _ask(given, inventory, all_of_it):
    """Ask for what was not given, or for a Wi-Fi key alone; what the last device had is proposed."""
    last, owner = _last_answers(inventory)
    for name, entry in FIELDS.items():
        if not entry.question or given.get(name) or not _matters(name, given):
            continue
        if not all_of_it and name != "wifi_key":
            continue
        question, proposal = entry.question, last.get(name) or entry.default
        if name == "gateway_id":
            proposal = last.get(name) or given["gateway"]
        elif name == "interval" and not isinstance(proposal, str):
            proposal = duration_text(proposal)
        elif name == "wifi_key":
            proposal = last.get(name) if last.get("ssid") == given["ssid"] else None
            question += f" (empty: {f'as {owner} has it' if proposal else 'an open network'})"
        needed = entry.default is REQUIRED or name == "ssid"
        if proposal is REQUIRED:
            proposal = None
        while True:
            text = typer.prompt(
                question,
                default=proposal if proposal is not None else None if needed else "",
                show_default=proposal is not None and not entry.secret,
                hide_input=entry.secret,
            )
            try:
                given[name] = str(text).strip() and str(entry.read(text)) and str(text)
                break
            except ValueError as problem:
                say(f"  expected {problem}")


def _last_answers(inventory):
    """What the newest device has, as far as another one may have the same, and who that is."""
    with contextlib.suppress(Problem), open_inventory(inventory) as found:
        rows = found.rows()
        if rows:
            latest = max(rows, key=lambda row: row["created"])
            last = settings(latest, found.profile(latest))
            last["wifi_key"] = (found.secrets(latest) or {}).get("wifi_key")
            own = ("id", "inner_address", "static_ip")
            return {k: v for k, v in last.items() if k not in own}, latest["id"]
    return {}, ""


def _matters(name, given):
    """Is a question to be asked after the answers so far?"""
    facts = board_facts(given.get("board"))
    if name == "network":
        return not facts
    if name == "sleep":
        return bool(facts)
    if name in ("ssid", "wifi_key"):
        kind = given.get("network") or facts.get("network", {}).get("kind")
        return kind == "wifi" or bool(given.get("ssid"))
    return True


def _options(names):
    """Parameters of a command, one for each of these fields: what typer makes its flags of."""
    found = []
    for name in names:
        entry = FIELDS[name]
        panel = None if entry.often else "Seldom needed"
        if name == "ppk":
            kind, default = Annotated[bool, typer.Option("--ppk", help=entry.help)], False
        else:
            option = typer.Option(metavar=entry.metavar, help=entry.help, rich_help_panel=panel)
            kind, default = Annotated[str | None, option], None
        found.append(inspect.Parameter(name, _PARAMETER, default=default, annotation=kind))
    return found


def _with_options(command, *parameters):
    """Give a command its flags."""
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {each.name: each.annotation for each in parameters}


_PARAMETER = inspect.Parameter.POSITIONAL_OR_KEYWORD
_INVENTORY = inspect.Parameter("inventory", _PARAMETER, default=None, annotation=InventoryOption)
_CSV = inspect.Parameter(
    "csv",
    _PARAMETER,
    default=None,
    annotation=Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="Many devices: a CSV or JSON file, one a row."),
    ],
)
_FLAGS = [name for name in FIELDS if name not in SECRETS]  # a secret is no argument of a command
_EDITABLE = [name for name in _FLAGS if name not in ("id", "ppk")]
_with_options(new, *_options(_FLAGS), _CSV, _INVENTORY)


def edit(name, inventory=None, **given):
    """Change settings of a device, with the checks of `new`; "" takes one away.

    The board and the gateway learn of it by `push` and by `gateway apply`.
    """
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        raise BadInput("nothing to change: name a setting, --interval 1min for one")
    key = os.environ.get("MINIPSEC_WIFI_KEY") if given.get("ssid") else None
    with open_inventory(inventory) as found:
        row = found.find(name)
        if row["state"] == "revoked":
            raise BadInput(f"{row['id']} is revoked")
        with found.working_on(row):
            old = found.profile(row)
            before = settings(row, old)
            if "board" in given:  # these follow from it
                before = {k: v for k, v in before.items() if k not in ("network", *FROM_BOARD)}
            if given.get("gateway") and before["gateway_id"] == before["gateway"]:
                before["gateway_id"] = None
            wanted = device({**before, "id": row["id"], **given, "wifi_key": key})
            known = device({**settings(row, old), "id": row["id"]}).profile()
            # What a person wrote into the profile by hand stays.
            by_hand = {k: v for k, v in old.items() if k not in known}
            changed = found.change(row, wanted, {**wanted.profile(), **by_hand})
    say(f"{row['id']}: {', '.join(changed) or 'nothing'} changed")
    if changed:
        _next(row)
    if "gateway" in changed:
        warn(
            f"{row['gateway']} knows its key still: python -m tools gateway apply --gateway"
            f" {row['gateway']} takes it away there"
        )


_NAME = inspect.Parameter("name", _PARAMETER, annotation=DeviceArgument)
_with_options(edit, _NAME, *_options(_EDITABLE), _INVENTORY)


def _import(path, defaults, inventory):
    devices = read_devices(path, defaults)
    with open_inventory(inventory, create=True) as found:
        fresh, known = add_devices(found, devices)
        made = count(len(fresh), "device")
        say(f"{made} made, each with a key of its own, in {found.path}")
        if known:
            say(f"{count(len(known), 'was', 'were')} there already, just so")
    fixed = [made.id for made in devices if made.spi]
    if fixed:
        warn(f"{len(fixed)} of them, {fixed[0]} for one: {FIXED_SPI}")


@fleet.command("import")
def fleet_import(
    path: Annotated[pathlib.Path, typer.Argument(metavar="FILE", help="CSV or JSON.")],
    inventory: InventoryOption = None,
):
    """Make every device of a CSV or JSON file, or, when a row has a fault, none.

    Columns are the flags of `new` (id, gateway, gateway_id, server, server_port, reach,
    inner_address, interval, board, ssid, wifi_key, pq, ppk, psk, ..); id, gateway and server are required.
    """
    _import(path, {}, inventory)


@fleet.command("export")
def fleet_export(
    path: Annotated[
        pathlib.Path | None, typer.Argument(metavar="FILE", help="To standard output if left out.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="csv|json", help="By the file's name.")
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only devices of this state; repeatable.")
    ] = None,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="The keys too; the file becomes 0600.")
    ] = False,
    inventory: InventoryOption = None,
):
    """Write the inventory as CSV or JSON, without keys unless they are asked for."""
    if form is None:
        form = "json" if path and path.suffix.lower() == ".json" else "csv"
    if form not in ("csv", "json"):
        raise BadInput(f"--format: expected csv or json, got {form!r}")
    if with_secrets and not path:
        raise BadInput("--with-secrets: name a file; keys are not for a terminal's memory")
    for name in state or ():
        if name not in STATES:
            raise BadInput(f"--state: expected {', '.join(STATES)}, got {name!r}")
    with open_inventory(inventory) as found:
        entries = []
        for row in found.rows(*(state or ())):
            entry = {**settings(row, found.profile(row)), "state": row["state"]}
            if with_secrets:
                keys = found.secrets(row) or {}
                entry.update({name: keys.get(name) for name in SECRETS})
            entries.append(entry)
    if not path:
        write_devices(sys.stdout, entries, form)
        return
    with private_file(path) as file:
        write_devices(file, entries, form)
    say(
        f"{count(len(entries), 'device')} in {path}"
        + (" (with their keys)" if with_secrets else "")
    )


def list_devices(
    state: Annotated[
        list[str] | None, typer.Option(help="Only devices of this state; repeatable.")
    ] = None,
    as_json: JsonOption = False,
    inventory: InventoryOption = None,
):
    """List the devices of the inventory."""
    for name in state or ():
        if name not in STATES:
            raise BadInput(f"--state: expected {', '.join(STATES)}, got {name!r}")
    with open_inventory(inventory) as found:
        rows = found.rows(*(state or ()))
    if as_json:
        tell_json([_row(row) for row in rows])
        return
    head = ("device", "state", "gateway", "inner address", "board")
    cells = []
    for row in rows:
        inner = row["inner_address"] or "from the gateway"
        cells.append((row["id"], row["state"], row["gateway"], inner, row["board"] or ""))
    table(head, cells)
    states = [row["state"] for row in rows]
    say(", ".join(f"{states.count(name)} {name}" for name in STATES if name in states))


def _row(row):
    """What the inventory's table says of a device, for other programs."""
    names = ("id", "state", "gateway", "inner_address", "board", "chip", "firmware", "created")
    return {name: row[name] for name in names}


def show(name: DeviceArgument, as_json: JsonOption = False, inventory: InventoryOption = None):
    """Tell all about one device but its keys."""
    with open_inventory(inventory) as found:
        row = found.find(name)
        profile, history = found.profile(row), found.history(row)
        if as_json:
            history = [{"at": at, "what": what} for at, what in history]
            files = str(found.directory(row))
            tell_json({**_row(row), "profile": profile, "files": files, "history": history})
            return
        say(row["id"])
        fact("state", row["state"])
        for key, value in profile.items():
            fact(key, " ".join(map(str, value)) if isinstance(value, list) else value)
        fact("board", row["board"] or "")
        fact("chip", row["chip"] or "not seen yet")
        fact("files", found.directory(row))
        for at, what in history:
            fact(at.partition("+")[0], what)
