"""Random lives of a sensor that sleeps, and what must hold on its wire in each of them.

`play(seed)` lets the firmware's own sequence.py, snapshot.py and sleep.Memory live on a simulated
device: flash and RTC memory whose every write may be cut off by a loss of power (old, new or torn
content), a wall clock and a tick counter with speeds of their own, steps, wraps and restarts, deep
sleeps, resets, replaced SAs, changed profiles, and copies of the stored state that come back.  It
raises `Violation` with the story so far when

  - an SN goes out twice under one key, or not above the one before it: the IV is the SN;
  - an SA that must send no more is not followed by a new one that carries the waiting reading.

What may come back, and what the clock may do with it, is a `Scenario`: a history is not asked to
survive what snapshot.py names as beyond proof.

    make histories N=1000000
"""

import contextlib
import random
import sys
from collections import Counter

from host_tests.esp.said import said
from minipsec import sleep as storage
from minipsec.board import port
from minipsec.esp import snapshot
from minipsec.esp.sa import Sender
from minipsec.esp.sequence import Sequence

PERIOD = 1 << 30  # of the ticks
EPOCH_MS = 1_609_459_200_000  # 2021-01-01, where an RP2040 starts anew
PIECES = ("bin", "mark")


class Violation(AssertionError):
    """The wire showed what it must never show; the text is the history."""


class PowerCut(Exception):
    """The power is gone, in the middle of a write for instance."""


class Reset(PowerCut):
    """The processor starts anew; its RTC memory stays."""


class File:
    """A file opened for writing: nothing is there before it is flushed."""

    def __init__(self, device, name):
        self.device = device
        self.name = name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, octets):
        self.octets = octets

    def flush(self):
        self.device.store(self.name, bytes(self.octets))


class ReadFile:
    def __init__(self, octets):
        self.octets = octets

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self, n):
        return self.octets


