"""IKE_INTERMEDIATE, additional key exchanges and PPKs of the gateway."""

import pytest

from host_tests.devgateway.peer import HERE, HERE_NATT, Peer, bare, natt, only
from host_tests.devgateway.test_fragments import feed
from tools.devgateway import wire
from tools.devgateway.crypto import psk_auth, psk_pad, start_exchange
from tools.devgateway.numbers import Exchange, Group, N, P
from tools.devgateway.wire import Notify, Payload

item = pytest.mark.item

PLAIN = "aes128ccm16-prfsha256-x25519"
FRAGMENTS = Notify(N.IKEV2_FRAGMENTATION_SUPPORTED)
INTERMEDIATE = Notify(N.INTERMEDIATE_EXCHANGE_SUPPORTED)
PPK = b"0123456789abcdef0123456789abcdef"
PPK_ID = b"\x02ppk-1"
PPKS = {b"ppk-1": PPK}


def begin(gateway, notifies=(FRAGMENTS, INTERMEDIATE), **settings):
    peer = Peer(**settings)
    peer.init_notifies = list(notifies)
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
    return peer


def intermediate(gateway, peer, payloads, count=1):
    """One IKE_INTERMEDIATE exchange, the request in `count` messages; payloads of the answer."""
    first, inner = peer.intermediate_octets(payloads)
    if count == 1:
        messages = [peer.protect_octets(Exchange.IKE_INTERMEDIATE, first, inner)]
    else:
        messages = peer.fragment_octets(Exchange.IKE_INTERMEDIATE, first, inner, count)
    return peer.take_intermediate(*feed(gateway, messages))


def add_kem(gateway, peer, group, count=1, extra=()):
    """The exchange of one ADDKE, and its keys."""
    half = start_exchange(group, peer.rand)
    payloads = [Payload(P.KE, wire.encode_ke(group, half.public)), *extra]
    answer = intermediate(gateway, peer, payloads, count)
    (body,) = [payload.body for payload in answer if payload.type == P.KE]
    assert wire.parse_ke(body)[0] == group
    shared = half.finish(wire.parse_ke(body)[1])
    assert len(shared) == 32
    peer.new_keys(peer.prf(peer.keys.sk_d, shared + peer.n_i + peer.n_r))
    return answer


def finish(gateway, peer):
    """IKE_AUTH; notify types of its answer."""
    notifies = peer.take_auth(*feed(gateway, [peer.auth_request()]))[1]
    return notifies


def works(gateway, peer):
    ((echo, _),) = gateway.receive(peer.udp(b"post-quantum"), HERE_NATT, 5)
    return peer.open_udp(echo)[3] == b"post-quantum"


@item("INT-01")
def test_support_is_announced_to_those_who_announce_it(make_gateway):
    def agreed(gateway, *notifies):
        peer = begin(gateway, notifies)
        return N.INTERMEDIATE_EXCHANGE_SUPPORTED in {n.type for n in peer.init_answer_notifies}

    assert agreed(make_gateway(), INTERMEDIATE)
    assert not agreed(make_gateway())
    assert not agreed(make_gateway(intermediate=False), INTERMEDIATE)


@item("INT-03", "INT-07")
def test_an_ike_intermediate_without_agreement_is_dropped(gateway):
    peer = begin(gateway, ())
    assert feed(gateway, [peer.protect(Exchange.IKE_INTERMEDIATE, [])]) == []
    assert gateway.drops == {"UNEXPECTED_EXCHANGE": 1}


@item("INT-02", "INT-05", "INT-06", "INT-07", "INT-09")
def test_empty_intermediate_exchanges_are_covered_by_auth(gateway):
    peer = begin(gateway)
    for _ in range(3):
        assert intermediate(gateway, peer, []) == []
    assert finish(gateway, peer) == [] and works(gateway, peer)


@item("INT-05", "INT-09")
def test_auth_fails_if_a_man_in_the_middle_took_an_exchange_away(gateway):
    peer = begin(gateway)
    intermediate(gateway, peer, [Payload(P.VENDOR_ID, b"x")])
    peer.int_auth = [b"", b""]
    assert finish(gateway, peer) == [N.AUTHENTICATION_FAILED]


@item("INT-10")
def test_the_number_of_exchanges_is_bounded(gateway):
    peer = begin(gateway)
    for _ in range(9):
        intermediate(gateway, peer, [])
    (refusal,) = intermediate(gateway, peer, [])
    assert wire.parse_notify(refusal.body).type == N.INVALID_SYNTAX
    assert gateway.established_sas() == []


