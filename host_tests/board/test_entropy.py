"""What keys are made of on each port, and when there is nothing to make them of."""

import ast
import json
from hashlib import sha256

import pytest

from host_tests.board.conftest import BOARDS, MAIN, PSK, ROOT, asleep, named
from host_tests.board.conftest import profile as session_profile

RP2 = [name for name in BOARDS if name in ("RPI_PICO_W", "W5500_EVB_PICO")]
ESP32 = [name for name in BOARDS if name not in RP2]

# Nothing that differs from boot to boot but what a test wants to differ.
DRAW = """
from minipsec.board import port
port.time.ticks_us = lambda: 0
port.time.time_ns = lambda: 0
port._seeds = SEED, ""
try:
    print(json.dumps({"event": "rand", "hex": port.rand(32).hex()}))
except Exception as e:
    print(json.dumps({"event": "refused", "error": type(e).__name__, "check": e.check}))
print(json.dumps({"event": "left", "modules": [name for name in sys.modules if "entropy" in name]}))
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


# Asks three times in one time of power, as a program that tries again does.
AGAIN = """
for _ in range(3):
    try:
        port.rand(32)
        print(json.dumps({"event": "made"}))
    except Exception as e:
        print(json.dumps({"event": type(e).__name__}))
"""


@pytest.mark.item("B1")
def test_a_stuck_oscillator_without_a_seed_makes_no_keys_however_often_it_is_asked(fake):
    board = fake("RPI_PICO_W")
    for noise in (STUCK, [0] * 4096, STUCK):
        assert draw(board, noise=noise)[0] == "NoEntropy"
    program = DRAW.replace("SEED", "None") + AGAIN
    events, seen = board.run(program, weak_urandom=True, noise=[1] * 4 * 2048)
    assert [event["event"] for event in events] == ["refused", "left"] + ["NoEntropy"] * 3
    # A refusal leaves nothing that a later boot could take for a secret.
    assert seen["flash_writes"] == [] and list(board.directory.glob("seed.bin*")) == []


@pytest.mark.item("B1")
@pytest.mark.parametrize("name", ESP32)
def test_an_esp32_without_its_radio_is_refused_at_each_boot(fake, name):
    board = fake(name)
    assert [draw(board, active=False)[0] for _ in range(3)] == ["NoEntropy"] * 3


def seed_file(octets):
    """A seed file as a boot that passed leaves it."""
    return octets + sha256(b"minipsec seed file 2" + octets).digest()[:8]


WHOLE = seed_file(SEED[::-1])
DAMAGED = {
    "empty": b"",
    "short": WHOLE[:20],
    "torn in its check": WHOLE[:-1],
    "longer": WHOLE + b"x",
    "zeros": bytes(40),
    "erased flash": b"\xff" * 40,
    "one bit": bytes((WHOLE[0] ^ 1,)) + WHOLE[1:],
}


@pytest.mark.item("B1")
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_seed_file_is_no_secret(fake, kind):
    """Nor does it tell this boot from one that started from the same damage."""
    board = fake("RPI_PICO_W")
    path = board.directory / "seed.bin"
    for seed in (None, SEED):
        path.write_bytes(DAMAGED[kind])
        for _ in range(2):
            assert draw(board, seed, noise=STUCK)[0] == "NoEntropy"
        assert path.read_bytes() == DAMAGED[kind]
    # Noise mends it.
    assert len(draw(board, noise=FAIR)[0]) == 64
    assert len(draw(board, noise=STUCK)[0]) == 64


@pytest.mark.item("B1")
def test_the_seed_file_of_an_earlier_version_does_not_count(fake):
    """It may be that of a boot that was refused; with a seed it is as good as none."""
    board = fake("RPI_PICO_W")
    path = board.directory / "seed.bin"
    path.write_bytes(SEED[::-1])
    assert [draw(board, noise=STUCK)[0] for _ in range(2)] == ["NoEntropy"] * 2
    keys = [draw(board, SEED, noise=STUCK)[0] for _ in range(3)]
    assert len(set(keys)) == 3 and {len(key) for key in keys} == {64}


@pytest.mark.item("B1")
def test_a_file_of_a_boot_that_passed_is_a_secret_and_used_once(fake):
    board = fake("RPI_PICO_W")
    draw(board, noise=FAIR)
    keys = [draw(board, noise=STUCK)[0] for _ in range(4)]
    assert len(set(keys)) == 4 and {len(key) for key in keys} == {64}
    # Not where the next one cannot be written: then this one would start two boots.
    assert draw(board, noise=STUCK, full=True)[0] == "NoEntropy"
    assert draw(board, noise=STUCK, read_only=True)[0] == "NoEntropy"
    assert len(draw(board, noise=FAIR, read_only=True)[0]) == 64


@pytest.mark.item("B1")
def test_a_reset_at_any_step_of_the_writing_repeats_no_key(fake):
    """Whole is then the file, or the new one beside it, or the old one that was never used."""
    board = fake("RPI_PICO_W")
    path = board.directory / "seed.bin"
    beside = board.directory / "seed.bin.new"
    keys = [draw(board, SEED, noise=STUCK)[0] for _ in range(2)]
    old = path.read_bytes()
    keys.append(draw(board, SEED, noise=STUCK)[0])
    new = path.read_bytes()
    # The new file is torn, or whole; FAT lets go of the old one before it renames the new one.
    path.write_bytes(new)
    for torn in (b"", new[:7], seed_file(bytes(32))):
        beside.write_bytes(torn)
        keys.append(draw(board, SEED, noise=STUCK)[0])
    path.rename(beside)
    keys.append(draw(board, SEED, noise=STUCK)[0])
    assert len(set(keys)) == len(keys) and {len(key) for key in keys} == {64}
    assert old != new and path.read_bytes() not in (old, new)


@pytest.mark.item("B1")
def test_two_boards_alike_never_make_the_same_key(fake):
    """They are refused; with a copy of one another's seed they are told apart by their chips."""
    for name, settings in (("RPI_PICO_W", {"noise": STUCK}), ("ESP32_GENERIC", {"active": False})):
        keys = []
        for chip in ("e660583883000001", "e660583883000002"):
            board = fake(name)
            for path in board.directory.glob("seed.bin*"):
                path.unlink()
            assert [draw(board, chip=chip, **settings)[0] for _ in range(2)] == ["NoEntropy"] * 2
            keys += [draw(board, SEED, chip=chip, **settings)[0] for _ in range(2)]
        assert len(set(keys)) == 4 and {len(key) for key in keys} == {64}


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
from minipsec.board import entropy as sources; from minipsec.crypto import drbg
drbg.DRBG.generate = (lambda real: lambda self, n, more=b"":
    (print(json.dumps({"event": "draw", "n": n, "writes": len(board.seen["flash_writes"])})),
     real(self, n, more))[1])(drbg.DRBG.generate)
