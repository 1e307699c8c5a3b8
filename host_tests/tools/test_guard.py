"""Tools that guard keys: what a gateway has of us, and that nobody else's is touched."""

import json
import os
import pathlib
import re
import stat
import subprocess
import sys
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.dev.lab import GATEWAY_4, GATEWAY_ID, ROOT, SENSOR_ID, SERVER_4, Charon
from tools.dev.peers.node import PROFILE
from minipsec.config import profile as store
from tools.gateway import config, live
from tools.fleet.inventory import MIGRATIONS, Inventory
from tools.fleet.device import device as checked
from tools.common.identity import Identity
from tools.common.problem import Problem

from . import swanctl_conf
from .test_gateway import HERE, edit, plan, sensor

README = (ROOT / "tools/gateway/swanctl.conf").read_text()
PSK = "0x" + "5a" * 32


def other_inventory(tool, monkeypatch, tmp_path, name):
    """Work on another inventory from now on; return its directory."""
    path = tmp_path / name
    monkeypatch.setenv("MINIPSEC_INVENTORY", str(path))
    return path


def refused(lab, inventory, name, secrets):
    ended = sensor(lab, inventory, name, secrets=secrets)
    assert ended.wait() == 1
    return ended.first("error").get("notify")


def keys_of(inventory, name):
    return json.loads((inventory / f"devices/{name}/secrets.json").read_text())


# C1, C2: identities, against a charon.

NASTY = [
    "keyid:0x00ff",
    "keyid:sensor7",
    "keyid:0x30303a6666",  # reads 00:ff
    "keyid:" + "k" * 20,  # as long as a hash
    "fqdn:10.1.2.5",
    "10.1.2.4",
    "fqdn:10.0.0.1-10.0.0.9",  # a range, were it not quoted as a name
    "a.b+c-d@example.org",
    "keyid:0x2a406578",  # *@ex
    "keyid:0x223b7d0a23",  # ";}\n#
    "fd77::25",
    "UPPER.example.org",
]


@pytest.mark.interop
@pytest.mark.item("C1")
@pytest.mark.item("C2")
@pytest.mark.parametrize("own", [False, True], ids=["pool", "inner"])
@pytest.mark.parametrize("way", ["apply", "config"])
def test_any_identity_comes_in_is_known_and_is_out_when_revoked(
    tool, inventory, lab, charon, own, way
):
    names = [name for name in NASTY if name != "keyid:0x30303a6666"]
    if way == "config":
        names = names[own::2]
    for number, name in enumerate(names):
        tool(*HERE, "--id", name, *(("--inner-address", f"10.8.0.{number + 1}") if own else ()))
    if way == "apply":
        tool("gateway", "apply")
    else:
        tool("gateway", "config", "--out", charon.directory)
        file = charon.directory / "minipsec.conf"
        said = charon.swanctl("--load-all", "--noprompt", "--file", file)
        assert "successfully loaded" in said and not re.search("loading .* failed", said)
    for name in names:
        identity = Identity(name)
        running = sensor(lab, inventory, identity.file_name, 0)
        running.wait_for("up")
        said = tool("gateway", "list").out
        assert re.search(rf"(?m)^{re.escape(identity.text)} +active +known ", said), said
        assert "not here" not in said
        secrets = keys_of(inventory, identity.file_name)
        # Files hold the key still, and are said to, but the gateway is done with it.
        tool("revoke", name, "--yes", code=1 if way == "config" else 0)
        assert charon.wait_sas(0) == []
        running.stop()
        # With the last one, its connection is gone as well.
        assert refused(lab, inventory, identity.file_name, secrets) in (
            "AUTHENTICATION_FAILED",
            "NO_PROPOSAL_CHOSEN",
        )


@pytest.mark.item("C1")
def test_two_identities_that_charon_shows_alike_do_not_stand_in_one_inventory(tool, inventory):
    tool(*HERE, "--id", "keyid:0x00ff")
    said = tool(*HERE, "--id", "keyid:0x30303a6666", code=2)
    assert "strongSwan shows both as 00:ff" in said.err
    tool(*HERE, "--id", "sensor7.example.org")
    assert "shows both" in tool(*HERE, "--id", "keyid:sensor7.example.org", code=2).err
    tool(*HERE, "--id", "10.1.2.3")
    assert "shows both" in tool(*HERE, "--id", "fqdn:10.1.2.3", code=2).err


letters = st.text("aB7_", min_size=1, max_size=5)
names = st.lists(letters, min_size=1, max_size=3).map(".".join)
identities = st.one_of(
    names,
    st.tuples(st.text("aB7_.+-", max_size=4), names).map(lambda t: f"x{t[0]}@{t[1]}"),
    st.binary(min_size=1, max_size=24).map(lambda octets: "keyid:0x" + octets.hex()),
    st.text("aB7_.+-@", max_size=20).map(lambda text: "keyid:k" + text),
    st.ip_addresses().map(str),
    st.text(max_size=12),
    st.text("*#@=/{}:.,\"'\\%a1 \n", max_size=8),
)


@pytest.mark.item("C2")
@settings(deadline=None, max_examples=60)
@given(texts=st.lists(identities, min_size=1, max_size=4), own=st.booleans())
def test_whatever_identity_is_taken_is_the_same_in_the_files(texts, own):
    taken = {}
    for text in texts:
        try:
            taken[Identity(text).shown.lower()] = Identity(text)
        except ValueError:
            continue
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        with Inventory(directory / "inventory") as found:
            for number, identity in enumerate(taken.values()):
                inner = {"inner_address": f"10.8.0.{number + 1}"} if own else {}
                given = {"gateway": "gw", "id": identity.text, "server": SERVER_4, **inner}
                found.add([checked(given)])
            if not taken:
                return
            wanted = config.plan(found)
            config.write_files(wanted, directory / "out")
            assert not wanted.left_out
        written = swanctl_conf.read((directory / "out/minipsec.secrets").read_text())["secrets"]
        owners = {_meaning(entry["id"]) for entry in written.values()}
        assert owners == {(identity.kind, identity.octets) for identity in taken.values()}
        text = (directory / "out/minipsec.conf").read_text()
        connections = swanctl_conf.read(text)["connections"]
        if own:
            ids = {_meaning(entry["remote"]["id"]) for entry in connections.values()}
            assert ids == owners and len(connections) == len(owners)


