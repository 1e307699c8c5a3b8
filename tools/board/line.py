"""A board's serial line: mpremote's transport, with an end to every wait.

mpremote waits for silence. A program that prints has none, and where a board restarts under us while
its serial port stays, as behind a UART bridge, its program prints for ever: so here each wait has a
time of its own, the whole connection has one, and a board that restarts is noticed by its banner.
"""

import errno
import os
import re
import time

import serial
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport

_WRITE = 10  # seconds for the line to take what is sent
_BOOT = 30  # seconds that a boot.py has
_LAST = 3  # seconds for code to end that was interrupted
_RAW = b"raw REPL; CTRL-B to exit\r\n"
# What begins a line when a board starts: MicroPython, the ROMs of Espressif.
_STARTS = re.compile(
    rb"(?:^|\n)(?:MPY: soft reboot|MicroPython v\d|rst:0x|ESP-ROM:|ets [A-Z][a-z])"
)
# What begins a line of our own program, a moment later; a dict of MicroPython's has no order.
_SPEAKS = re.compile(
    rb'(?:^|\n)(?:\{"[^\n]*"?event": ?"|(?:state|agreed|up|resumed|sent|error|stats) \w+=)'
)


class Restarted(TransportError):
    """The board restarted while it worked for us."""


class Overdue(TransportError):
    """All of the connection's time is over."""


class Endless(TransportError):
    """Code of ours had its time; `error` is the traceback of where it was interrupted."""

    def __init__(self, error):
        super().__init__("what runs on it does not end")
        self.error = error


class BootLoops(TransportError):
    """boot.py does not end; `stopped` when a Ctrl-C did end it."""

    def __init__(self, stopped):
        super().__init__("boot.py does not end")
        self.stopped = stopped


def open_serial(port, timeout):
    """Open a serial port for us alone, without a word to the board; OSError with an errno."""
    try:
        return serial.serial_for_url(
            port, baudrate=115200, timeout=timeout, write_timeout=_WRITE, exclusive=True
        )
    except serial.SerialException as error:
        # pyserial gives a text where it found the port to be none.
        raise OSError(
            error.errno or errno.ENOTTY, os.strerror(error.errno or errno.ENOTTY)
        ) from None


class Line(SerialTransport):
    """See the module's docstring. `limit`: seconds for the whole connection."""

    def __init__(self, port, timeout, limit):
        # Not mpremote's own, which keeps to itself why a port cannot be opened.
        self.serial = open_serial(port, timeout)
        self.device_name = port
        self.in_raw_repl = self.mounted = self.is_pty = False
        self.stopped = False  # was the board taken from its program?
        self.use_raw_paste = True
        self.theirs = False  # does a program of the board's owner run in what we have it do?
        self._deadline = time.monotonic() + limit

    def grace(self, seconds):
        """Give the connection so many seconds from now on."""
        self._deadline = time.monotonic() + seconds

    def read_until(
        self, min_num_bytes, ending, timeout=10, data_consumer=None, timeout_overall=None
    ):
        """Read up to `ending`; at most `timeout_overall` seconds, or twice a silence's."""
        data = bytearray()
        began = heard = time.monotonic()
        overall = timeout_overall or 2 * timeout
        while not data.endswith(ending):
            now = time.monotonic()
            if now >= self._deadline:
                raise Overdue("all of its time is over")
            if self.serial.in_waiting:
                data += self.serial.read(1)
                heard = now
            elif now >= heard + timeout:
                break
            else:
                time.sleep(0.002)
            if now >= began + overall:
                break
        if data_consumer:
            data_consumer(bytes(data))
        return bytes(data)

    def follow(self, timeout, data_consumer=None):
        """Return (output, error) of code that runs; it has `timeout` seconds in all."""
        end = time.monotonic() + timeout
        output = self._part(end)
        if output is None:
            self.serial.write(b"\x03")
            last = time.monotonic() + _LAST
            if self._part(last) is not None:
                raise Endless(self._part(last))
            # It printed more than can be read in that time: what matters is the prompt.
            self.enter_raw_repl(soft_reset=False, timeout_overall=_LAST)
            raise Endless(b"")
        error = self._part(time.monotonic() + timeout)
        if error is None:
            raise TransportError("its answer has no end")
        if data_consumer:
            data_consumer(output)
        return output, error

    def _part(self, end):
        """Read up to the octet 4 that ends a part of an answer; None when time is over."""
        data = bytearray()
        while True:
            new = self.read_until(1, b"\x04", timeout=0.2, timeout_overall=0.5)
            data += new
            if new and (_STARTS.search(data) or not self.theirs and _SPEAKS.search(data)):
                raise Restarted("it restarted in the middle of the work")
            if new.endswith(b"\x04"):
                return bytes(data[:-1])
            if time.monotonic() > end:
                return None

    def enter_raw_repl(self, soft_reset=True, timeout_overall=10):
        """Interrupt whatever runs; with `soft_reset` start afresh, without main.py.

        `BootLoops` where boot.py keeps the board from its prompt.
        """
        self.in_raw_repl = False
        before, self.stopped = self.stopped, True
        self.serial.write(b"\r\x03")
        self.serial.reset_input_buffer()
        self.serial.write(b"\r\x01")
        try:
            self._expect(_RAW, timeout_overall)  # the > that follows is read by what comes next
        except TransportError:
            self.stopped = before
            raise
        if soft_reset:
            self._expect(b">", timeout_overall)
            self.serial.write(b"\x04")
            self._expect(b"soft reboot\r\n", timeout_overall)
            # Now boot.py runs, which may print, and wait for a network.
            said = self.read_until(1, _RAW, timeout=_BOOT, timeout_overall=_BOOT)
            if not said.endswith(_RAW):
                raise BootLoops(self._stop_boot())
        self.in_raw_repl = True

    def _expect(self, ending, seconds):
        said = self.read_until(1, ending, timeout=seconds, timeout_overall=seconds)
        if not said.endswith(ending):
            last = said.decode(errors="replace").split("\n")[-1].strip()[-60:]
            raise TransportError(f"no prompt; it says {last!r}" if last else "no prompt")

    def _stop_boot(self):
        try:
            self.enter_raw_repl(soft_reset=False, timeout_overall=3)
            return True
        except TransportError:
            return False
