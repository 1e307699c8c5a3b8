"""What a post-quantum handshake leaves behind on a board.  Runs under MicroPython.

micropython board_forget.py PROFILE.json [esp32]: brings the tunnel up twice, the second time in
place of the first, and prints one JSON object a line: modules that are loaded, what became of
the private keys, octets of heap in use.
"""

import asyncio
import gc
import json
import sys

sys.path.append(".frozen")

from minipsec import load_profile
from minipsec.board import port
from minipsec.tunnel import Tunnel

ASKED = (
    "kex.mlkem", "kex.keccak", "kex.methods", "handshake.intermediate", "handshake.ppk",
    "config.profile",
)  # fmt: skip
kept = []


def watched(mlkem):
    """Keep each private key's buffer, to see what becomes of it."""
    real = mlkem.method

    def method(ident):
        made = real(ident)

        class Watched(made):
            def __init__(self, rand, *_):
                super().__init__(rand)
                kept.append(self._secret)

        return Watched

    mlkem.method = method


def tell():
    gc.collect()
    gc.collect()
    loaded = [name for name in ASKED if "minipsec." + name in sys.modules]
    keys = [any(key) for key in kept]
    print(json.dumps({"loaded": loaded, "keys": keys, "heap": gc.mem_alloc()}))


async def answered(tunnel, octets):
    """Send a reading and take its echo, which else lies in the heap or is still on its way."""
    await tunnel.send(octets)
    assert await tunnel.receive(timeout_ms=2000) == octets


async def main(profile, watch):
    if watch:
        from minipsec.kex import mlkem

        watched(mlkem)
    tunnel = Tunnel(profile)
    await tunnel.connect()
    await answered(tunnel, b"one")
    tell()
    if watch:
        from minipsec.kex import mlkem

        watched(mlkem)
    replaced = tunnel.counters["replaced"]
    tunnel.on_stale(tunnel._link)
    while tunnel.counters["replaced"] == replaced:
        await asyncio.sleep_ms(20)
    await answered(tunnel, b"two")
    await asyncio.sleep_ms(50)  # for the end of the first SA
    tell()
    await tunnel.close()


# MicroPython's table of names doubles at the 1260th: before anything is measured, not in between.
for n in range(700):
    getattr(gc, "name %d" % n, None)
words = sys.argv[2:]
port.FORGETS_NATIVE = "esp32" not in words
asyncio.run(main(load_profile(sys.argv[1]), "watch" in words))
