"""A board of fakes for the unix port: what firmware meets on a board and on no PC.

`Board(name, directory, **settings).plug_in()` puts modules in the way of the real ones, before any
firmware is imported.  Each instance is one time of power between two hard resets; what survives
those lies in `directory`.  Facts: boards/README.md and the board.json files.
"""

import asyncio  # before the fakes: its own clock stays that of the machine it runs on
import builtins
import io
import json
import os as real_os
import select
import socket as real_socket
import struct
import sys as real_sys
import time as real_time

real_open = open

_PERIOD = 1 << 30
_QUEUE = 4  # datagrams that wait in a socket of an RP2040
_EAGAIN = 11
_YEARS = 946684800  # seconds from 1970 to 2000
_RP2_EPOCH = 1609459200  # 2021-01-01, where each hard reset sets an RP2040's clock
_TOO_LONG = (1 << 32) // 1000  # ms, for either sleep of an RP2040
_RANDOMBIT = 0x4006001C


class PowerOff(SystemExit):
    """The board slept or was reset: this time of power is over."""


class Facade:
    """A module with some names of its own before those of the real one."""

    def __init__(self, real, **names):
        self._real = real
        for name in names:
            setattr(self, name, names[name])

    def __getattr__(self, name):
        if self._real is None:
            raise AttributeError(name)
        return getattr(self._real, name)


