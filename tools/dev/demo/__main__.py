"""`make demo`: which story is told, by what was said to make."""

import argparse
import os
import re
import signal
import sys

from rich.markup import escape

from tools.common import mpy
from tools.common.secrecy import no_core_dumps
from tools.dev.lab import LabError

from . import link, sleep, story


class Parser(argparse.ArgumentParser):
    """Speaks of make's variables, in one line."""

    def error(self, message):
        text = re.sub(r"argument --([a-z-]+): ", lambda found: f"{_variable(found[1])}: ", message)
        self.exit(2, f"demo: {text}\n")


def _variable(flag):
    return flag.upper().replace("-", "_")


def number(kind, least, most, text):
    """Return a converter for argparse; `text` says what is taken."""

    def convert(value):
        try:
            found = kind(value)
        except ValueError:
            found = None
        if found is None or not least <= found <= most:
            raise argparse.ArgumentTypeError(f"{value!r} is not {text}")
        return found

    return convert


# What of the stories is whose: a switch that a story does not heed is refused.
_REAL = "strongSwan stands on a link that loses nothing, and Debian's has no ML-KEM"
_ASLEEP = "the story of sleep is told on a link that loses nothing, without ML-KEM"


def refusal(options):
    """Why these options do not go together, or None."""
    special = [
        f"{_variable(name)}={getattr(options, name.replace('-', '_')):g}"
        for name in ("pq", "loss", "fragment-size")
        if getattr(options, name.replace("-", "_"))
    ]
    for word in special:
        if options.gateway == "strongswan":
            return f"{word} does not go with GATEWAY=strongswan: {_REAL}"
        if options.sleep:
            return f"{word} does not go with SLEEP=1: {_ASLEEP}"
    if options.gateway == "strongswan" and os.geteuid() != 0:
        return "GATEWAY=strongswan needs root (network namespaces)"
    return None


def main(argv=None):
    parser = Parser("make demo", description=story.__doc__.split("\n\n", maxsplit=1)[0])
    count = number(int, 1, 10000, "a number of readings, 1 or more")
    percent = number(float, 0, 50, "a percentage of 0 to 50")
    fragment = number(int, 128, 1500, "a number of octets, 128 to 1500")
    parser.add_argument("--readings", type=count, metavar="N", help="10; 4 with SLEEP=1")
    parser.add_argument("--gateway", choices=story.GATEWAYS)
    switch = {"type": number(int, 0, 1, "0 or 1"), "default": 0, "metavar": "0|1"}
    parser.add_argument("--pq", **switch, help="ML-KEM-768 in fragments")
    parser.add_argument("--loss", type=percent, default=0, metavar="PERCENT")
    parser.add_argument("--fragment-size", type=fragment, metavar="OCTETS")
    parser.add_argument("--sleep", **switch, help="asleep in between")
    options = parser.parse_args(argv)
    if why := refusal(options):
        parser.error(why)
    options.readings = options.readings or (4 if options.sleep else 10)
    if not options.gateway:
        options.gateway = "development"
        if options.sleep:
            from tools.dev.setup import gateway

            # What a real gateway says to a sensor that sleeps is the better show.
            options.gateway = "development" if gateway.lacking() else "strongswan"
    no_core_dumps()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: keys and directories go
        signal.signal(ending, signal.default_int_handler)
    try:
        if options.pq or options.loss or options.fragment_size:
            link.run(options)
        elif options.sleep:
            sleep.run(options)
        else:
            story.run(options)
    except (story.DemoError, LabError, mpy.CompileError) as problem:
        story.console.print(f"[red]demo failed[/red]: {escape(str(problem))}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
