"""Sessions for the footprint, as JSON on standard output: `python -m tools.dev.footprint.record`.

With strongSwan, from host_tests/recorded; with ML-KEM, recorded now with the development gateway.
The sensor is the core under CPython, its ML-KEM OpenSSL's.  For each key exchange two sessions,
the second for the SA that replaces the first: {name: {"profile", "seeds", "datagrams"}}, where
a datagram is the gateway's in hex, or null for one of ours.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "firmware"), str(ROOT / "tools/dev/shims")]

from tools.dev.peers import kem

sys.modules["minipsec.kex.mlkem"] = kem

import minipsec.kex
from tools.dev.peers.node import SECRETS
from tools.dev.peers.record import DevLink, Recording
from tools.dev.peers.replay import load

minipsec.kex.mlkem = kem

READINGS = 10


def recorded(changes, seed):
    """Record a handshake and readings with the development gateway."""
    link = DevLink(b"gateway " + seed)
    recording = Recording(link, seed, changes)
    recording.start((bytes((10, 77, 0, 2)), 40500), (bytes((10, 77, 0, 1)), 500))
    recording.run(lambda node: node.state == "UP")
    for n in range(READINGS):
        recording.send(b'{"n": %d, "t": 21.5}' % n)
        recording.run(lambda node, n=n: len(node.got) > n)
    return recording.session


def datagrams(session):
    return [
        value if kind == "in" else None
        for kind, _, value in session["steps"]
        if kind in ("in", "out")
    ]


def pair(changes, *sessions):
    return {
        "profile": changes,
        "secrets": SECRETS,
        "seeds": [session["seed"] for session in sessions],
        "datagrams": [datagrams(session) for session in sessions],
    }


def main():
    classic = {"ike": ["aes128ccm16-prfsha256-x25519"]}
    hybrid = {"pq": "require"}
    made = {
        "X25519": pair(classic, load("charon-virtual"), load("devgateway-plain")),
        "X25519, ML-KEM-768": pair(hybrid, *(recorded(hybrid, seed) for seed in (b"one", b"two"))),
    }
    json.dump(made, sys.stdout)


if __name__ == "__main__":
    main()
