"""Everything that an owner does with one device, in order, with nothing taken for granted."""

import functools
import json

import pytest

from tools.dev.lab.virtual_board import VirtualBoard
from tools.dev.lab import GATEWAY_4, GATEWAY_ID, SENSOR_4, SERVER_4, wait_until
from tools.common import firmware

pytestmark = pytest.mark.interop

DEVICE = "cellar.example.org"
ROW = {
    "id": DEVICE,
    "gateway": GATEWAY_4,
    "gateway_id": GATEWAY_ID,
    "server": SERVER_4,
    "interval": "200ms",
    "network": "wifi",
    "ssid": "cellar",
    "wifi_key": "correct horse",
    "retransmit_ms": 200,
    "retransmit_tries": 3,
    "log": "json",
}


def arriving(echo, more=3, timeout=30):
    """Wait until so many more readings have come to the server; return them."""
    before = len(echo.received())
    return echo.received(before + more, timeout)[before:]


@pytest.fixture(autouse=True)
def one_firmware(monkeypatch):
    """Whoever edits firmware/ meanwhile does not disturb."""
    monkeypatch.setattr(firmware, "build", functools.cache(firmware.build))


def test_from_a_board_in_its_box_to_its_revocation(tool, inventory, lab, charon, tmp_path):
    echo = lab.echo()
    (tmp_path / "devices.json").write_text(json.dumps([ROW]))
    tool("fleet", "import", tmp_path / "devices.json")
    tool("gateway", "apply")

    board = lab.own(VirtualBoard(tmp_path / "board", lab.sensor_ns, SENSOR_4))
    board.plug()
    said = tool("push", DEVICE, "--port", board.port)
    assert "known answers came out right" in said.out

    # The board starts from its own file system, and its readings come out behind the gateway.
    up = board.wait_event("up")
    first = arriving(echo)
    assert {line["from"] for line in first} == {up["inner"]} == {"10.9.0.1"}
    numbers = [json.loads(line["data"])["n"] for line in first]
    assert numbers == list(range(numbers[0], numbers[0] + len(first)))
    assert "active  known" in tool("gateway", "list").out
    old = json.loads((inventory / f"devices/{DEVICE}/secrets.json").read_text())

    # Somebody listens, without disturbing it, then asks it.
    assert '"event": "sent"' in tool("pull-log", "--port", board.port, "--seconds", "3").out
    before = board.resets[:]
    said = tool("stats", DEVICE, "--port", board.port, "--seconds", "3").out
    assert "the inventory's" in said and "ESTABLISHED" in said and "readings" in said
    assert board.resets != before
    arriving(echo)
    said = tool("doctor", DEVICE, "--port", board.port)
    assert "all is well" in said.out

    # A new key: readings go on, and the old key opens nothing any more.
    start = len(board.output)
    tool("rotate", DEVICE, "--port", board.port)
    assert board.wait_event("up", start=start)["inner"]
    arriving(echo)
    new = json.loads((inventory / f"devices/{DEVICE}/secrets.json").read_text())
    assert new["psk"] != old["psk"] and new["wifi_key"] == old["wifi_key"]
    assert not (inventory / f"devices/{DEVICE}/secrets.next.json").exists()
    thief = {"id": DEVICE, "retries": 0, "retransmit_ms": 200, "retransmit_tries": 5}
    stolen = lab.sensor(thief, {"psk": old["psk"]}, readings=1)
    assert stolen.wait() == 1
    assert stolen.first("error")["notify"] == "AUTHENTICATION_FAILED"

    # The end of it.
    said = tool("revoke", DEVICE, "--yes")
    assert "1 SA ended" in said.out
    assert charon.wait_sas(0) == []
    board.wait_output('"notify": "AUTHENTICATION_FAILED"', start=start)
    count = len(echo.received())
    said = tool("doctor", DEVICE, "--port", board.port, "--seconds", "20", code=1)
    assert "was revoked" in said.out and "AUTHENTICATION_FAILED" in said.out
    assert len(echo.received()) == count
    assert new["psk"][2:] not in board.output + charon.log()
    history = tool("show", DEVICE).out
    assert all(word in history for word in ("made", "pushed", "rotated", "revoked"))
    assert wait_until(lambda: charon.list_sas() == [], 5, "no SA")
