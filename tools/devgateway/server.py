"""UDP sockets and the clock around a `Gateway`, on asyncio.

One socket for IKE and one for NAT traversal. The local address of each datagram is read
by IP_PKTINFO, so that binding to a wildcard address still gives right NAT hashes and
answers leave from the address that was asked.
"""

import asyncio
import os
import queue
import random
import socket
import struct
import threading
import time
from contextlib import suppress
from ipaddress import ip_address

from .config import Config, ConfigError, Secrets
from .gateway import Endpoint, Gateway

# Linux values; the socket module has no name for the first on CPython 3.11.
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)
_SHUTDOWN_S = 1.0  # how long to wait for answers to DELETE
_MAX_DATAGRAM = 65535


def clock_ms():
    return time.monotonic_ns() // 1_000_000


class _Port:
    """One bound UDP socket, or with `raw` one for ESP straight on IP."""

    def __init__(self, host, port, natt, raw=False):
        address = ip_address(host)
        self.natt = natt
        self.raw = raw
        self._six = address.version == 6
        family = socket.AF_INET6 if self._six else socket.AF_INET
        try:
            if raw:
                self._sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ESP)
            else:
                self._sock = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            raise ConfigError("cannot open a raw socket: %s" % error.strerror) from None
        self._sock.setblocking(False)
        if self._six:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            if not raw:
                self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        else:
            self._sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        try:
            self._sock.bind((host, port))
        except OSError as error:
            self._sock.close()
            raise ConfigError("cannot bind %s port %d: %s" % (host, port, error)) from None
        self.host = host
        self.port = 0 if raw else self._sock.getsockname()[1]

    def fileno(self):
        return self._sock.fileno()

    def close(self):
        self._sock.close()

    def receive(self):
        """(datagram, Endpoint), or None when the socket is drained."""
        try:
            data, ancillary, _, address = self._sock.recvmsg(_MAX_DATAGRAM, 128)
        except (BlockingIOError, InterruptedError, ConnectionError):
            return None
        local = self.host
        for level, kind, value in ancillary:
            if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(value) >= 12:
                local = socket.inet_ntop(socket.AF_INET, value[8:12])
            elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                local = socket.inet_ntop(socket.AF_INET6, value[:16])
        host = address[0].partition("%")[0]
        if self.raw:
            if not self._six:  # a raw IPv4 socket gives the IP header, too
                data = data[(data[0] & 15) * 4 :]
            return data, Endpoint(host, 0, False, local, 0, True)
        return data, Endpoint(host, address[1], self.natt, local, self.port)

    def send(self, data, endpoint):
        local = ip_address(endpoint.local_host)
        ancillary = []
        if not local.is_unspecified:
            if self._six:
                info = struct.pack("@16sI", local.packed, 0)
                ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)]
            else:
                info = struct.pack("@i4s4s", 0, local.packed, bytes(4))
                ancillary = [(socket.IPPROTO_IP, _IP_PKTINFO, info)]
        # A full or unreachable path is loss, which the protocol repairs.
        with suppress(OSError):
            self._sock.sendmsg([data], ancillary, 0, (endpoint.host, endpoint.port))


class Server:
    """A `Gateway` on two UDP ports. Port 0 asks for any free one.

    `loss` is the percentage of datagrams dropped each way, drawn from a generator seeded
    by `seed`.
    """

    def __init__(
        self, config, host="0.0.0.0", port=500, natt_port=4500, on_event=None, loss=0.0, seed=1
    ):
        self._ports = {}  # (natt, raw) -> _Port
        wanted = [(port, False, False), (natt_port, True, False)]
        if config.raw_esp:
            wanted.append((0, False, True))
        for number, natt, raw in wanted:
            try:
                self._ports[natt, raw] = _Port(host, number, natt, raw)
            except ConfigError:
                self._close_ports()
                raise
        self.gateway = Gateway(config, os.urandom, on_event)
        self._loss = loss / 100
        self._random = random.Random(seed)
        self._timer = None
        self._loop = None

    @property
    def port(self):
        return self._ports[False, False].port

    @property
    def natt_port(self):
        return self._ports[True, False].port

    def start(self):
        """Begin to serve on the running event loop."""
        self._loop = asyncio.get_running_loop()
        for port in self._ports.values():
            self._loop.add_reader(port.fileno(), self._readable, port)
        self.gateway.event("ready", port=self.port, natt_port=self.natt_port)

    def _lost(self, counter):
        if self._loss and self._random.random() < self._loss:
            self.gateway.count(counter)
            return True
        return False

    def _readable(self, port):
        while (received := port.receive()) is not None:
            data, endpoint = received
            if not self._lost("lost_in"):
                self.send(self.gateway.receive(data, endpoint, clock_ms()))
        self._rearm()

    def send(self, datagrams):
        """Put what a `Gateway` call returned on the wire."""
        for data, endpoint in datagrams:
            if not self._lost("lost_out"):
                self._ports[endpoint.natt, endpoint.raw].send(data, endpoint)

    def call(self, function):
        """Run `function(gateway, now)` and send the datagrams it returns."""
        self.send(function(self.gateway, clock_ms()) or [])
        self._rearm()

    def _rearm(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.gateway.next_timer()
        if due is not None:
            delay = max(0, due - clock_ms()) / 1000
            self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self):
        self._timer = None
        self.send(self.gateway.timer(clock_ms()))
        self._rearm()

    async def close(self):
        """Delete every SA, wait a little for the answers, tell the statistics."""
        self.call(Gateway.shutdown)
        deadline = clock_ms() + int(_SHUTDOWN_S * 1000)
        while self.gateway.established_sas() and clock_ms() < deadline:
            await asyncio.sleep(0.02)
        if self._timer is not None:
            self._timer.cancel()
        for port in self._ports.values():
            self._loop.remove_reader(port.fileno())
        self._close_ports()
        self.gateway.event("stats", **self.gateway.stats())

    def _close_ports(self):
        for port in self._ports.values():
            port.close()


