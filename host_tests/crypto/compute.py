"""Computes cases on MicroPython: `micropython board.py CASES.json` prints one result a line.

A case is ["seal", key with salt, icv, iv, aad, text], ["open", key, icv, aad, body],
["prf", key, text] or ["prf+", key, seed, size], octets in hex.
"""

import json
import sys

from minipsec.crypto import kdf
from minipsec.crypto.ccm import CCM


def octets(text):
    return bytes.fromhex(text)


def compute(case):
    kind, key = case[0], octets(case[1])
    if kind == "seal":
        icv, iv, aad, text = case[2], octets(case[3]), octets(case[4]), octets(case[5])
        buf = bytearray(text + bytes(icv))
        CCM(key, icv).seal_into(buf, 0, len(text), iv, aad)
        return bytes(buf)
    if kind == "open":
        icv, aad, body = case[2], octets(case[3]), octets(case[4])
        buf = bytearray(body)
        n = len(body) - 8 - icv
        return bytes(buf[8 : 8 + n]) if CCM(key, icv).open_in(buf, 8, n, body[:8], aad) else None
    if kind == "prf":
        return kdf.prf(key, octets(case[2]))
    return kdf.prf_plus(key, octets(case[2]), case[3])


if __name__ == "__main__":
    with open(sys.argv[1]) as f:
        cases = json.load(f)
    for case in cases:
        result = compute(case)
        print("refused" if result is None else result.hex())
