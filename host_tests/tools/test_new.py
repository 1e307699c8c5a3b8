"""`new`, `list`, `show`, `fleet import` and `fleet export`: what they make and what they refuse."""

import inspect
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from host_tests.tools.conftest import NEW
from tools.fleet import inventory as inventory_module
from tools.fleet.inventory import Inventory
from tools.fleet import commands
from tools.common import files
from tools.fleet.device import FIELDS, device
from tools.common.identity import Identity
from tools.common.problem import Problem

# store.py under CPython is as the board has it; tools/ itself never loads it.
from minipsec.config import profile as store

FULL = {
    "id": "cellar@example.org",
    "gateway": "10.77.0.1",
    "gateway_id": "keyid:0x00FF",
    "server": "10.3.0.10",
    "server_port": "6000",
    "reach": "10.3.0.0/16",
    "inner_address": "10.9.1.5",
    "interval": "5min",
    "board": "RPI_PICO_W",
    "network": "wifi",
    "ssid": "cellar network",
    "wifi_key": "correct horse",
    "country": "DE",
    "security": "wpa3",
    "power_saving": "off",
    "static_ip": "10.0.0.5 255.255.255.0 10.0.0.1 10.0.0.1",
    "pq": "prefer",
    "ppk": "yes",
    "psk": "a key that is long enough",
    "port": "501",
    "natt_port": "4501",
    "sn_tick_ms": "1000",
    "spi": "4097 4098",
    "sleep": "mark",
    "retransmit_ms": "500",
    "retransmit_tries": "4",
    "batch": "8",
    "watchdog_ms": "8000",
    "log": "json",
    "inner_port": "6001",
    "encap": "no",
    "ike": "aes128-sha256-x25519,aes128ccm16-prfsha256-x25519",
    "esp": "aes256ccm16",
    "pq_method": "mlkem512",
    "ppk_required": "no",
    "fragment_size": "1000",
    "fragment_gap_ms": "5",
    "frag_ack": "03",
    "keylog": "keys.csv",
    "esp_pad_to": "64",
    "replay_window": "32",
    "retries": "-1",
    "retry_max_ms": "60000",
    "lifetime_ms": "3600000",
    "liveness_ms": "0",
    "keepalive_ms": "0",
    "silent_wakes": "1",
}


def load(directory):
    """The profile and secrets of a device as the firmware reads them."""
    return store.load_profile(str(directory / "profile.json"))


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_new_device_has_a_profile_that_the_firmware_takes(tool, inventory):
    said = tool(*NEW, "Sensor-1.Example.org", "--interval", "30s")
    directory = inventory / "devices/sensor-1.example.org"
    profile = load(directory)
    assert profile["id"] == (2, b"sensor-1.example.org")
    assert profile["gateway_id"] == (2, b"gw.example.org")
    assert profile["interval_ms"] == 30000
    assert profile["remote_ts"] == (bytes([10, 3, 0, 10]),) * 2
    assert len(profile["psk"]) == 32 and len(profile["seed"]) == 32
    key = json.loads((directory / "secrets.json").read_text())["psk"]
    assert key not in said.out + said.err


def test_every_setting_reaches_the_firmware(tool, inventory, tmp_path):
    """Every field of the table at once; none that the firmware does not know."""
    assert set(FULL) == set(FIELDS)
    flags = inspect.signature(commands.new).parameters
    assert set(FIELDS) - set(flags) == {"psk", "wifi_key"}  # which are no arguments of a command
    keylog = tmp_path / "keys.csv"
    keylog.touch(0o600)
    (tmp_path / "all.json").write_text(json.dumps([{**FULL, "keylog": str(keylog)}]))
    said = tool("fleet", "import", tmp_path / "all.json").err
    assert "privacy" in said and "DoS" in said  # what fixed SPIs cost
    profile = load(inventory / "devices/cellar@example.org")
    assert profile["id"] == (3, b"cellar@example.org")
    assert profile["gateway_id"] == (11, b"\x00\xff")
    assert profile["ssid"] == "cellar network" and profile["wifi_key"] == "correct horse"
    assert profile["psk"] == b"a key that is long enough"
    assert len(profile["ppk"]) == 32 and profile["ppk_id"] == "ppk-cellar@example.org"
    assert profile["batch"] == 8 and profile["watchdog_ms"] == 8000
    assert profile["static_ip"][0] == "10.0.0.5"
    assert profile["spi"] == [4097, 4098]
    assert profile["encap"] is profile["ppk_required"] is False and profile["retries"] == -1
    assert [name for name, _ in profile["ike"]][0] == "aes128-sha256-x25519-ke1_mlkem512"
    # A table that went out and comes in again is the same.
    tool("fleet", "export", tmp_path / "out.csv")
    assert "1 was there already" in tool("fleet", "import", tmp_path / "out.csv").out


