"""A board's way to the network, brought up and kept up: Wi-Fi as a station, or a W5500.

And to its watchdog, and to sleep.  Loaded for that much and forgotten again; when the profile says
"up" something else sees to the network, boot.py for instance.
"""

import asyncio
import sys
import time
from micropython import const

from .tasks import spare

_TRIES = const(200)  # looks for a connection
_PAUSE_MS = const(100)  # between two of them
_SLICE_MS = const(2000)  # less than half of the shortest watchdog
_MOST_MS = const(1 << 22)  # an RP2040's timer counts 2^32 us


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


def sleep(ms, nic, feed, light):
    """Switch `nic` off and sleep until a reset; returns on a PC.

    `light`: deepsleep is a light sleep here, which ends whenever something happens on USB or a
    pin.  `feed` is None where no watchdog counts on.
    """
    try:
        import machine

        deepsleep = machine.deepsleep
    except (ImportError, AttributeError):
        return
    if nic:
        spare(nic.active, False)
        if hasattr(nic, "deinit"):
            spare(nic.deinit)
    nvram = sys.modules.get("minipsec.nvram")
    if nvram:
        spare(nvram.put_back)
    if not light:
        spare(deepsleep, max(ms, 1))  # 0 would be for ever
    restart(ms, feed, light and machine.lightsleep)


def restart(ms, feed, doze=None):
    """Reset in so many milliseconds; returns on a PC.

    `doze` is a way to sleep until then, by a clock that runs on in it.
    """
    try:
        from machine import reset
    except ImportError:
        return
    most = _SLICE_MS if feed else _MOST_MS
    then = time.ticks_ms()
    while ms > 0:
        if feed:
            feed()
        part = min(ms, most)
        if doze:
            spare(doze, part)
        if 2 * time.ticks_diff(time.ticks_ms(), then) < part:
            # Woken early, and maybe each time, by a host on USB for instance: not at once again.
            time.sleep_ms(min(part, _PAUSE_MS))
        now = time.ticks_ms()
        ms -= time.ticks_diff(now, then)
        then = now
    reset()