@item("INT-11", "INT-12", "INT-13", "INT-14")
@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("mlkem512", Group.ML_KEM_512),
        ("mlkem768", Group.ML_KEM_768),
        ("mlkem1024", Group.ML_KEM_1024),
    ],
)
@pytest.mark.parametrize("count", [1, 5])
def test_ml_kem_behind_x25519(make_gateway, events, name, group, count):
    gateway = make_gateway(fragment_size=576)
    suite = PLAIN + "-ke1_" + name
    peer = begin(gateway, ike=(suite,))
    add_kem(gateway, peer, group, count)
    assert finish(gateway, peer) == [] and works(gateway, peer)
    assert dict(events)["ike_sa"]["proposal"] == suite
    assert gateway.counters["fragments_out"] >= 2


@item("INT-12", "INT-13", "INT-08")
def test_several_additional_exchanges_in_rising_order(make_gateway):
    suite = PLAIN + "-ke1_mlkem512-ke2_mlkem768-ke4_mlkem1024"
    gateway = make_gateway(ike=(suite,), fragment_size=300)
    peer = begin(gateway, ike=(suite,))
    for group, count in ((35, 3), (36, 7), (37, 1)):
        add_kem(gateway, peer, group, count)
    assert finish(gateway, peer) == [] and works(gateway, peer)


@item("INT-11")
def test_without_intermediate_support_the_plain_proposal_is_taken(make_gateway, events):
    offers = (PLAIN + "-ke1_mlkem768", PLAIN)
    for gateway, notifies in (
        (make_gateway(), (FRAGMENTS,)),
        (make_gateway(intermediate=False), (FRAGMENTS, INTERMEDIATE)),
    ):
        peer = begin(gateway, notifies, ike=offers)
        assert finish(gateway, peer) == [] and works(gateway, peer)
        assert dict(events)["ike_sa"]["proposal"] == PLAIN
    peer = Peer(ike=offers[:1])
    peer.take_init(only(make_gateway().receive(peer.init_request(), HERE, 0)))
    assert [n.type for n in peer.init_answer_notifies] == [N.NO_PROPOSAL_CHOSEN]


@item("INT-12", "INT-14", "INT-10")
@pytest.mark.parametrize(
    ("group", "size"), [(36, 1183), (36, 1185), (36, 0), (35, 800), (37, 1568), (31, 32)]
)
def test_a_wrong_key_exchange_ends_the_attempt(gateway, group, size):
    peer = begin(gateway, ike=(PLAIN + "-ke1_mlkem768",))
    payload = Payload(P.KE, wire.encode_ke(group, bytes(size) or b"\0"))
    (refusal,) = intermediate(gateway, peer, [payload])
    assert wire.parse_notify(refusal.body).type == N.INVALID_SYNTAX
    assert gateway.established_sas() == []


@item("INT-14")
def test_an_encapsulation_key_out_of_range_is_refused(gateway):
    for group, size, name in ((35, 800, "mlkem512"), (36, 1184, "mlkem768")):
        peer = begin(gateway, ike=("%s-ke1_%s" % (PLAIN, name),), seed=group)
        payload = Payload(P.KE, wire.encode_ke(group, b"\xff" * size))
        (refusal,) = intermediate(gateway, peer, [payload])
        assert wire.parse_notify(refusal.body).type == N.INVALID_SYNTAX


@item("INT-12")
def test_ike_auth_before_the_agreed_exchange_is_refused(gateway):
    peer = begin(gateway, ike=(PLAIN + "-ke1_mlkem512",))
    assert finish(gateway, peer) == [N.INVALID_SYNTAX]
    doubled = begin(gateway, ike=(PLAIN + "-ke1_mlkem512",), seed=2)
    add_kem(gateway, doubled, 35)
    payload = Payload(P.KE, wire.encode_ke(35, start_exchange(35, doubled.rand).public))
    (refusal,) = intermediate(gateway, doubled, [payload])
    assert wire.parse_notify(refusal.body).type == N.INVALID_SYNTAX


@item("INT-15")
@pytest.mark.parametrize(("name", "group"), [("mlkem512", 35), ("mlkem768", 36)])
def test_ml_kem_alone_in_ike_sa_init(gateway, name, group):
    peer = begin(gateway, ike=("aes128ccm16-prfsha256-" + name,))
    assert peer.group == group
    assert finish(gateway, peer) == [] and works(gateway, peer)


