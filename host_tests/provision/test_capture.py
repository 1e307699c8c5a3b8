"""`capture`: what was recorded opens with the keys of the session, and only with those."""

import os
import stat
import subprocess
import sys

import pytest

from host_tests.lab import ROOT, wait_until
from tools.capture import packets
from tools.capture.keys import Keys
from tools.capture.reading import Reader

LOUD = "filelog {\n file {\n ike = 4\n chd = 4\n }\n }\n retransmit_tries"


def tshark(path, *options):
    return subprocess.run(
        ["tshark", "-r", str(path), *options],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": "/nonexistent"},
    ).stdout


@pytest.mark.interop
@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"esp": ["aes256ccm16"], "ike": ["aes128ccm8-prfsha256-x25519"]},
    ],
    ids=["default", "longer"],
)
def test_a_session_with_strongswan_can_be_read(tool, lab, tmp_path, profile):
    edits = [("esp_proposals = aes128ccm8", "esp_proposals = aes128ccm8, aes256ccm16")]
    charon = lab.charon(settings={LOUD: 4}, edits=edits)
    echo = lab.echo()
    path = tmp_path / "session.pcap"
    recorder = lab.gateway_ns.start(
        *(sys.executable, "-m", "tools", "capture", path, "--interface", "wan"),
        *("--seconds", "30"),
        cwd=ROOT,
    )
    wait_until(path.exists, 20, "the recording")
    sensor = lab.sensor(profile, readings=3)
    assert sensor.wait() == 0
    echo.received(3)
    charon.wait_log("received DELETE for IKE_SA")
    recorder.signal(2)
    assert recorder.wait(20) == 0
    assert "frames of IKE and ESP" in recorder.stdout

    inner = tmp_path / "inner.pcap"
    flags = ("--charon-log", charon.directory / "log", "--decrypted", inner)
    said = tool("capture", path, *flags).out
    assert "keys for 1 SAs" in said and "6 packets, 6 opened" in said
    told = tshark(inner, "-T", "fields", "-e", "ip.src", "-e", "udp.dstport", "-e", "udp.payload")
    rows = [line.split("\t") for line in told.splitlines()]
    readings = [line["data"].encode().hex() for line in sensor.all("sent")]
    assert [row[2] for row in rows if row[0] == "10.9.0.1"] == readings
    assert [row[2] for row in rows if row[0] == "10.3.0.10"] == readings

    table = tmp_path / "session.pcap.ikev2_decryption_table"
    assert stat.S_IMODE(os.stat(table).st_mode) == 0o600
    told = tshark(path, "-V", "-o", "uat:ikev2_decryption_table:" + table.read_text().strip())
    assert "Identification Data:sensor-1.example.org" in told


@pytest.mark.interop
def test_keys_of_another_session_open_nothing(tool, lab, tmp_path):
    charon = lab.charon(settings={LOUD: 4})
    recorder = lab.gateway_ns.capture(tmp_path / "one.pcap")
    assert lab.sensor(readings=1).wait() == 0
    recorder.stop()
    first = charon.log()
    recorder = lab.gateway_ns.capture(tmp_path / "two.pcap")
    assert lab.sensor(readings=1).wait() == 0
    recorder.stop()
    (tmp_path / "first.log").write_text(first)
    said = tool("capture", tmp_path / "two.pcap", "--charon-log", tmp_path / "first.log").out
    assert "keys for 0 SAs" in said and " 0 opened" in said and "no key for the SPIs" in said


def test_what_the_development_gateway_records_can_be_read(tool, tmp_path):
    """Its key log has rows with SPIs; IPv6 and Linux's cooked frames are read as well."""
    rows = tmp_path / "keys"
    rows.write_text('00' * 8 + "," + "11" * 8 + ',aa,bb,"AES-CCM-128",,,"NONE"\n# no row\n')
    keys = Keys()
    keys.read_keylog(rows)
    reader = Reader(keys)
    message = bytes(8) + b"\x11" * 8 + b"\x2e\x20\x23\x08" + bytes(8)
    udp = (500).to_bytes(2, "big") * 2 + (8 + len(message)).to_bytes(2, "big") + b"\0\0" + message
    six = b"\x60\0\0\0" + len(udp).to_bytes(2, "big") + b"\x11\x40" + bytes(32) + udp
    frames = {
        packets.ETHERNET: bytes(12) + b"\x86\xdd" + six,
        packets.COOKED: bytes(14) + b"\x86\xdd" + six,
        packets.COOKED_2: b"\x86\xdd" + bytes(18) + six,
        packets.RAW: six,
    }
    for link, frame in frames.items():
        packet = packets.parse(5, link, frame)
        assert packet.ike == message, link
        reader.add(packet)
    assert reader.found.ike_messages == 4 and len(reader.found.rows) == 1


@pytest.mark.parametrize("size", range(0, 60, 3))
def test_a_frame_cut_off_anywhere_is_no_packet(size):
    frame = bytes(12) + b"\x08\0" + b"\x45" + bytes(8) + b"\x11" + bytes(10) + b"\x11\x94" * 2
    found = packets.parse(0, packets.ETHERNET, (frame + bytes(20))[:size])
    assert found is None or found.esp or found.ike


def test_a_wrong_file_is_told(tool, tmp_path):
    (tmp_path / "x.pcap").write_text("no pcap")
    (tmp_path / "log").write_text("nothing")
    assert "no pcap file" in tool("capture", tmp_path / "x.pcap", code=1).err
    assert "cannot read" in tool("capture", tmp_path / "none.pcap", code=1).err
    log = ("--charon-log", tmp_path / "log")
    assert "ike = 4, chd = 4" in tool("capture", tmp_path / "x.pcap", *log, code=1).err
    keylog = ("--keylog", tmp_path / "log")
    assert "no key log" in tool("capture", tmp_path / "x.pcap", *keylog, code=1).err
    said = tool("capture", tmp_path / "x.pcap", "--decrypted", tmp_path / "y", code=2)
    assert "--charon-log" in said.err
    said = tool("capture", tmp_path / "x.pcap", "--interface", "no-such-one", code=1)
    assert "cannot record from no-such-one" in said.err or "only root" in said.err
