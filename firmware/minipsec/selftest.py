"""Known answers, computed on the board itself: `from minipsec import selftest; selftest.run()`.

A line each, with the milliseconds it took; True when all is well.  On a PC also
`micropython -m minipsec.selftest`.  A wrong line means that nothing here may be trusted, neither
keys nor tunnels: wrong firmware, damaged flash, or an accelerator that does not suit the chip.
"""

import sys
import time

from . import forget

_KEY = bytes(range(16)) + b"\xa0\xa1\xa2"  # AES-128 and the salt


def _aes():
    # FIPS 197 appendix C.1
    from cryptolib import aes

    text = bytes([17 * i for i in range(16)])
    return aes(_KEY[:16], 1).encrypt(text), "69c4e0d86a7b0430d8cdb78070b4c55a"


def _sha256():
    # FIPS 180-4, "abc"
    from hashlib import sha256

    return sha256(b"abc").digest()[:16], "ba7816bf8f01cfea414140de5dae2223"


def _hmac():
    # RFC 4231 §4.3
    from .crypto.kdf import prf

    return prf(b"Jefe", b"what do ya want for nothing?")[:16], "5bdcc146bf60754e6a042426089575c7"


def _prf_plus():
    from .crypto.kdf import prf_plus

    return prf_plus(b"key", b"seed", 80)[64:], "3fe3d2fbd6641ff544749daa37804f04"


def _drbg():
    # HMAC_DRBG.rsp of NIST's drbgvectors_no_reseed
    from .crypto.drbg import DRBG

    seed = "ca851911349384bffe89de1cbdc46e6831e44d34a4fb935ee285dd14b71a7488"
    drbg = DRBG(bytes.fromhex(seed + "659ba96c601dc69fc902940805ec0ca8"))
    drbg.generate(128)
    return drbg.generate(128)[:16], "e528e9abf2dece54d47c7e75e5fe3021"


def _ccm():
    from .crypto.ccm import CCM

    ccm = CCM(_KEY, 16)
    iv = bytes(range(1, 9))
    for n in (1, 40):  # the second one reuses work space
        sealed = ccm.seal(b"header", iv, bytes(range(n)))
    if ccm.open(b"header", sealed) != bytes(range(40)):
        return b"opened", ""
    if ccm.open(b"Header", sealed) is not None:
        return b"forged", ""
    return sealed[-24:], "88b9440a734c3242d70c67216741742ac0055dbe96ceefa9"


def _x25519():
    # RFC 7748 §5.2, the first one
    from .kex.methods import method

    scalar = "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"
    u = "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"
    shared = method(31)(lambda n: bytes.fromhex(scalar)).shared(bytes.fromhex(u))
    return shared[:16], "c3da55379de9c6908e94ea4df28d084f"


def _esp():
    from .esp.sa import Receiver, Sender
    from .esp.sequence import ReplayWindow, Sequence

    child = {"spi_out": b"\1\2\3\4", "key_out": _KEY, "cipher": 14}
    child["spi_in"], child["key_in"] = child["spi_out"], _KEY
    ends = b"\x0a\x09\0\5", b"\x0a\3\0\x0a", 5000, 5000
    packet = bytes(Sender(child, ends, Sequence(0)).seal(b"21.5", 0))
    receiver = Receiver(child, ends, ReplayWindow(64))
    right = receiver.open(packet) == b"21.5"
    try:
        right = not receiver.open(packet)
    except Exception as e:
        right = right and str(e) == "REPLAY"
    return right and packet[-24:], "5a992533b88bd84665caad1bddec827ea32175457ea52134"


def _sequence():
    from .esp.sequence import Sequence

    numbers = Sequence(0, 100)
    return bytes([numbers.next(now) for now in (0, 0, 1000, 500, 1100)]), "01020b0c0d"


def _keccak():
    # FIPS 202, SHA3-256 of "abc"
    from .kex.keccak import Sponge

    out = bytearray(16)
    sponge = Sponge()
    sponge.start(0x8806)
    sponge.absorb(b"abc")
    sponge.squeeze(out, 0, 16)
    return out, "3a985da74fe225b2045c172d6bd390bd"


def _ml_kem():
    # FIPS 203, ML-KEM-512: the key pair of a seed, and the secret for a bad ciphertext
    from .kex.mlkem import method

    pair = method(35)(lambda n: bytes(range(n)))
    return pair.public[-40:-32] + pair.shared(bytes(768))[:8], "362f084a14467723fc3ccf20a37dd91d"


_CHECKS = (
    ("aes", _aes),
    ("sha-256", _sha256),
    ("hmac", _hmac),
    ("prf+", _prf_plus),
    ("drbg", _drbg),
    ("aes-ccm", _ccm),
    ("x25519", _x25519),
    ("esp", _esp),
    ("sequence", _sequence),
    ("keccak", _keccak),
    ("ml-kem", _ml_kem),
)


def run():
    """Run all checks and print a line for each; return True if all is well."""
    good = True
    before = set(sys.modules)
    for name, check in _CHECKS:
        began = time.ticks_ms()
        try:
            got, wanted = check()
            word = "ok" if bytes(got) == bytes.fromhex(wanted) else "WRONG"
        except ImportError as e:
            # Post-quantum modules may be left out.
            word = "absent" if name in ("keccak", "ml-kem") else "WRONG: %s" % e
        except Exception as e:
            word = "WRONG: %r" % e
        good = good and word in ("ok", "absent")
        # A small heap has no room for all of them at once.
        forget(*[m[9:] for m in sys.modules if m not in before and m.startswith("minipsec.")])
        print("%-8s %s, %d ms" % (name, word, time.ticks_diff(time.ticks_ms(), began)))
    print("selftest", "passed" if good else "FAILED")
    return good


if __name__ == "__main__":
    sys.exit(not run())
