"""The laboratory itself, with strongSwan on both sides: what fails here is not ours."""

import os
import re
import subprocess
import sys
import tempfile

import pytest

from tools.dev import lab as lab_module
from tools.dev.lab import GATEWAY_4, SERVER_4, Charon, Lab, LabError, run

INITIATOR = f"""
connections {{
  sensor {{
    version = 2
    remote_addrs = {GATEWAY_4}
    proposals = aes128ccm16-prfsha256-x25519
    encap = yes
    vips = 0.0.0.0
    local {{
      auth = psk
      id = sensor-1.example.org
    }}
    remote {{
      auth = psk
      id = gw.example.org
    }}
    children {{
      readings {{
        remote_ts = 10.3.0.0/16
        esp_proposals = aes128ccm8
      }}
    }}
  }}
}}
include sensors.secrets.conf
"""

SPEAK = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
for n in range(3):
    s.sendto(b"reading %d" % n, ("{SERVER_4}", 5000))
    print(s.recv(100).decode())
"""


@pytest.mark.parametrize("nat", [False, True], ids=["direct", "nat"])
def test_two_charons_carry_datagrams_to_the_server_behind_the_gateway(nat):
    with Lab(nat=nat) as lab:
        gateway = lab.charon()
        echo = lab.echo()
        sensor = lab.own(Charon(lab.sensor_ns, lab.directory, config=INITIATOR))
        sensor.initiate("readings")
        said = lab.sensor_ns.run(sys.executable, "-c", SPEAK)
        assert said.split("\n")[:3] == ["reading 0", "reading 1", "reading 2"]
        assert [line["data"] for line in echo.received(3)] == [b"reading %d" % n for n in range(3)]
        (sa,) = gateway.wait_sas(1)
        assert sa["state"] == "ESTABLISHED"
        assert sa["remote-id"] == "sensor-1.example.org"
        assert (sa["remote-port"] == "4500") is not nat
        gateway.terminate()
        gateway.wait_log("IKE_SA deleted")
        assert gateway.wait_sas(0) == []


def test_a_lab_leaves_nothing_behind_when_it_fails():
    with pytest.raises(LabError, match="no 'nonsense'"), Lab() as lab:
        names = [namespace.name for namespace in lab.namespaces.values()]
        lab.charon(edits=[("nonsense", "")])
    assert not any(name in run("ip", "netns", "list") for name in names)
    assert not os.path.exists(lab.directory)


def test_dropped_datagrams_follow_the_pattern_and_are_counted():
    with Lab() as lab:
        echo = lab.echo(GATEWAY_4, 5001)
        dropped = lab.gateway_ns.drop("udp dport 5001 numgen inc mod 3 1")
        send = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"for n in range(9): s.sendto(b'%d' % n, ('{GATEWAY_4}', 5001))"
        )
        lab.sensor_ns.run(sys.executable, "-c", send)
        assert [line["data"] for line in echo.received(6)] == [b"0", b"2", b"3", b"5", b"6", b"8"]
        assert dropped() == 3
        lab.gateway_ns.undrop()
        lab.sensor_ns.run(sys.executable, "-c", send)
        assert len(echo.received(15)) == 15


def test_captures_hold_what_passed(tmp_path):
    with Lab() as lab:
        echo = lab.echo(GATEWAY_4, 5001)
        capture = lab.sensor_ns.capture(tmp_path / "wire.pcap")
        send = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"s.sendto(b'seen', ('{GATEWAY_4}', 5001))"
        )
        lab.sensor_ns.run(sys.executable, "-c", send)
        echo.received(1)
        capture.stop()
        shown = run("tshark", "-r", tmp_path / "wire.pcap", "-T", "fields", "-e", "data.data")
        assert b"seen".hex() in shown


def test_directories_of_processes_that_were_killed_go_with_the_next_laboratory(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = subprocess.Popen(["true"])
    killed.wait()
    names = [f"minipsec-{kind}-{killed.pid}-x" for kind in ("lab", "sensor", "pluto")]
    kept = [f"minipsec-lab-{os.getpid()}-x", f"minipsec-mine-{killed.pid}-x", "minipsec-lab-x"]
    for name in names + kept:
        (tmp_path / name / "inside").mkdir(parents=True)
    lab_module.sweep_directories.__wrapped__()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_the_session_that_the_readme_shows_runs_as_it_is_printed(root, capsys):
    text = (root / "host_tests/README.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    names = {}
    exec(compile(program, "host_tests/README.md", "exec"), names)
    assert names["up"]["event"] == "up" and names["sensor"].wait() == 0
    assert "sensor-1.example.org" in capsys.readouterr().out
