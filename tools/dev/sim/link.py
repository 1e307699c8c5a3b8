"""One direction of a bad link: what is lost, and how late and how bent the rest arrives.

Every kind of loss is a callable `lost(now) -> bool`, asked once a datagram in sending order.
All randomness comes from the `random.Random` that each is given.
"""

IP, UDP = 20, 8


def nothing(now):
    """A loss that loses nothing."""
    return False


def everything(now):
    """A cut wire."""
    return True


def independent(rng, rate):
    """Each datagram is lost with the same probability."""
    return lambda now: rng.random() < rate


def gilbert_elliott(rng, rate, bad_ms=10.0):
    """Loss in bursts: everything is lost for `bad_ms` on average, `rate` of the time.

    Gilbert and Elliott's two states in continuous time, so that a burst lasts as long for one
    datagram now and then as for a dense train of them.
    """
    good_ms = bad_ms * (1 - rate) / rate
    bad = rng.random() < rate
    until = rng.expovariate(1 / (bad_ms if bad else good_ms))

    def lost(now):
        nonlocal bad, until
        while until <= now:
            bad = not bad
            until += rng.expovariate(1 / (bad_ms if bad else good_ms))
        return bad

    return lost


def tail_drop(room, quiet_ms=10):
    """A queue for `room` datagrams: of a burst all that come later are lost.

    A burst lasts until nothing was sent for `quiet_ms`. With 4 this is what a Pico W's UDP
    socket does to a burst that arrives while the application is busy.
    """
    last = None
    held = 0

    def lost(now):
        nonlocal last, held
        if last is None or now - last > quiet_ms:
            held = 0
        last = now
        held += 1
        return held > room

    return lost


def pattern(text):
    """A given sequence, over and over: "..x" loses every third datagram."""
    count = -1

    def lost(now):
        nonlocal count
        count += 1
        return text[count % len(text)] == "x"

    return lost


def either(*losses):
    """Lost when one of them loses it; each is asked."""
    return lambda now: any([lost(now) for lost in losses])


class Link:
    """`carry(datagram, now)` returns [(arrival, octets)]: none, one, or one and its duplicate.

    A datagram takes `delay` ms and up to `jitter` more; `reorder` of them are late by another
    half of the delay; `duplicate` and `corrupt` are probabilities.

    With `mtu`, octets of an IPv4 packet, a longer datagram goes in IP fragments. It is lost with
    any of them, and the counters count packets. With `reassembly` False the receiver is one that
    does not join them, and only packets arrive that are datagrams.
    """

    def __init__(
        self, rng, delay=50.0, jitter=0.0, lost=nothing, duplicate=0.0, reorder=0.0, corrupt=0.0,
        mtu=0, reassembly=True,
    ):  # fmt: skip
        self.rng = rng
        self.delay = delay
        self.jitter = jitter
        self.lost = lost
        self.duplicate = duplicate
        self.reorder = reorder
        self.corrupt = corrupt
        self.mtu = mtu
        self.reassembly = reassembly
        self.sent = self.octets = self.dropped = 0

    def carry(self, datagram, now):
        packets = self._packets(len(datagram))
        self.sent += packets
        self.octets += len(datagram) + IP * (packets - 1)
        lost = sum([self.lost(now) for _ in range(packets)])
        self.dropped += lost
        if lost or (packets > 1 and not self.reassembly):
            return []
        arrivals = [(self._arrival(now), self._bent(datagram))]
        if self.duplicate and self.rng.random() < self.duplicate:
            arrivals.append((self._arrival(now), datagram))
        return arrivals

    def _packets(self, octets):
        """In how many IPv4 packets a UDP payload goes; all but the last hold 8 n octets."""
        if not self.mtu or octets + UDP <= self.mtu - IP:
            return 1
        return -(-(octets + UDP) // ((self.mtu - IP) & ~7))

    def _arrival(self, now):
        late = self.rng.random() * self.jitter if self.jitter else 0.0
        if self.reorder and self.rng.random() < self.reorder:
            late += self.delay / 2
        return now + self.delay + late

    def _bent(self, datagram):
        if not self.corrupt or self.rng.random() >= self.corrupt:
            return datagram
        bent = bytearray(datagram)
        bent[self.rng.randrange(len(bent))] ^= 1 << self.rng.randrange(8)
        return bytes(bent)