def _meaning(text):
    """What strongSwan makes of an identity (identification_create_from_string): kind and octets."""
    for kind in ("keyid", "fqdn", "email"):
        if text.startswith(kind + ":"):
            rest = text[len(kind) + 1 :]
            return kind, bytes.fromhex(rest[1:]) if rest[0] == "#" else rest.encode()
    assert not re.search(r"[=*%{}/#]", text)
    kind = "email" if "@" in text else "ipv6" if ":" in text else "fqdn"
    if re.fullmatch(r"[\d.]+", text):
        kind = "ipv4"
    assert kind != "fqdn" or re.search("[a-z]", text)
    return kind, text.encode()


@pytest.mark.item("C2")
def test_an_identity_in_a_table_cannot_add_a_connection(tool, inventory, tmp_path):
    bad = "x\n}\nconnections { evil { remote { id = %any } } }"
    (tmp_path / "f.csv").write_text(f'id,gateway,server\n"{bad}",gw.example.org,10.3.0.10\n')
    said = tool("fleet", "import", tmp_path / "f.csv", code=2).err
    assert 'column "id": a character that nobody sees' in said
    (tmp_path / "f.csv").write_text('id,gateway,server\n"x } evil {",gw.example.org,10.3.0.10\n')
    assert "expected an identity" in tool("fleet", "import", tmp_path / "f.csv", code=2).err


@pytest.mark.item("C2")
@pytest.mark.parametrize(
    "change",
    [
        {"gateway_id": "gw }\nconnections {"},
        {"gateway_id": "*.example.org"},
        {"gateway_id": "any", "gateway": 17},
        {"gateway_id": "any", "gateway": None},
        {"ike": ["aes128-sha256-x25519\n}"]},
        {"ike": "aes128-sha256-x25519,"},
        {"esp": ['aes128"']},
        {"server": "10.3.0.10, 0.0.0.0/0"},
        {"remote_ts": "everything"},
        {"inner_address": "10.8.0.5/8"},
        {"sn_tick_ms": "soon"},
        {"pq_method": "mlkem769", "pq": "require"},
        {"server": None},
        {"id": "other.example.org"},
    ],
)
@pytest.mark.item("J10")
def test_a_profile_that_a_hand_damaged_is_left_out_and_named_and_spoils_nothing(
    tool, inventory, tmp_path, change
):
    tool(*HERE, "--id", "a.example.org")
    tool(*HERE, "--id", "b.example.org")
    edit(inventory, "b.example.org", **change)
    said = tool("gateway", "config", "--out", tmp_path / "gw", code=1)
    assert "1 connection, 1 secret" in said.out
    assert "1 device left out; all others are served" in said.err
    assert "b.example.org: " in said.err
    written = (tmp_path / "gw/minipsec.conf").read_text()
    assert "evil" not in written and list(swanctl_conf.read(written)["connections"])


@pytest.mark.item("E2")
@pytest.mark.parametrize("key", ["ike", "esp"])
@pytest.mark.parametrize(
    "shape",
    [
        "{}",
        "{}, {}",
        " {} ,{}",
        "{},",
        "",
        ["{}"],
        ["{}", " {}\t"],
        ["{}", ""],
        ["{}", 7],
        [],
        {},
        7,
    ],
    ids=repr,
)
def test_proposals_of_any_shape_are_read_as_the_firmware_reads_them(key, shape):
    word = {"ike": "AES128-sha256-x25519", "esp": "aes128ccm8"}[key]
    given = shape
    if isinstance(shape, str):
        given = shape.replace("{}", word)
    elif isinstance(shape, list):
        given = [one.replace("{}", word) if isinstance(one, str) else one for one in shape]
    try:
        ours = [name for name, _ in store.check_profile(dict(PROFILE, **{key: given}))[key]]
    except ValueError:
        with pytest.raises(Problem):
            config._proposals(given, key)
    else:
        assert config._proposals(given, key) == ours


@pytest.mark.item("E2")
def test_a_profile_with_several_gateways_needs_no_single_one(tool, inventory, tmp_path):
    tool(*HERE, "--id", "a.example.org")
    path = inventory / "devices/a.example.org/profile.json"
    profile = json.loads(path.read_text())
    del profile["gateway"]
    path.write_text(json.dumps({**profile, "gateways": ["192.0.2.7"], "gateway_id": "any"}))
    tool("gateway", "config", "--out", tmp_path / "gw")
    assert "192.0.2.7" in (tmp_path / "gw/minipsec.conf").read_text()


@pytest.mark.item("J10")
def test_files_that_are_no_json_or_are_gone_are_left_out_too(tool, inventory, tmp_path):
    for name in "abcd":
        tool(*HERE, "--id", f"{name}.example.org")
    (inventory / "devices/b.example.org/profile.json").write_text("{")
    (inventory / "devices/c.example.org/secrets.json").unlink()
    (inventory / "devices/d.example.org/secrets.json").write_text('{"psk": "0xzz"}')
    said = tool("gateway", "config", "--out", tmp_path / "gw", code=1)
    assert "3 devices left out" in said.err
    assert "b.example.org" in tool("list").out


@pytest.mark.interop
@pytest.mark.item("J10")
def test_a_damaged_device_keeps_what_charon_has_of_it(tool, inventory, lab, charon):
    tool(*HERE, "--id", "a.example.org")
    tool(*HERE, "--id", "b.example.org", "--inner-address", "10.8.0.5")
    tool("gateway", "apply")
    profile = (inventory / "devices/b.example.org/profile.json").read_text()
    (inventory / "devices/b.example.org/profile.json").write_text("{")
    assert "b.example.org: " in tool("gateway", "apply", code=1).err
    assert "b.example.org" in tool("gateway", "list").out
    (inventory / "devices/b.example.org/profile.json").write_text(profile)
    assert sensor(lab, inventory, "b.example.org").wait() == 0


# C3


@pytest.mark.item("C3")
def test_a_wildcard_of_an_older_inventory_is_not_served_and_can_be_revoked(
    tool, inventory, tmp_path
):
    tool(*HERE, "--id", "a@example.org")
    with Inventory(inventory) as found, found.changing() as db:
        wild = f"email:{b'*@example.org'.hex()}"
        db.execute("UPDATE devices SET id = '*@example.org', key = ?", (wild,))
        (found.devices / "a@example.org").rename(found.devices / "%2A@example.org")
    edit(inventory, "%2A@example.org", id="*@example.org")
    said = tool("gateway", "config", "--out", tmp_path / "gw", code=1)
    assert "takes its identity for several devices: revoke it" in said.err
    assert "*@" not in (tmp_path / "gw/minipsec.secrets").read_text()
    tool("revoke", "*@example.org", "--yes", "--no-gateway")
    assert "revoked" in tool("list").out


