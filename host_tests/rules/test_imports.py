"""Which way imports go in firmware/: the arrows of the design, read from the sources."""

import ast
import pathlib

import pytest

from tools.common import mpy
from tools.dev import health

FIRMWARE = pathlib.Path(__file__).resolve().parents[2] / "firmware"

# module -> what of ours it may import. A new module needs a line here.
ARROWS = {
    "ike/wire": {"errors"},
    "crypto/ccm": {"crypto/octets"},
    "crypto/suites": set(),  # which loads the module that a row names
    "crypto/octets": {"crypto/octets_viper"},
    "crypto/octets_viper": set(),
    "crypto/kdf": set(),
    "crypto/cbc": {"crypto/ccm", "crypto/kdf"},
    "kex/methods": {"kex/groups", "kex/mlkem", "kex/x25519_thumb"},
    "handshake/sa_init_retry": {"ike/wire"},
    "kex/x25519_thumb": set(),
    "kex/groups": set(),
    "kex/keccak": {"crypto/octets"},
    "kex/mlkem": {"kex/keccak", "crypto/octets"},
    "ike/fragment": {"ike/wire", "ike/fragack"},
    "esp/sequence": {"errors"},
    "esp/snapshot": {"esp/sequence"},
    "esp/inner": {"crypto/octets", "errors"},
    "refusals": {"errors"},
    "explain": {"refusals", "errors"},
    "errors": set(),
    "crypto/drbg": {"crypto/kdf"},
    "handshake/auth_method": {"crypto/ccm", "crypto/kdf"},
    "handshake/auth": {
        "ike/wire",
        "crypto/kdf",
        "crypto/suites",
        "ike/sa",
        "ike/established",
        "handshake/ppk",
    },
    "ike/fragack": {"ike/wire"},
    "ike/sa": {"ike/wire", "ike/fragment", "ike/established"},
    "handshake/ppk": {"crypto/kdf"},
    "handshake/intermediate": {
        "ike/wire",
        "crypto/kdf",
        "kex/methods",
        "handshake/ppk",
    },
    "handshake/sa_init": {
        "ike/wire",
        "crypto/kdf",
        "crypto/suites",
        "kex/methods",
        "handshake/auth",
        "handshake/auth_method",
    },
    "ike/established": {"ike/wire"},
    "esp/sa": {"errors", "crypto/suites", "esp/sequence", "esp/inner"},
    "board/port": {"board/entropy", "board/network", "board/address", "tasks", "__init__"},
    "board/entropy": {"crypto/drbg"},
    "board/network": {"tasks"},
    "tasks": set(),
    "board/nvram": set(),
    "board/address": set(),
    "board/raw_esp": {"board/port", "tasks"},
    "app/queue": set(),
    "app/led": {"tasks"},
    "app/spool": {"app/queue"},
    "config/checks": set(),
    "config/proposals": {"config/checks", "crypto/suites"},
    "config/secrets": {"errors", "config/checks", "config/refused"},
    "config/profile": {
        "errors",
        "config/checks",
        "config/proposals",
        "config/secrets",
        "config/refused",
        "config/old",
        "config/hybrid",
    },
    "config/hybrid": {"config/proposals", "config/refused"},
    "config/keylog": {"config/secrets", "crypto/suites"},
    "config/refused": {"errors", "config/checks", "config/proposals", "crypto/suites"},
    "config/old": {"config/refused"},
    "app/log": set(),
}
# What may be imported only inside a function: a phase that is not reached costs no RAM.
LATE = {
    ("handshake/auth", "ike/established"),
    ("handshake/sa_init", "handshake/intermediate"),
    ("ike/sa", "ike/fragment"),
    ("ike/sa", "ike/established"),
    ("ike/fragment", "ike/fragack"),
}
LATE |= {
    ("handshake/sa_init", "handshake/sa_init_retry"),
    ("handshake/sa_init", "handshake/ppk"),
    ("handshake/auth", "handshake/ppk"),
    ("handshake/intermediate", "handshake/ppk"),
}
LATE |= {("kex/methods", "kex/x25519_thumb"), ("config/profile", "config/hybrid")}
LATE |= {("config/profile", "config/refused"), ("config/profile", "config/old")}
LATE |= {("config/secrets", "config/refused"), ("config/hybrid", "config/refused")}
LATE |= {
    ("board/port", "board/entropy"),
    ("board/port", "board/network"),
    ("board/port", "board/address"),
    ("board/port", "__init__"),
}
# These see both sides and may import everything.
OPEN = {
    "__init__",
    "heap",
    "tunnel",
    "rare",
    "link",
    "esp/child",
    "sleep",
    "selftest",
    "app/run",
}
NOT_CORE = OPEN | {
    "board/port",
    "config/secrets",
    "app/log",
    "board/entropy",
    "board/network",
    "board/address",
    "board/raw_esp",
    "sleep",
}
NOT_CORE |= {"app/queue", "app/spool", "app/led", "tasks", "board/nvram"}
# Who may turn a code into the long text for a person, and only when it is needed.
MAY_EXPLAIN = {"tunnel", "rare", "link", "board/entropy", "board/port"}

