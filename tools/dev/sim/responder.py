"""A responder for one fragmented exchange: RFC 7383 and the acknowledgment draft from their text.

It shares no code with firmware/ and makes its own sense of the draft, so that each shows
the other's mistakes. It knows nothing of IKE beyond one protected exchange: a request
comes in, a response of a given size goes out.
"""

import struct
from dataclasses import dataclass, field

from tools.dev.peers import messages

SK, SKF, NOTIFY, VENDOR = 46, 53, 41, 43
RESPONSE, INITIATOR = 0x20, 0x08
MARKER = bytes(4)

REQ, RES = 50202, 50203  # FRAGMENT_ACK_REQ, FRAGMENT_ACK_RES

BURST_MS = 50
BURSTS = 8  # of a whole message's size
ASKS = 8


@dataclass
class Policy:
    """`ack` is "off", "conservative" or "eager"; `rtt` is 0 where it is not known."""

    ack: str = "eager"
    rtt: int = 0
    gap_ms: int = 2


@dataclass
class Waiting:
    """A request of which fragments are missing."""

    total: int
    pieces: dict = field(default_factory=dict)
    first: tuple | None = None
    due: float | None = None
    asked: int | None = None
    in_vain: int = 0
    resend_seen: bool = False


def runs(numbers):
    """Ascending numbers as [first, last] runs."""
    out = []
    for number in numbers:
        if out and out[-1][1] + 1 == number:
            out[-1][1] = number
        else:
            out.append([number, number])
    return out


