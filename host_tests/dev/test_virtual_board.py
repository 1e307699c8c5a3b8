"""The virtual board, as the real mpremote and a person at a terminal meet it."""

import hashlib
import os
import subprocess
import sys
import termios
import time

import pytest

from tools.dev.lab.virtual_board import VirtualBoard
from tools.dev.lab import wait_until


@pytest.fixture
def board(tmp_path):
    with VirtualBoard(tmp_path / "board") as board:
        yield board


def mpremote(board, *words, code=0):
    """Run the real mpremote, as a person does; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", board.port, *map(str, words)],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def test_mpremote_copies_hashes_lists_and_removes_files(board, tmp_path):
    octets = bytes(range(256)) * 20  # ctrl-A to ctrl-D among them
    (tmp_path / "data.bin").write_bytes(octets)
    said = mpremote(
        board,
        *("mkdir", ":d", "+", "cp", tmp_path / "data.bin", ":d/data.bin", "+"),
        *("sha256sum", "d/data.bin", "+", "ls", "d", "+", "df", "+"),
        *("cp", ":d/data.bin", tmp_path / "back.bin", "+", "rm", ":d/data.bin", "+", "ls", "d"),
    )
    assert hashlib.sha256(octets).hexdigest() in said
    assert said.count("data.bin\n") >= 2 and said.endswith("ls :d\n")
    assert (tmp_path / "back.bin").read_bytes() == octets


def test_mpremote_runs_a_script_and_passes_its_traceback_on(board, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("print('x' * 3000)\n" + "# padding\n" * 100 + "raise OSError(5)\n")
    said = mpremote(board, "run", script, code=1)
    assert "x" * 3000 in said
    assert "line 102" in said and "EIO" in said


def test_mpremote_mounts_a_directory_of_the_pc(board, tmp_path):
    (tmp_path / "there.py").write_text("print('from the PC')\n")
    assert "from the PC" in mpremote(board, "mount", tmp_path, "exec", "import there")


def test_names_outlive_a_command_but_not_a_soft_reset(board):
    said = mpremote(board, "exec", "a = 7", "exec", "print(a)", "soft-reset")
    assert "7" in said
    assert "NameError" in mpremote(board, "exec", "print(a)", code=1)


def test_main_runs_at_power_up_and_not_under_mpremote(board, tmp_path):
    (tmp_path / "main.py").write_text("import sys\nprint('main runs', sys.argv, sys.path[0])\n")
    mpremote(board, "cp", tmp_path / "main.py", ":", "+", "soft-reset")
    assert "main runs" not in board.output
    mpremote(board, "reset")
    board.wait_output(r"main runs \[\] \r?\n")
    assert board.resets[-1] == "hard"


def test_ctrl_c_stops_a_program_and_asyncio_too(board, tmp_path):
    (tmp_path / "main.py").write_text(
        "import asyncio\n"
        "async def main():\n    print('started')\n    await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    mpremote(board, "cp", tmp_path / "main.py", ":main.py")
    board.hard_reset()
    board.wait_output("started")
    assert "2" in mpremote(board, "resume", "exec", "print(1 + 1)")
    assert "KeyboardInterrupt" in board.output


def test_the_file_system_outlives_reset_unplugging_and_the_object(tmp_path):
    (tmp_path / "note.txt").write_text("still here")
    with VirtualBoard(tmp_path / "board") as board:
        mpremote(board, "cp", tmp_path / "note.txt", ":")
        board.hard_reset()
        board.unplug()
        board.plug()
        assert "still here" in mpremote(board, "cat", ":note.txt")
    with VirtualBoard(tmp_path / "board") as board:
        assert "still here" in mpremote(board, "cat", ":note.txt")


def test_a_power_cut_in_a_write_leaves_a_file_system(board, tmp_path):
    (tmp_path / "old.txt").write_text("old")
    mpremote(board, "cp", tmp_path / "old.txt", ":old.txt")
    board.unplug()
    board.cut_after(3)
    board.plug()
    (tmp_path / "new.bin").write_bytes(bytes(20000))
    mpremote(board, "cp", tmp_path / "new.bin", ":new.bin", code=1)
    assert not board.plugged
    board.plug()
    assert "old" in mpremote(board, "cat", ":old.txt")


def test_a_full_file_system_says_so(tmp_path):
    with VirtualBoard(tmp_path / "board", blocks=8) as board:
        (tmp_path / "big.bin").write_bytes(bytes(40000))
        said = mpremote(board, "cp", tmp_path / "big.bin", ":big.bin", code=1)
        assert "No space left" in said


def test_a_second_program_cannot_have_the_port(board):
    import serial

    with serial.Serial(board.port, exclusive=True):
        assert "in use by another program" in mpremote(board, "ls", code=1)


def test_unplugging_ends_what_mpremote_does(board):
    board.unplug_after(4000)
    mpremote(board, "exec", "x = '''" + "y" * 10000 + "'''", code=1)
    assert not board.plugged


def test_a_board_can_pretend_to_be_another(tmp_path):
    pretend = {"version": [1, 19, 1], "_machine": "Old board", "platform": "rp2"}
    with VirtualBoard(tmp_path / "board", pretend=pretend) as board:
        code = "import sys; print(sys.implementation.version, sys.platform, sys.maxsize > 0)"
        assert "(1, 19, 1) rp2 True" in mpremote(board, "exec", code)


def test_deep_sleep_ends_in_a_start_with_empty_memory(board, tmp_path):
    (tmp_path / "main.py").write_text(
        "import machine\nprint('cause', machine.reset_cause())\n"
        "if machine.reset_cause() == 1:\n    machine.deepsleep(50)\n"
    )
    mpremote(board, "cp", tmp_path / "main.py", ":main.py")
    board.hard_reset()
    board.wait_output("cause 4")
    assert board.resets[-1] == "sleep"


def test_a_watchdog_goes_on_over_a_soft_reset_and_bites(board):
    mpremote(board, "exec", "import machine; machine.WDT(timeout=3000)")
    started = time.monotonic()
    mpremote(board, "soft-reset")
    wait_until(lambda: "watchdog" in board.resets, 10, "the watchdog")
    assert time.monotonic() - started > 1
    count = len(board.resets)
    mpremote(board, "exec", "import time; time.sleep(0.1)")  # it went with the reset
    assert "watchdog" not in board.resets[count:]


# A person at a terminal.


class Terminal:
    """The other end of the line, octet for octet."""

    def __init__(self, board):
        self.file = os.open(board.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        termios.tcflush(self.file, termios.TCIFLUSH)
        self.seen = b""

    def type(self, octets):
        os.write(self.file, octets)

    def expect(self, octets):
        """Wait until the line says so; what came up to there is not looked at again."""

        def there():
            try:
                self.seen += os.read(self.file, 4096)
            except BlockingIOError:
                pass
            return octets in self.seen

        wait_until(there, 10, f"{octets} among {self.seen!r}")
        before, _, self.seen = self.seen.partition(octets)
        return before

    def stop(self):
        os.close(self.file)


@pytest.fixture
def terminal(board):
    board.wait_output(">>> ")
    terminal = Terminal(board)
    terminal.type(b"'rea' + 'dy'\r")
    terminal.expect(b"'ready'\n>>> ")
    yield terminal
    terminal.stop()


def test_the_friendly_prompt_evaluates_lines_and_resets(terminal):
    terminal.type(b"6 * 7\r")
    assert b"42" in terminal.expect(b">>> ")
    terminal.type(b"1 +\x03")
    terminal.expect(b">>> ")
    terminal.type(b"\x04")
    terminal.expect(b"MPY: soft reboot\r\n")
    assert b"MicroPython v" in terminal.expect(b">>> ")


def test_paste_mode_takes_a_block(terminal):
    terminal.type(b"\x05")
    terminal.expect(b"=== ")
    terminal.type(b"for i in range(2):\r    print('line', i)\r\x04")
    terminal.expect(b"line 1\n")


def test_raw_repl_answers_with_ok_output_and_error(terminal):
    terminal.type(b"\x01")
    terminal.expect(b"raw REPL; CTRL-B to exit\r\n>")
    terminal.type(b"print(1)\x04")
    terminal.expect(b"OK1\n\x04\x04>")
    terminal.type(b"1/0\x04")
    terminal.expect(b"OK\x04Traceback")
    terminal.expect(b"ZeroDivisionError: divide by zero\n\x04>")
    terminal.type(b"\x02")
    terminal.expect(b">>> ")


def test_raw_paste_opens_its_window_as_it_reads(terminal):
    terminal.type(b"\x01")
    terminal.expect(b"\r\n>")
    terminal.type(b"\x05A\x01")
    terminal.expect(b"R\x01\x80\x00")
    terminal.type(b"# " + b"x" * 126)
    terminal.expect(b"\x01")
    terminal.type(b"\nprint(5)\x04")
    terminal.expect(b"\x045\n\x04\x04>")


def test_raw_paste_ends_abruptly_by_ctrl_c(terminal):
    terminal.type(b"\x01")
    terminal.expect(b"\r\n>")
    terminal.type(b"\x05A\x01")
    terminal.expect(b"R\x01\x80\x00")
    terminal.type(b"print(5)\x03")
    terminal.expect(b"\x04")
    terminal.type(b"\x04")
    terminal.expect(b"\x04\x04>")


def test_a_line_that_nobody_reads_holds_no_program_up(board, tmp_path):
    (tmp_path / "main.py").write_text(
        "for n in range(3000):\n    print('line', n, 'x' * 60)\nprint('the end')\n"
    )
    mpremote(board, "cp", tmp_path / "main.py", ":main.py")
    began = time.monotonic()
    board.hard_reset()
    board.wait_output("the end")
    assert time.monotonic() - began < 8
