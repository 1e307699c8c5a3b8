"""Record what passes an interface as a pcap file: `python tools/dev/lab/sniff.py wan FILE`.

Each frame is in the file as soon as it was seen, and at SIGTERM what the kernel
still holds is written too, so that a short exchange is never cut off.
"""

import signal
import socket
import struct
import sys
import time

_ETH_P_ALL = 3
_ETHERNET = 1


def main(interface, path):
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    sniffer.bind((interface, 0))
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    with open(path, "wb", buffering=0) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, _ETHERNET))
        print("ready", flush=True)
        while True:
            sniffer.settimeout(0 if stopping else 0.05)
            try:
                frame = sniffer.recv(65535)
            except (BlockingIOError, TimeoutError):
                if stopping:
                    return
                continue
            now = time.time_ns() // 1000
            header = struct.pack("<IIII", now // 10**6, now % 10**6, len(frame), len(frame))
            file.write(header + frame)


if __name__ == "__main__":
    main(*sys.argv[1:])