FORBIDDEN_IN_CORE = {"socket", "time", "machine", "network", "asyncio", "os", "select", "random"}
# What stock boards have; anything else would be an import from the host.
ON_BOARDS = FORBIDDEN_IN_CORE | {
    "array", "binascii", "collections", "cryptolib", "errno", "esp32", "gc", "hashlib", "io",
    "json", "math", "micropython", "minipsec", "ntptime", "rp2", "sensor", "struct", "sys",
    "uctypes", "vfs",
}  # fmt: skip


def files():
    return list(mpy.sources().values())


def place(path):
    """A module's name in the tables above: its place in the package."""
    inside = mpy.in_package(path)
    return str(path.relative_to(mpy.PACKAGE if inside else FIRMWARE).with_suffix(""))


def imports(path):
    """Yield (top module outside or None, our module or None, imported late) of a file."""
    tree = ast.parse(path.read_text(), path.name)
    late = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            late.update(id(inner) for inner in ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top, _, rest = alias.name.partition(".")
                yield (
                    (None, rest.replace(".", "/"), id(node) in late)
                    if top == "minipsec" and rest
                    else (
                        top,
                        None,
                        id(node) in late,
                    )
                )
        elif isinstance(node, ast.ImportFrom):
            top = (node.module or "").partition(".")[0]
            if not node.level and top != "minipsec":
                yield top, None, id(node) in late
                continue
            for ours in mpy.imported(path, node) or ["__init__"]:
                yield None, ours, id(node) in late


@pytest.mark.parametrize("path", files(), ids=place)
def test_imports_follow_the_arrows(path):
    name = place(path)
    for outside, ours, late in imports(path):
        if outside:
            assert outside in ON_BOARDS, f"{path.name} imports {outside}, which boards lack"
            if mpy.in_package(path) and name not in NOT_CORE:
                assert outside not in FORBIDDEN_IN_CORE, f"core module {name} imports {outside}"
            continue
        if ours in ("refusals", "explain") and name != "explain":
            assert name in MAY_EXPLAIN, f"{name} must not import {ours}"
            assert late, f"{name} imports {ours} at its top; it is for the rare case"
            continue
        if mpy.in_package(path) and name not in OPEN:
            assert name in ARROWS, f"{name} has no line in ARROWS: which modules may it import?"
            if (name, ours) in LATE:
                assert late, f"{name} must import {ours} only where it is reached"
            else:
                assert ours in ARROWS[name], f"{name} must not import {ours}"


def test_arrows_lead_nowhere_in_a_circle():
    done = set()

    def walk(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in ARROWS.get(name, ()):
                walk(other, [*path, name])
            done.add(name)

    for name in ARROWS:
        walk(name, [])


def test_coverage_counts_what_the_arrows_call_core():
    ours = {name for name in mpy.modules() if not name.endswith("__init__")}
    assert {name for name in ours if health.is_core(name)} == ours - NOT_CORE


def test_every_module_of_the_package_has_a_place():
    for name in mpy.modules():
        folder = name.endswith("/__init__")
        assert folder or name in ARROWS or name in OPEN, name


# The owner's tools: a folder may import those that stand before it.
TOOLS = ("common", "devgateway", "capture", "fleet", "gateway", "board")
ROOT = FIRMWARE.parent


def named(path):
    """Yield the dotted name of each module or folder that a Python file imports, early or late."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(), path.name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            whole = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{whole}.{alias.name}" for alias in node.names)


def test_no_tool_imports_the_tests():
    """Nor names them as something to import: a plugin of pytest's, a module to run."""
    for path in (ROOT / "tools").rglob("*.py"):
        assert not any(name.split(".")[0] == "host_tests" for name in named(path)), path
        assert '"host_tests.' not in path.read_text(), path


def test_no_tool_of_an_owner_imports_one_of_the_developers():
    for path in (ROOT / "tools").rglob("*.py"):
        if ROOT / "tools/dev" not in path.parents:
            assert not any(f"{name}.".startswith("tools.dev.") for name in named(path)), path


@pytest.mark.parametrize("folder", TOOLS)
def test_folders_of_tools_import_those_before_them(folder):
    allowed = {*TOOLS[: TOOLS.index(folder) + 1]}
    for path in (ROOT / "tools" / folder).rglob("*.py"):
        ours = [name.split(".")[1] for name in named(path) if name.startswith("tools.")]
        assert set(ours) <= allowed, path


def test_every_folder_of_tools_has_a_place():
    found = {path.parent.name for path in (ROOT / "tools").glob("*/*.py")}
    assert found == {*TOOLS, "dev"}
