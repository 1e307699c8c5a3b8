"""`gateway config`, `apply`, `list` and `revoke`."""

import contextlib
import pathlib
from typing import Annotated

import typer

from ..fleet.inventory import CHARON
from ..common.identity import Identity
from .revoke import revoke
from ..common.options import (
    VICI,
    JsonOption,
    ViciOption,
    bar,
    confirm,
    count,
    fact,
    say,
    table,
    tell_json,
    warn,
)
from ..fleet.options import InventoryOption, open_inventory
from ..common.problem import BadInput, Problem
from .config import (
    SECRETS,
    SecretName,
    choose_gateway,
    key_state,
    plan,
    scope_of,
    secrets_of,
    who,
    write_files,
)
from .live import Charon, last_heard

UNDONE = (
    "charon has no connection of this inventory any more: a restart or `swanctl --load-all` undid"
    " `gateway apply`; run it again, or write files for the gateway by `gateway config --out DIR`"
)
FEW = 3  # devices whose keys charon may forget unasked though nobody revoked them
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
        pathlib.Path | None,
        typer.Option("--out", metavar="DIR", help="Where the two files go; they hold keys."),
    ] = None,
    host: GatewayOption = None,
    pool: PoolOption = None,
    pool6: Pool6Option = None,
    inventory: InventoryOption = None,
):
    """Write swanctl.conf for the inventory, and its secrets in a file of mode 0600.

    Copy both to /etc/swanctl/conf.d of the gateway, then swanctl --load-all there.
    """
    if out is None:
        raise BadInput("--out: name a directory for the two files; one of them holds all keys")
    with open_inventory(inventory) as found:
        wanted = plan(found, host, pool, pool6)
        name = wanted.scope.gateway
        paths = write_files(wanted, out)
        if pool or pool6:
            _remember(found, wanted)
        keys = [identity.key for identity in wanted.devices]
        found.tell(str(out.resolve()), name, keys, only=True)
        for place in found.places(name):
            # Where files are no longer, these take their place.
            if not (pathlib.Path(place) / SECRETS).exists():
                found.untell(place, name)
    connections = count(len(wanted.connections), "connection")
    say(f"{connections}, {count(len(wanted.secrets), 'secret')}")
    fact("connections", paths[0])
    fact("secrets", f"{paths[1]} (only you can read it)")
    _left_out(wanted)


def _remember(found, wanted):
    """Keep the inner addresses, now that the gateway has them."""
    known = found.gateways()[wanted.scope.gateway]
    pools = {4: known["pool"], 6: known["pool6"], **wanted.asked}
    texts = [pools[version] and str(pools[version]) for version in (4, 6)]
    found.remember_gateway(wanted.scope.gateway, *texts)


def _left_out(wanted):
    """Name the devices that could not be served; the command is not done then."""
    if wanted.without:
        devices = count(len(wanted.without), "device")
        identity, missing = wanted.without[0]
        lacks = "ML-KEM" if "mlkem" in missing[0] else missing[0]
        warn(
            f"charon has no {lacks}: {devices}, {identity} for one, will do with what else it offers"
        )
    left_out = wanted.left_out + wanted.barred
    if left_out:
        lines = [f"{identity}: {why}" for identity, why in left_out]
        raise Problem(
            "\n".join([f"{count(len(lines), 'device')} left out; all others are served", *lines]),
            "mend that and run this again",
        )


