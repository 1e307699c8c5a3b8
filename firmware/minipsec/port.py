"""What a board lends to minipsec: sockets, clocks, random octets.

Everything that differs from port to port is found here by trying, and nowhere else.
"""

import os
import socket
import struct
import time

_MAX_DATAGRAM = 3004

rand = os.urandom


class Clock:
    """Milliseconds that never wrap, out of `ticks_ms`, whose period is 2^30.

    `now()` must be called once in six days at least, which any timer does.
    """

    def __init__(self):
        self._last = time.ticks_ms()
        self._now = 0

    def now(self):
        """Return milliseconds since this clock was made."""
        ticks = time.ticks_ms()
        self._now += time.ticks_diff(ticks, self._last)
        self._last = ticks
        return self._now


def resolve(host, port):
    """Return the socket address of a host; OSError when its name is not found."""
    return socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM)[0][-1]


def packed(sockaddr):
    """Return (packed IP address, port) of a socket address, however this port writes it."""
    if isinstance(sockaddr, tuple):
        host, number = sockaddr[0], sockaddr[1]
        return bytes([int(octet) for octet in host.split(".")]), number
    # struct sockaddr of the unix port: family in the machine's order, port in the network's.
    family, number = struct.unpack("<H", sockaddr[:2])[0], (sockaddr[2] << 8) | sockaddr[3]
    return bytes(sockaddr[4:8] if family == socket.AF_INET else sockaddr[8:24]), number


def text(address):
    """Return a packed IPv4 address as people write it."""
    return ".".join([str(octet) for octet in address])


class UDP:
    """One UDP socket that never blocks."""

    def __init__(self, sockaddr):
        family = socket.AF_INET
        if len(sockaddr) != 2 and len(packed(sockaddr)[0]) == 16:
            family = socket.AF_INET6
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)

    def send(self, datagram, sockaddr):
        """Send one datagram; a full queue or a missing route loses it, as any link may."""
        try:
            self.socket.sendto(datagram, sockaddr)
            return True
        except OSError:
            return False

    def receive(self):
        """Return (datagram, socket address), or None when nothing is waiting."""
        try:
            return self.socket.recvfrom(_MAX_DATAGRAM)
        except OSError:
            # Nothing there; or an ICMP error of an earlier send, which is no datagram either.
            return None

    def close(self):
        """Close the socket."""
        self.socket.close()


def readable(udp):
    """Wait until a datagram is there: `await readable(udp)`."""
    import asyncio

    # asyncio has no datagram API; its own queue of pollable objects serves all the same.
    yield asyncio.core._io_queue.queue_read(udp.socket)
