"""A log that also shows on an LED whether the tunnel is up."""

from ..tasks import spare


def with_led(name, log):
    """Return a log that sets a pin, given by name or number, and calls `log`."""
    pin = spare(_pin, name)

    def show(event, fields):
        if pin and event in ("up", "resumed", "error"):
            spare(pin.value, event != "error")
        log(event, fields)

    return show


def _pin(name):
    from machine import Pin

    return Pin(name, Pin.OUT)