# C1, C3: charon takes a secret when its owner is at either end, so nobody has a gateway's name.

GATEWAYS = [  # --gateway-id, and a device that is the same
    ("gw.example.org", "GW.example.org"),
    ("keyid:gw", "keyid:0x6777"),
    ("a@example.org", "A@example.org"),
    ("any", GATEWAY_4),
]


def renamed(inventory, old, new):
    """Give a device an identity that `new` would refuse, as an older inventory may have it."""
    identity = Identity(new)
    with Inventory(inventory) as found, found.changing() as db:
        db.execute("UPDATE devices SET id = ?, key = ? WHERE id = ?", (new, identity.key, old))
        (found.devices / old).rename(found.devices / identity.file_name)
    edit(inventory, identity.file_name, id=new)


@pytest.mark.item("C1")
@pytest.mark.item("C3")
@pytest.mark.parametrize("gateway, name", GATEWAYS)
def test_no_device_has_the_identity_of_a_gateway(tool, inventory, tmp_path, gateway, name):
    here = ("--gateway", GATEWAY_4, "--gateway-id", gateway, "--server", SERVER_4)
    other = ("--gateway", "two.example.org", "--server", SERVER_4)
    assert "is the gateway of" in tool("new", *here, "--id", name, code=2).err
    tool("new", *here, "--id", "a.example.org")
    assert "is the gateway of a.example.org" in tool("new", *other, "--id", name, code=2).err
    (tmp_path / "f.csv").write_text(
        f"id,gateway,server\nb.example.org,two.example.org,{SERVER_4}\n"
        f"{name},two.example.org,{SERVER_4}\n"
    )
    said = tool("fleet", "import", tmp_path / "f.csv", code=2)
    assert "is the gateway of a.example.org" in said.err
    with Inventory(inventory) as found:
        assert [row["id"] for row in found.rows()] == ["a.example.org"]


@pytest.mark.item("C1")
@pytest.mark.item("C3")
def test_no_gateway_has_the_identity_of_a_device_that_is_not_revoked(tool, inventory):
    tool(*HERE, "--id", "a.example.org")
    tool(*HERE, "--id", "b.example.org")
    words = ("--gateway-id", "b.example.org")
    said = tool("edit", "a.example.org", *words, code=2)
    assert "cannot be b.example.org, which is a device" in said.err
    assert "which is a device" in tool("edit", "b.example.org", *words, code=2).err
    given = ("--gateway", "b.example.org", "--server", SERVER_4)
    assert "which is a device" in tool("new", *given, "--id", "c.example.org", code=2).err
    tool("revoke", "b.example.org", "--yes", "--no-gateway")
    tool("edit", "a.example.org", *words)


@pytest.mark.item("C1")
@pytest.mark.item("C3")
@pytest.mark.parametrize("gateway, name", GATEWAYS)
def test_a_gateway_s_name_in_an_older_inventory_is_left_out_and_named(
    tool, inventory, tmp_path, gateway, name
):
    """Of another gateway, too: both may be one charon."""
    name = Identity(name).text
    tool("new", "--gateway", GATEWAY_4, "--gateway-id", gateway, "--server", SERVER_4,
         "--id", "a.example.org")  # fmt: skip
    for old in ("b.example.org", "c.example.org"):
        tool("new", "--gateway", "two.example.org", "--server", SERVER_4, "--id", old)
    renamed(inventory, "b.example.org", name)
    words = ("gateway", "config", "--gateway", "two.example.org", "--out", tmp_path / "gw")
    said = tool(*words, code=1)
    assert f"{name}: it is the gateway of a.example.org, too" in said.err
    assert "1 connection, 1 secret" in said.out
    assert "gets no new key" in tool("rotate", name, "--no-gateway", code=1).err
    tool("revoke", name, "--yes", "--no-gateway")
    tool(*words)


@pytest.mark.interop
@pytest.mark.item("C1")
@pytest.mark.item("C3")
def test_charon_loses_the_key_of_a_device_that_is_named_as_a_gateway_of_it(
    tool, inventory, lab, charon
):
    """An older inventory's, told already; then one that only a connection of another's names."""
    tool(*HERE, "--id", "a.example.org")
    tool(*HERE, "--id", "b.example.org")
    tool(*HERE, "--id", "keyid:0x6f6e65")
    renamed(inventory, "b.example.org", GATEWAY_ID)
    with pytest.MonkeyPatch.context() as before:
        before.setattr(config, "as_gateway", lambda *_: lambda _: None)
        tool("gateway", "apply")
    keys = keys_of(inventory, GATEWAY_ID)
    never = {"id": "never.example.org"}
    assert sensor(lab, inventory, "a.example.org", secrets=keys, **never).wait() == 0
    said = tool("gateway", "apply", code=1)
    assert f"{GATEWAY_ID}: it is the gateway of a.example.org, too" in said.err
    ended = sensor(lab, inventory, "a.example.org", secrets=keys, **never)
    assert ended.wait() == 1
    assert ended.first("error")["notify"] == "AUTHENTICATION_FAILED"
    assert sensor(lab, inventory, "a.example.org").wait() == 0
    with charon.vici() as session:
        session.load_conn({"theirs": {"local": {"id": "keyid:one"}, "remote": {"id": "keyid:x"}}})
    said = tool("gateway", "apply", code=1)
    assert "2 devices left out" in said.err
    assert "it is local.id of charon's connection theirs" in said.err
    with live.Charon(str(charon.socket)) as told:
        assert len(told.secrets()) == 1


# C4, C5: revoked is revoked.


@pytest.mark.item("C4")
def test_a_device_that_is_revoked_while_apply_plans_is_no_damaged_one(
    tool, inventory, monkeypatch
):
    for name in "abc":
        tool(*HERE, "--id", f"{name}.example.org")
    real = Inventory.profile

    def meanwhile(found, row):
        """Two other administrators: one revokes b, one removes c, whose rows we have read."""
        if row["id"] == "a.example.org":
            monkeypatch.setattr(Inventory, "profile", real)
            tool("revoke", "b.example.org", "--yes", "--no-gateway")
            tool("remove", "c.example.org", "--yes")
        return real(found, row)

    monkeypatch.setattr(Inventory, "profile", meanwhile)
    planned = plan(inventory)
    assert [identity.text for identity in planned.devices] == ["a.example.org"]
    assert [identity.text for identity in planned.revoked] == ["b.example.org"]
    assert not planned.left_out


