"""Our own address on the unix port, which has no getsockname.

Loaded for each new socket there and forgotten again; no board needs it.
"""

import socket


def local(target, family):
    """Return our packed address towards a target, or None: Linux lists its sockets."""
    probe = None
    try:
        probe = socket.socket(family, socket.SOCK_DGRAM)
        probe.connect(target)
        six = family != socket.AF_INET
        address = _swapped(target[8:24] if six else target[4:8]).hex().upper()
        wanted = b"%s:%04X" % (address.encode(), target[2] << 8 | target[3])
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
