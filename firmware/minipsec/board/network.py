"""A board's network: Wi-Fi as a station, or a W5500; also its watchdog, sleep and reset.

Loaded for one such call and forgotten again.  Where the profile's `network` is "up", something
else brings up the network, boot.py for instance.
"""

import asyncio
import sys
import time
from micropython import const

from ..tasks import all_alive, spare

_TRIES = const(200)  # looks for a connection
_PAUSE_MS = const(100)  # between two of them
_SLICE_MS = const(2000)  # less than half of the shortest watchdog
_MOST_MS = const(1 << 22)  # an RP2040's timer counts 2^32 us


_STATES = {
    202: "its key is refused",
    204: "its key is refused",
    -3: "its key is refused",
    201: "it is not in reach",
    210: "it is not in reach",
    211: "it is not in reach",
    212: "it is not in reach",
    -2: "it is not in reach",
}


async def bring_up(profile, nic=None, afresh=False):
    """Wait up to 20 s for an address; return (the interface, why it has none, "" if it has one).

    `nic` is what an earlier call returned: there must never be a second interface.  With `afresh`
    it is switched off first.  An exception of a driver becomes the reason.  Without an address the
    interface is left switched off.
    """
    import network

    wifi = profile["network"] == "wifi"
    try:
        if wifi and profile["country"]:
            network.country(profile["country"])
        nic = nic or (network.WLAN(network.STA_IF) if wifi else network.WIZNET5K())
        if afresh:
            nic.active(False)
        # Asking a W5500 that is off whether it is connected would switch it on.
        elif (wifi or nic.active()) and _connected(nic):
            return nic, ""
        nic.active(True)
        if profile["static_ip"]:
            nic.ifconfig(tuple(profile["static_ip"]))
        if wifi:
            spare(nic.disconnect)  # ends a connection that is half made or lost
            _join(nic, profile)
        for _ in range(_TRIES):
            if _connected(nic):
                return nic, ""
            await asyncio.sleep_ms(_PAUSE_MS)
        state = spare(nic.status) if hasattr(nic, "status") else None
        why = "%s, status %s" % (_STATES.get(state, "no address"), state)
    except Exception as e:
        why = repr(e)
    if nic:
        spare(nic.active, False)  # so that the next attempt starts afresh
    return nic, why


def _join(nic, profile):
    kind = profile["security"]
    ssid, key = profile["ssid"], profile.get("wifi_key")
    if kind == "auto":
        nic.connect(ssid, key)
        return
    # An ESP32 finds the security out by itself and has no such argument.
    try:
        nic.connect(ssid, key, security=getattr(nic, "SEC_" + kind.upper()))
    except TypeError:
        nic.connect(ssid, key)


def _connected(nic):
    """Has the interface an address?  `isconnected` knows IPv4 only."""
    # Not every driver knows IPv6, or has a status while it joins.
    return nic.isconnected() or (hasattr(nic, "ipconfig") and spare(_has_six, nic))


def _has_six(nic):
    return nic.status() == 2 and any(
        [text[:4].lower() != "fe80" for text, *_ in nic.ipconfig("addr6")]
    )


def hurry(nic, on, saving):
    """Switch power saving off (`on`), or back to `saving`; return `saving` for the next call.

    `saving` is None before the first call, which looks it up, and False for "never save".
    """
    if saving is None:  # the owner may have switched it off
        saving = spare(nic.config, "pm")
    spare(_save_power, nic, on, saving)
    return saving


def _save_power(nic, on, saving):
    if saving is None:
        saving = nic.PM_PERFORMANCE
    nic.config(pm=nic.PM_NONE if on or saving is False else saving)


def watchdog(ms, feed):
    """Start the watchdog, and a task that feeds it while `tasks.all_alive()`."""
    from machine import WDT

    async def always():
        while True:
            if all_alive():
                feed()
            await asyncio.sleep_ms(ms // 4)

    dog = WDT(timeout=ms)
    asyncio.create_task(always())
    return dog


def sleep(ms, nic, feed, light):
    """Switch `nic` off and sleep until a reset; returns on a PC.

    With `light`, this board's deepsleep is a light sleep: any event on USB or a pin ends it.
    `feed` is None where no watchdog goes on counting.
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
    nvram = sys.modules.get("minipsec.board.nvram")
    if nvram:
        spare(nvram.put_back)
    if not light:
        spare(deepsleep, max(ms, 1))  # 0 would be for ever
    restart(ms, feed, light and machine.lightsleep)


def restart(ms, feed, doze=None):
    """Wait `ms` milliseconds, then reset; returns on a PC.

    `doze(ms)` sleeps meanwhile; the clock must run on in it.
    """
    try:
        from machine import reset
    except ImportError:
        return
    spare(_wait, ms, feed, doze)
    spare(reset)
    raise SystemExit  # reset() failed or returned: on a board this is a soft reset


def _wait(ms, feed, doze):
    most = _SLICE_MS if feed else _MOST_MS
    then = time.ticks_ms()
    while ms > 0:
        if feed:
            feed()
        part = min(ms, most)
        if doze:
            spare(doze, part)
        if 2 * time.ticks_diff(time.ticks_ms(), then) < part:
            # Something woke us early, a host on USB for instance, and may do so each time: pause.
            time.sleep_ms(min(part, _PAUSE_MS))
        now = time.ticks_ms()
        ms -= time.ticks_diff(now, then)
        then = now
