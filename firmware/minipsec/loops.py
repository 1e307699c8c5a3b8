"""The inner loops of ccm and inner, as fast as Python has them: on whole integers, in C.

Where `fast` runs its machine code does the same without leaving garbage.
"""


def xor(out, at, x, x_at, y, y_at, n):
    """Set out[at + i] to x[x_at + i] ^ y[y_at + i] for `n` octets."""
    value = int.from_bytes(memoryview(x)[x_at : x_at + n], "big")
    value ^= int.from_bytes(memoryview(y)[y_at : y_at + n], "big")
    out[at : at + n] = value.to_bytes(n, "big")


def spread(blocks, nonce, size):
    """Write the 12 octets of `nonce` to the head of each 16-octet block of `size` octets."""
    for i in range(0, size, 16):
        blocks[i : i + 12] = nonce


def total(octets, n):
    """Return a number that is, modulo 0xFFFF, the sum of `n` octets as 16-bit words."""
    return int.from_bytes(octets, "big") << (n & 1) * 8


try:
    from .fast import spread, total, xor
except Exception:  # whatever is wrong there, these serve
    pass
