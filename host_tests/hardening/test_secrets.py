"""Secrets stay where they belong: whole sessions with known keys, and all they say searched."""

import ast
import base64
import contextlib
import io
import json
import os
import resource
import subprocess
import sys

import pytest

from tools.dev.peers.third_party import Link
from tools.dev.peers.node import PROFILE, remember_exchanges
from tools.dev.peers.node import SECRETS as KNOWN
from minipsec import refusals, explain
from minipsec.config import profile
from minipsec.crypto import kdf
from minipsec.handshake import auth
from minipsec.ike import established
from tools.devgateway import Config, RunningGateway, Secrets
from tools.devgateway.esp import ChildSa

pytestmark = pytest.mark.long

PSK = bytes(range(7, 39))
PPK = bytes(range(32))
WIFI_KEY = "correct horse battery"


@pytest.fixture(scope="module", autouse=True)
def quick_exchanges():
    restore = remember_exchanges()
    yield
    restore()


@pytest.fixture
def derived(monkeypatch):
    """Every value that the core derives while the test runs: SKEYSEED, SK_*, KEYMAT, pads."""
    found = {PSK, PPK}

    def noted(function):
        def wrapper(*args):
            result = function(*args)
            found.update([result] if isinstance(result, bytes) else result)
            return result

        return wrapper

    for module in (kdf, auth):
        for name in ("prf", "prf_plus", "sk_keys", "child_keys", "psk_pad"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, noted(getattr(module, name)))
    return found


def shapes(secret):
    """How octets may look in text: cut short, they are still more than anyone may see."""
    head = secret[:8]
    yield head.hex()
    yield head.hex().upper()
    yield head.hex(" ")
    yield repr(head)[2:-1]
    yield base64.b64encode(secret[:9]).decode()
    yield ", ".join(str(octet) for octet in head)
    yield str(int.from_bytes(secret, "big"))


def assert_nothing_of(secrets, text):
    for secret in secrets:
        if len(secret) >= 8:
            for shape in shapes(bytes(secret)):
                assert shape not in text, shape


