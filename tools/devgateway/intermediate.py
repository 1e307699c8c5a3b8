"""IKE_INTERMEDIATE as responder (RFC 9242): additional key exchanges (RFC 9370) and PPKs (RFC 9867)."""

from . import ppk, wire
from .crypto import CryptoError, answer_exchange, ike_keys
from .errors import Refuse
from .numbers import N, P
from .wire import HEADER_SIZE, Payload

MAX_EXCHANGES = 9  # seven additional key exchanges, a PPK, and one to spare


def covered_octets(message, exchange_inner):
    """A | P of RFC 9242 §3.3.2: the message as if neither encrypted nor fragmented."""
    first, flags, inner = exchange_inner
    size = len(inner) + 4
    header = message._replace(next_payload=P.SK, length=HEADER_SIZE + size)
    return header.encode() + bytes((first, flags)) + size.to_bytes(2, "big") + inner


def handle(sa, payloads, now):
    """Payloads of the IKE_INTERMEDIATE response; new keys wait in `sa.next_keys`."""
    sa.intermediates += 1
    if sa.intermediates > MAX_EXCHANGES:
        raise Refuse(N.INVALID_SYNTAX, "too many IKE_INTERMEDIATE exchanges", fatal=True)
    answer = []
    keys = sa.keys
    offers = [payload.body for payload in payloads if payload.type == P.KE]
    if len(offers) != bool(sa.pending_groups):
        raise Refuse(N.INVALID_SYNTAX, "%d KE payloads" % len(offers), fatal=True)
    if offers:
        group, public = wire.parse_ke(offers[0])
        wanted = sa.pending_groups.pop(0)
        if group != wanted:
            raise Refuse(N.INVALID_SYNTAX, "KE of method %d" % group, fatal=True)
        try:
            ours, shared = answer_exchange(group, public, sa.gateway.rand)
        except CryptoError as error:
            raise Refuse(N.INVALID_SYNTAX, error.reason, fatal=True) from None
        answer.append(Payload(P.KE, wire.encode_ke(group, ours)))
        # RFC 9370 §2.2.2
        keys = _derive(sa, sa.prf(keys.sk_d, shared + sa.n_i + sa.n_r))
    offered = [wire.parse_notify(p.body) for p in payloads if p.type == P.NOTIFY]
    offered = [notify.data for notify in offered if notify.type == N.PPK_IDENTITY_KEY]
    if offered and sa.use_ppk_int:
        if sa.pending_groups:
            raise Refuse(N.INVALID_SYNTAX, "PPK before the last exchange", fatal=True)
        chosen, secret = ppk.choose_confirmed(sa, offered)
        if secret is not None:
            answer.append(wire.Notify(N.PPK_IDENTITY, chosen).payload())
            # RFC 9867 §3.2, after the key exchange of the same exchange
            keys = _derive(sa, sa.prf.plus(secret, keys.sk_d, sa.prf.size))
            sa.ppk_used = True
        elif sa.gateway.config.ppk_required:
            raise Refuse(N.AUTHENTICATION_FAILED, "no PPK in common", fatal=True)
    if keys is not sa.keys:
        sa.next_keys = keys
    return answer


def _derive(sa, skeyseed):
    return ike_keys(sa.choice, skeyseed, sa.n_i, sa.n_r, sa.spi_i, sa.spi_r)
