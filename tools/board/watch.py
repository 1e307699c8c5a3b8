"""What a board says from its restart on, and what that means."""

import contextlib
import dataclasses
import json
import re
import time

from .board import WentAway, port_problem
from ..common.problem import Problem

_PROMPT = ">>> "
_RETURN = 15  # seconds that the port of a USB board may be gone after its reset
_TURN = 0.1
_GRACE = 2.0  # seconds after a first event in which a program may still end
_FIRST_EVENT = 90.0  # an attempt on a bad network ends after 20 s for Wi-Fi and 31 s for IKE
_MAY_BE_QUIET = 8.0  # for a program that prints nothing when all is well
_ASK = 1.5  # seconds for a prompt to answer
_TRACEBACK = "Traceback (most recent call last)"

_TEXT_EVENT = re.compile(
    r"(?:>>> )?(state|agreed|up|resumed|sent|reply|hint|warning|error|stats) (\w+=.*)"
)


def parse(lines):
    """Split what a device prints into (events, other lines): JSON and text logs alike.

    An event begins its line: what stands further on is text of somebody else's, a reading perhaps.
    """
    events, rest = [], []
    for line in lines:
        line = line.removeprefix(_PROMPT)
        if line.startswith('{"'):
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event.get("event"), str):
                    events.append(event)
                    continue
        found = _TEXT_EVENT.fullmatch(line)
        if found:
            parts = re.split(r" ?\b(\w+)=", found[2])[1:]
            events.append({"event": found[1], **dict(zip(parts[::2], parts[1::2], strict=True))})
        elif line.strip():
            rest.append(line)
    return events, rest


class Console:
    """What a board says: whole lines, and at the end what was begun.

    `line` is an open serial port; without one the port is opened, without a word to the board.
    Where it vanishes for a moment, as USB does in a reset, it is opened again; `gap` says that
    something may have been missed then.
    """

    def __init__(self, port, line=None):
        self.port = port
        self.gap = False
        self.lines = []
        self._line = line
        self._begun = b""
        if line is None:
            self._open()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(Exception):
            self._line.close()

    def _open(self):
        from .line import open_serial

        try:
            self._line = open_serial(self.port, _TURN)
        except OSError as error:
            raise port_problem(self.port, error.errno) from None

    def read(self):
        """Return lines that came since the last call, waiting a moment for them."""
        import serial

        try:
            self._line.timeout = _TURN
            octets = self._line.read(max(1, self._line.in_waiting))
        except (serial.SerialException, OSError, TypeError):
            self._return()
            return []
        *whole, self._begun = (self._begun + octets).split(b"\n")
        lines = [part.decode(errors="replace").rstrip("\r") for part in whole]
        self.lines += lines
        return lines

    def _return(self):
        """Wait for a port that is gone."""
        self.close()
        self.gap = True
        end = time.monotonic() + _RETURN
        while True:
            try:
                self._open()
                return
            except Problem:
                if time.monotonic() > end:
                    raise WentAway(
                        f"the board at {self.port} was unplugged", "plug it in and run this again"
                    ) from None
                time.sleep(_TURN / 2)

    def send(self, octets):
        import serial

        try:
            self._line.write(octets)
        except (serial.SerialException, OSError):
            self._return()

    @property
    def begun(self):
        """The line that has no end yet, a prompt perhaps."""
        return self._begun.decode(errors="replace").rpartition("\r")[2]

    @property
    def at_prompt(self):
        """Has the program ended?"""
        return self.begun.startswith(_PROMPT)

    def listen(self, seconds, until=None, out=None):
        """Return the lines of so many seconds, or up to one for which `until` holds."""
        end = time.monotonic() + seconds
        first = len(self.lines)
        while time.monotonic() < end:
            for line in self.read():
                if out:
                    out(line)
                if until and until(line):
                    return self.lines[first:]
        return self.lines[first:]

    def ask_for_prompt(self):
        """Is the board at its prompt? A program that runs does not answer, and is not disturbed."""
        before = len(self.lines)
        self.send(b"\r")
        end = time.monotonic() + _ASK
        while time.monotonic() < end:
            self.read()
            if self.at_prompt or any(line.startswith(_PROMPT) for line in self.lines[before:]):
                return True
        return False


