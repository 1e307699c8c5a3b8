"""A board on a serial port, through mpremote.

mpremote does the talking (raw REPL, raw paste, files); this side adds what a long job needs:
one `Problem` for each way in which it can end, and functions that run on the board.
"""

import ast
import contextlib
import errno
import grp
import hashlib
import io
import os
import pwd
import signal
import threading
import time
from typing import Any

from ..common.options import MODULE
from ..common.problem import Interrupted, Problem

# Architectures by their number in sys.implementation._mpy.
ARCHITECTURES = (
    "",
    "x86",
    "x64",
    "armv6",
    "armv6m",
    "armv7m",
    "armv7em",
    "armv7emsp",
    "armv7emdp",
    "xtensa",
    "xtensawin",
    "rv32imc",
    "rv64imc",
)
_SILENCE = 5  # seconds without an octet after which a read gives up
_CHUNK = 512
_ATTEMPTS = (2, 4, 8)  # seconds that a board has to come to its raw prompt
_SHORT_ATTEMPT = 1  # the same for one that is awake for a moment now and then
_AT_WORK_MS = 600000  # a watchdog's time while somebody works on the board
_LIMIT = 600  # seconds that all the work of one connection may take
_LAST_WORD = 4  # seconds for a board to come to its prompt, when all that is left is its restart
_RESET = "import time, machine\ntime.sleep_ms(20)\nmachine.reset()\n"

# Runs on the board first in each connection. A watchdog that its program started counts on over
# soft resets and would end the work in the middle. On an RP2040 or RP2350 the alias that clears bits
# of the register WATCHDOG CTRL, bit ENABLE, stops it; elsewhere it can be given more time.
_CALM = f"""
def _calm():
    import sys, machine, json
    if sys.platform == "rp2":
        chip = sys.implementation._machine
        machine.mem32[0x400DB000 if "RP235" in chip else 0x4005B000] = 1 << 30
        return
    with open("profile.json") as f:
        if json.load(f).get("watchdog_ms"):
            machine.WDT(timeout={_AT_WORK_MS})
try:
    _calm()
except Exception:
    pass
"""

# Runs on the board once a connection; prints a dict.
_FACTS = """
import sys, os
def _facts():
    i = sys.implementation
    found = {"version": tuple(i.version[:3]), "machine": getattr(i, "_machine", ""),
             "mpy": getattr(i, "_mpy", 0), "platform": sys.platform, "lacks": []}
    for name in ("asyncio", "cryptolib", "hashlib", "socket", "json", "select"):
        try:
            __import__(name)
        except ImportError:
            found["lacks"].append(name)
    try:
        import machine
        found["chip"] = machine.unique_id().hex()
    except Exception:
        found["chip"] = ""
    v = os.statvfs("/")
    found["free"] = v[0] * v[3]
    found["block"] = v[0]
    print(repr(found))
_facts()
"""

# Hashes of files, None for those that are not there.
_HASHES = """
import hashlib
def _hash(path):
    try:
        f = open(path, "rb")
    except OSError:
        return None
    h = hashlib.sha256()
    b = bytearray(512)
    m = memoryview(b)
    while True:
        n = f.readinto(b)
        if not n:
            break
        h.update(m[:n])
    f.close()
    return h.digest().hex()
"""


class WentAway(Problem):
    """The connection broke in the middle of the work."""


class Refused(Problem):
    """Code on the board raised an exception: `kind` is its last line, `place` the one in a file."""

    def __init__(self, text, kind, place=""):
        super().__init__(text)
        self.kind = kind
        self.place = place


def _refused(traceback, kind=None):
    """A traceback of the board's as `Refused`."""
    lines = [line.strip() for line in traceback.strip().splitlines()] or ["no error text"]
    places = [line for line in lines if line.startswith("File ") and "<stdin>" not in line]
    kind = kind or lines[-1]
    place = f" ({places[-1]})" if places else ""
    return Refused(f"the board says: {kind}{place}", kind, place)


def _value(text):
    try:
        return ast.literal_eval(text.strip())
    except SyntaxError:
        raise ValueError("half an answer") from None


def ports():
    """The serial ports that look like boards."""
    from serial.tools import list_ports

    return sorted(p.device for p in list_ports.comports() if p.vid is not None)


def choose_port(port, wait=0.0):
    """The port that was named, or the only one there is; it has `wait` seconds to appear."""
    if port:
        return port
    end = time.monotonic() + wait
    while not (found := ports()) and time.monotonic() < end:
        time.sleep(0.1)
    if len(found) == 1:
        return found[0]
    if not found:
        raise Problem(
            "no board found", "plug one in with a data cable, or name its port: --port PORT"
        )
    raise Problem(f"{len(found)} boards found", f"name one: --port {' or '.join(found)}")


