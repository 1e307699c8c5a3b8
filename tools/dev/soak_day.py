"""A sensor's life in fast motion, under MicroPython: `soak.py MODE HOURS SEED`, or `soak.py many N`.

firmware/ runs as it is, from `Tunnel` down, asyncio included; the network, the gateways' wire and
every clock are those of tools/dev/sim/virtual.py, where time leaps to the next timer. X25519 is
replaced by a hash. MODE is the profile key `sleep`: off, clock or mark.

A reading every ten seconds for HOURS; meanwhile datagrams get lost, the gateway restarts, forgets
or deletes the SA, a NAT moves the sensor, the network goes away, the sensor sleeps, is reset or
loses power, and clocks step. Each reading has one fate, told by who saw it last:

    delivered                      the gateway opened it, once
    lost_air, lost_gateway         the network, or a gateway that was down or knew the SPI no more
    refused                        too many waited already, counted in the tunnel's `lost`
    reset                          it waited in RAM for a tunnel when the power went, or at a sleep

`many N` sends N readings through one process and watches the heap. Both print one JSON object.
"""

import asyncio
import gc
import json
import random
import sys

from tools.dev.sim.virtual import Net, Socket, Time, profile, run
from minipsec import MinipsecError
from minipsec.board import port
from minipsec import sleep as storage
from minipsec.tunnel import Tunnel

INTERVAL_MS = 10000
MINUTE_MS = 60000
HOUR_MS = 3600000
LOSS = 3  # percent, each way
WALL = 1700000000000


class Witness(Net):
    """The network, which notes where each ESP packet of the sensor ends."""

    def __init__(self, seed):
        super().__init__(seed)
        self.fates = {}  # (SPI, SN): what became of it
        self.last = None  # the ESP packet that left last
        self.loss = LOSS
        self.repeated = 0  # a number used twice under one SPI: never
        port.UDP = self.socket

    def socket(self, target, number=0, size=0):
        made = Socket(self, target)
        made.port = number or made.port
        return made

    def carry(self, source, target, datagram):
        esp = target[1] != 500 and len(datagram) > 8 and datagram[:4] != bytes(4)
        if esp:
            self.last = bytes(datagram[:4]), int.from_bytes(datagram[4:8], "big")
            if self.last in self.fates:
                self.repeated += 1
            self.fates[self.last] = "lost_air"
        if random.randrange(100) < self.loss:
            return
        if esp:
            # Whoever takes it says so; who does not was down, or had forgotten the SA.
            self.fates[self.last] = "lost_gateway"
        super().carry(source, target, datagram)

    def answer(self, gateway, target, number, datagram):
        if random.randrange(100) >= self.loss:
            super().answer(gateway, target, number, datagram)


class Memory:
    """sleep.Memory, one for all that the board is before and after a reset."""

    pieces = {}
    refused = None

    def __init__(self, directory="", flash=False):
        self.flash = flash
        self.writes = 0

    def clock(self, age):
        return age if self.flash else storage.wall()

    def read(self, name):
        return self.pieces.get(name)

    def write(self, name, octets):
        self.pieces[name] = bytes(octets)
        return True

    def erase(self):
        self.pieces.pop("bin", None)

    def keep(self):
        return True


class Wall:
    offset = 0


def wall():
    return WALL + Time.now + Wall.offset


