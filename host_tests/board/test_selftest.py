"""selftest.py: passes where all is well, and notices when something is not."""

import hashlib
import hmac
import os
import re
import subprocess

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from kyber_py.ml_kem import ML_KEM_512
from scapy.layers.inet import IP, UDP

from tools.common import mpy

KEY, SALT = bytes(range(16)), b"\xa0\xa1\xa2"


def figure(root, name):
    """The hex digits that selftest's function `name` ends with."""
    source = (root / "firmware/minipsec/selftest.py").read_text()
    body = source.split(f"def {name}():")[1].split("\n\n\n")[0]
    return bytes.fromhex(re.findall(r'"([0-9a-f]+)"', body)[-1])


def lines(output):
    return {line.split()[0]: line.split(",")[0].split()[1] for line in output.splitlines()}


def test_it_passes_on_the_unix_port_from_source_and_as_a_program(micropython, root):
    done = micropython("from minipsec import selftest\nprint(selftest.run())")
    found = lines(done.stdout.replace("True\n", ""))
    assert set(found.values()) == {"ok", "passed"} and len(found) == 12
    assert done.stdout.endswith("selftest passed\nTrue\n")


def test_it_is_a_program_too(micropython_path, root):
    done = subprocess.run(
        [micropython_path, "-m", "minipsec.selftest"],
        check=False,
        env={**os.environ, "MICROPYPATH": f"{root / 'firmware'}:.frozen"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "selftest passed" in done.stdout


def test_it_passes_as_boards_have_it(micropython, tmp_path):
    mpy.stage(tmp_path / "here")
    program = (
        f"import sys\nsys.path[:] = [{str(tmp_path / 'here')!r}, '.frozen']\n"
        "from minipsec import selftest\nselftest.run()"
    )
    assert "selftest passed" in micropython(program, heap="128k").stdout


def test_without_the_post_quantum_modules_it_says_so_and_passes(micropython, tmp_path):
    mpy.stage(tmp_path / "here")
    for name in ("keccak", "mlkem"):
        (tmp_path / f"here/minipsec/kex/{name}.mpy").unlink()
    program = (
        f"import sys\nsys.path[:] = [{str(tmp_path / 'here')!r}, '.frozen']\n"
        "from minipsec import selftest\nselftest.run()"
    )
    found = lines(micropython(program).stdout)
    assert found["keccak"] == found["ml-kem"] == "absent"
    assert found["selftest"] == "passed"


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        ("from minipsec.app import log as report", set()),
        (
            "from minipsec.crypto import kdf\nkdf.HMAC.digest = lambda self, *parts: bytes(32)",
            {"hmac", "prf+", "drbg"},
        ),
        (
            "from minipsec.kex import methods as dh\nreal = dh._ladder\ndh._ladder = lambda k, u: real(k, u) ^ 1",
            {"x25519"},
        ),
        (
            "from minipsec.crypto import ccm\nreal = ccm.CCM.seal_into\n"
            "def seal_into(self, buf, *rest):\n"
            "    tag = real(self, buf, *rest)\n"
            "    buf[10] ^= 1\n"
            "    return tag\n"
            "ccm.CCM.seal_into = seal_into",
            {"aes-ccm", "esp"},
        ),
        (
            "from minipsec.esp import sequence\nsequence.ReplayWindow.check = lambda self, sn: True",
            {"esp"},
        ),
        (
            "from minipsec.esp import sequence\nreal = sequence.Sequence.next\n"
            "sequence.Sequence.next = lambda self, now: real(self, now) + 1",
            {"esp", "sequence"},
        ),
        (
            "from minipsec.crypto import drbg\n"
            "drbg.DRBG.reseed = lambda self, octets: setattr(self, '_mac', drbg.HMAC(octets))",
            {"drbg"},
        ),
        (
            "import sys\nimport minipsec.crypto\nsys.modules['minipsec.crypto.ccm'] = None",
            {"aes-ccm"},
        ),
    ],
)
def test_what_is_broken_is_named(micropython, broken, names):
    done = micropython(broken + "\nfrom minipsec import selftest\nprint(selftest.run())")
    found = lines(done.stdout.replace("True\n", "").replace("False\n", ""))
    wrong = {name for name, word in found.items() if word.startswith("WRONG")}
    assert wrong >= names if "None" in broken else wrong == names
    assert done.stdout.endswith("FAILED\nFalse\n" if names else "passed\nTrue\n")


def test_its_figures_are_those_of_other_implementations(root):
    def prf_plus(key, seed, n):
        out = block = b""
        while len(out) < n:
            i = bytes([len(out) // 32 + 1])
            block = hmac.digest(key, block + seed + i, "sha256")
            out += block
        return out[:n]

    assert figure(root, "_sha256") == hashlib.sha256(b"abc").digest()[:16]
    assert figure(root, "_keccak") == hashlib.sha3_256(b"abc").digest()[:16]
    assert figure(root, "_prf_plus") == prf_plus(b"key", b"seed", 80)[64:]
    iv = bytes(range(1, 9))
    sealed = AESCCM(KEY, 16).encrypt(SALT + iv, bytes(range(40)) + b"\0", b"header")
    assert figure(root, "_ccm") == sealed[-24:]
    seed = bytes(range(64))
    ek, dk = ML_KEM_512._keygen_internal(seed[:32], seed[32:])
    assert figure(root, "_ml_kem") == ek[-40:-32] + ML_KEM_512.decaps(dk, bytes(768))[:8]


def test_its_esp_packet_opens_elsewhere_and_holds_what_it_should(root, micropython):
    program = "from minipsec import selftest\nprint(bytes(selftest._esp()[0]).hex())"
    assert bytes.fromhex(micropython(program).stdout) == figure(root, "_esp")
    header = IP(src="10.9.0.5", dst="10.3.0.10", ttl=64, id=0, flags="DF")
    for flags in ("DF", 0):
        for ttl in (64, 255):
            packet = header.copy()
            packet.flags, packet.ttl = flags, ttl
            text = bytes(packet / UDP(sport=5000, dport=5000) / b"21.5")
            pad = -(len(text) + 2) % 4
            text += bytes(range(1, pad + 1)) + bytes([pad, 4])
            head = b"\1\2\3\4" + (1).to_bytes(4, "big")
            iv = (1).to_bytes(8, "big")
            sealed = AESCCM(KEY, 8).encrypt(SALT + iv, text, head)
            if sealed[-24:] == figure(root, "_esp"):
                return
    raise AssertionError("no inner header gives that packet")
