"""The firmware on the unix port against a gateway that a test scripts, over UDP on loopback."""

import json
import os
import select
import socket
import subprocess
import threading

from tools.dev.peers.node import PROFILE, SECRETS

HOST = "127.0.0.1"


class Wire:
    """Sockets for IKE and NAT traversal, and any number of others, served by a thread.

    `script(wire, name, datagram, source)` is called for each datagram that comes, `name` being
    "ike", "natt" or another; it answers by `wire.send`.
    """

    def __init__(self, script, names=("ike", "natt")):
        self._sockets = {}
        for name in names:
            self._sockets[name] = made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((HOST, 0))
        self._script = script
        self.failure = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def port(self, name):
        return self._sockets[name].getsockname()[1]

    def send(self, name, datagram, target):
        self._sockets[name].sendto(datagram, target)

    def _serve(self):
        names = {made: name for name, made in self._sockets.items()}
        try:
            while not self._stop.is_set():
                for made in select.select(list(names), [], [], 0.1)[0]:
                    datagram, source = made.recvfrom(4096)
                    self._script(self, names[made], datagram, source)
        except Exception as problem:  # told by the test's own thread
            self.failure = problem

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()
        for made in self._sockets.values():
            made.close()
        if self.failure and not exc[0]:
            raise self.failure


def run_sensor(micropython, root, directory, wire, readings=1, timeout=60, **changes):
    """Run firmware/main.py to its end; return (exit code, [event line], stderr)."""
    values = dict(PROFILE, gateway=HOST, port=wire.port("ike"), natt_port=wire.port("natt"))
    values.update({"log": "json", "retries": 0, "retransmit_ms": 100, "retransmit_tries": 3})
    values.update(changes)
    path = directory / "profile.json"
    path.write_text(json.dumps(values))
    secrets = directory / "secrets.json"
    secrets.write_text(json.dumps(SECRETS))
    secrets.chmod(0o600)
    done = subprocess.run(
        [micropython, str(root / "firmware/main.py"), str(path), str(readings)],
        env={**os.environ, "MICROPYPATH": str(root / "firmware")},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert "Traceback" not in done.stdout, done.stdout
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, lines, done.stderr


def named(lines, event):
    return [line for line in lines if line["event"] == event]