class Life:
    """One sensor for so many hours, in a world that is against it."""

    def __init__(self, mode, seed):
        random.seed(seed)
        self.mode = mode
        self.net = Witness(b"soak %d" % seed)
        self.gateway = self.net.gateway()
        storage.Memory = Memory
        storage.wall = wall
        Memory.pieces.clear()
        self.profile = profile(
            sleep=mode, liveness_ms=30000, retry_max_ms=60000, lifetime_ms=4 * HOUR_MS
        )
        self.profile["directory"] = ""
        self.tunnel = None
        self.awake = False
        self.sends = []
        self.wires = {}  # reading: its ESP packet
        self.told = dict.fromkeys(("submitted", "sent", "refused", "reset", "answered"), 0)
        self.counted = {}  # the tunnels' own counters, all of them together
        self.happened = {}
        self.started = self.resumed = 0

    # The sensor.

    def log(self, event, fields):
        if event == "sent":
            spi, sn = self.net.last
            assert sn == fields["sn"]
            self.wires[int(fields["data"])] = self.net.last
        elif event == "resumed":
            self.resumed += 1

    async def start(self):
        while True:
            awake = Tunnel.resume(self.profile, self.log) if self.mode != "off" else None
            self.tunnel = awake or Tunnel(self.profile, self.log)
            self.started += 1
            try:
                await self.tunnel.connect()
                self.ears = asyncio.create_task(self.listen(self.tunnel))
                self.awake = True
                return
            except MinipsecError:
                self.count()
                await asyncio.sleep_ms(5000)

    async def listen(self, tunnel):
        try:
            while True:
                await tunnel.receive()
                self.told["answered"] += 1
        except MinipsecError:
            pass

    async def send(self, n):
        try:
            await self.tunnel.send(b"%d" % n)
        except MinipsecError:
            self.told["refused"] += 1
            return
        self.told["sent"] += 1

    def submit(self):
        n = self.told["submitted"]
        self.told["submitted"] = n + 1
        self.sends = [task for task in self.sends if not task.done()]
        self.sends.append(asyncio.create_task(self.send(n)))

    def count(self):
        for key, value in self.tunnel.counters.items():
            self.counted[key] = self.counted.get(key, 0) + value

    def drop_all(self):
        """Forget what waits in RAM: nothing of it has left."""
        self.awake = False
        for task in self.sends:
            if not task.done():
                self.told["reset"] += 1
                task.cancel()
        self.sends = []
        self.ears.cancel()

    async def power_off(self):
        """End everything without a word, as a reset does; what waited is gone."""
        self.drop_all()
        tunnel = self.tunnel
        if tunnel._keeper:
            tunnel._keeper.cancel()
        for link in [tunnel._link, tunnel._next] + tunnel._old:
            if link:
                link.close()
        self.count()
        await asyncio.sleep_ms(0)

    # What happens to it.

    async def reset(self):
        await self.power_off()
        await asyncio.sleep_ms(random.randrange(200, 5000))
        await self.start()

    async def power_cut(self):
        await self.power_off()
        if self.mode == "clock":
            Memory.pieces.clear()
        await asyncio.sleep_ms(random.randrange(1000, 10 * MINUTE_MS))
        await self.start()

    async def sleep(self):
        self.drop_all()
        await self.tunnel.suspend()
        self.count()
        await asyncio.sleep_ms(random.randrange(MINUTE_MS, 30 * MINUTE_MS))
        if not random.randrange(3):
            self.clock_step()
        await self.start()

    def clock_step(self):
        """SNTP, or an RTC that was set: seconds to hours, either way."""
        Wall.offset += random.choice((-1, 1)) * random.choice((1000, MINUTE_MS, 2 * HOUR_MS))

    def leap(self):
        """Light sleep: the clock has gone on, and nothing ran."""
        Time.now += random.randrange(1000, 5 * MINUTE_MS)

    def roam(self):
        self.net.remap()

    async def outage(self):
        self.net.up = False
        await asyncio.sleep_ms(random.randrange(5000, 5 * MINUTE_MS))
        self.net.up = True
        self.net.sensor = "10.77.0.%d" % random.randrange(2, 250)
        self.net.remap()

    async def restart(self):
        self.gateway.up = False
        await asyncio.sleep_ms(random.randrange(1000, 8 * MINUTE_MS))
        self.gateway.forget()
        self.gateway.up = True

    def forget(self):
        self.gateway.forget()

    def delete(self):
        for sa in self.gateway.established():
            self.gateway.delete(sa)

    async def storm(self):
        self.net.loss = 40
        await asyncio.sleep_ms(random.randrange(MINUTE_MS, 10 * MINUTE_MS))
        self.net.loss = LOSS

    async def events(self, until):
        names = ["reset", "power_cut", "clock_step", "leap", "roam", "outage", "restart"]
        names += ["forget", "delete", "storm"]
        if self.mode != "off":
            names += ["sleep"] * 5
        while True:
            await asyncio.sleep_ms(random.randrange(2 * MINUTE_MS, 25 * MINUTE_MS))
            if Time.now >= until:
                return
            name = random.choice(names)
            self.happened[name] = self.happened.get(name, 0) + 1
            pending = getattr(self, name)()
            if pending is not None:
                await pending

    async def live(self, hours):
        until = Time.now + hours * HOUR_MS
        began = Time.now
        await self.start()
        events = asyncio.create_task(self.events(until))
        while Time.now < until:
            if self.awake:
                self.submit()
            await asyncio.sleep_ms(INTERVAL_MS)
        await events
        self.net.loss = 0
        self.net.up = self.gateway.up = True
        await asyncio.sleep_ms(10 * MINUTE_MS)  # what waits goes out
        self.drop_all()
        await self.tunnel.close()
        self.count()
        self.hours = (Time.now - began) / HOUR_MS

    def report(self):
        readings = [int(octets) for _, octets in self.gateway.readings]
        delivered = set(readings)
        for n in delivered:
            self.net.fates[self.wires[n]] = "delivered"
        fates = {}
        for n, wire in self.wires.items():
            fate = self.net.fates[wire]
            fates[fate] = fates.get(fate, 0) + 1
        return {
            "mode": self.mode,
            "hours": round(self.hours, 1),
            "readings": self.told,
            "fates": fates,
            "twice": len(readings) - len(delivered),
            "repeated_numbers": self.net.repeated,
            "counted": self.counted,
            "tunnels": self.started,
            "resumed": self.resumed,
            "handshakes": self.gateway.count("AUTH"),
            "happened": self.happened,
        }


