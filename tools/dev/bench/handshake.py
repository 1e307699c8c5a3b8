"""`make bench`: handshakes, seals and sends beside DTLS on the same interpreter, as ratios.

CPU time is user and system time of the process that is measured, read from its CPU clock by this
one right before and right after: nothing that else runs on the machine counts, nor does waiting.
Ways take turns round after round, and medians count. The interpreter is MicroPython's unix port
with `firmware/` as `.mpy` files; gateway and DTLS server are other processes or threads. README.md
beside this file says how to read the results. ROUNDS=3 is a quick pass that leaves the kept results
alone; `--compare` (`make bench-compare`) measures anew and holds that against the kept results.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
RESULTS = pathlib.Path(__file__).resolve().parent / "results"
for _place in (ROOT / "tools/dev/shims", ROOT / "firmware", ROOT):
    if str(_place) not in sys.path:
        sys.path.insert(0, str(_place))

from tools.common import mpy
from tools.dev import pins
from tools.devgateway import RunningGateway
from tools.dev.setup.interpreter import require_micropython

from . import handshake_charon, handshake_compare, handshake_report
from .esp import HOST, PSK, Relay, require_openssl

ROUNDS = 15
SIZES = (8, 32, 128, 512, 1200)
FRAGMENT_SIZES = (1280, 576, 400, 300, 200)
COUNTED = 5  # handshakes whose octets are counted
TUNNELS = (1, 10, 30, 100)
AT_LEAST = 10  # handshakes that a figure of `many` is the mean of
PACKETS = 200  # in a batch: short enough to end before another process takes the core
TURNS = 4  # batches of each way in a round
ECHOES = 50
TIMEOUT_S = 60

IP_UDP = 28
DTLS_CIPHER = "TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256"
PSK_CIPHER = "TLS-PSK-WITH-AES-128-GCM-SHA256"
OPENSSL_CIPHER = "ECDHE-ECDSA-AES128-GCM-SHA256"
P256 = "aes128ccm16-prfsha256-ecp256"

# name: (profile, do modules of the handshake go and come back, as on a board?)
OURS = {
    "X25519": ({}, False),
    "P-256": ({"ike": [P256]}, False),
    "X25519, ML-KEM-768": ({"pq": "require"}, False),
    "X25519, code loaded anew": ({}, True),
    "X25519, the least octets": (
        {
            "ike": ["aes128ccm8-prfsha256-x25519"],
            "frag_ack": "off",
            "inner_address": "10.9.0.9",
            "id": "keyid:0x01",
        },
        False,
    ),
}
DTLS = "DTLS ECDHE-ECDSA"
MUTUAL = "DTLS ECDHE-ECDSA, both certified"
ISSUED = "DTLS ECDHE-ECDSA, both certified by a CA"
DTLS_PSK = "DTLS PSK, no key exchange"
THEIRS = (DTLS, MUTUAL, ISSUED, DTLS_PSK)
GROUPS = {"X25519": 31, "P-256": 19, "ML-KEM-768": 36}

# What a handshake and a first reading load, where the interpreter has it not inside.
_SESSION = "minipsec.tunnel minipsec.handshake.sa_init minipsec.handshake.auth minipsec.kex.methods minipsec.ike.established minipsec.esp.sa"
LOADS = {
    "DTLS": "socket tls",
    "X25519": f"asyncio {_SESSION}",
    "P-256": f"asyncio {_SESSION} minipsec.kex.groups",
    "X25519, ML-KEM-768": f"asyncio {_SESSION} minipsec.handshake.intermediate minipsec.kex.mlkem",
}
_LOADER = """
import sys
sys.stdin.readline()
print("ready")
sys.stdin.readline()
for name in %r.split():
    __import__(name)
