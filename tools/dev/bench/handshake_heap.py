"""`make bench-heap`: the smallest heap with which a sensor comes up and sends its readings.

A whole sensor, firmware/main.py and .mpy files as on a board, on MicroPython's unix port against
the development gateway on loopback; the heap is found by bisection. How a heap is cut up differs
from run to run, so a size counts when two larger ones pass as well; figures still vary by a few
KiB. Objects of the unix port are twice a board's, but a board has the machine code of ML-KEM on
its heap, 12 KiB of it on an RP2040, and the unix port has it elsewhere.

A second table is of ML-KEM alone: what its two steps allocate with nothing collected in between,
so more than is live at any time.
"""

import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
for _place in (ROOT / "tools/dev/shims", ROOT / "firmware", ROOT):
    if str(_place) not in sys.path:
        sys.path.insert(0, str(_place))

from tools.dev.lab import LabError, Sensor
from tools.common import mpy
from tools.devgateway import RunningGateway
from tools.dev.setup.interpreter import require_micropython

PSK = "a pre-shared key"
PPK = "0x" + "ab" * 32
LOW, HIGH = 64, 512  # KiB
READINGS = 3

ROWS = {
    "X25519": {},
    "X25519, PPK": {"ppk_id": "ppk-1"},
    "X25519, ML-KEM-512": {"pq": "require", "pq_method": "mlkem512"},
    "X25519, ML-KEM-768": {"pq": "require"},
    "X25519, ML-KEM-768, PPK": {"pq": "require", "ppk_id": "ppk-1"},
    "X25519, ML-KEM-1024": {"pq": "require", "pq_method": "mlkem1024"},
    "ML-KEM-512 alone": {"ike": ["aes128ccm16-prfsha256-mlkem512"], "fragment_size": 1280},
}


def comes_up(gateway, firmware, kib, changes):
    """Does a sensor with such a heap bring up its tunnel, send its readings and end well?"""
    profile = {
        "gateway": "127.0.0.1",
        "port": gateway.port,
        "natt_port": gateway.natt_port,
        "retries": 0,
        "interval_ms": 10,
        **changes,
    }
    secrets = {"psk": PSK, **({"ppk": PPK} if "ppk_id" in changes else {})}
    sensor = Sensor(profile, secrets, READINGS, heap=f"{kib}k", firmware=firmware)
    try:
        return sensor.wait(6) == 0 and len(sensor.all("reply")) == READINGS
    except LabError:
        return False
    finally:
        sensor.stop()


def least(gateway, firmware, changes):
    """The smallest heap in KiB with which, and with a bit more, it comes up."""
    low, high = LOW, HIGH
    if not comes_up(gateway, firmware, high, changes):
        raise RuntimeError(f"not even with {high} KiB: {changes}")
    while high - low > 1:
        middle = (low + high) // 2
        if all(comes_up(gateway, firmware, middle + more, changes) for more in (0, 2, 5)):
            high = middle
        else:
            low = middle
    return high


def measure():
    """Yield (name, KiB)."""
    with (
        tempfile.TemporaryDirectory(prefix="minipsec-heap-") as directory,
        RunningGateway({"any": PSK}, ppks={b"ppk-1": bytes.fromhex("ab" * 32)}) as gateway,
    ):
        firmware = pathlib.Path(directory)
        mpy.stage(firmware)
        for name, changes in ROWS.items():
            yield name, least(gateway, firmware, changes)


STEPS = """
import gc
from minipsec.kex import mlkem

def taken(step):
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    result = step()
    after = gc.mem_alloc()
    gc.enable()
    return after - before, result

for number in (35, 36, 37):
    kem = mlkem.method(number)
    made, pair = taken(lambda: kem(lambda n: bytes(n)))
    c, _ = kem.encaps(pair.public, lambda n: bytes(n))
    opened, _ = taken(lambda: pair.shared(c))
    print(made, opened)
"""
ML_KEM = ("ML-KEM-512", "ML-KEM-768", "ML-KEM-1024")


def steps():
    """[(octets that making a key pair allocates, octets that decapsulation does)]."""
    with tempfile.TemporaryDirectory(prefix="minipsec-heap-") as directory:
        mpy.stage(pathlib.Path(directory))
        done = subprocess.run(
            [require_micropython(), "-X", "heapsize=1m", "-c", STEPS],
            check=True, env={"MICROPYPATH": f"{directory}:.frozen"}, capture_output=True,
            text=True,
        )  # fmt: skip
    return [tuple(map(int, line.split())) for line in done.stdout.splitlines()]


def module(arch):
    """Octets of .mpy that ML-KEM has on a chip."""
    with tempfile.TemporaryDirectory(prefix="minipsec-heap-") as directory:
        return sum(
            mpy.compile_file(mpy.PACKAGE / f"kex/{name}.py", pathlib.Path(directory, name), arch)
            for name in ("keccak", "mlkem")
        )


def main():
    print(f"{'ML-KEM alone':<26} {'key pair':>10} {'decapsulation':>15}")
    for name, (made, opened) in zip(ML_KEM, steps(), strict=True):
        print(f"{name:<26} {made:>10} {opened:>15}   octets of heap")
    sizes = ", ".join(f"{module(arch)} ({arch})" for arch in ("armv6m", "xtensawin", "rv32imc"))
    print(f"octets of .mpy: {sizes}\n", flush=True)
    plain = None
    print(f"{'key exchange':<26} {'heap':>8}  {'more than X25519':>16}")
    for name, kib in measure():
        plain = plain or kib
        print(f"{name:<26} {kib:>4} KiB  {kib - plain:>12} KiB", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, subprocess.SubprocessError, mpy.CompileError) as problem:
        print(f"bench-heap: {problem}", file=sys.stderr)
        sys.exit(1)
