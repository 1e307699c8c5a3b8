"""A board's way to the network, brought up and kept up: Wi-Fi as a station, or a W5500.

And to its watchdog, and to sleep.  Loaded for that much and forgotten again; when the profile says
"up" something else sees to the network, boot.py for instance.
"""

import asyncio
from micropython import const

_TRIES = const(200)  # looks for a connection
_PAUSE_MS = const(100)  # between two of them
_SLICE_MS = const(2000)  # less than half of the shortest watchdog


async def bring_up(profile, nic=None):
    """Return the interface once it has an address, or after 20 s switched off without one.

    `nic` is what an earlier call returned: there must never be a second one.
    """
    import network

    wifi = profile["network"] == "wifi"
    nic = nic or (network.WLAN(network.STA_IF) if wifi else network.WIZNET5K())
    if nic.isconnected():
        return nic
    nic.active(True)
    if profile["static_ip"]:
        nic.ifconfig(tuple(profile["static_ip"]))
    if wifi:
        try:
            nic.disconnect()  # what is half made or lost
        except OSError:
            pass
        nic.connect(profile["ssid"], profile.get("wifi_key"))
    for _ in range(_TRIES):
        if nic.isconnected():
            return nic
        await asyncio.sleep_ms(_PAUSE_MS)
    nic.active(False)  # so that the next attempt starts afresh
    return nic


def watchdog(ms, feed):
    """Start the watchdog and a task that calls `feed` also while nothing else happens."""
    from machine import WDT

    async def always():
        while True:
            feed()
            await asyncio.sleep_ms(ms // 4)

    asyncio.create_task(always())
    return WDT(timeout=ms)


def sleep(ms, nic, feed):
    """Switch `nic` off and sleep until a reset; returns where the port can't.

    `feed` is None where no watchdog counts on.
    """
    try:
        from machine import deepsleep
    except ImportError:
        return
    if nic:
        nic.active(False)
        if hasattr(nic, "deinit"):
            nic.deinit()
    if feed:
        # Nothing stops it: sleep in slices, and end as deepsleep would.
        from machine import lightsleep, reset

        while ms > 0:
            feed()
            lightsleep(min(ms, _SLICE_MS))
            ms -= _SLICE_MS
        reset()
    deepsleep(ms)
