"""A plain UDP echo server: what stands behind the gateway and knows nothing of IPsec.

`python tools/dev/lab/echo.py ADDRESS PORT` prints one JSON line `{"from", "port", "hex"}`
a datagram and sends the same octets back.
"""

import json
import socket
import sys


def main(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, int(port)))
    print(json.dumps({"ready": True}), flush=True)
    while True:
        data, peer = server.recvfrom(65535)
        line = {"from": peer[0], "port": peer[1], "hex": data.hex()}
        print(json.dumps(line), flush=True)
        try:
            server.sendto(data, peer)
        except OSError as error:  # the tunnel may be gone by now
            print(json.dumps({"unsent": str(error)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
