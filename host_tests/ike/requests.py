"""Requests that a gateway may send under the right ICV, and their answers; for both interpreters."""

import struct

from tools.dev.peers.messages import (
    DELETE_IKE, KE, NONCE, SA, SK, SKF, TSI, TSR, UNKNOWN, D, N, V, notify, proposal, selector,
)  # fmt: skip

EMPTY = []
SYNTAX = [notify(7)]
NO_MORE = [notify(35)]


def critical(kind):
    return [notify(1, bytes((kind,)))]


def delete(protocol, size, count, spis=b""):
    return D, struct.pack(">BBH", protocol, size, count) + spis


THEIRS, STRANGE = b"\xc0\xff\xee\x01", b"\x01\x02\x03\x04"
REKEY = notify(16393)
CHILD = (SA, proposal(1, 3, STRANGE, [(1, 14, 128), (5, 0, 0)]))
REKEYED_IKE = (SA, proposal(1, 1, bytes(8), [(1, 16, 128), (2, 5, 0), (4, 31, 0)]))
PUBLIC = (KE, struct.pack(">HH", 31, 0) + bytes(range(32)))
FRESH = (NONCE, bytes(range(32)))
SELECTORS = [(TSI, selector(bytes(4), b"\xff" * 4)), (TSR, selector(bytes(4), b"\xff" * 4))]

# What the octets inside SK are, and the answer. `True` marks those that end the SA.
INFORMATIONALS = {
    "empty": ({}, EMPTY),
    "an unknown status notify": ({"payloads": [notify(50000, b"x")]}, EMPTY),
    "an error notify": ({"payloads": [notify(24)]}, EMPTY),
    "a vendor ID": ({"payloads": [(V, b"who")]}, EMPTY),
    "an unknown payload": ({"payloads": [(UNKNOWN, b"what")]}, EMPTY),
    "an unknown payload and DELETE": ({"payloads": [(UNKNOWN, b""), DELETE_IKE]}, EMPTY, True),
    "an unknown critical payload": ({"payloads": [(UNKNOWN, b"", True)]}, critical(UNKNOWN)),
    "an unknown critical payload behind DELETE": (
        {"payloads": [DELETE_IKE, (255, b"", True)]},
        critical(255),
    ),
    "payloads that do not belong here": ({"payloads": [CHILD, FRESH, PUBLIC]}, EMPTY),
    "DELETE of the IKE SA": ({"payloads": [DELETE_IKE]}, EMPTY, True),
    "DELETE with its critical bit": ({"payloads": [DELETE_IKE + (True,)]}, EMPTY, True),
    "DELETE twice": ({"payloads": [DELETE_IKE, DELETE_IKE]}, EMPTY, True),
    "DELETE of our Child SA": ({"payloads": [delete(3, 4, 1, THEIRS)]}, EMPTY, True),
    "DELETE of several": ({"payloads": [delete(3, 4, 2, STRANGE + THEIRS)]}, EMPTY, True),
    "DELETE of another Child SA": ({"payloads": [delete(3, 4, 1, STRANGE)]}, EMPTY),
    "DELETE of no Child SA": ({"payloads": [delete(3, 4, 0)]}, EMPTY),
    "DELETE with fewer SPIs than it says": ({"payloads": [delete(3, 4, 2, THEIRS)]}, EMPTY),
    "DELETE with more SPIs than it says": ({"payloads": [delete(3, 4, 0, THEIRS)]}, EMPTY),
    "DELETE with half an SPI": ({"payloads": [delete(3, 4, 1, THEIRS[:2])]}, EMPTY),
    "DELETE with SPIs of 8 octets": ({"payloads": [delete(3, 8, 1, THEIRS * 2)]}, EMPTY),
    "DELETE of AH": ({"payloads": [delete(2, 4, 1, THEIRS)]}, EMPTY),
    "DELETE of an unknown protocol": ({"payloads": [delete(200, 4, 1, THEIRS)]}, EMPTY),
    "DELETE without a body": ({"payloads": [(D, b"")]}, EMPTY),
    "DELETE of 3 octets": ({"payloads": [(D, b"\1\0\0")]}, EMPTY),
    "40 payloads": ({"payloads": [(V, b"")] * 40}, EMPTY),
    "notifies that ask for something else": (
        {"payloads": [notify(16396, b"cookie 2"), notify(16400), notify(40000)]},
        EMPTY,
    ),
    "a notify with its critical bit": ({"payloads": [notify(40000) + (True,)]}, EMPTY),
    "a configuration request": ({"payloads": [(47, b"\3\0\0\0")]}, EMPTY),
    "several unknown payloads": (
        {"payloads": [(UNKNOWN, b"what"), (54, b""), (1, b"")]},
        EMPTY,
    ),
    "DELETE of 65535 Child SAs": ({"payloads": [delete(3, 4, 65535, bytes(8))]}, EMPTY),
    "DELETE of an SPI that is not there": ({"payloads": [delete(3, 4, 1)]}, EMPTY),
}
CHILDREN = {
    "nothing": {},
    "a second Child SA": {"payloads": [CHILD, FRESH] + SELECTORS},
    "a rekeyed Child SA": {"payloads": [REKEY, CHILD, FRESH, PUBLIC] + SELECTORS},
    "a rekeyed IKE SA": {"payloads": [REKEYED_IKE, FRESH, PUBLIC]},
    "an empty SA payload": {"payloads": [(SA, b"")]},
    "an SA payload that ends too soon": {"payloads": [(SA, CHILD[1][:-1])]},
    "a new Child SA of empty selectors": {
        "payloads": [(SA, bytes(8)), FRESH, (TSI, bytes(4)), (TSR, bytes(4))]
    },
    "a notify alone": {"payloads": [notify(7)]},
    "DELETE, which means nothing here": {"payloads": [DELETE_IKE]},
}
# Chains that are no chains: INVALID_SYNTAX, whatever the exchange.
MALFORMED = {
    "a payload that is announced and missing": (N, b""),
    "half a generic header": (N, b"\0\0"),
    "a payload shorter than its header": (N, b"\0\0\0\3"),
    "a payload of no length": (N, b"\0\0\0\0"),
    "a DELETE longer than the message": (D, b"\0\0\0\x09\1\0\0\0"),
    "a DELETE shorter than it is": (D, b"\0\0\0\7\1\0\0\0"),
    "an octet behind a notify": (N, b"\x29\0\0\4\0"),
    "a payload longer than the message": (N, b"\0\0\0\x09"),
    "octets behind the last payload": (N, b"\0\0\0\4" + b"x"),
    "octets although no payload is announced": (0, b"xxxx"),
    "41 payloads": (V, b"\x2b\0\0\4" * 40 + b"\0\0\0\4"),
    "SK inside SK": (SK, b"\0\0\0\4"),
    "DELETE inside SK inside SK": (SK, b"\x2a\0\0\x0c\0\0\0\x08\1\0\0\0"),
    "SKF inside SK": (SKF, b"\0\0\0\x08\0\1\0\1"),
    "SK behind DELETE": (D, b"\x2e\0\0\x08\1\0\0\0" + b"\0\0\0\4"),
}
