"""`gateway`, `rotate` and `revoke` against strongSwan, and all that can go wrong between."""

import json
import os
import stat

import pytest

from tools.dev.lab.virtual_board import VirtualBoard
from tools.dev.lab import GATEWAY_4, GATEWAY_ID, SERVER_4
from tools.gateway import config, live
from tools.fleet.inventory import Inventory
from tools.board import rotate
from tools.common.problem import Problem

HERE = ("new", "--gateway", GATEWAY_4, "--gateway-id", GATEWAY_ID, "--server", SERVER_4)
QUICK = {"retries": 0, "retransmit_ms": 100, "retransmit_tries": 6, "interval_ms": 50}


def sensor(lab, inventory, name, readings=1, secrets=None, **changes):
    """Run a device of the inventory in the laboratory, with its own profile and keys."""
    directory = inventory / f"devices/{name}"
    profile = json.loads((directory / "profile.json").read_text())
    secrets = secrets or json.loads((directory / "secrets.json").read_text())
    return lab.sensor({**profile, **QUICK, "log": "json", **changes}, secrets, readings)


def plan(inventory, **options):
    with Inventory(inventory) as found:
        return config.plan(found, **options)


def edit(inventory, name, **changes):
    path = inventory / f"devices/{name}/profile.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# What the configuration says.


@pytest.mark.parametrize(
    "profile, window",
    [
        ({}, 64),  # ticks of 100 ms: 3 s are 30, and 32 for a burst
        ({"sn_tick_ms": 1000}, 64),
        ({"sn_tick_ms": 3600000}, 64),
        ({"sn_tick_ms": 10}, 352),
        ({"sn_tick_ms": 1}, 3040),
    ],
)
def test_the_replay_window_follows_from_the_tick(profile, window):
    assert config.replay_window(profile) == window


def test_one_connection_serves_all_and_each_static_address_has_its_own(tool, inventory):
    tool(*HERE, "--id", "a.example.org")
    tool(*HERE, "--id", "keyid:0x00FF", "--reach", "10.3.0.0/16")
    tool(*HERE, "--id", "c.example.org", "--inner-address", "10.9.1.7", "--pq", "prefer")
    edit(inventory, "a.example.org", sn_tick_ms=10)
    found = plan(inventory)
    shared, own = found.connections.values()
    assert shared["remote"]["id"] == "%any" and shared["pools"] == list(found.pools)
    child = shared["children"]["readings"]
    assert child["local_ts"] == ["10.3.0.0/16"] and child["replay_window"] == "352"
    assert own["remote"]["id"] == "c.example.org" and "pools" not in own
    assert own["children"]["readings"]["remote_ts"] == ["10.9.1.7/32"]
    assert own["proposals"][0].endswith("-ke1_mlkem768") and len(own["proposals"]) == 4
    assert {entry.owner for entry in found.secrets.values()} == {
        "a.example.org",
        "keyid:#00ff",
        "c.example.org",
    }


def test_a_secret_s_name_tells_the_key_but_not_the_octets(tool, inventory):
    tool(*HERE, "--id", "a.example.org", "--ppk")
    first = plan(inventory).secrets
    assert {name[:13] for name in first} == {"ike-minipsec-", "ppk-minipsec-"}
    ppk = next(entry for entry in first.values() if entry.kind == "ppk")
    profile = json.loads((inventory / "devices/a.example.org/profile.json").read_text())
    assert profile["ppk_id"] == ppk.owner
    for name, entry in first.items():
        assert entry.octets.hex()[:8] not in name and "octets" not in repr(entry)
    path = inventory / "devices/a.example.org/secrets.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "psk": "0x" + "11" * 32}))
    assert len(set(plan(inventory).secrets) & set(first)) == 1  # the PPK's is the same


