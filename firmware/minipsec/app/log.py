"""The log: one line an event, for a person or for a program."""

import json


def reporter(kind):
    """Return log(event, fields) for a profile's `log` key.

    "json" prints one JSON object an event, "text" one line for a person, "errors" such a line only
    for what went wrong; anything else prints nothing.
    """

    def log(event, fields):
        if kind == "json":
            line = {"event": event}
            for key, value in fields.items():
                line[key] = _text(value)
            print(_plain(json.dumps(line)))
        elif kind == "text" or (kind == "errors" and event in ("error", "hint")):
            words = [event]
            for key, value in fields.items():
                if value is not None:
                    words.append("%s=%s" % (key, _text(value)))
            print(_plain(" ".join(words)))

    return log


# Characters that move a terminal's cursor or the text around it: control characters, and those of
# Unicode that end a line, change its direction or are invisible.
_ODD = "\x7f\xad\u061c\u2028\u2029\ufeff"


def _plain(line):
    """Return the line with every odd character as \\u and 4 digits: one line on any terminal."""
    if min(line) >= " " and max(line) <= "~":
        return line
    found = []
    for c in line:
        odd = not " " <= c <= "~" and (c < " " or "\x7f" <= c < "\xa0" or c in _ODD)
        if (
            odd
            or "\u200b" <= c <= "\u200f"
            or "\u202a" <= c <= "\u202e"
            or "\u2060" <= c <= "\u206f"
        ):
            c = "\\u%04x" % ord(c)
        found.append(c)
    return "".join(found)


def _text(value):
    """Return octets as text where they are text, else as 0x..; any other value as it is."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return value
    octets = bytes(value)
    try:
        return octets.decode()
    except UnicodeError:
        return "0x" + octets.hex()
