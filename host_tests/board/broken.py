"""Has every call that a fake board offers raise, one after the other; runs on MicroPython.

`sweep(board arguments, phase, times)` runs sensor.py once to see which calls it makes from the
moment of `phase` on, and once more for each of them, which raises then, `times` times or for ever
(-1). It prints what became of it, one JSON line a run. Calls are found by looking at the fakes, so
one that is added to them is covered by itself.
"""

import asyncio
import builtins
import gc
import json
import os as real_os
import select as real_select
import sys

from host_tests.board import fake

ERRORS = (OSError("Wifi Internal Error"), RuntimeError("a driver's"), ValueError("a driver's"))
LIMIT_MS = 12000  # of one run; what has not come to an end by then is silent
_ENOUGH = 3  # errors, with an attempt between each two: it goes on so

# Arithmetic in C that cannot fail, asyncio's own poll, and a test's way to lose the Wi-Fi.
_NEVER = ("ticks_diff", "ticks_add", "ioctl", "lose")


def _places(board):
    """Yield (label, the object that has the call, its name) of all calls."""
    for module in ("machine", "network", "socket", "time", "os"):
        for name in dir(sys.modules[module]):
            yield module + "." + name, sys.modules[module], name
    kind = fake.WLAN if board.facts["network"]["kind"] == "wifi" else fake.Ethernet
    for label, thing in (("nic", kind), ("udp", fake.Socket), ("pin", fake.Pin)):
        for name in dir(thing):
            yield label + "." + name, thing, name
    for name in ("stat", "remove", "rename"):
        yield "os." + name, sys.modules["os"], name
    yield "poll", sys.modules["select"], "poll"
    yield "poll.register", _Poller, "register"
    yield "poll.poll", _Poller, "poll"
    yield "open", builtins, "open"
    yield "dog.feed", fake.Board, "feed"
    yield "rtc.memory", fake.Board, "rtc_memory"
    yield "mem32", fake.Memory32, "__getitem__"


def calls(board):
    """Return {label: (object, name)} of every call, each once."""
    found = {}
    for label, thing, name in _places(board):
        plain = name[0] != "_" or label == "mem32"
        if plain and name not in _NEVER and callable(getattr(thing, name)):
            found[label] = thing, name
    found["log"] = None, None
    return found


class _Poller:
    def __init__(self):
        self._real = real_select.poll()

    def register(self, *args):
        return self._real.register(*args)

    def poll(self, *args):
        return self._real.poll(*args)


class Trap:
    """In place of a call: counts how often it is asked while `armed`, and raises `times` times."""

    def __init__(self, times, error=None):
        self.armed = False
        self.asked = 0
        self.times = times
        self.error = error

    def check(self):
        if self.armed:
            self.asked += 1
            if self.asked <= self.times or self.times < 0:
                raise self.error

    def around(self, real):
        def call(*args, **names):
            self.check()
            return real(*args, **names)

        return call


def _plug(arguments):
    """Return a new board, plugged in, with nothing of the firmware loaded."""
    for name in list(sys.modules):
        if name.startswith("minipsec") or name == "sensor":
            del sys.modules[name]
    gc.collect()
    asyncio.core.new_event_loop()
    board = fake.Board(*arguments[0], **arguments[1]).plug_in()
    sys.modules["select"] = fake.Facade(real_select, poll=_Poller)
    return board


def _run(board, phase, traps):
    """Run sensor.py with these {label: Trap}; return what is to be said of it."""
    seen = {"sent": 0, "errors": [], "end": None}

    def arm():
        for trap in traps.values():
            trap.armed = True

    if phase == "boot":
        arm()
    elif "mem32" in traps:
        traps["mem32"].armed = True

    def log(event, fields):
        if event == "error":
            seen["errors"].append(fields["error"])
        if event == "sent":
            seen["sent"] += 1
            if seen["sent"] == 1 and phase != "boot":
                arm()
                if phase == "reconnect":
                    board.nic.lose()
        if "log" in traps:
            traps["log"].check()

    async def end():
        for _ in range(LIMIT_MS // 20):
            await sleep_ms(20)
            if len(seen["errors"]) >= _ENOUGH:
                seen["end"] = "goes on"
                raise fake.PowerOff(0)
        seen["end"] = "silence"
        raise fake.PowerOff(0)

    sleep_ms = asyncio.sleep_ms
    try:
        import sensor
        from minipsec.app import run as loop

        fake.hurry_network(40)
        loop.PAUSE_MS = loop.AGAIN_MS = 60
        sensor.LED = "LED"
        loop.reporter = lambda kind: log
        asyncio.create_task(end())
        loop.run(sensor, [])
        seen["end"] = "prompt"
    except fake.PowerOff:
        seen["end"] = seen["end"] or board.seen["slept"][-1][0]
    except SystemExit:
        seen["end"] = "reset"  # a soft one
    except Exception as e:
        sys.print_exception(e, sys.stderr)
        seen["end"] = "traceback: " + repr(e)
    for trap in traps.values():
        trap.armed = False
    return seen


def _trapped(arguments, phase, labels, trap):
    """Plug a new board in and run it; return ({label: Trap}, what is to be said of it)."""
    board = _plug(arguments)
    offered = calls(board)
    traps = {label: trap(label) for label in labels}
    real = {}
    for label, trap in traps.items():
        thing, name = offered[label]
        if thing:
            real[label] = getattr(thing, name)
            setattr(thing, name, trap.around(real[label]))
    try:
        seen = _run(board, phase, traps)
    finally:
        for label in real:
            setattr(*offered[label], real[label])
    for left in ("board-state.json", "sa.bin", "sa.mark"):
        try:
            real_os.remove(board.directory + "/" + left)
        except OSError:
            pass
    return traps, seen


def sweep(arguments, phase, times):
    """See the module's docstring."""
    offered = sorted(calls(_plug(arguments)))
    traps, seen = _trapped(arguments, phase, offered, lambda label: Trap(0))
    print(json.dumps(dict(seen, event="offered", calls=len(offered))))
    # Until a call raises all goes as it did just now: one that nobody asked need not be tried.
    asked = [label for label in offered if traps[label].asked]
    for n, label in enumerate(asked):
        error = ERRORS[n % len(ERRORS)]
        traps, seen = _trapped(arguments, phase, [label], lambda label: Trap(times, error))
        print(json.dumps(dict(seen, event="broken", call=label, asked=traps[label].asked)))
