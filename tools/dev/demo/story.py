"""`make demo`: one sensor, one gateway, some readings, told so that a person can follow.

The sensor is firmware/ on MicroPython's unix port, compiled as for a board. The
gateway is the development gateway on loopback, or, with `--gateway strongswan`,
strongSwan in a network namespace with a plain UDP server behind it.
"""

import contextlib
import json
import os
import pathlib
import re
import secrets
import sys
import tempfile

from rich.console import Console
from rich.markup import escape

from tools.dev.lab import GATEWAY_ID, SENSOR_ID, Lab, LabError, Process, Sensor
from tools.common import mpy
from tools.dev.setup import interpreter

ROOT = pathlib.Path(__file__).resolve().parents[3]
HEAP = "192k"  # with room for ML-KEM-768 (make bench-heap), and for what keeps an SA over a sleep
HEADERS = 28  # IPv4 and UDP, around each datagram
_TIMEOUT = 20

console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """The demo did not come to its end; the text says at which step and why."""


class DevelopmentGateway:
    """tools/devgateway as a process of its own on loopback."""

    title = "development gateway (tools/devgateway) on loopback"
    saw = "as the gateway decrypted it"

    def __init__(self, stack, options, more=()):
        self._stack = stack
        self.psk = "0x" + secrets.token_hex(32)
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = directory / "psk.json"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            json.dump({SENSOR_ID: self.psk}, file)
        command = [sys.executable, "-m", "tools", "devgateway", "--json", "--secrets", path]
        command += ["--id", GATEWAY_ID, "--bind", "127.0.0.1", "--port", "0", "--natt-port", "0"]
        command += more
        self._process = Process(command, cwd=ROOT, split=True)
        stack.callback(self._process.stop)
        ready = self._wait("ready", 1)
        self.profile = {
            "gateway": "127.0.0.1",
            "port": ready["port"],
            "natt_port": ready["natt_port"],
        }

    def _events(self, name):
        return [event for event in self._process.events if event["event"] == name]

    def _wait(self, name, count):
        self._process.wait_line(
            lambda _: len(self._events(name)) >= count, _TIMEOUT, f"{name} from the gateway"
        )
        return self._events(name)[count - 1]

    def start(self, profile, readings, firmware, heap=HEAP):
        sensor = Sensor(profile, {"psk": self.psk}, readings, heap=heap, firmware=firmware)
        self._stack.callback(sensor.stop)
        return sensor

    def reading(self, n):
        """The n-th reading as it came out of the tunnel."""
        return bytes.fromhex(self._wait("reading", n)["hex"])

    def arrived(self):
        """How many readings came out of the tunnel so far."""
        return len(self._events("reading"))

    def facts(self):
        """Pairs (title, text): what this side says of the sensor."""
        sa = self._wait("ike_sa", 1)
        child = self._wait("child_sa", 1)
        return [("the gateway's words", f"{sa['id']} is {child['inner']}, {sa['proposal']}")]

    def close(self):
        """Stop it; return the pairs (title, text) that it says at the end."""
        self._process.stop()
        (stats,) = self._events("stats")
        return [("dropped by the gateway", dropped(stats["drops"]))]


class StrongSwan:
    """A real charon in a namespace; a plain UDP echo server stands behind it."""

    title = "strongSwan (charon) in a network namespace, tools/gateway/swanctl.conf"
    saw = "as the UDP server behind the gateway saw it"

    def __init__(self, stack, options):
        from tools.dev.setup import gateway

        why = gateway.lacking()
        if why:
            raise DemoError(why)
        self.psk = "0x" + secrets.token_hex(32)
        self._lab = stack.enter_context(Lab())
        self._charon = self._lab.charon(secrets={SENSOR_ID: self.psk})
        self._echo = self._lab.echo()
        self.profile = {}

    def start(self, profile, readings, firmware, heap=HEAP):
        return self._lab.sensor(profile, {"psk": self.psk}, readings, heap=heap, firmware=firmware)

    def reading(self, n):
        return self._echo.received(n, _TIMEOUT)[n - 1]["data"]

    def facts(self):
        said = self._charon.log()
        address = re.search(r"assigning virtual IP (\S+) to peer '(.+)'", said)
        chosen = re.findall(r"selected proposal: (.+)", said)
        return [("charon's words", f"{address[2]} is {address[1]}, {', '.join(chosen)}")]

    def close(self):
        return []


