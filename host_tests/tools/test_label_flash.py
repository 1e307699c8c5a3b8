"""`label`: the identity and nothing else. `flash`: whoever is installed, or the way by hand."""

import subprocess

import pytest

from host_tests.tools.conftest import NEW
from tools.board import flash as flash_module


def test_a_label_holds_the_identity_and_nothing_else(tool, device, tmp_path, monkeypatch):
    import segno

    made = []
    real = segno.make
    monkeypatch.setattr(segno, "make", lambda text, **how: made.append(text) or real(text, **how))
    tool("label", device, "--out", tmp_path / "one.svg")
    tool("label", device, "--out", tmp_path / "one.png")
    assert made == [device, device]
    assert (tmp_path / "one.svg").read_text().startswith("<?xml")
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    said = tool("label", "sensor-1").out
    assert device in said and len(said.splitlines()) > 10


def test_labels_of_a_fleet_go_into_a_directory(tool, device, tmp_path):
    tool(*NEW, "keyid:0x00ff")
    tool("label", "--all", "--out", tmp_path / "labels", "--format", "png")
    assert len(list((tmp_path / "labels").glob("*.png"))) == 2


@pytest.mark.parametrize(
    "words, expected",
    [
        ((), "name a device"),
        (("sensor-1", "--out", "x.gif"), ".svg, .png or .pdf"),
        (("sensor-1", "--format", "gif"), "--format"),
        (("nobody",), "not in the inventory"),
    ],
)
def test_a_label_that_cannot_be_is_told(tool, device, words, expected):
    assert expected in tool("label", *words, code=2).err


def test_flash_tells_the_way_by_hand_where_no_tool_is(tool, monkeypatch):
    monkeypatch.setattr(flash_module.shutil, "which", lambda _: None)
    said = tool("flash", "--board", "RPI_PICO_W", "--dry-run").out
    assert "BOOTSEL" in said and "mpflash" in said
    assert "pip install esptool" in tool("flash", "--board", "ESP32_GENERIC_C3", "--dry-run").out
    assert "RPI_PICO_W" in tool("flash", "--board", "PICO", code=2).err
    flags = ("--board", "RPI_PICO_W", "--firmware", "none.uf2")
    assert "no file none.uf2" in tool("flash", *flags, code=2).err


def test_flash_calls_the_tool_that_is_installed(tool, monkeypatch, tmp_path):
    (tmp_path / "fw.bin").write_bytes(b"x")
    monkeypatch.setattr(flash_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    said = tool("flash", "--board", "RPI_PICO_W", "--port", "/dev/ttyACM0", "--dry-run").out
    assert "$ mpflash flash --board RPI_PICO_W --serial /dev/ttyACM0 --version stable" in said
    ran = []

    def run(command, check):
        ran.append(command)
        return subprocess.CompletedProcess(command, 2 if "write-flash" in command else 0)

    monkeypatch.setattr(flash_module.subprocess, "run", run)
    flags = ("--port", "/dev/ttyUSB0", "--firmware", tmp_path / "fw.bin")
    said = tool("flash", "--board", "ESP32_GENERIC", *flags, code=1)
    assert [command[5] for command in ran] == ["erase-flash", "write-flash"]
    assert ran[1][6:] == ["0x1000", str(tmp_path / "fw.bin")]
    assert "esptool ended with 2" in said.err


@pytest.mark.item("J3")
def test_flash_asks_the_board_what_runs_on_it_now(tool, board, monkeypatch, tmp_path):
    (tmp_path / "fw.bin").write_bytes(b"x")
    monkeypatch.setattr(flash_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    done = lambda command, check: subprocess.CompletedProcess(command, 0)
    monkeypatch.setattr(flash_module.subprocess, "run", done)
    flags = ("--board", "ESP32_GENERIC", "--firmware", tmp_path / "fw.bin", "--port")
    assert "runs MicroPython 1." in tool("flash", *flags, board.port).out
    monkeypatch.setattr(flash_module, "_START", 0)
    assert "cannot open" in tool("flash", *flags, "/dev/no-such", code=1).err
