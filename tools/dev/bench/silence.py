"""`make bench-silence`: readings that are lost when a gateway forgets its SAs, as at a restart.

The sensor of firmware/ on MicroPython's unix port with its default profile, and the development
gateway, which is killed and starts anew on the same ports. A line a case: how many readings went into the
silence, and how many of them the sensor itself counted as `unconfirmed`. A sensor that sleeps
wakes up once for each reading; one that is awake sends one a second, in real time.
"""

import json
import multiprocessing
import pathlib
import queue
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/dev/setup")]

from tools.dev.lab import Sensor  # noqa: E402
from tools.devgateway import RunningGateway  # noqa: E402

SECRETS = {"psk": "silence"}
BEFORE = 3  # readings that arrive before the gateway starts anew
AWAKE = 180  # readings of a sensor that is awake, a second each
CASES = {
    "asleep, the server answers": (True, True),
    "asleep, the server never answers": (True, False),
    "awake, the server answers": (False, True),
    "awake, the server never answers": (False, False),
}


def serve(pipe, echo):
    """A gateway that says where it is and when readings came, and then waits to be killed."""
    with RunningGateway({"any": SECRETS["psk"]}, echo=echo) as gateway:
        pipe.send({"port": gateway.port, "natt_port": gateway.natt_port})
        while True:
            gateway.reading(timeout=None)
            pipe.send("reading")


class Doomed:
    """A gateway in a process of its own: it ends without a word to anybody."""

    def __init__(self, echo):
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=serve, args=(end, echo), daemon=True)
        self._process.start()
        self.ports = self._pipe.recv()

    def reading(self):
        """Wait for one."""
        self._pipe.recv()

    def kill(self):
        self._process.kill()
        self._process.join()


def arrived(gateway):
    """Return how many readings came out of the tunnel since the last look."""
    count = 0
    while True:
        try:
            gateway.reading(timeout=0.2)
        except queue.Empty:
            return count
        count += 1


def counted(sensor, key):
    return sum(stats.get(key, 0) for stats in sensor.all("stats"))


def profile(ports, **more):
    return {"gateway": "127.0.0.1", **ports, **more}


def asleep(echo):
    """Return (lost, unconfirmed) of a sensor that sleeps, at the worst moment."""
    first = Doomed(echo)
    sensor = Sensor(profile(first.ports, sleep="mark"), SECRETS, 1)
    sensor.wait()
    first.kill()
    wakes = unconfirmed = 0
    with RunningGateway({"any": SECRETS["psk"]}, echo=echo, **first.ports) as gateway:
        while not arrived(gateway):
            wakes += 1
            sensor.start(1)
            sensor.wait()
            unconfirmed += counted(sensor, "unconfirmed")
    sensor.stop()
    return wakes - 1, unconfirmed


def awake(echo):
    """Return (lost, unconfirmed) of a sensor that is awake."""
    first = Doomed(echo)
    sensor = Sensor(profile(first.ports, interval_ms=1000), SECRETS, AWAKE)
    for _ in range(BEFORE):
        first.reading()
    first.kill()
    with RunningGateway({"any": SECRETS["psk"]}, echo=echo, **first.ports) as gateway:
        sensor.wait(3 * AWAKE)
        lost = AWAKE - BEFORE - arrived(gateway)
    unconfirmed = counted(sensor, "unconfirmed")
    sensor.stop()
    return lost, unconfirmed


def main():
    for name, (sleeps, echo) in CASES.items():
        lost, unconfirmed = (asleep if sleeps else awake)(echo)
        print(json.dumps({"case": name, "lost": lost, "unconfirmed": unconfirmed}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
