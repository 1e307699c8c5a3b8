"""The inner loops of ccm and inner, as fast as Python has them: on whole integers, in C.

`octets_viper`, where it runs, replaces them: the same results, without garbage.
"""


def xor(out, at, x, x_at, n):
    """Set `n` octets of out[at:] to their XOR with those of x[x_at:]."""
    value = int.from_bytes(memoryview(out)[at : at + n], "big")
    value ^= int.from_bytes(memoryview(x)[x_at : x_at + n], "big")
    out[at : at + n] = value.to_bytes(n, "big")


def copy(out, at, x, x_at, n, end):
    """Set out[at:] to `n` octets of x[x_at:], and what is behind them up to out[end] to 0."""
    out[at : at + n] = memoryview(x)[x_at : x_at + n]
    at += n
    if at < end:
        out[at:end] = bytes(end - at)


def spread(blocks, head, iv, size):
    """Write 4 octets of `head` and 8 of `iv` to the front of each 16-octet block of `size`."""
    head = bytes(head) + bytes(iv)
    for i in range(0, size, 16):
        blocks[i : i + 12] = head


def total(octets, n):
    """Return a number equal, modulo 0xFFFF, to the sum of `n` octets as words; 0 for zeros."""
    return int.from_bytes(memoryview(octets)[:n], "big") << (n & 1) * 8


try:
    from .octets_viper import copy, spread, total, xor
except Exception:  # whatever fails there, use the functions above
    pass