def on_a_disk_of_its_own(inventory, script):
    """Run a script of a shell, $1 the inventory on a small file system; return what it says."""
    inventory.mkdir()
    mount = 'mount -t tmpfs -o size=1m none "$1"; '
    script = mount + script.replace("TOOLS", f"'{sys.executable}' -m tools")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", script, "sh", inventory],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


@pytest.mark.interop
@pytest.mark.item("C4")
def test_a_revocation_that_a_full_disk_stops_says_that_nothing_is_revoked(inventory, lab):
    made = " ".join(HERE)
    said = on_a_disk_of_its_own(
        inventory,
        f"""
        TOOLS {made} --id a.example.org >/dev/null
        cat /dev/zero >"$1/full" 2>/dev/null || true
        TOOLS revoke a --yes --no-gateway || echo "code $?"
        TOOLS list
        test -s "$1/devices/a.example.org/secrets.json" && echo the key is there
        rm "$1/full"
        TOOLS revoke a --yes --no-gateway
        """,
    )
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "is not revoked: its key is still here, and good at the gateway; " in error
    assert f"df {inventory}" in error and "then run this again" in error
    assert "code 1" in said and "the key is there" in said
    assert said.index("1 new") < said.index("a.example.org is revoked")


@pytest.mark.interop
@pytest.mark.item("J10")
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "killed"])
def test_an_inventory_that_cannot_be_written_can_be_read(inventory, lab, charon, ended):
    """Also where the last process that wrote was killed, and what it wrote is in the journal."""
    write = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1] + '/inventory.db');"
        "db.execute('UPDATE devices SET board = 5'); db.commit();"
        + ("db.close()" if ended else "os._exit(0)")
    )
    said = on_a_disk_of_its_own(
        inventory,
        f"TOOLS {' '.join(HERE)} --id a.example.org >/dev/null; TOOLS gateway apply >/dev/null;"
        f"'{sys.executable}' -c \"{write}\" \"$1\"; ls \"$1\"; mount -o remount,ro \"$1\";"
        "TOOLS list --json; TOOLS show a; TOOLS gateway list;"
        'TOOLS revoke a --yes --no-gateway || echo "code $?"',
    )
    assert ("inventory.db-wal" in said) != ended
    assert '"board": "5"' in said and "0 devices have a tunnel" in said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "a.example.org is not revoked" in error and "may you write there?" in error
    assert "code 1" in said


@pytest.mark.item("C4")
def test_a_key_that_cannot_be_deleted_stops_no_revocation_and_is_told(
    tool, device, inventory, monkeypatch
):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as change:
        change.setattr(pathlib.Path, "unlink", refuse)
        said = tool("revoke", device, "--yes", "--no-gateway", code=1)
    assert f"its keys are still here: {inventory}/devices/" in said.err
    assert "revoked" in tool("list").out
    directory = inventory / f"devices/{device}"
    # As `rotate` leaves it when the power goes.
    (directory / ".secrets.next.json.4711").write_text('{"psk": "0x00"}')
    tool("revoke", device, "--no-gateway")
    assert [path.name for path in directory.iterdir()] == ["profile.json"]


@pytest.mark.interop
@pytest.mark.item("C4")
@pytest.mark.parametrize("when", ["before", "after"])
def test_no_apply_that_is_under_way_undoes_a_revocation(
    tool, inventory, lab, charon, monkeypatch, when
):
    for name in "abc":
        tool(*HERE, "--id", f"{name}.example.org")
    secrets = keys_of(inventory, "b.example.org")
    real, codes = live.Charon.load_secret, []
    monkeypatch.setattr("tools.fleet.inventory._WAIT_GATEWAY", 0.3)

    def slow(self, entry):
        """The other administrator revokes just before, or just after, b's key is loaded."""
        if when == "after":
            real(self, entry)
        if (
            not codes
            and entry.identity.text == ("a" if when == "before" else "b") + ".example.org"
        ):
            words = ["revoke", "b.example.org", "--yes", "--vici", self.address]
            codes.append(subprocess.run([sys.executable, "-m", "tools", *words], check=False))
        if when == "before":
            real(self, entry)

    monkeypatch.setattr(live.Charon, "load_secret", slow)
    tool("gateway", "apply")
    # It could not be sure of it, and says so; the same command again is.
    assert codes[0].returncode == 1
    assert refused(lab, inventory, "b.example.org", secrets) == "AUTHENTICATION_FAILED"
    assert "0 SAs ended" in tool("revoke", "b.example.org").out
    assert sensor(lab, inventory, "a.example.org").wait() == 0


@pytest.mark.item("C4")
def test_a_secret_that_changed_while_apply_was_under_way_is_not_loaded(tool, inventory):
    from tools.gateway.commands import _guard

    tool(*HERE, "--id", "a.example.org")
    with Inventory(inventory) as found:
        (entry,) = config.plan(found).secrets.values()
        with _guard(found, entry) as good:
            assert good
        path = inventory / "devices/a.example.org/secrets.json"
        path.write_text(json.dumps({"psk": PSK}))
        with _guard(found, entry) as good:
            assert not good


@pytest.mark.interop
@pytest.mark.item("C5")
def test_a_revocation_is_not_done_before_the_files_are_written_anew(
    tool, inventory, lab, tmp_path, monkeypatch
):
    out = tmp_path / "conf.d"
    for name in "ab":
        tool(*HERE, "--id", f"{name}.example.org")
    tool("gateway", "config", "--out", out)
    include = f"include {out}/minipsec.conf\n"
    charon = lab.charon(config=include, secrets={"x": PSK})
    monkeypatch.setenv("MINIPSEC_VICI", str(charon.socket))
    secrets = keys_of(inventory, "b.example.org")
    assert sensor(lab, inventory, "b.example.org").wait() == 0
    for _ in range(2):
        said = tool("revoke", "b.example.org", "--yes", code=1)
        assert f"files still let it in when they are loaded: {out}/minipsec.secrets" in said.err
        assert charon.wait_sas(0) == []
    tool("gateway", "config", "--out", out)
    tool("revoke", "b.example.org")
    charon.restart()
    assert refused(lab, inventory, "b.example.org", secrets) == "AUTHENTICATION_FAILED"
    assert sensor(lab, inventory, "a.example.org").wait() == 0