print("{}")
sys.stdin.readline()
print("over")
"""


class BenchError(Exception):
    """The bench itself failed; the text says how."""


class Client:
    """MicroPython running handshake_client.py; `cpu` of each task is in seconds."""

    def __init__(self, firmware, heap="2m", program=None):
        script = pathlib.Path(__file__).with_name("handshake_client.py")
        what = ["-c", program] if program else [str(script)]
        self._process = subprocess.Popen(
            [require_micropython(), "-X", f"heapsize={heap}", *what],
            env={**os.environ, "MICROPYPATH": f"{firmware}:.frozen"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self._rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _say(self, text):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(text.encode() + b"\n")

    def _line(self):
        end = time.monotonic() + TIMEOUT_S
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise BenchError(f"no answer in {TIMEOUT_S} s: {self._rest.decode()}")
            got = self._process.stdout.read(65536)
            if not got:
                raise BenchError(self._rest.decode(errors="replace"))
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def _expect(self, word):
        line = self._line()
        if line != word:
            with contextlib.suppress(BenchError):
                while True:
                    line += "\n" + self._line()
            raise BenchError(line)

    def cpu(self):
        """CPU time since the process began, in seconds."""
        return cpu_clock(self._process.pid)

    def run(self, task, before_end=None, **options):
        """Run one task; return what it found, with "cpu" and "wall" in seconds.

        `before_end` is called when it has finished and before it tidies up; its value is "seen".
        """
        self._say(json.dumps({"do": task, **options}))
        self._expect("ready")
        began, wall = self.cpu(), time.perf_counter()
        self._say("go")
        line = self._line()
        took, wall = self.cpu() - began, time.perf_counter() - wall
        try:
            found = json.loads(line)
        except ValueError:
            self._expect(line)
            raise
        found.update(cpu=took, wall=wall, seen=before_end and before_end())
        self._say("done")
        self._expect("over")
        return found


def cpu_clock(pid):
    """User and system time of a process in seconds, by Linux's clock for it."""
    return time.clock_gettime(~pid << 3 | 2)