def hurry_network(part):
    """Divide the pauses of board/network by `part`: it takes 20 s to give a network up.

    It is not forgotten any more, since another copy of it would take its time.
    """
    import minipsec
    from minipsec.board import network

    pause, forget = asyncio.sleep_ms, minipsec.forget
    network.asyncio = Facade(asyncio, sleep_ms=lambda ms: pause(ms // part))
    place = network.__name__[len("minipsec.") :]
    minipsec.forget = lambda *names: forget(*[name for name in names if name != place])


class Board:
    """See the module's docstring.

    `radio`: "works", "never" joins nothing, "slow" takes two seconds. `noise`: an iterable of
    ring-oscillator bits, or None for good ones. `asleep_ms`: how long it slept before this time
    of power. `ticks`: where the counter of milliseconds starts.
    """

    def __init__(self, name, directory, boards, **settings):
        with open(boards + "/" + name + "/board.json") as file:
            self.facts = json.load(file)
        self.rp2 = self.facts["port"] == "rp2"
        self.directory = directory
        self.settings = settings
        self.radio = settings.get("radio", "works")
        self.address = settings.get("address", "127.0.0.1")
        self.seen = {
            "fed": 0, "widest_gap": 0, "watchdog": None, "joined": [], "pm": [], "made": 0,
            "slept": [], "flash_writes": [], "noise_bits": 0, "urandom": 0, "lost": 0,
            "static": None, "connects": [], "address": None, "disconnects": 0, "off": 0, "pins": {}, "country": None,
            "asked_when_off": 0, "security": None,
        }  # fmt: skip
        self._began = real_time.ticks_ms()
        self._dozed = 0  # ms of light sleep, which take no time here
        self._fed_at = None
        self._noise = iter(settings["noise"]) if settings.get("noise") is not None else None

    # Time.

    def ticks_ms(self):
        since = real_time.ticks_diff(real_time.ticks_ms(), self._began) + self._dozed
        return (self.settings.get("ticks", _PERIOD - 400) + since) % _PERIOD

    def ticks_diff(self, end, start):
        return (end - start + _PERIOD // 2) % _PERIOD - _PERIOD // 2

    def ticks_add(self, ticks, delta):
        return (ticks + delta) % _PERIOD

    def time_ns(self):
        """What the RTC says: on an RP2040 it starts anew, on an ESP32 it runs through a sleep."""
        since = real_time.ticks_diff(real_time.ticks_ms(), self._began) + self._dozed
        since *= 1000000
        if self.rp2:
            return _RP2_EPOCH * 1000000000 + since
        return (self._state("clock_ns", 0) or 0) + self.asleep_ns() + since

    def asleep_ns(self):
        return self.settings.get("asleep_ms", 0) * 1000000

    # What survives a reset.

    def _state(self, name, default=None):
        try:
            with real_open(self.directory + "/board-state.json") as file:
                return json.load(file).get(name, default)
        except OSError:
            return default

    def _keep(self, **names):
        try:
            with real_open(self.directory + "/board-state.json") as file:
                state = json.load(file)
        except OSError:
            state = {}
        state.update(names)
        with real_open(self.directory + "/board-state.json", "w") as file:
            json.dump(state, file)

    def rtc_memory(self, octets=None):
        if octets is None:
            return bytes.fromhex(self._state("rtc", ""))
        if len(octets) > 2048:
            raise ValueError("buffer too long")
        self._keep(rtc=bytes(octets).hex())

    def power_off(self, kind, ms):
        """End this time of power as a deep sleep or a reset does."""
        self.seen["slept"].append([kind, ms])
        if not self.rp2:
            self._keep(clock_ns=self.time_ns())
        raise PowerOff(0)

    def deep_sleep(self, ms=0):
        """On an RP2040 a light sleep with a reset at its end; elsewhere 0 is for ever."""
        if self.rp2 and ms >= _TOO_LONG:
            raise ValueError("sleep too long")
        self.power_off("deep" if ms or self.rp2 else "for ever", ms)

    # The watchdog.

    def watchdog(self, id=0, timeout=5000):
        if self.rp2 and timeout > 8388:
            raise ValueError("timeout exceeds 8388")
        self.seen["watchdog"] = timeout
        self._fed_at = real_time.ticks_ms()
        return Facade(None, feed=self.feed)

    def feed(self):
        now = real_time.ticks_ms()
        gap = real_time.ticks_diff(now, self._fed_at)
        self._fed_at = now
        self.seen["fed"] += 1
        self.seen["widest_gap"] = max(gap, self.seen["widest_gap"])

    def light_sleep(self, ms):
        """Sleep, at once; the clock and the watchdog count on."""
        if self.rp2 and ms >= _TOO_LONG:
            raise ValueError("sleep too long")
        self.seen["slept"].append(["light", ms])
        self._dozed += ms
        if self.seen["watchdog"] and ms >= self.seen["watchdog"]:
            self.power_off("watchdog", ms)

    # Random octets.

    def urandom(self, n):
        self.seen["urandom"] += n
        if self.settings.get("weak_urandom"):  # the same at each boot
            return bytes([self.seen["urandom"] & 255]) * n
        return real_os.urandom(n)

    def noise(self, address):
        if address != _RANDOMBIT:
            raise MemoryError("bus fault at 0x%x" % address)
        self.seen["noise_bits"] += 1
        if self._noise:
            return next(self._noise)
        return real_os.urandom(1)[0] & 1

    def rename(self, old, new):
        if self.settings.get("full"):
            raise OSError(28)
        real_os.rename(old, new)
        self.seen["flash_writes"].append(new)

    def open(self, path, mode="r", *rest):
        if "w" in mode and self.settings.get("read_only"):
            raise OSError(30)
        # An SA's two files are written in place.
        if "w" in mode and "sa." in path:
            self.seen["flash_writes"].append(path)
        return real_open(path, mode, *rest)

    # Modules.

    def plug_in(self):
        """Put the fakes where firmware finds them; return self."""
        facts = self.facts
        implementation = Facade(real_sys.implementation, _machine=facts["machine"])
        machine = dict(
            WDT=self.watchdog,
            unique_id=lambda: bytes.fromhex(self.settings.get("chip", "e660583883000001")),
            lightsleep=self.light_sleep,
            reset=lambda: self.power_off("reset", 0),
            deepsleep=self.deep_sleep,
            DEEPSLEEP_RESET=4,
            reset_cause=lambda: 4 if self.settings.get("asleep_ms") else 1,
        )
        machine["mem32"] = Memory32(self)
        Pin.seen = self.seen["pins"]
        machine["Pin"] = Pin
        if self.rp2:
            machine["RTC"] = lambda: Facade(None)
        else:
            machine["RTC"] = lambda: Facade(None, memory=self.rtc_memory)
        names = dict(STA_IF=0, AP_IF=1, country=self.country)
        if facts["network"]["nic"] == "WIZNET5K":
            names["WIZNET5K"] = lambda: Ethernet(self)
        else:
            names["WLAN"] = lambda number=0: self.nic
            self.nic = WLAN(self)
        own = dict(
            sys=Facade(real_sys, platform=facts["port"], implementation=implementation, argv=[]),
            time=Facade(
                real_time,
                ticks_ms=self.ticks_ms,
                ticks_diff=self.ticks_diff,
                ticks_add=self.ticks_add,
                time_ns=self.time_ns,
            ),
            os=Facade(real_os, urandom=self.urandom, rename=self.rename),
            machine=Facade(None, **machine),
            network=Facade(None, **names),
            socket=Facade(
                None,
                AF_INET=real_socket.AF_INET,
                AF_INET6=real_socket.AF_INET6,
                SOCK_DGRAM=real_socket.SOCK_DGRAM,
                SOCK_RAW=real_socket.SOCK_RAW,
                getaddrinfo=self.getaddrinfo,
                socket=lambda *args: Socket(self, *args),
            ),
        )
        for name in own:
            real_sys.modules[name] = own[name]
        builtins.open = self.open
        return self

    def country(self, code):
        self.seen["country"] = code

    def getaddrinfo(self, host, port, family=0, kind=0):
        """Addresses are tuples; an ESP32 shows none for IPv6."""
        if not host:
            raise OSError(-2)
        six = ":" in host
        real_socket.getaddrinfo(host, port)  # raises when there is no such host
        return [(10 if six else 2, kind, 0, "", None if six and not self.rp2 else (host, port))]


class Memory32:
    """machine.mem32: the ring oscillator's bit, and nothing else."""

    def __init__(self, board):
        self._board = board

    def __getitem__(self, address):
        return self._board.noise(address)


class Pin:
    """machine.Pin, an output that remembers."""

    OUT = 1
    seen = None

    def __init__(self, name, mode):
        self._values = self.seen.setdefault(str(name), [])

    def value(self, on):
        self._values.append(int(on))


class WLAN:
    """network.WLAN of either port, as a station."""

    PM_NONE, PM_PERFORMANCE, PM_POWERSAVE = 0, 1, 2
    SEC_OPEN, SEC_WPA_WPA2, SEC_WPA2_WPA3, SEC_WPA3 = 0, 0x400006, 0x1400004, 0x1000004

    def __init__(self, board):
        self._board = board
        self._active = board.settings.get("active", False)
        self._pm = self.PM_PERFORMANCE
        self._joined_at = None
        self._address = None
        board.seen["made"] += 1

    def active(self, on=None):
        if on is None:
            return self._active
        self._active = on
        if not on:
            self._joined_at = None
            self._board.seen["off"] += 1

    def connect(self, ssid, key=None, **more):
        if more and not self._board.rp2:
            raise TypeError("extra keyword arguments given")
        self._board.seen["security"] = more.get("security")
        if not self._active:
            raise OSError("Wifi not started")
        if self._joined_at is not None and not self._board.rp2:
            raise OSError("Wifi Internal State Error")
        self._joined_at = real_time.ticks_ms()
        self._board.seen["joined"].append([ssid, key])

    def disconnect(self):
        self._board.seen["disconnects"] += 1
        if not self._active:
            raise OSError("Wifi Not Started")
        self._joined_at = None

    def isconnected(self):
        if self._board.settings.get("active"):
            return True
        if self._joined_at is None or self._board.radio == "never":
            return False
        slow = 2000 if self._board.radio == "slow" else 20
        return real_time.ticks_diff(real_time.ticks_ms(), self._joined_at) >= slow

    def lose(self):
        """Walk out of reach."""
        self._joined_at = None

    def ifconfig(self, addresses=None):
        if addresses:
            if not self._active:
                raise OSError("inactive")
            self._board.seen["static"] = list(addresses)
            return None
        up = self.isconnected() or self._board.settings.get("active")
        return (self._board.address if up else "0.0.0.0", "255.0.0.0", "127.0.0.1", "127.0.0.1")

    def config(self, *asked, **names):
        if asked == ("pm",):
            return self._pm
        if set(names) != {"pm"}:
            raise ValueError("unknown config param")
        self._pm = names["pm"]
        self._board.seen["pm"].append(names["pm"])

    def status(self):
        if self.isconnected():
            return 3 if self._board.rp2 else 1010
        return self._board.settings.get("status", 0 if self._board.rp2 else 1000)

    def ipconfig(self, name):
        if name != "addr6":
            raise ValueError("unknown config param")
        return self._board.settings.get("addr6", [])

    def deinit(self):
        self._board.seen["off"] += 1


class Ethernet:
    """network.WIZNET5K, of which a second one takes the interface down."""

    _active = False

    def __init__(self, board):
        self._board = board
        board.nic = self
        board.seen["made"] += 1
        Ethernet._active = False

    def active(self, on=None):
        if on is None:
            return self._active
        Ethernet._active = on
        if not on:
            self._board.seen["off"] += 1

    def isconnected(self):
        if not self._active:
            self._board.seen["asked_when_off"] += 1
        return self._active and self._board.radio not in ("never", "six")

    def status(self):
        return 2 if self._active and self._board.radio != "never" else 0

    def ipconfig(self, name):
        if name != "addr6":
            raise ValueError("unknown config param")
        link = [("FE80::1", 48, 0, 0)]
        return link + [("2001:db8::5", 48, 0, 0)] if self._board.radio == "six" else link

    def ifconfig(self, addresses=None):
        if addresses:
            self._board.seen["static"] = list(addresses)
            return None
        return (self._board.address if self._active else "0.0.0.0", "", "", "")


class Socket(io.IOBase):
    """A UDP socket with tuples for addresses and room for a few datagrams."""

    def __init__(self, board, family, kind, proto=0):
        if kind == real_socket.SOCK_RAW:
            raise OSError(1)
        self._board = board
        self._real = real_socket.socket(family, kind, proto)
        self._real.setblocking(False)
        self._queue = []

    def bind(self, address):
        host, port = address
        if host not in ("0.0.0.0", "::"):
            raise OSError(22)
        self._real.bind(real_socket.getaddrinfo(host, port)[0][-1])

    def setblocking(self, on):
        if on:
            raise ValueError("a test that waits")

    def connect(self, address):
        self._board.seen["connects"].append(list(address))
        self._real.connect(real_socket.getaddrinfo(*address)[0][-1])

    def send(self, octets):
        return self._real.send(octets)

    def sendto(self, octets, address):
        if not self._board.nic.isconnected():
            raise OSError(118)
        if ":" in address[0] and not self._board.rp2:
            raise ValueError("invalid arguments")
        return self._real.sendto(octets, real_socket.getaddrinfo(*address)[0][-1])

    def _fill(self):
        """Take what came since the last look; beyond a board's queue or reach it is lost."""
        room = self._board.facts["network"]["udp_queue"] if self._board.nic.isconnected() else 0
        while True:
            try:
                got = self._real.recvfrom(1600)
            except OSError:
                return
            if len(self._queue) < room:
                self._queue.append(got)
            else:
                self._board.seen["lost"] += 1

    def recvfrom(self, n):
        self._fill()
        if not self._queue:
            raise OSError(_EAGAIN)
        octets, source = self._queue.pop(0)
        six = len(source) > 16
        if six and not self._board.rp2:
            raise ValueError("an ESP32 has IPv4 only here")
        address = source[8:24] if six else source[4:8]
        if six:
            host = ":".join(["%x" % n for n in struct.unpack(">8H", address)])
        else:
            host = ".".join([str(octet) for octet in address])
        return octets[:n], (host, source[2] << 8 | source[3])

    def recv(self, n):
        self._fill()
        if not self._queue:
            raise OSError(_EAGAIN)
        return self._queue.pop(0)[0][:n]

    def ioctl(self, operation, argument):
        if operation == 3:  # poll
            self._fill()
            return (select.POLLIN if self._queue else 0) & argument
        return 0

    def close(self):
        self._real.close()
