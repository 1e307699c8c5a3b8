"""`rotate`: from one key of a device to the next.

It touches three places: board, gateway, inventory. Each step may be the last one before a crash,
so each can be told from what the three places say, and the same command again goes on from there.
"""

import contextlib

from ..common.files import write_json
from ..common.identity import Identity
from ..common.options import (
    VICI,
    NoGatewayOption,
    PortOption,
    ViciOption,
    WaitOption,
    fact,
    say,
    warn,
)
from ..fleet.options import DeviceArgument, InventoryOption, open_inventory
from ..common.problem import Problem
from ..fleet.device import new_key
from ..fleet.inventory import CHARON
from ..gateway.config import as_gateway, scope_of, secrets_of
from ..gateway.live import Charon
from .board import Board, choose_port
from .push import (
    Push,
    check_board,
    check_chip,
    check_own_program,
    contents,
    see_it_start,
)


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
            profile = found.profile(row)
            check_own_program(found, row)
            with contextlib.ExitStack() as stack:
                # Both ends are there before anything changes.
                charon = None if no_gateway else stack.enter_context(Charon(vici))
                if why := as_gateway(found, charon)(Identity.of(row)):
                    raise Problem(f"{row['id']} gets no new key: {why}")
                board = stack.enter_context(Board(choose_port(port, wait), wait))
                check_board(board, row["board"])
                check_chip(found, row, board)
                if not coming:
                    coming = _next(old)
                    write_json(found.secrets_path(row, coming=True), coming)
                _change(found, row, board, charon, old, coming)
                started = board.start()
        for place, _ in found.told(row):
            if place != CHARON:
                warn(f"{place} holds files with its old key: write them anew by `gateway config`")
    say(f"{row['id']} has a new key")
    fact("board", "has it and was restarted")
    if no_gateway:
        fact("gateway", "not told: run `gateway apply`, or `gateway config` and --load-all there")
    else:
        fact("gateway", "knows the new key only")
    with started:
        see_it_start(profile, started)


def _next(old):
    """The keys that follow: Wi-Fi's stays, ours are new."""
    return {**old, **{name: new_key() for name in ("psk", "ppk", "seed") if name in old}}


def _change(found, row, board, charon, old, coming):
    """Bring the new key to board, gateway and inventory."""
    scope = scope_of(found, row["gateway"])
    fresh = {entry.name: entry for entry in secrets_of(scope, row, coming)}
    stale = {entry.name for entry in secrets_of(scope, row, old)} - set(fresh)
    push = Push(board, contents(found, row, board.architecture, coming=True))
    push.run()
    # No `apply` may load the old key behind our back.
    with found.telling() as alone:
        if not alone:
            raise Problem(
                "another process is telling the gateway", "run this again when it is done"
            )
        if charon:
            found.tell(CHARON, row["gateway"], [row["key"]])
            for entry in fresh.values():
                charon.load_secret(entry)
            for name in stale.union(charon.secrets_of(Identity.of(row), found.id)) - set(fresh):
                charon.forget_secret(name)
            charon.terminate(Identity.of(row))
        found.secrets_path(row, coming=True).replace(found.secrets_path(row))
    found.note(row, "rotated")