def test_fixed_spis_are_told_what_they_cost_and_random_ones_are_not(tool, inventory):
    assert "privacy" not in tool(*NEW, "random.example.org").err
    said = tool(*NEW, "fixed.example.org", "--spi", "4097,4098").err
    assert "privacy" in said and "DoS" in said
    assert load(inventory / "devices/fixed.example.org")["spi"] == [4097, 4098]


def test_each_device_has_a_key_of_its_own(tool, inventory):
    for n in range(3):
        tool(*NEW, f"sensor-{n}.example.org")
    keys = {path.read_text() for path in inventory.glob("devices/*/secrets.json")}
    assert len(keys) == 3


def test_nothing_is_open_to_others_not_even_for_a_moment(inventory, tool, monkeypatch):
    """A permissive umask changes nothing; each secrets file is made closed, by open() itself."""
    made = []
    real = os.open

    def watched(path, flags, mode=0o777, **options):
        if flags & os.O_CREAT and str(inventory) in str(path):
            made.append((str(path), mode))
        return real(path, flags, mode, **options)

    monkeypatch.setattr(files.os, "open", watched)
    before = os.umask(0)
    try:
        tool(*NEW, "sensor-1.example.org")
    finally:
        os.umask(before)
    assert any("secrets.json" in path for path, _ in made)
    assert {mode for _, mode in made} == {0o600}
    assert mode(inventory) == mode(inventory / "devices/sensor-1.example.org") == 0o700
    for path in inventory.rglob("*"):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_no_key_is_in_the_database(tool, device, inventory):
    key = json.loads((inventory / f"devices/{device}/secrets.json").read_text())["psk"]
    octets = b"".join(path.read_bytes() for path in inventory.glob("inventory.db*"))
    assert key.encode() not in octets and bytes.fromhex(key[2:]) not in octets


def test_the_same_command_again_changes_nothing(tool, device, inventory):
    before = (inventory / f"devices/{device}/secrets.json").read_text()
    assert "nothing was changed" in tool(*NEW, device).err
    assert (inventory / f"devices/{device}/secrets.json").read_text() == before
    said = tool(*NEW, device, "--interval", "1h", code=2)
    assert "another interval_ms" in said.err


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--server", "10.3.0"), ("--server", "IPv4 or IPv6 address", "'10.3.0'")),
        (("--interval", "10"), ("--interval", "500ms")),
        (("--interval", "7000h"), ("--interval",)),
        (("--gateway", "gw example"), ("--gateway", "host name")),
        (("--gateway", "10.3.0.300"), ("--gateway",)),
        (("--reach", "10.4.0.0/16"), ("--reach", "does not hold the server")),
        (("--inner-address", "fd00::1"), ("--inner-address", "IPv4")),
        (("--id", "two words"), ("--id", "sensor-1.example.org")),
        (("--id", "../../etc"), ("--id",)),
        (("--id", "keyid:0x0"), ("--id",)),
        (("--id", "keyid:"), ("--id",)),
        (("--id", 'a"b'), ("--id",)),
        (("--network", "wifi"), ("--ssid", "missing")),
        (("--board", "RPI_PICO_W"), ("--ssid", "missing")),
        (("--board", "PICO"), ("--board", "RPI_PICO_W", "'PICO'")),
        (("--sleep", "on"), ("--sleep", "needs the board")),
        (("--board", "RPI_PICO_W", "--ssid", "x", "--sleep", "clock"), ("--sleep", "mark")),
        (("--static-ip", "10.0.0.5 255.255.255.0"), ("--static-ip", "DNS server")),
        (("--pq", "yes"), ("--pq", "off, prefer or require")),
        (("--csv", "x.csv"), ("--csv",)),
    ],
)
def test_a_wrong_flag_is_named_with_what_was_expected(tool, inventory, flags, words):
    said = tool(*NEW, "sensor-1.example.org", *flags, code=2)
    assert all(word in said.err for word in words), said.err
    assert not inventory.exists()


