"""The 32-bit interpreter collects as a board does, and its parts do what a board's do."""

import hashlib

import pytest


def test_its_objects_are_those_of_32_bit(run):
    found = run("import _host, sys\n_host.note('largest', sys.maxsize)")
    assert found["largest"] == 2**31 - 1


def test_garbage_is_collected_in_the_middle_of_a_call(run):
    """The port as it comes would let the heap grow to a megabyte."""
    run(
        """
def work():
    for n in range(1000):
        x = bytearray(1000)
        x[n] = 1
work()
"""
    )


def test_what_locals_and_half_done_calls_hold_outlives_collections(run):
    run(
        """
import gc
def deep(n):
    mine = [n, str(n) * 3, {n: bytearray(n)}, 1 << 70 + n]
    gc.collect()
    below = deep(n - 1) if n else 0
    gc.collect()
    assert mine[1] == str(n) * 3 and len(mine[2][n]) == n and mine[3] == 1 << 70 + n
    return below + 1
for _ in range(20):
    assert deep(25) == 26
    assert "".join([str(i) + (gc.collect() or "") for i in range(50)]) == \\
        "".join([str(i) for i in range(50)])
"""
    )


def test_the_heap_stays_as_large_as_it_was_made(run):
    found = run(
        """
import _host
kept = []
try:
    while True:
        kept.append(bytes(1000))
except MemoryError:
    _host.note("kept", len(kept))
"""
    )
    assert 40 < found["kept"] < 64


def test_a_peak_is_what_is_live_at_once_and_no_garbage(bench):
    program = """
import gc, _host
def work():
    for _ in range(100):
        bytes(100)
    x = bytes(5000)
    x = None
    for _ in range(100):
        bytes(100)
gc.collect()
_host.note("before", _host.used())
_host.phase("work")
work()
_host.end()
"""
    found = bench.run(program, "romfs", 64 * 1024, exact=True)
    (phase,) = found["phases"]
    assert 5000 < phase["peak"] - found["before"] < 5700


def test_its_cryptolib_and_hashlib_compute_what_a_boards_do(run):
    octets = "00112233445566778899aabbccddeeff"
    digest = hashlib.sha1(bytes.fromhex(octets)).hexdigest()
    run(
        f"""
import parts
parts.install()
from cryptolib import aes
from hashlib import sha1, sha256
key = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
text = bytes.fromhex("{octets}")
sealed = bytes.fromhex("69c4e0d86a7b0430d8cdb78070b4c55a")  # FIPS 197, C.1
assert aes(key, 1).encrypt(text) == sealed and aes(key, 1).decrypt(sealed) == text
chain = aes(key, 2, bytes(16))
out = bytearray(16)
chain.encrypt(text, out)
assert out == sealed
chain.encrypt(bytes(a ^ b for a, b in zip(text, sealed)), out)
assert out == sealed
assert sha1(text).digest().hex() == "{digest}"
assert sha256(b"abc").digest()[:4] == b"\\xba\\x78\\x16\\xbf"
"""
    )


@pytest.mark.parametrize("how", ["frozen", "romfs", "files"])
def test_the_firmware_passes_its_own_selftest_there(run, how):
    """The loops in JavaScript among it, by the known answers of ML-KEM and Keccak."""
    run(
        """
import parts
parts.install()
from minipsec import selftest
assert selftest.run()
""",
        256 * 1024,
        how,
    )
