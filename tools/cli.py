"""The one command line of all tools.

A tool adds itself here by one line, with a function whose signature is its options.
"""

import sys

import typer

from .capture.command import capture
from .devgateway.command import devgateway
from .gateway.commands import gateway
from .provision import commands
from .provision.console import pull_log, stats
from .provision.doctor import doctor
from .provision.flash import flash
from .provision.keys import revoke, rotate
from .provision.label import label
from .provision.options import complain
from .provision.problem import Problem
from .provision.push import push

app = typer.Typer(
    help="Tools for minipsec on a PC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(commands.new)
app.command("list")(commands.list_devices)
app.command()(commands.show)
app.command()(push)
app.command()(rotate)
app.command()(revoke)
app.command("pull-log")(pull_log)
app.command()(stats)
app.command()(doctor)
app.command()(label)
app.command()(flash)
app.command()(capture)
app.add_typer(gateway, name="gateway")
app.add_typer(commands.fleet, name="fleet")
app.command()(devgateway)


def run(arguments=None):
    """Run one command; return its exit code. A `Problem` is told in one message."""
    try:
        app(arguments, prog_name="python -m tools")
    except SystemExit as end:
        return end.code or 0
    except Problem as problem:
        complain(problem)
        return problem.code
    except KeyboardInterrupt:
        return 130
    return 0


def main():
    sys.exit(run())
