"""A key of the profile is told once: flags, the page of the profile and errors follow from its row."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tools.fleet import keys

# One row in a group of the firmware's, and nothing else.
ROW = '    yield "moon_phase", 3, number, 1, 9\n'
ANCHOR = '    yield "server", None, address\n'
PAGE = "from tools.dev import docs; print(docs.profile_keys())"
READ = """
import json, sys
from minipsec.config import profile
try:
    print(profile.check_profile(json.loads(sys.argv[1]))["moon_phase"])
except profile.ProfileError as e:
    print(e)
"""


@pytest.fixture(scope="module")
def copy(root, tmp_path_factory):
    """A checkout with one more row."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("firmware", "tools", "boards"):
        shutil.copytree(root / name, copy / name)
    for name in ("pyproject.toml", "package.json"):
        shutil.copy(root / name, copy / name)
    path = copy / "firmware/minipsec/config/profile.py"
    text = path.read_text()
    assert text.count(ANCHOR) == 1
    path.write_text(text.replace(ANCHOR, ANCHOR + ROW))
    return copy


def run(copy, *words, code=0, **env):
    done = subprocess.run(
        [sys.executable, *words],
        cwd=copy,
        env=os.environ | {"COLUMNS": "200", "MINIPSEC_INVENTORY": str(copy / "inventory")} | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_row_is_a_flag_a_column_a_line_of_the_page_and_an_error(copy, root, micropython):
    new = ("-m", "tools", "new", "--id", "a.b", "--gateway", "10.0.0.1", "--server", "10.0.0.2")
    for command in ("new", "edit"):
        assert "--moon-phase" in run(copy, "-m", "tools", command, "--help")
    said = run(copy, *new, "--moon-phase", "12", code=2)
    assert "--moon-phase: expected a whole number from 1 to 9, got '12'" in said
    run(copy, *new, "--moon-phase", "4")
    profile = json.loads((copy / "inventory/devices/a.b/profile.json").read_text())
    assert profile["moon_phase"] == 4
    assert "moon_phase" in run(copy, "-m", "tools", "fleet", "export").splitlines()[0]
    assert "| `moon_phase` | `3` | a whole number from 1 to 9 |  |" in run(copy, "-c", PAGE)
    for value, line in (
        (4, "4"),
        (12, "profile: moon_phase: expected a whole number from 1 to 9"),
    ):
        text = json.dumps({**profile, "moon_phase": value})
        paths = os.pathsep.join([str(copy / "firmware"), str(copy / "tools/dev/shims")])
        assert line in run(copy, "-c", READ, text, PYTHONPATH=paths)


def test_flags_leave_out_no_key_but_those_that_say_why():
    from tools.fleet import device

    flags = {entry.key for entry in device.FIELDS.values()} - {None}
    rows = {row.key for row in keys.rows() if not row.experimental}
    assert rows - flags == set(device._NO_FLAG)


def test_a_profile_of_an_older_version_is_shown_edited_and_served_under_the_keys_of_today(
    tool, device, inventory, tmp_path
):
    path = inventory / "devices" / device / "profile.json"
    profile = json.loads(path.read_text())
    hosts = [profile.pop("gateway"), "other.example.org"]
    old = {"gateways": hosts, "frag_ack": "04", "max_packets": 1000, "gateway_id": "any"}
    path.write_text(json.dumps({**profile, **old}))
    shown = json.loads(tool("show", device, "--json").out)["profile"]
    assert shown["gateway"] == hosts and "gateways" not in shown
    assert shown["frag_ack"] == "03" and shown["experimental"] == {"max_packets": 1000}
    tool("gateway", "config", "--out", tmp_path / "gw")
    tool("edit", device, "--interval", "1min")
    now = json.loads(path.read_text())
    assert now == {**shown, "interval_ms": 60000}
    tool("edit", device, "--gateway", "10.0.0.1")
    assert json.loads(path.read_text())["gateway"] == "10.0.0.1"


def test_several_gateways_are_one_flag(tool, inventory):
    words = ("new", "--id", "a.b", "--server", "10.3.0.10", "--gateway", "gw.example.org,10.0.0.1")
    tool(*words)
    profile = json.loads((inventory / "devices/a.b/profile.json").read_text())
    assert profile["gateway"] == ["gw.example.org", "10.0.0.1"]
    assert profile["gateway_id"] == "gw.example.org"
    assert "just so" in tool(*words).err


def test_a_key_that_is_gone_is_named_with_what_to_do(tool, device, inventory):
    path = inventory / "devices" / device / "profile.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "frag_ack_types": [1, 2, 3]}))
    said = tool("show", device, code=1).err
    assert "frag_ack_types: no longer a key: take it out" in said and str(path) in said
