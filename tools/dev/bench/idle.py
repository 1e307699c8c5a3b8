"""`make bench-idle`: what a minute awake costs a sensor that has nothing to say, or little.

One tunnel of firmware/'s on a clock that leaps (tools/dev/sim/virtual.py), from `.mpy` files
under MicroPython's unix port. A line a profile: how often asyncio woke up, octets taken from the
heap (on a 64-bit machine; a board takes half), datagrams each way. Results are idle.csv and
idle.md.
"""

import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
RESULTS = pathlib.Path(__file__).resolve().parent / "results"
sys.path[:0] = [str(ROOT), str(ROOT / "tools/dev/setup")]

import interpreter

from tools.common import mpy

MINUTES = 20
CASES = {
    "no NAT, nothing sent": {},
    "behind a NAT, nothing sent": {"nat": True},
    "behind a NAT, keepalive_ms 0": {"nat": True, "keepalive_ms": 0},
    "one reading a minute, answered": {"every": 60000},
    "one reading a minute, no answer": {"every": 60000, "echo": False},
    "ten readings a minute, answered": {"every": 6000},
}
COLUMNS = ("case", "wakeups", "octets", "datagrams_out", "datagrams_in")

PROGRAM = """
import asyncio, gc, json, sys
from tools.dev.sim.virtual import Net, Time, profile, run
from minipsec.tunnel import Tunnel

case = json.loads(sys.argv[1])
minutes = int(sys.argv[2])
every = case.pop("every", 0)
net = Net()
gateway = net.gateway()
gateway.behind_nat = case.pop("nat", False)
gateway.echo = case.pop("echo", True)
gateway.note = lambda what: None

class Keeps(list):
    def append(self, reading):
        pass

gateway.readings = Keeps()
world = 0  # octets that the made-up network and gateway took

def accounted(call):
    def counted(*arguments):
        global world
        before = gc.mem_alloc()
        result = call(*arguments)
        world += gc.mem_alloc() - before
        return result
    return counted

gateway.receive = accounted(gateway.receive)
net.carry = accounted(net.carry)
net.answer = accounted(net.answer)

async def main():
    global world
    tunnel = Tunnel(profile(**case))
    await tunnel.connect()
    await asyncio.sleep_ms(60000)
    gc.collect()
    gc.disable()
    world = 0
    counters = dict(tunnel.counters)
    leaps, octets = Time.leaps, gc.mem_alloc()
    end = Time.now + 60000 * minutes
    while Time.now < end:
        if every:
            await tunnel.send(b"a reading of thirty-two octets !")
            await asyncio.sleep_ms(every)
            await tunnel.receive(0)
        else:
            await asyncio.sleep_ms(end - Time.now)
    octets = gc.mem_alloc() - octets - world
    gone = {key: tunnel.counters[key] - counters[key] for key in counters}
    # Each datagram's arrival at the gateway is a leap of the world's, not of the sensor's.
    wakeups = Time.leaps - leaps - gone["datagrams_out"]
    print(wakeups, octets, gone["datagrams_out"], gone["datagrams_in"])

run(main())
"""


def measure(case, directory, minutes=MINUTES):
    """Return {column: what one minute took} of a case; `directory` holds the `.mpy` files."""
    program = directory / "idle_program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [interpreter.require_micropython(), "-X", "heapsize=8m", str(program),
         json.dumps(CASES[case]), str(minutes)],
        check=False,
        env={**os.environ, "MICROPYPATH": f"{directory}:{ROOT}:.frozen"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode or done.stderr:
        raise SystemExit(f"bench: {case}: {done.stdout}{done.stderr}")
    values = [int(word) / minutes for word in done.stdout.split()]
    return dict(zip(COLUMNS, (case, *values), strict=True))


def table(rows):
    text = "| a minute awake | wake-ups | octets of heap | datagrams out | in |\n"
    text += "| --- | ---: | ---: | ---: | ---: |\n"
    for row in rows:
        text += "| {case} | {wakeups:.1f} | {octets:.0f} | {datagrams_out:.1f} | {datagrams_in:.1f} |\n".format_map(row)  # fmt: skip
    return text


def main():
    with tempfile.TemporaryDirectory() as directory:
        mpy.stage(pathlib.Path(directory))
        rows = [measure(case, pathlib.Path(directory)) for case in CASES]
    RESULTS.mkdir(parents=True, exist_ok=True)
    with open(RESULTS / "idle.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: v if k == "case" else round(v, 1) for k, v in row.items()} for row in rows)  # fmt: skip
    text = (
        "# What a minute awake costs\n\n"
        "Made by `make bench-idle`, on the 64-bit unix port, where objects are twice a board's;\n"
        "keys not named have their defaults.\n\n"
    ) + table(rows)
    (RESULTS / "idle.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
