"""A fleet: provisioned from a table, told to strongSwan by vici, and on the air all at once.

`make fleet` runs it in full size; FLEET=devices,at once,readings,processes sets its size.
"""

import collections
import json
import os
import pathlib
import re
import time

import pytest

from tools.dev.lab import GATEWAY_4, GATEWAY_ID, ROOT, SERVER_4
from host_tests.tools.conftest import BareCharon
from tools.common import mpy
from tools.dev.setup.interpreter import require_micropython

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

DEVICES, AT_ONCE, READINGS, PROCESSES = map(int, os.environ.get("FLEET", "500,200,3,4").split(","))
SPREAD_MS = 20  # between the first handshakes of one process


def cpu(pid):
    """Seconds of CPU that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def charon(lab, monkeypatch):
    """As a gateway of a fleet is set up: devices behind one address are no attack."""
    # Zero would not mean "off": charon then blocks all but one.
    page = (ROOT / "tools/docs/fleet.md").read_text()
    settings = dict(re.findall(r"^    (\w+_threshold\w*) = (\d+)$", page, re.M))
    assert len(settings) == 2
    for name, value in settings.items():
        assert f"{name} = {value}" in (ROOT / "tools/docs/doctor.md").read_text()
    settings["cookie_threshold"] = 2000
    charon = BareCharon(lab.gateway_ns, lab.directory, secrets={}, config="", settings=settings)
    lab.own(charon)
    monkeypatch.setenv("MINIPSEC_VICI", str(charon.socket))
    return charon


def start(lab, firmware, task, path):
    path.write_text(json.dumps(task))
    return lab.sensor_ns.start(
        *(require_micropython(), "-X", "heapsize=64m"),
        *(ROOT / "host_tests/tools/many.py", path),
        env={"MICROPYPATH": f"{firmware}:.frozen"},
        split=True,
    )


def test_a_fleet_comes_up_at_once_and_each_reading_arrives_once(
    tool, inventory, lab, charon, tmp_path, capsys
):
    rows = "".join(
        f"sensor-{n}.example.org,{GATEWAY_4},{GATEWAY_ID},{SERVER_4},500ms\n"
        for n in range(DEVICES)
    )
    (tmp_path / "fleet.csv").write_text("id,gateway,gateway_id,server,interval\n" + rows)
    began = time.monotonic()
    tool("fleet", "import", tmp_path / "fleet.csv")
    imported = time.monotonic() - began
    began = time.monotonic()
    said = tool("gateway", "apply", "--pool", "10.9.0.0/20").out
    applied = time.monotonic() - began
    assert f"{DEVICES} new, 0 known" in said
    again = time.monotonic()
    assert f"0 new, {DEVICES} known" in tool("gateway", "apply").out
    again = time.monotonic() - again

    echo = lab.echo()
    firmware = tmp_path / "firmware"
    mpy.stage(firmware)
    profiles = sorted(inventory.glob("devices/*/profile.json"))[:AT_ONCE]
    before = cpu(charon._process.pid)
    processes = [
        start(
            lab,
            firmware,
            {
                "profiles": [str(path) for path in profiles[n::PROCESSES]],
                "readings": READINGS,
                "interval_ms": 500,
                "spread_ms": SPREAD_MS,
                "until": str(tmp_path / "done"),
            },
            tmp_path / f"task-{n}.json",
        )
        for n in range(PROCESSES)
    ]
    for process in processes:
        process.wait_line(lambda line: '"end"' in line, 200, "the end of the readings")
    used = cpu(charon._process.pid) - before
    up = [event for p in processes for event in p.events if event["event"] == "all up"]
    ends = [event for p in processes for event in p.events if event["event"] == "end"]
    assert [event["errors"] for event in ends] == [{}] * PROCESSES

    # Each reading arrived, once, and its echo came back.
    sent = collections.Counter()
    for event in ends:
        for name, count in event["sent"].items():
            sent.update(f"{name} {n}".encode() for n in range(count))
        assert event["replies"] == event["sent"]
    assert len(sent) == AT_ONCE * READINGS
    arrived = echo.received(AT_ONCE * READINGS)
    assert collections.Counter(line["data"] for line in arrived) == sent
    # Each device speaks from an address of its own.
    owners = collections.defaultdict(set)
    for line in arrived:
        owners[line["data"].split()[0]].add(line["from"])
    addresses = [address for found in owners.values() for address in found]
    assert len(addresses) == len(set(addresses)) == AT_ONCE

    shown = tool("gateway", "list").out
    assert f"{AT_ONCE} devices have a tunnel" in shown
    assert shown.count(" active ") == AT_ONCE

    first = min(event["began"] for event in up)
    seconds = (max(max(event["up"]) for event in up) - first) / 1000
    ours = sum(event["cpu"] for event in ends)
    attempts = sum(event["attempts"] for event in ends)
    with capsys.disabled():
        print(
            f"\nfleet: {DEVICES} devices imported in {imported:.1f} s, told to charon in"
            f" {applied:.1f} s (again: {again:.1f} s)\n"
            f"fleet: {AT_ONCE} tunnels in {PROCESSES} processes up within {seconds:.1f} s:"
            f" {AT_ONCE / seconds:.0f} handshakes/s, {attempts} attempts;"
            f" {len(arrived)} readings, none lost\n"
            f"fleet: CPU a device: charon {1000 * used / AT_ONCE:.1f} ms,"
            f" ours {1000 * ours / AT_ONCE:.1f} ms (handshake and {READINGS} readings)"
        )

    (tmp_path / "done").touch()
    assert [process.wait(60) for process in processes] == [0] * PROCESSES
    assert charon.wait_sas(0) == []
