"""Play recorded sessions to the core again, on CPython and on the unix port.

`Replay(session)` holds a Node; `step()` does the next step (record.py says what a session holds).
With `exact=True` it compares what the core sends with what it sent when the session was recorded.
Without, a core that words its requests differently plays on: the gateway's answers hold as long
as SPI, nonce and key exchange come from the same `rand`.
"""

import json
import os

from tools.dev.peers.node import SECRETS, Node, Rand, profile
from minipsec.ike import established

SESSIONS = __file__.rsplit("/", 4)[0] + "/host_tests/recorded/sessions"
AGAIN = "the core's octets changed: run python -m tools.dev.peers.record"


def names():
    return sorted(name[:-5] for name in os.listdir(SESSIONS) if name.endswith(".json"))


def load(name):
    with open(SESSIONS + "/" + name + ".json") as f:
        return json.load(f)


def _end(value):
    return value and (bytes.fromhex(value[0]), value[1])


class Replay:
    """One session at one step. `inputs` are the indices of its incoming datagrams."""

    def __init__(self, session, exact=False, keylog=None):
        self.exact = exact
        self.session = session
        self.steps = session["steps"]
        changes = dict(session["profile"])
        if keylog:
            changes["keylog"] = keylog
        self.node = Node(
            profile(session["secrets"], **changes), Rand(bytes.fromhex(session["seed"]))
        )
        self.at = 0
        self.inputs = [i for i, step in enumerate(self.steps) if step[0] == "in"]

    def datagram(self, index):
        return bytes.fromhex(self.steps[index][2])

    def sent(self):
        """Every datagram that the core sent so far."""
        return self.node.out

    def step(self):
        """Do the next step; False at the end."""
        if self.at == len(self.steps):
            return False
        node = self.node
        kind, now, value = self.steps[self.at]
        self.at += 1
        got = len(node.got)
        out = []
        if kind == "start":
            out = node.start(now, _end(value["local"]), _end(value["remote"]))
        elif kind == "in":
            out = node.receive(bytes.fromhex(value), now)
        elif kind == "timer":
            out = node.timer(now)
        elif kind == "send":
            out = [node.send(bytes.fromhex(value), now)]
        elif kind == "check":
            out = node.call(established.check, now)
        elif kind == "delete":
            out = node.call(established.delete, now)
        else:
            raise ValueError(kind)
        if self.exact:
            for datagram in out:
                assert self._take("out") == datagram.hex(), AGAIN
            assert self._take("out") is None, AGAIN
        while self._take("out"):
            pass
        for payload in node.got[got:]:
            assert self._take("got") == payload.hex()
        return True

    def _take(self, kind):
        if self.at == len(self.steps) or self.steps[self.at][0] != kind:
            return None
        self.at += 1
        return self.steps[self.at - 1][2]

    def to(self, index):
        """Step until the step at `index` is the next; return self."""
        while self.at < index:
            self.step()
        return self

    def to_end(self):
        while self.step():
            pass
        return self
