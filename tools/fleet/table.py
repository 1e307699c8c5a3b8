"""Fleets as tables: CSV and JSON in and out. A fault is named by its row and column."""

import csv
import json
import pathlib

from .device import FIELDS, FROM_BOARD, device, duration_text
from ..common.problem import BadInput, Problem
from .spreadsheet import FORMULA, read_rows, read_text

_MAX_ERRORS = 10


def read_devices(path, defaults=None):
    """Read devices out of a CSV or JSON file; `BadInput` names each fault, nothing is half-read.

    `defaults` ({field: text}) stands in for columns that are missing or empty. An exported
    table may come back: its revoked devices are passed over.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() == ".json":
        entries, at = _json_entries(path), "entry"
    else:
        entries, at = read_rows(path, (*FIELDS, "state")), "row"
    devices, errors, first = [], [], {}
    for number, entry in entries:
        if entry.pop("state", None) == "revoked":
            continue
        where = f"{path}: {at} {number}"
        try:
            for name in entry:
                if name not in FIELDS:
                    raise BadInput(f'{where}, column "{name}": unknown')
            given = {**(defaults or {}), **{k: v for k, v in entry.items() if v not in (None, "")}}
            found = device(given, lambda name, where=where: f'{where}, column "{name}"')
            earlier = first.setdefault(found.identity.key, number)
            if earlier != number:
                raise BadInput(
                    f'{where}, column "id": {found.id} stands already in {at} {earlier}'
                )
            if found.inner_address:
                address = (found.gateway, found.inner_address)
                earlier = first.setdefault(address, number)
                if earlier != number:
                    raise BadInput(
                        f'{where}, column "inner_address": {found.inner_address}'
                        f" stands already in {at} {earlier}"
                    )
            devices.append(found)
        except BadInput as problem:
            errors.append(str(problem))
    if errors:
        shown = errors[:_MAX_ERRORS]
        more = len(errors) - len(shown)
        shown += [f".. and {more} more"] if more else []
        raise BadInput("\n".join(shown), "nothing was imported; mend the file and run this again")
    if not devices:
        raise BadInput(f"{path}: no device in it")
    return devices


def _json_entries(path):
    try:
        entries = json.loads(read_text(path), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    if isinstance(entries, dict):
        entries = entries.get("devices")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadInput(f'{path}: expected a list of objects, or {{"devices": [..]}}')
    for number, entry in enumerate(entries, 1):
        yield number, {key: _as_text(value) for key, value in entry.items()}


def _once(pairs):
    """An object whose names stand in it once; of two values nobody knows which is meant."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{twice}" is named twice in one object')
    return dict(pairs)


def _as_text(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if value is None else str(value)


def add_devices(inventory, devices):
    """Add what is not in the inventory yet; return (added, already there).

    A device that is there with other settings is an error, and then nothing is added.
    """
    fresh, known = [], []
    for found in devices:
        row = inventory.get(found.identity.key)
        if not row:
            fresh.append(found)
            continue
        if row["state"] == "revoked":
            raise BadInput(f"{found.id} was revoked: give the new device a new identity")
        if differing(inventory.profile(row), found):
            keys = ", ".join(differing(inventory.profile(row), found))
            raise BadInput(
                f"{found.id} is in the inventory already, with another {keys}",
                "nothing was imported",
            )
        keys = inventory.secrets(row) or {}
        for name, key in found.given.items():
            if key and key != keys.get(name):
                raise BadInput(
                    f"{found.id} is in the inventory already, with another {name}",
                    "nothing was imported; rotate gives a device a new psk",
                )
        known.append(found)
    if fresh:
        inventory.add(fresh)
    return fresh, known


def differing(profile, found):
    """The profile keys in which a device differs from what it should be."""
    wanted = found.profile()
    profile = {k: v for k, v in profile.items() if k not in FROM_BOARD or v not in (0, "off")}
    return sorted(key for key in {*profile, *wanted} if profile.get(key) != wanted.get(key))


def settings(row, profile):
    """The fields of a device that is in the inventory, as `read_devices` takes them."""
    values = {}
    for name, entry in FIELDS.items():
        if entry.secret:
            continue
        key = entry.key or name
        try:
            values[name] = _setting(name, row, profile, profile.get(key))
        except TypeError:
            raise Problem(
                f"the profile of {row['id']}: {key}: expected {entry.expected}", "mend the file"
            ) from None
    return values


def _setting(name, row, profile, value):
    """A field as text or number, TypeError where a hand wrote what is neither."""
    if name == "interval":
        return duration_text(value) if value else None
    if name == "board":
        return row["board"]
    if name in FROM_BOARD and row["board"]:
        return value or "off"  # else it would follow from the board
    if isinstance(value, list):
        return ("," if name == "gateway" else " ").join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "ppk":
        return "yes" if "ppk_id" in profile else None
    return value


def write_devices(file, entries, form):
    """Write [{column: value}] as "csv" or "json", without columns that are empty throughout."""
    columns = [
        name for name in (*FIELDS, "state") if any(e.get(name) not in (None, "") for e in entries)
    ]
    if form == "json":
        found = [{c: e[c] for c in columns if e.get(c) is not None} for e in entries]
        json.dump({"devices": found}, file, indent=1)
        file.write("\n")
        return
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for entry in entries:
        writer.writerow([_cell(entry.get(c)) for c in columns])


def _cell(value):
    """A cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return "'" + text if text[:1] and text[0] in FORMULA else text