def test_what_is_not_given_is_asked_for_with_the_last_answers_proposed(inventory, tmp_path):
    """On a terminal: a wrong answer is asked again, Enter takes what is proposed."""
    import pty

    tell = ["gw.example.org", "", "sensor 1", "sensor-1.example.org", "10.3.0.10"]
    _converse(pty, tell + [""] * 9)
    _converse(pty, ["", "", "sensor-2.example.org"] + [""] * 9)
    for name in ("sensor-1", "sensor-2"):
        profile = load(inventory / f"devices/{name}.example.org")
        assert profile["gateway"] == ["gw.example.org"]
        assert profile["server"] == bytes([10, 3, 0, 10])


def test_what_a_board_needs_follows_from_it_and_from_the_last_answers(inventory, monkeypatch):
    answers = {
        "The gateway's address": ["10.77.0.1", ""],
        "The device's identity": ["a.example.org", "b.example.org"],
        "Address that readings go to": ["10.3.0.10", ""],
        "The board": ["rpi-pico-w", ""],
        "Its Wi-Fi network": ["cellar", ""],
        "The Wi-Fi key": ["correct horse", ""],
        "Deep sleep": ["on", ""],
    }
    asked = []

    def prompt(question, default=None, hide_input=False, **_):
        asked.append(question)
        found = next(
            (said.pop(0) for start, said in answers.items() if question.startswith(start)), ""
        )
        assert hide_input == question.startswith("The Wi-Fi key")
        return found or default

    monkeypatch.setattr(commands.typer, "prompt", prompt)
    for _ in range(2):
        commands._ask(given := {}, inventory, all_of_it=True)
        with Inventory() as found:
            found.add([device(given)])
    assert not any(question.startswith("How it comes online") for question in asked)
    assert "a.example.org has it" in asked[-2]
    for name in ("a", "b"):
        profile = load(inventory / f"devices/{name}.example.org")
        assert (profile["network"], profile["ssid"]) == ("wifi", "cellar")
        assert (profile["sleep"], profile["watchdog_ms"]) == ("mark", 8000)
        assert profile["wifi_key"] == "correct horse"
    assert not any(answers.values())


@pytest.mark.parametrize(
    "board, gateway, sleep, expected",
    [
        ("RPI_PICO_W", "10.0.0.1", "on", ("mark", 8000)),
        ("RPI_PICO_W", "gw.example.org", None, ("off", 0)),  # a lookup outlasts its watchdog
        ("W5500_EVB_PICO", "10.0.0.1", None, ("off", 8000)),
        ("ESP32_GENERIC", "gw.example.org", "on", ("clock", 30000)),
        ("ESP32_GENERIC_C3", "gw.example.org", "off", ("off", 30000)),
        (None, "10.0.0.1", "clock", ("clock", 0)),
    ],
)
def test_sleep_and_watchdog_are_the_boards(
    tool, inventory, tmp_path, board, gateway, sleep, expected
):
    words = ["new", "--id", "a.b", "--server", "10.3.0.10", "--gateway", gateway]
    words += ["--board", board] if board else []
    words += ["--ssid", "cellar"] if board and "W5500" not in board else []
    words += ["--sleep", sleep] if sleep else []
    tool(*words)
    profile = load(inventory / "devices/a.b")
    assert (profile["sleep"], profile["watchdog_ms"]) == expected
    assert profile["network"] == (
        "up" if not board else "ethernet" if "W5500" in board else "wifi"
    )
    assert "just so" in tool(*words).err
    tool("fleet", "export", tmp_path / "out.csv")
    assert "1 was there already" in tool("fleet", "import", tmp_path / "out.csv").out


def test_a_wifi_key_comes_from_the_environment_and_its_lack_is_told(tool, inventory, monkeypatch):
    words = (*NEW, "a.example.org", "--board", "RPI_PICO_W", "--ssid", "cellar")
    assert "taken for an open one" in tool(*words).err
    monkeypatch.setenv("MINIPSEC_WIFI_KEY", "correct horse")
    said = tool(*words, code=2)
    assert "another wifi_key" in said.err and "secrets.json" in said.err
    assert "correct horse" not in said.out + said.err
    said = tool(*NEW, "b.example.org", "--board", "RPI_PICO_W", "--ssid", "cellar")
    assert "open one" not in said.err
    assert load(inventory / "devices/b.example.org")["wifi_key"] == "correct horse"


def _converse(pty, answers):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tools", "new"], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, "".join(answer + "\n" for answer in answers).encode())
    said = b""
    while True:
        try:
            octets = os.read(ours, 4096)
        except OSError:
            break
        if not octets:
            break
        said += octets
    os.close(ours)
    assert process.wait(30) == 0, said.decode()


