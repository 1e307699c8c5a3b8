"""What a call of the core says: its value, or the reason of its no."""

from minipsec.errors import Drop
from minipsec.esp import sa


def said(call, *args):
    """Return call(*args), or the reason of the Drop that it raises."""
    try:
        return call(*args)
    except Drop as e:
        return e.args[0]


class Receiver(sa.Receiver):
    """An sa.Receiver whose `open` returns the reason of its no, too."""

    def open(self, packet):
        return said(super().open, packet)
