"""Edges of AES-CCM's work space that one changed character would move."""

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from minipsec.crypto import ccm
from minipsec.crypto.ccm import CCM


def sealed(n, cipher=CCM(bytes(range(19)), 8)):
    """Seal `n` octets; return the work space that stays."""
    buf = bytearray(n + 16)
    cipher.seal_into(buf, 0, n, bytes(8), bytes(8))
    return ccm._work


def test_work_space_for_a_packet_of_the_usual_size_stays_and_for_a_larger_one_goes():
    first = sealed(1344 - 32)
    assert len(first[0]) == 1344
    for n in (0, 1, 16, 1000, 1344 - 32):
        assert sealed(n) is first
    for n in (1344 - 31, 3000):
        assert sealed(n) is first


def test_a_new_key_begins_with_little_work_space_whatever_earlier_messages_took():
    assert len(sealed(1000)[0]) > 1000 and ccm._plans
    small = CCM(bytes(19), 8)
    assert [len(part) for part in ccm._work] == [128] * 3 and not ccm._plans
    assert sealed(16, small) is ccm._work and len(ccm._plans) == 1
    kept = ccm._work, dict(ccm._plans)
    CCM(bytes(19), 8)  # there is nothing to let go of
    assert (ccm._work, ccm._plans) == kept


def test_a_size_that_is_remembered_serves_that_size_alone():
    """Half of it, twice of it, and the same sum with the AAD."""
    key = bytes(range(16))
    ours = CCM(key + bytes(3), 16)
    for n in (64, 32, 16, 8, 4, 8, 16, 32, 64, 128):
        for k in (8, 16, 12):
            text, aad, iv = bytes(range(n)), bytes(range(k)), bytes([n, k]) + bytes(6)
            buf = bytearray(text) + bytes(16)
            ours.seal_into(buf, 0, n, iv, aad)
            assert buf == AESCCM(key, 16).encrypt(bytes(3) + iv, text, aad)


def test_each_part_of_the_work_space_is_as_long_as_the_others():
    for part in sealed(700)[:3]:
        assert len(part) == len(ccm._work[0])


def test_buffers_that_machine_code_writes_to_have_their_size_from_the_start():
    key = CCM(bytes(range(19)), 8)
    for _ in range(2):
        assert (len(key._tag), len(key._head), len(key._first)) == (16, 4, 4)
        key.seal_into(bytearray(40), 0, 20, bytes(8), bytes(8))


def test_additional_data_of_each_length_is_what_openssl_makes_of_it():
    key = bytes(range(16))
    for n in (0, 1, 15, 16, 17):
        text = bytes(range(100, 100 + n))
        for k in range(1, 70):  # IKE and ESP always have some
            aad = bytes(range(k))
            buf = bytearray(text + bytes(16))
            CCM(key + b"abc", 16).seal_into(buf, 0, n, bytes(8), aad)
            assert buf == AESCCM(key, 16).encrypt(b"abc" + bytes(8), text, aad)


def test_plans_of_eight_sizes_are_kept_and_all_lie_in_the_present_work_space():
    cipher = CCM(bytes(19), 8)

    def seal(n):
        cipher.seal_into(memoryview(bytearray(n + 8)), 0, n, bytes(8), bytes(8))

    seal(1300)  # the largest: no other work space comes after it
    ccm._plans.clear()
    for count, n in enumerate((4, 8, 12, 16, 20, 24, 28, 32), 1):
        seal(n)
        assert len(ccm._plans) == count
    seal(36)
    assert len(ccm._plans) == 1
    ccm._work = ccm._make(128)
    ccm._plans.clear()
    for n in (4, 200, 8, 400):
        seal(n)
        assert all(plan[5] is ccm._work[2] for plan in ccm._plans.values())


def test_nothing_is_written_behind_the_end_of_a_buffer(monkeypatch):
    """Python's would grow; machine code would write over what is there."""

    def within(real):
        def checked(out, at, x, x_at, n, end=0):
            assert at + n <= len(out) and x_at + n <= len(x) and end <= len(out)
            real(out, at, x, x_at, n, *(() if real.__name__ == "xor" else (end,)))

        return checked

    for name in ("copy", "xor"):
        monkeypatch.setattr(ccm, name, within(getattr(ccm, name)))
    cipher = CCM(bytes(range(19)), 16)
    for n in (0, 1, 15, 16, 100):
        sealed = cipher.seal(bytes(20), bytes(8), bytes(n))
        assert len(sealed) == 8 + n + 1 + 16
        assert cipher.open(bytes(20), sealed) == bytes(n)
