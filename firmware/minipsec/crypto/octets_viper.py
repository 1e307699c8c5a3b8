"""The inner loops of ccm and inner in machine code: nothing but speed, and no garbage.

`octets` catches whatever goes wrong here (another architecture, an interpreter without viper, a
wrong answer below) and keeps its own loops, which give the same results.
"""
# ruff: noqa: F821  the types of viper are names to its compiler only

import micropython


# On ARM the first two variables of a function are registers, so `out` is reused for what is read.
# Words are used only where all is aligned, as ESP's 4 octets make it: others fault on an M0+.


@micropython.viper
def xor(out: ptr8, at: int, x: ptr8, x_at: int, n: int):
    """Set `n` octets of out[at:] to their XOR with those of x[x_at:]."""
    at += int(out)
    out = ptr8(int(x) + x_at)
    end = at + n
    if not (at | int(out) | n) & 3:
        while at != end:
            ptr32(at)[0] = ptr32(at)[0] ^ ptr32(out)[0]
            at += 4
            out = ptr8(int(out) + 4)
    while at != end:
        ptr8(at)[0] = ptr8(at)[0] ^ out[0]
        at += 1
        out = ptr8(int(out) + 1)


@micropython.viper
def copy(out: ptr8, at: int, x: ptr8, x_at: int, n: int, end: int):
    """Set out[at:] to `n` octets of x[x_at:], and what is behind them up to out[end] to 0."""
    end += int(out)
    at += int(out)
    out = ptr8(int(x) + x_at)
    behind = at + n
    if not (at | int(out) | n) & 3:
        while at != behind:
            ptr32(at)[0] = ptr32(out)[0]
            at += 4
            out = ptr8(int(out) + 4)
    while at != behind:
        ptr8(at)[0] = out[0]
        at += 1
        out = ptr8(int(out) + 1)
    while at < end:
        ptr8(at)[0] = 0
        at += 1


@micropython.viper
def spread(blocks: ptr32, head: ptr8, iv: ptr8, size: int):
    """Write 4 octets of `head` and 8 of `iv` to the front of each 16-octet block of `size`."""
    o = int(blocks)
    end = o + size
    i = 0
    while i < 4:
        ptr8(o)[i] = head[i]
        i += 1
    while i < 12:
        ptr8(o)[i] = iv[i - 4]
        i += 1
    a = blocks[0]
    b = blocks[1]
    c = blocks[2]
    while o < end:
        ptr32(o)[0] = a
        ptr32(o)[1] = b
        ptr32(o)[2] = c
        o += 16


@micropython.viper
def total(octets: ptr8, n: int) -> int:
    """Return the sum of `n` octets as big-endian words, up to 32766 of them: below 2^30."""
    at = int(octets)
    end = at + n
    odd = 0
    even = 0
    while at < end - 1:
        even += ptr8(at)[0]
        odd += ptr8(at)[1]
        at += 2
    if at < end:
        even += ptr8(at)[0]
    return (even << 8) + odd


# Known answers, aligned and not: a compiler that gets them wrong is not used.
_a = bytearray(b"minipsec" * 4)
spread(_a, b"\x80\xff\0\x01", b"abcdefgh", 32)
xor(_a, 0, b"\xff\x0f\xf0\0" * 2, 0, 8)
xor(_a, 9, _a, 2, 5)
copy(_a, 20, _a, 0, 4, 26)
copy(_a, 1, _a, 18, 3, 0)
if total(_a, 31) != 0x62FEB or total(_a, 0):
    raise RuntimeError
del _a
