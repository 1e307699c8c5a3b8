"""Record real sessions for the replay tests.

    .venv/bin/python -m tools.dev.peers.record              both kinds of gateway
    .venv/bin/python -m tools.dev.peers.record devgateway   without root
    .venv/bin/python -m tools.dev.peers.record charon cookie

The sensor is the core itself (sans-IO, under CPython) with a seeded `rand`; the gateway is
charon in the network laboratory (root) or the development gateway in this process. Each session
becomes one file in sessions/: who answered, the seed, the profile, and the steps in order, each
`[kind, ms, value]`, octets in hex:

    start    {local, remote}: [address, port] of both ends, or null
    timer    what became due
    in       a datagram that came
    out      a datagram that the last step led to
    send     a reading was sealed (the next `out` is its ESP datagram)
    got      what an ESP datagram held
    check, delete    a request of ours

Record anew when a change of the firmware is meant to change its octets; the replay tests say so.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import select
import socket
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "firmware"), str(ROOT / "tools/dev/shims")]

from tools.dev.peers.node import PROFILE, SECRETS, Node, Rand, profile
from minipsec.ike import established

_CLONE_NEWNET = 0x40000000


class Recording:
    """A Node whose every step is written down. `link` has send(datagram) and receive(seconds)."""

    def __init__(self, link, seed, changes, secrets=None):
        self.link = link
        self.session = {"seed": seed.hex(), "profile": changes, "secrets": secrets, "steps": []}
        self.node = Node(profile(secrets, **changes), Rand(seed))
        self._began = time.monotonic()

    def _note(self, kind, now, value):
        self.session["steps"].append([kind, now, value])

    def _out(self, datagrams, now):
        for datagram in datagrams:
            self._note("out", now, datagram.hex())
            self.link.send(datagram, self.node.ike.floated)

    def _now(self):
        return int((time.monotonic() - self._began) * 1000)

    def start(self, local=None, remote=None):
        text = [end and [end[0].hex(), end[1]] for end in (local, remote)]
        self._note("start", 0, {"local": text[0], "remote": text[1]})
        self._out(self.node.start(0, local, remote), 0)

    def run(self, done, timeout=20):
        """Serve datagrams and timers until `done(node)`."""
        end = time.monotonic() + timeout
        while not done(self.node):
            if time.monotonic() > end:
                raise TimeoutError(self.session["steps"][-5:])
            due = self.node.ike.next_timer()
            wait = 0.2 if due is None else min(max(due - self._now(), 0) / 1000, 0.2)
            datagram = self.link.receive(wait)
            now = self._now()
            if datagram is not None:
                self._note("in", now, datagram.hex())
                got = len(self.node.got)
                self._out(self.node.receive(datagram, now), now)
                for payload in self.node.got[got:]:
                    self._note("got", now, payload.hex())
            elif due is not None and now >= due:
                self._note("timer", now, None)
                self._out(self.node.timer(now), now)

    def send(self, payload):
        now = self._now()
        self._note("send", now, payload.hex())
        self._out([self.node.send(payload, now)], now)

    def call(self, name):
        now = self._now()
        self._note(name, now, None)
        self._out(self.node.call(getattr(established, name), now), now)

    def write(self, name, gateway):
        """Write the session; lines stay short enough to read a diff."""
        lines = [json.dumps(step) for step in self.session.pop("steps")]
        head = json.dumps({"gateway": gateway, **self.session}, indent=1)[:-2]
        path = ROOT / "host_tests/recorded/sessions" / f"{name}.json"
        path.write_text(f'{head},\n "steps": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n")
        print(f"{path.name}: {len(lines)} steps, {self.node.state}")


class NamespaceLink:
    """A UDP socket in a network namespace."""

    def __init__(self, namespace, gateway, start_port=500):
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{namespace.name}", os.O_RDONLY)
        setns = ctypes.CDLL(None, use_errno=True).setns
        try:
            assert setns(there, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            assert setns(here, _CLONE_NEWNET) == 0
        finally:
            os.close(here)
            os.close(there)
        self._gateway = gateway
        self._start_port = start_port

    def send(self, datagram, floated):
        self._socket.sendto(datagram, (self._gateway, 4500 if floated else self._start_port))

    def receive(self, seconds):
        if not select.select([self._socket], [], [], seconds)[0]:
            return None
        return self._socket.recv(4096)

    def close(self):
        self._socket.close()


class DevLink:
    """The development gateway in this process, with a seeded `rand` of its own."""

    def __init__(self, seed, **settings):
        from tools.devgateway import Config, Gateway, Secrets

        secrets = Secrets({"sensor-1.example.org": SECRETS["psk"]})
        self.gateway = Gateway(Config(secrets=secrets, **settings), Rand(seed))
        self._queue = []
        self._now = 0

    def send(self, datagram, floated):
        from tools.devgateway import Endpoint

        end = Endpoint("10.77.0.2", 40500, floated, "10.77.0.1", 4500 if floated else 500)
        self.put(self.gateway.receive(datagram, end, self._now))

    def put(self, datagrams):
        self._queue += [datagram for datagram, _ in datagrams]

    def receive(self, seconds):
        self._now += 1
        return self._queue.pop(0) if self._queue else None

    @property
    def child(self):
        (child,) = self.gateway.children.values()
        return child

    @property
    def sa(self):
        (sa,) = self.gateway.established_sas()
        return sa


def _up(node):
    return node.state == "UP"


def _ended(node):
    return node.state == "DOWN"


def _readings(recording, count=10):
    """Send readings and wait for each echo."""
    for n in range(count):
        recording.send(b'{"n": %d, "t": 21.5}' % n)
        recording.run(lambda node, n=n: len(node.got) > n)


def _good(recording, count=10):
    recording.run(_up)
    _readings(recording, count)
    recording.call("check")
    recording.run(lambda node: node.all("answered") or node.ike.next_timer() is None)
    recording.call("delete")
    recording.run(_ended)


# name -> (profile, laboratory's charon, what happens)
CHARON = {
    "virtual": ({"ike": ["aes128ccm16-prfsha256-x25519"]}, {}, _good),
    "static": (
        {
            "id": "cellar.static.example.org",
            "inner_address": "10.9.1.7",
            "ike": ["aes128ccm8-prfsha256-x25519"],
            "remote_ts": "10.3.0.0/16",
        },
        {},
        _good,
    ),
    "fragments": (
        {"fragment_size": 200, "frag_ack": "off"},
        {"settings": {"fragment_size": 140}},
        _good,
    ),
    "cbc": (
        {"ike": ["aes128-sha256-prfsha256-x25519"]},
        {"edits": [("aes128ccm16-prfsha256-x25519,", "aes128-sha256-prfsha256-x25519,")]},
        _good,
    ),
    "invalid-ke": (
        {"ike": ["aes128ccm16-prfsha256-ecp256", "aes128ccm16-prfsha256-x25519"]},
        {},
        _good,
    ),
    "cp-required": ({"inner_address": "10.9.1.7"}, {}, lambda recording: recording.run(_ended)),
    "cookie": ({}, {"settings": {"cookie_threshold": 1, "cookie_threshold_ip": 1}}, None),
    "port-4500": ({"port": 4500, "encap": False}, {}, _good),
    "terminate": ({}, {}, None),
    "wrong-psk": ({}, {}, lambda recording: recording.run(_ended)),
    "no-proposal": (
        {"ike": ["aes128ccm12-prfsha256-x25519"], "retransmit_ms": 50, "retransmit_tries": 2},
        {},
        lambda recording: recording.run(_ended),
    ),
    "no-child": ({"esp": ["aes128ccm16"]}, {}, lambda recording: recording.run(_ended)),
    "wrong-id": ({"gateway_id": "other.example.org"}, {}, lambda r: r.run(_ended)),
}


def record_charon(only=()):
    from tools.dev.lab import GATEWAY_4, SENSOR_4, Lab, run

    version = run("dpkg-query", "-W", "-f", "${Version}", "charon-systemd", check=False)
    for name, (changes, options, happens) in CHARON.items():
        if only and name not in only:
            continue
        with Lab() as lab, contextlib.ExitStack() as stack:
            identity = changes.get("id", PROFILE["id"])
            charon = lab.charon(secrets={identity: SECRETS["psk"]}, **options)
            lab.echo()
            port = changes.get("port", 500)

            def link():
                made = NamespaceLink(lab.sensor_ns, GATEWAY_4, port)
                stack.callback(made.close)
                return made

            secrets = {"psk": "wrong"} if name == "wrong-psk" else None
            if name == "cookie":
                # A half-open SA brings charon over its threshold.
                stranger = Recording(link(), b"stranger", changes)
                stranger.start()
                assert stranger.link.receive(5)
                happens = _good
            recording = Recording(link(), b"charon " + name.encode(), changes, secrets)
            ends = [tuple(map(int, text.split("."))) for text in (SENSOR_4, GATEWAY_4)]
            recording.start((bytes(ends[0]), 40500), (bytes(ends[1]), port))
            if name == "terminate":
                recording.run(_up)
                _readings(recording, 2)
                charon.terminate()
                recording.run(_ended)
            else:
                happens(recording)
            recording.write(f"charon-{name}", f"strongSwan {version}")


def _requests(recording):
    """Everything that the development gateway sends by itself."""
    link = recording.link
    recording.run(_up)
    _readings(recording, 2)
    link.put(link.gateway.liveness(link.sa, 0))
    recording.run(lambda node: not link._queue)
    link.put(link.gateway.send_dummy(link.child, 20))
    link.put(link.gateway.send_icmp(link.child, "10.3.0.10", 3, 3))
    link.put(link.gateway.send_udp(link.child, "10.3.0.10", 5000, 5000, b"downlink"))
    recording.run(lambda node: b"downlink" in node.got)
    link.put(link.gateway.delete(link.sa, 0))
    recording.run(_ended)


DEVGATEWAY = {
    "plain": ({}, {}, _good),
    "cookie": ({"inner_address": "10.9.1.7"}, {"cookie": True}, _good),
    "requests": ({"esp": ["aes128ccm16"]}, {}, _requests),
    "no-pool": ({}, {"pool": None}, lambda recording: recording.run(_ended)),
}


def record_devgateway(only=()):
    for name, (changes, settings, happens) in DEVGATEWAY.items():
        if only and name not in only:
            continue
        link = DevLink(b"gateway " + name.encode(), **settings)
        recording = Recording(link, b"devgateway " + name.encode(), changes)
        recording.start((bytes((10, 77, 0, 2)), 40500), (bytes((10, 77, 0, 1)), 500))
        happens(recording)
        recording.write(f"devgateway-{name}", "development gateway")


def main(which=None, *only):
    if which in (None, "devgateway"):
        record_devgateway(only)
    if which in (None, "charon"):
        record_charon(only)


if __name__ == "__main__":
    main(*sys.argv[1:])
