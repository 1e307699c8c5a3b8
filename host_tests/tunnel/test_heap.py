"""The heap that a program of one's own needs, and that a few names more or fewer change nothing.

MicroPython's table of names doubles somewhere in a session: see firmware/minipsec/heap.py.
"""

import json
import os
import re
import shutil
import subprocess

import pytest

from tools.common import mpy
from tools.dev.lab import GATEWAY_ID, PSK, SENSOR_ID
from tools.dev.setup.interpreter import require_micropython
from tools.devgateway import RunningGateway

KIB = (128, 132, 136, 140, 144)  # of the 64-bit port, whose objects are twice a board's
PROGRAM = """
import asyncio, sys
from minipsec import Tunnel, load_profile

profile = load_profile(sys.argv[1])

async def main():
    async with Tunnel(profile) as tunnel:
        for n in range(3):
            await tunnel.send(b"reading %d" % n)
            assert await tunnel.receive(timeout_ms=2000)

asyncio.run(main())
"""
KNOWN = "import errno, math, uctypes, socket\nfor m in (errno, math, uctypes, socket):\n print(*dir(m))"
# What a session does not load, and asyncio's own.
ELSEWHERE = ("config", "app", "board/raw_esp", "kex/mlkem", "kex/keccak", "sleep", "selftest")
ASYNCIO = ("_io_queue",)


def micropython(*arguments, heap=1024, **environment):
    return subprocess.run(
        [require_micropython(), "-X", f"heapsize={heap}k", *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def with_fewer_names(package, n):
    """Rename `n` private names, each of one module alone, to names that each firmware has."""
    texts = {path: path.read_text() for path in package.rglob("*.py")}
    ours = set(re.findall(r"\w+", " ".join(texts.values())))
    spare = sorted(set(micropython("-c", KNOWN).stdout.split()) - ours)
    for path in sorted(texts):
        if str(path.relative_to(package)).startswith(ELSEWHERE):
            continue
        for name in re.findall(r"def (_[a-z]\w+)", texts[path]):
            others = [text for other, text in texts.items() if other != path]
            if n and name not in ASYNCIO and not any(re.search(rf"\b{name}\b", o) for o in others):
                texts[path] = re.sub(rf"\b{name}\b", spare.pop(), texts[path])
                n -= 1
        path.write_text(texts[path])
    assert not n


@pytest.fixture(scope="module")
def gateway():
    with RunningGateway({"any": PSK}) as running:
        yield running


@pytest.mark.parametrize("names", [-40, -20, 0, 20, 40])
def test_a_program_of_ones_own_comes_up_in_each_heap_with_any_number_of_names(
    names, gateway, tmp_path
):
    firmware, sources = tmp_path / "firmware", tmp_path / "sources"
    firmware.mkdir()
    mpy.stage(firmware)
    if names < 0:
        shutil.copytree(mpy.PACKAGE, sources)
        with_fewer_names(sources, -names)
        for path in sources.rglob("*.py"):
            target = (firmware / "minipsec" / path.relative_to(sources)).with_suffix(".mpy")
            if target.exists():
                mpy.compile_file(path, target, mpy.HERE)
    program = "".join([f"def unused(x):\n    x.of_ones_own_{n}\n" for n in range(max(names, 0))])
    (tmp_path / "program.py").write_text(program + PROGRAM)
    profile = {
        "gateway": "127.0.0.1", "gateway_id": GATEWAY_ID, "id": SENSOR_ID, "server": "10.3.0.10",
        "port": gateway.port, "natt_port": gateway.natt_port, "retries": 0,
    }  # fmt: skip
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    (tmp_path / "secrets.json").touch(0o600)
    (tmp_path / "secrets.json").write_text(json.dumps({"psk": PSK}))
    failed = {}
    for kib in KIB:
        files = str(tmp_path / "program.py"), str(tmp_path / "profile.json")
        done = micropython(*files, heap=kib, MICROPYPATH=f"{firmware}:.frozen")
        if done.returncode:
            failed[kib] = done.stdout + done.stderr
    assert not failed, "\n".join(f"{kib} {text[-300:]}" for kib, text in failed.items())
