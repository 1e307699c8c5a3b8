"""The same known answers on the unix port, whose integers and AES are a board's."""

import json
import random

import pytest
from minipsec.crypto.cbc import CBC

from host_tests.kex import cases

EXCHANGES = """
import json, os, sys
from minipsec.kex import methods as dh

def half(ident, seed):
    left = [seed]
    def rand(n):
        octets = left.pop() if left else os.urandom(n)
        assert len(octets) == n
        return octets
    return dh.method(ident)(rand)

count = 0
with open(sys.argv[1]) as f:
    for line in f:
        name, ident, seed, peer, shared, public = json.loads(line)
        ours = half(ident, bytes.fromhex(seed))
        if public is not None and ours.public.hex() != public:
            print(name, "public", ours.public.hex())
        got = ours.shared(bytes.fromhex(peer))
        if (got if got is None else got.hex()) != shared:
            print(name, "shared", got)
        count += 1
print(count)
"""


def everything():
    yield from cases.random_cases(cases.X25519, 30, seed=1)
    yield from cases.random_cases(cases.P256, 30, seed=1)
    yield from cases.random_cases(cases.MODP2048, 10, seed=1)
    yield from cases.wycheproof_x25519()
    yield from cases.wycheproof_p256()
    yield from cases.nist_p256()
    yield from cases.short_secrets()
    yield from cases.short_publics()
    for ident, refused in (
        (cases.X25519, cases.refused_x25519),
        (cases.P256, cases.refused_p256),
        (cases.MODP2048, cases.refused_modp),
    ):
        seed = bytes(range(cases.seed_size(ident)))
        good, _ = cases.openssl(ident, seed)
        for name, peer in refused():
            yield cases.Case(name, ident, seed, peer, None)
        for n in (0, 1, len(good) - 1, len(good) + 1, 2 * len(good)):
            yield cases.Case(f"{n} octets", ident, seed, (good + good)[:n], None)


@pytest.mark.item("MIN-19")
def test_exchanges_come_to_the_same_secrets(micropython, tmp_path):
    count = 0
    with open(tmp_path / "exchanges", "w") as f:
        for case in everything():
            values = (
                value.hex() if isinstance(value, bytes) else value
                for value in (
                    case.name,
                    case.ident,
                    case.seed,
                    case.peer,
                    case.shared,
                    case.public,
                )
            )
            print(json.dumps(list(values)), file=f)
            count += 1
    assert count > 1000
    # Little heap, so that the garbage collector comes by in the middle of it.
    done = micropython(EXCHANGES, tmp_path / "exchanges", heap="96k")
    assert done.stdout.split() == [str(count)]


SEALED = """
import json, sys
from minipsec.crypto.cbc import CBC

count = 0
with open(sys.argv[1]) as f:
    for line in f:
        key, mac_key, aad, iv, text, sealed = [bytes.fromhex(x) for x in json.loads(line)]
        assert CBC(key + mac_key, 16).seal(aad, iv, text) == sealed
        assert len(sealed) == CBC(key + mac_key, 16).size(len(text))
        whole = memoryview(aad + sealed)
        head, body = whole[: len(aad)], whole[len(aad):]
        one = CBC(key + mac_key, 16)
        assert one.open(head, body) == text
        assert one.open(head, body) == text
        for at in range(0, len(whole), 7):
            bent = bytearray(whole)
            bent[at] ^= 1 << (at & 7)
            assert one.open(bent[: len(aad)], bent[len(aad):]) is None
        for n in range(0, len(body), 5):
            assert one.open(head, body[:n]) is None
        count += 1
print(count)
"""


def test_cbc_seals_the_same_octets(micropython, tmp_path):
    rng = random.Random(10)
    sizes = [*range(36), 300]
    with open(tmp_path / "sealed", "w") as f:
        for n in sizes:
            key, mac_key = rng.randbytes(16 if n & 1 else 32), rng.randbytes(32)
            aad, iv, text = rng.randbytes(32 + (n & 4)), rng.randbytes(8), rng.randbytes(n)
            sealed = CBC(key + mac_key, 16).seal(aad, iv, text)
            line = [octets.hex() for octets in (key, mac_key, aad, iv, text, sealed)]
            print(json.dumps(line), file=f)
    done = micropython(SEALED, tmp_path / "sealed", heap="96k")
    assert done.stdout.split() == [str(len(sizes))]
