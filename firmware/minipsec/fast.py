"""The inner loops of ccm and inner in machine code: nothing but speed, and no garbage.

loops catches whatever goes wrong here, another architecture, an interpreter without viper,
a wrong answer below, and keeps its own loops, which give the same results.
"""
# ruff: noqa: F821  the types of viper are names to its compiler only

import micropython


@micropython.viper
def xor(out: ptr8, at: int, x: ptr8, x_at: int, y: ptr8, y_at: int, n: int):
    """out[at + i] = x[x_at + i] ^ y[y_at + i] for `n` octets.

    `out` may be `x` or `y` at the same place, and must not overlap them otherwise.
    """
    o = int(out) + at
    a = int(x) + x_at
    b = int(y) + y_at
    # Words where all of it is aligned, which ESP's 4 octets see to; else a HardFault on an M0+.
    if not (o | a | b | n) & 3:
        while n:
            ptr32(o)[0] = ptr32(a)[0] ^ ptr32(b)[0]
            o += 4
            a += 4
            b += 4
            n -= 4
    while n:
        ptr8(o)[0] = ptr8(a)[0] ^ ptr8(b)[0]
        o += 1
        a += 1
        b += 1
        n -= 1


@micropython.viper
def spread(blocks: ptr32, nonce: ptr32, size: int):
    """Write 12 octets of `nonce` to the head of each 16-octet block of `size` octets."""
    a = nonce[0]
    b = nonce[1]
    c = nonce[2]
    at = int(blocks)
    end = at + size
    while at < end:
        ptr32(at)[0] = a
        ptr32(at)[1] = b
        ptr32(at)[2] = c
        at += 16


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


# Known answers, aligned and not: whoever miscompiles this is not asked again.
_a = bytearray(b"minipsec" * 4)
spread(_a, bytearray(b"\x80\xff\0\x01abcdefgh"), 32)
xor(_a, 0, _a, 16, b"\xff\x0f\xf0\0" * 2, 0, 8)
xor(_a, 9, _a, 1, _a, 2, 5)
if total(_a, 31) != 0x839C9 or total(_a, 0):
    raise RuntimeError
del _a