def told(*things):
    """Whatever one could print of things: their repr, and their attributes' as log lines."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for thing in things:
            print(repr(thing), str(thing), ascii(thing))
    return out.getvalue()


ENDINGS = {
    "well": ({}, {}),
    "cbc": ({"ike": ["aes128-sha256-prfsha256-x25519"]}, {"ike": ("aes128-sha256-prfsha256-x25519",)}),
    "ppk": ({"ppk_id": "ppk-1"}, {}),
    "ppk-not-known": ({"ppk_id": "ppk-1"}, {"ppks": {}}),
    "wrong-name": ({"gateway_id": "other.example.org"}, {}),
    "no-pool": ({}, {"pool": None}),
    "no-proposal": ({"esp": ["aes256ccm16"]}, {"esp": ("aes128ccm8",)}),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDINGS)
def test_nothing_that_a_session_says_holds_a_key(name, derived):
    changes, settings = ENDINGS[name]
    link = Link(changes, settings)
    said = []
    link.gateway.on_event = lambda kind, fields: said.append((kind, fields))
    link.start()
    link.settle()
    while link.node.state not in ("UP", "DOWN") and link.pass_time():
        link.settle()
    if link.node.state == "UP":
        child = link.node.child
        link.send(b"reading")
        link.settle()
        link.ask("liveness")
        link.settle()
        # The event has the keys for ESP; what is logged of it is what link.py takes.
        events = [event for event in link.node.events if event[0] != "up"]
        assert child["key_out"] in derived and child["key_in"] in derived
        link.call(established.delete)
        link.settle()
    else:
        events = link.node.events
    failures = [explain.failure(e) for e in link.node.events if e[0] in ("failed", "deleted")]
    described = [(type(e).__name__, e.notify, str(e), repr(e), e.args, e.check) for e in failures]
    sas = list(link.gateway.sas.values())
    text = told(
        *events, *described, *said, link.node.ike, link.node.ike.drops, link.node.sender,
        link.node.receiver, link.gateway, link.gateway.config, *sas, *[sa.keys for sa in sas],
        *link.gateway.children.values(),
    )  # fmt: skip
    assert len(derived) > 8 or name == "ppk-not-known"
    assert_nothing_of(derived, text)
    kinds = {event[0] for event in link.node.events}
    assert ("up" in kinds) == (name in ("well", "cbc", "ppk"))


@pytest.mark.parametrize("log", ["json", "text"])
def test_nothing_that_a_sensor_prints_holds_a_key(
    log, root, micropython_path, tmp_path, monkeypatch
):
    keymats = []
    make = ChildSa.__init__

    def noted(self, choice, spi_in, keymat, *rest):
        keymats.append(keymat)
        make(self, choice, spi_in, keymat, *rest)

    monkeypatch.setattr(ChildSa, "__init__", noted)
    for secret in (KNOWN["psk"], "0x" + "5c" * 32):
        values = dict(PROFILE, gateway="127.0.0.1", log=log, retransmit_ms=200, retries=0)
        with RunningGateway({"any": KNOWN["psk"]}) as gateway:
            values.update(port=gateway.port, natt_port=gateway.natt_port)
            (tmp_path / "profile.json").write_text(json.dumps(values))
            path = tmp_path / "secrets.json"
            path.write_text(json.dumps({"psk": secret, "wifi_key": WIFI_KEY}))
            path.chmod(0o600)
            done = subprocess.run(
                [micropython_path, root / "firmware/main.py", tmp_path / "profile.json", "2"],
                env={**os.environ, "MICROPYPATH": str(root / "firmware")},
                capture_output=True,
                text=True,
                timeout=60,
            )
            core = gateway._server.gateway
            keys = [key for sa in core.sas.values() for key in sa.keys if isinstance(key, bytes)]
            events = gateway.history[:]
        assert done.returncode == (secret != KNOWN["psk"])
        keys += [keymat[at : at + 19] for keymat in keymats for at in (0, 19)]
        keys += [PSK, bytes.fromhex(secret[2:]), kdf.prf(PSK, b"Key Pad for IKEv2")]
        text = done.stdout + done.stderr + told(*events)
        assert_nothing_of(keys, text)
        assert WIFI_KEY not in text and ("error" if done.returncode else "spi_in") in text
    assert len(keymats) == 1


@pytest.mark.parametrize(
    "secrets",
    [
        {"psk": 7},
        {"psk": "0x0123456789abcdefXY"},
        {"psk": "a secret of some length", "psk_pad": "0x" + "42" * 32},
        {"psk_pad": "a secret of some length"},
        {"psk": "a secret of some length", "wifi_key": 7},
        {"psk": "a secret of some length", "seed": "0x" + "42" * 31},
        {"pks": "a secret of some length"},
        ["a secret of some length"],
    ],
)
def test_a_bad_secrets_file_is_not_quoted(secrets):
    with pytest.raises(profile.ProfileError) as caught:
        profile.check_secrets(secrets)
    text = told(caught.value)
    for piece in ("some length", "0123456789abcdef", "42" * 31):
        assert piece not in text
    assert caught.value.__cause__ is None


def test_settings_of_the_gateway_show_no_secret():
    config = Config(Secrets({"any": KNOWN["psk"]}), ppks={b"ppk-1": PPK})
    assert_nothing_of([PSK, PPK], told(config, config.secrets))


# What the sources could say.

# Names that hold key material; a name in a call that prints, logs or raises is a mistake.
SECRET_NAMES = {
    "psk", "psk_pad", "pad", "ppk", "seed", "wifi_key", "skeyseed", "shared", "keymat", "key",
    "sk_d", "sk_ai", "sk_ar", "sk_ei", "sk_er", "sk_pi", "sk_pr", "key_in", "key_out", "keys",
}  # fmt: skip
SAYS = {"print", "log", "event", "describe", "_misuse"}
# A check for people, or names that are something else: (file, line's text).
HARMLESS = (
    ("sa_init.py", 'sa.event("keys"'),  # only with the profile key keylog
    ("log.py", "key"),  # of a dict
    ("profile.py", "key"),  # of a profile
    ("entropy.py", "seed"),
)


def test_no_call_that_says_something_names_a_secret(root):
    found = []
    for path in sorted((root / "firmware").rglob("*.py")):
        lines = path.read_text().splitlines()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc:
                call = node.exc
            elif isinstance(node, ast.Call) and (
                getattr(node.func, "id", getattr(node.func, "attr", None)) in SAYS
            ):
                call = node
            else:
                continue
            named = {getattr(n, "id", getattr(n, "attr", None)) for n in ast.walk(call)}
            named |= {
                n.slice.value
                for n in ast.walk(call)
                if isinstance(n, ast.Subscript) and isinstance(n.slice, ast.Constant)
            }
            text = lines[node.lineno - 1]
            if named & SECRET_NAMES and not any(
                path.name == name and part in text for name, part in HARMLESS
            ):
                found.append(f"{path.name}:{node.lineno} {text.strip()}")
    assert not found


def test_tools_that_hold_secrets_leave_no_core_dump(root, tmp_path):
    program = (
        "import resource, runpy, sys, os\n"
        "sys.argv = ['tools', '--help']\n"
        "try:\n    runpy.run_module('tools', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2
        ),
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "(0, 0)"


# What the core lets go of.


def test_keys_of_ike_are_gone_once_they_served():
    link = Link()
    link.start()
    link.settle()
    sa = link.node.ike
    assert link.node.state == "UP"
    assert sa.handshake is None
    link.call(established.delete)
    link.settle()
    assert sa.tx is None and not sa.incoming


def test_an_sa_that_failed_holds_no_key_either():
    link = Link({"gateway_id": "other.example.org"})
    link.start()
    link.settle()
    sa = link.node.ike
    assert link.node.state == "DOWN"
    assert sa.handshake is sa.tx is None
