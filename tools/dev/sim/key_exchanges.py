"""Key exchanges for many simulated handshakes: each value computed once, or all of it for real.

What a link does to a handshake does not depend on the numbers in a KE payload, only on how many
octets they have. `remembered` keeps those numbers, so that a run takes milliseconds: one key pair
of the sensor's a method, and the gateway's answer to it. All else, SPIs, nonces, keys, ciphers and
AUTH, is made anew in each run. `Board` is the other end of the scale: the sensor's ML-KEM is
firmware's mlkem.py, on MicroPython.
"""

import contextlib
import pathlib
import subprocess
import tempfile

from minipsec.handshake import intermediate
from minipsec.kex import methods
from tools.devgateway import intermediate as gateway_intermediate
from tools.devgateway import sa_init as gateway_init
from tools.dev.setup.interpreter import require_micropython

from tools.dev.peers import kem

ROOT = pathlib.Path(__file__).resolve().parents[3]
SIDES = (methods, intermediate)  # ike takes it from dh at each start
ANSWERS = (gateway_init, gateway_intermediate)


def host(ident):
    """A method of the sensor's under CPython, where firmware's ML-KEM does not run."""
    return kem.method(ident) if ident in kem.PUBLIC else methods.METHODS[ident]


class Board:
    """An ML-KEM key pair of firmware/minipsec/kex/mlkem.py, by way of MicroPython's unix port."""

    ident = None

    def __init__(self, rand, *_):
        self.size = kem.CIPHERTEXT[self.ident]
        self._seed = rand(64)
        (self.public,) = self._run("keygen", self._seed)

    def shared(self, ciphertext):
        public, shared = self._run("decaps", self._seed, bytes(ciphertext))
        assert public == self.public
        return shared

    def wipe(self):
        self._seed = None

    def _run(self, operation, *octets):
        words = [operation, str(self.ident), *(each.hex() for each in octets)]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(" ".join(words) + "\n")
            file.flush()
            done = subprocess.run(
                [require_micropython(), str(ROOT / "tools/dev/sim/mlkem_driver.py"), file.name],
                check=True, env={"MICROPYPATH": f"{ROOT / 'firmware'}:.frozen"},
                capture_output=True, text=True,
            )  # fmt: skip
        return [bytes.fromhex(word) for word in done.stdout.split()]


def board(ident):
    return type("Board", (Board,), {"ident": ident}) if ident in kem.PUBLIC else host(ident)


class Drawn:
    """A `rand(n)` that notes what it gave; `again` draws as much from another one."""

    def __init__(self, rand):
        self.rand = rand
        self.octets = []

    def __call__(self, n):
        self.octets.append(self.rand(n))
        return self.octets[-1]

    def again(self, rand):
        for octets in self.octets:
            rand(len(octets))

    def same(self):
        """A `rand(n)` that gives the same octets once more."""
        left = iter(self.octets)
        return lambda n: next(left)


def remember(method):
    """`method` with one key pair for each transform id, and each secret computed once.

    What is kept draws random octets all the same, so that a run is what its seed makes it.
    """
    known = {}

    def remembered(ident):
        class Remembered:
            def __init__(self, rand, *_):
                if ident in known:
                    known[ident][1].again(rand)
                else:
                    drawn = Drawn(rand)
                    known[ident] = method(ident)(drawn), drawn
                pair, self._drawn = known[ident]
                self.public, self.size = pair.public, pair.size

            def shared(self, peer):
                if (ident, peer) not in known:
                    known[ident, peer] = method(ident)(self._drawn.same()).shared(peer)
                return known[ident, peer]

            def wipe(self):
                pass

        return Remembered

    return remembered


def remember_answers(answer):
    """The gateway's half: the same answer to the same value of a peer's."""
    known = {}

    def remembered(group, peer, rand):
        if (group, peer) in known:
            found, drawn = known[group, peer]
            drawn.again(rand)
        else:
            drawn = Drawn(rand)
            found = answer(group, peer, drawn)
            known[group, peer] = found, drawn
        return found

    return remembered


@contextlib.contextmanager
def using(method, answers=None):
    """Have the sensor take `method(ident)` for its key exchanges, the gateway `answers`."""
    kept = [(module, "method", module.method) for module in SIDES]
    kept += [(module, "answer_exchange", module.answer_exchange) for module in ANSWERS]
    for module, name, real in kept:
        new = method if name == "method" else answers
        setattr(module, name, new or real)
    try:
        yield
    finally:
        for module, name, real in kept:
            setattr(module, name, real)


def remembered():
    """A context in which both ends compute each key exchange value once."""
    return using(remember(host), remember_answers(gateway_init.answer_exchange))