@pytest.mark.item("C5")
def test_files_that_were_moved_away_are_not_forgotten(tool, inventory, tmp_path):
    tool(*HERE, "--id", "a.example.org")
    tool(*HERE, "--id", "b.example.org")
    tool("gateway", "config", "--out", tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    said = tool("revoke", "a.example.org", "--yes", "--no-gateway", code=1)
    assert "now elsewhere, held it" in said.err
    tool("gateway", "config", "--out", tmp_path / "three")
    tool("revoke", "a.example.org", "--no-gateway")


@pytest.mark.interop
@pytest.mark.item("C1")
def test_a_device_that_another_secret_lets_in_is_not_called_revoked(tool, inventory, lab, charon):
    tool(*HERE, "--id", "a.example.org")
    tool("gateway", "apply")
    psk = keys_of(inventory, "a.example.org")["psk"]
    with live.Charon(str(charon.socket)) as told:
        told.vici.load_shared(
            {
                "id": "by-hand",
                "type": "IKE",
                "data": bytes.fromhex(psk[2:]),
                "owners": ["a.example.org"],
            }
        )
        for name in told.secrets():
            told.unload_secret(name)
    running = sensor(lab, inventory, "a.example.org", 0)
    running.wait_for("up")
    said = tool("revoke", "a.example.org", "--yes", code=1)
    assert "by a secret that is not from here" in said.err


@pytest.mark.interop
@pytest.mark.item("C1")
def test_a_charon_that_says_yes_and_does_nothing_is_not_believed(
    tool, inventory, lab, charon, monkeypatch
):
    tool(*HERE, "--id", "a.example.org")
    tool("gateway", "apply")
    sensor(lab, inventory, "a.example.org", 0).wait_for("up")
    monkeypatch.setattr(live, "_PATIENCE", 0.5)
    with monkeypatch.context() as deaf:
        deaf.setattr(live.Charon, "unload_secret", lambda *_: None)
        assert "1 keys of a.example.org" in tool("revoke", "a.example.org", "--yes", code=1).err
    tool("revoke", "a.example.org")
    assert charon.wait_sas(0) == []
    tool(*HERE, "--id", "b.example.org")
    tool("gateway", "apply")
    sensor(lab, inventory, "b.example.org", 0).wait_for("up")
    with monkeypatch.context() as deaf:
        deaf.setattr(live.Charon, "_terminate", lambda *_: [])
        assert "1 SAs and 0 keys" in tool("revoke", "b.example.org", "--yes", code=1).err
    assert "1 SA ended" in tool("revoke", "b.example.org").out


# C6, J2: README's own connections.


@pytest.mark.interop
@pytest.mark.item("C6")
@pytest.mark.item("J2")
def test_what_readme_has_a_person_write_is_left_alone(tool, inventory, lab, monkeypatch, tmp_path):
    static = "s.static.example.org"
    charon = lab.charon(secrets={SENSOR_ID: PSK, static: PSK})
    monkeypatch.setenv("MINIPSEC_VICI", str(charon.socket))
    lab.echo()
    tool(*HERE, "--id", "a.example.org")
    hand = {"gateway_id": GATEWAY_ID, "server": SERVER_4, "retransmit_ms": 200, "retries": 0}
    running = lab.sensor({**hand, "id": SENSOR_ID}, {"psk": PSK}, 0)
    running.wait_for("up")
    for _ in range(2):
        tool("gateway", "apply")
        with charon.vici() as session:
            assert {b"minipsec", b"minipsec-static"} < set(session.get_conns()["conns"])
        assert sensor(lab, inventory, "a.example.org").wait() == 0
        inner = {"id": static, "inner_address": "10.9.1.7"}
        assert lab.sensor({**hand, **inner}, {"psk": PSK}, 1).wait() == 0
    # No address is given out twice.
    sensor(lab, inventory, "a.example.org", 0).wait_for("up")
    vips = [sa["remote-vips"][0] for sa in charon.list_sas() if "remote-vips" in sa]
    assert len(vips) == len(set(vips)) == 2
    # What the owner loads again takes ours away; that is seen, and mended by one command.
    charon.load()
    assert "`swanctl --load-all` undid `gateway apply`" in tool("gateway", "list").err
    tool("gateway", "apply")
    assert "undid" not in tool("gateway", "list").err


# C7


@pytest.mark.interop
@pytest.mark.item("C7")
def test_a_charon_without_ml_kem_serves_all_that_do_not_insist_on_it(
    tool, inventory, lab, charon, monkeypatch
):
    monkeypatch.setattr(live.Charon, "lacking", lambda _: list(config.METHODS))
    tool(*HERE, "--id", "a.example.org")
    tool(*HERE, "--id", "b.example.org", "--pq", "prefer")
    tool(*HERE, "--id", "d.example.org", "--pq", "prefer", "--inner-address", "10.8.0.7")
    said = tool("gateway", "apply")
    assert "charon has no ML-KEM: 2 devices, b.example.org for one, will do with" in said.err
    for name in "abd":
        assert sensor(lab, inventory, f"{name}.example.org").wait() == 0
    tool(*HERE, "--id", "c.example.org", "--pq", "require")
    said = tool("gateway", "apply", code=1)
    assert "c.example.org: charon takes none of what its profile offers" in said.err
    assert "ML-KEM needs strongSwan 6" in said.err
    assert sensor(lab, inventory, "a.example.org").wait() == 0


@pytest.mark.interop
@pytest.mark.item("C7")
def test_a_proposal_that_charon_does_not_know_spoils_nothing_for_the_others(
    tool, inventory, lab, charon
):
    for name in "abc":
        tool(*HERE, "--id", f"{name}.example.org")
    edit(inventory, "b.example.org", esp=["aes128ccm8iiv"])
    edit(inventory, "c.example.org", ike=["aes128-nonsense-x25519", "aes128-sha256-x25519"])
    said = tool("gateway", "apply", code=1)
    assert "1 device left out" in said.err and "b.example.org: charon takes none" in said.err
    assert "charon has no aes128-nonsense-x25519: 1 device, c.example.org for one" in said.err
    assert sensor(lab, inventory, "a.example.org").wait() == 0
    good = {"ike": ["aes128-sha256-x25519"]}
    assert sensor(lab, inventory, "c.example.org", **good).wait() == 0
    with charon.vici() as session:
        assert len(session.get_conns()["conns"]) == 1


@pytest.mark.interop
@pytest.mark.item("C7")
def test_charon_is_asked_what_it_has(lab, charon):
    with live.Charon(str(charon.socket)) as told:
        version = told.vici.version()["version"].decode()
        if version.startswith("5."):
            assert told.lacking() == ["mlkem512", "mlkem768", "mlkem1024"]
        else:
            known = str(told.vici.get_algorithms())
            assert all((name.replace("mlkem", "ML_KEM_") in known) == (name not in told.lacking())
                       for name in config.METHODS)  # fmt: skip


# C9, C10


@pytest.mark.item("C9")
@pytest.mark.parametrize("address, warns", [("tcp://192.0.2.1:1", True), ("tcp://127.0.0.1:1", False),
                                            ("tcp://[::1]:1", False), ("tcp://localhost:1", False),
                                            ("tcp://example.invalid:1", True)])  # fmt: skip
def test_keys_over_a_network_are_warned_of(tool, inventory, device, monkeypatch, address, warns):
    monkeypatch.setattr("tools.gateway.live._TIMEOUT", 0.05)
    said = tool("gateway", "apply", "--vici", address, code=1)
    assert ("every key goes over the network readable" in said.err) == warns


@pytest.mark.item("C9")
def test_no_cell_of_an_export_is_a_formula_and_it_comes_back_as_it_was(
    tool, inventory, tmp_path, monkeypatch
):
    for number, ssid in enumerate(("=1+2", "+x", "-x", "@SUM(A1)", "'=x", "'plain")):
        wifi = ("--network", "wifi", "--ssid", ssid)
        tool(
            "new",
            "--gateway",
            "gw.example.org",
            "--server",
            SERVER_4,
            "--id",
            f"d{number}.x",
            *wifi,
        )
    tool("fleet", "export", tmp_path / "f.csv")
    text = (tmp_path / "f.csv").read_text()
    assert not re.search(r"(?m)(^|,)\"?[=+@-]", text)
    back = other_inventory(tool, monkeypatch, tmp_path, "back")
    tool("fleet", "import", tmp_path / "f.csv")
    for number, ssid in enumerate(("=1+2", "+x", "-x", "@SUM(A1)", "'=x", "'plain")):
        assert json.loads((back / f"devices/d{number}.x/profile.json").read_text())["ssid"] == ssid


@pytest.mark.item("C10")
def test_a_directory_is_closed_by_700_and_a_file_by_600(tool, inventory, device, tmp_path):
    from tools.common.files import check_closed

    path = inventory / f"devices/{device}/secrets.json"
    for target, mode in ((path, "600"), (path.parent, "700")):
        os.chmod(target, 0o755)
        with pytest.raises(Problem) as problem:
            check_closed(target)
        assert problem.value.fix == f"chmod {mode} {target}"


# J1


@pytest.mark.interop
@pytest.mark.item("J1")
def test_two_inventories_and_two_names_of_one_charon_leave_each_other_alone(
    tool, inventory, lab, charon, monkeypatch, tmp_path
):
    tool(*HERE, "--id", "a.example.org")
    tool("gateway", "apply")
    second = other_inventory(tool, monkeypatch, tmp_path, "second")
    tool(*HERE, "--id", "b.example.org")
    tool("new", "--id", "c.example.org", "--gateway", "fd77::1", "--gateway-id", GATEWAY_ID,
         "--server", SERVER_4)  # fmt: skip
    for host in (GATEWAY_4, "fd77::1", GATEWAY_4):
        said = tool("gateway", "apply", "--gateway", host).out
        assert "forgotten           0" in said
    edit(second, "c.example.org", gateway=GATEWAY_4)
    for path, name in ((inventory, "a"), (second, "b"), (second, "c")):
        assert sensor(lab, path, f"{name}.example.org").wait() == 0
    with live.Charon(str(charon.socket)) as told:
        assert len(told.secrets()) == 3


@pytest.mark.interop
@pytest.mark.item("J1")
@pytest.mark.item("J2")
def test_another_s_connection_for_anybody_is_not_in_the_way(
    tool, inventory, lab, charon, monkeypatch, tmp_path
):
    """Same gateway, same gateway_id, but another server: charon takes the older one of two."""
    tool("new", "--gateway", GATEWAY_4, "--gateway-id", GATEWAY_ID, "--server", "10.4.0.1",
         "--id", "a.example.org")  # fmt: skip
    tool("gateway", "apply")
    second = other_inventory(tool, monkeypatch, tmp_path, "second")
    tool(*HERE, "--id", "b.example.org")
    said = tool("gateway", "apply")
    assert "takes anybody, with other settings" in said.err
    assert sensor(lab, second, "b.example.org").wait() == 0
    assert "takes anybody" in tool("gateway", "apply").err
    tool("revoke", "b.example.org", "--yes")
    with charon.vici() as session:
        assert len(session.get_conns()["conns"]) == 1


@pytest.mark.item("J10")
def test_the_few_who_expect_another_gateway_are_left_out(tool, inventory, tmp_path):
    for name in "abc":
        tool(*HERE, "--id", f"{name}.example.org")
    edit(inventory, "b.example.org", gateway_id="other.example.org")
    said = tool("gateway", "config", "--out", tmp_path / "gw", code=1)
    assert "b.example.org: it expects the gateway to be other.example.org" in said.err
    assert "1 connection, 2 secrets" in said.out


@pytest.mark.interop
@pytest.mark.item("J8")
def test_a_gateway_that_a_device_left_is_told_so(tool, inventory, lab, charon):
    tool(*HERE, "--id", "a.example.org")
    tool("gateway", "apply")
    said = tool("edit", "a.example.org", "--gateway", "two.example.org")
    assert f"gateway apply --gateway {GATEWAY_4} takes it away there" in said.err
    tool("gateway", "apply", "--gateway", GATEWAY_4)
    with live.Charon(str(charon.socket)) as told:
        assert told.secrets() == told.connections() == set()
    assert "no device has gateway" in tool("gateway", "apply", "--gateway", GATEWAY_4, code=2).err


@pytest.mark.interop
@pytest.mark.item("J1")
def test_more_than_a_few_are_not_forgotten_unasked(tool, inventory, lab, charon):
    rows = "".join(f"s{n}.example.org,{GATEWAY_4},{GATEWAY_ID},{SERVER_4}\n" for n in range(6))
    (inventory.parent / "f.csv").write_text("id,gateway,gateway_id,server\n" + rows)
    tool("fleet", "import", inventory.parent / "f.csv")
    tool("gateway", "apply")
    with Inventory(inventory) as found, found.changing() as db:
        db.execute("DELETE FROM devices WHERE id != 's0.example.org'")
    said = tool("gateway", "apply", "--dry-run")
    assert said.out.count("a device that is not here") == 5 and "nothing was changed" in said.out
    assert "keys of 5 devices" in tool("gateway", "apply", code=2).err
    with live.Charon(str(charon.socket)) as told:
        assert len(told.secrets()) == 6
    assert "forgotten           5" in tool("gateway", "apply", "--force").out
    with live.Charon(str(charon.socket)) as told:
        assert len(told.secrets()) == 1


@pytest.mark.interop
@pytest.mark.item("J1")
def test_what_an_older_minipsec_gave_charon_is_taken_over(tool, inventory, lab, charon):
    """Names without an inventory's id: ours by the identity in them, others stay."""
    tool(*HERE, "--id", "a.example.org")
    with Inventory(inventory) as found:
        (entry,) = config.plan(found).secrets.values()
    old = f"ike-minipsec-{config.who(entry.identity)}-{entry.name[-8:]}"
    with charon.vici() as session:
        for name in (old, "ike-minipsec-0123456789abcdef-01234567"):
            session.load_shared({"id": name, "type": "IKE", "data": entry.octets, "owners": ["x"]})
    said = tool("gateway", "apply").out
    assert "1 new" in said and "renamed             1 secret" in said
    with live.Charon(str(charon.socket)) as told:
        assert told.secrets() == {entry.name, "ike-minipsec-0123456789abcdef-01234567"}


@pytest.mark.item("J1")
def test_an_inventory_without_an_id_gets_one(tool, inventory, device):
    import sqlite3

    with sqlite3.connect(inventory / "inventory.db") as db:
        db.executescript("DROP TABLE facts; DROP TABLE told; PRAGMA user_version = 2")
    with Inventory(inventory) as found:
        first = found.id
        assert re.fullmatch("[0-9a-f]{8}", first)
        assert found.told(found.find(device)) == [("charon", "gw.example.org")]
    with Inventory(inventory) as found:
        assert found.id == first
    assert len(MIGRATIONS) >= 3


@pytest.mark.item("J1")
def test_files_of_another_inventory_or_of_a_person_are_not_written_over(
    tool, inventory, device, tmp_path, monkeypatch
):
    out = tmp_path / "gw"
    tool("gateway", "config", "--out", out)
    before = (out / "minipsec.conf").read_text()
    other_inventory(tool, monkeypatch, tmp_path, "second")
    tool(*HERE, "--id", "b.example.org")
    assert "choose another directory" in tool("gateway", "config", "--out", out, code=2).err
    assert (out / "minipsec.conf").read_text() == before
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand/minipsec.conf").write_text(README)
    said = tool("gateway", "config", "--out", tmp_path / "hand", code=2)
    assert "was not made by `gateway config`" in said.err
    assert (tmp_path / "hand/minipsec.conf").read_text() == README
    assert not (tmp_path / "hand/minipsec.secrets").exists()


# J5


@pytest.mark.interop
@pytest.mark.item("J5")
def test_readme_s_fleet_follows_on_its_ten_minutes(tool, inventory, lab, charon, tmp_path):
    """A larger pool, while devices have addresses of the smaller one."""
    tool(*HERE, "--id", "sensor-1.example.org")
    tool("gateway", "apply")
    running = sensor(lab, inventory, "sensor-1.example.org", 0)
    up = running.wait_for("up")
    rows = "".join(
        f"hall-{n}.example.org,{GATEWAY_4},{GATEWAY_ID},{SERVER_4}\n" for n in range(300)
    )
    (tmp_path / "hall.csv").write_text("id,gateway,gateway_id,server\n" + rows)
    tool("fleet", "import", tmp_path / "hall.csv")
    assert "--pool 10.9.0.0/23" in tool("gateway", "apply", code=1).err
    tool("gateway", "apply", "--pool", "10.9.0.0/22")
    assert "0 new, 301 known" in tool("gateway", "apply").out  # it is remembered
    with charon.vici() as session:
        pools = {name: int(pool["size"]) for name, pool in session.get_pools().items()}
    assert sum(pools.values()) == 1022
    other = sensor(lab, inventory, "hall-7.example.org", 0)
    assert other.wait_for("up")["inner"] != up["inner"]
    running.stop()
    assert sensor(lab, inventory, "sensor-1.example.org").wait() == 0


# J7


@pytest.mark.item("J7")
def test_keys_go_to_a_directory_that_was_named_and_git_does_not_see_them(
    tool, inventory, device, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert "--out: name a directory" in tool("gateway", "config", code=2).err
    assert not list(tmp_path.glob("minipsec*"))
    tool("gateway", "config", "--out", tmp_path / "gw")
    for path in (tmp_path / "gw").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name in ("minipsec.conf", "minipsec.secrets", "gw/minipsec.secrets", "secrets.json",
                 ".minipsec.secrets.123", "sensors.secrets.conf"):  # fmt: skip
        done = subprocess.run(["git", "-C", ROOT, "check-ignore", "-q", name], check=False)
        assert done.returncode == 0, name


@pytest.mark.item("J7")
@pytest.mark.parametrize("cut", ["secrets", "connections"])
def test_files_are_whole_or_as_they_were(tool, inventory, device, tmp_path, monkeypatch, cut):
    out = tmp_path / "gw"
    tool("gateway", "config", "--out", out)
    before = {path.name: path.read_text() for path in out.iterdir()}
    tool(*HERE[:1], *HERE[5:], "--gateway", "gw.example.org", "--id", "b.example.org")
    real, count = os.replace, []

    def fail(*names):
        count.append(names)
        if len(count) == (1 if cut == "secrets" else 2):
            raise OSError(28, "No space left on device")
        real(*names)

    monkeypatch.setattr(os, "replace", fail)
    assert "No space left" in tool("gateway", "config", "--out", out, code=1).err
    after = {path.name: path.read_text() for path in out.iterdir()}
    assert set(after) == set(before)
    assert after["minipsec.conf"] == before["minipsec.conf"]
    for text in after.values():
        swanctl_conf.read(text)


# J8


@pytest.mark.item("J8")
def test_revoke_asks(tool, inventory, device, monkeypatch):
    assert "Say --yes" in tool("revoke", device, "--no-gateway", code=2).err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, state in (("n", "new"), ("y", "revoked")):
        monkeypatch.setattr("typer.confirm", lambda *_, answer=answer: answer == "y")
        tool("revoke", device, "--no-gateway", code=answer == "n")
        assert state in tool("list").out


@pytest.mark.item("J8")
def test_edit_checks_as_new_does_and_keeps_what_a_hand_wrote(tool, inventory, device):
    path = inventory / f"devices/{device}/profile.json"
    keys = keys_of(inventory, device)
    edit(inventory, device, retries=7)
    said = tool(
        "edit", device, "--interval", "1min", "--server", "10.3.0.11", "--reach", "10.3.0.0/16"
    )
    assert "interval_ms, remote_ts, server changed" in said.out
    profile = json.loads(path.read_text())
    assert profile["interval_ms"] == 60000 and profile["retries"] == 7
    before = path.read_text()
    for words in (("--interval", "soon"), ("--server", "10.4.0.1"), ("--inner-address", "x")):
        assert f"{words[0] if words[0] != '--server' else '--reach'}: " in tool(
            "edit", device, *words, code=2).err  # fmt: skip
    assert "nothing to change" in tool("edit", device, code=2).err
    assert path.read_text() == before and keys_of(inventory, device) == keys
    tool(
        *HERE[:1],
        "--gateway",
        "gw.example.org",
        *HERE[5:],
        "--id",
        "b.x",
        "--inner-address",
        "10.8.0.5",
    )
    assert "has 10.8.0.5" in tool("edit", device, "--inner-address", "10.8.0.5", code=2).err
    assert path.read_text() == before
    tool("edit", device, "--inner-address", "10.8.0.6")
    tool("edit", device, "--inner-address", "")
    assert path.read_text() == before
    tool("edit", device, "--board", "RPI_PICO_W", "--ssid", "hall")
    assert json.loads(path.read_text())["network"] == "wifi"
    assert "edited: network, ssid, board" in tool("show", device).out.replace("watchdog_ms, ", "")
    tool("revoke", device, "--yes", "--no-gateway")
    assert "is revoked" in tool("edit", device, "--interval", "1s", code=2).err


@pytest.mark.item("J8")
def test_a_device_whose_gateway_is_edited_is_the_other_gateway_s(tool, inventory, device):
    tool("edit", device, "--gateway", "two.example.org")
    profile = json.loads((inventory / f"devices/{device}/profile.json").read_text())
    assert profile["gateway"] == profile["gateway_id"] == "two.example.org"
    with Inventory(inventory) as found:
        assert list(found.gateways()) == ["two.example.org"]


@pytest.mark.item("J8")
def test_remove_takes_only_what_never_was_on_a_board(tool, inventory, device, tmp_path):
    assert "Say --yes" in tool("remove", device, code=2).err
    tool("remove", device, "--yes")
    assert not (inventory / f"devices/{device}").exists() and device not in tool("list").out
    tool("new", "--gateway", "gw.example.org", "--server", SERVER_4, "--id", device)
    with Inventory(inventory) as found:
        found.note(found.find(device), "pushed to a board")
    assert "was on a board" in tool("remove", device, "--yes", code=2).err
    tool("new", "--gateway", "gw.example.org", "--server", SERVER_4, "--id", "b.x")
    tool("gateway", "config", "--out", tmp_path / "gw")
    assert "revoke it" in tool("remove", "b.x", "--yes", code=2).err


@pytest.mark.interop
@pytest.mark.item("J8")
def test_what_is_removed_is_out_of_the_gateway_too(tool, inventory, lab, charon):
    for name in "ab":
        tool(*HERE, "--id", f"{name}.example.org")
    tool("gateway", "apply")
    said = tool("remove", "a.example.org", "--yes", "--vici", "/tmp/no-such-socket", code=1)
    assert "charon does not answer" in said.err and "a.example.org" in tool("list").out
    tool("remove", "a.example.org", "--yes")
    with live.Charon(str(charon.socket)) as told:
        assert len(told.secrets()) == 1


# J3: last heard.


@pytest.mark.interop
@pytest.mark.item("J3")
def test_a_device_that_fell_silent_is_called_so_though_charon_keeps_its_sa(
    tool, inventory, lab, charon, monkeypatch
):
    tool(*HERE, "--id", "a.example.org", "--interval", "100ms")
    tool("gateway", "apply")
    lab.echo()
    running = sensor(lab, inventory, "a.example.org", 0)
    running.wait_for("reply")
    assert re.search(r"\b[0-5] s ago", tool("gateway", "list").out)
    running.signal(9)
    monkeypatch.setattr(live, "_GRACE", 1)
    from tools.dev.lab import wait_until

    said = wait_until(
        lambda: re.search(r"s ago, silent", tool("gateway", "list").out), 10, "silence"
    )
    assert said and "1 of them silent" in tool("gateway", "list").out


# J10


@pytest.mark.item("J10")
@pytest.mark.parametrize("words", [("--port", "99999"), ("--natt-port", "-1"), ("--port", "65536"),
                                   ("--keylog", "/no/such/directory/file")])  # fmt: skip
def test_the_development_gateway_says_in_one_line_what_it_cannot_have(tool, tmp_path, words):
    secrets = tmp_path / "s.json"
    secrets.write_text('{"psk": "correct horse battery"}')
    secrets.chmod(0o600)
    assert words[0].strip("-") in tool("devgateway", "--secrets", secrets, *words, code=2).err


@pytest.mark.item("C10")
def test_the_firmware_on_a_pc_says_700_for_a_directory(tmp_path):
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o755)
    profile = {"gateway": "10.0.0.1", "gateway_id": "gw", "id": "a", "server": SERVER_4}
    (tmp_path / "profile.json").write_text(json.dumps({**profile, "secrets": "keys"}))
    command = [
        ROOT / ".venv/bin/micropython",
        ROOT / "firmware/main.py",
        tmp_path / "profile.json",
    ]
    env = {"MICROPYPATH": f"{ROOT}/firmware:.frozen"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "chmod 700 it" in done.stdout + done.stderr
    keys.rmdir()
    keys.write_text("{}")
    keys.chmod(0o644)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "chmod 600 it" in done.stdout + done.stderr
