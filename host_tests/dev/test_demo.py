"""`make demo` as a person runs it."""

import itertools
import os
import re
import signal
import subprocess
import sys

import pytest

from tools.dev.demo import __main__ as whole
from tools.dev.demo import link, story
from tools.dev.demo import sleep as sleeping
from tools.dev.lab import ROOT, Sensor
from tools.common import mpy
from tools.devgateway import RunningGateway


def demo(root, *words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tools.dev.demo", *words],
        check=False,
        cwd=root,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_demo_tells_of_each_reading_and_ends_with_0(root):
    done = demo(root, "--readings", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "aes128ccm16-prfsha256-x25519" in done.stdout
    assert re.search(r"ESP SPIs +[0-9a-f]{8} ", done.stdout)
    assert re.search(r"inner address +10\.9\.0\.\d", done.stdout)
    assert len(re.findall(r"octets on the air +\{", done.stdout)) == 3
    assert "as the gateway decrypted it" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--readings", "0"), "READINGS: '0' is not a number of readings"),
        (("--readings", "ten"), "READINGS: 'ten' is not a number of readings"),
        (("--gateway", "none"), "GATEWAY: invalid choice: 'none'"),
        (("--sleep", "yes"), "SLEEP: 'yes' is not 0 or 1"),
        (("--pq", "2"), "PQ: '2' is not 0 or 1"),
        (("--loss", "51"), "LOSS: '51' is not a percentage of 0 to 50"),
        (("--loss", "nan"), "LOSS: 'nan' is not a percentage of 0 to 50"),
        (("--fragment-size", "90"), "FRAGMENT_SIZE: '90' is not a number of octets"),
    ],
)
def test_a_wrong_variable_is_one_line_and_exit_2(root, words, said):
    done = demo(root, *words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"demo: {said}") and done.stderr.count("\n") == 1


def test_a_micropython_that_is_none_is_named(root):
    done = demo(root, MICROPYTHON="/bin/true")
    assert done.returncode == 2
    assert "MICROPYTHON=/bin/true is not a usable MicroPython" in done.stderr
    assert "micropython" in done.stderr


