"""`make demo` as a person runs it."""

import os
import re
import subprocess
import sys

import pytest

from host_tests.lab import Sensor
from tools import mpy
from tools.devgateway import RunningGateway


def demo(root, *words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tools.demo", *words],
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
    assert len(re.findall(r"octets on the wire +\{", done.stdout)) == 3
    assert "as the gateway decrypted it" in done.stdout


@pytest.mark.parametrize(
    "words", [("--readings", "0"), ("--readings", "ten"), ("--gateway", "none")]
)
def test_a_wrong_variable_is_one_line_and_exit_2(root, words):
    done = demo(root, *words)
    assert done.returncode == 2
    assert words[1] in done.stderr


def test_a_micropython_that_is_none_is_named(root):
    done = demo(root, MICROPYTHON="/bin/true")
    assert done.returncode == 2
    assert "MICROPYTHON=/bin/true is not a usable MicroPython" in done.stderr
    assert "micropython" in done.stderr


def test_without_root_strongswan_is_refused_in_one_line(root):
    if os.geteuid() == 0:
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    else:
        prefix = []
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tools.demo", "--gateway", "strongswan"],
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "demo: GATEWAY=strongswan needs root (network namespaces)\n"


def test_the_post_quantum_story_ends_with_the_same_handshake_both_ways(root):
    done = demo(root, "--readings", "2", "--pq", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "aes128ccm16-prfsha256-x25519-ke1_mlkem768" in done.stdout
    assert len(re.findall(r"octets on the wire +\{", done.stdout)) == 2
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


@pytest.mark.parametrize(
    "words",
    [
        ("--loss", "20", "--gateway", "strongswan"),
        ("--pq", "1", "--gateway", "strongswan"),
        ("--pq", "1", "--loss", "90"),
        ("--fragment-size", "90"),
    ],
)
def test_what_does_not_go_together_is_one_line_and_exit_2(root, words):
    done = demo(root, *words)
    assert done.returncode == 2
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_a_sleeping_sensor_is_shown_with_one_handshake_for_all_its_wake_ups(root):
    done = demo(root, "--sleep", "1", "--gateway", "development")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(
        r"(new handshake|wake-up \d) +SN (\d+) +(\d+) ms .* (\d+) datagrams, +(\d+) oct",
        done.stdout,
    )
    assert [line[0] for line in lines] == ["new handshake", "wake-up 1", "wake-up 2", "wake-up 3"]
    assert [line[3] for line in lines] == ["6", "2", "2", "2"]
    sns = [int(line[1]) for line in lines]
    assert sns == sorted(set(sns))
    assert all(int(line[4]) < int(lines[0][4]) / 4 for line in lines[1:])


@pytest.mark.parametrize("compiled", [False, True], ids=["sources", "compiled"])
def test_ten_readings_need_no_more_than_128_kib(tmp_path, compiled):
    """From sources, too, whose compiler works in the same heap; objects are twice a board's."""
    firmware = mpy.FIRMWARE
    if compiled:
        firmware = tmp_path
        mpy.stage(firmware)
    with RunningGateway({"any": "a pre-shared key"}) as gateway:
        profile = {
            "gateway": "127.0.0.1",
            "port": gateway.port,
            "natt_port": gateway.natt_port,
            "retries": 0,
        }
        sensor = Sensor(profile, {"psk": "a pre-shared key"}, 10, heap="128k", firmware=firmware)
        try:
            assert sensor.wait(20) == 0, sensor.output
            assert len(sensor.all("reply")) == 10
        finally:
            sensor.stop()
