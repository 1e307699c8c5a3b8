"""`gateway config`, `apply`, `list` and `revoke`."""

import pathlib
from typing import Annotated

import typer

from ..provision.identity import Identity
from ..provision.keys import revoke
from ..provision.options import (
    VICI,
    InventoryOption,
    JsonOption,
    ViciOption,
    bar,
    count,
    fact,
    open_inventory,
    say,
    table,
    tell_json,
)
from ..provision.problem import Problem
from .config import choose_gateway, plan, secret, write_files
from .live import Charon, last_heard

_INTERVAL_MS = 1000  # between readings, where a profile does not say

gateway = typer.Typer(no_args_is_help=True, help="strongSwan: its files, or a running charon.")

GatewayOption = Annotated[
    str | None,
    typer.Option("--gateway", metavar="HOST", help="Which one, where the inventory has several."),
]
PoolOption = Annotated[
    str | None,
    typer.Option(
        "--pool", metavar="NETWORK", help="Inner addresses to give out; 10.9.0.0/24. Remembered."
    ),
]
Pool6Option = Annotated[
    str | None,
    typer.Option("--pool6", metavar="NETWORK", help="The same for IPv6; fd09::/112. Remembered."),
]


@gateway.command()
def config(
    out: Annotated[
        pathlib.Path, typer.Option("--out", metavar="DIR", help="Where the two files go.")
    ] = pathlib.Path("."),
    host: GatewayOption = None,
    pool: PoolOption = None,
    pool6: Pool6Option = None,
    inventory: InventoryOption = None,
):
    """Write swanctl.conf for the inventory, and its secrets in a file of mode 0600.

    Copy both to /etc/swanctl/conf.d of the gateway, then swanctl --load-all there.
    """
    with open_inventory(inventory) as found:
        wanted = plan(found, host, pool, pool6)
        paths = write_files(wanted, out)
    connections = count(len(wanted.connections), "connection")
    say(f"{connections}, {count(len(wanted.secrets), 'secret')}")
    fact("connections", paths[0])
    fact("secrets", f"{paths[1]} (only you can read it)")


@gateway.command()
def apply(
    vici: ViciOption = VICI,
    host: GatewayOption = None,
    pool: PoolOption = None,
    pool6: Pool6Option = None,
    inventory: InventoryOption = None,
):
    """Tell a running charon of the whole inventory, without touching its files.

    A second time changes nothing but what differs; devices that were revoked lose their SAs. A
    charon that is restarted has forgotten it: run this again, or use `gateway config`.
    """
    with open_inventory(inventory) as found, Charon(vici) as charon, bar() as shown:
        wanted = plan(found, host, pool, pool6)
        tasks = {
            "connections": shown.add_task("connections", total=len(wanted.connections), what=""),
            "secrets": shown.add_task("secrets", total=len(wanted.secrets), what=""),
        }
        done = charon.apply(wanted, lambda what, n: shown.advance(tasks[what], n))
    say(f"charon knows {count(len(wanted.secrets), 'secret')} of {wanted.gateway}'s devices")
    fact("connections", done["connections"])
    fact("secrets", f"{done['secrets']} new, {done['kept']} known already")
    fact("forgotten", f"{done['forgotten']}; SAs ended: {done['ended']}")


@gateway.command("list")
def list_devices(
    vici: ViciOption = VICI,
    host: GatewayOption = None,
    as_json: JsonOption = False,
    inventory: InventoryOption = None,
):
    """Show what charon knows beside what the inventory says: secrets, SAs, traffic."""
    with open_inventory(inventory) as found, Charon(vici) as charon:
        name = choose_gateway(found, host)
        names, shown = charon.secrets(), {}
        for sa in charon.sas():
            shown.setdefault(sa.get("remote-id", "").lower(), []).append(sa)
        cells, up, silent = [], 0, 0
        for row in found.rows(gateway=name):
            identity = Identity.of(row)
            sas = shown.pop(identity.shown.lower(), [])
            established = [sa for sa in sas if sa["state"] == "ESTABLISHED"]
            state = row["state"]
            if established:
                up += 1
                if state in ("new", "provisioned"):
                    found.set_state(row, "active")
                    state = "active"
            heard = last_heard(established)
            quiet = bool(heard) and heard.silent(_interval(found, row))
            silent += quiet
            traffic = _traffic(established[:1])
            cells.append(
                (row["id"], state, _secret(found, row, names), *traffic, _ago(heard, quiet))
            )
        for sa in (sa for sas in shown.values() for sa in sas):
            cells.append(
                (
                    sa.get("remote-id", ""),
                    "not here",
                    "",
                    *_traffic([sa]),
                    _ago(last_heard([sa]), False),
                )
            )
    head = ("device", "state", "secret", "SA", "inner address", "in", "out", "last heard")
    if as_json:
        keys = [title.lower().replace(" ", "_") for title in head]
        tell_json([dict(zip(keys, row, strict=True)) for row in cells])
        return
    table(head, cells)
    say(f"{count(up, 'device has', 'devices have')} a tunnel, {silent} of them silent")


def _interval(found, row):
    """Milliseconds between a device's readings."""
    try:
        return int(found.profile(row).get("interval_ms", _INTERVAL_MS))
    except (Problem, TypeError, ValueError):  # the profile is damaged: other commands say so
        return _INTERVAL_MS


def _ago(heard, quiet):
    if heard is None:
        return ""
    return ("never" if heard.ago is None else f"{heard.ago} s ago") + (", silent" if quiet else "")


def _secret(found, row, names):
    identity = Identity.of(row)
    keys = found.secrets(row)
    if keys and secret(identity, "IKE", "", keys["psk"]).name in names:
        return "known"
    prefix = secret(identity, "IKE", "", "x").name[:-8]
    return "another key" if any(name.startswith(prefix) for name in names) else "unknown"


def _traffic(sas):
    if not sas:
        return "", "", "", ""
    sa = sas[0]
    children = sa.get("child-sas", {}).values()
    inner = ", ".join(sa.get("remote-vips", [])) or ", ".join(
        address.partition("/")[0] for child in children for address in child.get("remote-ts", [])
    )
    packets = [sum(int(c.get(f"packets-{way}", 0)) for c in children) for way in ("in", "out")]
    return f"{sa.get('established', '?')} s", inner, str(packets[0]), str(packets[1])


gateway.command("revoke")(revoke)
