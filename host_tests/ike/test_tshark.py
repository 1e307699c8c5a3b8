"""Wireshark opens recorded sessions with the key log that the profile key `keylog` writes.

Replayed from recorded/, so it needs tshark but no root; interop/ does it with a live capture.
"""

import shutil
import struct
import subprocess

import pytest
from minipsec.config import keylog as keylog_file, profile
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from tools.dev.peers.replay import Replay, load

pytestmark = pytest.mark.long

SENSOR, GATEWAY = "10.77.0.2", "10.77.0.1"


@pytest.fixture
def keylog(tmp_path):
    path = tmp_path / "ikev2_decryption_table"
    path.touch(0o600)
    return path


@pytest.fixture
def tshark():
    command = shutil.which("tshark")
    if not command:
        pytest.skip("tshark is not installed")

    def run(pcap, *keys):
        uat = [f"-ouat:ikev2_decryption_table:{key}" for key in keys]
        done = subprocess.run(
            [command, "-r", pcap, "-O", "isakmp", "-Y", "isakmp", *uat],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    return run


def replayed(name, keylog, pcap):
    """Play a session, write its key log and what passed the wire; return the Node."""
    replay = Replay(load(name), keylog=str(keylog)).to_end()
    for event in replay.node.all("keys"):
        keylog_file.write_keylog(str(keylog), event[1:])
    packets = []
    for kind, _, value in replay.steps:
        if kind not in ("in", "out"):
            continue
        octets = bytes.fromhex(value)
        port = 500 if octets[:8] == replay.node.ike.spi_i else 4500
        ends = (SENSOR, GATEWAY), (40500, port)
        if kind == "in":
            ends = [pair[::-1] for pair in ends]
        (source, destination), (sport, dport) = ends
        packets.append(
            Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
            / IP(src=source, dst=destination)
            / UDP(sport=sport, dport=dport)
            / octets
        )
    wrpcap(str(pcap), packets)
    return replay.node


@pytest.mark.parametrize(
    ("name", "algorithm", "icv"),
    [
        ("charon-virtual", "AES-CCM-128 with 16 octet ICV [RFC5282]", 16),
        ("charon-static", "AES-CCM-128 with 8 octet ICV [RFC5282]", 8),
        ("charon-cbc", "AES-CBC-128 [RFC3602]", 16),
        ("charon-cookie", "AES-CCM-128 with 16 octet ICV [RFC5282]", 16),
        ("devgateway-plain", "AES-CCM-128 with 16 octet ICV [RFC5282]", 16),
    ],
)
@pytest.mark.item("MIN-20")
def test_every_protected_message_of_a_session_opens(
    tshark, keylog, tmp_path, name, algorithm, icv
):
    pcap = tmp_path / "wire.pcap"
    replayed(name, keylog, pcap)
    dark = tshark(pcap)
    assert "sensor-1" not in dark and "Decrypted Data" not in dark
    (line,) = keylog.read_text().splitlines()
    shown = tshark(pcap, line)
    assert f"<{algorithm}>" in shown
    sealed = shown.count("Payload: Encrypted and Authenticated (46)")
    assert (
        sealed == shown.count("Decrypted Data") == shown.count(f"({icv} bytes)" + good(icv, name))
    )
    for part in (".example.org", "INITIAL_CONTACT", "Traffic Selector - Initiator", "Delete (42)"):
        assert part in shown
    assert "Malformed" not in shown and "incorrect" not in shown


def good(icv, name):
    """How tshark says that an ICV is right."""
    return " <HMAC_SHA2_256_128 [RFC4868]>[correct]" if "cbc" in name else "[correct]"


def test_fragments_open_and_join(tshark, keylog, tmp_path):
    pcap = tmp_path / "wire.pcap"
    replayed("charon-fragments", keylog, pcap)
    shown = tshark(pcap, keylog.read_text().strip())
    assert "Encrypted and Authenticated Fragment (53)" in shown
    assert "sensor-1.example.org" in shown and "Malformed" not in shown


def test_another_key_opens_nothing(tshark, keylog, tmp_path):
    pcap = tmp_path / "wire.pcap"
    replayed("charon-virtual", keylog, pcap)
    fields = keylog.read_text().strip().split(",")
    fields[2] = "00" * 19
    fields[3] = "00" * 19
    shown = tshark(pcap, ",".join(fields))
    assert "sensor-1" not in shown and "[correct]" not in shown


def a_line(path):
    keys = (bytes(8), bytes(8), {1: (16, 128)}, bytes(19), bytes(19), b"", b"")
    keylog_file.write_keylog(str(path), keys)


def test_lines_are_appended(keylog):
    for _ in range(3):
        a_line(keylog)
    assert len(keylog.read_text().splitlines()) == 3


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_key_log_that_others_could_read_is_not_written(keylog, mode):
    keylog.chmod(mode)
    with pytest.raises(profile.ProfileError, match=r"profile: keylog: .* is open to others") as e:
        a_line(keylog)
    assert "chmod 600" in str(e.value) and "\n" not in str(e.value)
    assert keylog.read_bytes() == b""


def test_a_key_log_that_is_not_there_is_not_made(tmp_path):
    path = tmp_path / "none"
    with pytest.raises(profile.ProfileError, match="profile: keylog: cannot read"):
        a_line(path)
    assert not path.exists()


def test_pcap_and_recording_hold_no_key(keylog, tmp_path):
    pcap = tmp_path / "wire.pcap"
    node = replayed("charon-virtual", keylog, pcap)
    wire = pcap.read_bytes()
    (keys,) = node.all("keys")
    secrets = [key for key in keys[4:] if key] + [node.child["key_in"], node.child["key_out"]]
    assert len(secrets) == 4
    for key in secrets:
        assert key not in wire
    assert struct.unpack("<I", wire[:4]) == (0xA1B2C3D4,)
