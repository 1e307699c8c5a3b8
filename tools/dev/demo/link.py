"""`make demo PQ=1`, `LOSS=percent`, `FRAGMENT_SIZE=n`: the story in fragments, on links that lose.

PQ puts ML-KEM-768 beside X25519. The story is followed by its handshake once more, with fragment
acknowledgment and by RFC 7383 alone; with LOSS several times, with other losses each time.
"""

import contextlib
import pathlib
import secrets
import tempfile
from concurrent.futures import ThreadPoolExecutor

from tools.dev.lab import LabError, Sensor
from tools.dev.demo import story
from tools.common import mpy
from tools.devgateway import RunningGateway
from tools.dev.setup import interpreter

PQ_SIZE, SIZE = 576, 200  # octets of an IP datagram, unless FRAGMENT_SIZE says otherwise
PATTERNS = 5
HOW = {"eager": "fragments acknowledged", "off": "RFC 7383 alone"}
_PATIENCE = 31  # seconds, after which an exchange is given up by the profile's default


def size_of(options):
    """Octets of an IP datagram with a fragment."""
    return options.fragment_size or (PQ_SIZE if options.pq else SIZE)


def profile_of(options):
    """What is special about the profile."""
    pq = "require" if options.pq else "off"
    return {"pq": pq, "fragment_size": size_of(options), "interval_ms": 100, "retries": 0}


def handshake(firmware, options, how, seed):
    """One handshake: (seconds, datagrams, octets) of both ends until it was up, None if too long."""
    psk = "0x" + secrets.token_hex(32)
    settings = {"fragment_size": size_of(options), "frag_ack": how}
    settings.update(loss=options.loss, seed=seed, echo=False)  # counted is what brings it up
    with RunningGateway({"any": psk}, **settings) as gateway:
        profile = {
            **profile_of(options),
            "gateway": "127.0.0.1",
            "frag_ack": "off" if how == "off" else "02",
        }
        profile.update(port=gateway.port, natt_port=gateway.natt_port)
        sensor = Sensor(profile, {"psk": psk}, 1, heap=story.HEAP, firmware=firmware)
        try:
            up = sensor.wait_for("up", _PATIENCE)
            stats = gateway.stats()
        except LabError:
            if sensor.returncode not in (None, 1):
                raise
            return None
        finally:
            sensor.stop()
    return (
        up["ms"] / 1000,
        up["datagrams_out"] + stats["datagrams_out"],
        up["octets_out"] + stats["octets_out"],
    )


def compare(firmware, options):
    """[(acknowledged, alone)] for each pattern of losses."""
    seeds = range(1, PATTERNS + 1) if options.loss else [1]
    with ThreadPoolExecutor(len(seeds)) as pool:
        rows = [
            [pool.submit(handshake, firmware, options, how, seed) for how in HOW] for seed in seeds
        ]
        return [[future.result() for future in row] for row in rows]


def _cell(row):
    if row is None:
        return f"  over {_PATIENCE} s"
    seconds, datagrams, octets = row
    return f"{seconds:6.2f} s {datagrams:5} datagrams {octets:7,} octets"


def _median(rows):
    """The one in the middle by its time; one that took too long is slower than all others."""
    return sorted(rows, key=lambda row: (row is None, row))[len(rows) // 2]


def tell_comparison(rows, loss):
    print_line = story.console.print
    lost = f", {loss:g} % of the datagrams lost each way" if loss else ""
    print_line(f"\n[bold]That handshake again[/bold], with and without acknowledgment{lost}")
    print_line(f"  {'':<10}" + "".join(f" {title:<42}" for title in HOW.values()).rstrip())
    for n, row in enumerate(rows, 1):
        name = f"pattern {n}" if loss else ""
        print_line(f"  [dim]{name:<10}[/dim]" + "".join(f" {_cell(one):<42}" for one in row))
    if len(rows) > 1:
        cells = [_cell(_median(column)) for column in zip(*rows, strict=True)]
        print_line(f"  {'median':<10}" + "".join(f" [green]{cell:<42}[/green]" for cell in cells))
        ups = [
            f"{sum(row is not None for row in column):6} of {len(column)}"
            for column in zip(*rows, strict=True)
        ]
        print_line(f"  {'came up':<10}" + "".join(f" {up:<42}" for up in ups).rstrip())


def tell_lossy_readings(sensor, gateway, count):
    """Nobody sends a reading or its echo again: some are missing."""
    code = sensor.wait(60)
    if code:
        raise story.DemoError(f"the sensor ended with {code}:\n{sensor.output}")
    story.console.print("\n[bold]The readings[/bold], which nobody sends a second time")
    story.fact("sent", len(sensor.all("sent")))
    story.fact("arrived, was decrypted", gateway.arrived())
    story.fact("echoes that came back", len(sensor.all("reply")))


def ml_kem_octets():
    """Octets of ML-KEM's two modules as a Pico gets them; this PC's machine code is larger."""
    with tempfile.TemporaryDirectory() as directory:
        return sum(
            mpy.compile_file(mpy.PACKAGE / f"kex/{name}.py", pathlib.Path(directory, name))
            for name in ("mlkem", "keccak")
        )


def run(options):
    with contextlib.ExitStack() as stack:
        firmware = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mpy.stage(firmware)
        path = interpreter.require_micropython()
        more = ["--fragment-size", str(size_of(options)), "--frag-ack", "eager"]
        more += ["--loss", str(options.loss), "--seed", "1"]
        gateway = story.DevelopmentGateway(stack, options, more)
        kind = "a post-quantum tunnel" if options.pq else "a tunnel in fragments"
        story.console.print(f"[bold]minipsec[/bold]: {kind} for a sensor's readings")
        lost = (
            f", which loses {options.loss:g} % of the datagrams each way" if options.loss else ""
        )
        story.fact("gateway", gateway.title + lost)
        story.fact(
            "sensor",
            f"MicroPython {interpreter.version(path)}, heap {story.HEAP}, "
            f"datagrams of at most {size_of(options)} octets"
            + (
                f", ML-KEM gone once it is up ({ml_kem_octets()} octets of .mpy on a Pico)"
                if options.pq
                else ""
            ),
        )
        sensor = gateway.start(
            {**profile_of(options), **gateway.profile}, options.readings, firmware, story.HEAP
        )
        up = story.wait(sensor, "up", timeout=_PATIENCE + 5)
        story.tell_handshake(up, sensor.first("agreed"), gateway)
        if options.loss:
            tell_lossy_readings(sensor, gateway, options.readings)
        else:
            story.tell_readings(sensor, gateway, options.readings)
            sensor.wait(20)
        for title, text in gateway.close():
            story.fact(title, text)
        tell_comparison(compare(firmware, options), options.loss)
