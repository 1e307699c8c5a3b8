"""`make footprint`: heap of each module and phase on a 32-bit MicroPython; minutes.

Writes results.json, from which `make docs` makes the ledger and the picture in firmware/README.md.
"""

import json
import subprocess
import sys

from tools.common import mpy

from . import build, measure, show


def main():
    try:
        found = measure.everything()
    except (build.FootprintError, mpy.CompileError, subprocess.SubprocessError) as problem:
        print(f"footprint: {problem}", file=sys.stderr)
        return 1
    lines = json.dumps(found, indent=1)
    show.RESULTS.write_text(lines + "\n")
    for name, places in found["sessions"].items():
        for how, figures in places.items():
            target = show.TARGETS[name]
            steady = figures["live"]["steady"]
            print(
                f"{name}, {show.WHERE[how]}: handshake {show.handshake(figures):,} (aim {target:,}), "
                f"then {steady:,} (aim {show.TARGETS['steady']:,}), heap {figures['heap']:,}"
            )
    print(f"footprint: wrote {show.RESULTS.relative_to(build.ROOT)}; make docs shows it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
