"""What a simulated run sent, for Wireshark: `tap` a run and `write` the file."""


class Recorder:
    """A `tap` for `exchange.run`: each datagram that left, also those that the link then lost."""

    def __init__(self):
        self.sent = []

    def __call__(self, side, now, datagram):
        self.sent.append((now, side, bytes(datagram)))

    def write(self, path):
        """Write IPv4 and UDP packets with the virtual clock's times, from 192.0.2.2 to .1."""
        from scapy.layers.inet import IP, UDP
        from scapy.packet import Raw
        from scapy.utils import wrpcap

        ends = {"initiator": ("192.0.2.2", "192.0.2.1"), "responder": ("192.0.2.1", "192.0.2.2")}
        packets = []
        for now, side, datagram in self.sent:
            source, destination = ends[side]
            packet = IP(src=source, dst=destination) / UDP(sport=4500, dport=4500) / Raw(datagram)
            packet.time = now / 1000
            packets.append(packet)
        wrpcap(str(path), packets)