@pytest.mark.item("I3")
def test_without_root_strongswan_is_refused_in_one_line(monkeypatch, capsys):
    """Asked of the program itself: another user may not enter the folder it lies in."""
    monkeypatch.setattr(whole.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as end:
        whole.main(["--gateway", "strongswan"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said == "demo: GATEWAY=strongswan needs root (network namespaces)\n"


def test_the_post_quantum_story_ends_with_the_same_handshake_both_ways(root):
    done = demo(root, "--readings", "2", "--pq", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "aes128ccm16-prfsha256-x25519-ke1_mlkem768" in done.stdout
    assert len(re.findall(r"octets on the air +\{", done.stdout)) == 2
    assert len(re.findall(r"\d\.\d\d s +\d+ datagrams", done.stdout)) == 2


def test_the_post_quantum_story_on_a_link_that_loses(root):
    done = demo(root, "--readings", "2", "--pq", "1", "--loss", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loses 2 % of the datagrams" in done.stdout
    rows = [line for line in done.stdout.splitlines() if re.match("  (pattern|median)", line)]
    assert len(rows) == 6


def test_the_story_in_small_fragments_on_a_link_that_loses(root):
    done = demo(root, "--readings", "2", "--loss", "2", "--fragment-size", "200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loses 2 % of the datagrams" in done.stdout and "at most 200 octets" in done.stdout
    rows = [line for line in done.stdout.splitlines() if re.match("  (pattern|median)", line)]
    assert len(rows) == 6


SWITCHES = {
    "gateway": ("development", "strongswan"),
    "pq": ("0", "1"),
    "sleep": ("0", "1"),
    "loss": ("0", "1"),
    "fragment-size": ("576",),
}


def combinations():
    """Every set of switches, each with every value."""
    choices = [
        [(), *(((f"--{name}", value),) for value in values)] for name, values in SWITCHES.items()
    ]
    for chosen in itertools.product(*choices):
        yield [word for switch in chosen for pair in switch for word in pair]


@pytest.mark.item("K5")
def test_every_combination_of_switches_is_told_or_refused_in_one_line(monkeypatch, capsys):
    """A switch that the story would not heed is refused."""
    told = []
    for module in (story, link, sleeping):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "run", lambda options, name=name: told.append((name, options)))
    monkeypatch.setattr(whole.os, "geteuid", lambda: 0)
    monkeypatch.setattr(whole, "no_core_dumps", lambda: None)
    seen = 0
    for words in combinations():
        given = dict(zip(words[::2], words[1::2], strict=True))
        special = {"--pq": "1", "--loss": "1", "--fragment-size": "576"}.items() & given.items()
        real, sleep = given.get("--gateway") == "strongswan", given.get("--sleep") == "1"
        told.clear()
        if special and (real or sleep):
            with pytest.raises(SystemExit) as end:
                whole.main(words)
            said = capsys.readouterr().err
            assert end.value.code == 2 and said.count("\n") == 1, words
            assert any(word.split("=")[0] in said for word in ("PQ=", "LOSS=", "FRAGMENT_SIZE="))
            continue
        assert whole.main(words) == 0
        ((name, options),) = told
        assert name == ("link" if special else "sleep" if sleep else "story"), words
        assert options.readings == (4 if sleep else 10)
        assert options.gateway == given.get("--gateway") or "--gateway" not in given
        seen += 1
    assert seen > 20


@pytest.mark.item("K5")
def test_a_switch_that_demo_does_not_know_is_refused_by_make(root):
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "demo", "READINGS=1", "SLEEEP=1"],
        check=False, cwd=root, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "readings from a sensor" not in done.stdout
    assert "demo: no variable SLEEEP; it has READINGS " in done.stderr


def test_a_sleeping_sensor_is_shown_with_one_handshake_for_all_its_wake_ups(root):
    done = demo(root, "--sleep", "1", "--gateway", "development", "--readings", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(
        r"(new handshake|wake-up \d) +SN (\d+) +(\d+) ms .* (\d+) datagrams, +(\d+) oct",
        done.stdout,
    )
    assert [line[0] for line in lines] == ["new handshake", "wake-up 1", "wake-up 2"]
    assert [line[3] for line in lines] == ["6", "2", "2"]
    sns = [int(line[1]) for line in lines]
    assert sns == sorted(set(sns))
    assert all(int(line[4]) < int(lines[0][4]) / 4 for line in lines[1:])


@pytest.mark.parametrize("compiled", [False, True], ids=["sources", "compiled"])
def test_ten_readings_need_no_more_than_140_kib(tmp_path, compiled):
    """Objects are twice a board's.  From sources, which no board runs, 160 KiB: their compiler
    works in the same heap, and from 152 KiB on it has room."""
    firmware, heap = mpy.FIRMWARE, "160k"
    if compiled:
        firmware, heap = tmp_path, "140k"
        mpy.stage(firmware)
    with RunningGateway({"any": "a pre-shared key"}) as gateway:
        profile = {
            "gateway": "127.0.0.1",
            "port": gateway.port,
            "natt_port": gateway.natt_port,
            "retries": 0,
        }
        sensor = Sensor(profile, {"psk": "a pre-shared key"}, 10, heap=heap, firmware=firmware)
        try:
            assert sensor.wait(20) == 0, sensor.output
            assert len(sensor.all("reply")) == 10
        finally:
            sensor.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_leaves_nothing_behind(tmp_path, number):
    demo = subprocess.Popen(
        [sys.executable, "-m", "tools.dev.demo", "--readings", "1000"],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with demo:
        assert any("octets on the air" in line for line in demo.stdout), "no reading"
        made = list(tmp_path.iterdir())
        assert made and not any(path.stat().st_mode & 0o077 for path in made)
        demo.send_signal(number)
        demo.stdout.read()
        assert demo.wait(60) == 130
    assert list(tmp_path.iterdir()) == []
