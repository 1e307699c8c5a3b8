"""The one command line of all tools.

A tool adds itself here by one line, with a function whose signature is its options.
"""

import contextlib
import importlib.metadata
import inspect
import json
import os
import signal
import sys
import tomllib
from typing import Annotated

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError

from .common import mpy
from .capture.command import capture
from .devgateway.command import devgateway
from .gateway.commands import gateway
from .fleet import commands
from .board.console import pull_log, stats
from .board.doctor import doctor
from .board.flash import flash
from .gateway.revoke import remove, revoke
from .fleet.label import label
from .common.options import MODULE, PROGRAM, complain
from .common.problem import BadInput, Interrupted, Problem
from .board.push import push
from .board.rotate import rotate
from .common.secrecy import no_core_dumps

app = typer.Typer(
    no_args_is_help=True,
    add_completion=PROGRAM != MODULE,
    pretty_exceptions_enable=False,
)


def version():
    """The version of this checkout, or of what pip installed."""
    project = mpy.ROOT / "pyproject.toml"
    if project.exists():
        return tomllib.loads(project.read_text())["project"]["version"]
    return importlib.metadata.version("minipsec")


def _tell_version(wanted: bool):
    if wanted:
        typer.echo(f"minipsec {version()}")
        raise typer.Exit


@app.callback()
def _tools(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_tell_version, help="Tell the version."),
    ] = False,
):
    """Tools for minipsec on a PC."""


app.command()(commands.new)
app.command("list")(commands.list_devices)
app.command()(commands.show)
app.command()(push)
app.command()(rotate)
app.command()(revoke)
app.command()(commands.edit)
app.command()(remove)
app.command("pull-log")(pull_log)
app.command()(stats)
app.command()(doctor)
app.command()(label)
app.command()(flash)
app.command()(capture)
app.add_typer(gateway, name="gateway")
app.add_typer(commands.fleet, name="fleet")
app.command()(devgateway)


def _flow(typer_app):
    """Have help texts fill their lines: those of the source mean nothing."""
    for command in typer_app.registered_commands:
        paragraphs = inspect.getdoc(command.callback).split("\n\n")
        command.help = "\n\n".join(" ".join(part.split()) for part in paragraphs)
    for group in typer_app.registered_groups:
        _flow(group.typer_instance)


_flow(app)


def run(arguments=None):
    """Run one command; return its exit code. Whatever goes wrong is told in one line.

    Who asked for JSON finds that line on standard output, too.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments, prog_name=PROGRAM, standalone_mode=False)
        if code == Interrupted.code:
            raise Interrupted("interrupted")
        return code or 0
    except SystemExit as end:
        return end.code or 0
    except NoArgsIsHelpError as problem:
        problem.show()
        return BadInput.code
    except ClickException as error:
        problem = _usage(error)
    except Problem as error:
        problem = error
    except (KeyboardInterrupt, typer.Abort):
        problem = Interrupted("interrupted")
    except BrokenPipeError:
        # Who read our output has gone; Python would complain at the end once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Problem.code
    except OSError as error:
        # Of files and of standard output; where more is known of a fault, a Problem says it.
        where = f"{error.filename}: " if error.filename else ""
        problem = Problem(f"{where}{error.strerror or error}", "mend that and run this again")
    return _tell(problem, "--json" in arguments)


def _tell(problem, as_json):
    """Tell a `Problem`; return its exit code, also where nobody can be told."""
    with contextlib.suppress(OSError):
        complain(problem)
        if as_json:
            typer.echo(json.dumps({"error": str(problem), "fix": problem.fix}))
    return problem.code


def _usage(error):
    """What typer says of a command line, as a `Problem` like every other."""
    text = error.format_message().rstrip(".")
    where = error.ctx.command_path if getattr(error, "ctx", None) else PROGRAM
    return BadInput(text[:1].lower() + text[1:], f"{where} --help")


def _have_streams():
    """Have all three standard streams, which take any text, whatever we were started with."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Nothing else may get its number, least of all the inventory.
            setattr(sys, name, open(os.devnull, mode))
    # A line leaves at once, so that a full disk is noticed while somebody can say so.
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    sys.stderr.reconfigure(errors="backslashreplace")


def _interrupt(*_):
    raise KeyboardInterrupt


def main():
    """The command line of a process: a terminal that closes ends it as Ctrl-C does."""
    no_core_dumps()
    _have_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    sys.exit(run())
