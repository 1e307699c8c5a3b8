"""AES-CCM: the shape that IKE and ESP give it. Its octets are checked in oracles/."""

from host_tests.checklist import item
from minipsec.crypto.ccm import CCM, equal

KEY = bytes(range(16)) + b"slt"
IV = b"\0\0\0\0\0\0\0\1"


def test_what_was_sealed_opens():
    for icv in (8, 12, 16):
        for size in (0, 1, 14, 15, 16, 17, 31, 32, 100, 1200):
            text = bytes(i & 255 for i in range(size))
            sealed = CCM(KEY, icv).seal(b"header", IV, text)
            assert len(sealed) == CCM(KEY, icv).size(size) == 8 + size + 1 + icv
            assert bytes(sealed[:8]) == IV
            assert bytes(CCM(KEY, icv).open(b"header", sealed)) == text, (icv, size)


def test_one_object_may_seal_and_open_many_times():
    ccm = CCM(KEY, 16)
    fresh = [
        bytes(CCM(KEY, 16).seal(b"a" * (n + 1), bytes(7) + bytes((n,)), b"t" * n))
        for n in range(40)
    ]
    for n in range(40):
        assert bytes(ccm.seal(b"a" * (n + 1), bytes(7) + bytes((n,)), b"t" * n)) == fresh[n]
    for n in reversed(range(40)):
        assert ccm.open(b"a" * (n + 1), fresh[n]) == b"t" * n


def test_after_a_failed_opening_the_next_one_works():
    ccm = CCM(KEY, 8)
    sealed = bytes(ccm.seal(b"h", IV, b"reading"))
    for at in range(len(sealed)):
        for bit in (1, 0x80):
            wrong = bytearray(sealed)
            wrong[at] ^= bit
            assert ccm.open(b"h", wrong) is None, at
            assert ccm.open(b"h", sealed) == b"reading"


def test_nothing_but_the_same_key_salt_header_and_length_opens():
    sealed = CCM(KEY, 8).seal(b"header", IV, b"reading")
    other_key = bytes((1,)) + KEY[1:]
    other_salt = KEY[:-1] + b"x"
    assert CCM(other_key, 8).open(b"header", sealed) is None
    assert CCM(other_salt, 8).open(b"header", sealed) is None
    assert CCM(KEY, 12).open(b"header", sealed) is None
    assert CCM(KEY, 16).open(b"header", sealed) is None
    for header in (b"h", b"heade", b"header\0", b"headex"):
        assert CCM(KEY, 8).open(header, sealed) is None


def test_every_truncation_is_refused():
    ccm = CCM(KEY, 8)
    sealed = bytes(ccm.seal(b"h", IV, b"a reading of some length"))
    for size in range(len(sealed)):
        assert ccm.open(b"h", sealed[:size]) is None, size


def test_the_opened_body_itself_stays_as_it_was():
    sealed = bytes(CCM(KEY, 16).seal(b"h", IV, b"reading"))
    copy = bytes(sealed)
    CCM(KEY, 16).open(b"h", sealed)
    assert sealed == copy


def padded(text, pad):
    """Seal by hand with a padding of our choice: `text` already holds its Pad Length."""
    ccm = CCM(KEY, 8)
    out = bytearray(8 + len(text) + 8)
    out[:8] = IV
    out[8 : 8 + len(text)] = text
    ccm.seal_into(out, 8, len(text), IV, b"h")
    return ccm.open(b"h", out)


@item("MIN-41")
def test_any_padding_that_fits_is_taken_off():
    for pad in range(256):
        got = padded(b"inner" + bytes(pad) + bytes((pad,)), pad)
        assert got is not None and bytes(got) == b"inner", pad
    assert bytes(padded(bytes(255) + b"\xff", 255)) == b""
    for text in (b"\1", b"abc\4", bytes(254) + b"\xff"):
        assert padded(text, text[-1]) is None


@item("MIN-41")
def test_our_own_padding_is_the_shortest():
    assert CCM(KEY, 8).size(10) == 8 + 10 + 1 + 8


def test_keys_of_32_octets_serve_too():
    key = bytes(range(32)) + b"slt"
    sealed = CCM(key, 12).seal(b"h", IV, b"reading")
    assert bytes(CCM(key, 12).open(b"h", sealed)) == b"reading"
    assert CCM(key[16:], 12).open(b"h", sealed) is None


def test_text_beyond_4096_octets_counts_its_blocks_in_two_octets():
    text = bytes(range(256)) * 20
    sealed = CCM(KEY, 16).seal(b"h", IV, text)
    assert bytes(CCM(KEY, 16).open(b"h", sealed)) == text
    blocks = {bytes(sealed[8 + i : 24 + i]) for i in range(0, 256 * 20, 256)}
    assert len(blocks) == 20


def test_equal_compares_all():
    assert equal(b"", b"") and equal(b"abc", memoryview(b"abc"))
    assert not equal(b"abc", b"abd") and not equal(b"abc", b"xbc")
    assert not equal(b"abc", b"ab") and not equal(b"", b"a")
