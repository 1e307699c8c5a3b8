"""Tell a person or a program what a tunnel does: one line an event."""

import json

_QUIET = ("state",)


def as_json(event, fields):
    """Print one JSON object; octets appear as text where they are text, else as 0x..."""
    line = {"event": event}
    for key, value in fields.items():
        line[key] = _text(value) if isinstance(value, (bytes, bytearray)) else value
    print(json.dumps(line))


def as_text(event, fields):
    """Print one line for a person."""
    if event in _QUIET:
        return
    words = []
    for key, value in fields.items():
        if value is not None:
            words.append(
                "%s=%s" % (key, _text(value) if isinstance(value, (bytes, bytearray)) else value)
            )
    print(event, " ".join(words))


def as_errors(event, fields):
    """Print one line for a person, of what went wrong only."""
    if event in ("error", "hint"):
        as_text(event, fields)


def silent(event, fields):
    """Print nothing."""


def _text(octets):
    try:
        return bytes(octets).decode()
    except UnicodeError:
        return "0x" + octets.hex()


def reporter(kind):
    """Return the function for a profile's `log` key."""
    return {"json": as_json, "text": as_text, "errors": as_errors}.get(kind, silent)
