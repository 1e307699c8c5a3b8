"""Algorithm suites by name, and the choice out of a peer's offer (RFC 7296 §2.7, §3.3).

Names are strongSwan's: `aes128ccm8-prfsha256-x25519`, `aes256-sha256-ecp256`,
`aes128ccm8-esn`; `ke1_mlkem768` asks for an additional key exchange (RFC 9370) and
`aes128ccm8iiv` is AES-CCM-8 with implicit IV (RFC 8750). Several algorithms of one
type in a name are alternatives, the first one preferred.
"""

import re
from typing import NamedTuple

from .numbers import Encr, Group, Integ, Prf, Protocol, T
from .wire import Proposal, Transform

_CCM = {
    "8": Encr.AES_CCM_8,
    "64": Encr.AES_CCM_8,
    "12": Encr.AES_CCM_12,
    "96": Encr.AES_CCM_12,
    "16": Encr.AES_CCM_16,
    "128": Encr.AES_CCM_16,
    "": Encr.AES_CCM_16,
    "8iiv": Encr.AES_CCM_8_IIV,
}
_CCM_NAMES = {
    Encr.AES_CCM_8: "ccm8",
    Encr.AES_CCM_12: "ccm12",
    Encr.AES_CCM_16: "ccm16",
    Encr.AES_CCM_8_IIV: "ccm8iiv",
}
_PRFS = {
    "prfsha256": Prf.HMAC_SHA2_256,
    "prfsha384": Prf.HMAC_SHA2_384,
    "prfsha512": Prf.HMAC_SHA2_512,
}
_GROUPS = {
    "x25519": Group.CURVE25519,
    "curve25519": Group.CURVE25519,
    "ecp256": Group.ECP_256,
    "modp2048": Group.MODP_2048,
    "mlkem512": Group.ML_KEM_512,
    "mlkem768": Group.ML_KEM_768,
    "mlkem1024": Group.ML_KEM_1024,
    "none": Group.NONE,
    "modpnone": Group.NONE,
}
_GROUP_NAMES = {
    group: name for name, group in _GROUPS.items() if name not in ("curve25519", "modpnone")
}
_PRF_NAMES = {prf: name for name, prf in _PRFS.items()}
_ENCR = re.compile(r"aes(128|256)(?:ccm(8iiv|8|64|12|96|16|128|))?|(aes)")
_ADDKE = re.compile(r"ke([1-7])_(.+)")

# One additional key exchange, if the sensor wants one.
_PQ = "-ke1_mlkem768-ke1_mlkem512-ke1_mlkem1024-ke1_none"
DEFAULT_IKE = (
    "aes128ccm16-aes256ccm16-aes128ccm12-aes256ccm12-aes128ccm8-aes256ccm8"
    "-prfsha256-prfsha384-prfsha512-x25519-ecp256-modp2048-mlkem512-mlkem768" + _PQ,
    "aes128-aes256-sha256-prfsha256-prfsha384-prfsha512"
    "-x25519-ecp256-modp2048-mlkem512-mlkem768" + _PQ,
)
DEFAULT_ESP = (
    "aes128ccm8iiv-aes256ccm8iiv"
    "-aes128ccm8-aes128ccm12-aes128ccm16-aes256ccm8-aes256ccm12-aes256ccm16-noesn-esn",
)


class Suite(NamedTuple):
    """What we take: transform type -> tuple of `Transform`, best first."""

    name: str
    protocol: int
    transforms: dict


def without_additional(suite):
    """`suite` for a peer that has no IKE_INTERMEDIATE; None if it insists on ADDKE."""
    kept = {}
    for kind, options in suite.transforms.items():
        if T.ADDKE1 <= kind <= T.ADDKE7:
            options = tuple(option for option in options if option.id == Group.NONE)
            if not options:
                return None
        kept[kind] = options
    return suite._replace(transforms=kept)


class Choice(NamedTuple):
    """One proposal with one transform a type, as SAr1 or SAr2 returns it."""

    number: int
    protocol: int
    spi: bytes
    transforms: tuple

    def transform(self, kind):
        """The transform of that type, or None."""
        for transform in self.transforms:
            if transform.type == kind:
                return transform
        return None

    def additional_groups(self):
        """Methods of the agreed ADDKE transforms in order, NONE left out (RFC 9370 §2.2.2)."""
        found = []
        for kind in range(T.ADDKE1, T.ADDKE7 + 1):
            transform = self.transform(kind)
            if transform is not None and transform.id != Group.NONE:
                found.append(transform.id)
        return found

    def answer(self, spi):
        """The proposal to send back, with our SPI."""
        return Proposal(self.number, self.protocol, spi, self.transforms)

    @property
    def name(self):
        """strongSwan's notation of what was agreed."""
        parts = []
        encr = self.transform(T.ENCR)
        parts.append("aes%d%s" % (encr.key_length, _CCM_NAMES.get(encr.id, "")))
        if encr.id == Encr.AES_CBC:
            parts.append("sha256")
        prf = self.transform(T.PRF)
        if prf is not None:
            parts.append(_PRF_NAMES[prf.id])
        group = self.transform(T.KE)
        if group is not None:
            parts.append(_GROUP_NAMES[group.id])
        for kind in range(T.ADDKE1, T.ADDKE7 + 1):
            extra = self.transform(kind)
            if extra is not None and extra.id != Group.NONE:
                parts.append("ke%d_%s" % (kind - T.ADDKE1 + 1, _GROUP_NAMES[extra.id]))
        esn = self.transform(T.ESN)
        if esn is not None and esn.id:
            parts.append("esn")
        return "-".join(parts)


