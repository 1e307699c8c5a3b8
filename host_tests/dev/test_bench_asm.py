"""`make bench-asm`: the committed figures are those of the sources, and hold what is aimed at."""

import json
import re

import pytest

from tools.common import mpy
from tools.dev.bench import asm, cortex


@pytest.fixture(scope="module")
def found():
    return json.loads(json.dumps(asm.measure()))


def test_the_committed_figures_are_what_the_sources_make_now(found):
    """But for the number of opcodes, which depends on CPython's version."""
    kept = json.loads((asm.RESULTS / "asm.json").read_text())
    assert (asm.RESULTS / "asm.md").read_text() == asm.markdown(kept)
    assert kept["leaves"] == found["leaves"], "run: make bench-asm"
    for before, now in zip(kept["wholes"], found["wholes"], strict=True):
        for counted in ("what", "cycles", "calls", "aes_blocks", "target_ms"):
            assert before[counted] == now[counted], "run: make bench-asm"


def test_each_function_takes_the_same_instructions_for_different_secrets(found):
    assert len(found["leaves"]) > 25
    assert [line["what"] for line in found["leaves"] if not line["same"]] == []


def test_every_target_is_reached(found):
    slow = [line["what"] for line in found["wholes"] if line["sum_ms"] > line["target_ms"]]
    assert len(found["wholes"]) == len(asm.TARGETS) and slow == []


@pytest.mark.item("I1")
def test_bytecode_is_counted_by_the_folder_it_lies_in_not_by_a_name_in_its_path():
    def opcodes(path):
        made = {}
        exec(compile("def work():\n    return sum(range(9))\n", str(path), "exec"), made)
        with asm.Bytecode() as counted:
            made["work"]()
        return counted.opcodes

    assert opcodes(mpy.FIRMWARE / "minipsec/some.py") > 3
    assert opcodes(mpy.ROOT / "tools/minipsec/some.py") == 0
    assert opcodes("/srv/minipsec/firmware/minipsec/some.py") == 0


def test_board_facts_are_reached_by_counted_code(found):
    """Milliseconds: one Keccak-f, one NTT and its inverse, one product."""
    taken = {line["what"]: line["us"] / 1000 for line in found["leaves"]}
    assert taken["Keccak-f[1600]"] < 0.75
    assert taken["NTT"] < 1.0 and taken["NTT, inverse"] < 1.3
    assert taken["product in the NTT domain"] < 0.45


def test_every_function_in_machine_code_is_in_the_table_but_the_one_for_public_data():
    names = {code.name for module in ("crypto/octets_viper", "kex/keccak", "kex/mlkem", "kex/x25519_thumb")
             for code in cortex.functions(cortex.source(module))}  # fmt: skip
    # What rejection takes depends on the public matrix.
    text = (asm.ROOT / "tools/dev/bench/asm.py").read_text()
    used = set(re.findall(r'\["(\w+)"\]', text))
    assert names - used == {"_reject"}


@pytest.mark.parametrize(
    ("word", "cycles"),
    [
        (0x4363, 1),  # muls
        (0x18ED, 1),  # adds
        (0x880B, 2),  # ldrh
        (0x6018, 2),  # str
        (0x4801, 2),  # ldr from behind the code
        (0x9801, 2),  # ldr from the stack
        (0xB5F0, 6),  # push of five
        (0xBDF0, 8),  # pop of five, and back
        (0xBC0F, 5),  # pop of four
        (0xC80C, 3),  # ldm of two
        (0xE7FE, 2),  # b
        (0xD1FE, 1),  # bne, not taken
        (0x4770, 2),  # bx
        (0x4798, 2),  # blx
        (0x46A7, 2),  # mov pc
        (0x4684, 1),  # mov r12
    ],
)
def test_cycles_are_those_of_the_manual(word, cycles):
    assert cortex._cycles(word) == cycles


def test_a_loop_is_counted_branch_by_branch():
    # movs r2, #3; loop: subs r2, #1; bne loop; bx lr
    code = b"\x03\x22\x01\x3a\xfd\xd1\x70\x47"
    leaf = cortex.Leaf(cortex.Code("loop", 3, code, ("",), True), count=True)
    leaf(0)
    assert leaf.instructions == 1 + 3 * 2 + 1
    assert leaf.cycles == 1 + 3 * 1 + (2 + 2 + 1) + 2


@pytest.mark.parametrize("octets", [b"", b"M", b"M\6\x13\x1f\0\0"])
def test_a_file_that_ends_early_is_no_mpy(octets):
    with pytest.raises((IndexError, ValueError)):
        mpy.read(octets)


def test_code_that_writes_behind_a_buffer_is_found_out():
    # str r1, [r0, #32]; bx lr
    leaf = cortex.Leaf(cortex.Code("bad", 3, b"\x01\x62\x70\x47", ("", ""), True))
    with pytest.raises(RuntimeError, match="behind"):
        leaf(bytearray(32), 7)


def test_code_that_changes_a_register_of_its_caller_is_found_out():
    # mov r8, r0; bx lr
    leaf = cortex.Leaf(cortex.Code("bad", 3, b"\x80\x46\x70\x47", ("",), True))
    with pytest.raises(RuntimeError, match="registers"):
        leaf(7)
