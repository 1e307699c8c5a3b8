"""The inner loops at and around the bounds that their comments state.  Runs under MicroPython."""

from array import array

from minipsec.kex import keccak, mlkem

Q = 3329
ONE = -(1 << 32) % Q
REDUCED = pow(ONE, Q - 2, Q)  # what P makes of 1
TWO = ONE * ONE % Q  # undoes two of P
INVERSE = TWO * pow(128, Q - 2, Q) % Q
ZETA = mlkem._ZETA


def bit_reversed(i):
    return sum((i >> bit & 1) << 6 - bit for bit in range(7))


def zeta(i):
    return pow(17, bit_reversed(i), Q)


def forward(f):
    """FIPS 203 algorithm 9 as it stands there."""
    f = list(f)
    i = 1
    length = 128
    while length >= 2:
        for start in range(0, 256, 2 * length):
            z = zeta(i)
            i += 1
            for j in range(start, start + length):
                t = z * f[j + length] % Q
                f[j + length] = (f[j] - t) % Q
                f[j] = (f[j] + t) % Q
        length //= 2
    return f


def polynomials():
    """Coefficients at random and at the edges, all below q."""
    state = 1
    for _ in range(6):
        f = []
        for _ in range(256):
            state = state * 1103515245 + 12345 & 0x7FFFFFFF
            f.append((state >> 8) % Q)
        yield f
    yield [Q - 1] * 256
    yield [0] * 256
    yield [0, Q - 1] * 128
    yield [1] + [0] * 255
    yield [0] * 255 + [Q - 1]


def words(f):
    return array("H", f)


def test_the_table_of_zeta():
    assert list(ZETA) == [zeta(i) * ONE % Q for i in range(128)]


def test_every_value_of_16_bits_is_reduced_fully_with_every_constant_in_use():
    for c in (0, 1, ONE, TWO, INVERSE, Q - INVERSE, Q - 1):
        for e in (0, 3332, 65535):
            addend = words([e] * 256)
            for start in range(0, 65536, 256 if e == 65535 else 16384):
                p = words(range(start, start + 256))
                mlkem._combine(p, 0, addend, c)
                for i in range(256):
                    assert p[i] == ((start + i) * c * REDUCED + e) % Q


def test_the_transform_and_its_bound():
    for f in polynomials():
        for more in (0, 4):
            given = words([x + more for x in f])
            mlkem._ntt(given, 0, ZETA)
            assert [x % Q for x in given] == forward([x + more for x in f])
            assert max(given) <= 3332 + 7 * (Q - 1)


def test_the_inverse_transform_of_sums_of_one_to_four_products():
    for f in polynomials():
        transformed = forward(f)
        for many in (0, 1, 2, 3):
            given = words(
                [x + many * Q if x + many * Q <= 4 * (Q - 1) else x for x in transformed]
            )
            mlkem._intt(given, 0, ZETA)
            assert [x % Q for x in given] == [128 * x % Q for x in f]
            assert max(given) <= 2 * (Q - 1)


def test_the_inverse_transform_at_its_bound():
    full = words([4 * (Q - 1)] * 256)
    same = words([4 * (Q - 1) % Q] * 256)
    mlkem._intt(full, 0, ZETA)
    mlkem._intt(same, 0, ZETA)
    assert [x % Q for x in full] == [x % Q for x in same]


