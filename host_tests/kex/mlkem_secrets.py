"""What is left of secrets after each operation, and what memory it takes.  Runs under MicroPython.

The sizes hold for the unix port, where objects take twice what they take on a board.
"""

import gc

from minipsec.kex import mlkem

SEED = bytes(range(64))
KEEP = []


class Work(mlkem._Work):
    def __init__(self, k):
        super().__init__(k)
        KEEP.append(self)


mlkem._Work = Work


def rand(n):
    return SEED[:n]


def sets():
    return [mlkem.method(number) for number in (35, 36, 37)]


def assert_wiped():
    assert KEEP
    for work in KEEP:
        for buffer in work.vector + [work.sum, work.term]:
            assert buffer == bytes(512)
        assert work.sponge.work[:400] == bytes(400)
        assert work.sponge.work[400] == 1
    KEEP.clear()


def test_nothing_stays_in_the_buffers_of_an_operation():
    for kem in sets():
        KEEP.clear()
        pair = kem(rand)
        assert_wiped()
        c, secret = kem.encaps(pair.public, rand)
        assert_wiped()
        assert pair.shared(c) == secret
        assert_wiped()
        assert kem.encaps(b"\xff" * len(pair.public), rand) is None
        assert_wiped()


def test_the_private_key_is_gone_after_use():
    for kem in sets():
        pair = kem(rand)
        kept = pair._secret
        assert kept != bytes(64)
        c, secret = kem.encaps(pair.public, rand)
        assert pair.shared(c) == secret
        assert kept == bytes(64) and pair._secret is None
        assert pair.shared(c) is None


def test_a_rejected_ciphertext_uses_the_private_key_up_as_well():
    for kem in sets():
        pair = kem(rand)
        kept = pair._secret
        secret = pair.shared(bytes(kem.size))
        assert len(secret) == 32 and secret != bytes(32)
        assert kept == bytes(64) and pair.shared(bytes(kem.size)) is None


def test_a_wrong_length_leaves_the_key_for_the_right_answer():
    for kem in sets():
        pair = kem(rand)
        c, secret = kem.encaps(pair.public, rand)
        for wrong in (b"", c[:-1], c + b"\0", c[:768] if kem.k > 2 else c + c):
            assert pair.shared(wrong) is None
        assert pair.shared(memoryview(b"\0" + c)[1:]) == secret


def test_wipe_forgets_an_unused_key():
    for kem in sets():
        pair = kem(rand)
        kept = pair._secret
        pair.wipe()
        pair.wipe()
        assert kept == bytes(64) and pair.shared(bytes(kem.size)) is None


def test_an_error_in_the_middle_leaves_nothing_behind():
    kem = mlkem.method(36)
    pair = kem(rand)
    kept = pair._secret
    real = mlkem._intt
    KEEP.clear()

    def fail(*arguments):
        raise MemoryError

    mlkem._intt = fail
    try:
        pair.shared(bytes(kem.size))
        assert False
    except MemoryError:
        pass
    finally:
        mlkem._intt = real
    assert_wiped()
    assert kept == bytes(64)


def test_keys_of_a_wrong_length_are_refused():
    for kem in sets():
        ek = kem(rand).public
        assert kem.encaps(ek[:-1], rand) is None
        assert kem.encaps(ek + b"\0", rand) is None
        assert kem.encaps(b"", rand) is None


def test_sizes_are_those_of_the_key_exchange_payloads():
    sizes = [(kem.size, len(kem(rand).public)) for kem in sets()]
    assert sizes == [(768, 800), (1088, 1184), (1568, 1568)]
    assert mlkem.method(34) is None and mlkem.method(38) is None


def allocated(operation):
    """Octets of heap that an operation takes, garbage and result included."""
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    result = operation()
    after = gc.mem_alloc()
    gc.enable()
    return after - before, result


def test_each_operation_stays_within_nine_kilobytes():
    # More than what is live at a time: nothing is collected in between.
    for kem in sets():
        made, pair = allocated(lambda: kem(rand))
        KEEP.clear()
        c, _ = kem.encaps(pair.public, rand)
        KEEP.clear()
        opened, _ = allocated(lambda: pair.shared(c))
        KEEP.clear()
        print("info", kem.size, made, opened)
        assert made <= 6144 + 1024 * (kem.k - 2), made
        assert opened <= 4096 + 768 * (kem.k - 2), opened


def test_what_waits_for_the_answer_is_small():
    for kem in sets():
        pair = kem(rand)
        KEEP.clear()
        gc.collect()
        before = gc.mem_alloc()
        size = len(pair.public)
        pair = None
        gc.collect()
        assert before - gc.mem_alloc() <= size + 512