from minipsec.board import port
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
            (FAIR, None, WHOLE),
            (FAIR, None, seed_file(SEED[::-1][:-1] + b"\1")),
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
    program = "from minipsec.board import port\nprint(json.dumps({'hex': port.rand(32).hex(), 'event': 0}))"
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
    events, seen = board.run(MAIN, noise=STUCK)
    (error,) = [line for line in events if line["event"] == "error"]
    assert error["error"] == "NoEntropy"
    assert [line for line in events if line["event"] == "state"] == []
    assert asleep(seen) == ("light", 1000)


@pytest.mark.parametrize("name", ["RPI_PICO_W", "ESP32_GENERIC"])
@pytest.mark.parametrize("calls", [0, 3])
def test_a_urandom_that_raises_is_told_as_what_it_is(fake, gateway, name, calls):
    """Not as a gateway out of reach; and the pause before the next attempt needs none."""
    board = fake(name)
    more = {"retries": 0, "sleep": board.facts["sleep"]}
    board.give(session_profile(gateway, board, **more), {"psk": PSK})
    program = f"""
left = [{calls}]
def urandom(n, real=os.urandom):
    left[0] -= 1
    if left[0] < 0:
        raise OSError(5)
    return real(n)
os.urandom = urandom
import main"""
    events, _ = board.run(program)
    errors = named(events, "error")
    assert errors and {line["error"] for line in errors} == {"NoEntropy"}
    assert all("OSError" in line["text"] and "seed" in line["check"] for line in errors)


def test_nothing_else_in_the_firmware_draws_random_octets():
    """Keys, nonces and SPIs come from port.rand; urandom itself is for what is no secret."""
    allowed = {"port": 3, "entropy": 2}
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
