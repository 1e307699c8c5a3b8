"""HMAC_DRBG with SHA-256 (SP 800-90A rev. 1 §10.1.2), and health tests for what seeds it.

Whoever knows the seed knows every octet that follows.  So a seed must hold 256 bits that nobody
can guess, and differ at each boot.  `board.entropy` makes it.
"""

from micropython import const

from .kdf import HMAC

# SP 800-90B §4.4, for one-bit samples that hold a quarter bit of min-entropy each, and one false
# alarm in 2^30 (1 + 30 / H; the quantile of a binomial distribution, p = 2^-H, plus 1).
_WINDOW = const(1024)
_RUN = const(121)  # equal samples in a row: repetition count
_SAME = const(928)  # samples of a window like its first: adaptive proportion


class DRBG:
    """A generator made from `seed`: entropy, nonce and personalization, joined."""

    def __init__(self, seed):
        self._mac = HMAC(bytes(32))
        self._v = b"\1" * 32
        self.reseed(seed)

    def reseed(self, octets):
        """Stir octets in (HMAC_DRBG_Update).  Whatever they are, earlier output stays safe."""
        v = self._v
        for separator in (b"\0", b"\1") if octets else (b"\0",):
            self._mac = HMAC(self._mac.digest(v, separator, octets))
            v = self._mac.digest(v)
        self._v = v

    def generate(self, n, more=b""):
        """Return `n` octets, at most 65536; `more` is the additional input."""
        if more:
            self.reseed(more)
        out = b""
        while len(out) < n:
            self._v = self._mac.digest(self._v)
            out += self._v
        self.reseed(more)
        return out[:n]


def healthy(samples):
    """Tell whether a source works, by the lowest bits of at least 1024 octets from it.

    A source that is stuck or strongly biased fails.  One that passes may still be predictable.
    """
    same = run = 0
    first = last = 2
    for i, sample in enumerate(samples):
        sample &= 1
        if not i % _WINDOW:
            first = sample
            same = 0
        same += sample == first
        run = run + 1 if sample == last else 1
        last = sample
        if run >= _RUN or same >= _SAME:
            return False
    return len(samples) >= _WINDOW