def test_flags_that_are_missing_are_named_where_nobody_can_be_asked(tool):
    assert "--gateway: missing" in tool("new", "--id", "a.b", code=2).err


def test_a_crash_between_files_and_row_is_mended_by_the_next_run(tool, inventory):
    with Inventory() as found:
        given = {"id": "sensor-1.example.org", "gateway": "gw", "server": "10.0.0.1"}
        written = found._write(device(given))
    tool(*NEW, "sensor-1.example.org")
    load(written)
    # Who knows whose keys they were: kept, out of the way.
    assert len(list(inventory.glob("devices/.*.left"))) == 1


# Names.


@pytest.mark.parametrize(
    "text, strongswan",
    [
        ("sensor-1.example.org", "sensor-1.example.org"),
        ("a@example.org", "a@example.org"),
        ("keyid:0x00FF10", "keyid:#00ff10"),
        ("keyid:cellar-7", "keyid:cellar-7"),
        ("10.77.0.2", "10.77.0.2"),
        ("fqdn:10.77.0.2", "fqdn:10.77.0.2"),
    ],
)
def test_an_identity_has_one_meaning_here_in_the_firmware_and_in_strongswan(text, strongswan):
    identity = Identity(text)
    assert identity.strongswan == strongswan
    kind, octets = store.identity(identity.text)
    assert kind == {"ipv4": 1, "fqdn": 2, "email": 3, "keyid": 11}[identity.key.split(":")[0]]
    assert "/" not in identity.file_name


def test_two_spellings_of_one_identity_are_one_device(tool, device):
    assert "already" in tool(*NEW, "fqdn:SENSOR-1.example.org").err
    assert Identity("keyid:ab").key == Identity("keyid:0x6162").key


def test_a_device_is_found_by_the_first_part_of_its_name(tool, device):
    assert device in tool("show", "sensor-1").out
    tool(*NEW, "sensor-1.example.com")
    assert "may be any of 2" in tool("show", "sensor-1", code=2).err
    assert "not in the inventory" in tool("show", "sensor", code=2).err


# Fleets.

HEADER = "id,gateway,server,interval,board\n"


def table(tmp_path, text):
    path = tmp_path / "fleet.csv"
    path.write_text(text)
    return path


def test_a_table_comes_in_and_goes_out_again(tool, tmp_path, inventory, monkeypatch):
    rows = "".join(f"s{n}.example.org,gw,10.3.0.10,{n + 1}s,\n" for n in range(20))
    said = tool("fleet", "import", table(tmp_path, HEADER + rows))
    assert "20 devices made" in said.out
    tool("fleet", "export", tmp_path / "out.csv")
    tool("fleet", "export", tmp_path / "out.json")
    text = (tmp_path / "out.csv").read_text()
    assert "psk" not in text and "0x" not in text
    keys = {p.parent.name: p.read_text() for p in inventory.glob("devices/*/secrets.json")}
    assert not any(json.loads(key)["psk"] in text for key in keys.values())
    tool("fleet", "export", tmp_path / "secret.csv", "--with-secrets")
    assert mode(tmp_path / "secret.csv") == 0o600
    for name in ("out.csv", "out.json", "secret.csv"):
        again = tool("fleet", "import", tmp_path / name)
        assert "20 were there already" in again.out
    monkeypatch.setenv("MINIPSEC_INVENTORY", str(tmp_path / "second"))
    tool("fleet", "import", tmp_path / "secret.csv")
    for name, key in keys.items():
        other = json.loads((tmp_path / "second/devices" / name / "secrets.json").read_text())
        assert other["psk"] == json.loads(key)["psk"]


