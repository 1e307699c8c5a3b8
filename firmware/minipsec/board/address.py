"""Our own IP address, from a board's interface or from Linux's list of sockets.

Loaded for each new socket and forgotten again.
"""

import socket


def address(target, six, nic):
    """Return our packed address towards a target, or None; `nic` is the interface, where known."""
    if not six:
        try:
            import network

            # Never WIZNET5K(): a second one takes the interface down.
            own = (nic or network.WLAN(network.STA_IF)).ifconfig()[0]
            return None if own == "0.0.0.0" else bytes([int(octet) for octet in own.split(".")])
        except Exception:
            pass  # a driver may raise anything; the gateway then tells whether there is a NAT
    # MicroPython's unix port has no getsockname.
    return None if isinstance(target, tuple) else _listed(target, six)


def _listed(target, six):
    probe = None
    try:
        probe = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        probe.connect(target)
        own = _swapped(target[8:24] if six else target[4:8]).hex().upper()
        wanted = b"%s:%04X" % (own.encode(), target[2] << 8 | target[3])
        with open("/proc/net/udp6" if six else "/proc/net/udp", "rb") as f:
            for line in f:
                fields = line.split()
                if fields[2] == wanted:
                    return _swapped(bytes.fromhex(fields[1].split(b":")[0].decode()))
    except OSError:
        pass
    finally:
        if probe:
            probe.close()
    return None


def _swapped(address):
    # /proc writes 32-bit words in the machine's order.
    return b"".join([bytes(reversed(address[i : i + 4])) for i in range(0, len(address), 4)])