def test_a_pool_that_is_too_small_or_in_the_way_is_told_with_one_that_is_not(tool, inventory):
    rows = "".join(f"s{n}.example.org,{GATEWAY_4},{SERVER_4}\n" for n in range(300))
    (inventory.parent / "f.csv").write_text("id,gateway,server\n" + rows)
    tool("fleet", "import", inventory.parent / "f.csv")
    out = ("gateway", "config", "--out", inventory.parent / "gw")
    said = tool(*out, code=1)
    assert "300 devices ask" in said.err and "--pool 10.9.0.0/23" in said.err
    assert not (inventory.parent / "gw").exists()
    tool(*out, "--pool", "10.9.0.0/23")
    tool(*out)  # it is remembered
    tool("new", "--id", "x.y", "--gateway", GATEWAY_4, "--server", SERVER_4, "--inner-address",
         "10.9.1.5")  # fmt: skip
    assert "which 10.9.0.0/23 gives to other devices" in tool(*out, code=1).err
    assert "expected an IPv4 network" in tool(*out, "--pool", "fd00::/64", code=2).err
    assert "expected an IPv4 network" in tool(*out, "--pool", "10.9", code=2).err


def test_two_gateways_are_told_apart(tool, inventory):
    tool(*HERE, "--id", "a.example.org")
    tool("new", "--id", "b.example.org", "--gateway", "two.example.org", "--server", SERVER_4)
    out = ("gateway", "config", "--out", inventory.parent / "gw")
    assert "--gateway 10.77.0.1 or two.example.org" in tool(*out, code=2).err
    assert "1 secret" in tool(*out, "--gateway", "two.example.org").out
    assert "no device has gateway three" in tool(*out, "--gateway", "three", code=2).err


def test_one_gateway_cannot_have_two_names(tool, inventory):
    tool(*HERE, "--id", "a.example.org")
    tool("new", "--id", "b.example.org", "--gateway", GATEWAY_4, "--server", SERVER_4)
    said = tool("gateway", "config", "--out", inventory.parent / "gw", code=1)
    assert f"expect the gateway to be {GATEWAY_4} and {GATEWAY_ID}" in said.err


def test_an_empty_inventory_has_nothing_to_configure(tool, inventory):
    Inventory(inventory).__exit__()
    assert "no device yet" in tool("gateway", "config", "--out", "x", code=1).err


def test_a_charon_that_is_not_there_is_told_and_nothing_changes(tool, inventory):
    tool(*HERE, "--id", "a.example.org")
    said = tool("gateway", "apply", "--vici", "/tmp/no-such-socket", code=1)
    assert "charon does not answer at /tmp/no-such-socket" in said.err
    assert "systemctl start strongswan" in said.err
    assert "does not answer" in tool("gateway", "list", "--vici", "tcp://127.0.0.1:1", code=1).err
    assert "expected a path or tcp" in tool("gateway", "list", "--vici", "tcp://x", code=2).err


# With a charon.


@pytest.mark.interop
def test_what_is_written_and_what_is_applied_are_the_same_to_strongswan(
    tool, inventory, lab, charon, tmp_path
):
    tool(*HERE, "--id", "a.example.org")
    tool(*HERE, "--id", "keyid:0x00ff", "--inner-address", "10.9.1.7", "--ppk")
    tool("gateway", "config", "--out", charon.directory)
    secrets = charon.directory / "minipsec.secrets"
    assert stat.S_IMODE(os.stat(secrets).st_mode) == 0o600
    text = (charon.directory / "minipsec.conf").read_text()
    assert "secret =" not in text
    said = charon.swanctl("--load-all", "--noprompt", "--file", charon.directory / "minipsec.conf")
    assert "successfully loaded 2 connections" in said and "successfully loaded 1 pools" in said
    assert sensor(lab, inventory, "a.example.org").wait() == 0
    said = tool("gateway", "apply").out
    assert "0 new, 3 known already" in said and "forgotten           0" in said
    assert sensor(lab, inventory, "a.example.org").wait() == 0


@pytest.mark.interop
def test_applied_devices_come_in_and_revoked_ones_do_not(tool, inventory, lab, charon):
    echo = lab.echo()
    for name in ("a.example.org", "b.example.org"):
        tool(*HERE, "--id", name)
    tool("gateway", "apply")
    running = sensor(lab, inventory, "a.example.org", 0)
    running.wait_for("up")
    assert sensor(lab, inventory, "b.example.org").wait() == 0
    echo.received(2)
    secrets = json.loads((inventory / "devices/a.example.org/secrets.json").read_text())
    said = tool("revoke", "a.example.org", "--yes").out
    assert "1 secret forgotten, 1 SA ended" in said
    assert charon.wait_sas(0) == []
    assert not (inventory / "devices/a.example.org/secrets.json").exists()
    refused = sensor(lab, inventory, "a.example.org", secrets=secrets)
    assert refused.wait() == 1
    assert refused.first("error")["notify"] == "AUTHENTICATION_FAILED"
    assert sensor(lab, inventory, "b.example.org").wait() == 0
    assert (
        "0 secrets forgotten, 0 SAs ended" in tool("revoke", "a.example.org", "--yes").out
    )  # again
    assert "is revoked" in tool("rotate", "a.example.org", code=1).err
    assert "is revoked" in tool("push", "a.example.org", "--port", "x", code=1).err
    assert "was revoked" in tool(*HERE, "--id", "a.example.org", code=2).err


