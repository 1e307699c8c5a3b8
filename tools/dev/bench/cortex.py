"""Machine code of firmware/ on a PC: taken out of the `.mpy`, run on an emulated Cortex-M0+.

`leaves(module)` compiles a module for the RP2040 (`mpy-cross -march=armv6m`) and returns its viper
and assembler functions as Python callables.  Each call runs the very instructions that a board
runs, under `unicorn`, on copies of the arguments' octets; what it wrote is copied back.

Cycles are those of the Cortex-M0+ technical reference manual with a multiplier of one cycle and
memory without wait states, which an RP2040's RAM is: 2 for a load or a store, 1 + n for n
registers, 2 for a branch that is taken, 3 for BL, 1 for the rest.
"""

import ast
import pathlib
import struct
import tempfile
from types import ModuleType
from typing import NamedTuple

from unicorn import UC_ARCH_ARM, UC_HOOK_BLOCK, UC_HOOK_MEM_READ, UC_HOOK_MEM_WRITE
from unicorn import UC_MODE_MCLASS, UC_MODE_THUMB
from unicorn import arm_const as arm
from unicorn.unicorn import Uc

from tools.common import mpy

HERTZ = 125_000_000

# Where things lie; each place has 128 KiB.
_CODE, _HEAP, _STACK, _OBJECTS, _RETURN = 0x10000, 0x200000, 0x300000, 0x400000, 0x500000
_PLACE = 0x20000
_GUARD = b"\xa5" * 32  # stands between buffers, and must not change
_VIPER, _ASM = mpy.VIPER, mpy.ASM


class Code(NamedTuple):
    """A function of a module: its name, its machine code, and its parameters' types."""

    name: str
    kind: int
    octets: bytes
    types: tuple
    returns: bool


def functions(path):
    """Return the viper and assembler functions of a source file, compiled for ARMv6-M."""
    found = []
    for node in ast.parse(path.read_text()).body:
        for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            if isinstance(mark, ast.Attribute) and mark.attr in ("viper", "asm_thumb"):
                found.append((node, _VIPER if mark.attr == "viper" else _ASM))
    with tempfile.TemporaryDirectory(prefix="minipsec-asm-") as directory:
        target = pathlib.Path(directory) / "module.mpy"
        mpy.compile_file(path, target, "armv6m")
        _, made = mpy.read(target.read_bytes())
    if [kind for _, kind in found] != [kind for kind, _ in made]:
        raise ValueError(f"{path.name}: functions and code do not match")
    return [
        Code(
            node.name,
            kind,
            octets,
            tuple(arg.annotation.id if arg.annotation else "" for arg in node.args.args),
            kind == _ASM or node.returns is not None,
        )
        for (node, kind), (_, octets) in zip(found, made)
    ]


def _cycles(word):
    """Cycles of a 16-bit instruction; a conditional branch as if it was not taken."""
    top = word >> 12
    if 5 <= top <= 9 or word >> 11 == 9:  # load, store
        return 2
    if word & 0xF600 == 0xB400:  # push, pop
        n = (word & 0x1FF).bit_count()
        return n + (3 if word & 0x900 == 0x900 else 1)
    if top == 12:  # several
        return 1 + (word & 0xFF).bit_count()
    if top == 14 or word & 0xFF00 == 0x4700 or word & 0xFD87 == 0x4487:  # b, bx, blx, mov pc
        return 2
    return 1


