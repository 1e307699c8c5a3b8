"""Runs on MicroPython: many devices in one process, each with a tunnel of its own.

many.py LIST.json: {"profiles": [path], "readings": n, "interval_ms": n, "spread_ms": n, "until":
path}. One JSON line when all tunnels are up and one when all readings are out; times are those of
the wall clock in milliseconds. The tunnels stay up until there is a file `until`.
"""

import asyncio
import json
import os
import sys
import time

if ".frozen" not in sys.path:
    sys.path.append(".frozen")

from minipsec import MinipsecError, Tunnel, load_profile

LAST_REPLY_MS = 5000

with open(sys.argv[1]) as f:
    TASK = json.load(f)


def there(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def now():
    return time.time_ns() // 1000000


class Device:
    def __init__(self, number, path):
        self.profile = load_profile(path)
        self.number = number
        self.name = self.profile["id"][1].decode()
        self.tunnel = None
        self.up = self.sent = self.replies = self.attempts = 0
        self.error = None

    async def run(self):
        # A fleet that is switched on together does not knock in the same millisecond.
        await asyncio.sleep_ms(self.number * TASK["spread_ms"])
        self.tunnel = Tunnel(self.profile)
        try:
            await self.tunnel.connect()
            self.up = now()
            for n in range(TASK["readings"]):
                await self.tunnel.send(b"%s %d" % (self.name.encode(), n))
                self.sent += 1
                await self.hear(TASK["interval_ms"])
            while self.replies < self.sent and await self.hear(LAST_REPLY_MS):
                pass
        except MinipsecError as e:
            self.error = "%s: %s" % (type(e).__name__, e)
        self.attempts = self.tunnel.counters["attempts"]

    async def hear(self, ms):
        until = time.ticks_add(time.ticks_ms(), ms)
        heard = False
        while True:
            left = time.ticks_diff(until, time.ticks_ms())
            if left <= 0 or heard and self.replies >= self.sent == TASK["readings"]:
                return heard
            if await self.tunnel.receive(timeout_ms=left) is not None:
                self.replies += 1
                heard = True


async def main():
    devices = [Device(n, path) for n, path in enumerate(TASK["profiles"])]
    began = now()
    tasks = [asyncio.create_task(device.run()) for device in devices]
    while not all(device.up or device.error for device in devices):
        await asyncio.sleep_ms(50)
    print(json.dumps({"event": "all up", "began": began, "up": [d.up for d in devices]}))
    for task in tasks:
        await task
    print(
        json.dumps(
            {
                "event": "end",
                "cpu": time.clock(),
                "sent": {device.name: device.sent for device in devices},
                "replies": {device.name: device.replies for device in devices},
                "attempts": sum([device.attempts for device in devices]),
                "errors": {d.name: d.error for d in devices if d.error},
            }
        )
    )
    while not there(TASK["until"]):
        await asyncio.sleep_ms(100)
    for device in devices:
        await device.tunnel.close()


asyncio.run(main())