@item("INT-13", "AMB-04")
def test_an_answer_is_resent_under_the_keys_of_its_exchange(make_gateway):
    """The answer of exchange n is under the old keys, also after the keys have changed."""
    from tools.devgateway import fragack

    gateway = make_gateway(fragment_size=300, frag_ack="eager")
    peer = Peer(ike=(PLAIN + "-ke1_mlkem768",))
    peer.init_notifies = [FRAGMENTS, INTERMEDIATE, Notify(N.FRAGMENT_ACK_SUPPORTED)]
    peer.init_extra = [Payload(P.VENDOR_ID, fragack.VENDOR_ID)]
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
    half = start_exchange(36, peer.rand)
    payload = Payload(P.KE, wire.encode_ke(36, half.public))
    first, inner = peer.intermediate_octets([payload])
    messages = peer.fragment_octets(Exchange.IKE_INTERMEDIATE, first, inner, 8)
    feed(gateway, messages[:3] + messages[4:])
    (ack,) = bare(gateway.timer(200))
    header, kind, pairs = peer.read_ack(ack)
    assert (header.exchange, header.message_id, pairs) == (43, 1, [(4, 4)])
    out = feed(gateway, messages[3:4], 300)
    assert feed(gateway, messages[:1], 400) == out
    ack = peer.ack(N.FRAGMENT_ACK_RES, [(2, 2)], Exchange.IKE_INTERMEDIATE, 1)
    assert feed(gateway, [ack], 500) == [out[1]]
    answer = peer.take_intermediate(*out)
    shared = half.finish(wire.parse_ke(answer[0].body)[1])
    peer.new_keys(peer.prf(peer.keys.sk_d, shared + peer.n_i + peer.n_r))
    assert peer.take_auth(*feed(gateway, [peer.auth_request()], 600))[1] == []
    assert works(gateway, peer)


# PPK in IKE_AUTH, RFC 8784


def ppk_auth(peer, ppk_id=PPK_ID, secret=PPK, optional=False, sent=True):
    """An IKE_AUTH request with a PPK; the peer's keys change with it."""
    octets = peer.init_data + peer.n_r + peer.prf(peer.keys.sk_pi, peer.identity.encode())
    without = psk_auth(peer.prf, psk_pad(peer.prf, peer.psk), octets)
    if secret is not None:
        mix = {
            name: peer.prf.plus(secret, getattr(peer.keys, name), 32)
            for name in ("sk_d", "sk_pi", "sk_pr")
        }
        peer.keys = peer.keys._replace(**mix)
    peer.auth_notifies = []
    if sent:
        peer.auth_notifies.append(Notify(N.PPK_IDENTITY, ppk_id))
    if optional:
        peer.auth_notifies.append(Notify(N.NO_PPK_AUTH, without))
    return peer.auth_request()


@item("INT-17", "INT-18", "INT-19", "INT-20")
@pytest.mark.parametrize("optional", [False, True])
def test_a_ppk_goes_into_the_keys_of_ike_auth(make_gateway, events, optional):
    gateway = make_gateway(ppks=PPKS)
    peer = begin(gateway, (Notify(N.USE_PPK),))
    assert N.USE_PPK in {n.type for n in peer.init_answer_notifies}
    request = ppk_auth(peer, optional=optional)
    assert peer.take_auth(*feed(gateway, [request]))[1] == [N.PPK_IDENTITY]
    assert works(gateway, peer) and dict(events)["ike_sa"]["ppk"] is True


@item("INT-20")
def test_an_unknown_ppk_is_done_without_only_if_both_allow_it(make_gateway, events):
    for number, (settings, optional, result) in enumerate(
        (
            ({}, True, []),
            ({}, False, [N.AUTHENTICATION_FAILED]),
            ({"ppk_required": True}, True, [N.AUTHENTICATION_FAILED]),
        )
    ):
        gateway = make_gateway(ppks=PPKS, **settings)
        peer = begin(gateway, (Notify(N.USE_PPK),), seed=number)
        plain = peer.keys
        request = ppk_auth(peer, b"\x02unknown", optional=optional)
        peer.keys = plain._replace(
            from_initiator=peer.keys.from_initiator, from_responder=peer.keys.from_responder
        )
        assert peer.take_auth(*feed(gateway, [request]))[1] == result
        assert (peer.child is not None) == (result == [])


