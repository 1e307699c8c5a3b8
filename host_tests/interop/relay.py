"""A long line: relays UDP ports 500 and 4500 of LISTEN to GATEWAY, each way MS late.

`python relay.py LISTEN GATEWAY MS`; prints "ready". Each client has a port of its own behind it.
"""

import asyncio
import sys


class Way(asyncio.DatagramProtocol):
    """One socket; `took(datagram, source)` gets what came, late."""

    def __init__(self, took, seconds):
        self.took = took
        self.seconds = seconds

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, source):
        asyncio.get_running_loop().call_later(self.seconds, self.took, data, source)

    def error_received(self, error):
        pass  # a port that is closed by now


async def relay(listen, gateway, port, seconds):
    loop = asyncio.get_running_loop()
    behind = {}  # client: the task that opens its socket

    async def opened(client):
        def back(data, _):
            front.sendto(data, client)

        made = await loop.create_datagram_endpoint(
            lambda: Way(back, seconds), remote_addr=(gateway, port)
        )
        return made[0]

    async def forward(data, client):
        if client not in behind:
            behind[client] = loop.create_task(opened(client))
        (await behind[client]).sendto(data)

    tasks = set()

    def there(data, client):
        tasks.add(loop.create_task(forward(data, client)))

    front, _ = await loop.create_datagram_endpoint(
        lambda: Way(there, seconds), local_addr=(listen, port)
    )


async def main(listen, gateway, ms):
    for port in (500, 4500):
        await relay(listen, gateway, port, float(ms) / 1000)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