@pytest.mark.interop
def test_a_revocation_without_its_gateway_is_finished_by_the_next_command(
    tool, inventory, lab, charon
):
    tool(*HERE, "--id", "a.example.org")
    tool("gateway", "apply")
    running = sensor(lab, inventory, "a.example.org", 0)
    running.wait_for("up")
    said = tool("revoke", "a.example.org", "--yes", "--vici", "/tmp/no-such-socket", code=1)
    assert "the gateway may still let it in" in said.err and "run this again" in said.err
    assert "revoked" in tool("list").out
    said = tool("gateway", "apply").out
    assert "SAs ended: 1" in said
    assert charon.wait_sas(0) == []


@pytest.mark.interop
def test_nobody_takes_the_inner_address_of_another(tool, inventory, lab, charon):
    tool(*HERE, "--id", "a.example.org", "--inner-address", "10.9.1.7")
    tool(*HERE, "--id", "b.example.org", "--inner-address", "10.9.1.8")
    tool("gateway", "apply")
    assert sensor(lab, inventory, "a.example.org").wait() == 0
    thief = sensor(lab, inventory, "b.example.org", inner_address="10.9.1.7")
    assert thief.wait() == 1
    assert thief.first("error")["notify"] == "TS_UNACCEPTABLE"


@pytest.mark.interop
def test_apply_changes_only_what_differs_and_heals_a_restart(tool, inventory, lab, charon):
    for n in range(5):
        tool(*HERE, "--id", f"s{n}.example.org")
    assert "5 new, 0 known" in tool("gateway", "apply").out
    tool(*HERE, "--id", "s5.example.org")
    assert "1 new, 5 known" in tool("gateway", "apply").out
    charon.restart()
    assert "6 new, 0 known" in tool("gateway", "apply").out
    scope = plan(inventory).scope.name
    with charon.vici() as session:
        session.load_shared({"id": "someone-else", "type": "IKE", "data": b"x", "owners": ["o"]})
        old = f"ike-{scope}-{'0' * 16}-{'0' * 8}"
        session.load_shared({"id": old, "type": "IKE", "data": b"x", "owners": ["old"]})
    assert "forgotten           1" in tool("gateway", "apply").out
    with charon.vici() as session:
        assert b"someone-else" in session.get_shared()["keys"]


@pytest.mark.interop
def test_a_line_that_vici_refuses_is_named_and_nothing_stays(
    tool, inventory, lab, charon, monkeypatch
):
    monkeypatch.setattr(live.Charon, "takes", lambda *_: True)
    tool(*HERE, "--id", "a.example.org")
    tool(*HERE, "--id", "b.example.org", "--inner-address", "10.9.1.7")
    edit(inventory, "b.example.org", ike=["aes128ccm16-prfsha256-x25519-ke1_nonsense"])
    said = tool("gateway", "apply", code=1)
    assert f"charon refuses the connection {plan(inventory).scope.name}-b_example_org" in said.err
    assert "nonsense" in said.err or "proposal" in said.err
    with live.Charon(str(charon.socket)) as now:
        assert now.connections() == set() and now.secrets() == set()
    edit(inventory, "b.example.org", ike=["aes128ccm16-prfsha256-x25519"])
    assert "2 new, 0 known" in tool("gateway", "apply").out


