"""A network laboratory on one Linux PC: namespaces, a real gateway, real sensors.

    Lab()                                   Lab(nat=True)

    namespace "sensor"                      namespace "sensor"
      firmware/main.py                        192.168.77.2/24  fd78::2/64
      10.77.0.2/24  fd77::2/64                    | wan
          | wan                                   | lan
          |          (veth pair)            namespace "nat"    192.168.77.1, fd78::1
          | wan                                   masquerades what leaves by
      10.77.0.1/24  fd77::1/64                    | wan        10.77.0.2, fd77::2
    namespace "gateway"                           |
      charon: ESP in and out of a TUN             | wan        10.77.0.1, fd77::1
      lo 10.3.0.10/32  fd03::10/128         namespace "gateway" (as on the left)
        UDP echo server, port 5000

The gateway runs strongSwan's userland ESP (kernel-libipsec), so the kernel needs
/dev/net/tun and nothing of IPsec. Everything is owned by the `Lab`: leaving its
`with` block ends each process it started and deletes its namespaces; a child
also dies with its parent, and names carry the owner's pid, so that labs of
several processes live side by side and a later one sweeps up after a crash.

    with Lab() as lab:
        charon = lab.charon()
        echo = lab.echo()
        sensor = lab.sensor({"id": "sensor-1.example.org"}, readings=3)
        assert sensor.wait() == 0
        assert [r["data"] for r in echo.received()] == ...
"""

import contextlib
import ctypes
import functools
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]

GATEWAY_4, GATEWAY_6 = "10.77.0.1", "fd77::1"
SENSOR_4, SENSOR_6 = "10.77.0.2", "fd77::2"
HIDDEN_4, HIDDEN_6 = "192.168.77.2", "fd78::2"  # the sensor's when a NAT stands between
SERVER_4, SERVER_6 = "10.3.0.10", "fd03::10"
SERVER_PORT = 5000

_PREFIX = "mips"
PATIENCE = 4  # each wait below may take so many times what it says, on a PC that is busy
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_serial = itertools.count()


class LabError(Exception):
    """The laboratory itself failed; the text holds what the failing part said."""


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run(*command, check=True, stdin=None, timeout=60):
    """Run a command to its end; return what it printed. `LabError` names a failure."""
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if check and done.returncode:
        raise LabError(f"{' '.join(map(str, command))}: {done.stdout.strip()}")
    return done.stdout


def wait_until(condition, timeout, what):
    """Poll until `condition()` is true and return its value; `LabError` when that takes too long."""
    end = time.monotonic() + timeout * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {timeout * PATIENCE} s")
        time.sleep(0.02)


