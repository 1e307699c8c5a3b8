"""How much heap an exchange with 45 fragments each way takes, on MicroPython's unix port.

The firmware's IKE SA runs as on a board, from `.mpy` files and with AES-CCM; the peer's
datagrams lie in a file that was made beforehand, so that they cost it nothing. Two figures:
what is live between two datagrams at the most, and by how much the heap must be larger than
for the imports alone until the run passes, which has what a single call needs on top in it.
"""

import os
import pathlib
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
for _place in (ROOT / "tools/dev/shims", ROOT / "firmware", ROOT):
    if str(_place) not in sys.path:
        sys.path.insert(0, str(_place))

SIZE = 200
PIECE = SIZE - 28 - 4 - 36 - 25
KEYS = bytes(range(19)), bytes(range(40, 59))

PROBE = """
import gc, struct, sys
from minipsec.ike import fragack, fragment
from minipsec.crypto.ccm import CCM
from minipsec.ike.sa import IkeSa

PROFILE = {profile!r}


class Sensor(IkeSa):
    def handle(self, name, payloads, now):
        getattr(self, name)(payloads, now)

    def done(self, payloads, now):
        self.answer_came(now)
        self.octets = len(payloads[0][2])


def run(path, body):
    sa = Sensor(PROFILE, lambda n: bytes(range(1, n + 1)))
    sa.table = {{(2, 43, True): "done"}}
    sa.state = 2
    sa.spi_r = bytes(range(101, 109))
    sa.fragmentation = True
    sa.rtt = 100
    sa.room = PROFILE["fragment_size"] - 28
    sa.use(CCM({keys!r}[0], 16), CCM({keys!r}[1], 16))
    sa.acks = True
    gc.collect()
    base = gc.mem_alloc()
    peak = sent = now = 0
    sa.ask(43, [(43, body)], now)
    body = None
    with open(path, "rb") as file:
        while True:
            while sa.poll_out():
                sent += 1
            gc.collect()
            peak = max(peak, gc.mem_alloc() - base)
            head = file.read(4)
            if not head:
                break
            pause, size = struct.unpack(">HH", head)
            now += pause
            sa.timer(now)
            while sa.poll_out():
                sent += 1
            if size:
                sa.receive(file.read(size), now)
    print(sa.octets, sent, peak)


if len(sys.argv) > 1:
    run(sys.argv[1], bytes({octets}))
"""


def script(fragments):
    """The peer's datagrams as [(pause in ms, octets)]; an empty one only lets time pass."""
    from tools.dev.peers.bench import Bench
    from minipsec.crypto.ccm import CCM

    bench = Bench(
        ciphers=((CCM(KEYS[0], 16), CCM(KEYS[1], 16)), (CCM(KEYS[0], 16), CCM(KEYS[1], 16)))
    )
    body = bytes(fragments * PIECE - 4)
    response = bench.fragments([(43, body)], fragments, exchange=43)
    # The peer lacks every second fragment, then so do we, and lastly both get them.
    every_second = [(n, n) for n in range(2, fragments + 1, 2)]
    steps = [(150, bench.ack(*every_second, exchange=43))]
    steps += [(2, fragment) for fragment in response[::2]]
    steps.append((100, b""))
    steps += [(2, fragment) for fragment in response[1::2]]
    return steps


def measure(fragments=45):
    """Return {"live", "heap", "imports"}: octets."""
    from tools.dev.peers.bench import PROFILE
    from tools.common import mpy
    from tools.dev.setup.interpreter import require_micropython

    interpreter = require_micropython()
    with tempfile.TemporaryDirectory(prefix="minipsec-heap-") as temporary:
        directory = pathlib.Path(temporary)
        mpy.stage(directory)
        octets = fragments * PIECE - 4
        program = directory / "probe.py"
        program.write_text(PROBE.format(profile=PROFILE, keys=KEYS, octets=octets))
        with open(directory / "peer", "wb") as file:
            for pause, datagram in script(fragments):
                file.write(struct.pack(">HH", pause, len(datagram)) + datagram)

        def run(heap, *arguments):
            return subprocess.run(
                [interpreter, "-X", f"heapsize={heap}", str(program), *arguments],
                check=False, capture_output=True, text=True,
                env={**os.environ, "MICROPYPATH": f"{directory}:.frozen"},
            )  # fmt: skip

        done = run("4m", str(directory / "peer"))
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        got, sent, live = map(int, done.stdout.split())
        # 45 of the request, half of them again, and two copies of one question in two parts.
        assert got == octets and sent >= fragments + fragments // 2 + 2, done.stdout
        return {
            "live": live,
            "imports": least(run),
            "heap": least(run, str(directory / "peer")),
        }


def least(run, *arguments, step=512):
    """The smallest heap, to 512 octets, with which the program runs to its end."""
    low, high = 0, 2048
    while high - low > 1:
        middle = (low + high) // 2
        if run(middle * step, *arguments).returncode == 0:
            high = middle
        else:
            low = middle
    return high * step


def report():
    """Markdown: one paragraph."""
    found = measure()
    return (
        f"45 fragments each way in IP datagrams of {SIZE} octets, 4,815 octets of payload each "
        f"way, half of them asked for again both ways: at most {found['live']:,} octets are live "
        f"between two datagrams, and the heap must be {found['heap'] - found['imports']:,} octets "
        "larger than for the imports alone. Measured on the 64-bit unix port from `.mpy` files, "
        "where an object takes twice a board's room and a buffer the same.\n"
    )


if __name__ == "__main__":
    print(report())
