"""A board on a serial port, through mpremote.

mpremote does the talking (raw REPL, raw paste, files); this side adds what a long job needs:
one `Problem` for each way in which it can end, and functions that run on the board.
"""

import ast
import contextlib
import hashlib
import io
import time
from typing import Any

from .problem import Problem

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
    """Code on the board raised an exception: `kind` is its last line."""

    def __init__(self, text, kind):
        super().__init__(text)
        self.kind = kind


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


class Board:
    """A connection, to be used in a `with` block. The board's program is stopped by it.

    With `wait`, seconds, a board that sleeps is asked over and over until it is awake. Where the
    block ends by a `Problem` the board is restarted, so that its program goes on.
    """

    def __init__(self, port, wait=0.0):
        self.port = port
        self._wait = wait
        self._transport = None
        self.facts = None

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
        from mpremote.transport import TransportError
        from mpremote.transport_serial import SerialTransport

        try:
            self._transport = SerialTransport(self.port, timeout=_SILENCE)
        except TransportError:
            raise Problem(f"cannot open {self.port}", self._why_not_opened()) from None
        try:
            with self._errors():
                if self._wait:
                    line: Any = self._transport.serial
                    line.timeout = _SHORT_ATTEMPT
                    self.stop_program((_SHORT_ATTEMPT,))
                    line.timeout = _SILENCE
                else:
                    self.stop_program()
                self.run(_CALM)
                self.facts = self.evaluate(_FACTS)
        except BaseException:
            self._close()
            raise

    def __exit__(self, kind, *_):
        if self._transport:
            with contextlib.suppress(Exception):
                if self._transport.in_raw_repl and kind is None:
                    self._transport.exit_raw_repl()
                elif kind and issubclass(kind, Problem) and not issubclass(kind, WentAway):
                    self.reset()
            self._close()

    def _close(self):
        with contextlib.suppress(Exception):
            self._transport.close()
        self._transport = None

    def _why_not_opened(self):
        import pathlib

        if not pathlib.Path(self.port).exists():
            return f"is the board plugged in? ports here: {', '.join(ports()) or 'none'}"
        return "another program has it (a terminal, an IDE): close that and run this again"

    @contextlib.contextmanager
    def _errors(self):
        import serial
        from mpremote.transport import TransportError, TransportExecError

        try:
            # mpremote prints what it could not understand; who called us need not see it.
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except TransportExecError as error:
            lines = error.error_output.strip().splitlines() or ["no error text"]
            raise Refused(f"the board says: {lines[-1]}", lines[-1]) from None
        except (TransportError, serial.SerialException, OSError, IndexError, ValueError) as error:
            raise WentAway(
                f"the board at {self.port} does not answer ({_short(error)})",
                "plug it in again and run the same command: it goes on where it stopped",
            ) from None
        except Exception as error:
            # termios.error is no OSError; struct.error comes of half an answer.
            if type(error).__name__ != "error":
                raise
            raise WentAway(
                f"the board at {self.port} went away",
                "plug it in again and run the same command: it goes on where it stopped",
            ) from None

    def stop_program(self, attempts=_ATTEMPTS):
        """Interrupt whatever runs and start afresh, with an empty heap, without main.py.

        A board that is just starting, or is in the middle of a long calculation, misses what is
        sent to it: so it is asked again.
        """
        from mpremote.transport import TransportError

        for seconds in attempts:
            try:
                self._transport.enter_raw_repl(soft_reset=True, timeout_overall=seconds)
                return
            except TransportError:
                if seconds == attempts[-1]:
                    raise

    def restart(self):
        """As `stop_program`, in the middle of a connection."""
        with self._errors():
            self.stop_program()

    def run(self, code, timeout=20):
        """Run code on the board; return what it printed. `timeout`: seconds of silence."""
        with self._errors():
            output, error = self._transport.exec_raw(code, timeout=timeout)
            if error:
                from mpremote.transport import TransportExecError

                raise TransportExecError(output, error.decode(errors="replace"))
            return output.decode(errors="replace")

    def evaluate(self, code, timeout=20):
        """Run code that prints one Python value; return it."""
        with self._errors():
            return ast.literal_eval(self.run(code, timeout).strip())

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
            self._transport.exec_raw_no_follow(
                "import time, machine\ntime.sleep_ms(20)\nmachine.reset()\n"
            )
            time.sleep(0.3)
            self._transport.in_raw_repl = False

    # What a board is.

    @property
    def architecture(self):
        """The architecture that native code must be compiled for, "" where it has none we know."""
        number = self.facts["mpy"] >> 10 & 0x3F  # flags of the architecture are above
        return ARCHITECTURES[number] if number < len(ARCHITECTURES) else ""

    def listen(self, seconds, until=None, out=None):
        """Return the lines that the board prints in so many seconds, or `until(line)` holds."""
        return _listen(self._transport.serial, seconds, until, out)


def sha256(octets):
    return hashlib.sha256(octets).hexdigest()


def _short(error):
    text = str(error) or type(error).__name__
    return text if len(text) < 100 else text[:97] + "..."


@contextlib.contextmanager
def quiet_line(port):
    """Open a serial port without a word to the board, so that its program runs on."""
    import serial

    try:
        line = serial.serial_for_url(port, baudrate=115200, timeout=0.1, exclusive=True)
    except (serial.SerialException, OSError):
        raise Problem(f"cannot open {port}", Board(port)._why_not_opened()) from None
    try:
        yield line
    finally:
        with contextlib.suppress(Exception):
            line.close()


def listen(line, seconds, until=None, out=None):
    """Collect lines from an open serial port; see Board.listen."""
    return _listen(line, seconds, until, out)


def _listen(line, seconds, until, out):
    import serial

    lines, rest = [], b""
    end = time.monotonic() + seconds
    line.timeout = 0.1
    while time.monotonic() < end:
        try:
            rest += line.read(max(1, line.in_waiting))
        except (serial.SerialException, OSError):
            raise WentAway("the board went away", "plug it in and run this again") from None
        *whole, rest = rest.split(b"\n")
        for octets in whole:
            text = octets.decode(errors="replace").rstrip("\r")
            lines.append(text)
            if out:
                out(text)
            if until and until(text):
                return lines
    return lines