class Bench:
    """What one run needs: a folder with firmware, profiles and certificates, and the results."""

    def __init__(self, directory, rounds, say=lambda text: None):
        self.directory = pathlib.Path(directory)
        self.rounds = rounds
        self.say = say
        self.firmware = self.directory / "firmware"
        mpy.stage(self.firmware)
        certify(self.directory)
        self._profiles = 0

    def path(self, name):
        return str(self.directory / name)

    def profile(self, gateway, changes=None, ports=None):
        """Write a profile for a gateway; return its path. `ports` are those of relays."""
        self._profiles += 1
        port, natt_port = ports or (gateway.port, gateway.natt_port)
        values = {
            "gateway": HOST,
            "gateway_id": "gw.example.org",
            "id": f"sens{self._profiles:04}.example.org",
            "server": "10.3.0.10",
            "port": port,
            "natt_port": natt_port,
            "retries": 0,
            "liveness_ms": 0,
            "retransmit_ms": 10000,
            "fragment_gap_ms": 0,
            "log": "off",
            **(changes or {}),
        }
        path = self.directory / f"profile-{self._profiles}.json"
        path.write_text(json.dumps(values))
        secrets = self.directory / "secrets.json"
        if not secrets.exists():
            secrets.touch(0o600)
            secrets.write_text('{"psk": "bench"}')
        return str(path)

    @contextlib.contextmanager
    def gateway(self, **options):
        with RunningGateway({"any": "bench"}, **options) as gateway:
            yield gateway

    def client(self, **options):
        return Client(self.firmware, **options)

    @contextlib.contextmanager
    def dtls_server(self, name):
        """`openssl s_server` for one handshake; yields (port, options of the client's task)."""
        # Without an MTU it would cut its messages into datagrams of 228 octets.
        command = ["openssl", "s_server", "-dtls1_2", "-quiet", "-mtu", "1400"]
        task = {"cipher": PSK_CIPHER if name == DTLS_PSK else DTLS_CIPHER}
        if name == DTLS_PSK:
            command += ["-nocert", "-psk", PSK, "-psk_identity", "sensor"]
            command += ["-cipher", "PSK-AES128-GCM-SHA256"]
            task["psk"] = PSK
        else:
            issued = "issued-" if name == ISSUED else ""
            command += ["-cert", self.path(f"{issued}gateway.pem")]
            command += ["-key", self.path(f"{issued}gateway.key")]
            command += ["-cipher", OPENSSL_CIPHER, "-groups", "P-256"]
            task["ca"] = self.path("root.der" if issued else "gateway.der")
            if issued:
                command += ["-cert_chain", self.path("issuing.pem")]
            if name != DTLS:
                command += ["-Verify", "2"]
                command += ["-CAfile", self.path("cas.pem" if issued else "sensor.pem")]
                own = f"{issued}sensor.der", f"{issued}sensor-key.der"
                task["own"] = [self.path(file) for file in own]
        port = free_port()
        server = subprocess.Popen(
            [*command, "-accept", f"{HOST}:{port}"],
            stdin=subprocess.PIPE,  # it ends with its input
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            bound = f":{port:04X} "
            end = time.monotonic() + 10
            while bound not in pathlib.Path("/proc/net/udp").read_text():
                if server.poll() is not None or time.monotonic() > end:
                    raise BenchError(f"openssl s_server: {server.stderr.read().decode()}")
                time.sleep(0.005)
            yield port, task
        finally:
            server.terminate()
            server.wait()
            server.stdin.close()
            server.stderr.close()


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def certify(directory):
    """Write certificates with P-256 keys.

    gateway and sensor are self-signed and have no extension: the smallest that there are. Those
    with issued- before are what a CA gives out, by an issuing CA below a root.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    now = datetime.datetime.now(datetime.UTC)

    def make(name, common, issuer=None, ca=False):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
        above, above_key = issuer or (None, key)
        builder = x509.CertificateBuilder(above.subject if above else subject, subject)
        builder = builder.public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number() if issuer else 1)
        builder = builder.not_valid_before(now - datetime.timedelta(1))
        builder = builder.not_valid_after(now + datetime.timedelta(30))
        if issuer or ca:
            whose = x509.SubjectKeyIdentifier.from_public_key
            builder = builder.add_extension(x509.BasicConstraints(ca, None), True)
            builder = builder.add_extension(whose(key.public_key()), False)
        if issuer:
            known = x509.AuthorityKeyIdentifier.from_issuer_public_key(above_key.public_key())
            builder = builder.add_extension(known, False)
        if issuer and not ca:
            names = x509.SubjectAlternativeName([x509.DNSName(common)])
            builder = builder.add_extension(names, False)
        certificate = builder.sign(above_key, hashes.SHA256())
        (directory / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
        (directory / f"{name}.der").write_bytes(certificate.public_bytes(der))
        form = serialization.PrivateFormat.TraditionalOpenSSL
        bare = serialization.NoEncryption()
        (directory / f"{name}.key").write_bytes(key.private_bytes(pem, form, bare))
        (directory / f"{name}-key.der").write_bytes(key.private_bytes(der, form, bare))
        return certificate, key

    root = make("root", "Example Root CA", ca=True)
    issuing = make("issuing", "Example Issuing CA", root, ca=True)
    for name, common in (("gateway", "gw.example.org"), ("sensor", "sensor-1.example.org")):
        make(name, common)
        make(f"issued-{name}", common, issuing)
    both = [(directory / f"{name}.pem").read_bytes() for name in ("root", "issuing")]
    (directory / "cas.pem").write_bytes(b"".join(both))


def spread(values, scale=1000.0):
    """Return {"median", "least", "most"}, by default in milliseconds."""
    values = [value * scale for value in values]
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def paired(values, others):
    """The median of the ratios of those that took turns: a clock that changes moves both."""
    return round(statistics.median(a / b for a, b in zip(values, others, strict=True)), 3)


def handshakes(bench, ours=tuple(OURS), theirs=THEIRS):
    """What handshakes cost, and what of it is what, taking turns.

    {"handshake": {name: {"cpu_ms", "ratio" to DTLS's, "wall_ms", "octets", "datagrams"}},
    "exchange": {group: our half of a key exchange}, "start": {"interpreter": its start, name:
    loading the code of a handshake}}.
    """
    cpu, wall, found = {}, {}, {}
    exchange = {name: [] for name in GROUPS}
    start = {name: [] for name in ("interpreter", *LOADS)}
    with bench.gateway() as gateway, bench.client() as keeps, bench.client() as reloads:
        clients = {name: reloads if OURS[name][1] else keeps for name in ours}
        # First through relays that count, which also warms up; the least of a few times, since a
        # busy machine brings a resent datagram now and then.
        for name in ours:
            found[name] = least(sizes_of_ours, bench, clients[name], gateway, *OURS[name])
        for name in theirs:
            found[name] = least(sizes_of_theirs, bench, keeps, name)
        profiles = {name: bench.profile(gateway, OURS[name][0]) for name in ours}

        def took(name, got):
            cpu.setdefault(name, []).append(got["cpu"])
            wall.setdefault(name, []).append(got["wall"])

        for n in range(bench.rounds):
            bench.say(f"handshakes, round {n + 1} of {bench.rounds}")
            ways = (*ours, *theirs)
            at = n % len(ways)
            for name in ways[at:] + ways[:at]:  # none is always behind the same one
                if name in OURS:
                    options = {"profile": profiles[name], "reload": OURS[name][1]}
                    took(name, clients[name].run("ike", **options))
                else:
                    with bench.dtls_server(name) as (port, task):
                        took(name, keeps.run("dtls", port=port, **task))
            for name, group in GROUPS.items():
                exchange[name].append(keeps.run("exchange", group=group)["cpu"])
            for name, modules in LOADS.items():
                with bench.client(program=_LOADER % modules) as client:
                    start[name].append(client.run("load")["cpu"])
                    start["interpreter"].append(client.cpu() - start[name][-1])
    for name, row in found.items():
        row["cpu_ms"] = spread(cpu[name])
        row["wall_ms"] = spread(wall[name])
        row["ratio"] = paired(cpu[name], cpu[DTLS])
    parts = {"exchange": exchange, "start": start}
    for part in parts.values():
        part.update({name: spread(values) for name, values in part.items()})
    return {"handshake": found, **parts}


def least(measure, bench, *rest):
    """The smallest of some handshakes."""
    found = [measure(bench, *rest) for _ in range(min(bench.rounds, COUNTED))]
    return min(found, key=lambda row: row["octets"])


def sizes_of_ours(bench, client, gateway, changes, reload=False):
    relays = Relay(gateway.port, False), Relay(gateway.natt_port, False)
    try:
        profile = bench.profile(gateway, changes, [relay.port for relay in relays])
        found = client.run("ike", lambda: totals(*relays), profile=profile, reload=reload)
    finally:
        for relay in relays:
            relay.close()
    counted = found["seen"]["octets"] - IP_UDP * found["seen"]["datagrams"]
    if counted != found["out"] + found["back"]:
        raise BenchError(f"the relays saw {counted} octets, the tunnel counted {found}")
    return found["seen"]


def sizes_of_theirs(bench, client, name):
    with bench.dtls_server(name) as (port, task):
        relay = Relay(port, False)
        try:
            return client.run("dtls", lambda: totals(relay), port=relay.port, **task)["seen"]
        finally:
            relay.close()


def totals(*relays):
    """Octets as IPv4 datagrams, and datagrams, both ways."""
    sizes = [size for relay in relays for size in relay.sizes + relay.back]
    return {"octets": sum(sizes) + IP_UDP * len(sizes), "datagrams": len(sizes)}


def packets(bench, sizes=SIZES, count=PACKETS):
    """{way: {"cpu_us": {size: ..}, "garbage": {size: octets}}}, a packet each.

    Ways: `seal`, `open`; `tunnel.send`, `DTLS write` and `UDP send` into a queue that nobody reads,
    so that the sender never pays for waking a reader; and `echo`, a reading and its answer.
    "ratio" is that to the DTLS write of the same size, best batch by best batch: how much an
    interpreter suffers from what else runs on the machine, and C does not, is not in it.
    """
    ways = {
        "seal": ("seal", {}),
        "open": ("open", {}),
        "tunnel.send": ("send", {}),
        "DTLS write": ("plain", {"way": "write"}),
        "UDP send": ("plain", {"way": "plain"}),
    }
    found = {way: {"cpu_us": {}, "ratio": {}, "garbage": {}} for way in ways}
    found["echo"] = {"cpu_us": {}, "wall_us": {}}
    with (
        bench.gateway() as gateway,
        bench.client() as client,
        bench.dtls_server(DTLS) as (port, task),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        contextlib.ExitStack() as relays,
    ):
        sink.bind((HOST, 0))
        targets = port, gateway.port, gateway.natt_port
        relays_ = [Relay(target, False) for target in targets]
        for relay in relays_:
            relays.callback(relay.close)
        dtls, ike, esp = relays_
        profile = bench.profile(gateway, {"sn_tick_ms": 1}, (ike.port, esp.port))
        client.run(
            "live", profile=profile, dtls_port=dtls.port, sink=sink.getsockname()[1], **task
        )
        dtls.deaf.set()
        esp.deaf.set()
        time.sleep(0.2)
        direct = bench.profile(gateway)
        cpu = {(way, size): [] for way in found for size in sizes}
        wall = {size: [] for size in sizes}
        for n in range(-1, bench.rounds * TURNS):
            bench.say(f"packets, round {n // TURNS + 1} of {bench.rounds}")
            for size in sizes:
                for way, (task, options) in ways.items():
                    got = client.run(task, size=size, count=count, **options)
                    if n >= 0:
                        cpu[way, size].append(got["cpu"] / count)
                        found[way]["garbage"][size] = got["garbage"]
        for size in sizes:
            bench.say(f"readings of {size} octets and their answers")
            for _ in range(max(bench.rounds // 5, 1)):
                got = client.run("echo", profile=direct, size=size, count=ECHOES)
                if got["heard"] != ECHOES:
                    raise BenchError(f"echo: {got['heard']} of {ECHOES} came back")
                cpu["echo", size].append(got["cpu"] / ECHOES)
                wall[size].append(got["wall"] / ECHOES)
            for way in found:
                found[way]["cpu_us"][size] = spread(cpu[way, size], 1e6)
            for way in ways:
                ratio = min(cpu[way, size]) / min(cpu["DTLS write", size])
                found[way]["ratio"][size] = round(ratio, 3)
            found["echo"]["wall_us"][size] = spread(wall[size], 1e6)
    return found


def fragments(bench, sizes=FRAGMENT_SIZES):
    """[{"fragment_size", "octets", "datagrams", "cpu_ms", "ratio" to the first}], with ML-KEM-768."""
    rows, profiles, times = [], {}, {}
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(bench.client())
        for size in sizes:
            gateway = stack.enter_context(bench.gateway(fragment_size=size))
            changes = {"pq": "require", "fragment_size": size}
            row = least(sizes_of_ours, bench, client, gateway, changes)
            rows.append({"fragment_size": size, **row})
            profiles[size] = bench.profile(gateway, changes)
            times[size] = []
        for n in range(bench.rounds):
            bench.say(f"fragments, round {n + 1} of {bench.rounds}")
            at = n % len(sizes)
            for size in sizes[at:] + sizes[:at]:
                runs = [client.run("ike", profile=profiles[size])["cpu"] for _ in range(2)]
                times[size].append(min(runs))
    for row in rows:
        took = times[row["fragment_size"]]
        row["cpu_ms"] = spread(took)
        row["ratio"] = paired(took, times[sizes[0]])
    return rows


def many(bench, counts=TUNNELS, rounds=3):
    """[{"tunnels", "cpu_ms" a handshake, "ratio" to the first, "a_second" of CPU, "heap" a tunnel}]."""
    took, heap = {count: [] for count in counts}, {}
    for n in range(rounds):
        for count in counts:
            bench.say(f"{count} tunnels in one process, round {n + 1} of {rounds}")
            with bench.gateway() as gateway, bench.client(heap=heap_for(count)) as client:
                profiles = [bench.profile(gateway) for _ in range(count)]
                times = max(AT_LEAST // count, 1)
                runs = [client.run("many", profiles=profiles) for _ in range(times)]
            for got in runs:
                if got["up"] != count or got["attempts"] != count:
                    raise BenchError(f"many: {got}")
            took[count].append(sum(got["cpu"] for got in runs) / count / times)
            heap[count] = round(runs[0]["heap"] / count)
    return [
        {
            "tunnels": count,
            "cpu_ms": spread(took[count]),
            "ratio": paired(took[count], took[counts[0]]),
            "a_second": round(1 / statistics.median(took[count]), 1),
            "heap": heap[count],
        }
        for count in counts
    ]


def heap_for(tunnels):
    """A heap in proportion: each collection goes through all of it, used or not."""
    return f"{512 + 32 * tunnels}k"


def measure(bench):
    """Everything; return the object that handshake.json holds."""
    result = handshakes(bench)
    result["packets"] = packets(bench)
    result["fragments"] = fragments(bench)
    result["many"] = many(bench)
    bench.say("charon")
    charon, why = handshake_charon.measure(bench.rounds, spread)
    for row in charon.values():  # at another time: no pairs
        mine, dtls = row["cpu_ms"], result["handshake"][DTLS]["cpu_ms"]
        row["ratio"] = round(mine["median"] / dtls["median"], 3)
    result["handshake"].update(charon)
    result["without_charon"] = why
    result["rounds"] = bench.rounds
    result["machine"] = platform.machine()
    result.update(versions())
    return json.loads(json.dumps(result))  # keys as they are after reading the file


def versions():
    said = subprocess.run(
        [require_micropython(), "-c", "import sys, tls; print(sys.version, tls.MBEDTLS_VERSION)"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    openssl = subprocess.run(["openssl", "version"], capture_output=True, text=True).stdout
    interpreter, _, ssl = said.strip().partition("Mbed ")
    return {
        "interpreter": "MicroPython " + interpreter.split("MicroPython ")[-1].strip(),
        "ssl": f"Mbed {ssl}",
        "openssl": " ".join(openssl.split()[:2]),
    }


def run(rounds):
    """Measure with progress on the screen."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with (
        tempfile.TemporaryDirectory(prefix="minipsec-bench-") as directory,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("compiling")
        bench = Bench(directory, rounds, lambda text: progress.update(task, description=text))
        return measure(bench)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tools.dev.bench.handshake", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or ROUNDS))
    parser.add_argument("--to", type=pathlib.Path, help="where results go")
    parser.add_argument("--compare", action="store_true", help="hold a new run against BASELINE")
    parser.add_argument("--baseline", type=pathlib.Path, default=RESULTS / "handshake.json")
    parser.add_argument("--new", type=pathlib.Path, help="results to compare in place of a run")
    options = parser.parse_args(arguments)
    quick = options.compare or options.rounds < ROUNDS
    directory = options.to or (ROOT / "build/bench" if quick else RESULTS)
    if options.compare:
        return compare(options, directory)
    require_openssl()
    pins.require("bench", "matplotlib")
    directory.mkdir(parents=True, exist_ok=True)
    result = run(options.rounds)
    handshake_report.write(result, directory)
    handshake_report.show(result)
    print(f"results in {directory}")
    return 0


def compare(options, directory):
    try:
        before = handshake_compare.load(options.baseline)
        if options.new:
            after = handshake_compare.load(options.new)
        else:
            require_openssl()
            directory.mkdir(parents=True, exist_ok=True)
            result = run(options.rounds)
            handshake_report.write(result, directory)
            after = handshake_compare.load(directory / "handshake.json")
    except handshake_compare.Unusable as problem:
        print(f"bench-compare: {problem}", file=sys.stderr)
        return 2
    lines, worse = handshake_compare.held_against(before, after)
    print("\n".join(lines))
    return 1 if worse else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, subprocess.SubprocessError, mpy.CompileError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        sys.exit(1)
