"""What the pages print, run as it is printed."""

import ast
import json
import os
import pathlib
import re
import shlex
import socket
import subprocess

import pytest
import typer

from minipsec.config import profile as store
from tools.dev import docs
from tools.cli import app

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = docs.pages()
API, DEVGATEWAY = "firmware/docs/api.md", "tools/docs/devgateway.md"
PORTS = ("5500", "5501")  # as printed; a test takes free ones
SHELL = re.compile(r"(?:^    .*\n)+", re.M)  # blocks that are indented by four

pytestmark = pytest.mark.item("K1")


def python(page):
    return re.findall(r"^```python\n(.*?)^```", TEXTS[page], re.M | re.S)


def section(page, start, end):
    """The text between two headings or other words."""
    return TEXTS[page].partition(start)[2].partition(end)[0]


def free(text, ports):
    for printed, port in zip(PORTS, ports, strict=True):
        text = text.replace(printed, str(port))
    return text


@pytest.fixture
def ports():
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        for one in (a, b):
            one.bind(("127.0.0.1", 0))
        return a.getsockname()[1], b.getsockname()[1]


@pytest.fixture
def checkout(tmp_path):
    """A directory that looks like a checkout, so that files of an example land nowhere else."""
    for name in (".venv", "firmware", "tools", "host_tests", "boards", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def shell(text, directory, **options):
    """Run a block as somebody who pastes it."""
    return subprocess.run(
        ["bash", "-e", "-c", text],
        check=False, cwd=directory, capture_output=True, text=True, timeout=90, **options,
    )  # fmt: skip


@pytest.fixture
def at_hand(checkout, ports):
    """Both blocks of "Try it": the first one runs, the second one's text is returned."""
    blocks = SHELL.findall(section(DEVGATEWAY, "## Try it", "It prints"))
    first, second = (free(block, ports) for block in blocks)
    first, second = (re.sub("^    ", "", block, flags=re.M) for block in (first, second))
    # Output through a pipe would wait in a buffer.
    gateway = subprocess.Popen(
        ["bash", "-e", "-c", first.replace(".venv/bin/python -m", "exec .venv/bin/python -um")],
        cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert str(ports[0]) in gateway.stdout.readline()
        yield second
    finally:
        gateway.terminate()
        gateway.communicate(timeout=30)


def test_no_gateway_at_hand_works_in_all_its_steps(at_hand, checkout):
    done = shell(at_hand, checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("sent ")]) == 10
    assert len([line for line in lines if line.startswith("reply ")]) == 10
    # A person sees something before anything can fail.
    assert lines[0].startswith("state ") and "IKE_SA_INIT" in lines[0]


def test_programs_of_ones_own_run_as_they_are_printed(at_hand, checkout):
    writes, _, run = at_hand.rpartition("MICROPYPATH")
    assert shell(writes, checkout).returncode == 0 and run
    (line,) = re.findall(r"`(MICROPYPATH=.* my\.py)`", TEXTS[API])
    program = python(API)[0]
    assert "asyncio.run" in program
    (checkout / "my.py").write_text(program)
    done = shell(line, checkout)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "b'{\"t\": 21.5}'", done.stdout


def test_the_other_programs_of_the_api_page_run(checkout):
    for program in python(API)[1:]:
        (checkout / "my.py").write_text(program)
        done = shell("MICROPYPATH=firmware:.frozen .venv/bin/micropython my.py", checkout)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_sensor_without_a_gateway_says_what_it_does_before_it_gives_up(checkout):
    profile = {"gateway": "127.0.0.1", "port": 9, "natt_port": 9, "gateway_id": "any", "id": "s"}
    profile.update(server="10.3.0.10", retransmit_ms=50, retransmit_tries=1)
    (checkout / "profile.json").write_text(json.dumps(profile))
    (checkout / "secrets.json").write_text('{"psk": "correct horse battery staple"}')
    (checkout / "secrets.json").chmod(0o600)
    printed = re.compile(r"^    (MICROPYPATH=.*main\.py profile\.json 10)$", re.M)
    (line,) = printed.findall(TEXTS["firmware/README.md"])
    for page in TEXTS:
        assert set(printed.findall(TEXTS[page])) <= {line}, page
    done = shell(line, checkout)
    assert done.returncode == 1
    states = [one for one in done.stdout.splitlines() if one.startswith("state ")]
    assert "IKE_SA_INIT" in states[0]
    assert done.stdout.index("state ") < done.stdout.index("LinkDown")


def test_the_profile_and_the_secrets_that_are_shown_are_good():
    shown = TEXTS["firmware/docs/profile.md"]
    profile, secrets = re.findall(r"^```json\n(.*?)^```", shown, re.M | re.S)
    checked = store.check_profile(json.loads(profile))
    assert checked["server_port"] == 5000
    assert len(store.check_secrets(json.loads(secrets))["psk"]) == 32


def test_how_the_core_is_driven_is_how_it_is_driven():
    from tools.dev.peers.node import PROFILE, Rand, profile
    from minipsec.handshake.sa_init import Handshake
    from minipsec.ike.sa import IkeSa

    (text,) = [block for block in python("firmware/README.md") if "IkeSa" in block]
    names = {
        "IkeSa": IkeSa, "Handshake": Handshake, "profile": profile(**PROFILE), "rand": Rand(b"x"), "now": 0,
        "datagram": b"anything",
    }  # fmt: skip
    exec(compile(text, "firmware/README.md", "exec"), names)
    assert names["sa"].drops


def test_the_gateway_on_a_thread_is_as_printed(checkout, capsys):
    (text,) = re.findall(
        r"^    from tools\.devgateway .*\n(?:^(?:    .*)?\n)+", TEXTS[DEVGATEWAY], re.M
    )
    text = re.sub("^    ", "", text, flags=re.M)
    started = []

    def start_a_sensor(port, natt_port):
        profile = {"gateway": "127.0.0.1", "port": port, "natt_port": natt_port}
        profile.update(gateway_id="any", id="s@example.org", server="10.3.0.10")
        (checkout / "profile.json").write_text(json.dumps(profile))
        (checkout / "secrets.json").write_text('{"psk": "secret"}')
        (checkout / "secrets.json").chmod(0o600)
        command = [".venv/bin/micropython", "firmware/main.py", "profile.json", "1"]
        started.append(
            subprocess.Popen(
                command,
                cwd=checkout,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "MICROPYPATH": "firmware:.frozen"},
            )
        )

    try:
        exec(compile(text, DEVGATEWAY, "exec"), {"start_a_sensor": start_a_sensor})
    finally:
        for process in started:
            process.wait(30)
    assert '"uptime_ms"' in capsys.readouterr().out


