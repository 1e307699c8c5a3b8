"""`make bench-esp`: what a reading costs on the wire and on the processor, beside DTLS and TLS.

One run of MicroPython's unix port seals and sends payloads of five sizes: our ESP in tunnel and
transport mode, with explicit and implicit IV, and MicroPython's own `ssl` (mbedTLS, in C) as DTLS
1.2 and TLS 1.2 against `openssl s_server` on loopback, each with a pre-shared key. README.md
beside this file says how to read the results. ROUNDS=50 is a quick pass; it prints the table and
leaves the kept results alone.
"""

import contextlib
import json
import os
import pathlib
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
RESULTS = pathlib.Path(__file__).resolve().parent / "results"
for _place in (ROOT / "tools/dev/shims", ROOT / "firmware", ROOT):
    if str(_place) not in sys.path:
        sys.path.insert(0, str(_place))

from tools.common import mpy
from tools.dev import pins
from tools.dev.setup import debian
from tools.dev.setup.interpreter import require_micropython

SIZES = (8, 32, 128, 512, 1200)
OURS = ("tunnel", "tunnel implicit IV", "transport", "transport implicit IV")
THEIRS = ("DTLS 1.2", "TLS 1.2")
ROUNDS = 1500
QUICK = 500
WAKES = 30
PSK = bytes(range(16)).hex()
HOST = "127.0.0.1"

IP, UDP = 20, 8
TCP = 20 + 12  # with timestamps, as Linux and lwIP have them


class Relay:
    """Passes datagrams or a stream on to a server and notes the sizes of what went through.

    `deaf` datagrams are no longer read, and are lost in a full queue: the sender pays the same for
    each of them, and never for waking a reader.
    """

    def __init__(self, target, stream):
        self.sizes = []  # of what the client sent
        self.back = []  # of what it got
        self.deaf = threading.Event()
        kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        self._front = socket.socket(socket.AF_INET, kind)
        self._front.bind((HOST, 0))
        self.port = self._front.getsockname()[1]
        self._back = socket.socket(socket.AF_INET, kind)
        self._target = (HOST, target)
        self._stream = stream
        self._client = None
        if stream:
            self._front.listen(1)
        else:
            self._front.settimeout(0.05)
            self._back.connect(self._target)
            self._start(self._down)
        self._start(self._up)

    def _start(self, work):
        threading.Thread(target=self._quietly, args=(work,), daemon=True).start()

    @staticmethod
    def _quietly(work):
        with contextlib.suppress(OSError):
            work()

    def _up(self):
        if self._stream:
            self._client, _ = self._front.accept()
            self._back.connect(self._target)
            self._start(self._down)
        while self._stream or not self.deaf.is_set():
            try:
                if self._stream:
                    data = self._client.recv(65536)
                else:
                    data, self._client = self._front.recvfrom(65536)
            except TimeoutError:
                continue
            if not data:
                return
            if not self.deaf.is_set():
                self.sizes.append(len(data))
                self._back.send(data)

    def _down(self):
        while True:
            data = self._back.recv(65536)
            if not data:
                return
            self.back.append(len(data))
            if self._stream:
                self._client.sendall(data)
            elif self._client:
                self._front.sendto(data, self._client)

    def close(self):
        for end in (self._front, self._back, self._client):
            if isinstance(end, socket.socket):
                end.close()


def require_openssl():
    """Install the `openssl` command or end with one line that says how."""
    try:
        debian.ensure({"openssl": "openssl"}, why="the DTLS server of the bench")
    except debian.Missing as problem:
        raise SystemExit(f"bench: {problem}") from None