class Device:
    """Hardware: what outlives a boot.  Stands for `time`, `os`, `open` and `machine`."""

    # board: RTC memory? does the wall clock run through resets? through a loss of power?
    BOARDS = {
        "esp32": (True, True, False),
        "rp2": (False, False, False),
        "pc": (False, True, True),
    }

    def __init__(self, rng, board):
        self.rng = rng
        self.has_rtc, self.runs, self.backed = self.BOARDS[board]
        self.now = 0.0  # true milliseconds
        self.wall_at = 0.0  # when wall_ms was true
        self.wall_ms = float(EPOCH_MS + rng.randrange(1 << 36))
        self.wall_rate = 1 + rng.uniform(-0.05, 0.05)
        self.rtc_octets = b""
        self.files = {}
        self.fuse = None  # writes left until the power fails
        self.full = False  # does each write to a file fail?
        self.ends = None  # how it then ends, (what is there, exception); None: at random
        self.writes = 0
        self.boot()

    def boot(self):
        self.booted = self.now
        self.tick_rate = self.wall_rate * (1 + self.rng.uniform(-0.05, 0.05))
        # Soon after zero as on a board, or soon before the wrap.
        self.tick_0 = self.rng.choice((0, PERIOD - self.rng.randrange(1, 5000)))
        if not self.runs:
            self.set_wall(EPOCH_MS)

    # Clocks.

    def pass_time(self, ms):
        self.now += ms

    def wall(self):
        return self.wall_ms + (self.now - self.wall_at) * self.wall_rate

    def set_wall(self, ms):
        self.wall_ms, self.wall_at = ms, self.now

    def time_ns(self):
        return int(self.wall() * 1000000)

    def ticks_ms(self):
        return int(self.tick_0 + (self.now - self.booted) * self.tick_rate) % PERIOD

    @staticmethod
    def ticks_diff(end, start):
        return (end - start + PERIOD // 2) % PERIOD - PERIOD // 2

    # Storage.

    def open(self, name, mode):
        if mode == "wb":
            return File(self, name)
        if name not in self.files:
            raise OSError(2)
        return ReadFile(self.files[name])

    def remove(self, name):
        if name not in self.files:
            raise OSError(2)
        self.store(name, None)

    def store(self, name, octets):
        if self.full:
            raise OSError(28)
        self._change(lambda: self.files.get(name), lambda value: self._put(name, value), octets)

    def _put(self, name, octets):
        if octets is None:
            self.files.pop(name, None)
        else:
            self.files[name] = octets

    def RTC(self):
        return self

    def memory(self, octets=None):
        """machine.RTC().memory"""
        if octets is None:
            return self.rtc_octets
        self._change(
            lambda: self.rtc_octets, lambda value: setattr(self, "rtc_octets", value), octets
        )

    def _change(self, get, put, new):
        self.writes += 1
        if self.fuse is None or self.fuse > 1:
            if self.fuse:
                self.fuse -= 1
            put(new)
            return
        self.fuse = None
        rng = self.rng
        old = get()
        how, end = self.ends or (rng.randrange(4), rng.choice((PowerCut, Reset)))
        if how == 1:
            put(new)
        elif how == 2 and new:
            put(new[: rng.randrange(len(new))] + (old or b"")[rng.randrange(1, 99) :])
        elif how == 3 and new:
            put(new[: rng.randrange(len(new))])
        raise end

    def lose_power(self):
        self.rtc_octets = b""
        if not self.backed:
            self.set_wall(EPOCH_MS)


class Wire:
    """What the gateway sees: which SNs came under which key."""

    def __init__(self):
        self.last = {}
        self.seen = set()
        self.shared = set()  # keys that two wake-ups used at once: no order, but still no repeat

    def put(self, key, sn):
        if sn <= self.last.get(key, 0) and key not in self.shared or (key, sn) in self.seen:
            raise Violation("SN %d after %d under key %d" % (sn, self.last[key], key))
        self.last[key] = sn
        self.seen.add((key, sn))


class Scenario:
    """A policy on a board, and what may happen to it."""

    def __init__(self, rng):
        self.policy, self.board = rng.choice(
            (
                ("clock", "esp32"),
                ("clock", "esp32"),
                ("clock", "pc"),
                ("clock", "rp2"),  # a mistake in a profile
                ("mark", "rp2"),
                ("mark", "rp2"),
                ("mark", "esp32"),
                ("mark", "pc"),
                ("off", "esp32"),
            )
        )
        # Which pieces of a copy come back?  With its mark only where the clock never goes back.
        self.forward = self.policy == "clock" and self.board != "rp2" and rng.random() < 0.5
        if self.forward:
            self.restores = rng.choice((("bin",), ("mark",), PIECES))
        else:
            self.restores = ("bin",)
        self.tick_ms = rng.choice((1, 2, 10, 100, 100, 1000, 60000, 3600000))
        self.lifetime_ms = rng.choice((5000, 3600000, 86400000, 1 << 29))
        self.max_packets = rng.choice((5, 100, 1 << 24, 1 << 24))
        self.interval_ms = rng.choice((0, 1000, 600000))
        self.esn = rng.random() < 0.2
        self.sealed = rng.random() < 0.02  # real packets, whose IVs are compared
        self.near_end = self.policy != "clock" and rng.random() < 0.1


class Life:
    """One time of power: what the tunnel does, with the firmware's own parts."""

    def __init__(self, history, locked=False):
        """`locked`: the UDP port of the SA in memory is taken, see link.Link."""
        self.history = history
        self.device = history.device
        self.scenario = history.scenario
        self.profile = history.profile
        self.clock = port.Clock()
        self.memory = None
        self.sa = None
        self.packets = 0
        if self.scenario.policy != "off":
            self.memory = storage.Memory("", self.scenario.policy == "mark")
            try:
                now, wall = self.clock.now(), storage.wall()
                self.sa = snapshot.load(self.profile, self.memory, now, wall)
            except snapshot.Refused:
                history.count["not taken up"] += 1
        if self.sa and not locked:
            history.count["resumed"] += 1
            self.packets = self.sa.packets
            self.key = history.keys[bytes(self.sa.child["key_out"])]
            self.numbers = self.sa.numbers
            self.born = self.clock.now() - self.sa.age
            self._sender()
        else:
            self.connect()

    def connect(self):
        """A handshake: a new SA, with a key that was never there before."""
        history = self.history
        history.count["handshakes"] += 1
        self.device.pass_time(self.device.rng.uniform(1, 50))
        self.key = len(history.keys) + 1
        child = history.child(self.key)
        now = self.born = self.clock.now()
        self.packets = 0
        if self.memory:
            clock = self.memory.clock(0)
            self.sa = snapshot.fresh(self.profile, self.memory, child, "gw", now, clock)
            self.numbers = self.sa.numbers
        else:
            self.numbers = Sequence(now, self.scenario.tick_ms, esn=self.scenario.esn)
        if self.scenario.near_end:
            end = (1 << 64 if self.scenario.esn else 1 << 32) - 1
            near = end - self.device.rng.randrange(1, 50)
            if self.memory:
                self.numbers.last = self.numbers._mark = near
            else:
                self.numbers.birth -= near * self.scenario.tick_ms
        self._sender()

    def _sender(self):
        self.sender = None
        if self.scenario.sealed:
            child = self.sa.child if self.sa else self.history.child(self.key)
            self.sender = Sender(child, (bytes(4), bytes(4), 1, 2), self.numbers)

    def _next(self):
        """The next SN; sealed, where real packets are asked for."""
        now = self.now = self.clock.now()
        if not self.sender:
            return self.numbers.next(now)
        packet = self.sender.seal(b"reading", now)
        iv = int.from_bytes(packet[8:16], "big")
        if iv != self.numbers.last or int.from_bytes(packet[4:8], "big") != iv & 0xFFFFFFFF:
            raise Violation("IV %d beside SN %d" % (iv, self.numbers.last))
        return iv

    def send(self):
        """One reading: it goes out, by this SA or by a new one."""
        device = self.device
        for _ in range(3):
            for _ in range(1000):
                sn = said(self._next)
                if sn != "TOO_EARLY":
                    break
                device.now += 2
            else:
                raise Violation("no SN for two seconds")
            if sn != "SPENT":
                self.history.wire.put(self.key, sn)
                self.packets += 1
                if self.packets >= self.scenario.max_packets or self.numbers.spent():
                    self.connect()
                elif self.now - self.born >= self.scenario.lifetime_ms:
                    self.connect()
                return
            self.history.count["refused"] += 1
            self.connect()
        raise Violation("a reading never left")

    def suspend(self):
        """Put the SA away; it sends nothing any more."""
        if self.sa:
            clock = self.memory.clock(self.clock.now() - self.born)
            if not self.sa.save(self.packets, self.sa.window, clock):
                self.history.count["not saved"] += 1
            assert self.memory.keep()
            if said(self._next) != "SPENT":
                raise Violation("an SA that was put away sends")


class History:
    """A device from its first boot on."""

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        self.seed = seed
        self.scenario = Scenario(rng)
        self.device = Device(rng, self.scenario.board)
        self.wire = Wire()
        self.keys = {}
        self.copies = []
        self.count = Counter()
        self.told = []
        self.version = 0
        self._profile()

    def _profile(self):
        s = self.scenario
        self.profile = {
            "sleep": s.policy,
            "sn_tick_ms": s.tick_ms,
            "interval_ms": s.interval_ms,
            "lifetime_ms": s.lifetime_ms,
            "replay_window": 64,
            "gateway": ["gw"],
            "version": self.version,
        }

    def child(self, key):
        octets = key.to_bytes(19, "big")
        self.keys[octets] = key
        child = dict(port=50000, cipher=14, transport=False, esn=self.scenario.esn)
        child.update(nat=False, spi_in=bytes(4), spi_out=bytes(4), key_in=bytes(19))
        child.update(key_out=octets, inner=bytes(4), server=bytes(4))
        return child

    def plug_in(self):
        """Put the device where port and memory find it."""
        device = self.device
        sys.modules["machine"] = device if device.has_rtc else None
        for module in (port, storage):
            module.time = module.os = device
        storage.open = device.open

    def again(self, lost):
        """Power comes back after it was `lost`, or the processor starts anew."""
        if lost:
            self.device.lose_power()
        self.device.boot()

    def play(self, events):
        device = self.device
        self.plug_in()
        life = None
        rng = self.rng
        while events > 0:
            try:
                if life is None:
                    device.fuse = rng.randrange(1, 9) if rng.random() < 0.4 else None
                    life = Life(self)
                while events > 0:
                    events -= 1
                    life = self.event(life, rng.random())
                    if life is None:
                        break
            except Reset:
                self.tell("reset")
                life = None
                device.pass_time(rng.uniform(1, 3 if rng.random() < 0.5 else 300))
                self.again(False)
            except PowerCut:
                self.tell("power cut")
                life = None
                device.pass_time(rng.choice((rng.uniform(1, 300), rng.uniform(0, 1e7))))
                self.again(True)

    def tell(self, what):
        self.told.append("%.1f %s" % (self.device.now, what))

    def event(self, life, x):
        """Let one thing happen; return the life that goes on, None after a sleep."""
        rng = self.rng
        device = self.device
        if x < 0.40:
            burst = 1 if x < 0.26 else 4 if x < 0.38 else 40
            self.tell("%d readings" % burst)
            gap = 0.01 if x % 0.01 < 0.005 else 3
            for _ in range(burst):
                life.send()
                device.now += gap
        elif x < 0.50:
            ms = rng.choice((0.1, 10, 1000, 100000, 86400000 * rng.random()))
            self.tell("awake %.1f" % ms)
            device.pass_time(ms)
        elif x < 0.72:
            life.suspend()
            ms = rng.choice((1, rng.uniform(1, 100), rng.uniform(1, 1e6), rng.uniform(1, 1e8)))
            self.tell("sleep %.1f" % ms)
            device.pass_time(ms)
            device.boot()
            return None
        elif x < 0.76:
            self.copy()
        elif x < 0.80:
            self.restore(rng)
            if rng.random() < 0.5:
                raise Reset
        elif x < 0.84:
            # At once: back to what was before a burst.
            self.copy()
            self.tell("burst")
            for _ in range(rng.randrange(1, 40)):
                life.send()
            self.restore(rng, -1)
            raise Reset
        elif x < 0.88:
            step = rng.choice((1, 50, 3000, 86400000)) * rng.random()
            if not self.scenario.forward and rng.random() < 0.6:
                step = -step
            self.tell("clock steps %.1f" % step)
            device.set_wall(max(device.wall() + step, 0))
        elif x < 0.91:
            raise Reset
        elif x < 0.94:
            # With the clock lost nothing is proved by it any more.
            if self.scenario.forward and not device.backed:
                raise Reset
            raise PowerCut
        elif x < 0.96:
            self.tell("replaced")
            life.connect()
        elif x < 0.965:
            device.full = not device.full
            self.tell("the disk is full" if device.full else "the disk has room")
        elif x < 0.97:
            self.version += rng.choice((0, 1, -1))
            self._profile()
            self.tell("profile %d" % self.version)
        else:
            return self.second(life)
        return life

    def copy(self):
        self.copies.append((dict(self.device.files), self.device.rtc_octets))
        self.tell("copy %d" % len(self.copies))

    def restore(self, rng, n=None):
        if not self.copies:
            return
        if n is None:
            n = rng.randrange(len(self.copies))
        files, rtc = self.copies[n]
        device = self.device
        self.tell("restored %s of copy %d" % ("+".join(self.scenario.restores), n + 1))
        for piece in self.scenario.restores:
            if "sa." + piece in files:
                device.files["sa." + piece] = files["sa." + piece]
        if rtc and len(self.scenario.restores) == 2:
            device.rtc_octets = rtc

    def second(self, life):
        """Another wake-up finds the same state, before this one or while it goes on."""
        rng = self.rng
        how = rng.random()
        self.tell("a second wake-up %.2f" % how)
        # With how > 0.5 even the lock of the port fails.
        other = Life(self, how < 0.25)
        if 0.25 <= how < 0.5:
            # It dozes off before its first packet, and wakes when the first one has ended.
            for _ in range(rng.randrange(4)):
                life.send()
            life.suspend()
            self.device.now += 1000 * rng.random()
            if rng.random() < 0.5:
                life = Life(self)
                life.send()
                life.suspend()
            other.send()
            return other
        if how >= 0.5:
            self.wire.shared.update((life.key, other.key))
        for _ in range(rng.randrange(6)):
            (life if rng.random() < 0.5 else other).send()
            self.device.now += 20 * rng.random()
        if rng.random() < 0.5:
            other.suspend()
        return life


@contextlib.contextmanager
def plugged(history):
    """The simulated device is the board while this lasts; a `Violation` carries the story."""
    saved = [(module, module.time, module.os) for module in (port, storage)]
    try:
        history.plug_in()
        yield
    except Violation as violation:
        s = history.scenario
        story = "\n  ".join([str(vars(s)), *history.told])
        raise Violation("seed %s: %s\n  %s" % (history.seed, violation, story)) from None
    finally:
        for module, time, os in saved:
            module.time, module.os = time, os
        del storage.open
        del sys.modules["machine"]


def play(seed, events=None):
    """Play one history; return its `Counter`."""
    history = History(seed)
    if events is None:
        events = 6 if seed & 7 else 30
    with plugged(history):
        history.play(events)
    history.count["SAs"] = len(history.keys)
    history.count["packets"] = len(history.wire.seen)
    return history.count


def play_many(seeds):
    total = Counter()
    for seed in seeds:
        total.update(play(seed))
    return total


def main(argv):
    import multiprocessing

    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    count = int(argv[0]) if argv else 100000
    size = 500
    chunks = [range(at, min(at + size, count)) for at in range(0, count, size)]
    total = Counter()
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with multiprocessing.Pool() as pool, Progress(*columns) as progress:
        task = progress.add_task("histories", total=count)
        for seeds, found in zip(chunks, pool.imap(play_many, chunks), strict=True):
            total.update(found)
            progress.advance(task, len(seeds))
    print(f"{count} histories:", ", ".join(f"{name} {n}" for name, n in sorted(total.items())))
    print("no SN and no IV twice under one key, strictly increasing, no reading left behind")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
