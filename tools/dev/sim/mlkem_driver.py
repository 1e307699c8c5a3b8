"""Runs under MicroPython: many ML-KEM and hash cases in one process.

`micropython driver.py FILE`: each line of FILE is an operation and its arguments, octets in
hexadecimal and `-` for none; each line printed is its answer.
"""

import sys
from binascii import hexlify, unhexlify

from minipsec.kex import keccak, mlkem


def octets(word):
    return b"" if word == "-" else unhexlify(word)


def text(value):
    return "none" if value is None else hexlify(value).decode() or "-"


def rand(value):
    """A source of randomness that has just these octets to give."""

    def take(n):
        assert len(value) == n, n
        return value

    return take


def keygen(number, seed):
    return text(mlkem.method(int(number))(rand(octets(seed))).public)


def encaps(number, ek, m):
    found = mlkem.method(int(number)).encaps(octets(ek), rand(octets(m)))
    return "none" if found is None else text(found[0]) + " " + text(found[1])


def decaps(number, seed, c):
    """The encapsulation key, and what its owner makes of a ciphertext."""
    pair = mlkem.method(int(number))(rand(octets(seed)))
    return text(pair.public) + " " + text(pair.shared(octets(c)))


def each_octet(number, seed, c, mask):
    """The secrets for c with one octet changed, at each place of it."""
    kem = mlkem.method(int(number))
    seed = octets(seed)
    c = bytearray(octets(c))
    for place in range(len(c)):
        c[place] ^= int(mask)
        print(text(kem(rand(seed)).shared(c)), end=" ")
        c[place] ^= int(mask)
    return ""


def digest(kind, size, cut, data):
    """A hash of the message fed in two parts, the output taken in two as well."""
    data = octets(data)
    size = int(size)
    cut = int(cut)
    sponge = keccak.Sponge()
    sponge.start(int(kind))
    sponge.absorb(data, 0, min(cut, len(data)))
    sponge.absorb(data, min(cut, len(data)))
    out = bytearray(size)
    sponge.squeeze(out, 0, min(cut, size))
    sponge.squeeze(out, min(cut, size), size - min(cut, size))
    return text(out)


def lines(path):
    """The lines of a file, read in pieces: the port's own readline takes octet for octet."""
    rest = b""
    with open(path, "rb") as file:
        while True:
            piece = file.read(1 << 14)
            if not piece:
                break
            found = (rest + piece).split(b"\n")
            rest = found.pop()
            yield from found


def main():
    operations = {f.__name__: f for f in (keygen, encaps, decaps, each_octet, digest)}
    for line in lines(sys.argv[1]):
        words = line.decode().split()
        print(operations[words[0]](*words[1:]))


main()
