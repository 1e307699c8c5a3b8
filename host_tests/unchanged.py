"""A drop changes nothing: held around each datagram that any test of the core hands in.

`watch` puts a look before and after into `IkeSa.receive` and `Receiver.open`. What may move
all the same stands in `MOVES`, by the reason of the drop, and why.
"""

from minipsec.errors import Drop
from minipsec.esp.sa import Receiver
from minipsec.ike.sa import IkeSa

from tools.dev.peers.stage import picture

# Attributes of an IkeSa, its handshake and what that retries, and below them, that may differ after a drop.
MOVES = {
    # An error that nobody authenticated is told of, and that it was.
    "UNAUTHENTICATED_ERROR": {"retry._hints", "_events"},
    "NO_PPK": {"retry._hints", "_events"},
    # A fragment that came twice hastens the next question, within bounds (draft -02 §6.3).
    "REPLAYED_FRAGMENT": {"incoming"},
    # An authentic message that was whole, so that it comes again as a whole.
    "BAD_PAYLOAD": {"incoming"},
    "BAD_LENGTH": {"incoming"},
    "CRITICAL_PAYLOAD": {"incoming"},
    "UNEXPECTED_ACK": {"incoming"},
    "ANSWERS_WAIT": {"incoming"},
    "OLD_MESSAGE_ID": {"incoming"},
}
# An authentic peer's message beyond our bounds: a response of that kind ends the SA.
FATAL = "TOO_LARGE"


def parts(sa):
    """{attribute: its picture}, those of its handshake and of that one's Retry beside its own."""
    _, found = picture(sa)
    _, guest = found.pop("handshake", (None, {}))
    _, retry = guest.pop("_retry", (None, {}))
    found |= {f"handshake.{name}": value for name, value in guest.items()}
    return found | {f"retry.{name}": value for name, value in retry.items()}


def watch(monkeypatch, note):
    """Hold it until `monkeypatch` is undone; call note(reason, state) for each drop."""
    receive, unwrapped = IkeSa.receive, Receiver.open

    def watched(sa, datagram, now):
        before, counted, state = parts(sa), dict(sa.drops), sa.state
        taken = receive(sa, datagram, now)
        new = {reason: n for reason, n in sa.drops.items() if n != counted.get(reason, 0)}
        if taken:
            return taken
        ((reason, n),) = new.items()
        assert n == counted.get(reason, 0) + 1
        note(reason, state)
        if reason != FATAL:
            after = parts(sa)
            moved = {k for k in before | after if before.get(k) != after.get(k)}
            assert moved <= MOVES.get(reason, set()), (reason, moved)
            for name in moved & {"incoming"}:
                assert set(after[name]) <= set(before[name])
        return taken

    def opened(receiver, packet):
        before = picture(receiver)
        try:
            return unwrapped(receiver, packet)
        except Drop as e:
            (reason,) = e.args
            note(reason, None)
            if reason != "DUMMY":
                assert picture(receiver) == before, reason
            raise

    monkeypatch.setattr(IkeSa, "receive", watched)
    monkeypatch.setattr(Receiver, "open", opened)
