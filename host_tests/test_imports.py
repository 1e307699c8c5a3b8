"""Which way imports go in firmware/: the arrows of the design, read from the sources."""

import ast
import pathlib

import pytest

FIRMWARE = pathlib.Path(__file__).resolve().parents[1] / "firmware"

_IKE_PARTS = {"again", "wire", "ccm", "kdf", "dh", "auth", "fragment", "fragack", "machine", "cbc"}

# module -> what of ours it may import. A new module needs a line here.
ARROWS = {
    "wire": set(),
    "ccm": {"loops"},
    "loops": {"fast"},
    "fast": set(),
    "kdf": set(),
    "cbc": {"ccm", "kdf"},
    "dh": {"groups", "mlkem", "thumb"},
    "again": {"dh", "wire"},
    "thumb": set(),
    "groups": set(),
    "keccak": set(),
    "mlkem": {"keccak"},
    "fragment": {"wire"},
    "sequence": set(),
    "snapshot": {"sequence"},
    "inner": {"loops"},
    "errors": {"faults"},
    "explain": {"errors", "faults"},
    "faults": set(),
    "drbg": {"kdf"},
    "auth": {"wire", "ccm", "kdf", "machine", "established", "ppk"},
    "fragack": {"wire"},
    "machine": {"wire", "fragment", "fragack"},
    "ppk": {"kdf"},
    "intermediate": {"wire", "kdf", "dh", "machine", "auth", "ppk"},
    "ike": _IKE_PARTS | {"intermediate", "ppk"},
    "established": {"machine", "wire"},
    "esp": {"ccm", "cbc", "sequence", "inner"},
    "port": {"sources", "uplink", "local", "tasks", "__init__"},
    "sources": {"drbg"},
    "uplink": {"tasks"},
    "tasks": set(),
    "nvram": set(),
    "local": set(),
    "rawip": {"port", "tasks"},
    "backlog": set(),
    "lamp": {"tasks"},
    "spool": {"backlog"},
    "store": {"faults", "words", "nearest"},
    "words": set(),
    "nearest": {"words"},
    "report": set(),
}
# What may be imported only inside a function: a phase that is not reached costs no RAM.
LATE = {
    ("auth", "established"),
    ("ike", "intermediate"),
    ("ike", "fragack"),
    ("machine", "fragment"),
}
LATE |= {("ike", "again"), ("ike", "ppk"), ("auth", "ppk"), ("intermediate", "ppk")}
LATE |= {("dh", "thumb"), ("store", "nearest")}
LATE |= {("port", "sources"), ("port", "uplink"), ("port", "local"), ("port", "__init__")}
# These see both sides and may import everything.
OPEN = {
    "__init__",
    "tunnel",
    "keeper",
    "owner",
    "rare",
    "link",
    "traffic",
    "child",
    "memory",
    "selftest",
}
NOT_CORE = OPEN | {"port", "store", "report", "sources", "uplink", "local", "rawip", "memory"}
NOT_CORE |= {"backlog", "spool", "lamp", "tasks", "nvram"}
# Who may turn a code into the long text for a person, and only when it is needed.
MAY_EXPLAIN = {"tunnel", "keeper", "rare", "link", "sensor", "sources", "port"}

FORBIDDEN_IN_CORE = {"socket", "time", "machine", "network", "asyncio", "os", "select", "random"}
# What stock boards have; anything else would be an import from the host.
ON_BOARDS = FORBIDDEN_IN_CORE | {
    "array", "binascii", "collections", "cryptolib", "errno", "esp32", "gc", "hashlib", "io",
    "json", "math", "micropython", "minipsec", "ntptime", "rp2", "sensor", "struct", "sys",
    "uctypes", "vfs",
}  # fmt: skip


def files():
    return sorted(FIRMWARE.glob("*.py")) + sorted((FIRMWARE / "minipsec").glob("*.py"))


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
                    (None, rest, id(node) in late)
                    if top == "minipsec" and rest
                    else (
                        top,
                        None,
                        id(node) in late,
                    )
                )
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            top, _, rest = module.partition(".")
            if node.level:
                ours = [top] if module else [alias.name for alias in node.names]
            elif top == "minipsec":
                ours = [rest] if rest else ["__init__"]
            else:
                yield top, None, id(node) in late
                continue
            for name in ours:
                yield None, name, id(node) in late


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_imports_follow_the_arrows(path):
    name = path.stem
    for outside, ours, late in imports(path):
        if outside:
            assert outside in ON_BOARDS, f"{path.name} imports {outside}, which boards lack"
            if path.parent.name == "minipsec" and name not in NOT_CORE:
                assert outside not in FORBIDDEN_IN_CORE, f"core module {name} imports {outside}"
            continue
        if ours in ("errors", "explain") and name != "explain":
            assert name in MAY_EXPLAIN, f"{name} must not import {ours}"
            assert late, f"{name} imports {ours} at its top; it is for the rare case"
            continue
        if path.parent.name == "minipsec" and name not in OPEN:
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


def test_every_module_of_the_package_has_a_place():
    for path in (FIRMWARE / "minipsec").glob("*.py"):
        assert path.stem in ARROWS or path.stem in OPEN, path.stem