def parse_suite(name, protocol):
    """`Suite` of a name; ValueError names the token that is wrong."""
    found = {}

    def add(kind, number, key_length=0):
        found.setdefault(kind, []).append(Transform(int(kind), int(number), key_length))

    integ = False
    for token in (word.strip() for word in name.lower().split("-")):
        encr = _ENCR.fullmatch(token)
        extra = _ADDKE.fullmatch(token)
        if encr:
            kind = Encr.AES_CBC if encr[2] is None else _CCM[encr[2]]
            if kind == Encr.AES_CCM_8_IIV and protocol != Protocol.ESP:
                raise ValueError("%s: implicit IV is for ESP only (RFC 8750)" % name)
            add(T.ENCR, kind, int(encr[1] or 128))
        elif token in ("sha256", "sha2_256"):
            integ = True
        elif token in _PRFS:
            add(T.PRF, _PRFS[token])
        elif token in _GROUPS:
            if _GROUPS[token] != Group.NONE:
                add(T.KE, _GROUPS[token])
        elif extra and extra[2] in _GROUPS:
            add(T.ADDKE1 + int(extra[1]) - 1, _GROUPS[extra[2]])
        elif token in ("esn", "noesn") and protocol == Protocol.ESP:
            add(T.ESN, token == "esn")
        else:
            raise ValueError("%s: unknown algorithm %r" % (name, token))
    if T.ENCR not in found:
        raise ValueError("%s: no encryption algorithm" % name)
    modes = {transform.id == Encr.AES_CBC for transform in found[T.ENCR]}
    if len(modes) != 1:
        raise ValueError("%s: AES-CCM and AES-CBC need a suite each" % name)
    if True in modes:
        if not integ:
            raise ValueError("%s: AES-CBC needs sha256" % name)
        add(T.INTEG, Integ.HMAC_SHA2_256_128)
    if protocol == Protocol.IKE:
        if T.PRF not in found:
            if not integ:
                raise ValueError("%s: AES-CCM needs a prf, e.g. prfsha256" % name)
            add(T.PRF, Prf.HMAC_SHA2_256)  # the one of the integrity algorithm
        if T.KE not in found:
            raise ValueError("%s: no key exchange group" % name)
    else:
        # ESP has no PRF, and a key exchange only when it is rekeyed.
        found = {kind: found[kind] for kind in (T.ENCR, T.INTEG, T.ESN) if kind in found}
        if T.ESN not in found:
            add(T.ESN, 0)
    return Suite(name, protocol, {kind: tuple(options) for kind, options in found.items()})


def _choose(suite, proposal):
    """The transforms of `proposal` that `suite` takes, or None."""
    offered = {}
    for transform in proposal.transforms:
        offered.setdefault(transform.type, []).append(transform)
    aead = Integ.NONE
    for kind in suite.transforms:
        if kind not in offered:
            if kind < T.ADDKE1 or all(t.id != Group.NONE for t in suite.transforms[kind]):
                return None
    chosen = []
    for kind, transforms in sorted(offered.items()):
        plain = [Transform(*t[:3]) for t in transforms if not t.odd]
        if kind in suite.transforms:
            fits = [ours for ours in suite.transforms[kind] if ours in plain]
        elif kind == T.INTEG:
            # With an AEAD, "NONE" may stand there (RFC 7296 §3.3.3).
            fits = [t for t in plain if t.id == aead]
        elif kind == T.KE or T.ADDKE1 <= kind <= T.ADDKE7:
            # NONE means that this proposal does not insist (RFC 7296 §1.2, RFC 9370 §2.2.2).
            fits = [t for t in plain if t.id == Group.NONE]
        else:
            fits = []  # an unknown type makes the proposal unacceptable (§3.3.6)
        if not fits:
            return None
        chosen.append(fits[0])
    return tuple(chosen)


def select(suites, proposals, protocol):
    """The first of `suites` that some proposal allows, as a `Choice`; None if none.

    Our order decides, since the responder chooses (RFC 7296 §2.7).
    """
    spi_size = 4 if protocol == Protocol.ESP else 0
    for suite in suites:
        for proposal in proposals:
            if proposal.protocol != protocol or len(proposal.spi) != spi_size:
                continue
            chosen = _choose(suite, proposal)
            if chosen is not None:
                return Choice(proposal.number, protocol, proposal.spi, chosen)
    return None


def offer(suite, number, spi=b""):
    """The `Proposal` that offers everything in `suite` (what an initiator would send)."""
    transforms = []
    for kind in sorted(suite.transforms):
        transforms.extend(suite.transforms[kind])
    return Proposal(number, suite.protocol, spi, tuple(transforms))