@dataclasses.dataclass
class Started:
    """How a program started: `wrong` is None or what is the matter; `says` what it said last."""

    wrong: str | None
    fix: str = ""
    says: str = ""


def traceback_in(lines):
    """The last place and the exception of the last traceback, or None."""
    at = [number for number, line in enumerate(lines) if _TRACEBACK in line]
    if not at:
        return None
    place = what = ""
    for line in lines[at[-1] + 1 :]:
        if line.startswith("  File "):
            place = line.strip()
        elif not line.startswith(" "):
            what = line
            break
    return f"{what} ({place})" if place else what or "an exception"


def watch_start(console, may_be_quiet=False, out=None):
    """Watch a board from its restart until its program has shown that it runs, or has ended.

    `may_be_quiet`: silence says nothing, since its profile has it print nothing, or it sleeps.
    """
    began = time.monotonic()
    settled = None  # when an event had come and nothing went wrong since
    spoke = began  # when the last line came
    asked = False
    fix = "mend sensor.py, and push it again with --sensor"
    restarted = False
    while True:
        for line in console.read():
            spoke = time.monotonic()
            if out:
                out(line)
        now = time.monotonic()
        events, _ = parse(console.lines)
        if console.at_prompt:
            wrong = traceback_in(console.lines)
            if not wrong and console.gap and not restarted:
                # USB was gone when it said why: have it say so again.
                restarted, console.lines = True, []
                console.send(b"\x04")
                began, settled = now, None
                continue
            if wrong and "boot.py" in wrong:
                fix = "mend boot.py on the board"
            ended = f"with {wrong}" if wrong else "and left the board at its prompt"
            return Started(f"the program on the board ended {ended}", fix)
        if settled is None and events:
            settled = now
        if settled is not None and now > settled + _GRACE:
            wrong = traceback_in(console.lines)
            if wrong:
                return Started(f"the program on the board raises {wrong}", fix)
            return Started(None, says=_words(events[-1]))
        if not events and now > spoke + _GRACE and (wrong := traceback_in(console.lines)):
            return Started(f"the program on the board raises {wrong}", fix)
        quiet = now - began
        if console.gap and not asked and not console.lines and quiet > _GRACE:
            asked = True  # its last words may have been lost
            console.ask_for_prompt()
        if settled is None and quiet > (_MAY_BE_QUIET if may_be_quiet else _FIRST_EVENT):
            if console.ask_for_prompt():
                continue
            wrong = traceback_in(console.lines)
            if wrong:
                return Started(f"the program on the board raises {wrong}", fix)
            if may_be_quiet:
                return Started(None, says="nothing, as its profile has it")
            if console.lines and now - spoke < _MAY_BE_QUIET:
                return Started(None, says=console.lines[-1])  # a program with words of its own
            return Started(*_where_it_hangs(console, quiet, fix))


def _where_it_hangs(console, seconds, fix):
    """Interrupt a program that says nothing, so that its traceback tells where it was."""
    before = len(console.lines)
    console.send(b"\x03")
    console.listen(2, lambda line: "KeyboardInterrupt" in line)
    where = traceback_in(console.lines[before:])
    if console.at_prompt or console.ask_for_prompt():
        console.send(b"\x04")  # as it was
    text = f"the program on the board did not say a word of its tunnel in {seconds:.0f} s"
    return (f"{text}; interrupted, it was in {where}" if where else text), fix


def _words(event):
    parts = [f"{k}={v}" for k, v in event.items() if k in ("state", "error", "text", "inner")]
    return " ".join([event["event"], *parts])
