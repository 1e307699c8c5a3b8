"""A log that shows on an LED, too, whether the tunnel is up."""


def lamp(name, log):
    """Return a log that sets a pin, given by name or number, and calls `log`."""
    from machine import Pin

    pin = Pin(name, Pin.OUT)

    def show(event, fields):
        if event in ("up", "resumed", "error"):
            pin.value(event != "error")
        log(event, fields)

    return show