def test_products_of_all_that_may_meet():
    for f in polynomials():
        for g in polynomials():
            # As wide as _ntt may leave them.
            wide = [x + 7 * Q if x + 7 * Q <= 3332 + 7 * (Q - 1) else x + 6 * Q for x in g]
            total = words([3 * (Q - 1)] * 256)
            fresh = words([65535] * 256)
            mlkem._multiply(words(f), 0, words(wide), total, ZETA, -1)
            mlkem._multiply(words(f), 0, words(wide), fresh, ZETA, 0)
            for i in range(0, 256, 2):
                gamma = pow(17, 2 * bit_reversed(i // 2) + 1, Q)
                first = (f[i] * g[i] + gamma * f[i + 1] * g[i + 1]) * REDUCED % Q
                second = (f[i] * g[i + 1] + f[i + 1] * g[i]) * REDUCED % Q
                assert fresh[i] == first and fresh[i + 1] == second
                assert total[i] == first + 3 * (Q - 1) and total[i + 1] == second + 3 * (Q - 1)


def test_every_coefficient_is_compressed_and_packed_at_every_width():
    for d in (1, 4, 5, 10, 11, 12):
        for start in range(0, Q, 256):
            f = [min(start + i, Q - 1) for i in range(256)]
            out = bytearray(32 * d + 5)
            mlkem._pack(words(f), 0, out, 3, d, mlkem._scale(d))
            packed = int.from_bytes(out, "little") >> 24
            for i in range(256):
                x = f[i] if d == 12 else ((f[i] << d) + (Q - 1) // 2) // Q % (1 << d)
                assert packed >> d * i & (1 << d) - 1 == x
            assert packed >> 256 * d == 0 and out[:3] == b"\0\0\0"


def test_every_value_is_unpacked_and_decompressed_at_every_width():
    for d in (1, 4, 5, 10, 11, 12):
        for start in range(0, 1 << d, 256):
            values = [(start + i) % (1 << d) for i in range(256)]
            packed = 0
            for x in reversed(values):
                packed = packed << d | x
            p = words([65535] * 256)
            mlkem._unpack(p, 0, b"\xff" + packed.to_bytes(32 * d, "little"), 1, d)
            for i in range(256):
                x = values[i]
                assert p[i] == (x if d == 12 else (Q * x + (1 << d - 1)) // (1 << d))


def test_noise_of_every_octet_in_every_place():
    for eta in (2, 3):
        for octet in range(256):
            data = bytes((octet + 17 * i) & 255 for i in range(64 * eta))
            p = bytearray(512)
            p[512 - 64 * eta :] = data
            mlkem._noise(p, 0, eta)
            bits = int.from_bytes(data, "little")
            for i in range(256):
                part = bits >> 2 * eta * i
                x = sum(part >> j & 1 for j in range(eta))
                y = sum(part >> eta + j & 1 for j in range(eta))
                assert p[2 * i] | p[2 * i + 1] << 8 == Q + x - y


def test_rejection_stops_at_256_and_takes_nothing_from_q_on():
    pairs = [(0, Q - 1), (Q, 4095), (Q - 1, Q), (4095, 1), (Q + 1, Q)]
    data = b"".join(bytes((x & 255, x >> 8 | (y & 15) << 4, y >> 4)) for x, y in pairs)
    taken = [0, Q - 1, Q - 1, 1]
    for count in range(250, 256):
        p = words([7] * 257)
        found = mlkem._reject(p, 0, data, len(data), count)
        free = 256 - count
        assert found == min(256, count + 4)
        assert list(p[count:256])[:4] == taken[:free] and p[256] == 7 and p[count - 1] == 7


def test_a_difference_in_any_octet_and_bit_is_seen():
    a = bytes(range(100, 200))
    for place in range(100):
        for bit in range(8):
            b = bytearray(b"\0" + a)
            b[place + 1] ^= 1 << bit
            assert 0 < mlkem._differ(a, 0, b, 1, 100) < 256
            assert mlkem._differ(a, 0, b, 1, place) == 0
    assert mlkem._differ(a, 0, b"\0" + a, 1, 100) == 0


def test_octets_are_copied_and_added_from_and_to_any_place():
    for at in range(5):
        for start in range(5):
            for size in range(10):
                data = bytes(range(200, 220))
                copied = bytearray(range(20))
                added = bytearray(range(20))
                keccak.copy(copied, at, data, start, size, 0)
                keccak.xor(added, at, data, start, size)
                for i in range(20):
                    x = data[start + i - at] if at <= i < at + size else None
                    assert copied[i] == (i if x is None else x)
                    assert added[i] == (i if x is None else x ^ i)