class Process:
    """A child with its standard output collected line by line in the background.

    `lines` grows as the child prints; `wait_line(predicate)` waits for one.
    Standard error goes to the same place unless `split=True` (then `stderr`).
    """

    def __init__(self, command, env=None, cwd=None, split=False):
        self.command = [str(word) for word in command]
        self.lines = []
        self._events = []
        self._error_lines = []
        self._changed = threading.Condition()
        self._popen = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if split else subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            text=True,
            errors="replace",
            preexec_fn=_die_with_parent,
        )
        self._readers = [self._reader(self._popen.stdout, self.lines)]
        if split:
            self._readers.append(self._reader(self._popen.stderr, self._error_lines))

    def _reader(self, stream, lines):
        thread = threading.Thread(target=self._read, args=(stream, lines), daemon=True)
        thread.start()
        return thread

    def _read(self, stream, lines):
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def pid(self):
        return self._popen.pid

    @property
    def returncode(self):
        return self._popen.poll()

    @property
    def running(self):
        return self._popen.poll() is None

    @property
    def stdout(self):
        return "\n".join(self.lines)

    @property
    def stderr(self):
        return "\n".join(self._error_lines)

    @property
    def events(self):
        """Every line as JSON; one that is not an object as `{"event": None, "text": line}`."""
        for line in self.lines[len(self._events) :]:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            self._events.append(
                event if isinstance(event, dict) else {"event": None, "text": line}
            )
        return list(self._events)

    def wait_line(self, predicate, timeout=20, what="a line", start=0):
        """Return the first of `lines[start:]` for which `predicate` holds."""
        end = time.monotonic() + timeout * PATIENCE
        seen = start
        with self._changed:
            while True:
                for line in self.lines[seen:]:
                    if predicate(line):
                        return line
                seen = len(self.lines)
                left = end - time.monotonic()
                ended = not self.running and not self._readers[0].is_alive()
                if left <= 0 or (ended and seen == len(self.lines)):
                    how = (
                        f"ended with {self.returncode}"
                        if ended
                        else f"no {what} in {timeout * PATIENCE} s"
                    )
                    raise LabError(
                        f"{self.command[-3:]}: waiting for {what}: {how}\n"
                        + "\n".join(self.lines[-40:] + self._error_lines[-20:])
                    )
                self._changed.wait(min(left, 0.2))

    def wait(self, timeout=60):
        """Wait for the end; return the exit code."""
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            tail = "\n".join(self.lines[-40:] + self._error_lines[-20:])
            raise LabError(
                f"{self.command[-3:]}: still running after {timeout} s\n{tail}"
            ) from None
        for reader in self._readers:
            reader.join(5)
        return code

    def signal(self, number):
        if self.running:
            self._popen.send_signal(number)

    def stop(self, timeout=5):
        """SIGTERM, then SIGKILL; return the exit code."""
        self.signal(signal.SIGTERM)
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for reader in self._readers:
            reader.join(5)
        return self._popen.returncode


class Namespace:
    """A host of its own: interfaces, routes, firewall, processes."""

    def __init__(self, lab, role):
        self.lab = lab
        self.role = role
        self.name = f"{_PREFIX}-{os.getpid()}-{lab.serial}-{role}"
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def command(self, *words):
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def ip(self, *words):
        return run("ip", "-n", self.name, *words)

    def run(self, *words, **options):
        return run(*self.command(*words), **options)

    def start(self, *words, **options):
        """Start a program here; it ends with the lab at the latest."""
        return self.lab.own(Process(self.command(*words), **options))

    def sysctl(self, **values):
        """Set kernel variables of this namespace: `net__ipv4__ip_forward=1`."""
        for key, value in values.items():
            path = "/proc/sys/" + key.replace("__", "/")
            self.run("sh", "-c", f"echo {value} > {path}")

    def address(self, interface, *addresses):
        for address in addresses:
            extra = ["nodad"] if ":" in address else []
            self.ip("addr", "add", address, "dev", interface, *extra)
        self.ip("link", "set", interface, "up")

    def nft(self, rules):
        """Load nftables rules, in nft's own language."""
        self.run("nft", "-f", "-", stdin=rules)

    def drop(self, match, hook="input"):
        """Drop what matches before a local program sees it (or, hook="output", sends it).

        `match` is an nftables expression, as `udp dport 4500 numgen inc mod 3 1`:
        of every three datagrams the second is lost. Returns a callable that gives
        the number of datagrams dropped so far; `undrop` takes the rules away.
        """
        priority = -300 if hook in ("input", "prerouting", "forward") else 300
        self.nft(
            "add table inet loss\n"
            f"add chain inet loss {hook} {{ type filter hook {hook} priority {priority}; }}\n"
        )
        tag = f"drop-{next(_serial)}"
        self.nft(f'add rule inet loss {hook} {match} counter drop comment "{tag}"\n')

        def dropped():
            listing = self.run("nft", "list", "chain", "inet", "loss", hook)
            found = re.search(rf'packets (\d+) bytes \d+ drop comment "{tag}"', listing)
            return int(found.group(1)) if found else 0

        return dropped

    def undrop(self):
        self.run("nft", "delete", "table", "inet", "loss", check=False)

    def capture(self, path, interface="wan"):
        """Record an interface to a pcap file until `.stop()`; returns the Process."""
        process = self.start(sys.executable, ROOT / "tools/dev/lab/sniff.py", interface, path)
        process.wait_line(lambda line: line == "ready", what="the capture")
        return process


