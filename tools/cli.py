"""The one command line of all tools.

A tool adds itself here by one line, with a function whose signature is its options.
"""

import typer

from .devgateway.command import devgateway

app = typer.Typer(
    help="Tools for minipsec on a PC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(devgateway)


@app.callback()
def _tools():
    """Keeps each tool a subcommand, also while there is only one."""


def main():
    app(prog_name="python -m tools")