class Leaf:
    """One function on an emulated processor: call it with integers and buffers.

    With `count`, `instructions`, `cycles` and `helpers` (calls of the interpreter, which convert
    arguments; they are not in the other two) say what the last call took, `calls` and `total`
    how many there were and the cycles of all.  With `strict` a word or half a word from an address
    that it cannot stand at is an error, as on an M0+; unicorn alone does not mind.
    """

    def __init__(self, code, count=False, strict=False):
        self.code = code
        self.instructions = self.cycles = self.helpers = 0
        self.calls = self.total = 0
        self._blocks = {}
        self._branch = None
        mu = self._mu = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        mu.ctl_set_cpu_model(arm.UC_CPU_ARM_CORTEX_M0)
        for place in (_CODE, _HEAP, _STACK, _OBJECTS, _RETURN):
            mu.mem_map(place, _PLACE)
        mu.mem_write(_CODE, code.octets)
        # A viper function finds the interpreter's functions from its own object: object ->
        # context -> constants -> table. All of them give back what they got.
        mu.mem_write(_OBJECTS, struct.pack("<4I", 0, _OBJECTS + 0x100, 0, 0))
        mu.mem_write(_OBJECTS + 0x100, struct.pack("<I", _OBJECTS + 0x200) * 8)
        mu.mem_write(_OBJECTS + 0x200, struct.pack("<I", _OBJECTS + 0x1000) * 8)
        mu.mem_write(_OBJECTS + 0x1000, struct.pack("<I", _RETURN + 0x100 | 1) * 256)
        mu.mem_write(_RETURN + 0x100, b"\x70\x47")  # bx lr
        if count:
            mu.hook_add(UC_HOOK_BLOCK, self._block)
        self._crooked = None
        if strict:
            mu.hook_add(UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, self._access)

    def _access(self, mu, access, address, size, value, _):
        if address % size:
            self._crooked = address, size
            mu.emu_stop()

    def _block(self, mu, address, size, _):
        if self._branch is not None and address != self._branch:
            self.cycles += 1
        self._branch = None
        if address >= _RETURN:
            self.helpers += 1
            return
        known = self._blocks.get((address, size))
        if not known:
            words = struct.unpack(f"<{size // 2}H", mu.mem_read(address, size))
            n = cycles = 0
            at = 0
            while at < len(words):
                if words[at] >> 11 == 30:  # BL, two words
                    cycles += 3
                    at += 1
                else:
                    cycles += _cycles(words[at])
                n += 1
                at += 1
            last = words[-1]
            conditional = last >> 12 == 13 and not (len(words) > 1 and words[-2] >> 11 == 30)
            known = self._blocks[address, size] = (
                n,
                cycles,
                address + size if conditional else None,
            )
        self.instructions += known[0]
        self.cycles += known[1]
        self._branch = known[2]

    def __call__(self, *args):
        mu = self._mu
        values, buffers = [], {}
        at = _HEAP
        for arg in args:
            if isinstance(arg, int):
                values.append(arg & 0xFFFFFFFF)
                continue
            base, start = arg, 0
            if isinstance(arg, memoryview):
                base = arg.obj
                start = memoryview(base).nbytes - arg.nbytes  # views that reach to the end
            if id(base) not in buffers:
                octets = bytes(memoryview(base).cast("B"))
                mu.mem_write(at, octets + _GUARD)
                buffers[id(base)] = at, base, octets
                at += (len(octets) + len(_GUARD) + 31) & -32
            values.append(buffers[id(base)][0] + start)
        if self.code.kind == _VIPER:
            mu.mem_write(_STACK, struct.pack(f"<{len(values)}I", *values))
            values = [_OBJECTS, len(values), 0, _STACK]
        for register, value in enumerate(values):
            mu.reg_write(arm.UC_ARM_REG_R0 + register, value)
        kept = [0x11111111 * n for n in range(4, 12)]
        for register, value in enumerate(kept, arm.UC_ARM_REG_R4):
            mu.reg_write(register, value)
        mu.reg_write(arm.UC_ARM_REG_SP, _STACK + _PLACE - 64)
        mu.reg_write(arm.UC_ARM_REG_LR, _RETURN | 1)
        self.instructions = self.cycles = self.helpers = 0
        self._branch = None
        mu.emu_start(_CODE | 1, _RETURN)
        if self._crooked:
            self._crooked, found = None, self._crooked
            raise RuntimeError(f"{self.code.name}: HardFault, not aligned: {found}")
        self.calls += 1
        self.total += self.cycles
        registers = range(arm.UC_ARM_REG_R4, arm.UC_ARM_REG_R4 + 8)
        if [mu.reg_read(register) for register in registers] != kept:
            raise RuntimeError(f"{self.code.name} leaves registers changed")
        for place, base, octets in buffers.values():
            now = bytes(mu.mem_read(place, len(octets) + len(_GUARD)))
            if now[len(octets) :] != _GUARD:
                raise RuntimeError(f"{self.code.name} writes behind a buffer")
            if now != octets + _GUARD:
                memoryview(base).cast("B")[:] = now[: len(octets)]
        return mu.reg_read(arm.UC_ARM_REG_R0) if self.code.returns else None


def source(module):
    """The source file of a module of firmware/minipsec; a path stays what it is."""
    return mpy.modules()[module] if isinstance(module, str) else module


def leaves(module, **options):
    """Return {name: Leaf} of a module of firmware/minipsec, or of the source file at a path."""
    return {code.name: Leaf(code, **options) for code in functions(source(module))}


def whole(module, found, **more):
    """Return a module of firmware/minipsec under CPython, with `found` as its machine code.

    `more` are names that it imports from others of ours.
    """
    path = source(module)
    tree = ast.parse(path.read_text())
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.FunctionDef) and node.name in found)
        and not (isinstance(node, ast.ImportFrom) and node.level)
        and not (isinstance(node, ast.Import) and node.names[0].name == "micropython")
        and not (isinstance(node, ast.ImportFrom) and node.module == "micropython")
    ]
    made = ModuleType(path.stem)
    made.__dict__.update(found, const=lambda value: value, **more)
    exec(compile(tree, str(path), "exec"), made.__dict__)
    return made