class RunningGateway:
    """A gateway on a thread of its own, for tests and scripts.

        with RunningGateway(secrets={"any": "secret"}) as gateway:
            ...                              # gateway.port, gateway.natt_port
            reading = gateway.reading(timeout=5)

    Keyword arguments are those of `Config` (`secrets` may be a dict) and of `Server`
    (`host`, `port`, `natt_port`, `loss`, `seed`); ports default to free ones on 127.0.0.1.
    `events` is a queue of (name, fields), `history` the list of all of them.
    """

    def __init__(self, secrets, host="127.0.0.1", port=0, natt_port=0, loss=0.0, seed=1, **config):
        if isinstance(secrets, dict):
            secrets = Secrets(secrets)
        self._config = Config(secrets, **config)
        self._where = (host, port, natt_port)
        self._loss = (loss, seed)
        self.events = queue.Queue()
        self.readings = queue.Queue()
        self.history = []
        self.port = self.natt_port = None
        self._server = self._loop = self._stopping = self._thread = None
        self._started = threading.Event()
        self._failure = None

    def __enter__(self):
        self._thread = threading.Thread(target=self._main, name="devgateway", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Shut down as at SIGTERM: DELETE to every sensor, then `stats`."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def _event(self, name, fields):
        self.history.append((name, fields))
        self.events.put((name, fields))
        if name == "reading":
            self.readings.put(fields)

    def _main(self):
        try:
            asyncio.run(self._serve())
        except Exception as error:  # told to the thread that waits in __enter__
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self):
        loss, seed = self._loss
        host, port, natt_port = self._where
        self._server = Server(self._config, host, port, natt_port, self._event, loss, seed)
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._server.start()
        self.port, self.natt_port = self._server.port, self._server.natt_port
        self._started.set()
        await self._stopping.wait()
        await self._server.close()

    def reading(self, timeout=5.0):
        """The fields of the next reading; queue.Empty after `timeout` seconds."""
        return self.readings.get(timeout=timeout)

    def wait_for(self, name, timeout=5.0):
        """The fields of the next event of that name, others are skipped; queue.Empty in the end."""
        deadline = time.monotonic() + timeout
        while True:
            found, fields = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            if found == name:
                return fields

    def call(self, function):
        """`function(gateway, now)` on the gateway's thread.

        A list of datagrams that it returns is sent; any other result comes back.
        """
        answer = queue.Queue()

        def run():
            try:
                result = function(self._server.gateway, clock_ms())
                if isinstance(result, list):
                    self._server.call(lambda gateway, now: result)
                    result = None
                answer.put((result, None))
            except Exception as error:  # told to the caller's thread
                answer.put((None, error))

        self._loop.call_soon_threadsafe(run)
        result, error = answer.get(timeout=10)
        if error is not None:
            raise error
        return result

    def drops(self):
        """Dropped datagrams by reason."""
        return self.call(lambda gateway, now: dict(gateway.drops))

    def stats(self):
        return self.call(lambda gateway, now: gateway.stats())

    def delete_all(self):
        """Send DELETE for every IKE SA."""
        self.call(lambda gateway, now: gateway.shutdown(now))

    def liveness_all(self):
        """Send an empty INFORMATIONAL request on every IKE SA."""
        for sa in self.call(lambda gateway, now: tuple(gateway.established_sas())):
            self.call(lambda gateway, now, sa=sa: gateway.liveness(sa, now, _alive))

    def send_udp(self, source, source_port, destination_port, payload, id=None):
        """A UDP datagram into the tunnel of every sensor (or the one with identity `id`)."""
        self._each(id, "send_udp", source, source_port, destination_port, payload)

    def send_icmp(self, source, kind, code, body=bytes(4), id=None):
        self._each(id, "send_icmp", source, kind, code, body)

    def send_dummy(self, size=0, id=None):
        self._each(id, "send_dummy", size)

    def _each(self, id, method, *arguments):
        def run(gateway, now):
            out = []
            for child in gateway.children.values():
                if id is None or str(child.ike.identity) == id:
                    out += getattr(gateway, method)(child, *arguments)
            return out

        self.call(run)


def _alive(sa, payloads, now):
    sa.gateway.event("alive", id=str(sa.identity))