@contextlib.contextmanager
def server(option, stream):
    """`openssl s_server` behind a Relay."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as s:
        s.bind((HOST, 0))
        port = s.getsockname()[1]
    process = subprocess.Popen(
        ["openssl", "s_server", option, "-accept", f"{HOST}:{port}", "-psk", PSK]
        + ["-psk_identity", "sensor", "-nocert", "-cipher", "PSK-AES128-GCM-SHA256", "-quiet"],
        stdin=subprocess.PIPE,  # it ends with its input
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        time.sleep(0.5)
        if process.poll() is not None:
            raise SystemExit(f"bench: openssl s_server: {process.stderr.read().decode()}")
        relay = Relay(port, stream)
        yield relay
        relay.close()
    finally:
        process.terminate()
        process.wait()


def run(firmware, rounds):
    """Measure; return {way: {"octets", "seal_us", "send_us", "allocated"}: {size: value}}."""
    client = pathlib.Path(__file__).with_name("esp_client.py")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        server("-dtls1_2", False) as dtls,
        server("-tls1_2", True) as stream,
    ):
        sink.bind((HOST, 0))
        command = [require_micropython(), "-X", "heapsize=2m", client, rounds]
        command += [sink.getsockname()[1], dtls.port, stream.port]
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, "MICROPYPATH": f"{firmware}:.frozen"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"bench: {process.communicate()[0]}")
        dtls.deaf.set()
        stream.deaf.set()
        records = {"DTLS 1.2": dtls.sizes[:], "TLS 1.2": stream.sizes[:]}
        time.sleep(0.2)
        said = process.communicate("\n")[0]
        if process.returncode:
            raise SystemExit(f"bench: {said}")
        found = json.loads(said)
    ways = {}
    syscall = found["plain UDP"]["us"]
    for name in (*OURS, *THEIRS):
        raw = found[name]
        row = ways[name] = {"octets": {}, "seal_us": {}, "send_us": {}, "allocated": {}}
        for at, size in enumerate(SIZES):
            row["send_us"][size] = round(raw["us"][f"send {size}"], 2)
            seal = raw["us"].get(f"seal {size}")
            if seal is None:
                seal = raw["us"][f"send {size}"] - syscall[f"send {size}"]
            if name != "TLS 1.2":  # TCP puts several writes into one segment: no difference
                row["seal_us"][size] = round(seal, 2)
            row["allocated"][size] = raw["allocated"][str(size)]
            if name in OURS:
                row["octets"][size] = IP + UDP + raw["octets"][str(size)]
            else:
                # The client's last records came one by one.
                record = records[name][at - len(SIZES)]
                row["octets"][size] = IP + (UDP if name == "DTLS 1.2" else TCP) + record
    ways["plain UDP"] = {
        "octets": {size: IP + UDP + size for size in SIZES},
        "send_us": {size: round(syscall[f"send {size}"], 2) for size in SIZES},
    }
    return ways, found["interpreter"], found["ssl"]


def children_ms():
    """CPU time of all processes that were waited for, in milliseconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1000


def wake_ups(firmware, count):
    """CPU time and octets of a wake-up beside those of a handshake, on loopback.

    Returns {"handshake", "wake_up", "process": {"cpu_ms": median, "octets"}}: each the whole life of
    a process, with one reading and its echo; `process` does nothing. Octets are IP datagrams both
    ways until the reading is out.
    """
    from tools.dev.lab import Sensor
    from tools.devgateway import RunningGateway

    interpreter = require_micropython()  # which tries it out
    times = {"handshake": [], "wake_up": [], "process": []}
    with RunningGateway({"any": "bench"}, esp=("aes128ccm8iiv",), echo=True) as gateway:
        sensor = Sensor(
            {
                "gateway": HOST,
                "port": gateway.port,
                "natt_port": gateway.natt_port,
                "sleep": "clock",
                "esp": ["aes128ccm8iiv"],
                "retries": 0,
            },
            {"psk": "bench"},
            1,
            firmware=firmware,
        )

        def life(what, event):
            sensor.wait()
            began = children_ms()
            sensor.start(1)
            if sensor.wait() or not sensor.all(event):
                raise SystemExit(f"bench: no {event}: {sensor.output}")
            times[what].append(children_ms() - began)

        try:
            for _ in range(count):
                sensor.wait()
                for file in sensor.directory.glob("sa.*"):
                    file.unlink()
                life("handshake", "up")
                up = sensor.first("up")
                life("wake_up", "resumed")
                began = children_ms()
                subprocess.run([interpreter, "-c", "pass"], check=True)
                times["process"].append(children_ms() - began)
        finally:
            sensor.stop()
    datagrams = up["datagrams_out"] + up["datagrams_in"]
    handshake = up["octets_out"] + up["octets_in"] + datagrams * (IP + UDP)
    reading = sensor.first("sent")["octets"] + IP + UDP
    found = {what: {"cpu_ms": round(statistics.median(times[what]), 1)} for what in times}
    found["handshake"]["octets"] = handshake + reading
    found["wake_up"]["octets"] = reading
    found["process"]["octets"] = 0
    return found