@pytest.mark.interop
@pytest.mark.item("J5")
def test_a_pool_that_charon_refuses_is_not_remembered(tool, inventory, lab, charon):
    tool(*HERE, "--id", "a.example.org")
    tool("gateway", "apply")
    running = sensor(lab, inventory, "a.example.org", 0)
    running.wait_for("up")
    said = tool("gateway", "apply", "--pool", "10.9.0.0/25", code=1)
    assert "refuses the pool minipsec" in said.err and "addresses are in use" in said.err
    assert "0 new, 1 known" in tool("gateway", "apply").out
    running.stop()


@pytest.mark.interop
def test_charon_that_dies_meanwhile_is_told(tool, inventory, lab, charon, monkeypatch):
    for n in range(3):
        tool(*HERE, "--id", f"s{n}.example.org")
    real = live.Charon.load_secret

    def dies(self, entry):
        charon.kill()
        real(self, entry)

    monkeypatch.setattr(live.Charon, "load_secret", dies)
    assert "charon went away" in tool("gateway", "apply", code=1).err
    monkeypatch.setattr(live.Charon, "load_secret", real)
    charon.start()
    assert "3 new, 0 known" in tool("gateway", "apply").out


# Rotation, cut short at each step.

MAIN = b"import sensor\nsensor.run([])\n"
PROGRAM = b"""
import time
def run(argv):
    while True:
        print('{"event": "sent"}')
        time.sleep_ms(200)
"""

STEPS = ("push", "load", "unload", "inventory")


@pytest.mark.interop
@pytest.mark.parametrize("step", STEPS)
def test_a_rotation_that_was_cut_short_is_ended_by_the_next_one(
    tool, inventory, lab, charon, tmp_path, monkeypatch, step
):
    """Never does the device end up with a key that only one side knows for good."""
    tool(*HERE, "--id", "a.example.org")
    tool("gateway", "apply")
    old = json.loads((inventory / "devices/a.example.org/secrets.json").read_text())
    small = {"main.py": MAIN, "sensor.py": PROGRAM, "lib/minipsec/__init__.py": INIT}
    monkeypatch.setattr("tools.common.firmware.build", lambda *_: dict(small))
    board = lab.own(VirtualBoard(tmp_path / "board"))
    board.plug()
    tool("push", "a.example.org", "--port", board.port)

    def fail(*_, **__):
        raise Problem("cut short here")

    with monkeypatch.context() as cut:
        target, name = {
            "push": (rotate.Push, "exchange"),
            "load": (live.Charon, "load_secret"),
            "unload": (live.Charon, "terminate"),
            "inventory": (Inventory, "note"),
        }[step]
        cut.setattr(target, name, fail)
        assert (
            "cut short here" in tool("rotate", "a.example.org", "--port", board.port, code=1).err
        )
    if step in ("push", "load"):
        # The old key still opens the gateway.
        assert sensor(lab, inventory, "a.example.org", secrets=old).wait() == 0
    tool("rotate", "a.example.org", "--port", board.port)
    new = json.loads((inventory / "devices/a.example.org/secrets.json").read_text())
    assert new["psk"] != old["psk"]
    with rotate.Board(board.port) as connected:
        assert json.loads(connected.read("secrets.json"))["psk"] == new["psk"]
    assert sensor(lab, inventory, "a.example.org").wait() == 0
    assert sensor(lab, inventory, "a.example.org", secrets=old).wait() == 1


INIT = b"def load_profile():\n    pass\n"


@pytest.mark.interop
def test_a_rotation_needs_both_ends_before_it_begins(tool, inventory, lab, charon, tmp_path):
    tool(*HERE, "--id", "a.example.org")
    before = (inventory / "devices/a.example.org/secrets.json").read_text()
    assert "cannot open" in tool("rotate", "a.example.org", "--port", "/dev/ttyNO", code=1).err
    flags = ("--vici", "/tmp/no-such-socket", "--port", "/dev/ttyNO")
    assert "does not answer" in tool("rotate", "a.example.org", *flags, code=1).err
    assert (inventory / "devices/a.example.org/secrets.json").read_text() == before
    assert not (inventory / "devices/a.example.org/secrets.next.json").exists()


def test_addresses_of_networks_are_gathered():
    profiles = [{"server": f"10.3.0.{n}", "remote_ts": f"10.3.0.{n}/32"} for n in range(4)]
    profiles += [{"server": "fd03::10", "remote_ts": "fd03::10/128"}]
    assert config._reach(profiles) == ["10.3.0.0/30", "fd03::10/128"]