class Lab:
    """See the module's docstring. `nat=True` puts a masquerading router between."""

    def __init__(self, nat=False):
        self.nat = nat
        self.serial = next(_serial)
        self._stack = contextlib.ExitStack()
        self.namespaces = {}
        self.directory = None

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._stack.close()

    def own(self, thing):
        """Have `thing.stop()` called when the lab closes; last in, first out."""
        self._stack.callback(thing.stop)
        return thing

    def namespace(self, role):
        namespace = Namespace(self, role)
        self.namespaces[role] = namespace
        self._stack.callback(run, "ip", "netns", "del", namespace.name, check=False)
        return namespace

    @staticmethod
    def cable(a, name_a, b, name_b):
        run("ip", "link", "add", name_a, "netns", a.name, "type", "veth", "peer", "name", name_b,
            "netns", b.name)  # fmt: skip

    def _build(self):
        sweep()
        # Short: a unix socket's path has at most 107 octets.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=own_prefix("lab")))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.sensor_ns = sensor = self.namespace("sensor")
        self.gateway_ns = gateway = self.namespace("gateway")
        gateway.address("lo", f"{SERVER_4}/32", f"{SERVER_6}/128")
        gateway.sysctl(
            net__ipv4__ip_forward=1,
            net__ipv4__conf__all__rp_filter=0,
            net__ipv4__conf__default__rp_filter=0,
            net__ipv6__conf__all__forwarding=1,
        )
        if not self.nat:
            self.cable(sensor, "wan", gateway, "wan")
            gateway.address("wan", f"{GATEWAY_4}/24", f"{GATEWAY_6}/64")
            sensor.address("wan", f"{SENSOR_4}/24", f"{SENSOR_6}/64")
            return
        self.nat_ns = nat = self.namespace("nat")
        self.cable(sensor, "wan", nat, "lan")
        self.cable(nat, "wan", gateway, "wan")
        gateway.address("wan", f"{GATEWAY_4}/24", f"{GATEWAY_6}/64")
        nat.address("wan", f"{SENSOR_4}/24", f"{SENSOR_6}/64")
        nat.address("lan", "192.168.77.1/24", "fd78::1/64")
        sensor.address("wan", f"{HIDDEN_4}/24", f"{HIDDEN_6}/64")
        sensor.ip("route", "add", "default", "via", "192.168.77.1")
        sensor.ip("-6", "route", "add", "default", "via", "fd78::1")
        nat.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)
        self.remap()

    def remap(self, ports="20000-29999"):
        """Give the NAT a new range of outer ports and make it forget what it knew."""
        # Masquerading forgets its flows when their interface goes.
        self.nat_ns.sysctl(net__ipv6__conf__wan__keep_addr_on_down=1)
        self.nat_ns.ip("link", "set", "wan", "down")
        self.nat_ns.run("nft", "delete", "table", "inet", "nat", check=False)
        self.nat_ns.nft(
            "table inet nat {\n"
            " chain post {\n"
            "  type nat hook postrouting priority 100;\n"
            f'  oifname "wan" meta l4proto udp masquerade to :{ports}\n'
            '  oifname "wan" masquerade\n'
            " }\n"
            "}\n"
        )
        self.nat_ns.ip("link", "set", "wan", "up")

    def charon(self, **options):
        """Start strongSwan in the gateway's namespace; see `Charon`."""
        return self.own(Charon(self.gateway_ns, self.directory, **options))

    def echo(self, address=SERVER_4, port=SERVER_PORT):
        """Start the UDP echo server behind the gateway; see `Echo`."""
        return self.own(Echo(self.gateway_ns, address, port))

    def sensor(self, profile=None, secrets=None, readings=None, **options):
        """Start firmware/main.py in the sensor's namespace; see `Sensor`."""
        profile = {"gateway": GATEWAY_4, **(profile or {})}
        return self.own(Sensor(profile, secrets, readings, namespace=self.sensor_ns, **options))


def sweep():
    """Delete namespaces whose owner died without cleaning up (its children died with it)."""
    for line in run("ip", "netns", "list").splitlines():
        found = re.match(rf"{_PREFIX}-(\d+)-\d+-\w+", line)
        if found and not os.path.exists(f"/proc/{found.group(1)}"):
            run("ip", "netns", "del", found.group(0), check=False)


