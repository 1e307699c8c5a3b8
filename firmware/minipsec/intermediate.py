"""IKE_INTERMEDIATE: more key exchanges and a PPK before IKE_AUTH (RFC 9242, 9370, 9867).

Loaded when one of them was agreed on in IKE_SA_INIT.
"""

import struct
from micropython import const

from . import kdf, ppk, wire
from .dh import method
from .machine import sort
from .wire import Drop

_IKE_INTERMEDIATE = const(43)
_KE = const(34)
_N = const(41)
_SK = const(46)
_I = const(0x08)
_STATUS = const(16384)
_PPK_IDENTITY = const(16436)
_PPK_IDENTITY_KEY = const(16446)
_FIRST = const(6)  # transform types 6..12 are ADDKE1..7 (RFC 9370 §2.2.1)
_LAST = const(12)

_S_INTERMEDIATE = const(2)


class Intermediate:
    """What is left to do before IKE_AUTH, and IntAuth so far (RFC 9242 §3.3.2)."""

    def __init__(self, picked, with_ppk):
        self.methods = []
        for kind in range(_FIRST, _LAST + 1):
            if picked.get(kind, (0, 0))[0]:
                self.methods.append(picked[kind][0])
        self.with_ppk = with_ppk
        self.int_auth_i = self.int_auth_r = b""
        self._ke = None

    def start(self, sa, now):
        """Send the next exchange; False when none is left."""
        if not self.methods and not self.with_ppk:
            return False
        payloads = []
        if self.methods:
            self._ke = method(self.methods[0])(sa.rand)
            payloads.append((_KE, struct.pack(">HH", self.methods[0], 0) + self._ke.public))
        if self.with_ppk and len(self.methods) < 2:
            data = ppk.identity(sa.profile) + ppk.confirmation(sa)
            payloads.append((_N, wire.notify(_PPK_IDENTITY_KEY, data)))
        first, plain = wire.chain(payloads)
        head = wire.header(
            sa.spi_i, sa.spi_r, _SK, _IKE_INTERMEDIATE, _I, sa.mid(), 32 + len(plain)
        )
        self.int_auth_i = self._covered(sa.sk_pi, self.int_auth_i, head, first, 0, plain)
        if sa.state != _S_INTERMEDIATE:
            sa.go(_S_INTERMEDIATE)
        sa.request(_IKE_INTERMEDIATE, payloads, now)
        return True

    def _covered(self, key, before, head, first, reserved, plain):
        # A | P: the message as if it had not been encrypted, nor cut into fragments.
        generic = struct.pack(">BBH", first, reserved, 4 + len(plain))
        return kdf.prf(key, before, head, generic, plain)

    def answer(self, sa, payloads, now):
        """Take the peer's answer; the next exchange or IKE_AUTH follows under new keys."""
        found, notifies, _ = sort(payloads)
        head, reserved, first, plain = sa.message
        sa.message = None
        for kind, _ in notifies:
            if kind < _STATUS:
                sa.answer_came(now)
                sa.fail("notify", kind)
                return
        # Told apart by what it must have: nothing that lacks it ends the exchange.
        ke = found.get(_KE, b"")
        if bool(self.methods) != bool(ke) or (ke and ke[0] << 8 | ke[1] != self.methods[0]):
            raise Drop("BAD_KE")
        shared = None
        if ke:
            shared = self._ke.shared(bytes(ke[4:]))
            if shared is None:
                raise Drop("BAD_KE")
            self._ke = None
        sa.answer_came(now)
        head = head[:16] + bytes((_SK,)) + head[17:24] + struct.pack(">I", 32 + len(plain))
        self.int_auth_r = self._covered(sa.sk_pr, self.int_auth_r, head, first, reserved, plain)
        last = len(self.methods) < 2
        if ke:
            self.methods.pop(0)
            sa.make_keys(kdf.prf(sa.sk_d, shared, sa.nonces()))
        if last and self.with_ppk:
            self.with_ppk = False
            if not self._ppk(sa, notifies):
                return
        if not self.start(sa, now):
            sa.send_auth(now, self.int_auth_i + self.int_auth_r + struct.pack(">I", sa.mid()))

    def _ppk(self, sa, notifies):
        for kind, data in notifies:
            if kind == _PPK_IDENTITY:
                if bytes(data) != ppk.identity(sa.profile):
                    sa.refuse("PPK_IDENTITY is not what we offered")
                    return False
                # RFC 9867 §3.2: behind the key exchange of the same IKE_INTERMEDIATE.
                sa.make_keys(kdf.prf_plus(sa.profile["ppk"], sa.sk_d, 32))
                return True
        if sa.profile["ppk_required"]:
            sa.refuse("the gateway has no such PPK")
            return False
        return True
