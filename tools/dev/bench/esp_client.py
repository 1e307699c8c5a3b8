"""What `make bench-esp` runs on MicroPython: seals and sends readings in every way it knows.

`micropython esp_client.py ROUNDS SINK DTLS TLS` with the port numbers of a UDP socket, a DTLS and
a TLS server; prints "ready" when it has sent one record of each size, waits for a line, and prints
one JSON object.  Way after way, round after round, so that whatever else the machine does falls on
all of them; the best batch of each counts.
"""

import gc
import json
import socket
import sys
import time

import tls

SIZES = (8, 32, 128, 512, 1200)
BATCH = 10
KEY = bytes(range(16))
HOST = "127.0.0.1"


def address(port):
    return socket.getaddrinfo(HOST, port)[0][-1]


def udp(port):
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.connect(address(port))
    return end


def senders():
    """Our variants: {name: esp.Sender}."""
    from minipsec.esp.sa import Sender
    from minipsec.esp.sequence import Sequence

    found = {}
    for transport in (False, True):
        for iiv in (False, True):
            child = {"spi_in": b"spi.", "spi_out": b"spi.", "key_in": KEY + b"slt"}
            child.update(
                key_out=KEY + b"slt", cipher=29 if iiv else 14, transport=transport, esn=False
            )
            name = "transport" if transport else "tunnel"
            ends = (bytes((10, 9, 0, 1)), bytes((10, 3, 0, 10)), 5000, 5000)
            found[name + (" implicit IV" if iiv else "")] = Sender(child, ends, Sequence(0, 1))
    return found


def secured(port, protocol, kind):
    """A connection of MicroPython's own ssl: pre-shared key, AES-128-GCM."""
    context = tls.SSLContext(protocol)
    context.verify_mode = tls.CERT_NONE
    context.set_ciphers(["TLS-PSK-WITH-AES-128-GCM-SHA256"])
    context.psk_identity = b"sensor"
    context.psk_key = KEY
    end = socket.socket(socket.AF_INET, kind)
    end.connect(address(port))
    if kind == socket.SOCK_STREAM:
        return context.wrap_socket(end, server_side=False)
    end = context.wrap_socket(end, server_side=False, do_handshake_on_connect=False)
    end.setblocking(False)
    for _ in range(500):
        if end.write(b"hello"):
            return end
        time.sleep_ms(10)
    raise OSError("no DTLS handshake")


class Way:
    """One way to get a reading out: `send` alone, or what `seal` made of it."""

    def __init__(self, name, send, seal=None):
        self.name = name
        self.send = send
        self.seal = seal
        self.now = 0
        self.octets = {}
        self.best = {}
        self.allocated = {}

    def _took(self, what, size, began):
        took = time.ticks_diff(time.ticks_us(), began) / BATCH
        key = "%s %d" % (what, size)
        self.best[key] = min(took, self.best.get(key, took))

    def measure(self, size, payload):
        send, seal, now = self.send, self.seal, self.now
        if not seal:
            began = time.ticks_us()
            for _ in range(BATCH):
                send(payload)
            self._took("send", size, began)
            return
        began = time.ticks_us()
        for _ in range(BATCH):
            now += 1
            send(seal(payload, now))
        self._took("send", size, began)
        began = time.ticks_us()
        for _ in range(BATCH):
            now += 1
            seal(payload, now)
        self._took("seal", size, began)
        self.now = now

    def allocate(self, size, payload):
        send, seal, now = self.send, self.seal, self.now
        for _ in range(3):
            now += 1
            send(seal(payload, now) if seal else payload)
        gc.collect()
        gc.disable()
        before = gc.mem_alloc()
        for _ in range(20):
            if seal:
                now += 1
                seal(payload, now)
            else:
                send(payload)
        self.allocated[size] = (gc.mem_alloc() - before) / 20
        gc.enable()
        self.now = now


def ways(sink, dtls, stream):
    found = [Way(name, udp(sink).send, sender.seal) for name, sender in senders().items()]
    found.append(Way("DTLS 1.2", secured(dtls, tls.PROTOCOL_DTLS_CLIENT, socket.SOCK_DGRAM).write))
    found.append(
        Way("TLS 1.2", secured(stream, tls.PROTOCOL_TLS_CLIENT, socket.SOCK_STREAM).write)
    )
    found.append(Way("plain UDP", udp(sink).send))
    return found


def main(rounds, *ports):
    todo = ways(*ports)
    # One record of each size by itself: the other end counts its octets.
    for way in todo:
        for size in SIZES:
            if way.seal:
                way.now += 1
                way.octets[size] = len(way.seal(bytes(size), way.now))
            else:
                time.sleep_ms(60)
                way.send(bytes(size))
    time.sleep_ms(200)
    print("ready")
    input()
    for size in SIZES:
        payload = bytes(i & 255 for i in range(size))
        for way in todo:
            way.allocate(size, payload)
        for _ in range(rounds):
            for way in todo:
                way.measure(size, payload)
    result = {
        way.name: {"us": way.best, "allocated": way.allocated, "octets": way.octets}
        for way in todo
    }
    result["interpreter"] = sys.version
    result["ssl"] = tls.MBEDTLS_VERSION
    print(json.dumps(result))


main(*[int(word) for word in sys.argv[1:]])