def commands():
    for page in TEXTS:
        for line in re.findall(r"^ {4}(?:\.venv/bin/)?python -m tools (.*)$", TEXTS[page], re.M):
            yield pytest.param(line.partition("  #")[0].strip(), id=f"{page}: {line[:40]}")


@pytest.mark.parametrize("line", list(commands()))
def test_each_printed_command_has_these_words_and_options(line):
    command, words = typer.main.get_command(app), shlex.split(line)
    context = None
    while isinstance(command, typer.core.TyperGroup):
        context = command.context_class(command, parent=context, info_name=command.name)
        _, command, words = command.resolve_command(context, words)
    command.make_context(command.name, words, parent=context)


# The API page has each public name and no other, with its arguments.


def headings():
    found = re.findall(r"^### (.+)$", TEXTS[API], re.M)
    names = {}
    for heading in found:
        for text in re.findall(r"`([^`]+)`", heading):
            call = re.fullmatch(r"(?:await )?(?:Tunnel\.)?(\w+)(\(.*\))?", text)
            names[call[1]] = call[2]
    return names


def arguments(node):
    """A function's arguments as the page writes them."""
    text = ast.unparse(node.args)
    text = re.sub(r"^self(, )?", "", text)
    return "(" + text.replace("'", '"') + ")"


# What `forget` is for, and what a Link asks and tells a Tunnel.
OURS_ALONE = {"forget", "load", "log", "alone", "spis", "replaces", "count"} | {
    f"on_{what}" for what in "up waiting rare down broken stale closed payload".split()
}


def test_the_api_page_has_each_public_name_with_its_arguments():
    names = headings()
    package = ast.parse((ROOT / "firmware/minipsec/__init__.py").read_text())
    tunnel = ast.parse((ROOT / "firmware/minipsec/tunnel.py").read_text())
    (made,) = [node for node in tunnel.body if isinstance(node, ast.ClassDef)]
    functions = {
        node.name: arguments(node)
        for node in (*package.body, *made.body)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and not node.name.startswith("_")
        and node.name not in OURS_ALONE
    }
    functions["stats"] = "()"
    functions["Tunnel"] = "(profile, log=None)"
    for name, given in functions.items():
        assert names.pop(name).replace(" = ", "=") == given, name
    assert set(names) == {"up", "down", "error", "counters"}


def test_bounds_on_the_api_page_are_those_of_the_code():
    from minipsec.esp import sa

    text = " ".join(TEXTS[API].split())
    assert f"{sa.MAX_PAYLOAD} octets of `bytes`" in text
    source = (ROOT / "firmware/minipsec/tunnel.py").read_text()
    (waiting,) = re.findall(r"^_MAX_WAITING = const\((\d+)\)", source, re.M)
    assert f"{waiting} calls wait at once" in text
    least, most = re.findall(r"^_M\w+_INBOX = const\((\d+)\)", source, re.M)
    assert f"{least} messages are kept" in text and f"up to {most};" in text
    for name in re.findall(r'^            "(\w.*)",$', source, re.M):
        for counter in name.split('", "'):
            assert f"`{counter}`" in text, counter
