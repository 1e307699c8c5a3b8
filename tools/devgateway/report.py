"""Events as JSON lines or as text for a person."""

import json
import sys

from rich.console import Console
from rich.text import Text

from ..common.options import printable

_STYLES = {
    "ready": "bold green",
    "ike_sa": "green",
    "child_sa": "green",
    "reading": "bold",
    "delete": "yellow",
    "drop": "dim",
    "error": "bold red",
    "stats": "cyan",
}


def _text(name, fields):
    if name == "ready":
        return "listening: IKE port %(port)d, NAT traversal port %(natt_port)d" % fields
    if name == "ike_sa":
        return "%(id)s is authenticated: %(proposal)s, from %(peer)s" % fields
    if name == "child_sa":
        return "%(id)s has a tunnel: inner address %(inner)s, %(esp)s" % fields
    if name == "reading":
        shown = fields["text"] if fields["text"] is not None else "0x" + fields["hex"]
        return "%s port %d -> %d, %d octets: %s" % (
            fields["inner"],
            fields["src_port"],
            fields["dst_port"],
            fields["octets"],
            shown,
        )
    return ", ".join("%s: %s" % pair for pair in fields.items() if pair[1] is not None)


def json_reporter():
    """`on_event` that prints one JSON object a line on stdout."""

    def report(name, fields):
        sys.stdout.write(json.dumps({"event": name, **fields}) + "\n")
        sys.stdout.flush()

    return report


def text_reporter():
    """`on_event` that prints lines for a person."""
    console = Console(highlight=False, soft_wrap=True)

    def report(name, fields):
        style = _STYLES.get(name, "")
        # A reading is a stranger's text: print it escaped, and without markup.
        console.print(Text("%-9s" % name, style) + Text(" " + printable(_text(name, fields))))

    return report
