"""What keys are made of on each port, and when there is nothing to make them of."""

import ast
import json

import pytest

from host_tests.boards.conftest import BOARDS, ROOT

RP2 = [name for name in BOARDS if name in ("RPI_PICO_W", "W5500_EVB_PICO")]
ESP32 = [name for name in BOARDS if name not in RP2]

# Nothing that differs from boot to boot but what a test wants to differ.
DRAW = """
from minipsec import port
port.time.ticks_us = lambda: 0
port.time.time_ns = lambda: 0
port._seeds = SEED, ""
try:
    print(json.dumps({"event": "rand", "hex": port.rand(32).hex()}))
except Exception as e:
    print(json.dumps({"event": "refused", "error": type(e).__name__, "check": e.check}))
print(json.dumps({"event": "left", "modules": [name for name in sys.modules if "sources" in name]}))
"""
FAIR = [(i * 40503 >> 7 ^ i * i >> 5) & 1 for i in range(4096)]
STUCK = [1] * 4096
SEED = bytes(range(32))


def draw(board, seed=None, **settings):
    """Return the octets of the first request after a reset, or the error's name."""
    program = DRAW.replace("SEED", repr(seed))
    events, seen = board.run(program, weak_urandom=True, **settings)
    first, left = events
    assert left["modules"] == []  # loaded once, and forgotten
    return first.get("hex") or first["error"], seen


def test_a_stuck_oscillator_without_a_seed_makes_no_keys(fake):
    board = fake("RPI_PICO_W")
    assert draw(board, noise=STUCK)[0] == "NoEntropy"
    # It is not the second boot either that makes a secret of nothing.
    (board.directory / "seed.bin").unlink()
    assert draw(board, noise=[0] * 4096)[0] == "NoEntropy"


def test_a_biased_oscillator_without_a_seed_makes_no_keys(fake):
    biased = [int(i % 11 > 0) for i in range(4096)]
    assert draw(fake("W5500_EVB_PICO"), noise=biased)[0] == "NoEntropy"


def test_a_refusal_says_what_to_do(fake):
    events, _ = fake("RPI_PICO_W").run(DRAW.replace("SEED", "None"), noise=STUCK)
    assert "seed in the secrets" in events[0]["check"]


def test_a_good_oscillator_is_enough(fake):
    board = fake("RPI_PICO_W")
    octets, seen = draw(board, noise=FAIR)
    assert len(octets) == 64
    assert seen["noise_bits"] == 2048
    assert seen["flash_writes"] == ["seed.bin"]


def test_also_where_the_flash_is_full(fake):
    assert len(draw(fake("RPI_PICO_W"), noise=FAIR, full=True)[0]) == 64


def test_a_seed_is_enough_where_the_file_of_the_next_boot_can_be_written(fake):
    board = fake("RPI_PICO_W")
    assert len(draw(board, SEED, noise=STUCK)[0]) == 64
    assert draw(board, SEED, noise=STUCK, full=True)[0] == "NoEntropy"


def test_two_boots_with_the_same_seed_and_no_noise_have_different_keys(fake):
    board = fake("RPI_PICO_W")
    keys = [draw(board, SEED, noise=STUCK)[0] for _ in range(4)]
    assert len(set(keys)) == 4


def test_the_file_was_replaced_before_a_key_was_drawn(fake):
    """A board that loses power with its first key already has another seed for the next boot."""
    board = fake("RPI_PICO_W")
    draw(board, SEED, noise=FAIR)
    before = (board.directory / "seed.bin").read_bytes()
    program = """
from minipsec import drbg, sources
drbg.DRBG.generate = (lambda real: lambda self, n, more=b"":
    (print(json.dumps({"event": "draw", "n": n, "writes": len(board.seen["flash_writes"])})),
     real(self, n, more))[1])(drbg.DRBG.generate)
from minipsec import port
port.rand(8)"""
    events, _ = board.run(program, noise=FAIR)
    # The first is the file's own.
    assert [(event["n"], event["writes"]) for event in events] == [(32, 0), (8, 1)]
    assert (board.directory / "seed.bin").read_bytes() != before


