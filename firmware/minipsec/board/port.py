"""What a board lends to minipsec: sockets, clocks, random octets, its network and watchdog.

Whatever differs from port to port is decided here, by a table or by trying, and nowhere else.
"""

import asyncio
import os
import select
import socket
import sys
import time

from ..tasks import spare

MAX_DATAGRAM = 1504  # more would have come in IP fragments

# sys.platform: is urandom fit for keys? does sendto know IPv6? the longest watchdog in ms;
# is deepsleep a light sleep, in which that counts on?
_PORTS = {"rp2": (False, True, 8388, True), "esp32": (False, False, 1 << 29, False)}
_STRONG, _SENDTO_6, _MAX_DOG, _LIGHT = _PORTS.get(sys.platform, (True, True, 0, False))

look_ms = 1 << 28  # the longest time for which a task that the watchdog watches may wait
why = ""  # why `online` had no network
nic = None  # the network interface that the profile's key `network` brought up
noise = os.urandom  # random octets for what is no secret
_saving = None  # Wi-Fi's power saving as we found it; False: the profile wants none
_seeds = None, ""  # the secrets' seed, the directory of the seed file
_drbg = _dog = None


def rand(n):
    """Return n random octets for keys, nonces and SPIs; NoEntropy where there are none."""
    global _drbg
    try:
        if _STRONG:
            return os.urandom(n)
        feed()
        if not _drbg:
            from minipsec import forget
            from .entropy import start

            forget("board.entropy")
            _drbg = start(*_seeds)
        return _drbg.generate(n, os.urandom(32))
    except OSError as e:  # callers take an OSError for the network's
        from ..refusals import NoEntropy

        raise NoEntropy("urandom: %r" % e)


def begin(profile):
    """Take from a profile what concerns the board: seed, watchdog, power saving."""
    global _seeds, _dog, look_ms, _saving
    if profile["power_saving"] == "off":
        _saving = False
    _seeds = profile.get("seed"), profile.get("directory", "")
    ms = min(profile["watchdog_ms"], _MAX_DOG)
    if ms and not _dog:
        from .network import watchdog

        # Half of the watchdog's time: a task that is later than that is not alive any more.
        look_ms = ms // 2
        _dog = spare(watchdog, ms, feed)


def feed():
    """Feed the watchdog before or during a piece of work that takes seconds.

    Otherwise a task feeds it, as long as all tasks are alive (see `tasks`).
    """
    if _dog:
        spare(_dog.feed)


async def online(profile, afresh=False):
    """Bring the network up where the profile says how; return False when there is none.

    `why` is then what the drivers say.  With `afresh` the interface is switched off first.
    """
    global nic, why
    if profile["network"] == "up":
        return True
    from minipsec import forget
    from .network import bring_up

    forget("board.network")
    try:
        nic, why = await bring_up(profile, nic, afresh)
    except ImportError:
        return True  # a PC, which has its network
    return not why


def hurry(on):
    """Switch Wi-Fi's power saving off for a handshake (`on`), and back afterwards."""
    if nic and hasattr(nic, "PM_NONE"):
        spare(_hurry, on)


def _hurry(on):
    global _saving
    from minipsec import forget
    from .network import hurry

    forget("board.network")
    _saving = hurry(nic, on, _saving)


# An ESP32 frees the memory of machine code only at a soft reset.  There a module with viper code
# stays loaded, because each new import would take the same memory once more.
FORGETS_NATIVE = sys.platform != "esp32"


class Clock:
    """Milliseconds that never wrap, made from `ticks_ms`, whose period is 2^30.

    `now()` must be called at least once in ten days; any timer does that.
    """

    def __init__(self):
        self._last = time.ticks_ms()
        self._now = 0

    def now(self):
        """Return milliseconds since this clock was made."""
        ticks = time.ticks_ms()
        since = time.ticks_diff(ticks, self._last) & 0x3FFFFFFF
        if since < 0x38000000:  # else ticks went back by up to a day and a half: stand still
            self._now += since
        self._last = ticks
        return self._now


def resolve(host, port):
    """Return the socket address of a host; OSError when its name is not found."""
    feed()  # gives a slow name server all of the watchdog's time
    got = socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM)
    if not got:
        raise OSError(-2)
    # An ESP32 returns no address for IPv6 here, but its sockets take the text.
    return got[0][-1] or (host, port)


