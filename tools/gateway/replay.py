"""The replay window that a gateway needs for a sensor whose sequence numbers follow a clock.

A receiver drops a packet that is `window` numbers or more behind the newest one (RFC 4303
§3.4.3). A counter puts neighbouring packets one number apart; minipsec's clock puts them
interval / tick apart, so the same lateness is more numbers. Of two packets sent at most `late_ms`
apart the second one's number is at most

    ceil(late_ms / tick) + burst

above the first one's: the ticks that passed, and one for each packet that ran ahead of the clock
in between, `burst` of them at most. The window is one more, and a multiple of 32 for the kernel.

A sensor that sleeps (profile key `sleep`) counts by one while it is awake; between two wake-ups
the numbers leap, but nobody overtakes a whole sleep.

    python -m tools.gateway.replay PROFILE.json [LATE_MS]
"""

import json
import sys

LATE_MS = 3000  # how late a packet may come behind its successors
BURST = 32  # packets that may leave ahead of the clock in that time
LEAST, MOST = 32, 4096  # what Linux takes, in multiples of 32
LIBIPSEC = 128  # strongSwan's kernel-libipsec has this one, whatever it is told


def behind(tick_ms, late_ms=LATE_MS, burst=BURST):
    """By how many numbers a packet that comes `late_ms` late may be behind the newest."""
    return -(-late_ms // tick_ms) + burst


def replay_window(profile, late_ms=LATE_MS, burst=BURST):
    """The window for a profile (a dict as its file has it)."""
    needed = behind(profile.get("sn_tick_ms", 100), late_ms, burst) + 1
    return min(max(-(-needed // 32) * 32, LEAST), MOST)


def late(tick_ms, window=LIBIPSEC, burst=BURST):
    """How many milliseconds late a packet may be where the window cannot be chosen."""
    return max(window - 1 - burst, 0) * tick_ms


def explain(profile, late_ms=LATE_MS):
    """Return lines for a person, the setting for swanctl.conf last."""
    tick = profile.get("sn_tick_ms", 100)
    window = replay_window(profile, late_ms)
    lines = [
        f"sn_tick_ms {tick}: packets {late_ms} ms apart are up to {behind(tick, late_ms)} numbers"
        f" apart, {BURST} of them for bursts",
        f"kernel-libipsec has a window of {LIBIPSEC}, good for packets up to {late(tick)} ms late",
    ]
    if behind(tick, late_ms) >= MOST:
        lines.append(f"more than {MOST} is not to be had: choose a longer tick")
    lines.append(f"replay_window = {window}")
    return lines


def main(argv):
    if len(argv) not in (1, 2):
        print("usage: python -m tools.gateway.replay PROFILE.json [LATE_MS]", file=sys.stderr)
        return 2
    try:
        with open(argv[0]) as file:
            profile = json.load(file)
        late_ms = int(argv[1]) if len(argv) == 2 else LATE_MS
        lines = explain(profile, late_ms)
    except (OSError, ValueError, AttributeError, TypeError) as problem:
        print(f"replay: {problem}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
