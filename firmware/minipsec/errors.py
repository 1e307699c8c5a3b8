"""The error classes that must be loaded before memory runs out; `refusals` has the rest.

Each error has `notify`, the name of the notify that the gateway sent or None, and `check`, a
sentence that tells its reader what to look at.
"""


class Drop(Exception):
    """The core refuses something; `args[0]` is the reason, under which a datagram is counted."""


class ProfileError(ValueError):
    """The profile or the secrets file is unusable; the message says what to change."""


class MinipsecError(Exception):
    """Every error that a tunnel ends with."""

    notify = None
    check = "the gateway's log, and the drop counters"

    def __init__(self, text, *more):
        super().__init__(text)
        if more:
            self.notify, self.check = more


class UsageError(MinipsecError):
    """The caller asked for what cannot be done."""

    check = "the call"


class LinkDown(MinipsecError):
    """No answer came in time, or the host was not found."""

    check = "gateway, port, natt_port; a firewall that drops UDP 500 or 4500"


class OutOfMemory(MinipsecError):
    """The heap is too small, or in too small pieces; the tunnel tries again."""

    check = "that the board has minipsec as .mpy files; what else takes memory there"


class Failure(MinipsecError):
    """A driver, or this software, raised what nobody expects; the tunnel tries again."""

    check = "the call that the text names; if it goes on, a reset, another MicroPython"


def typed(error):
    """Return the MinipsecError for any exception."""
    if isinstance(error, MinipsecError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("not enough memory for this tunnel")
    return Failure(repr(error))


def describe(error):
    """Return the log fields of an error."""
    return {
        "error": type(error).__name__,
        "notify": error.notify,
        "text": str(error),
        "check": error.check,
    }


def address_text(address):
    """Return a packed address as people write it; IPv6 without shortening."""
    if len(address) == 4:
        return ".".join([str(octet) for octet in address])
    return ":".join(["%x" % (address[i] << 8 | address[i + 1]) for i in range(0, 16, 2)])
