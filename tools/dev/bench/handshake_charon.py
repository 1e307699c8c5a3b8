"""The far anchor of `make bench`: charon as initiator against another charon, in namespaces.

Both are strongSwan as Debian has it; the one that plays the sensor is measured. A handshake is
what `swanctl --initiate` starts, IKE_SA_INIT and IKE_AUTH with a pre-shared key, a virtual address
and one Child SA. Its CPU time is that of all of charon's threads, from before the request on its
control socket until its answer.
"""

import struct
import time

from tools.dev.setup import gateway

WAYS = {
    "charon, X25519": "aes128ccm16-prfsha256-x25519",
    "charon, P-256": "aes128ccm16-prfsha256-ecp256",
}

CONFIG = """
connections {
  sensor {
    version = 2
    remote_addrs = %s
    proposals = %s
    encap = yes
    vips = 0.0.0.0
    local {
      auth = psk
      id = %s
    }
    remote {
      auth = psk
      id = gw.example.org
    }
    children {
      readings {
        remote_ts = 10.3.0.0/16
        esp_proposals = aes128ccm8
      }
    }
  }
}
include sensors.secrets.conf
"""


def measure(rounds, spread):
    """Return ({way: row}, None), or ({}, one line that says why not)."""
    why = gateway.lacking()
    if why:
        return {}, why.replace("interop", "the row of charon")
    from tools.dev.lab import Lab, LabError

    try:
        found = {}
        with Lab() as lab:
            lab.charon(edits=[(WAYS["charon, X25519"] + ",", ", ".join(WAYS.values()) + ",")])
            for name, suite in WAYS.items():
                found[name] = one(lab, suite, rounds, spread)
        return found, None
    except LabError as problem:
        return {}, "the row of charon: " + str(problem).splitlines()[0]


def one(lab, suite, rounds, spread):
    from tools.dev.lab import GATEWAY_4, SENSOR_ID, Charon, wait_until

    from .handshake import cpu_clock

    class Measured(Charon):
        def cpu(self):
            # `ip netns exec` becomes the program that it starts, so this is charon itself.
            return cpu_clock(self._process.pid)

    charon = Measured(lab.sensor_ns, lab.directory, config=CONFIG % (GATEWAY_4, suite, SENSOR_ID))
    cpu, wall = [], []
    pcap = lab.directory / "charon.pcap"
    try:
        for n in range(-1, rounds):
            # The first one is recorded, and not timed.
            capture = lab.sensor_ns.capture(pcap) if n < 0 else None
            began, since = charon.cpu(), time.perf_counter()
            charon.initiate("readings")
            if capture:
                capture.stop()
            else:
                cpu.append(charon.cpu() - began)
                wall.append(time.perf_counter() - since)
            charon.terminate()
            wait_until(lambda: not charon.list_sas(), 10, "charon's SA to go")
    finally:
        charon.stop()
    sizes = udp_sizes(pcap.read_bytes())
    row = {"octets": sum(sizes), "datagrams": len(sizes)}
    return {**row, "cpu_ms": spread(cpu), "wall_ms": spread(wall)}


def udp_sizes(pcap):
    """Octets of each IPv4 datagram with UDP in a recording of Ethernet frames."""
    at, sizes = 24, []
    while at < len(pcap):
        (length,) = struct.unpack_from("<I", pcap, at + 8)
        frame = pcap[at + 16 : at + 16 + length]
        if frame[12:14] == b"\x08\x00" and frame[23] == 17:
            sizes.append(int.from_bytes(frame[16:18], "big"))
        at += 16 + length
    return sizes
