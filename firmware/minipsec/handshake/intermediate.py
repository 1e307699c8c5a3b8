"""IKE_INTERMEDIATE: more key exchanges and a PPK before IKE_AUTH (RFC 9242, 9370, 9867).

Loaded when one of them was agreed on in IKE_SA_INIT.
"""

import struct
from micropython import const

from ..crypto import kdf
from ..ike import wire
from ..kex.methods import method, wipe

# RFC 9242 §3.1; RFC 7296 §3.2, SKF: RFC 7383
_IKE_INTERMEDIATE = const(43)
_I = const(0x08)
_KE = const(34)
_N = const(41)
_SK = const(46)
_SKF = const(53)
# RFC 7296 §3.10.1; RFC 8784, RFC 9867
_STATUS = const(16384)
_PPK_IDENTITY = const(16436)
_PPK_IDENTITY_KEY = const(16446)

# Ours: states, see ike.sa.
_S_INTERMEDIATE = const(2)


class Intermediate:
    """What is left to do before IKE_AUTH, and IntAuth so far (RFC 9242 §3.3.2).

    `methods` are the key exchanges that were agreed on, in order.  With `with_ppk` a PPK goes into
    the last exchange.
    """

    def __init__(self, handshake, methods, with_ppk):
        self.methods = methods
        self.with_ppk = with_ppk
        self.int_auth_i = self.int_auth_r = b""
        self._handshake = handshake
        self._ke = None

    def wipe(self):
        """Overwrite the private key of an exchange that will not be completed."""
        wipe(self._ke)
        self._ke = None

    def start(self, now):
        """Send the next exchange; False when none is left."""
        if not self.methods and not self.with_ppk:
            return False
        h = self._handshake
        sa = h.sa
        payloads = []
        if self.methods:
            self._ke = method(self.methods[0])(sa.rand, sa.step)
            payloads.append((_KE, struct.pack(">HH", self.methods[0], 0) + self._ke.public))
        if self.with_ppk and len(self.methods) < 2:
            from . import ppk

            data = ppk.identity(sa.profile)
            data += ppk.confirmation(sa.profile, h.nonces(), sa.spi_i, sa.spi_r)
            payloads.append((_N, wire.notify(_PPK_IDENTITY_KEY, data)))
        first, plain = wire.chain(payloads)
        head = wire.header(sa.spi_i, sa.spi_r, _SK, _IKE_INTERMEDIATE, _I, sa.mid, 0)
        self.int_auth_i = _covered(h.sk_pi, self.int_auth_i, head + bytes((first, 0)), plain)
        if sa.state != _S_INTERMEDIATE:
            sa.go(_S_INTERMEDIATE)
        sa.ask(_IKE_INTERMEDIATE, payloads, now)
        return True

    def answer(self, payloads, now):
        """Take the peer's answer; the next exchange or IKE_AUTH follows under new keys.

        The ICV proves that the peer has these keys, so a bad answer is final.  The peer is not
        authenticated yet, so only this attempt ends (RFC 7296 §2.21.2).
        """
        h = self._handshake
        sa = h.sa
        found, notifies, _ = wire.sort(payloads)
        front, plain = sa.message
        sa.answer_came(now)
        for kind, _ in notifies:
            if kind < _STATUS:
                # Name the key exchange, too: a peer may agree on one that it does not have.
                sa.fail("notify", kind, self.methods[0] if self.methods else 0)
                return
        shared = None
        if self.methods:
            ke = bytes(found.get(_KE, b""))
            if ke[:2] == struct.pack(">H", self.methods.pop(0)):
                shared = self._ke.shared(ke[4:])
            self.wipe()
            if shared is None:
                sa.refuse("KEr is not of the method and size agreed upon, or of no use")
                return
        elif _KE in found:
            sa.refuse("KEr without a key exchange")
            return
        self.int_auth_r = _covered(h.sk_pr, self.int_auth_r, front, plain)
        if shared:
            h.make_keys(kdf.prf(h.sk_d, shared, h.nonces()))
        if self.with_ppk and not self.methods:
            self.with_ppk = False
            if not self._take_ppk(notifies):
                return
        if not self.start(now):
            int_auth = self.int_auth_i + self.int_auth_r + struct.pack(">I", sa.mid)
            h.authenticate(now, int_auth)

    def _take_ppk(self, notifies):
        """Mix in the PPK if the peer has it; return False if the attempt has ended."""
        from . import ppk

        h = self._handshake
        p = h.sa.profile
        for kind, data in notifies:
            if kind == _PPK_IDENTITY:
                if bytes(data) != ppk.identity(p):
                    h.sa.refuse("PPK_IDENTITY is not what we offered")
                    return False
                # After the key exchange of the same IKE_INTERMEDIATE (RFC 9867 §3.2).
                h.make_keys(kdf.prf_plus(p["ppk"], h.sk_d, 32), True)
                return True
        if p["ppk_required"]:
            h.sa.refuse("no such PPK", "ppk")
            return False
        return True


def _covered(key, before, front, plain):
    """Return IntAuth_i or IntAuth_r with one more message, A | P (RFC 9242 §3.3.2).

    `front` is that message, or its fragment 1, from the IKE header to the RESERVED octet of SK or
    SKF; `plain` is the payloads inside.  IntAuth covers the message as if it were in one piece and
    in the clear: its last payload is SK, and its lengths count no IV, padding or ICV.
    """
    front = bytearray(front)
    at = 16
    end = 28
    while front[at] != _SK and front[at] != _SKF:
        at = end
        end += front[at + 2] << 8 | front[at + 3]
    front[at] = _SK
    front[24:28] = struct.pack(">I", end + 4 + len(plain))
    return kdf.prf(key, before, front, struct.pack(">H", 4 + len(plain)), plain)