def with_port(sockaddr, number):
    """Return a socket address with another port."""
    if isinstance(sockaddr, tuple):
        return (sockaddr[0], number) + sockaddr[2:]
    return sockaddr[:2] + number.to_bytes(2, "big") + sockaddr[4:]


def packed(sockaddr):
    """Return (packed IP address, port) of a socket address, or None where it can't be read."""
    if isinstance(sockaddr, tuple):
        host, number = sockaddr[0], sockaddr[1]
        if ":" in host:
            return None
        return bytes([int(octet) for octet in host.split(".")]), number
    # struct sockaddr of the unix port: family in the machine's order, port in the network's.
    number = sockaddr[2] << 8 | sockaddr[3]
    return bytes(sockaddr[8:24] if len(sockaddr) > 16 else sockaddr[4:8]), number


def deep_sleep(ms):
    """Switch the radio off and sleep until a reset; return where the port can't, as on a PC."""
    from .network import sleep

    sleep(ms, nic, feed if _dog and _LIGHT else None, _LIGHT)


def restart(ms):
    """Stay awake for `ms` milliseconds, for a console, then reset; return on a PC."""
    from .network import restart

    restart(ms, feed if _dog else None)


def is_six(sockaddr):
    """Is it an address of IPv6?"""
    return len(sockaddr) > 16 or (isinstance(sockaddr, tuple) and ":" in sockaddr[0])


class UDP:
    """One UDP socket that never blocks, on a port of its own.

    `local` is our (packed address, port) towards the target, or None where the board can't tell.
    `number` asks for a certain UDP port; `port` is the one that it got, or 0.  `size` is the
    largest datagram that may come.  `spare` is memory for one datagram, kept for a heap that has
    no piece of that size left.
    """

    def __init__(self, target, number=0, size=MAX_DATAGRAM):
        six = is_six(target)
        family = socket.AF_INET6 if six else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            number = self._bind("::" if six else "0.0.0.0", number)
            self.socket.setblocking(False)
            self._waiting = select.poll()
            self._waiting.register(self.socket, select.POLLIN)
        except Exception:
            self.close()  # a board has few sockets
            raise
        self.port = number
        self._to = None if _SENDTO_6 or not six else ()  # whom the socket is connected to
        self._target = target
        self._size = size
        self.spare = bytearray(size)

    def _bind(self, host, number):
        # We choose the port, because nothing would tell us which one the system chose.
        for _ in range(8):
            number = number or int.from_bytes(rand(2), "big") | 0xC000
            try:
                self.socket.bind(resolve(host, number))
                break
            except OSError:
                number = 0
        return number

    @property
    def local(self):
        # Only a handshake asks for it; a wake-up does not need it.
        from minipsec import forget
        from .address import address

        forget("board.address")
        address = address(self._target, is_six(self._target), nic)
        return (address, self.port) if address and self.port else None

    def send(self, datagram, sockaddr):
        """Send one datagram; False when a full queue or a missing route loses it."""
        try:
            if self._to is None:
                self.socket.sendto(datagram, sockaddr)
            else:
                if self._to != sockaddr:
                    self.socket.connect(sockaddr)
                    self._to = sockaddr
                self.socket.send(datagram)
            return True
        except OSError:
            return False

    def receive(self):
        """Return (datagram, socket address), or None when nothing is waiting."""
        # Polling first is cheap; recvfrom allocates a buffer of the largest size each time.
        if not self._waiting.poll(0):
            return None
        try:
            if self._to:
                return self.socket.recv(self._size), self._to
            try:
                return self.socket.recvfrom(self._size)
            except MemoryError:
                # The heap is cut up: free the piece that was kept for this.
                self.spare = None
                octets, source = self.socket.recvfrom(self._size)
                # Copy it into some small gap, so that the next piece fits where this one was.
                octets = bytes(memoryview(octets))
                self.spare = spare(bytearray, self._size)
                return octets, source
        except OSError:
            # Nothing is there, or an ICMP error answers an earlier send: no datagram either.
            return None

    def close(self):
        """Close the socket."""
        spare(self.socket.close)


def readable(udp):
    """Wait until a datagram is there: `await readable(udp)`."""
    # asyncio has no datagram API, but its queue takes any object that can be polled.
    yield asyncio.core._io_queue.queue_read(udp.socket)
