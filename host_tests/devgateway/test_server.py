"""The gateway on real sockets: thread, command, losses, ports, shutdown."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys

import pytest

from host_tests.devgateway.peer import Peer, natt
from tools.devgateway import ConfigError, RunningGateway


class Wire:
    """A UDP socket of a sensor, talking to a gateway on the loopback."""

    def __init__(self, port, natt_port, host="127.0.0.1"):
        self.sock = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
        )
        self.sock.settimeout(5)
        self.host, self.port, self.natt_port = host, port, natt_port

    def ask(self, data, floated=True):
        self.sock.sendto(data, (self.host, self.natt_port if floated else self.port))
        return self.sock.recv(3000)

    def connect(self, peer):
        peer.take_init(self.ask(peer.init_request(), False))
        return peer.take_auth(self.ask(natt(peer.auth_request()))[4:])


@pytest.mark.parametrize(("bind", "host"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_a_reading_travels_over_the_loopback(bind, host):
    with RunningGateway({"any": "secret"}, host=bind) as gateway:
        wire, peer = Wire(gateway.port, gateway.natt_port, host), Peer()
        wire.connect(peer)
        assert gateway.wait_for("child_sa")["inner"] == "10.9.0.1"
        assert peer.open_udp(wire.ask(peer.udp(b"21.5")))[3] == b"21.5"
        assert gateway.reading()["text"] == "21.5"
        with pytest.raises(queue.Empty):
            gateway.reading(timeout=0.01)
        gateway.send_udp("10.3.0.10", 9, 5000, b"down", id="sensor-1.example.org")
        assert peer.open_udp(wire.sock.recv(3000))[3] == b"down"
        gateway.send_dummy(5)
        assert peer.child.open(wire.sock.recv(3000))[0] == 59
        gateway.send_icmp("10.3.0.10", 3, 1)
        assert peer.child.open(wire.sock.recv(3000))[0] == 4
        gateway.liveness_all()
        header, payloads = peer.open(wire.sock.recv(3000)[4:])
        assert payloads == []
        wire.sock.sendto(natt(peer.protect(37, [], 0, flags=0x28)), (host, gateway.natt_port))
        gateway.wait_for("alive")
        assert gateway.drops() == {}
        assert gateway.stats()["readings"] == 1


def test_a_wildcard_bind_answers_from_the_address_that_was_asked():
    with RunningGateway({"any": "secret"}, host="0.0.0.0", encap=False) as gateway:
        wire = Wire(gateway.port, gateway.natt_port, "127.0.0.2")
        wire.sock.connect(("127.0.0.2", gateway.port))  # refuses answers from elsewhere
        peer = Peer()
        wire.sock.send(peer.init_request())
        peer.take_init(wire.sock.recv(3000))
        assert peer.keys is not None


def test_losses_are_the_same_for_the_same_seed():
    def lost(seed):
        with RunningGateway({"any": "secret"}, loss=40, seed=seed) as gateway:
            wire = Wire(gateway.port, gateway.natt_port)
            for n in range(50):
                wire.sock.sendto(b"\xff", ("127.0.0.1", gateway.natt_port))
                if n % 10 == 9:
                    gateway.stats()
            stats = gateway.stats()
            while stats.get("keepalives", 0) + stats.get("lost_in", 0) < 50:
                stats = gateway.stats()
            return stats["lost_in"]

    first = lost(1)
    assert 8 < first < 32
    assert lost(1) == first


def test_stopping_says_delete_to_sensors():
    gateway = RunningGateway({"any": "secret"})
    with gateway:
        wire, peer = Wire(gateway.port, gateway.natt_port), Peer()
        wire.connect(peer)
        gateway.delete_all()
        header, (payload,) = peer.open(wire.sock.recv(3000)[4:])
        assert payload.type == 42
        wire.sock.sendto(
            natt(peer.protect(37, [], 0, flags=0x28)), ("127.0.0.1", gateway.natt_port)
        )
        gateway.wait_for("delete")
    assert gateway.history[-1][0] == "stats"


def test_a_port_in_use_is_a_config_error():
    with RunningGateway({"any": "secret"}) as gateway:
        with pytest.raises(ConfigError):
            with RunningGateway({"any": "secret"}, port=gateway.port):
                pass


@pytest.fixture
def command(tmp_path, root):
    started = []

    def start(*options, secrets='{"psk": "secret"}'):
        path = tmp_path / "secrets"
        path.write_text(secrets)
        process = subprocess.Popen(
            [sys.executable, "-m", "tools", "devgateway", "--secrets", path, "--bind",
             "127.0.0.1", "--port", "0", "--natt-port", "0", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root,
            env={**os.environ, "COLUMNS": "100"},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_command_prints_json_lines_and_statistics_in_the_end(command, tmp_path):
    keylog = tmp_path / "keys"
    process = command("--json", "--cookie", "--no-echo", "--keylog", str(keylog))
    ready = json.loads(process.stdout.readline())
    assert ready["event"] == "ready"
    wire, peer = Wire(ready["port"], ready["natt_port"]), Peer()
    peer.take_init(wire.ask(peer.init_request(), False))
    (notify,) = peer.init_answer_notifies
    peer.cookie = notify.data
    wire.connect(peer)
    wire.sock.sendto(peer.udp(b"\xff\xfe"), ("127.0.0.1", ready["natt_port"]))
    wire.sock.sendto(b"junk in the way", ("127.0.0.1", ready["port"]))
    lines = [json.loads(process.stdout.readline()) for _ in range(4)]
    assert [line["event"] for line in lines] == ["ike_sa", "child_sa", "reading", "drop"]
    assert lines[0]["proposal"] == "aes128ccm16-prfsha256-x25519"
    assert lines[2]["text"] is None and lines[2]["hex"] == "fffe"
    assert lines[3]["reason"] == "BAD_LENGTH"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0 and err == ""
    stats = json.loads(out.splitlines()[-1])
    assert stats["event"] == "stats" and stats["drops"] == {"BAD_LENGTH": 1}
    assert keylog.stat().st_mode & 0o777 == 0o600
    fields = keylog.read_text().strip().split(",")
    assert fields[:2] == [peer.spi_i.hex(), peer.spi_r.hex()]
    assert fields[2:4] == [peer.keys.sk_ei.hex(), peer.keys.sk_er.hex()]


def test_the_command_tells_a_person_in_words(command):
    process = command(secrets="# a comment\nsensor-1.example.org, secret\n")
    line = process.stdout.readline()
    assert "listening" in line
    ports = [int(word) for word in line.replace(",", " ").split() if word.isdigit()]
    wire, peer = Wire(*ports), Peer()
    wire.connect(peer)
    wire.ask(peer.udp(b"[bold]21.5"))
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert "sensor-1.example.org has a tunnel: inner address 10.9.0.1" in out
    assert "[bold]21.5" in out


@pytest.mark.parametrize(
    ("options", "secrets", "words"),
    [
        ((), "", "no secret"),
        ((), "{", "secrets"),
        ((), '{"psk": 7}', "expected text without quotes"),
        ((), '{"psk": "0xzz"}', "hex"),
        ((), "one,two,three", "identity,psk"),
        (("--ike", "3des"), None, "unknown algorithm '3des'"),
        (("--esp", "aes128"), None, "needs sha256"),
        (("--pool", "10.9.0.0/33"), None, "pool"),
        (("--pool6", "10.9.0.0/24"), None, "pool6"),
        (("--local-ts", "nowhere"), None, "local-ts"),
        (("--loss", "101"), None, "loss"),
        (("--id", "keyid:"), None, "id"),
        (("--fragment-size", "20"), None, "fragment-size"),
        (("--bind", "192.0.2.1"), None, "bind"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(command, options, secrets, words):
    process = command(*options, **({} if secrets is None else {"secrets": secrets}))
    out, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert out == "" and len(err.splitlines()) == 1
    assert words in err


def test_help_says_what_it_is(root):
    told = subprocess.run(
        [sys.executable, "-m", "tools", "devgateway", "--help"],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "development" in told and "no gateway for real use" in " ".join(told.split())
