"""What `make bench` runs on MicroPython: handshakes, seals and sends, one task after the other.

A task is a line of JSON on standard input, `{"do": name, ..}`. "ready" answers it, the next line
starts it, its result is a line of JSON, and one more line has it tidy up, which "over" ends. So
whoever is at the other end can read this process's CPU time right before and right after.
"""

import asyncio
import gc
import json
import socket
import sys

import tls

import minipsec

_forget = minipsec.forget
reloads = True  # do modules that a handshake is done with go, and come back for the next one?


def forget(*names):
    if reloads:
        _forget(*names)


minipsec.forget = forget  # before any module of the session takes it

from minipsec import Tunnel, load_profile
from minipsec.kex import methods
from minipsec.esp.sa import Receiver, Sender
from minipsec.esp.sequence import Sequence

KEY = bytes(range(16)) + b"slt"
ENDS = (bytes((10, 9, 0, 1)), bytes((10, 3, 0, 10)), 5000, 5000)
HOST = "127.0.0.1"
GARBAGE_OF = 20
AT_ONCE = 8  # handshakes of one process
ECHOES = 50
REPLY_MS = 5000


def connected(port):
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.connect(socket.getaddrinfo(HOST, port)[0][-1])
    return end


def allocated():
    gc.collect()
    return gc.mem_alloc()


def start():
    """Return when the other end has read the clock."""
    print("ready")
    sys.stdin.readline()


def done(**found):
    """Say what was found; return when the other end has read the clock again."""
    print(json.dumps(found))
    sys.stdin.readline()


async def ike(profile, reload=False):
    """A tunnel from nothing to up; `reload` lets go of the handshake's code as a board does."""
    global reloads
    profile = load_profile(profile)
    reloads = reload
    gc.collect()
    start()
    tunnel = Tunnel(profile)
    await tunnel.connect()
    counters = tunnel.counters
    done(out=counters["octets_out"], back=counters["octets_in"])
    await tunnel.close()


async def dtls(port, cipher, ca=None, own=None, psk=None):
    """mbedTLS's handshake; it sleeps in the kernel while it waits for the other end."""
    ca = ca and read(ca)
    own = own and [read(path) for path in own]
    gc.collect()
    start()
    context = tls.SSLContext(tls.PROTOCOL_DTLS_CLIENT)
    context.set_ciphers([cipher])
    if ca:
        context.load_verify_locations(ca)
        context.verify_mode = tls.CERT_REQUIRED
    else:
        context.verify_mode = tls.CERT_NONE
    if own:
        context.load_cert_chain(*own)
    if psk:
        context.psk_identity = b"sensor"
        context.psk_key = bytes.fromhex(psk)
    raw = connected(port)
    end = context.wrap_socket(raw, server_side=False, server_hostname="gw.example.org")
    done()
    end.close()
    raw.close()


def read(path):
    with open(path, "rb") as file:
        return file.read()


async def exchange(group):
    """Our half of one key exchange alone: a key pair and a shared secret."""
    from minipsec.board.port import rand

    method = methods.method(group)
    # Any ciphertext takes ML-KEM the same steps.
    peer = bytes(1088) if group == 36 else method(rand).public
    gc.collect()
    start()
    method(rand).shared(peer)
    done()


def sender():
    child = {"spi_in": b"spi.", "spi_out": b"spi.", "key_in": KEY, "key_out": KEY, "cipher": 14}
    return child, Sender(child, ENDS, Sequence(0, 1))


def garbage(work):
    """Octets of heap that one call takes, with the collector off."""
    work(3)
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    work(GARBAGE_OF)
    took = gc.mem_alloc() - before
    gc.enable()
    return took / GARBAGE_OF


async def seal(size, count):
    payload = bytes(size)
    seal = sender()[1].seal
    now = 0

    def work(count):
        nonlocal now
        for _ in range(count):
            now += 1
            seal(payload, now)

    took = garbage(work)
    start()
    work(count)
    done(garbage=took)


