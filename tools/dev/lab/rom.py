"""What is burnt into the virtual board: start-up, file system and REPL, as a board has them.

Runs on MicroPython's unix port, started by `virtual.py`, which plays the wires: standard input
and output are the serial line, a status pipe tells of resets, and a file stands for the flash.
After `_start` the only file system is littlefs in that flash; nothing of the PC is in sight.
"""

import json
import micropython
import os
import sys
import time
import vfs

_BLOCK = 4096
_WINDOW = 128  # octets of raw paste that the host may send before it hears from us

_CTRL_A, _CTRL_B, _CTRL_C, _CTRL_D, _CTRL_E = 1, 2, 3, 4, 5

_real_sys = sys


class Flash:
    """A block device over a file, written through: what a power cut leaves is what was written.

    With `cut` the power goes in the middle of the `cut`-th write.
    """

    def __init__(self, path, blocks, cut, power_cut):
        self._file = open(path, "r+b")
        self._blocks = blocks
        self.left = cut
        self._power_cut = power_cut

    def readblocks(self, number, buffer, offset=0):
        _unbroken(self._read, number * _BLOCK + offset, buffer)

    def writeblocks(self, number, buffer, offset=0):
        _unbroken(self._write, number * _BLOCK + offset, buffer)

    def _read(self, position, buffer):
        self._file.seek(position)
        self._file.readinto(buffer)

    def _write(self, position, buffer):
        self._file.seek(position)
        if self.left:
            self.left -= 1
            if not self.left:
                self._file.write(memoryview(buffer)[: len(buffer) // 2])
                self._power_cut()
        self._file.write(buffer)

    def ioctl(self, operation, _argument):
        return {4: self._blocks, 5: _BLOCK}.get(operation, 0)


def _unbroken(work, *arguments):
    """Do what a ctrl-C must not break in two, since on a board it is C; then have it again."""
    try:
        work(*arguments)
    except KeyboardInterrupt:
        work(*arguments)
        os.system("(sleep 0.02; kill -INT $PPID) &")


class Facade:
    """A built-in module with some of its names replaced."""

    def __init__(self, module, **names):
        self._module = module
        for name in names:
            setattr(self, name, names[name])

    def __getattr__(self, name):
        return getattr(self._module, name)


class Implementation:
    """sys.implementation of the board that this one pretends to be."""

    def __init__(self, **changed):
        for name in ("name", "version", "_machine", "_mpy", "_build"):
            setattr(self, name, changed.get(name, getattr(_real_sys.implementation, name, None)))

    def __getitem__(self, i):
        return (self.name, self.version, self._machine, self._mpy)[i]


class Interface:
    """network.WLAN, joined to whatever network the process runs in."""

    IF_STA, IF_AP, PM_NONE, PM_PERFORMANCE, PM_POWERSAVE = 0, 1, 0, 1, 2
    address = "0.0.0.0"
    joined = []  # what was asked for, for a test to see

    def __init__(self, number=0):
        self._active = self._connected = False

    def active(self, on=None):
        if on is not None:
            self._active = bool(on)
        return self._active

    def connect(self, ssid=None, key=None, **_):
        self.joined.append(ssid)
        self._connected = True

    def disconnect(self):
        self._connected = False

    def isconnected(self):
        return self._connected

    def status(self, what=None):
        return -50 if what == "rssi" else 3 if self._connected else 0

    def config(self, *names, **_):
        return None

    def ifconfig(self, addresses=None):
        return (self.address, "255.255.255.0", "0.0.0.0", "0.0.0.0")

    def ipconfig(self, *names, **_):
        return (self.address, "255.255.255.0") if "addr4" in names else None


class Watchdog:
    """machine.WDT: what bites is outside, and goes on over soft resets."""

    def __init__(self, tell, ms):
        self._tell = tell
        tell("dog %d\n" % ms)

    def feed(self):
        self._tell("fed\n")


class Registers:
    """machine.mem32, with one register of an RP2040: WATCHDOG CTRL, where bits are cleared."""

    def __init__(self, tell):
        self._tell = tell

    def __setitem__(self, address, value):
        if address == 0x4005B000 and value & 1 << 30:
            self._tell("dog 0\n")


class Board:
    """One power-up, until a reset: then the process is ended from outside and started anew."""

    def __init__(self, config):
        self._input = sys.stdin.buffer
        self._output = sys.stdout.buffer
        self._status = open("/proc/self/fd/%d" % config["status"], "wb")
        self._raw = config["mode"] == "raw"
        self._flash = Flash(config["flash"], config["blocks"], config["cut"], self._power_cut)
        self._names = {"__name__": "__main__"}
        machine = __import__("machine")
        facade = Facade(
            machine,
            reset=lambda: self._end("reset hard"),
            soft_reset=lambda: self._end("reset soft"),
            deepsleep=lambda ms=0: self._end("sleep %d" % ms),
            unique_id=lambda: bytes.fromhex(config["unique_id"]),
            freq=lambda *_: 125000000,
            reset_cause=lambda: config["cause"],
            WDT=lambda id=0, timeout=5000: Watchdog(self._status.write, timeout),
            mem32=Registers(self._status.write),
        )
        sys.modules["machine"] = facade
        if config["address"]:
            Interface.address = config["address"]
            names = {"WLAN": Interface, "STA_IF": 0, "AP_IF": 1, "hostname": lambda *_: "virtual"}
            sys.modules["network"] = Facade(None, **names)
        if config["pretend"]:
            pretend = dict(config["pretend"])
            platform = pretend.pop("platform", sys.platform)
            if "version" in pretend:
                pretend["version"] = tuple(pretend["version"])
            implementation = Implementation(**pretend)
            sys.modules["sys"] = Facade(sys, implementation=implementation, platform=platform)

    def _end(self, why):
        """Ask for what ends this power-up, and wait for it."""
        self._status.write("left %d\n%s\n" % (self._flash.left, why))
        while True:
            try:
                time.sleep(1)
            except KeyboardInterrupt:
                pass

    def _power_cut(self):
        self._end("cut")

    def start(self):
        """Mount the flash, run boot.py and main.py, then serve the REPL."""
        os.umount("/")
        try:
            os.mount(os.VfsLfs2(self._flash), "/")
        except OSError:
            os.VfsLfs2.mkfs(self._flash)
            os.mount(os.VfsLfs2(self._flash), "/")
        os.chdir("/")
        sys.argv.clear()
        sys.path[:] = ["", ".frozen", "/lib"]
        micropython.kbd_intr(_CTRL_C)
        self._interruptible(True)
        programs = ["boot.py"] if self._raw else ["boot.py", "main.py"]
        ready = False
        while True:
            # A ctrl-C that comes when no program runs ends here.
            try:
                if not ready:
                    ready = True
                    self._status.write("ready\n")
                if programs:
                    self._run_file(programs.pop(0))
                    continue
                self._interruptible(False)
                if self._raw:
                    self._raw_repl()
                else:
                    self._friendly_repl()
            except KeyboardInterrupt:
                pass

    def _interruptible(self, on):
        """Is ctrl-C an interrupt, or an octet like any other?"""
        self._status.write("+\n" if on else "-\n")

    def _run_file(self, name):
        try:
            with open(name) as f:
                source = f.read()
        except OSError:
            return
        self._run(source, name)

    def _run(self, source, name, end_of_output=b""):
        """Run code as the board's user; a traceback goes where the protocol wants it."""
        problem = None
        try:
            self._interruptible(True)
            exec(compile(source, name, "exec"), self._names)
            self._interruptible(False)
        except SystemExit:
            self._end("reset soft " + ("raw" if self._raw else "friendly"))
        except BaseException as e:
            problem = e
        # The program may have let go of its interrupt character.
        micropython.kbd_intr(_CTRL_C)
        self._interruptible(False)
        self._write(end_of_output)
        if problem:
            _real_sys.print_exception(problem)

    def _write(self, octets):
        if octets:
            self._output.write(octets)

    def _read(self):
        octet = self._input.read(1)
        if not octet:
            self._end("gone")
        return octet[0]

    def _soft_reset(self):
        self._end("reset soft " + ("raw" if self._raw else "friendly"))

    def _raw_repl(self):
        self._write(b"raw REPL; CTRL-B to exit\r\n>")
        line = bytearray()
        while True:
            octet = self._read()
            if octet == _CTRL_A:
                if line == b"\x05A":
                    self._raw_paste()
                    self._write(b">")
                else:
                    self._write(b"raw REPL; CTRL-B to exit\r\n>")
                line = bytearray()
            elif octet == _CTRL_B:
                self._raw = False
                self._write(b"\r\n")
                return
            elif octet == _CTRL_C:
                line = bytearray()
            elif octet == _CTRL_D:
                self._write(b"OK")
                if not line:
                    self._write(b"\r\n")
                    self._soft_reset()
                self._run_raw(line)
                self._write(b">")
                line = bytearray()
            else:
                line.append(octet)

    def _run_raw(self, source):
        self._run(bytes(source), "<stdin>", end_of_output=b"\x04")
        self._write(b"\x04")

    def _raw_paste(self):
        """Take code with flow control: a window at the start, octet 1 for each further one."""
        self._write(b"R\x01" + bytes((_WINDOW & 255, _WINDOW >> 8)))
        source = bytearray()
        room = _WINDOW
        while True:
            octet = self._read()
            if octet == _CTRL_C:
                self._write(b"\x04\x04\x04")  # no more is read, and nothing run
                return
            if octet == _CTRL_D:
                break
            source.append(octet)
            room -= 1
            if not room:
                room = _WINDOW
                self._write(b"\x01")
        self._write(b"\x04")
        self._run_raw(source)

    def _banner(self):
        version = ".".join([str(n) for n in sys.implementation.version[:3]])
        self._write(
            ("MicroPython v%s; %s\r\n" % (version, sys.implementation._machine)).encode()
            + b'Type "help()" for more information.\r\n>>> '
        )

    def _friendly_repl(self):
        self._banner()
        line = bytearray()
        while True:
            octet = self._read()
            if octet == _CTRL_A:
                self._raw = True
                self._write(b"\r\n")
                return
            if octet == _CTRL_B:
                self._write(b"\r\n")
                return
            if octet == _CTRL_C:
                line = bytearray()
                self._write(b"\r\n>>> ")
            elif octet == _CTRL_D and not line:
                self._write(b"\r\n")
                self._soft_reset()
            elif octet == _CTRL_E and not line:
                self._paste()
                self._write(b">>> ")
            elif octet == 13:
                self._write(b"\r\n")
                if line:
                    self._run_line(bytes(line))
                line = bytearray()
                self._write(b">>> ")
            elif octet >= 32:
                line.append(octet)
                self._write(bytes((octet,)))

    def _run_line(self, line):
        try:
            compile(line, "<stdin>", "eval")
        except SyntaxError:
            self._run(line, "<stdin>")
        else:
            self._names["_line"] = line
            self._run("_ = eval(_line)\nif _ is not None:\n    print(repr(_))", "<stdin>")

    def _paste(self):
        self._write(b"\r\npaste mode; Ctrl-C to cancel, Ctrl-D to finish\r\n=== ")
        source = bytearray()
        while True:
            octet = self._read()
            if octet == _CTRL_C:
                self._write(b"\r\n")
                return
            if octet == _CTRL_D:
                self._write(b"\r\n")
                self._run(bytes(source), "<stdin>")
                return
            source.append(10 if octet == 13 else octet)
            self._write(b"\r\n=== " if octet == 13 else bytes((octet,)))


def _start():
    with open(sys.argv[1]) as f:
        config = json.load(f)
    import gc

    board = Board(config)
    gc.collect()
    board.start()


_start()
