"""`capture`: what was recorded opens with the keys of the session, and only with those."""

import os
import stat
import struct
import subprocess
import sys

import pytest

from tools.dev.lab import ROOT, wait_until
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
    assert "keys for 1 SA" in said and "6 packets, 6 opened" in said
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


def message(spi=b"\x11" * 8):
    """An IKE message in UDP in IPv6."""
    ike = bytes(8) + spi + b"\x2e\x20\x23\x08" + bytes(8)
    udp = (500).to_bytes(2, "big") * 2 + (8 + len(ike)).to_bytes(2, "big") + b"\0\0" + ike
    return ike, b"\x60\0\0\0" + len(udp).to_bytes(2, "big") + b"\x11\x40" + bytes(32) + udp


SIX = message()[1]
MACS = bytes(12)
FRAMES = {
    "Ethernet": (packets.ETHERNET, MACS + b"\x86\xdd" + SIX),
    "VLAN": (packets.ETHERNET, MACS + b"\x81\0\0\x07\x86\xdd" + SIX),
    "VLAN in VLAN": (packets.ETHERNET, MACS + b"\x88\xa8\0\1\x81\0\0\7\x86\xdd" + SIX),
    "Linux's any": (packets.COOKED, bytes(14) + b"\x86\xdd" + SIX),
    "Linux's any, newer": (packets.COOKED_2, b"\x86\xdd" + bytes(18) + SIX),
    "a tunnel": (packets.RAW, SIX),
    "a BSD's tunnel": (12, SIX),
    "IPv6": (packets.IPV6, SIX),
    "macOS's loopback": (packets.NULL, b"\x1e\0\0\0" + SIX),
    "an old Mac's": (packets.NULL, b"\0\0\0\x1e" + SIX),
    "OpenBSD's loopback": (packets.LOOP, b"\0\0\0\x18" + SIX),
    "macOS's any": (packets.PKTAP, struct.pack("<III", 108, 1, 0) + bytes(96) + bytes(3) + b"\x1e" + SIX),
}  # fmt: skip


def pcap(link, *frames, order="<"):
    head = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    return head + b"".join(
        struct.pack(order + "IIII", 5, 6, len(frame), len(frame)) + frame for frame in frames
    )


def block(order, kind, body):
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + size + body + size


def pcapng(*frames, order="<"):
    """`frames`: (link type, octets); an interface for each."""
    units = struct.pack(order + "HHB3xHH", 9, 1, 9, 0, 0)  # nanoseconds, end of options
    file = block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    for link, _ in frames:
        file += block(order, 1, struct.pack(order + "HHI", link, 0, 0) + units)
    file += block(order, 5, bytes(12))  # statistics, which nobody asked for
    for n, (_, octets) in enumerate(frames):
        head = struct.pack(order + "IIIII", n, 1, 2, len(octets), len(octets))
        file += block(order, 6, head + octets)
    return file


@pytest.mark.item("G2")
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_every_usual_link_type_are_read(tool, tmp_path, kind, order):
    path = tmp_path / "recording"
    link, frame = FRAMES[kind]
    for octets in pcap(link, frame, frame, order=order), pcapng((link, frame), order=order):
        path.write_bytes(octets)
        expected = 2 if octets[:4] != b"\n\r\r\n" else 1
        said = tool("capture", path).out
        assert f"{expected} message" in said
    *_, (time_ns, _, octets) = packets.Recording(path).read()
    assert (time_ns, octets) == ((1 << 32) + 2, frame)


@pytest.mark.item("G2")
def test_a_link_type_that_cannot_be_read_is_never_no_messages(tool, tmp_path):
    path = tmp_path / "recording"
    for link, name in (127, "802.11 with radiotap"), (249, "USBPcap"), (147, "147"):
        for octets in pcap(link, SIX), pcap(link), pcapng((link, SIX)):
            path.write_bytes(octets)
            said = tool("capture", path, code=1)
            assert name in said.err or octets == pcapng((link, SIX))
            assert "link type" in said.err and "messages" not in said.out
    path.write_bytes(pcapng((127, SIX), (packets.ETHERNET, FRAMES["Ethernet"][1])))
    said = tool("capture", path, code=1)
    assert "1 message" in said.out and "radiotap) were passed over" in said.err


@pytest.mark.item("G2")
@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_recording_cut_off_anywhere_says_so(tool, tmp_path, form):
    frame = FRAMES["Ethernet"][1]
    link = packets.ETHERNET
    whole = pcap(link, frame, frame) if form == "pcap" else pcapng((link, frame), (link, frame))
    one = len(pcap(link, frame)) if form == "pcap" else None
    path = tmp_path / "recording"
    for size in range(0, len(whole), 5):
        if size == one:
            continue  # a whole one with one message
        path.write_bytes(whole[:size])
        said = tool("capture", path, code=None)
        assert said.code == 1 or size > len(whole) // 2 and "1 message" in said.out
        words = ("no pcap", "breaks off", "neither IKE nor ESP", "link type", "damaged")
        assert said.code == 0 or any(word in said.err for word in words)


@pytest.mark.item("G2")
def test_frames_cut_by_the_recorder_and_damage_are_told(tool, tmp_path):
    path = tmp_path / "recording"
    frame = FRAMES["Ethernet"][1]
    head = struct.pack("<IIII", 5, 6, len(frame), len(frame) + 100)
    path.write_bytes(pcap(packets.ETHERNET) + head + frame)
    assert "ends of 1 of its frames" in tool("capture", path, code=1).err
    damaged = bytearray(pcap(packets.ETHERNET, frame, frame))
    damaged[24 + 16 + len(frame) + 8 : 24 + 16 + len(frame) + 12] = b"\xff" * 4
    path.write_bytes(damaged)
    assert "is damaged at octet" in tool("capture", path, code=1).err


@pytest.mark.item("C9")
def test_what_was_opened_is_for_its_owner_alone(tool, tmp_path):
    log = tmp_path / "log"
    log.write_text("Jan 1 07[CHD] encryption initiator key => 19 bytes\n"
                   "07[CHD]    0: 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F \n"
                   "07[CHD]   16: 10 11 12 \n")  # fmt: skip
    path, inner = tmp_path / "recording", tmp_path / "inner.pcap"
    path.write_bytes(pcap(packets.RAW, SIX))
    inner.write_text("an older one, open to all")
    inner.chmod(0o644)
    tool("capture", path, "--charon-log", log, "--decrypted", inner)
    assert stat.S_IMODE(inner.stat().st_mode) == 0o600
    assert inner.read_bytes() == packets.header(packets.RAW)


def test_what_the_development_gateway_records_can_be_read(tmp_path):
    """Its key log has rows with SPIs."""
    rows = tmp_path / "keys"
    rows.write_text('00' * 8 + "," + "11" * 8 + ',aa,bb,"AES-CCM-128",,,"NONE"\n# no row\n')
    keys = Keys()
    keys.read_keylog(rows)
    reader = Reader(keys)
    ike, six = message()
    packet = packets.parse(5, packets.RAW, six)
    assert packet.ike == ike
    reader.add(packet)
    assert reader.found.ike_messages == 1 and len(reader.found.rows) == 1


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
