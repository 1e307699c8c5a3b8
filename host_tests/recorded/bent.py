"""Real datagrams, bent: what the core must drop and count, whatever was done to them."""

from hashlib import sha256

from tools.dev.peers.replay import Replay

IKE_SA_INIT = 34


def bent(datagram, share=1):
    """Yield every truncation, every one flipped bit and some longer ones of a datagram.

    With `share` n only each n-th of them.
    """
    n = 0
    for size in range(len(datagram)):
        if n % share == 0:
            yield datagram[:size]
        n += 1
    for at in range(len(datagram)):
        for bit in range(8):
            if n % share == 0:
                made = bytearray(datagram)
                made[at] ^= 1 << bit
                yield bytes(made)
            n += 1
    for extra in (b"\0", b"\xff", b"\0\0\0\0", datagram):
        yield datagram + extra


def spliced(datagram, others, count):
    """Yield `count` mixtures: a head of this one, a tail of another, some octets rewritten."""
    for n in range(count):
        noise = sha256(b"%d" % n + datagram[:40]).digest()
        other = others[noise[0] % len(others)]
        cut = (noise[1] << 8 | noise[2]) % (len(datagram) + 1)
        start = max(len(other) - (len(datagram) - cut), 0) if noise[3] & 1 else cut
        made = bytearray(datagram[:cut] + other[start:])
        if made:
            for i in range(noise[4] & 3):
                made[(noise[5 + i] << 8 | noise[9 + i]) % len(made)] = noise[13 + i]
        if bytes(made) != datagram and bytes(made) not in others:
            yield bytes(made)


def _counted(node):
    return sum(node.ike.drops.values()) + sum(node.drops.values())


def _standing(node):
    """What a dropped datagram leaves as it was."""
    ike = node.ike
    changes = [event for event in node.events if event[0] != "hint"]
    return (ike.state, ike.next_timer(), ike.spi_r, ike.floated, len(changes), len(node.got))


def _exchange(datagram, spi_i):
    """The exchange type of an IKE message, None for ESP."""
    if datagram[:4] == b"\0\0\0\0":
        datagram = datagram[4:]
    return datagram[18] if datagram[:8] == spi_i else None


def _is_request(datagram):
    return datagram[:4] == b"\0\0\0\0" and not datagram[23] & 0x20


class Bender:
    """Feeds bent datagrams to a session's core at one step after the other.

    `fed` counts them, `moved` those of IKE_SA_INIT, which nothing authenticates yet, that were
    still well-formed and led somewhere.
    """

    def __init__(self, session, others=()):
        self.session = session
        self.others = others
        self.fed = 0
        self.moved = 0
        self.reasons = {}

    def run(self, share=1, init_share=1, splices=0):
        """Bend each incoming datagram at its place; then let the genuine one come."""
        replay = Replay(self.session)
        before = []
        for index in replay.inputs:
            replay.to(index)
            genuine = replay.datagram(index)
            spi_i = replay.node.ike.spi_i
            unauthenticated = _exchange(genuine, spi_i) == IKE_SA_INIT
            for mutant in bent(genuine, init_share if unauthenticated else share):
                replay = self.feed(replay, mutant, unauthenticated)
            for mutant in spliced(genuine, before + list(self.others) + [genuine], splices):
                replay = self.feed(replay, mutant, unauthenticated)
            for datagram in replay.sent()[-12:] + list(self.others):
                replay = self.feed(replay, datagram)
            for datagram in before[-12:]:
                # A request of the gateway's that comes again is answered again.
                if not _is_request(datagram):
                    first = _exchange(datagram, spi_i) == IKE_SA_INIT
                    replay = self.feed(replay, datagram, first)
            before.append(genuine)
        self._note(replay.to_end().node)

    def feed(self, replay, mutant, unauthenticated=False):
        """Feed one; return the replay to go on with."""
        node = replay.node
        now = replay.steps[replay.at][1]
        standing, counted = _standing(node), _counted(node)
        out = node.receive(mutant, now)
        self.fed += 1
        if not out and _standing(node) == standing:
            assert _counted(node) == counted + 1, (replay.at, mutant.hex())
            return replay
        assert unauthenticated, (replay.at, mutant.hex(), node.events[-3:], out)
        self.moved += 1
        self._misled(replay, out)
        self._note(node)
        return Replay(self.session).to(replay.at)

    def _misled(self, replay, out):
        """A forged IKE_SA_INIT answer may end the attempt, but never in an SA with other octets.

        One that asks for a COOKIE costs a round, at once or later; then the genuine answer still
        counts.
        """
        node = replay.node
        asked_again = node.state == "IKE_SA_INIT"
        assert asked_again or node.state == "IKE_AUTH"
        sent = {_exchange(datagram, node.ike.spi_i) for datagram in out}
        assert sent == {IKE_SA_INIT + 1 - asked_again} or (asked_again and not sent)
        for index in replay.inputs:
            if index >= replay.at:
                node.receive(replay.datagram(index), replay.steps[index][1])
        assert asked_again or not node.all("up")

    def _note(self, node):
        for drops in (node.ike.drops, node.drops):
            for reason, n in drops.items():
                self.reasons[reason] = self.reasons.get(reason, 0) + n