def test_each_source_counts(fake, tmp_path):
    """One other bit of noise, of the seed, of the file, and all is different."""
    one = [1 - FAIR[0], *FAIR[1:]]
    drawn = []
    for number, (noise, seed, kept) in enumerate(
        [
            (FAIR, None, None),
            (one, None, None),
            (FAIR, SEED, None),
            (FAIR, SEED[:-1] + b"\0", None),
            (FAIR, None, SEED[::-1]),
            (FAIR, None, SEED[::-1][:-1] + b"\1"),
        ]
    ):
        board = fake("RPI_PICO_W")
        path = board.directory / "seed.bin"
        path.unlink(missing_ok=True)
        if kept:
            path.write_bytes(kept)
        drawn.append(draw(board, seed, noise=noise)[0])
        if number == 0:
            path.unlink()
            assert draw(board, seed, noise=noise)[0] == drawn[0]  # nothing else differs
    assert len(set(drawn)) == 6


@pytest.mark.parametrize("name", ESP32)
def test_an_esp32_needs_its_radio_or_a_seed(fake, name):
    board = fake(name)
    urandom = {"active": False}
    assert draw(board, **urandom)[0] == "NoEntropy"
    assert len(draw(board, SEED, **urandom)[0]) == 64
    program = (
        "from minipsec import port\nprint(json.dumps({'hex': port.rand(32).hex(), 'event': 0}))"
    )
    board = fake(name)
    events, seen = board.run(program, active=True)
    assert len(events[0]["hex"]) == 64
    assert seen["urandom"] >= 2048 + 32 + 32  # noise, seeding, and 32 with each request


def test_a_board_that_nobody_knows_needs_a_seed(fake):
    """No register is read there: on an RP2350 the same address is another thing."""
    board = fake("RPI_PICO_W")
    other = "import sys\nsys.implementation._machine = 'Raspberry Pi Pico 2 W with RP2350'\n"
    program = other + DRAW.replace("SEED", "None")
    events, seen = board.run(program)
    assert events[0]["error"] == "NoEntropy" and seen["noise_bits"] == 0
    program = other + DRAW.replace("SEED", repr(SEED))
    assert "hex" in board.run(program)[0][0]


def test_a_tunnel_without_entropy_ends_in_a_typed_error(fake):
    board = fake("RPI_PICO_W")
    profile = {
        "gateway": "127.0.0.1",
        "gateway_id": "any",
        "id": "sensor",
        "server": "10.3.0.10",
        "network": "wifi",
        "ssid": "x",
        "log": "json",
        "sleep": "mark",
    }
    board.give(profile, {"psk": "secret"})
    events, seen = board.run("import sensor\nsensor.run([])", noise=STUCK)
    (error,) = [line for line in events if line["event"] == "error"]
    assert error["error"] == "NoEntropy"
    assert [line for line in events if line["event"] == "state"] == []
    assert seen["slept"] == [["deep", 1000]]


def test_nothing_else_in_the_firmware_draws_random_octets():
    """Keys, nonces and SPIs come from port.rand; urandom itself is for what is no secret."""
    allowed = {"port": 3, "sources": 2, "sensor": 1}
    found = {}
    for path in (ROOT / "firmware").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", None) or getattr(node, "id", None)
            if name in ("urandom", "getrandbits", "randint", "randrange"):
                found[path.stem] = found.get(path.stem, 0) + 1
            if isinstance(node, ast.Import) and any(a.name == "random" for a in node.names):
                found[path.stem] = 99
    assert {name: n for name, n in found.items() if n > allowed.get(name, 0)} == {}


def test_boards_say_where_their_keys_come_from():
    for name in BOARDS:
        facts = json.loads((ROOT / "boards" / name / "board.json").read_text())
        assert facts["random"]["keys_from"] == "drbg"
