"""`rotate` and `revoke`: a device's key, from one to the next and to the end.

Both touch three places: board, gateway, inventory. Each step may be the last one before a crash,
so each can be told from what the three places say, and the same command again goes on from there.
"""

import contextlib

from ..gateway.config import secrets_of
from ..gateway.live import Charon
from .board import Board, choose_port
from .device import new_key
from .files import write_json
from .identity import Identity
from .options import (
    VICI,
    DeviceArgument,
    InventoryOption,
    NoGatewayOption,
    PortOption,
    ViciOption,
    WaitOption,
    count,
    fact,
    open_inventory,
    say,
    warn,
)
from .problem import Problem
from .push import Push, check_board, contents


def revoke(
    name: DeviceArgument,
    vici: ViciOption = VICI,
    no_gateway: NoGatewayOption = False,
    inventory: InventoryOption = None,
):
    """Cut a device off: its key is forgotten here and at the gateway, its tunnel ends at once.

    The inventory remembers that it was revoked; it never comes back under that identity.
    """
    with open_inventory(inventory) as found:
        row = found.find(name)
        with found.working_on(row):
            identity = Identity.of(row)
            # First, so that no later `apply` or `config` lets it in again, whatever happens now.
            found.set_state(row, "revoked")
            for coming in (False, True):
                found.secrets_path(row, coming).unlink(missing_ok=True)
            ended = forgotten = 0
            if not no_gateway:
                try:
                    with Charon(vici) as charon:
                        for entry in charon.secrets_of(identity):
                            charon.unload_secret(entry)
                            forgotten += 1
                        charon.forget_connection(identity)
                        ended = charon.terminate(identity)
                except Problem as problem:
                    raise Problem(
                        f"{row['id']} is revoked in the inventory, but the gateway still lets it"
                        f" in: {problem}",
                        problem.fix + "; then run this again",
                    ) from None
    say(f"{row['id']} is revoked")
    if no_gateway:
        fact("gateway", "not told: run `gateway apply`, or `gateway config` and --load-all there")
    else:
        secrets = count(forgotten, "secret")
        fact("gateway", f"{secrets} forgotten, {count(ended, 'SA')} ended")
    fact("inventory", "its keys are deleted")


def rotate(
    name: DeviceArgument,
    port: PortOption = None,
    vici: ViciOption = VICI,
    no_gateway: NoGatewayOption = False,
    wait: WaitOption = 0,
    inventory: InventoryOption = None,
):
    """Give a device a new key: on its board and at the gateway, then restart it.

    Until the board has the new key the old one stays good; interrupted, run it again.
    """
    with open_inventory(inventory) as found:
        row = found.find(name)
        with found.working_on(row):
            if row["state"] == "revoked":
                raise Problem(f"{row['id']} is revoked: it gets no new key")
            old = found.secrets(row)
            if old is None:
                raise Problem(f"{found.secrets_path(row)} is missing")
            coming = found.secrets(row, coming=True)
            if coming:
                warn("an earlier rotation had been interrupted; its key is put in place now")
            with contextlib.ExitStack() as stack:
                # Both ends are there before anything changes.
                charon = None if no_gateway else stack.enter_context(Charon(vici))
                board = stack.enter_context(Board(choose_port(port, wait), wait))
                check_board(board, row["board"])
                if not coming:
                    coming = _next(old)
                    write_json(found.secrets_path(row, coming=True), coming)
                _change(found, row, board, charon, old, coming)
                board.reset()
    say(f"{row['id']} has a new key")
    fact("board", "has it and was restarted")
    if no_gateway:
        fact("gateway", "not told: run `gateway apply`, or `gateway config` and --load-all there")
    else:
        fact("gateway", "knows the new key only")


def _next(old):
    """The keys that follow: Wi-Fi's stays, ours are new."""
    return {**old, **{name: new_key() for name in ("psk", "ppk", "seed") if name in old}}


def _change(found, row, board, charon, old, coming):
    """Bring the new key to board, gateway and inventory."""
    fresh = {entry.name: entry for entry in secrets_of(row, coming)}
    stale = {entry.name for entry in secrets_of(row, old)} - set(fresh)
    push = Push(board, contents(found, row, board.architecture, coming=True))
    push.run()
    if charon:
        for entry in fresh.values():
            charon.load_secret(entry)
        for name in (stale | charon.secrets_of(Identity.of(row))) - set(fresh):
            with contextlib.suppress(Problem):
                charon.unload_secret(name)
        charon.terminate(Identity.of(row))
    found.secrets_path(row, coming=True).replace(found.secrets_path(row))
    found.note(row, "rotated")
