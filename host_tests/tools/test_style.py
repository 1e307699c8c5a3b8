"""How all commands speak: one form of error, whole words, right plurals, JSON on request."""

import json
import os
import re
import subprocess
import sys

import pytest

from host_tests.tools.conftest import NEW
from tools import cli
from tools.common import options
from tools.common.options import complain, count, fact, printable, table
from tools.common.problem import Problem


def all_commands(app=cli.app, words=()):
    """Every command: [(words, function)]."""
    for command in app.registered_commands:
        yield [*words, command.name or command.callback.__name__], command
    for group in app.registered_groups:
        yield from all_commands(group.typer_instance, [*words, group.name])


COMMANDS = {" ".join(words): command for words, command in all_commands()}


@pytest.mark.item("J12")
@pytest.mark.parametrize(
    "words, code, says",
    [
        (("push",), 2, "missing argument 'DEVICE'"),
        (("push", "a", "b"), 2, "extra argument"),
        (("push", "a", "--no-such"), 2, "no such option"),
        (("push", "a", "--follow", "x"), 2, "invalid value"),
        (("bogus",), 2, "no such command"),
        (("gateway", "bogus"), 2, "no such command"),
        (("show", "nobody"), 1, "there is no inventory"),
        (("list", "--state", "asleep"), 2, "expected new, provisioned"),
        (("flash", "--board", "ABACUS"), 2, "--board: expected one of"),
        (("capture", "/no/such.pcap"), 1, "cannot read"),
        (("devgateway", "--secrets", "/no/such"), 2, "/no/such"),
        (("devgateway", "--secrets", "x", "--port", "a"), 2, "invalid value"),
        (("new", "--id", "*", "--gateway", "g", "--server", "10.0.0.1"), 2, "--id"),
        (("pull-log", "--port", "/dev/no-such"), 1, "/dev/no-such"),
    ],
)
def test_every_error_is_one_line(tool, words, code, says):
    said = tool(*words, code=code)
    assert says.lower() in said.err.lower()
    assert said.lines == 1 and said.err.startswith("error: ") and not said.out


