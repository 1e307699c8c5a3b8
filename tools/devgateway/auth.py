"""IKE_AUTH as responder: identity, shared-key AUTH, configuration, the first Child SA.

RFC 7296 §1.2, §2.9, §2.15-§2.19. Failures of authentication end the IKE SA; failures of
the Child SA alone are told beside IDr and AUTH, and the IKE SA stays (§1.3, §2.21.2).
"""

from ipaddress import ip_address

from . import ppk, wire
from .crypto import equal, psk_auth, psk_pad
from .errors import Refuse
from .esp import ChildSa
from .numbers import AuthMethod, Cfg, CfgAttr, N, P, Protocol
from .pool import address_of
from .proposals import select
from .wire import Notify, Payload


def _find(payloads, kind):
    """The body of the one payload of that type, None if there is none."""
    found = [payload.body for payload in payloads if payload.type == kind]
    if len(found) > 1:
        raise wire.WireError("DOUBLED_PAYLOAD")
    return found[0] if found else None


def handle(sa, payloads, now):
    """Payloads of the IKE_AUTH response."""
    gateway = sa.gateway
    id_body = _find(payloads, P.IDI)
    if id_body is None:
        raise wire.WireError("NO_ID")
    identity = wire.parse_identity(id_body)
    sa.identity = identity
    notifies = [wire.parse_notify(p.body) for p in payloads if p.type == P.NOTIFY]
    kinds = {notify.type for notify in notifies}
    auth_body = _find(payloads, P.AUTH)
    if auth_body is None:
        raise Refuse(N.AUTHENTICATION_FAILED, "no AUTH: EAP is not spoken here", fatal=True)
    if sa.pending_groups:
        raise Refuse(N.INVALID_SYNTAX, "additional key exchange missing", fatal=True)
    auth = wire.parse_auth(auth_body)
    ppk_id, auth = _mix_ppk(sa, notifies, auth)
    secret = _verify(sa, identity, id_body, auth)

    id_r = gateway.config.identity.encode()
    auth_r = psk_auth(sa.prf, psk_pad(sa.prf, secret), sa.signed_octets(False, id_r))
    answer = [
        Payload(P.IDR, id_r),
        Payload(P.AUTH, wire.encode_auth(AuthMethod.SHARED_KEY_MIC, auth_r)),
    ]
    if ppk_id is not None:
        answer.append(Notify(N.PPK_IDENTITY).payload())
    if N.INITIAL_CONTACT in kinds:
        gateway.replace_older(sa, now)
    sa.establish(now)
    gateway.established(sa)
    try:
        return answer + _child(sa, payloads, kinds)
    except Refuse as refusal:
        gateway.error(refusal.notify.type, sa.endpoint, str(refusal), identity)
        return [*answer, refusal.notify.payload()]


def _verify(sa, identity, id_body, auth):
    """The shared secret of `identity`, once AUTH proved that the peer has it."""
    method, data = auth
    if method != AuthMethod.SHARED_KEY_MIC:
        raise Refuse(N.AUTHENTICATION_FAILED, "AUTH method %d" % method, fatal=True)
    secret = sa.gateway.config.secrets.find(identity)
    if secret is None:
        raise Refuse(N.AUTHENTICATION_FAILED, "no secret for %s" % (identity,), fatal=True)
    expected = psk_auth(sa.prf, psk_pad(sa.prf, secret), sa.signed_octets(True, id_body))
    if not equal(expected, data):
        raise Refuse(N.AUTHENTICATION_FAILED, "wrong secret of %s" % (identity,), fatal=True)
    return secret


def _mix_ppk(sa, notifies, auth):
    """(PPK_ID or None, AUTH to verify) by the table of RFC 8784 §3; SK_d, SK_pi, SK_pr change."""
    required = sa.gateway.config.ppk_required
    if sa.use_ppk:
        for notify in notifies:
            secret = ppk.find(sa, notify.data) if notify.type == N.PPK_IDENTITY else None
            if secret is not None:
                sa.keys = ppk.mix_into_auth(sa, secret)
                sa.ppk_used = True
                return notify.data, auth
        without = [notify.data for notify in notifies if notify.type == N.NO_PPK_AUTH]
        if not required and without:
            return None, (auth[0], without[0])
        if N.PPK_IDENTITY in {notify.type for notify in notifies}:
            raise Refuse(N.AUTHENTICATION_FAILED, "no PPK in common", fatal=True)
    if required and not sa.ppk_used:
        raise Refuse(N.AUTHENTICATION_FAILED, "a PPK is required", fatal=True)
    return None, auth


# Child SA


