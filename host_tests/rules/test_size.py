"""Every firmware module stays within the octets that it was given."""

import pytest

from tools.common import mpy
from tools.dev import size


@pytest.fixture(scope="module")
def rows():
    return size.measure()


def test_every_module_has_a_budget_and_keeps_it(rows):
    assert size.violations(rows, size.budgets()) == []


def test_a_module_without_a_budget_and_one_over_it_are_named(rows):
    limits = size.budgets()
    limits["mpy"].pop("ike/wire")
    limits["ram"]["crypto/ccm"] = 10
    found = size.violations(rows, limits)
    assert any("ike/wire: no mpy budget" in line for line in found)
    assert any("crypto/ccm: ram" in line and "over its budget 10" in line for line in found)


_WATCH = """
import asyncio, sys
from minipsec import load_profile

seen = set()


def look(*_):
    for name in sys.modules:
        if name.startswith("minipsec"):
            seen.add(name)


def load(path):
    import minipsec.config.profile
    import minipsec.heap

    look()
    return load_profile(path)


async def session():
    from minipsec.tunnel import Tunnel

    async with Tunnel(load(sys.argv[1]), look) as tunnel:
        await tunnel.send(b"reading")
        await tunnel.receive(timeout_ms=5000)
        print(" ".join(seen))



def run():
    import sensor
    from minipsec.app import run as loop

    loop.load_profile = load
    loop.reporter = lambda kind: look
    if not loop.run(sensor, [sys.argv[1], "1"]):
        print(" ".join(seen))


if sys.argv[2] == "main.py":
    run()
else:
    import minipsec.app.log

    asyncio.run(session())
"""


@pytest.mark.parametrize(
    ("program", "counted"), [("its own", size.DEFAULT), ("main.py", size.PROGRAM)]
)
def test_a_default_session_loads_what_its_total_counts(micropython, tmp_path, program, counted):
    """Against a gateway that agrees to all that a default profile offers."""
    import json

    from tools.devgateway import RunningGateway

    with RunningGateway({"any": "a shared secret"}) as gateway:
        profile = {
            "gateway": "127.0.0.1",
            "gateway_id": "gw.example.org",
            "id": "sensor.example.org",
            "server": "10.3.0.10",
            "port": gateway.port,
            "natt_port": gateway.natt_port,
        }
        (tmp_path / "profile.json").write_text(json.dumps(profile))
        (tmp_path / "secrets.json").touch(mode=0o600)
        (tmp_path / "secrets.json").write_text(json.dumps({"psk": "a shared secret"}))
        (tmp_path / "watch.py").write_text(_WATCH)
        done = micropython(tmp_path / "watch.py", tmp_path / "profile.json", program)
    imported = set(done.stdout.split())
    loaded = {name for name in mpy.modules() if mpy.dotted(name) in imported}
    # The unix port's own: a board has neither, or something else in their place.
    assert loaded - {"board/address", "crypto/octets_viper"} == counted
