"""Profile keys of older versions: read under their names of today, or refused with what to do.

Loaded when a profile is refused.
"""

import json

from .refused import cut, fail

_EXPERIMENTS = ("frag_ack_policy", "max_packets", "readings")  # now in the table `experimental`
_TYPES = [50201, 50202, 50203]  # the only value of `frag_ack_types` that a gateway knew


def renewed(values, rows=(), experimental=()):
    """Return a profile's values under the keys of today.

    Raises ProfileError for a key that was removed and, where rows are given, for one without a row.
    """
    if not isinstance(values, dict):
        return values
    found = {}
    moved = {}
    for key, value in values.items():
        if key == "gateways":
            key = "gateway"
        elif key == "gateway" and "gateways" in values:
            continue  # with both keys, the list was used
        if (key, value) == ("frag_ack", "04"):
            value = "03"  # the same here
        if key in _EXPERIMENTS:
            moved[key] = value
        elif key != "frag_ack_types":
            found[key] = value
        elif value != _TYPES:
            fail("profile", key, "no longer a key: take it out; both ends have %s" % _TYPES)
    if moved:
        table = found.get("experimental", {})
        found["experimental"] = dict(moved, **table) if isinstance(table, dict) else table
    _know("profile", found, rows)
    _know("profile: experimental", found.get("experimental"), experimental)
    return found


def _know(where, given, rows):
    """Refuse a key that has no row."""
    known = [row[0] for row in rows]
    for key in given if isinstance(given, dict) else ():
        if known and key not in known:
            fail(where, cut(json.dumps(key)[1:-1]), "unknown key")
