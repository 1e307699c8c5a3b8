"""ESP straight on IP, without UDP around it.  Loaded where the profile's `encap` is false."""

import socket

from .port import MAX_DATAGRAM, is_six, with_port
from ..tasks import spare

_ESP = 50  # IP protocol number


class ESP:
    """ESP straight on IP, protocol 50; OSError or AttributeError where the board can't."""

    def __init__(self, target):
        self._six = is_six(target)
        family = socket.AF_INET6 if self._six else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_RAW, _ESP)
        self.socket.setblocking(False)
        self._target = with_port(target, 0)
        self.socket.connect(self._target)  # so that only the gateway's packets come

    def send(self, packet, sockaddr):
        """Send one ESP packet to the target."""
        try:
            self.socket.sendto(packet, self._target)
            return True
        except OSError:
            return False

    def receive(self):
        """Return (ESP packet, socket address), or None when nothing is waiting."""
        try:
            packet, source = self.socket.recvfrom(MAX_DATAGRAM)
        except OSError:
            return None
        # IPv4 comes with its header, IPv6 without.
        return packet[0 if self._six else (packet[0] & 15) * 4 :], source

    def close(self):
        """Close the socket."""
        spare(self.socket.close)


def opened(target):
    """Return an ESP, or None where the board has no such sockets."""
    try:
        return ESP(target)
    except (OSError, AttributeError):
        return None