def soak(mode, hours, seed):
    life = Life(mode, seed)
    run(life.live(hours))
    return life.report()


class Drain(Net):
    """A network at whose other end one packet in a thousand is looked at."""

    def __init__(self):
        super().__init__(b"many")
        self.sent = self.opened = 0
        self.last = {}  # SPI: SN
        self.spi = None

    def carry(self, source, target, datagram):
        if target[1] == 500 or datagram[:4] == bytes(4):
            super().carry(source, target, datagram)
            return
        self.sent += 1
        spi, sn = bytes(datagram[:4]), int.from_bytes(datagram[4:8], "big")
        assert sn > self.last.get(spi, 0)
        self.last[spi] = sn
        if not self.sent % 1000:
            self.opened += 1
            super().carry(source, target, datagram)


def many(count):
    """Send `count` readings, one each 100 ms; return the heap in use along the way, [(SAs replaced, octets)].

    The SA is replaced each hour. What the made-up gateway remembers is cleared at each look.
    """
    net = Drain()
    gateway = net.gateway()
    gateway.echo = False
    tunnel = Tunnel(profile(liveness_ms=0, keepalive_ms=0, lifetime_ms=HOUR_MS))
    heap = []

    async def main():
        await tunnel.connect()
        step = max(count // 20, 1)
        for n in range(count):
            Time.now += 100
            await tunnel.send(b"reading %d" % n)
            if not n % 16:
                await asyncio.sleep_ms(1)
            if n % step == step - 1:
                await asyncio.sleep_ms(5000)  # an SA that is being replaced is gone by then
                gateway.readings.clear()
                gateway.seen.clear()
                gateway.history.clear()
                for spi in list(gateway.spis):
                    if gateway.spis[spi] not in gateway.sas.values():
                        del gateway.spis[spi]
                net.last = {spi: net.last[spi] for spi in gateway.spis if spi in net.last}
                gc.collect()
                heap.append((tunnel.counters["replaced"], gc.mem_alloc()))
        await tunnel.close()

    run(main())
    return {
        "readings": count,
        "sent": tunnel.counters["sent"],
        "on_wire": net.sent,
        "opened": net.opened,
        "replaced": tunnel.counters["replaced"],
        "heap": heap,
    }


if __name__ == "__main__":
    if sys.argv[1] == "many":
        print(json.dumps(many(int(sys.argv[2]))))
    else:
        print(json.dumps(soak(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