async def opening(size, count):
    child, other = sender()
    back = (ENDS[1], ENDS[0], ENDS[2], ENDS[3])
    receiver = Receiver(child, back, 64)
    other = Sender(child, back, Sequence(0, 1))
    payload = bytes(size)
    packets = [bytes(other.seal(payload, n)) for n in range(count + GARBAGE_OF + 3)]

    def work(count):
        for _ in range(count):
            receiver.open(packets.pop(0))

    took = garbage(work)
    todo = packets
    open_one = receiver.open
    start()
    for packet in todo:
        open_one(packet)
    done(garbage=took, opened=receiver.window.top)


LIVE = {}  # connections that several tasks use


async def live(profile, dtls_port, cipher, ca, sink):
    """Open what the tasks `write`, `plain`, `send` and `echo` send through."""
    context = tls.SSLContext(tls.PROTOCOL_DTLS_CLIENT)
    context.set_ciphers([cipher])
    context.load_verify_locations(read(ca))
    context.verify_mode = tls.CERT_REQUIRED
    raw = connected(dtls_port)
    end = context.wrap_socket(raw, server_side=False, server_hostname="gw.example.org")
    LIVE["write"] = end.write
    LIVE["plain"] = connected(sink).send
    LIVE["tunnel"] = tunnel = Tunnel(load_profile(profile))
    await tunnel.connect()
    start()
    done()


async def plain(way, size, count):
    """A C function that takes the payload: DTLS's write, or send."""
    payload = bytes(size)
    send = LIVE[way]

    def work(count):
        for _ in range(count):
            send(payload)

    took = garbage(work)
    start()
    work(count)
    done(garbage=took)


async def send(size, count):
    """`await tunnel.send(payload)`, as an application does it."""
    payload = bytes(size)
    tunnel = LIVE["tunnel"]
    for _ in range(3):
        await tunnel.send(payload)
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    for _ in range(GARBAGE_OF):
        await tunnel.send(payload)
    took = (gc.mem_alloc() - before) / GARBAGE_OF
    gc.enable()
    start()
    for _ in range(count):
        await tunnel.send(payload)
    done(garbage=took)


async def echo(profile, size, count):
    """A reading and the gateway's echo of it, one pair after the other, over a tunnel of its own."""
    payload = bytes(size)
    tunnel = Tunnel(load_profile(profile))
    await tunnel.connect()
    start()
    heard = 0
    for _ in range(count):
        await tunnel.send(payload)
        heard += await tunnel.receive(REPLY_MS) == payload
    done(heard=heard)
    await tunnel.close()


async def many(profiles):
    """So many tunnels in this process, some handshakes at a time."""
    profiles = [load_profile(path) for path in profiles]
    async with Tunnel(profiles[0]):
        pass  # what the first one loads and keeps
    before = allocated()
    tunnels = []

    async def some(mine):
        for profile in mine:
            tunnel = Tunnel(profile)
            await tunnel.connect()
            tunnels.append(tunnel)

    start()
    tasks = [asyncio.create_task(some(profiles[n::AT_ONCE])) for n in range(AT_ONCE)]
    for task in tasks:
        await task
    attempts = sum([tunnel.counters["attempts"] for tunnel in tunnels])
    done(up=len(tunnels), attempts=attempts, heap=allocated() - before)
    tasks = [asyncio.create_task(tunnel.close()) for tunnel in tunnels]
    for task in tasks:
        await task


async def nothing():
    start()
    done()


TASKS = {
    "ike": ike,
    "dtls": dtls,
    "exchange": exchange,
    "seal": seal,
    "open": opening,
    "live": live,
    "plain": plain,
    "send": send,
    "echo": echo,
    "many": many,
    "nothing": nothing,
}


async def main():
    while True:
        line = sys.stdin.readline()
        if not line:
            return
        task = json.loads(line)
        await TASKS[task.pop("do")](**task)
        print("over")


asyncio.run(main())
