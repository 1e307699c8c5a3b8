"""A sensor's life: its profile, a handshake, readings, a handshake that replaces the first.

The gateway is a recording.  `Tunnel` and all below it run as on a board, asyncio included.
"""

import asyncio
import gc
import micropython
from hashlib import sha256

import __main__
import _host
import parts


class Rand:
    """A `rand(n)` as tools/dev/peers/node.py has it: the gateway's answers fit these octets."""

    def __init__(self, seed):
        self._seed = seed
        self._counts = {}

    def __call__(self, n):
        count = self._counts.get(n, 0)
        self._counts[n] = count + 1
        out = b""
        while len(out) < n:
            out += sha256(self._seed + b"%d %d %d" % (n, count, len(out))).digest()
        return out[:n]


class Log:
    quiet = False  # states are no phases of their own


def log(event, fields):
    if event == "state" and not Log.quiet:
        _host.phase(fields["state"])
    elif event == "error":
        _host.note("failed", fields["text"])


def live(name):
    _host.end()
    gc.collect()
    _host.note(name, _host.used())
    micropython.qstr_info()
    _host.note("names at " + name, _host.names())


async def bursts(until):
    """Let the recorded gateway answer until something holds."""
    patience = 0
    while not until():
        n = _host.burst(patience > 200)
        patience = 0 if n else patience + 1
        if n:
            parts.came(parts.Socket.last, n)
        await asyncio.sleep_ms(0 if n else 2)
        if patience > 400:
            raise RuntimeError("the session stands still")


async def main(seeds, readings):
    parts.install()
    if __main__.FROZEN:
        # The firmware's table has their names: no other one grows, whoever would come upon that.
        for i in range(1300):
            getattr(parts, "%x~" % i, None)
    live("empty")
    _host.phase("load_profile")
    from minipsec import load_profile

    profile = load_profile("/profile.json")
    live("profile")
    _host.phase("Tunnel")
    from minipsec import Tunnel
    from minipsec.board import port

    tunnel = Tunnel(profile, log)
    live("tunnel")
    _host.open(0)
    port.rand = Rand(seeds[0])
    _host.phase("IKE_SA_INIT")
    connecting = asyncio.create_task(tunnel.connect())
    await bursts(lambda: tunnel.up.is_set() or connecting.done())
    await connecting
    live("up")
    _host.phase("readings")
    for n in range(readings):
        await tunnel.send(b'{"n": %d, "t": 21.5}' % n)
        await bursts(lambda: tunnel._inbox)
        await tunnel.receive(timeout_ms=1000)
    live("steady")
    if len(seeds) > 1:
        Log.quiet = True
        _host.open(1)
        port.rand = Rand(seeds[1])
        _host.phase("replace")
        tunnel._attempt()
        await bursts(lambda: tunnel.counters["replaced"] or tunnel.counters["failed"])
        _host.end()
    _host.note("counters", str(tunnel.counters))
