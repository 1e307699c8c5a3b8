"""A board without a board: MicroPython's unix port behind a pseudo-terminal.

    with VirtualBoard(directory) as board:
        run("mpremote", "connect", board.port, "cp", "main.py", ":")
        board.hard_reset()
        board.wait_output("hello from main.py")

`rom.py` runs in it; this side plays USB and power. The flash is a file, so that it outlives
resets, power cuts and this object. A ctrl-C on the line becomes SIGINT while the board has its
interrupt character set, and an octet like any other while it has not. What nobody reads from
the line is lost, as on a board; `output` has all of it.
"""

import contextlib
import json
import os
import pathlib
import re
import select
import signal
import subprocess
import threading
import time
import tty

from tools.dev.lab import PATIENCE, LabError, _die_with_parent, wait_until
from tools.dev.setup.interpreter import require_micropython

_ROM = pathlib.Path(__file__).with_name("rom.py")
_PATIENCE = 1.0  # seconds that a full line is waited for before its reader counts as gone
_POWER_ON, _SOFT, _DEEP_SLEEP, _BITTEN = 1, 5, 4, 3  # machine.reset_cause()


class VirtualBoard:
    """See the module's docstring.

    `namespace` (of tools/dev/lab) and `address` are its network; `pretend` changes
    sys.implementation ({"version": [1, 19, 0], "_machine": ..}) and sys.platform.
    `cut_after(n)`, before `plug`, cuts the power in the middle of the n-th write to flash.
    With `usb` the port is the chip's own: a reset takes it away for a moment, and what the board
    says before somebody opens it again is lost. Without, it is a UART bridge's, which stays.
    """

    def __init__(
        self,
        directory,
        namespace=None,
        address=None,
        blocks=512,
        heap="1m",
        pretend=None,
        unique_id="e66038b713952a30",
        usb=False,
    ):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.flash = self.directory / "flash"
        if not self.flash.exists():
            with open(self.flash, "wb") as file:
                for _ in range(blocks):
                    file.write(b"\xff" * 4096)
        self._usb = usb
        self._namespace = namespace
        self._heap = heap
        self._micropython = require_micropython()
        self._config = {
            "flash": str(self.flash),
            "blocks": self.flash.stat().st_size // 4096,
            "address": address,
            "pretend": pretend,
            "unique_id": unique_id,
            "cut": 0,
        }
        self._lock = threading.Condition()
        self._console = bytearray()
        self.resets = []  # "hard", "soft", "sleep", "watchdog", in order
        self._dog = 0  # milliseconds of a watchdog that was started
        self._bites_at = 0.0
        self.asleep = False
        self.received = 0  # octets that came over the line
        self._unplug_at = None
        self._thread = None
        self._powered = False
        self.port = None

    def __enter__(self):
        self.plug()
        return self

    def __exit__(self, *_):
        self.unplug()

    def stop(self):
        """So that a `Lab` can own a board."""
        self.unplug()

    # Power and USB.

    def plug(self):
        """Give it power and a serial port of its own, whose path is `port`."""
        self.unplug()
        self._open_line()
        self._waker, self._wake = os.pipe()
        self._powered = True
        self._dog = 0
        self._spawn("friendly", _POWER_ON)
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def _open_line(self):
        self._master, self._slave = os.openpty()
        # Kept open: what a terminal does for its last reader's leaving is nothing a board does.
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)
        if self._usb:
            link = self.directory / "ttyACM0"
            link.unlink(missing_ok=True)
            link.symlink_to(self.port)
            self.port = str(link)

    def _reenumerate(self):
        """A USB board's reset: the port vanishes, and comes back as another terminal."""
        os.close(self._master)
        os.close(self._slave)
        (self.directory / "ttyACM0").unlink()
        time.sleep(0.5)
        self._open_line()

    def unplug(self):
        """Take power and port away in one moment."""
        if not self._thread:
            return
        self._powered = False
        os.write(self._wake, b"x")
        self._thread.join()
        self._thread = None
        os.close(self._waker)
        os.close(self._wake)

    def unplug_after(self, octets):
        """Pull the cable when so many more octets have come over it."""
        self._unplug_at = self.received + octets

    def cut_after(self, writes):
        """Cut the power in the middle of the n-th write to flash after the next power-up."""
        self._config["cut"] = writes

    def hard_reset(self):
        """Press the reset button."""
        before = len(self.resets)
        os.write(self._wake, b"r")
        wait_until(lambda: len(self.resets) > before, 10, "the board's reset")

    @property
    def plugged(self):
        return self._powered

    @property
    def watchdog(self):
        """Milliseconds after which its watchdog bites, 0 while none runs."""
        return self._dog

    # What it says.

    @property
    def output(self):
        """Everything that it ever wrote to its line."""
        with self._lock:
            return self._console.decode(errors="replace")

    def wait_output(self, pattern, timeout=20, start=0):
        """Return the first match of a regular expression in `output[start:]`."""
        end = time.monotonic() + timeout * PATIENCE
        with self._lock:
            while True:
                text = self._console.decode(errors="replace")[start:]
                found = re.search(pattern, text)
                if found:
                    return found
                left = end - time.monotonic()
                if left <= 0:
                    raise LabError(f"the board did not say {pattern!r}:\n{text[-3000:]}")
                self._lock.wait(left)

    def events(self, name=None, start=0):
        """The JSON lines among its output, of one event or all."""
        found = []
        for line in self.output[start:].splitlines():
            # A reset may leave half a line before it.
            with contextlib.suppress(ValueError):
                event = json.loads(line[line.index('{"') :])
                if name in (None, event.get("event")):
                    found.append(event)
        return found

    def wait_event(self, name, timeout=20, count=1, start=0):
        """Wait for the `count`-th JSON line of that name; return it."""

        def found():
            events = self.events(name, start)
            return events[count - 1] if len(events) >= count else None

        try:
            return wait_until(found, timeout, f"{name} from the board")
        except LabError as problem:
            raise LabError(f"{problem}\n{self.output[start:][-3000:]}") from None

    # The wires.

    def _spawn(self, mode, cause):
        self._status, status = os.pipe()
        config = {**self._config, "mode": mode, "cause": cause, "status": status}
        path = self.directory / "board.json"
        path.write_text(json.dumps(config))
        command = [self._micropython, "-X", f"heapsize={self._heap}", str(_ROM), str(path)]
        if self._namespace:
            command = self._namespace.command(*command)
        environment = {k: v for k, v in os.environ.items() if k != "MICROPYPATH"}
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            pass_fds=[status],
            env=environment,
            preexec_fn=_die_with_parent,
        )
        os.close(status)
        self._ready = self._interrupt = False
        self._said = b""

    def _halt(self):
        """End this power-up, as pulling a plug does; then forward what was still on the line."""
        self._child.kill()
        self._child.wait()
        os.set_blocking(self._child.stdout.fileno(), False)
        with contextlib.suppress(OSError):
            self._show(os.read(self._child.stdout.fileno(), 1 << 16))
        self._child.stdin.close()
        self._child.stdout.close()
        os.close(self._status)

    def _restart(self, kind, mode, cause):
        self._halt()
        if kind == "soft":
            self._show(b"MPY: soft reboot\r\n")
        elif self._usb:
            self._reenumerate()
        else:
            self._dog = 0
        self._spawn(mode, cause)
        with self._lock:
            self.resets.append(kind)

    def _relay(self):
        try:
            while self._powered:
                self._turn()
        finally:
            self._powered = False
            self._halt()
            os.close(self._master)
            os.close(self._slave)
            with self._lock:
                self._lock.notify_all()

    def _turn(self):
        sources = [self._waker, self._status, self._child.stdout.fileno()]
        sources += [self._master] if self._ready else []
        left = max(self._bites_at - time.monotonic(), 0) if self._dog else None
        readable, _, _ = select.select(sources, [], [], left)
        if not readable:
            self._restart("watchdog", "friendly", _BITTEN)
            return
        if self._waker in readable and os.read(self._waker, 1) == b"r":
            self._restart("hard", "friendly", _POWER_ON)
            return
        if self._status in readable and not self._obey(os.read(self._status, 4096)):
            return
        if self._child.stdout.fileno() in readable:
            self._show(os.read(self._child.stdout.fileno(), 4096))
        if self._master in readable:
            self._type(os.read(self._master, 4096))

    def _obey(self, octets):
        """What the board's process tells; False when it lives no more."""
        if not octets:  # its process ended, which a board's never does
            self._show(b"\r\n*** the board's process ended ***\r\n")
            self._restart("hard", "friendly", _POWER_ON)
            return False
        *lines, self._said = (self._said + octets).split(b"\n")
        for line in lines:
            words = line.decode().split()
            if words == ["ready"]:
                self._ready = True
            elif words[0] in "+-":
                self._interrupt = words[0] == "+"
            elif words[0] in ("dog", "fed"):
                self._dog = int(words[1]) if words[0] == "dog" else self._dog
                self._bites_at = time.monotonic() + self._dog / 1000
            elif words[0] == "left":
                self._config["cut"] = int(words[1])
            else:
                if words[:2] == ["reset", "soft"]:
                    self._restart("soft", words[2] if len(words) > 2 else "friendly", _SOFT)
                elif words[0] == "sleep":
                    self._halt_and_sleep(int(words[1]))
                elif words[0] == "cut":
                    self._powered = False
                else:
                    self._restart("hard", "friendly", _POWER_ON)
                return False
        return True

    def _halt_and_sleep(self, ms):
        end = time.monotonic() + ms / 1000
        self.asleep = True
        while self._powered and time.monotonic() < end:
            select.select([self._waker], [], [], max(0, min(0.1, end - time.monotonic())))
        self.asleep = False
        with contextlib.suppress(BlockingIOError):
            os.read(self._master, 65536)  # nobody was there for it
        if self._powered:
            self._restart("sleep", "friendly", _DEEP_SLEEP)

    def _show(self, octets):
        """Octets of the board's: into the record and, if someone listens, onto the line."""
        if not octets:
            return
        with self._lock:
            self._console += octets
            self._lock.notify_all()
        if self._usb and not self._opened():
            return
        patience = _PATIENCE if self._listened() else 0
        while octets:
            try:
                octets = octets[os.write(self._master, octets) :]
            except BlockingIOError:
                if not select.select([], [self._master], [], patience)[1]:
                    return
            except OSError:
                return

    def _opened(self):
        """Has somebody but us the port open? A USB board's words are lost while nobody has."""
        name = os.ttyname(self._slave)
        for link in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if os.readlink(link) == name and link.parts[2:] != (
                    str(os.getpid()), "fd", str(self._slave)
                ):  # fmt: skip
                    return True
        return False

    def _listened(self):
        """Does the line still have room? A reader that stopped reading must not stop a board."""
        return bool(select.select([], [self._master], [], 0)[1])

    def _type(self, octets):
        """Octets from the PC."""
        self.received += len(octets)
        if self._unplug_at is not None and self.received >= self._unplug_at:
            self._unplug_at = None
            self._powered = False
            return
        for part in re.split(b"(\x03)", octets):
            if part == b"\x03" and self._interruptible():
                os.kill(self._child.pid, signal.SIGINT)
                # A second one before the first was seen would end the process.
                time.sleep(0.02)
            elif part:
                with contextlib.suppress(OSError):
                    os.write(self._child.stdin.fileno(), part)

    def _interruptible(self):
        """Is ctrl-C an interrupt now? Not at a prompt, nor after a program's kbd_intr(-1)."""
        if not self._interrupt:
            return False
        try:
            status = pathlib.Path(f"/proc/{self._child.pid}/status").read_text()
        except OSError:
            return False
        caught = re.search(r"SigCgt:\s*(\w+)", status)
        return bool(caught and int(caught[1], 16) & 1 << signal.SIGINT - 1)
