"""Datagrams of a stranger, short ones above all, on every kind of tunnel: dropped and counted."""

import asyncio

from host_tests.checklist import item
from host_tests.tunnel.sessions import Peer, connected, sleeping, until
from tools.dev.sim.virtual import run
from minipsec.tunnel import Tunnel

LONGEST = 64
STRANGER = ("10.66.6.6", 666)


def shorts(link):
    """Datagrams of every length to LONGEST, as like to ours as one who listens makes them."""
    spi_i = bytes(link.ike.spi_i) if link.ike else bytes(8)
    spi_in = link.child["spi_in"] if link.child else b"spi?"
    head = spi_i + bytes(8) + b"\x29\x20\x22\x20" + bytes(7)
    for n in range(LONGEST + 1):
        for start in (b"", b"\xff" * 64, b"\0\0\0\1" + bytes(60), spi_i, spi_in, head):
            yield (start + bytes(64))[:n]
            if len(start) == 64:
                yield start[:n]
        yield (bytes(4) + head + bytes(64))[:n]


def counted(tunnel):
    return sum(tunnel.stats()["drops"].values())


async def bother(tunnel, link):
    """Hand them in, a few at a time; each one is counted, and moves nothing."""
    socket = link._udp
    sent = list(shorts(link))
    before = counted(tunnel)
    state = link.ike.state if link.ike else None
    for at in range(0, len(sent), 8):
        for datagram in sent[at : at + 8]:
            socket.inbox.append((datagram, STRANGER))
        socket.came.set()
        while socket.inbox:
            await asyncio.sleep_ms(0)
        await asyncio.sleep_ms(0)
    assert counted(tunnel) - before == len(sent), (len(sent), tunnel.stats())
    assert state is None or link.ike.state == state


@item("A4")
def test_short_datagrams_are_dropped_and_counted_in_a_handshake_and_up():
    _, gateway, log, tunnel = connected()
    Peer.ppk = None

    async def main():
        gateway.up = False
        task = asyncio.create_task(tunnel.connect())
        await until(lambda: tunnel._next)
        await bother(tunnel, tunnel._next)
        gateway.up = True
        await task
        await bother(tunnel, tunnel._link)
        await tunnel.send(b"reading")
        assert await tunnel.receive(1000) == b"reading"
        await tunnel.close()

    run(main())
    assert log.all("error") == []


@item("A4")
def test_short_datagrams_are_dropped_and_counted_while_an_sa_is_replaced():
    _, gateway, log, tunnel = connected()
    Peer.ppk = None

    async def main():
        await tunnel.connect()
        old = tunnel._link
        gateway.up = False
        tunnel.on_stale(old)
        await until(lambda: tunnel._next)
        await bother(tunnel, tunnel._next)
        await bother(tunnel, old)
        gateway.up = True
        await until(lambda: tunnel._link is not old, 10000)
        if old._udp:
            await bother(tunnel, old)
        await bother(tunnel, tunnel._link)
        await tunnel.send(b"reading")
        assert await tunnel.receive(1000) == b"reading"
        await tunnel.close()

    run(main())
    assert log.all("error") == []


@item("A4")
def test_short_datagrams_are_dropped_and_counted_after_a_sleep():
    _, gateway, log, tunnel = sleeping()
    Peer.ppk = None
    profile = tunnel.profile

    async def main():
        await tunnel.connect()
        await tunnel.send(b"first")
        assert await tunnel.receive(1000) == b"first"
        assert await tunnel.suspend()
        awake = Tunnel.resume(profile, log)
        await awake.connect()
        await bother(awake, awake._link)
        for n in range(3):
            await awake.send(b"again %d" % n)
            assert await awake.receive(1000) == b"again %d" % n
        assert len(gateway.history) == 1
        assert await awake.suspend()

    run(main())
    assert log.all("error") == []