@pytest.mark.parametrize(
    "text, where",
    [
        ("s.x,gw,10.3.0.10,oops,\n", 'row 3, column "interval"'),
        ("s.x,gw,,1s,\n", 'row 3, column "server": missing'),
        ("s.x,gw\n", 'row 3, column "server": missing'),
        ("s.x,gw,10.3.0.10,1s,,more\n", "row 3, column 6: a value in a column without a name"),
        ("s1.example.org,gw,10.3.0.10,1s,\n", 'row 3, column "id": s1.example.org stands already'),
        ('"s.x,gw,10.3.0.10,1s,\n', "column 1"),
        ("s x,gw,10.3.0.10,1s,\n", 'row 3, column "id"'),
    ],
)
def test_a_broken_row_is_named_and_nothing_is_imported(tool, tmp_path, inventory, text, where):
    good = "s1.example.org,gw,10.3.0.10,1s,\n"
    path = table(tmp_path, HEADER + good + text + "s9.example.org,gw,10.3.0.10,1s,\n")
    said = tool("fleet", "import", path, code=2)
    assert where in said.err and "nothing was imported" in said.err
    assert not inventory.exists()
    path.write_text(HEADER + good)
    assert "1 device made" in tool("fleet", "import", path).out


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("id,gateway,server,colour\n", 'column "colour": unknown'),
        ("id,gateway,server,id\n", 'column "id": named twice'),
        ("id,gateway,server\n", "no device"),
    ],
)
def test_a_broken_table_is_named(tool, tmp_path, text, words):
    assert words in tool("fleet", "import", table(tmp_path, text), code=2).err


def test_a_missing_file_and_one_that_is_no_text_are_named(tool, tmp_path):
    assert "cannot read" in tool("fleet", "import", tmp_path / "none.csv", code=2).err
    (tmp_path / "fleet.csv").write_bytes(b"id,gateway,server\n\xff\xfe,gw,10.3.0.10\n")
    assert "not UTF-8 text" in tool("fleet", "import", tmp_path / "fleet.csv", code=2).err
    (tmp_path / "fleet.json").write_text("{")
    assert "not JSON" in tool("fleet", "import", tmp_path / "fleet.json", code=2).err


def test_a_duplicate_of_a_device_in_the_inventory_leaves_all_as_it_was(tool, device, tmp_path):
    rows = f"s1.example.org,gw,10.3.0.10,1s,\n{device},other.example.org,10.3.0.10,10s,\n"
    said = tool("fleet", "import", table(tmp_path, HEADER + rows), code=2)
    assert device in said.err and "gateway" in said.err
    assert "s1.example.org" not in tool("list").out


def test_an_inner_address_belongs_to_one_device(tool, tmp_path):
    flags = ("--inner-address", "10.9.1.5")
    tool(*NEW, "a.example.org", *flags)
    assert "10.9.1.5" in tool(*NEW, "b.example.org", *flags, code=2).err
    text = "id,gateway,server,inner_address\nc.d,gw,10.3.0.1,10.9.1.6\ne.f,gw,10.3.0.1,10.9.1.6\n"
    said = tool("fleet", "import", table(tmp_path, text), code=2)
    assert 'row 3, column "inner_address": 10.9.1.6 stands already in row 2' in said.err


def test_excel_s_semicolons_and_byte_order_mark_are_fine(tool, tmp_path):
    path = tmp_path / "fleet.csv"
    path.write_bytes(b"\xef\xbb\xbfid;gateway;server\r\ns1.example.org;gw;10.3.0.10\r\n")
    assert "1 device made" in tool("fleet", "import", path).out


# The database.