def own_prefix(kind):
    """How the name of a temporary directory begins, so that `sweep_directories` knows whose it is."""
    sweep_directories()
    return f"minipsec-{kind}-{os.getpid()}-"


@functools.cache  # once a process
def sweep_directories():
    """Delete temporary directories whose owner was killed before it could."""
    for path in pathlib.Path(tempfile.gettempdir()).glob("minipsec-*-*-*"):
        found = re.match(r"minipsec-(lab|sensor|pluto)-(\d+)-", path.name)
        if found and not os.path.exists(f"/proc/{found.group(2)}"):
            shutil.rmtree(path, ignore_errors=True)


class Echo:
    """The server behind the gateway; `received()` is what reached it in the clear."""

    def __init__(self, namespace, address, port):
        self._process = namespace.start(
            sys.executable, ROOT / "tools/dev/lab/echo.py", address, port
        )
        self._process.wait_line(lambda line: "ready" in line, what="the echo server")

    def received(self, count=0, timeout=10):
        """Return `[{from, port, data}]`; with `count`, wait until there are so many."""
        if count:
            wait_until(
                lambda: len(self._received()) >= count, timeout, f"{count} datagrams at the server"
            )
        return self._received()

    def _received(self):
        return [
            {"from": line["from"], "port": line["port"], "data": bytes.fromhex(line["hex"])}
            for line in self._process.events
            if "hex" in line
        ]

    def stop(self):
        self._process.stop()


PSK = "0x" + bytes(range(7, 39)).hex()
SENSOR_ID = "sensor-1.example.org"
GATEWAY_ID = "gw.example.org"


