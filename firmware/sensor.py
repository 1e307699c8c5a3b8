"""What this sensor measures: put it into `sample`.  minipsec/app/run.py does the rest."""

import json
import time

INTERVAL_MS = None  # between two readings; None: the profile's interval_ms
QUEUE = 32  # readings that wait in RAM while the gateway is away
SPOOL = None  # a file like "spool.bin": what QUEUE has no room for goes there, and outlives sleep
SPOOL_OCTETS = 16384
LED = None  # a pin's name or number, "LED" on a Pico W: on while the tunnel is up


def sample(n):
    """Return the n-th reading as octets, up to 1200 of them; None for none.  May be async."""
    return json.dumps({"n": n, "uptime_ms": time.ticks_ms()}).encode()


def command(octets):
    """Take a message that came down the tunnel.  Octets that are returned go back up."""