def test_an_inventory_that_another_process_changes_is_named(tool, device, inventory, monkeypatch):
    monkeypatch.setattr(inventory_module, "_WAIT", 0.1)
    other = sqlite3.connect(inventory / "inventory.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    said = tool(*NEW, "sensor-2.example.org", code=1)
    assert "in use by another process" in said.err and "run this again" in said.err
    assert device in tool("list").out  # reading needs no turn
    other.execute("ROLLBACK")
    other.close()
    tool(*NEW, "sensor-2.example.org")


def test_two_processes_take_turns(tool, inventory):
    tool(*NEW, "first.example.org")
    problems = []

    def add(name):
        try:
            with Inventory(inventory) as found:
                wanted = {"id": name, "gateway": "gw", "server": "10.3.0.10"}
                found.add([device(wanted)])
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=add, args=(f"s{n}.example.org",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    with Inventory(inventory) as found:
        assert len(found.rows()) == 9


@pytest.mark.parametrize("version", range(1, len(inventory_module.MIGRATIONS)))
def test_an_inventory_of_each_older_version_is_brought_up_to_date(
    tool, device, inventory, monkeypatch, version
):
    """Made by the code of today with the scripts of then, and opened by the code of today."""
    old = sqlite3.connect(inventory / "old.db")
    for script in inventory_module.MIGRATIONS[:version]:
        old.executescript(script)
    old.execute(f"PRAGMA user_version = {version}")
    old.execute(
        "INSERT INTO devices (key, id, state, gateway, created) VALUES (?, ?, ?, ?, ?)",
        (Identity(device).key, device, "active", "gw.example.org", "2026-01-01T00:00:00+00:00"),
    )
    old.commit()
    old.close()
    os.replace(inventory / "old.db", inventory / "inventory.db")
    for name in ("inventory.db-wal", "inventory.db-shm"):
        (inventory / name).unlink(missing_ok=True)
    assert "active" in tool("show", device).out
    with sqlite3.connect(inventory / "inventory.db") as now:
        (found,) = now.execute("PRAGMA user_version").fetchone()
        assert found == len(inventory_module.MIGRATIONS)
        assert now.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_inventory_of_a_newer_version_is_left_alone(tool, device, inventory):
    with sqlite3.connect(inventory / "inventory.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    assert "newer" in tool("list", code=1).err


def test_a_file_that_is_no_inventory_is_named(tool, device, inventory):
    (inventory / "inventory.db").write_bytes(b"no database" * 1000)
    assert "no inventory" in tool("list", code=1).err


def test_commands_that_need_an_inventory_make_none(tool, inventory):
    assert "there is no inventory" in tool("list", code=1).err
    assert not inventory.exists()


@pytest.mark.item("C2")
@pytest.mark.parametrize("text", ["\u212a.example.org", "fe80::1%eth0", "ipv6:fe80::1%eth0"])
def test_what_only_looks_like_an_identity_is_refused(tool, text):
    assert "--id: expected" in tool(*NEW, text, code=2).err


@pytest.mark.item("J12")
@pytest.mark.parametrize("flag", ["gateway", "server", "reach", "inner_address"])
def test_an_interface_of_this_pc_is_part_of_no_address(tool, flag):
    flags = {"gateway": "gw.example.org", "server": "fd00::1", flag: "fe80::1%eth0"}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    assert "expected" in tool("new", "--id", "a", "--gateway-id", "g", *words, code=2).err


@pytest.mark.item("J12")
def test_an_error_repeats_no_more_than_a_line_of_what_was_typed(tool, device):
    for words in ((*NEW, "x" * 5000), ("show", "x" * 5000)):
        assert len(tool(*words, code=2).err) < 400


@pytest.mark.item("J12")
@pytest.mark.parametrize(
    "text, says",
    [
        ("[" * 100000, "is not JSON"),
        ('[{"id": "a", "id": "b", "gateway": "g", "server": "10.0.0.1"}]', '"id" is named twice'),
    ],
)
def test_a_table_in_json_that_has_no_one_meaning_is_refused(tool, tmp_path, text, says):
    path = tmp_path / "fleet.json"
    path.write_text(text)
    assert says in tool("fleet", "import", path, code=2).err


@pytest.mark.item("J10")
@pytest.mark.parametrize("words", [("fleet", "export"), ("edit", "sensor-1", "--sn-tick-ms", "7")])
def test_a_profile_that_a_hand_spoilt_is_named(tool, device, inventory, words):
    path = inventory / "devices" / device / "profile.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "interval_ms": "soon"}))
    assert "interval_ms: expected a time" in tool(*words, code=1).err


@pytest.mark.item("J10")
def test_an_inventory_that_was_emptied_is_no_new_one(tool, device, inventory):
    for path in inventory.glob("inventory.db*"):
        path.unlink()
    (inventory / "inventory.db").touch()
    assert "restore it from a copy" in tool("list", code=1).err
    assert "restore it from a copy" in tool(*NEW, "another.example.org", code=1).err


@pytest.mark.item("J10")
def test_a_device_whose_files_are_lost_can_be_revoked(tool, device, inventory):
    shutil.rmtree(inventory / "devices")
    assert "cannot read" in tool("edit", device, "--interval", "1min", code=1).err
    tool("revoke", device, "--yes", "--no-gateway")
    assert '"state": "revoked"' in tool("list", "--json").out


@pytest.mark.item("J8")
def test_a_revoked_device_is_not_told_to_be_revoked(tool, device):
    tool("revoke", device, "--yes", "--no-gateway")
    assert "is revoked, and kept" in tool("remove", device, "--yes", code=2).err


@pytest.mark.item("J10")
def test_an_inventory_whose_disk_is_full_says_where_to_look(device, inventory):
    with Inventory(inventory) as found:
        (pages,) = found._db.execute("PRAGMA page_count").fetchone()
        found._db.execute(f"PRAGMA max_page_count = {pages}")  # as a disk without room
        row = found.find(device)
        with pytest.raises(Problem, match="full") as raised:
            for _ in range(1000):
                found.note(row, "x" * 1000)
        assert f"df {inventory}" in raised.value.fix
