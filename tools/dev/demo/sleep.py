"""`make demo SLEEP=1`: a sensor that sleeps between its readings, with one SA for all of them.

The end of the process stands for deep sleep; what an ESP32 keeps in RTC memory lies in two files.
"""

import contextlib
import pathlib
import tempfile
import time

from rich.markup import escape

from tools.common import mpy
from tools.dev.demo.story import GATEWAYS, HEADERS, HEAP, DemoError, console, fact, wait
from tools.dev.setup import interpreter

ASLEEP_S = 1.0
_TIMEOUT = 20


def started(sensor, begin):
    """Call `begin`; return the milliseconds until the sensor said that its reading is out."""
    began = time.perf_counter()
    begin()
    end = began + _TIMEOUT
    while not sensor().all("sent"):
        if time.perf_counter() > end or sensor().returncode:
            wait(sensor(), "sent", 1)
        time.sleep(0.001)
    return (time.perf_counter() - began) * 1000


def on_the_air(stats):
    """(datagrams, octets) of a time awake, both ways, IP headers included."""
    datagrams = stats["datagrams_out"] + stats["datagrams_in"]
    return datagrams, stats["octets_out"] + stats["octets_in"] + datagrams * HEADERS


def tell(what, sn, ms, datagrams, octets):
    console.print(
        f"  {what:<22} SN {sn:<8} {ms:>5.0f} ms from boot to the reading sent, "
        f"{datagrams:>2} datagrams, {octets:>5} octets on the air"
    )


def finish(sensor):
    if sensor.wait(_TIMEOUT):
        raise DemoError(f"the sensor ended badly:\n{sensor.output}")
    sent = wait(sensor, "sent")
    if wait(sensor, "reply")["data"] != sent["data"]:
        raise DemoError("the echo is another one")
    return sent, sensor.first("stats")


def run(options):
    with contextlib.ExitStack() as stack:
        firmware = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mpy.stage(firmware)
        path = interpreter.require_micropython()
        gateway = GATEWAYS[options.gateway](stack, options)
        console.print("[bold]minipsec[/bold]: a sensor that sleeps between its readings")
        fact("gateway", gateway.title)
        fact("sensor", f"MicroPython {interpreter.version(path)}, heap {HEAP}")
        profile = {
            "sleep": "clock",
            "interval_ms": int(ASLEEP_S * 1000),
            # Without the 8 octets of IV, where the gateway knows how.
            "esp": ["aes128ccm8iiv", "aes128ccm8"],
            "retries": 0,
            **gateway.profile,
        }
        made = []
        ms = started(
            lambda: made[0], lambda: made.append(gateway.start(profile, 1, firmware, HEAP))
        )
        sensor = made[0]
        sent, stats = finish(sensor)
        up = sensor.first("up")
        fact("agreed for ESP", sensor.first("agreed")["esp"])
        fact("inner address", up["inner"])
        console.print("\n[bold]Its wake-ups[/bold], each a process of its own")
        datagrams, octets = on_the_air(stats)
        tell("new handshake", sent["sn"], ms, datagrams, octets)
        arrived = [sent["data"].encode()]
        shown = []
        for wake in range(1, options.readings):
            time.sleep(ASLEEP_S)
            ms = started(lambda: sensor, lambda: sensor.start(1))
            sent, stats = finish(sensor)
            if not sensor.all("resumed") or sensor.all("up"):
                raise DemoError(f"wake-up {wake} made a new SA:\n{sensor.output}")
            arrived.append(sent["data"].encode())
            shown.append(on_the_air(stats))
            tell(f"wake-up {wake}", sent["sn"], ms, *shown[-1])
        for n, data in enumerate(arrived, start=1):
            if gateway.reading(n) != data:
                raise DemoError(f"reading {n} arrived as {gateway.reading(n)!r}")
        console.print(f"\n[bold]The readings[/bold], {gateway.saw}")
        for data in arrived:
            console.print(f"  [green]{escape(data.decode())}[/green]")
        console.print("\n[bold]The end[/bold]")
        fact("IKE messages", f"{up['datagrams_out'] + up['datagrams_in']} for the first reading, "
             "none for the others")  # fmt: skip
        if shown:
            fact("a wake-up's share", f"{shown[-1][1] * 100 / octets:.0f} % of the octets of a "
                 "handshake with its reading, the echo included")  # fmt: skip
        files = sorted((file.stat().st_size, file.name) for file in sensor.directory.glob("sa.*"))
        kept = ", ".join(f"{size} octets in {name}" for size, name in files)
        fact("kept over a sleep", f"{kept}; on an ESP32 in RTC memory, without a write to flash")
        for title, text in gateway.close():
            fact(title, text)
