"""The table of ciphers: what each row says, and that a row and a module are all of a new cipher."""

import sys
import types

import pytest

from tools.dev.peers.node import Rand, profile
from minipsec.config import proposals
from minipsec.config.keylog import write_keylog
from minipsec.crypto import suites
from minipsec.errors import Drop
from minipsec.esp.sa import Receiver, Sender
from minipsec.esp.sequence import Sequence
from minipsec.esp.snapshot import fresh, load
from minipsec.handshake.sa_init import Handshake
from minipsec.ike.sa import IkeSa

# Transform id: octets of salt, integrity key, IV, ICV; what ESP pads to; class.
KNOWN = {
    12: (0, 32, 16, 16, 0, "CBC"),  # RFC 7296 §3.14, RFC 4868 §2.1.1; not in ESP
    14: (3, 0, 8, 8, 4, "CCM"),  # RFC 4309 §3, RFC 5282 §7
    15: (3, 0, 8, 12, 4, "CCM"),
    16: (3, 0, 8, 16, 4, "CCM"),
    29: (3, 0, 0, 8, 4, "CCM"),  # RFC 8750 §5
}
ENDS = bytes((10, 9, 0, 1)), bytes((10, 3, 0, 10)), 5000, 5000


def ciphers():
    """(word, transform id, octets of an AES key) of all ciphers that a profile may name."""
    rows = [line.split() for line in proposals.TRANSFORMS.strip().split("\n")]
    return [(word, int(ident), int(bits) // 8) for word, kind, ident, bits in rows if kind == "1"]


def test_each_word_of_a_profile_for_a_cipher_has_a_row():
    assert {ident for _, ident, _ in ciphers()} == set(KNOWN)
    assert {(ident, size) for _, ident, size in ciphers()} == {
        (ident, size) for ident in KNOWN for size in (16, 32)
    }
    for word, ident, size in ciphers():
        assert proposals.transform(word) == (1, ident, 8 * size)
        assert proposals.word_of(1, ident, 8 * size) == word


@pytest.mark.parametrize("ident", KNOWN)
def test_a_row_says_what_the_rfcs_say(ident):
    salt, mac, iv, icv, pad, name = KNOWN[ident]
    assert tuple(suites.suite(ident)[:5]) == (salt, mac, iv, icv, pad)
    for size in (16, 32):
        assert suites.key_sizes(ident, 8 * size) == (size + salt, mac)
        key = bytes(range(size + salt + mac))
        one, other = suites.aead(ident, key), suites.aead(ident, key)
        assert type(one).__name__ == name and one.icv == icv
        body = one.seal(b"header", bytes(7) + b"\1", b"text")
        assert len(body) == one.size(4) and other.open(b"header", body) == b"text"


def test_what_is_in_no_row_is_no_cipher():
    with pytest.raises(IndexError):
        suites.suite(20)


class Nul:
    """A cipher of 4 octets of salt, 16 of ICV, in the shape that suites tells of."""

    def __init__(self, key, icv):
        self.key, self.icv = key, icv

    def size(self, n):
        return 8 + n + 1 + self.icv

    def seal_into(self, buf, at, n, iv, aad):
        buf[at + n : at + n + self.icv] = self.key[-4:] * 2 + bytes(iv)

    def open_in(self, buf, at, n, iv, aad):
        return buf[at + n : at + n + self.icv] == self.key[-4:] * 2 + bytes(iv)


@pytest.fixture
def nul(monkeypatch):
    """A new cipher: its row and its module, nothing else."""
    rows = suites.ROWS + b"\xc8\x04\x00\x08\x10\x08nul"
    rest = proposals.TRANSFORMS[len(proposals._ciphers()) :]
    for module in suites, proposals:
        monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(proposals, "TRANSFORMS", proposals._ciphers() + rest)
    module = types.ModuleType("minipsec.crypto.nul")
    module.NUL = Nul
    monkeypatch.setitem(sys.modules, "minipsec.crypto.nul", module)
    return 200


def test_a_new_ciphers_words_are_good_in_a_profile(nul):
    p = profile(ike=["aes256nul16-prfsha256-x25519"], esp=["aes128nul128", "aes256nul"])
    assert p["ike"][0][1][0] == (1, nul, 256)
    assert [one[1][0] for one in p["esp"]] == [(1, nul, 128), (1, nul, 256)]
    assert p["words"][1, nul, 128] == "aes128nul16"


def test_a_new_cipher_has_keys_of_its_size_in_ike(nul):
    ike = IkeSa(profile(), Rand(b"nul"))
    handshake = Handshake(ike)
    handshake.n_i = handshake.n_r = bytes(32)
    handshake.picked = {1: (nul, 256)}
    handshake.make_keys(bytes(32))
    for end in (ike.tx, ike.rx):
        assert type(end) is Nul and len(end.key) == 36 and end.icv == 16
    assert ike.tx.key != ike.rx.key


@pytest.mark.parametrize("size", range(1, 9))
def test_a_new_cipher_carries_esp(nul, size):
    made = {"spi_in": b"spi4", "spi_out": b"spi4", "cipher": nul}
    made["key_in"] = made["key_out"] = bytes(range(20))
    packet = bytes(Sender(made, ENDS, Sequence(0)).seal(b"x" * size, 0))
    n = len(packet) - 16 - 16  # without SPI, SN, IV and ICV
    assert n % 8 == 0 and 28 + size + 2 <= n < 28 + size + 2 + 8
    assert packet[-16:] == bytes(range(16, 20)) * 2 + packet[8:16]
    assert Receiver(made, ENDS, 64).open(packet) == b"x" * size
    for wrong, reason in ((packet[:-1] + b"?", "BAD_ICV"), (packet[:-4], "BAD_LENGTH")):
        with pytest.raises(Drop, match=reason):
            Receiver(made, ENDS, 64).open(wrong)


def test_a_new_cipher_outlives_a_sleep(nul):
    class Memory(dict):
        read = dict.get
        erase = dict.clear

        def write(self, name, octets):
            self[name] = octets
            return True

    p, memory = profile(sleep="clock", interval_ms=1000), Memory()
    made = {"spi_in": b"spi4", "spi_out": b"spi4", "cipher": nul, "port": 5, "nat": False}
    made.update(transport=False, esn=False, key_in=bytes(36), key_out=bytes(36))
    made.update(inner=ENDS[0], server=ENDS[1])
    sa = fresh(p, memory, made, p["gateway"][0], 0, 0)
    assert sa.save(1, sa.window, 10)
    assert load(p, memory, 0, 20).child == {**made, "nat": 0, "transport": 0, "esn": 0}


def test_a_new_cipher_stands_in_the_key_log(nul, tmp_path):
    path = tmp_path / "keys"
    path.touch(0o600)
    keys = bytes(36), bytes(36), b"", b""
    write_keylog(str(path), (b"spi_i", b"spi_r", {1: (nul, 256)}, *keys))
    assert '"AES-NUL-256 with 16 octet ICV [RFC5282]"' in path.read_text()
