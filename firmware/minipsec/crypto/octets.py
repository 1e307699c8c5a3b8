"""The inner loops of ccm and inner, as fast as Python has them: on whole integers, in C.

`octets_viper`, where it runs, replaces them: the same results, without garbage.
"""


def mix(out, x, at, x_at, n, end):
    """Set `n` octets of out[at:] to their XOR with those of x[x_at:]; or, unless `end` is 0, to the
    latter, and what is behind up to out[end] to 0.
    """
    x = memoryview(x)[x_at : x_at + n]
    behind = at + n
    if not end:
        value = int.from_bytes(memoryview(out)[at:behind], "big") ^ int.from_bytes(x, "big")
        x = value.to_bytes(n, "big")
    out[at:behind] = x
    if behind < end:
        out[behind:end] = bytes(end - behind)


def spread(blocks, head, iv, size):
    """Write 4 octets of `head` and 8 of `iv` to the front of each 16-octet block of `size`."""
    head = bytes(head) + bytes(iv)
    for i in range(0, size, 16):
        blocks[i : i + 12] = head


def total(octets, n):
    """Return a number that is, modulo 0xFFFF, the sum of `n` octets as 16-bit words; 0 for zeros."""
    return int.from_bytes(memoryview(octets)[:n], "big") << (n & 1) * 8


try:
    from .octets_viper import mix, spread, total
except Exception:  # whatever fails there, use the functions above
    pass