@gateway.command()
def apply(
    vici: ViciOption = VICI,
    host: GatewayOption = None,
    pool: PoolOption = None,
    pool6: Pool6Option = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Forget keys that it should not have unasked.")
    ] = False,
    inventory: InventoryOption = None,
):
    """Tell a running charon of the whole inventory, without touching its files.

    A second time changes nothing but what differs; devices that were revoked lose their SAs. What
    another inventory or swanctl's files gave charon is left alone. A charon that is restarted, or
    told swanctl --load-all, has forgotten it: run this again, or use `gateway config`.
    """
    with open_inventory(inventory) as found, Charon(vici) as charon, bar() as shown:
        wanted = plan(found, host, pool, pool6, charon)
        rival = charon.rival(wanted)
        if rival:
            warn(
                f"charon's connection {rival} takes anybody, with other settings: each device gets"
                " a connection of its own"
            )
            wanted = plan(found, host, pool, pool6, charon, apart=True)
        changes = charon.changes(wanted)
        if dry_run:
            _tell_changes(found, changes)
            _left_out(wanted)
            return
        if len(changes.unexpected) > FEW:
            shown.stop()
            confirm(
                f"charon will forget the keys of {len(changes.unexpected)} devices that this"
                " inventory no longer has; --dry-run names them. Go on?",
                force,
                "--force",
            )
            shown.start()
        tasks = {
            "connections": shown.add_task("connections", total=len(wanted.connections), what=""),
            "secrets": shown.add_task("secrets", total=len(wanted.secrets), what=""),
        }
        # Before, so that `revoke` knows it whatever happens to this.
        keys = [identity.key for identity in wanted.devices]
        found.tell(CHARON, wanted.scope.gateway, keys)
        done = charon.apply(
            wanted,
            changes,
            lambda entry: _guard(found, entry),
            lambda what, n: shown.advance(tasks[what], n),
        )
        if pool or pool6:
            _remember(found, wanted)
        ended = _sweep(found, charon)
        lost = {SecretName.read(secret).who for secret in (*changes.forgotten, *changes.older)}
        for identity, _ in wanted.barred:
            ended += charon.terminate(identity) if who(identity) in lost else 0
        keys += [identity.key for identity, _ in wanted.left_out]
        found.tell(CHARON, wanted.scope.gateway, keys, only=True)
    name = wanted.scope.gateway
    say(f"charon knows {count(len(wanted.secrets), 'secret')} of {name}'s devices")
    fact("connections", done["connections"])
    fact("secrets", f"{done['secrets']} new, {len(changes.known)} known already")
    gone = len(changes.forgotten) + len(changes.old_connections)
    fact("forgotten", f"{gone}; SAs ended: {ended}")
    if changes.older:
        fact("renamed", f"{count(len(changes.older), 'secret')} of an older minipsec")
    _left_out(wanted)


def _tell_changes(found, changes):
    """What --dry-run says."""
    say("nothing was changed; this would be:")
    fact("connections", f"{count(len(changes.connections), 'connection')} loaded anew")
    fact("secrets", f"{len(changes.new)} new, {len(changes.known)} known already")
    known = {who(Identity.of(row)): row["id"] for row in found.rows()}
    for name in changes.forgotten:
        owner = known.get(SecretName.read(name).who, "a device that is not here")
        fact("forgotten", f"{name}: {owner}")
    for name in changes.old_connections:
        fact("forgotten", f"the connection {name}")
    for name in changes.older:
        fact("renamed", name)


@contextlib.contextmanager
def _guard(found, entry):
    """Is a secret still good? Until the block ends nobody revokes its device or changes its key."""
    with found.telling() as free:
        if not free:
            raise Problem(
                "another process is telling a gateway of this inventory, and hangs",
                "run this again when it is done",
            )
        row = found.get(entry.identity.key)
        keys = found.secrets(row) if row and row["state"] != "revoked" else None
        scope = scope_of(found, row["gateway"]) if keys else None
        yield bool(keys) and entry.name in {e.name for e in secrets_of(scope, row, keys)}


def _sweep(found, charon):
    """End what is left of devices that were revoked, also of those revoked just now."""
    shown = {sa.get("remote-id", "").lower() for sa in charon.sas()}
    names = {SecretName.read(name).who for name in charon.secrets()}
    # Older inventories may have two identities that charon shows in the same words.
    shown -= {Identity.of(row).shown.lower() for row in found.rows() if row["state"] != "revoked"}
    left = {}
    for row in found.rows("revoked"):
        identity = Identity.of(row)
        if identity.shown.lower() in shown or who(identity) in names:
            left[identity] = found.revoked_for(row)
    return charon.cut_off(left, found.id)[1] if left else 0


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
        told = [row for row in found.rows(gateway=name) if (CHARON, name) in found.told(row)]
        undone = told and not any(map(scope_of(found, name).has, charon.connections()))
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
                    state = "active"
                    with contextlib.suppress(Problem):  # nothing to write on: it is shown at least
                        found.set_state(row, state)
            heard = last_heard(established)
            quiet = bool(heard) and heard.silent(_interval(found, row))
            silent += quiet
            traffic = _traffic(established[:1])
            cells.append((row["id"], state, _key(found, row, names), *traffic, _ago(heard, quiet)))
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
    if undone:
        warn(UNDONE)
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


def _key(found, row, names):
    """What charon's key of a device is to ours."""
    try:
        keys = found.secrets(row)
    except Problem:  # they are damaged: other commands say so
        keys = None
    return key_state(names, Identity.of(row), keys)


def _ago(heard, quiet):
    if heard is None:
        return ""
    return ("never" if heard.ago is None else f"{heard.ago} s ago") + (", silent" if quiet else "")


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