@item("INT-17", "INT-18")
def test_a_wrong_ppk_fails_and_a_missing_one_is_told(make_gateway):
    gateway = make_gateway(ppks=PPKS)
    peer = begin(gateway, (Notify(N.USE_PPK),))
    request = ppk_auth(peer, secret=b"another")
    assert peer.take_auth(*feed(gateway, [request]))[1] == [N.AUTHENTICATION_FAILED]
    gateway = make_gateway(ppks=PPKS, ppk_required=True)
    peer = begin(gateway, ())
    assert finish(gateway, peer) == [N.AUTHENTICATION_FAILED]
    gateway = make_gateway()
    peer = begin(gateway, (Notify(N.USE_PPK),))
    assert N.USE_PPK not in {n.type for n in peer.init_answer_notifies}


# PPK in IKE_INTERMEDIATE, RFC 9867


def ppk_key(peer, ppk_id=PPK_ID, secret=PPK):
    proof = peer.prf(secret, peer.n_i + peer.n_r + peer.spi_i + peer.spi_r)[:8]
    return Notify(N.PPK_IDENTITY_KEY, ppk_id + proof).payload()


def mix(peer, secret=PPK):
    peer.new_keys(peer.prf.plus(secret, peer.keys.sk_d, 32))


BOTH = (FRAGMENTS, INTERMEDIATE, Notify(N.USE_PPK), Notify(N.USE_PPK_INT))


@item("INT-21")
def test_a_ppk_goes_into_ike_intermediate(make_gateway, events):
    gateway = make_gateway(ppks=PPKS, ppk_required=True)
    peer = begin(gateway, BOTH)
    kinds = {n.type for n in peer.init_answer_notifies}
    assert N.USE_PPK_INT in kinds and N.USE_PPK not in kinds
    offers = [
        ppk_key(peer, b"\x02unknown"),
        ppk_key(peer, PPK_ID, b"a wrong one"),
        ppk_key(peer, PPK_ID),
    ]
    (reply,) = intermediate(gateway, peer, offers)
    assert wire.parse_notify(reply.body) == Notify(N.PPK_IDENTITY, PPK_ID)
    mix(peer)
    assert finish(gateway, peer) == [] and works(gateway, peer)
    assert dict(events)["ike_sa"]["ppk"] is True


@item("INT-21")
def test_a_ppk_comes_after_the_key_exchange_of_the_same_exchange(make_gateway):
    gateway = make_gateway(ppks=PPKS)
    peer = begin(gateway, BOTH, ike=(PLAIN + "-ke1_mlkem512",))
    answer = add_kem(gateway, peer, 35, extra=[ppk_key(peer)])
    assert [payload.type for payload in answer] == [P.KE, P.NOTIFY]
    mix(peer)
    assert finish(gateway, peer) == [] and works(gateway, peer)


@item("INT-21")
def test_an_unknown_ppk_in_ike_intermediate(make_gateway):
    gateway = make_gateway(ppks=PPKS)
    peer = begin(gateway, BOTH)
    assert intermediate(gateway, peer, [ppk_key(peer, b"\x02unknown")]) == []
    assert finish(gateway, peer) == [] and works(gateway, peer)
    gateway = make_gateway(ppks=PPKS, ppk_required=True)
    peer = begin(gateway, BOTH)
    (refusal,) = intermediate(gateway, peer, [ppk_key(peer, b"\x02unknown")])
    assert wire.parse_notify(refusal.body).type == N.AUTHENTICATION_FAILED
    # A downgrade that strips the notify is noticed where a PPK is required.
    gateway = make_gateway(ppks=PPKS, ppk_required=True)
    peer = begin(gateway, (INTERMEDIATE,))
    assert finish(gateway, peer) == [N.AUTHENTICATION_FAILED]


def test_bent_intermediate_payloads_never_raise(make_gateway):
    import random

    gateway = make_gateway(ppks=PPKS)
    picks = random.Random(4)
    for turn in range(300):
        peer = begin(gateway, BOTH, ike=(PLAIN + "-ke1_mlkem768",), seed=turn)
        half = start_exchange(36, peer.rand)
        payloads = [Payload(P.KE, wire.encode_ke(36, half.public)), ppk_key(peer)]
        first, inner = wire.encode_payloads(payloads)
        bad = bytearray(inner)
        for _ in range(picks.randint(1, 3)):
            bad[picks.choice((picks.randrange(8), picks.randrange(len(bad))))] = picks.choice(
                (0, 1, 255, picks.randrange(256))
            )
        request = peer.protect_octets(Exchange.IKE_INTERMEDIATE, first, bytes(bad))
        out = gateway.receive(natt(request), HERE_NATT, 0)
        assert len(out) >= 1
        peer.open(*bare(out))
        (sa,) = gateway.sas.values()
        gateway._forget(sa)