@pytest.mark.item("J12")
@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_whole_words_and_fills_its_lines(tool, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    text = tool(*name.split(), "--help").out
    assert max(map(len, text.splitlines())) <= 80
    known = set()
    monkeypatch.setenv("COLUMNS", "400")
    known |= set(re.findall(r"\S+", tool(*name.split(), "--help").out))
    rules = re.compile(r"[─╭╮╰╯│]+")
    assert {word for word in re.findall(r"\S+", rules.sub(" ", text))} <= known
    paragraphs = COMMANDS[name].help.split("\n\n")
    assert not any("\n" in paragraph for paragraph in paragraphs)


@pytest.mark.item("J12")
def test_on_a_narrow_terminal_lines_break_between_words(monkeypatch, capsys):
    for where in (options.console, options.complaints):
        monkeypatch.setattr(where, "_force_terminal", True)
        monkeypatch.setattr(where, "_width", 60)
        monkeypatch.setattr(where, "_color_system", None)
    name = "a-device-with-a-long-name.example.org"
    complain(Problem(f"{name} and more words " * 4, "something " * 9))
    fact("title", f"{name} " * 3)
    table(("device", "gateway"), [(name, name), ("b", "c")])
    said = capsys.readouterr()
    both = re.sub("\x1b\\[[0-9;]*m", "", said.out + said.err)
    assert both.count(name) == 4 + 3 + 2
    assert all(len(line.rstrip()) <= 60 for line in both.splitlines())


@pytest.mark.item("J12")
def test_one_and_several():
    assert count(1, "secret") == "1 secret" and count(0, "secret") == "0 secrets"
    assert count(2, "dummy", "dummies") == "2 dummies"


@pytest.mark.item("C8")
def test_nothing_that_is_printed_moves_a_terminal():
    assert printable("a\x1b[2Jb\r\n\x07\x9bü\u202e") == r"a\x1b[2Jb\r\n\x07\x9bü\u202e"
    assert printable("[/x] [bold]") == "[/x] [bold]"


@pytest.mark.item("C8")
def test_a_name_in_brackets_is_listed_as_it_is(tool, capsys):
    table(("device",), [("[/x]",), ("[red]a\x1b]0;title\x07",)])
    fact("[/y]", "[/z]")
    said = capsys.readouterr().out
    assert "[/x]" in said and r"[red]a\x1b]0;title\x07" in said and "[/z]" in said


@pytest.mark.item("J11")
def test_the_version_is_the_projects(tool):
    assert re.fullmatch(r"minipsec \d+\.\d+\.\d+\n", tool("--version").out)


@pytest.mark.item("J11")
def test_list_and_show_speak_json(tool, inventory):
    tool(*NEW, "a.example.org", "--board", "RPI_PICO_W", "--ssid", "cellar")
    tool(*NEW, "b.example.org")
    rows = json.loads(tool("list", "--json").out)
    assert [row["id"] for row in rows] == ["a.example.org", "b.example.org"]
    assert rows[0]["board"] == "RPI_PICO_W" and rows[0]["state"] == "new" and not rows[0]["chip"]
    shown = json.loads(tool("show", "a", "--json").out)
    assert shown["profile"]["id"] == "a.example.org" and shown["history"][0]["what"] == "made"
    assert "psk" not in tool("show", "a", "--json").out
    assert json.loads(tool("list", "--json", "--state", "revoked").out) == []


@pytest.mark.item("J11")
@pytest.mark.parametrize(
    "words", ["list", "show nobody", "stats nobody", "doctor nobody", "gateway list"]
)
def test_who_asks_for_json_gets_json_of_an_error_too(tool, words):
    said = tool(*words.split(), "--json", code=1)
    assert json.loads(said.out)["error"].startswith("there is no inventory")


def process(command, inventory, **variables):
    """A command line as a shell starts it."""
    return subprocess.run(
        ["sh", "-c", command.replace("TOOLS", f"'{sys.executable}' -m tools")],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


ASCII = {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
ASCII["PYTHONCOERCECLOCALE"] = "0"


@pytest.mark.item("J12")
@pytest.mark.parametrize(
    "command, code, says",
    [
        ("TOOLS list >/dev/full", 1, "No space left"),
        ("TOOLS list --json >/dev/full", 1, "No space left"),
        ("TOOLS --version >/dev/full", 1, "No space left"),
        ("TOOLS show nobody 2>/dev/full", 2, ""),
        ("TOOLS show nobody 2>&-", 2, ""),
        ("TOOLS list >&-", 0, ""),
        ("TOOLS new <&-", 2, "--gateway"),
        ("TOOLS show n\u00f6body", 2, "not in the inventory"),
    ],
)
def test_no_stream_and_no_locale_ends_in_a_traceback(device, inventory, command, code, says):
    found = process(command, inventory, **ASCII)
    assert found.returncode == code and says in found.stderr
    assert "Traceback" not in found.stderr and found.stderr.count("\n") <= 1


@pytest.mark.item("J12")
def test_a_label_that_a_terminal_cannot_draw_is_refused(device, inventory):
    found = process(f"TOOLS label {device}", inventory, **ASCII)
    assert found.returncode == 1 and "--out label.svg" in found.stderr and not found.stdout


# What stands for a module that is being loaded when Ctrl-C comes; some catch what they can.
KILL = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
INTERRUPTED = (
    "raise KeyboardInterrupt",
    KILL,
    "try:\n    " + KILL.replace("\n", "\n    ") + "pass\nexcept BaseException:\n    pass\n",
)


@pytest.mark.item("J12")
@pytest.mark.parametrize("typer", INTERRUPTED)
def test_ctrl_c_while_the_tools_are_loaded_is_one_line_too(inventory, tmp_path, typer):
    (tmp_path / "typer.py").write_text(typer)
    found = process("TOOLS list", inventory, PYTHONPATH=str(tmp_path))
    assert (found.returncode, found.stderr) == (130, "error: interrupted\n")
