"""A fleet of sensors on a clock that leaps, run by storm.py under MicroPython.

`micropython fleet.py SCENARIO SENSORS SEED` prints a line `init MS` for each IKE_SA_INIT at the
gateway, MS counted from its return, then `up MS` for each tunnel that is back. Tunnels are
firmware/'s own; only time, network and gateway are made up (tools/dev/sim/virtual.py), and the
key exchange is a quick one.
"""

import asyncio
import gc
import sys

from tools.dev.sim.virtual import Gateway, Net, Rand, Time, profile, run
from minipsec import link
from minipsec.tunnel import Tunnel

# name: (does the gateway say DELETE to all as it goes?, how long is it away, ms)
SCENARIOS = {
    "restart": (True, 5000),
    "reboot": (True, 60000),
    "cut10": (False, 600000),
    "cut60": (False, 3600000),
}
CAPACITY = 100  # IKE_SA_INITs that the gateway can serve in a second; it drops the rest
START_MS = 60000  # over which the sensors were switched on
BEFORE_MS = 90000
AFTER_MS = 400000
REPORT_MS = 60000

gc.threshold(1 << 24)


class _NoCollect:
    """Each tunnel tidies up when it is up: here for a thousand of them, at our own time."""

    @staticmethod
    def collect():
        pass


link.gc = _NoCollect


class Busy(Gateway):
    """A gateway that serves so many handshakes a second and notes every one that it is asked."""

    def __init__(self, net, address):
        super().__init__(net, address)
        self.asked = []  # when an IKE_SA_INIT came
        self.served = [-1000] * CAPACITY  # when the last ones were answered
        self.away = False

    def note(self, what):
        pass

    def receive(self, datagram, source, number):
        if number == 500:
            self.asked.append(Time.now)
            if self.away or self.served[0] > Time.now - 1000:
                return []
            self.served = self.served[1:] + [Time.now]
        return [] if self.away else super().receive(datagram, source, number)


async def sensor(n, rand, tunnels):
    def random(ms):
        return int.from_bytes(rand(4), "big") % ms

    await asyncio.sleep_ms(random(START_MS))
    tunnel = Tunnel(profile(id="sensor-%d.example.org" % n))
    await tunnel.connect()
    tunnels.append(tunnel)
    await asyncio.sleep_ms(random(REPORT_MS))
    while True:
        await tunnel.send(b"reading")
        await asyncio.sleep_ms(REPORT_MS)
        await tunnel.receive(0)


async def watch(tunnel, since, ups):
    await tunnel.down.wait()
    await tunnel.up.wait()
    ups.append(Time.now - since[0])


async def story(says_delete, away_ms, count, rand):
    net = Net(rand(8))
    gateway = net.gateways["10.77.0.1"] = Busy(net, "10.77.0.1")
    tunnels = []
    for n in range(count):
        asyncio.create_task(sensor(n, rand, tunnels))
    await asyncio.sleep_ms(START_MS + BEFORE_MS)
    assert len(tunnels) == len(gateway.established()) == count
    since = [0]
    ups = []
    for tunnel in tunnels:
        asyncio.create_task(watch(tunnel, since, ups))
    gateway.asked.clear()
    gateway.served = [-1000] * CAPACITY
    if says_delete:
        for sa in gateway.established():
            gateway.delete(sa)
        await asyncio.sleep_ms(100)
    gateway.forget()
    gateway.away = True
    await asyncio.sleep_ms(away_ms)
    since[0] = Time.now
    gateway.away = False
    await asyncio.sleep_ms(AFTER_MS)
    for at in gateway.asked:
        print("init", at - since[0])
    for ms in ups:
        print("up", ms)
    attempts = [tunnel.counters["attempts"] - 1 for tunnel in tunnels]
    print("attempts", sum(attempts), max(attempts))


if __name__ == "__main__":
    scenario, count, seed = sys.argv[1:]
    run(story(*SCENARIOS[scenario], int(count), Rand(seed.encode())))