def port_problem(port, number):
    """Why a port cannot be opened, as a `Problem`; `number` is the errno."""
    why, fix = f"cannot open {port}: {os.strerror(number).lower()}", None
    if number in (errno.EACCES, errno.EPERM):
        fix = _who_may_open(port)
    elif number in (errno.EBUSY, errno.EAGAIN):
        why = f"cannot open {port}: another program has it"
        fix = "close that (a terminal, an IDE, ModemManager) and run this again"
    elif number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        fix = f"is the board plugged in? ports here: {', '.join(ports()) or 'none'}"
    elif number in (errno.ENOTTY, errno.EINVAL, errno.EISDIR):
        why = f"cannot open {port}: it is no serial port"
        fix = f"ports here: {', '.join(ports()) or 'none'}"
    else:
        fix = "plug the board in again"
    return Problem(why, fix)


def _who_may_open(port):
    """What to do about a port that is not open to this user: on Linux a group has it."""
    try:
        group = grp.getgrgid(os.stat(port).st_gid)
        user = pwd.getpwuid(os.getuid()).pw_name
    except (OSError, KeyError):
        return "ask the owner of this machine for it"
    if group.gr_gid == 0:
        return f"only root may: sudo, or a udev rule that gives {port} to the group dialout"
    if user in group.gr_mem:
        return f"{user} is in the group {group.gr_name}, but logged in before that: log in anew"
    return f"sudo usermod -aG {group.gr_name} {user}, then log in anew"