def _child(sa, payloads, kinds):
    """CP, SAr2, TSi, TSr; Refuse if there can be no Child SA."""
    gateway, config = sa.gateway, sa.gateway.config
    bodies = [_find(payloads, kind) for kind in (P.SA, P.TSI, P.TSR)]
    if None in bodies:
        raise Refuse(N.INVALID_SYNTAX, "SA, TSi and TSr are needed")
    try:
        offers = wire.parse_sa(bodies[0])
        ts_i = wire.parse_selectors(bodies[1])
        ts_r = wire.parse_selectors(bodies[2])
        cp = _find(payloads, P.CP)
        cfg = wire.parse_cfg(cp) if cp is not None else (Cfg.REPLY, [])
    except wire.WireError as error:
        raise Refuse(N.INVALID_SYNTAX, error.reason) from None
    choice = select(config.esp_suites, offers, Protocol.ESP)
    if choice is None:
        raise Refuse(N.NO_PROPOSAL_CHOSEN, "no ESP proposal in common")
    if int.from_bytes(choice.spi, "big") < 256:
        raise Refuse(N.INVALID_SYNTAX, "SPI below 256")

    transport = _wants_transport(sa, kinds, cfg)
    if transport:
        reply = [Notify(N.USE_TRANSPORT_MODE).payload()]
        ts_i = _end_point(ts_i, sa.endpoint.host, sa.peer_behind_nat)
        ts_r = _end_point(ts_r, sa.endpoint.local_host, sa.behind_nat)
    else:
        reply = _configure(sa, cfg)
        remote = [wire.Selector(address, address) for address in sa.addresses]
        ts_i = _narrow(ts_i, remote or config.remote_selectors)
        ts_r = _narrow(ts_r, config.local_selectors)
    families = {ts.first.version for ts in ts_i} & {ts.first.version for ts in ts_r}
    ts_i = [ts for ts in ts_i if ts.first.version in families]
    ts_r = [ts for ts in ts_r if ts.first.version in families]
    if not families:
        gateway.release_addresses(sa)
        raise Refuse(N.TS_UNACCEPTABLE, "no traffic selectors in common")

    keymat = sa.prf.plus(sa.keys.sk_d, sa.n_i + sa.n_r, ChildSa.keymat_size(choice))
    spi_in = gateway.new_esp_spi()
    child = ChildSa(choice, spi_in, keymat, config.replay_window, ts_r, ts_i, transport)
    gateway.add_child(sa, child)
    return [
        *reply,
        Payload(P.SA, wire.encode_sa([choice.answer(spi_in)])),
        Payload(P.TSI, wire.encode_selectors(ts_i)),
        Payload(P.TSR, wire.encode_selectors(ts_r)),
    ]


def _wants_transport(sa, kinds, cfg):
    """Is transport mode asked for and possible? It is a wish (§1.3.1); else tunnel mode it is."""
    asks_address = cfg[0] == Cfg.REQUEST and cfg[1]
    return sa.gateway.config.transport and N.USE_TRANSPORT_MODE in kinds and not asks_address


def _end_point(proposed, host, behind_nat):
    """Transport mode selectors: the end itself, or what it calls itself behind a NAT (§2.23.1)."""
    address = ip_address(host)
    found = _narrow(proposed, [wire.Selector(address, address)])
    if not found and behind_nat:
        found = [ts for ts in proposed if ts.first == ts.last]
    return found[:1]


def _narrow(proposed, allowed):
    """Every common part of two selector lists, in the proposal's order (§2.9)."""
    found = []
    for theirs in proposed:
        for ours in allowed:
            both = theirs.intersect(ours)
            if both is not None and both not in found and len(found) < wire.MAX_SELECTORS:
                found.append(both)
    return found


def _configure(sa, cfg):
    """The CP payload that answers a CFG_REQUEST; takes addresses from the pools (§2.19)."""
    gateway, config = sa.gateway, sa.gateway.config
    kind, attributes = cfg
    wanted = [
        (attribute, value)
        for attribute, value in attributes
        if attribute in (CfgAttr.INTERNAL_IP4_ADDRESS, CfgAttr.INTERNAL_IP6_ADDRESS)
    ]
    if kind != Cfg.REQUEST or not wanted:
        if config.require_cp:
            raise Refuse(N.FAILED_CP_REQUIRED, "an inner address must be asked for")
        return []
    reply = []
    for attribute, value in dict(wanted).items():
        pool = gateway.pools.get(attribute)
        address = pool.take(sa.identity, address_of(value)) if pool is not None else None
        if address is None:
            continue
        sa.addresses.append(address)
        suffix = b"" if attribute == CfgAttr.INTERNAL_IP4_ADDRESS else b"\x80"
        reply.append((attribute, address.packed + suffix))
    if not reply:
        raise Refuse(N.INTERNAL_ADDRESS_FAILURE, "no inner address left")
    return [Payload(P.CP, wire.encode_cfg(Cfg.REPLY, reply))]
