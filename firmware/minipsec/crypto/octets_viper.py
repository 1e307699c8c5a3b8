"""The inner loops of ccm and inner in machine code: nothing but speed, and no garbage.

`octets` catches whatever goes wrong here (another architecture, an interpreter without viper, a
wrong answer below) and keeps its own loops, which give the same results.
"""
# ruff: noqa: F821  the types of viper are names to its compiler only

import micropython


@micropython.viper
def mix(out: ptr8, x: ptr8, at: int, x_at: int, n: int, end: int):
    """Set `n` octets of out[at:] to their XOR with those of x[x_at:]; or, unless `end` is 0, to the
    latter, and what is behind up to out[end] to 0.
    """
    out = ptr8(int(out) + at)
    x = ptr8(int(x) + x_at)
    at += n
    keep = 0
    if end == 0:
        keep = -1
    # By words where all is aligned, as ESP's 4 octets make it; unaligned words fault on an M0+.
    if not (int(out) | int(x) | n) & 3:
        while n:
            ptr32(out)[0] = ptr32(out)[0] & keep ^ ptr32(x)[0]
            out = ptr8(int(out) + 4)
            x = ptr8(int(x) + 4)
            n -= 4
    while n:
        out[0] = out[0] & keep ^ x[0]
        out = ptr8(int(out) + 1)
        x = ptr8(int(x) + 1)
        n -= 1
    while at < end:
        out[0] = 0
        out = ptr8(int(out) + 1)
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
mix(_a, b"\xff\x0f\xf0\0" * 2, 0, 0, 8, 0)
mix(_a, _a, 9, 2, 5, 0)
mix(_a, _a, 20, 0, 4, 26)
mix(_a, _a, 1, 18, 3, 1)
if total(_a, 31) != 0x62FEB or total(_a, 0):
    raise RuntimeError
del _a