class Responder:
    """`answer` is (first inner payload, plaintext) of the response.

    `piece` is how much plaintext one fragment takes; `joined` will be the request's plaintext.
    """

    def __init__(self, spi_i, spi_r, exchange, mid, keys, answer, piece, policy):
        self.spis = spi_i + spi_r
        self.exchange = exchange
        self.mid = mid
        self.opener, self.sealer = keys
        self.answer = answer
        self.piece = piece
        self.policy = policy
        self.iv = 0
        self.copies = True  # of acknowledgments, where a lost one costs most
        self.joined = None
        self.acks = 0
        self.drops = {}
        self._out = []
        self._waiting = None
        self._answered = None  # the response's datagrams
        self._pace = policy.gap_ms
        self._reported = set()  # missing of the response, since the last burst
        self._burst = set()
        self._burst_at = None
        self._left = None
        self._seen = set()

    # What a Port asks for.

    def poll_out(self):
        return self._out.pop(0) if self._out else None

    def next_timer(self):
        times = [self._waiting.due] if self._waiting and self._waiting.due is not None else []
        if self._reported and self._burst_at is not None:
            times.append(self._burst_at + BURST_MS)
        return min(times, default=None)

    def timer(self, now):
        waiting = self._waiting
        if waiting and waiting.due is not None and now >= waiting.due:
            self._ask(now)
        self._resend_reported(now)

    def receive(self, datagram, now):
        if datagram[:4] != MARKER or len(datagram) < 36:
            return self._drop("short")
        message = datagram[4:]
        spi_i, spi_r, payload, version, exchange, flags, mid, length = messages.parsed(message)
        if spi_i + spi_r != self.spis or version != 0x20 or length != len(message):
            return self._drop("not ours")
        if (exchange, mid) != (self.exchange, self.mid) or not flags & INITIATOR:
            return self._drop("another exchange")
        inner, _, size = struct.unpack_from(">BBH", message, 28)
        if size != len(message) - 28:
            return self._drop("length")
        if payload == SKF and not flags & RESPONSE and size > 8:
            return self._fragment(message, inner, now)
        if payload == SK:
            return self._whole(message, inner, flags, now)
        return self._drop("payload")

    def _drop(self, reason):
        self.drops[reason] = self.drops.get(reason, 0) + 1

    # The request.

    def _fragment(self, message, inner, now):
        number, total = struct.unpack_from(">HH", message, 32)
        if self._answered:
            # RFC 7383 §2.6.1: fragment 1 alone brings the response back.
            if number == 1:
                self._send_again()
            return None
        waiting = self._waiting or Waiting(total)
        if not 1 <= number <= total or total != waiting.total:
            return self._drop("numbers")
        if number in waiting.pieces:
            waiting.resend_seen = True
            self._plan(waiting, total - number, now, sooner=True)
            return self._drop("duplicate")
        piece = self.opener.open(message[:36], message[36:])
        if piece is None:
            return self._drop("icv")
        self._waiting = waiting
        waiting.pieces[number] = piece
        waiting.in_vain = 0
        if len(waiting.pieces) == total:
            self._waiting = None
            self._finish(b"".join(waiting.pieces[n] for n in range(1, total + 1)))
            return None
        if waiting.first is None:
            waiting.first = number, now
        elif waiting.asked is None and number > waiting.first[0]:
            self._pace = min(50, (now - waiting.first[1]) / (number - waiting.first[0]))
        ahead = sum(n not in waiting.pieces for n in range(number + 1, total + 1))
        self._plan(waiting, ahead, now)
        return None

    def _whole(self, message, inner, flags, now):
        plain = self.opener.open(message[:32], message[32:])
        if plain is None:
            return self._drop("icv")
        if inner == NOTIFY and len(plain) >= 8:
            kind = int.from_bytes(plain[6:8], "big")
            if kind == RES and self.policy.ack != "off":
                return self._reported_missing(message[32:40], bytes(plain), now)
        if flags & RESPONSE or self._answered:
            return self._drop("unexpected")
        self._finish(bytes(plain))
        return None

    def _finish(self, plain):
        self.joined = plain
        first, answer = self.answer
        pieces = [answer[at : at + self.piece] for at in range(0, len(answer), self.piece)]
        total = len(pieces)
        self._answered = []
        for number, piece in enumerate(pieces, 1):
            inner = first if number == 1 else 0
            place = struct.pack(">HH", number, total) if total > 1 else b""
            self._answered.append(self._seal(SKF if place else SK, inner, place, piece))
        self._left = BURSTS * total
        self._out += self._answered

    def _seal(self, payload, inner, place, plain):
        self.iv += 1
        iv = self.iv.to_bytes(8, "big")
        return MARKER + messages.protected(
            self.spis[:8], self.spis[8:], self.exchange, RESPONSE, self.mid, inner,
            self.sealer.size(len(plain)), lambda aad: bytes(self.sealer.seal(aad, iv, plain)),
            kind=payload, place=place,
        )  # fmt: skip

    # Asking for the request (§6.1).

    def _slack(self):
        return max(20, (self.policy.rtt or 800) / 4)

    def _plan(self, waiting, ahead, now, sooner=False):
        """Ask when the last of a burst should have come, `ahead` from now, and a bit later."""
        ack = self.policy.ack
        if ack == "off" or (ack == "conservative" and not waiting.resend_seen):
            return
        if sooner and waiting.in_vain >= ASKS:
            return
        if sooner and waiting.asked is not None and now < waiting.asked + self.policy.rtt:
            return
        due = now + self._slack() + ahead * self._pace
        if not sooner or waiting.due is None or due < waiting.due:
            waiting.due = due

    def _ask(self, now):
        waiting = self._waiting
        missing = [n for n in range(1, waiting.total + 1) if n not in waiting.pieces]
        pairs = runs(missing)
        fits = min(100, (4 + 36 + self.sealer.size(self.piece) - 69 - 4) // 4)
        copies = 2 if self.copies and (waiting.total > 8 or waiting.in_vain) else 1
        for at in range(0, len(pairs), fits):
            data = b"".join(struct.pack(">HH", *pair) for pair in pairs[at : at + fits])
            notify = struct.pack(">BBHBBH", 0, 0, 8 + len(data), 0, 0, REQ) + data
            self._out += [self._seal(SK, NOTIFY, b"", notify)] * copies
            self.acks += copies
        waiting.asked = now
        waiting.in_vain += 1
        waiting.due = None
        if waiting.in_vain < ASKS:
            pause = (self.policy.rtt or 800) + self._slack()
            waiting.due = now + pause * 2 ** ((waiting.in_vain - 1) // 2)
            waiting.due += self._pace * len(missing)

    # Resending the response (§3.2, §6).

    def _reported_missing(self, iv, plain, now):
        if not self._answered:
            return self._drop("early ack")
        numbers = struct.unpack_from(f">{(len(plain) - 8) // 2}H", plain, 8)
        pairs = list(zip(numbers[::2], numbers[1::2]))
        flat = [0, *numbers]
        total = len(self._answered)
        if (len(plain) - 8) % 4 or plain[5] or (numbers and numbers[-1] > total):
            return self._drop("bad ack")
        if any(low > high for low, high in pairs) or any(
            flat[i] >= flat[i + 1] for i in range(0, len(flat) - 1, 2)
        ):
            return self._drop("bad ack")
        if iv in self._seen:
            return self._drop("replayed ack")
        self._seen.add(iv)
        missing = {n for low, high in pairs for n in range(low, high + 1)}
        if self._burst_at is not None and now < self._burst_at + self.policy.rtt:
            # Written before the last burst arrived, the first time that it says so.
            missing, self._burst = missing - self._burst, self._burst - missing
        self._reported |= missing
        self._resend_reported(now)
        return None

    def _resend_reported(self, now):
        if not self._reported or (self._burst_at is not None and now < self._burst_at + BURST_MS):
            return
        burst = sorted(self._reported)[: self._left]
        self._left -= len(burst)
        self._burst = set(burst)
        self._burst_at = now
        self._reported = set()
        self._out += [self._answered[number - 1] for number in burst]

    def _send_again(self):
        wanted = self._reported | self._burst
        if wanted and self.policy.ack != "off":
            self._out += [self._answered[number - 1] for number in sorted(wanted | {1})]
        else:
            self._out += self._answered
