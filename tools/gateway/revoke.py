"""`revoke` and `remove`: the end of a device's key, at the gateway and in the inventory.

Each step may be the last one before a crash, so each can be told from what the two places say, and
the same command again goes on from there.
"""

import contextlib
import pathlib

from .config import SECRETS, holds
from .live import Charon
from ..fleet.inventory import CHARON
from ..common.identity import Identity
from ..common.options import (
    VICI,
    NoGatewayOption,
    ViciOption,
    YesOption,
    confirm,
    count,
    fact,
    say,
)
from ..fleet.options import DeviceArgument, InventoryOption, open_inventory
from ..common.problem import BadInput, Problem, shortened


def revoke(
    name: DeviceArgument,
    vici: ViciOption = VICI,
    no_gateway: NoGatewayOption = False,
    yes: YesOption = False,
    inventory: InventoryOption = None,
):
    """Cut a device off: its key is forgotten here and at the gateway, its tunnel ends at once.

    The inventory remembers that it was revoked; it never comes back under that identity. The
    gateway is looked at afterwards: what is left there is an error.
    """
    with contextlib.ExitStack() as stack:
        with _nothing_revoked(name):
            found = stack.enter_context(open_inventory(inventory))
            row = found.find(name)
        if row["state"] != "revoked":
            confirm(f"{row['id']} never comes back under that identity. Revoke it?", yes)
        with _nothing_revoked(row["id"]):
            stack.enter_context(found.working_on(row))
            revoked_for = found.revoked_for(row)
            # First, so that no later `apply` or `config` lets it in again, whatever happens now.
            found.set_state(row, "revoked")
        left = _delete_keys(found, row)
        said = "not told: run `gateway apply`, or `gateway config` and --load-all there"
        if not no_gateway:
            try:
                said = _cut_off(found, row, vici, revoked_for)
            except Problem as problem:
                raise Problem(
                    f"{row['id']} is revoked in the inventory, but the gateway may still let"
                    f" it in: {problem}",
                    f"{problem.fix}; then run this again" if problem.fix else None,
                ) from None
        if left:
            raise Problem(
                f"{row['id']} is revoked, but its keys are still here: {', '.join(left)}",
                "delete them, or run this again",
            )
        _check_files(found, row)
    say(f"{row['id']} is revoked")
    fact("gateway", said)
    fact("inventory", "its keys are deleted")


@contextlib.contextmanager
def _nothing_revoked(name):
    """Say of whatever goes wrong here that nothing was done."""
    try:
        yield
    except BadInput:
        raise
    except Problem as problem:
        raise Problem(
            f"{shortened(name)} is not revoked: its key is still here, and good at the gateway;"
            f" {problem}",
            f"{problem.fix}; then run this again" if problem.fix else None,
        ) from None


def _delete_keys(found, row):
    """Delete a device's keys; return what could not be deleted, and why.

    A command that was killed while it wrote keys left them in a file beside.
    """
    left = []
    paths = [found.secrets_path(row, coming) for coming in (False, True)]
    for path in [*paths, *found.directory(row).glob(".secrets*.json.*")]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            left.append(f"{path} ({error.strerror})")
    return left


def _cut_off(found, row, vici, revoked_for):
    """Cut a device off at the gateway; return what was done, for a person."""
    # Whoever is loading keys ends first; who comes later sees that it is revoked.
    with Charon(vici) as charon, found.telling() as alone:
        forgotten, ended = charon.cut_off({Identity.of(row): revoked_for}, found.id)
    if not alone:
        raise Problem(
            "another process is telling it of this inventory", "wait until that one is done"
        )
    return f"{count(forgotten, 'secret')} forgotten, {count(ended, 'SA')} ended"


def _check_files(found, row):
    """Fail as long as files that `gateway config` wrote let a device in."""
    bad = []
    for place, _ in found.told(row):
        if place != CHARON:
            path = pathlib.Path(place) / SECRETS
            there = holds(path, Identity.of(row))
            if there:
                bad.append(f"{path} still holds it")
            elif there is None:
                bad.append(f"{path}, now elsewhere, held it")
    if bad:
        raise Problem(
            f"{row['id']} is revoked, but files still let it in when they are loaded:"
            f" {', '.join(bad)}",
            "`gateway config --out` that directory again, copy the files to the gateway, and"
            " swanctl --load-all there",
        )


def remove(
    name: DeviceArgument,
    yes: YesOption = False,
    vici: ViciOption = VICI,
    no_gateway: NoGatewayOption = False,
    inventory: InventoryOption = None,
):
    """Forget a device that never was on a board, as if it had not been made."""
    with open_inventory(inventory) as found:
        row = found.find(name)
        if row["state"] == "revoked":
            raise BadInput(f"{row['id']} is revoked, and kept so that nobody makes it again")
        pushed = any(what.startswith("pushed") for _, what in found.history(row))
        if row["state"] != "new" or row["chip"] or pushed:
            raise BadInput(f"{row['id']} was on a board, which has its key", "revoke it")
        told = [place for place, _ in found.told(row)]
        files = [place for place in told if place != CHARON]
        if files:
            raise BadInput(f"{files[0]} holds files with its key for a gateway", "revoke it")
        confirm(f"Remove {row['id']} and its keys?", yes)
        with found.working_on(row):
            # Nobody may load what is about to go.
            if told and not no_gateway:
                with Charon(vici) as charon, found.telling():
                    charon.cut_off({Identity.of(row): None}, found.id)
            found.remove(row)
    say(f"{row['id']} is removed")