def _text(value):
    """What vici gives (octets in ordered dicts) as plain strings, dicts and lists."""
    if isinstance(value, dict):
        return {_text(key): _text(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_text(inner) for inner in value]
    return value.decode() if isinstance(value, bytes) else value


class Charon:
    """strongSwan's daemon in a namespace with configuration, log and socket of its own.

    The configuration is the one that owners are shown, tools/gateway/swanctl.conf,
    unless `config` (text) replaces it; `edits` is `[(old, new)]` on its text, and an
    old that is not there is an error. `secrets` is `{identity: psk}`. `settings`
    adds to strongswan.conf's charon section: `{"cookie_threshold": 1}`.
    """

    def __init__(self, namespace, directory, secrets=None, edits=(), config=None, settings=None):
        self.namespace = namespace
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="c", dir=directory))
        self.socket = self.directory / "vici"
        self.settings = dict(settings or {})
        self._log = self.directory / "log"
        self._strongswan_conf = self.directory / "strongswan.conf"
        self._swanctl_conf = self.directory / "swanctl.conf"
        self._process = None
        self._watching = contextlib.ExitStack()
        if config is None:
            config = (ROOT / "tools/gateway/swanctl.conf").read_text()
        for old, new in edits:
            if old not in config:
                raise LabError(f"swanctl.conf has no {old!r}")
            config = config.replace(old, new)
        self._swanctl_conf.write_text(config)
        self.write_secrets({SENSOR_ID: PSK} if secrets is None else secrets)
        self.start()

    def write_secrets(self, secrets):
        """Write the secrets file beside swanctl.conf; `load()` or a restart reads it."""
        path = self.directory / "sensors.secrets.conf"
        text = "secrets {\n"
        for number, (identity, psk) in enumerate(secrets.items()):
            quoted = psk if psk.startswith("0x") else f'"{psk}"'
            text += f'  ike-{number} {{\n    id = "{identity}"\n    secret = {quoted}\n  }}\n'
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "}\n")

    def _write_strongswan_conf(self):
        lines = [
            (ROOT / "tools/gateway/strongswan.conf").read_text(),
            "charon-systemd {",
            *(f"  {key} = {value}" for key, value in self.settings.items()),
            "  plugins {",
            "    vici {",
            f"      socket = unix://{self.socket}",
            "    }",
            "  }",
            "  filelog {",
            "    file {",
            f"      path = {self._log}",
            "    }",
            "  }",
            "}",
            "swanctl {",
            f"  socket = unix://{self.socket}",
            "}",
        ]
        self._strongswan_conf.write_text("\n".join(lines) + "\n")

    def start(self):
        self._write_strongswan_conf()
        self.socket.unlink(missing_ok=True)
        # charon-systemd takes no arguments: what it is told, it is told by this file.
        self._process = self.namespace.start(
            "charon-systemd", env={"STRONGSWAN_CONF": str(self._strongswan_conf)}
        )
        try:
            wait_until(self._answers, 15, "charon's vici socket")
            self.load()
        except LabError as problem:
            raise LabError(f"{problem}\n{self.log()[-3000:]}") from None

    def _answers(self):
        if not self._process.running:
            raise LabError(f"charon ended with {self._process.returncode}: {self._process.stdout}")
        try:
            with self.vici():
                return True
        except OSError:
            return False

    @contextlib.contextmanager
    def vici(self):
        """A PyPI `vici` session with this charon."""
        import vici

        connection = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.connect(str(self.socket))
            yield vici.Session(connection)

    def swanctl(self, *words):
        """Run swanctl against this charon; return what it prints."""
        environment = f"STRONGSWAN_CONF={self._strongswan_conf}"
        return run("env", environment, "swanctl", *words, "--uri", f"unix://{self.socket}")

    def load(self):
        """Load swanctl.conf and its secrets, as an owner does."""
        said = self.swanctl("--load-all", "--noprompt", "--file", self._swanctl_conf)
        if not re.search(r"successfully loaded [1-9]\d* connections", said):
            raise LabError(f"swanctl --load-all: {said}")
        return said

    def log(self):
        """What charon logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def wait_log(self, pattern, timeout=15, start=0):
        """Return the first match of a regular expression in `log()[start:]`."""
        return wait_until(
            lambda: re.search(pattern, self.log()[start:]), timeout, f"charon's log: {pattern}"
        )

    def list_sas(self):
        """Return `[{"name", "uniqueid", "state", .., "child-sas": {..}}]`."""
        with self.vici() as session:
            answer = [_text(sas) for sas in session.list_sas()]
        return [{"name": name, **sa} for sas in answer for name, sa in sas.items()]

    def wait_sas(self, count):
        """Return `list_sas()` when it holds `count` SAs, each as charon wants it.

        charon tells the sensor before it has done with an SA, and longer before on a busy PC.
        """

        def settled(sa):
            children = sa["child-sas"].values()
            return sa["state"] == "ESTABLISHED" and all(
                c["state"] == "INSTALLED" for c in children
            )

        def found():
            sas = self.list_sas()
            return [sas] if len(sas) == count and all(map(settled, sas)) else None

        (sas,) = wait_until(found, 5, f"{count} SAs at charon")
        return sas

    def watch(self):
        """Watch SAs come up from now on; return a callable that waits for `count` of them.

        It gives them as `list_sas()` does, those that have ended since, too.
        """
        import vici

        connection = socket.socket(socket.AF_UNIX)
        self._watching.callback(connection.close)
        connection.connect(str(self.socket))
        events = vici.Session(connection).listen(["child-updown"], timeout=0.02)
        seen = []

        def take():
            _, event = next(events)
            event = _text(event) if event else {"up": "no"}
            if event.pop("up", "no") == "yes":
                seen.extend({"name": name, **sa} for name, sa in event.items())
            return seen

        def came_up(count):
            return wait_until(lambda: len(take()) >= count and seen, 15, f"{count} SAs at charon")

        take()  # charon has confirmed that it will tell
        return came_up

    def initiate(self, child, timeout_ms=10000):
        """Have this charon bring up a child (for a charon that plays the sensor)."""
        with self.vici() as session:
            for _ in session.initiate({"child": child, "timeout": str(timeout_ms)}):
                pass

    def terminate(self, ike=None, timeout_ms=-1):
        """Have charon delete IKE SAs (all, or those of one connection); does not wait."""
        names = {ike} if ike else {sa["name"] for sa in self.list_sas()}
        with self.vici() as session:
            for name in names:
                for _ in session.terminate({"ike": name, "timeout": str(timeout_ms)}):
                    pass

    def stop(self):
        self._watching.close()
        if self._process:
            self._process.stop(timeout=10)

    def kill(self):
        """End it as a power cut does: no DELETE is sent."""
        self._process.signal(signal.SIGKILL)
        self._process.wait(10)

    def restart(self):
        self.stop()
        self.start()


class Sensor:
    """A run of firmware/main.py on the unix port with a profile and secrets of its own.

    `profile` needs only what differs from the laboratory's defaults. The run starts
    at once; `events` are its JSON lines so far. Works without a namespace, too.
    """

    def __init__(
        self,
        profile=None,
        secrets=None,
        readings=None,
        namespace=None,
        heap="1m",
        firmware=ROOT / "firmware",
        options=(),
    ):
        from tools.dev.setup.interpreter import require_micropython

        self.profile = {
            "gateway": GATEWAY_4,
            "gateway_id": GATEWAY_ID,
            "id": SENSOR_ID,
            "secrets": "secrets.json",
            "server": SERVER_4,
            "server_port": SERVER_PORT,
            "interval_ms": 50,
            "log": "json",
            **(profile or {}),
        }
        # A default goes away by naming it None.
        self.profile = {key: value for key, value in self.profile.items() if value is not None}
        # Gone with this object at the latest, whoever forgot to stop it.
        self._folder = tempfile.TemporaryDirectory(
            prefix=own_prefix("sensor"), ignore_cleanup_errors=True
        )
        self.directory = pathlib.Path(self._folder.name)
        self.profile_path = self.directory / "profile.json"
        self._write("profile.json", self.profile)
        self._write("secrets.json", {"psk": PSK} if secrets is None else secrets)
        command = [require_micropython(), *options, "-X", f"heapsize={heap}"]
        command += [pathlib.Path(firmware) / "main.py", self.profile_path]
        environment = {"MICROPYPATH": f"{firmware}:.frozen"}
        if namespace:
            command = namespace.command(*command)
        self._command, self._environment = command, environment
        self.start(readings)

    def start(self, readings=None):
        """Start it, or once more with the same files: as a board wakes up from deep sleep."""
        command = self._command + ([] if readings is None else [readings])
        self._process = Process(command, env=self._environment, cwd=self.directory, split=True)

    def _write(self, name, value):
        descriptor = os.open(self.directory / name, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file)

    @property
    def events(self):
        """Every JSON line so far; another line is `{"event": None, "text": line}`."""
        return self._process.events

    def all(self, event):
        """Every line of one kind so far."""
        return [line for line in self.events if line["event"] == event]

    def first(self, event):
        """The first line of one kind; `LabError` when there was none."""
        found = self.all(event)
        if not found:
            raise LabError(f"the sensor logged no {event!r}:\n{self.output}")
        return found[0]

    def wait_for(self, event, timeout=20, count=1, **match):
        """Wait for the `count`-th line of that kind whose keys equal `match`; return it."""

        def found():
            lines = [line for line in self.all(event) if match.items() <= line.items()]
            return lines[count - 1] if len(lines) >= count else None

        end = time.monotonic() + timeout * PATIENCE
        while not (line := found()):
            if not self._process.running:
                self._process.wait()
                if line := found():
                    break
            if not self._process.running or time.monotonic() > end:
                raise LabError(f"the sensor logged no {event} {match}:\n{self.output}")
            time.sleep(0.02)
        return line

    @property
    def output(self):
        return f"{self._process.stdout}\n{self._process.stderr}"

    @property
    def stdout(self):
        return self._process.stdout

    @property
    def stderr(self):
        return self._process.stderr

    @property
    def returncode(self):
        return self._process.returncode

    @property
    def pid(self):
        return self._process.pid

    def signal(self, number):
        self._process.signal(number)

    def wait(self, timeout=60):
        """Wait for its end; return the exit code."""
        return self._process.wait(timeout)

    def stop(self):
        code = self._process.stop()
        self._folder.cleanup()
        return code