def targets(ways):
    """Return [(target, measured, reached)]."""
    best, dtls = ways["transport implicit IV"], ways["DTLS 1.2"]
    fewer = [dtls["octets"][size] - best["octets"][size] for size in SIZES]
    write = dtls["send_us"][32]
    sealing, whole = best["seal_us"][32] / write, best["send_us"][32] / write
    most = max(value for name in OURS for value in ways[name]["allocated"].values())
    grows = any(len(set(ways[name]["allocated"].values())) > 1 for name in OURS)
    return [
        (
            "transport with implicit IV: fewer octets a reading than DTLS 1.2 at every size",
            f"{min(fewer)} to {max(fewer)} fewer",
            min(fewer) > 0,
        ),
        (
            "sealing 32 octets within 2 x DTLS's path in C, which is `ssl.write`",
            f"{sealing:.2f} x",
            sealing <= 2,
        ),
        (
            "the same with our sending, too, which `ssl.write` does as well",
            f"{whole:.2f} x",
            whole <= 2,
        ),
        ("at most 256 octets allocated a packet", f"{most:.0f}", most <= 256),
        ("no allocation that grows with the payload", "grows" if grows else "none", not grows),
    ]


def tables(result):
    """Return the Markdown of esp.md."""
    ways = result["ways"]

    def table(title, key, names, form):
        lines = [f"## {title}\n", "| | " + " | ".join(f"{size} octets" for size in SIZES) + " |"]
        lines.append("| --- |" + " ---: |" * len(SIZES))
        for name in names:
            if ways[name].get(key):
                cells = [form(ways[name][key][size]) for size in SIZES]
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    every = (*OURS, *THEIRS, "plain UDP")
    wake = result["wake_up"]
    parts = [
        "# What a reading costs\n",
        "Made by `make bench-esp`; ../esp.md says how to read it.\n",
        f"{result['interpreter']}; {result['ssl']}; {result['rounds']} rounds.\n",
        "## Targets\n",
        "| target | measured | |\n| --- | --- | --- |",
        *(
            f"| {what} | {found} | {'yes' if ok else 'no'} |"
            for what, found, ok in result["targets"]
        ),
        "",
        table("Octets on the wire, IP header included", "octets", every, str),
        table("Microseconds to seal", "seal_us", (*OURS, *THEIRS), "{:.1f}".format),
        table("Microseconds to seal and send", "send_us", every, "{:.1f}".format),
        table("Octets of heap allocated", "allocated", (*OURS, *THEIRS), "{:.0f}".format),
        "## A wake-up beside a handshake\n",
        "| a process that | ms of CPU | octets on the wire |\n| --- | ---: | ---: |",
        *(
            f"| {what} | {wake[key]['cpu_ms']:.0f} | {wake[key]['octets']} |"
            for key, what in (
                ("handshake", "makes an SA and sends a reading"),
                ("wake_up", "takes up its SA and sends a reading"),
                ("process", "does nothing"),
            )
        ),
    ]
    return "\n".join(parts) + "\n"


COLOURS = dict(zip((*OURS, *THEIRS), ("C0", "C9", "C2", "C8", "C3", "C1")))


def plot(ways, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.8))
    for name in (*OURS, *THEIRS):
        extra = [ways[name]["octets"][size] - size for size in SIZES]
        left.plot(range(len(SIZES)), extra, marker="o", label=name, color=COLOURS[name])
        times = [ways[name]["send_us"][size] for size in SIZES]
        right.plot(range(len(SIZES)), times, marker="o", label=name, color=COLOURS[name])
    left.set_title("octets on the wire beyond the payload", fontsize=9)
    right.set_title("microseconds to seal and send, unix port", fontsize=9)
    for panel in (left, right):
        panel.set_xticks(range(len(SIZES)), SIZES)
        panel.set_xlabel("payload, octets", fontsize=8)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=8)
    left.legend(fontsize=7, ncol=2, loc="lower left")
    figure.tight_layout()
    # No date and no version inside: the same results make the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def show(result, directory):
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(tables(result)))
    print(f"results in {directory}")


def main():
    rounds = int(os.environ.get("ROUNDS") or ROUNDS)
    quick = rounds < QUICK
    directory = ROOT / "build/bench" if quick else RESULTS
    directory.mkdir(parents=True, exist_ok=True)
    pins.require("bench", "matplotlib")
    require_openssl()
    with tempfile.TemporaryDirectory() as temporary:
        firmware = pathlib.Path(temporary)
        mpy.stage(firmware)
        ways, interpreter, ssl = run(firmware, rounds)
        wake = wake_ups(firmware, 5 if quick else WAKES)
    result = {
        "interpreter": "MicroPython " + interpreter.split("MicroPython ")[-1],
        "ssl": ssl,
        "machine": platform.machine(),
        "rounds": rounds,
        "sizes": SIZES,
        "ways": ways,
        "wake_up": wake,
        "targets": targets(ways),
    }
    (directory / "esp.json").write_text(json.dumps(result, indent=1) + "\n")
    (directory / "esp.md").write_text(tables(result))
    plot(ways, directory / "esp.png")
    show(result, directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