GATEWAYS = {"development": DevelopmentGateway, "strongswan": StrongSwan}


def wait(sensor, event, timeout=_TIMEOUT, **options):
    """Wait for a line of the sensor's; an error of the sensor's ends the demo."""
    try:
        return sensor.wait_for(event, timeout, **options)
    except LabError:
        for line in sensor.all("error"):
            notify = f" ({line['notify']})" if line["notify"] else ""
            raise DemoError(
                f"the sensor: {line['error']}{notify}: {line['text']}\n  check {line['check']}"
            ) from None
        raise


def dropped(drops):
    return ", ".join(f"{name} {n}" for name, n in drops.items()) or "no datagram"


def fact(title, text):
    console.print(f"  [dim]{title:<24}[/dim]{escape(str(text))}")


def tell_handshake(up, agreed, gateway):
    console.print("\n[bold]The tunnel[/bold]")
    fact("agreed for IKE", agreed["ike"])
    fact("agreed for ESP", agreed["esp"])
    fact("IKE SPIs", f"{up['spi_i']} (sensor)  {up['spi_r']} (gateway)")
    fact("ESP SPIs", f"{up['spi_out']} (to the gateway)  {up['spi_in']} (to the sensor)")
    fact("inner address", up["inner"])
    for title, text in gateway.facts():
        fact(title, text)
    fact(
        "what it cost",
        f"{up['datagrams_out']} datagrams of {on_the_air(up, 'out')} octets on the air out, "
        f"{up['datagrams_in']} of {on_the_air(up, 'in')} in, {up['ms']} ms",
    )


def on_the_air(counters, way):
    """Octets of all datagrams one way, IP headers included, out of a sensor's counters."""
    return counters[f"octets_{way}"] + counters[f"datagrams_{way}"] * HEADERS


def tell_readings(sensor, gateway, count):
    """Print a line a reading; what one side sent must be what the other side got."""
    console.print(f"\n[bold]The readings[/bold], each {gateway.saw}")
    for n in range(1, count + 1):
        sent = wait(sensor, "sent", count=n)
        arrived = gateway.reading(n)
        if arrived != sent["data"].encode():
            raise DemoError(f"reading {n}: sent {sent['data']!r}, arrived {arrived!r}")
        reply = wait(sensor, "reply", count=n)
        if reply["data"] != sent["data"]:
            raise DemoError(f"reading {n}: the echo says {reply['data']!r}")
        console.print(
            f"  {n:>4}  SN {sent['sn']:<6} {sent['octets'] + HEADERS:>4} octets on the air  "
            f"[green]{escape(arrived.decode())}[/green]  echo opened by the sensor"
        )


def run(options):
    with contextlib.ExitStack() as stack:
        firmware = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sizes = mpy.stage(firmware)
        path = interpreter.require_micropython()
        gateway = GATEWAYS[options.gateway](stack, options)
        console.print("[bold]minipsec[/bold]: readings from a sensor through its gateway")
        fact("gateway", gateway.title)
        fact(
            "sensor",
            f"MicroPython {interpreter.version(path)}, heap {HEAP}, "
            f"{sum(sizes.values())} octets of .mpy as for a board",
        )
        profile = {"interval_ms": 100, "retries": 0, **gateway.profile}
        sensor = gateway.start(profile, options.readings, firmware)
        up = wait(sensor, "up")
        tell_handshake(up, sensor.first("agreed"), gateway)
        tell_readings(sensor, gateway, options.readings)
        code = sensor.wait(_TIMEOUT)
        if code:
            raise DemoError(f"the sensor ended with {code}:\n{sensor.output}")
        stats = sensor.first("stats")
        console.print("\n[bold]The end[/bold]: the sensor deleted its SA")
        fact("octets on the air", f"{on_the_air(stats, 'out')} out, {on_the_air(stats, 'in')} in")
        fact("dropped by the sensor", dropped(stats["drops"]))
        for title, text in gateway.close():
            fact(title, text)