@contextlib.contextmanager
def uninterrupted():
    """Have a Ctrl-C wait for the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


class Board:
    """A connection, to be used in a `with` block. The board's program is stopped by it.

    With `wait`, seconds, a board that sleeps is asked over and over until it is awake. However the
    block ends before `reset`, but for its natural end, the board is restarted, so that its program
    goes on; Ctrl-C becomes `Interrupted`. `limit`: seconds for the whole connection.
    """

    def __init__(self, port, wait=0.0, limit=_LIMIT):
        self.port = port
        self._wait = wait
        self._limit = limit
        self._transport: Any = None
        self.facts: Any = None

    def __enter__(self):
        end = time.monotonic() + self._wait
        while True:
            try:
                self._connect()
                return self
            except Problem:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.1)

    def _connect(self):
        from .line import Line

        try:
            self._transport = Line(self.port, _SILENCE, self._limit)
        except OSError as error:
            raise port_problem(self.port, error.errno) from None
        try:
            with self._errors():
                self.stop_program((_SHORT_ATTEMPT,) if self._wait else _ATTEMPTS)
                self.run(_CALM)
                self.facts = self.evaluate(_FACTS)
        except BaseException as error:
            self._leave(error)
            raise

    def __exit__(self, kind, error, _):
        if not self._transport:
            return
        if error:
            self._leave(error)
            return
        with contextlib.suppress(Exception):
            if self._transport.in_raw_repl:
                self._transport.exit_raw_repl()
        self._close()

    def _leave(self, error):
        """Restart the board, whose program was stopped, and close the line."""
        try:
            with uninterrupted():
                going = self._restart_at_last()
        except KeyboardInterrupt:  # once more, while the first one was being obeyed
            going = True
        finally:
            self._close()
        if isinstance(error, KeyboardInterrupt):
            left = "was restarted" if going else "may stand still: press its reset button"
            raise Interrupted(f"interrupted; the board at {self.port} {left}") from None

    def _restart_at_last(self):
        """Restart the board whatever state the line is in; False when it does not answer."""
        line = self._transport
        if not line:
            return True
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                line.grace(_LAST_WORD)
                if not line.stopped:
                    return True
                line.enter_raw_repl(soft_reset=False, timeout_overall=_LAST_WORD)
                line.exec_raw_no_follow(_RESET)
                time.sleep(0.3)
            return True
        except Exception:
            return False

    def _close(self):
        with contextlib.suppress(Exception):
            self._transport.close()
        self._transport = None

    @contextlib.contextmanager
    def _errors(self):
        import serial
        from mpremote.transport import TransportError, TransportExecError

        from .line import BootLoops, Endless, Overdue, Restarted

        again = "run the same command again: it goes on where it stopped"
        try:
            # mpremote prints what it could not understand; who called us need not see it.
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except TransportExecError as error:
            raise _refused(error.error_output) from None
        except Endless as error:
            # It was interrupted, and the board is at its prompt.
            raise _refused(
                (error.error or b"").decode(errors="replace"), "it does not end"
            ) from None
        except BootLoops as error:
            more = "" if error.stopped else ", nor does it let itself be interrupted"
            raise Problem(
                f"boot.py on the board does not end{more}: nothing after it ever runs",
                f"mend it, or remove it: mpremote connect {self.port} resume rm :boot.py"
                if error.stopped
                else f"flash MicroPython anew, which erases it: {MODULE} flash --help",
            ) from None
        except Restarted:
            raise WentAway(
                f"the board at {self.port} restarted in the middle of the work",
                f"its power, or a watchdog of its program; {again}",
            ) from None
        except Overdue:
            raise WentAway(
                f"the board at {self.port} kept this waiting for {self._limit:g} s", again
            ) from None
        except (TransportError, serial.SerialException, OSError, IndexError, ValueError) as error:
            if isinstance(error, OSError) and not os.path.exists(self.port):
                raise WentAway(
                    f"the board at {self.port} was unplugged", f"plug it in again and {again}"
                ) from None
            raise WentAway(
                f"the board at {self.port} does not answer ({_short(error)})",
                f"plug it in again and {again}",
            ) from None
        except Exception as error:
            # termios.error is no OSError; struct.error comes of half an answer.
            if type(error).__name__ != "error":
                raise
            raise WentAway(
                f"the board at {self.port} was unplugged", f"plug it in again and {again}"
            ) from None

    def stop_program(self, attempts=_ATTEMPTS):
        """Interrupt whatever runs and start afresh, with an empty heap, without main.py.

        A board that is just starting, or is in the middle of a long calculation, misses what is
        sent to it: so it is asked again.
        """
        from mpremote.transport import TransportError

        from .line import BootLoops, Overdue

        for seconds in attempts:
            try:
                self._transport.enter_raw_repl(soft_reset=True, timeout_overall=seconds)
                return
            except (BootLoops, Overdue):
                raise
            except TransportError:
                if seconds == attempts[-1]:
                    raise

    def restart(self):
        """As `stop_program`, in the middle of a connection."""
        with self._errors():
            self.stop_program()

    def run(self, code, timeout=20, theirs=False):
        """Run code on the board; return what it printed. `timeout`: seconds that it has.

        With `theirs` a program of its owner runs in it, and may print what it likes.
        """
        with self._errors():
            self._transport.theirs = theirs
            output, error = self._transport.exec_raw(code, timeout=timeout)
            if error:
                from mpremote.transport import TransportExecError

                raise TransportExecError(output, error.decode(errors="replace"))
            return output.decode(errors="replace")

    def evaluate(self, code, timeout=20):
        """Run code that prints one Python value; return it."""
        with self._errors():
            return _value(self.run(code, timeout))

    def hashes(self, paths):
        """{path: SHA-256 in hexadecimal, or None} of files on the board, computed there."""
        self.run(_HASHES)
        found = {}
        paths = list(paths)
        for at in range(0, len(paths), 8):
            part = paths[at : at + 8]
            found.update(self.evaluate(f"print({{p: _hash(p) for p in {part!r}}})", timeout=60))
        return found

    def write(self, path, octets, progress=None):
        """Write a file; what it holds goes over the line and nowhere else."""
        with self._errors():
            self._transport.fs_writefile(
                path, octets, chunk_size=_CHUNK, progress_callback=progress
            )

    def read(self, path):
        """Return a file's octets, or None where there is none."""
        if self.hashes([path])[path] is None:
            return None
        with self._errors():
            return bytes(self._transport.fs_readfile(path))

    def make_directories(self, paths):
        """Make directories, parents first, where they are missing."""
        self.run(
            "import os\n"
            f"for p in {sorted(paths)!r}:\n"
            " try:\n  os.mkdir(p)\n"
            " except OSError as e:\n"
            "  if e.errno != 17:\n   raise\n"
        )

    def reset(self):
        """Restart the board as power-up does; the connection ends with it."""
        with self._errors():
            self._send_reset()
            time.sleep(0.3)
            self._transport.in_raw_repl = self._transport.stopped = False

    def start(self):
        """Restart the board as power-up does; return the `Console` on which it then speaks.

        Nothing that it says from its first moment on is missed where its port stays.
        """
        from .watch import Console

        with self._errors():
            self._send_reset()
        line, self._transport = self._transport.serial, None
        return Console(self.port, line)

    def _send_reset(self):
        """Have the board restart; where USB goes away before we heard that it will, it did."""
        import termios

        with contextlib.suppress(OSError, termios.error):
            self._transport.exec_raw_no_follow(_RESET)

    # What a board is.

    @property
    def architecture(self):
        """The architecture that native code must be compiled for, "" where it has none we know."""
        number = self.facts["mpy"] >> 10 & 0x3F  # flags of the architecture are above
        return ARCHITECTURES[number] if number < len(ARCHITECTURES) else ""


def sha256(octets):
    return hashlib.sha256(octets).hexdigest()


def _short(error):
    text = str(error) or type(error).__name__
    return text if len(text) < 100 else text[:97] + "..."
