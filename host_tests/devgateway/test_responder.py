"""The IKE responder, step by step, without sockets."""

import random
from ipaddress import ip_network

import pytest

from host_tests.devgateway.peer import HERE, HERE_NATT, Peer, connect, natt, only
from tools.devgateway import wire
from tools.devgateway.numbers import Cfg, CfgAttr, Exchange, Flag, Group, N, P, Protocol
from tools.devgateway.sa_init import nat_hash
from tools.devgateway.wire import Payload


def init_notifies(gateway, request, endpoint=HERE, now=0):
    """Notify types of the unprotected answer to an IKE_SA_INIT request."""
    data = only(gateway.receive(request, endpoint, now))
    header = wire.parse_header(data)
    assert header.flags == Flag.RESPONSE and header.message_id == 0
    payloads = wire.parse_payloads(header.next_payload, data[28:])
    return [wire.parse_notify(p.body) for p in payloads if p.type == P.NOTIFY]


@pytest.mark.parametrize(
    "suite",
    [
        "aes128ccm16-prfsha256-x25519",
        "aes256ccm16-prfsha256-ecp256",
        "aes128ccm12-prfsha384-modp2048",
        "aes128ccm8-prfsha512-x25519",
        "aes128-sha256-ecp256",
        "aes256-sha256-prfsha512-modp2048",
    ],
)
def test_every_suite_gives_a_tunnel(gateway, events, suite):
    _, notifies = connect(gateway, Peer(ike=(suite,)))
    assert not [kind for kind in notifies if kind < 16384]
    told = dict(events)
    assert told["ike_sa"]["id"] == "sensor-1.example.org"
    assert told["child_sa"]["inner"] == "10.9.0.1"
    assert "error" not in told


def test_scapy_parses_our_messages(gateway):
    from scapy.contrib.ikev2 import IKEv2, IKEv2_KE, IKEv2_SA, IKEv2_Encrypted, IKEv2_Nonce

    peer = Peer()
    answer = only(gateway.receive(peer.init_request(), HERE, 0))
    message = IKEv2(answer)
    assert message.exch_type == 34 and message.flags == 0x20 and message.length == len(answer)
    assert message[IKEv2_KE].group == 31
    assert len(message[IKEv2_Nonce].nonce) == 32
    proposal = message[IKEv2_SA].prop
    assert proposal.trans_nb == 3
    assert not message.haslayer("Raw")
    peer.take_init(answer)
    message = IKEv2(only(gateway.receive(natt(peer.auth_request()), HERE_NATT, 0)))
    assert message.exch_type == 35 and message.id == 1
    assert message.haslayer(IKEv2_Encrypted)


# IKE_SA_INIT


def test_the_same_ike_sa_init_gives_the_same_answer_and_one_sa(gateway):
    request = Peer().init_request()
    first = gateway.receive(request, HERE, 0)
    again = gateway.receive(request, HERE._replace(port=40501), 10)
    assert first[0][0] == again[0][0]
    assert again[0][1].port == 40501
    assert len(gateway.sas) == 1


def test_a_cookie_is_asked_for_without_keeping_anything(make_gateway):
    gateway = make_gateway(cookie=True)
    peer = Peer()
    (cookie,) = init_notifies(gateway, peer.init_request())
    assert cookie.type == N.COOKIE and 1 <= len(cookie.data) <= 64
    assert gateway.sas == {}
    peer.cookie = cookie.data
    request = peer.init_request()
    # From another address, or with another nonce, it does not count.
    (other,) = init_notifies(gateway, request, HERE._replace(host="192.0.2.8"))
    assert other.type == N.COOKIE
    assert len(gateway.sas) == 0
    peer.take_init(only(gateway.receive(request, HERE, 0)))
    assert peer.take_auth(only(gateway.receive(natt(peer.auth_request()), HERE_NATT, 0)))[0]
    assert peer.child is not None


def test_a_cookie_that_is_not_the_first_payload_does_not_count(make_gateway):
    gateway = make_gateway(cookie=True)
    peer = Peer()
    (cookie,) = init_notifies(gateway, peer.init_request())
    peer.init_notifies = [cookie]
    assert init_notifies(gateway, peer.init_request())[0].type == N.COOKIE


def test_a_cookie_ages(make_gateway):
    gateway = make_gateway(cookie=True)
    peer = Peer()
    (cookie,) = init_notifies(gateway, peer.init_request())
    peer.cookie = cookie.data
    assert init_notifies(gateway, peer.init_request(), now=61_000)[0].type != N.COOKIE
    # The secret changes at 61 s and at 122 s: by then a cookie of the first is void.
    init_notifies(gateway, Peer(seed=2).init_request(), now=61_000)
    late = Peer(seed=3)
    (cookie,) = init_notifies(gateway, late.init_request(), now=61_001)
    late.cookie = cookie.data
    init_notifies(gateway, Peer(seed=4).init_request(), now=122_000)
    init_notifies(gateway, Peer(seed=5).init_request(), now=183_000)
    assert init_notifies(gateway, late.init_request(), now=183_001)[0].type == N.COOKIE


def test_cookies_are_asked_for_while_many_sas_are_half_open(make_gateway):
    gateway = make_gateway(cookie_threshold=3, max_half_open=5)
    for seed in range(10, 13):
        assert len(only(gateway.receive(Peer(seed=seed).init_request(), HERE, 0))) > 100
    peer = Peer(seed=20)
    (cookie,) = init_notifies(gateway, peer.init_request())
    assert cookie.type == N.COOKIE
    for seed in range(30, 40):
        peer = Peer(seed=seed)
        peer.cookie = init_notifies(gateway, peer.init_request())[0].data
        gateway.receive(peer.init_request(), HERE, 0)
    assert len(gateway.sas) == 5
    assert gateway.drops["TOO_MANY_SAS"] == 8
    # Half-open SAs expire.
    assert gateway.next_timer() == 30_000
    gateway.timer(30_000)
    assert gateway.sas == {} and gateway._by_init == {}


def test_another_group_is_asked_for(make_gateway):
    gateway = make_gateway(ike=("aes128ccm16-prfsha256-ecp256",))
    peer = Peer(ike=("aes128ccm16-prfsha256-x25519-ecp256",))
    (notify,) = init_notifies(gateway, peer.init_request())
    assert notify.type == N.INVALID_KE_PAYLOAD and notify.data == b"\0\x13"
    assert gateway.sas == {}
    peer.use_group(Group.ECP_256)
    connect(gateway, peer)
    assert peer.child is not None


def test_no_common_proposal_is_told(gateway, make_gateway, events):
    gateway = make_gateway(ike=("aes256ccm16-prfsha256-x25519",))
    (notify,) = init_notifies(gateway, Peer().init_request())
    assert notify.type == N.NO_PROPOSAL_CHOSEN
    assert dict(events)["error"]["notify"] == "NO_PROPOSAL_CHOSEN"


def test_a_bad_public_value_is_told_and_nothing_kept(gateway):
    peer = Peer()
    peer.half.public = bytes(32)
    (notify,) = init_notifies(gateway, peer.init_request())
    assert notify.type == N.INVALID_SYNTAX
    assert gateway.sas == {}


def test_nat_hashes_are_honest_without_encap(make_gateway):
    gateway = make_gateway(encap=False)
    peer = Peer()
    notifies = init_notifies(gateway, peer.init_request())
    (sa,) = gateway.sas.values()
    hashes = {notify.type: notify.data for notify in notifies}
    assert hashes[N.NAT_DETECTION_SOURCE_IP] == nat_hash(
        sa.spi_i, sa.spi_r, HERE.local_host, HERE.local_port
    )
    assert hashes[N.NAT_DETECTION_DESTINATION_IP] == nat_hash(
        sa.spi_i, sa.spi_r, HERE.host, HERE.port
    )
    assert not sa.peer_behind_nat and not sa.behind_nat
    mapped = HERE._replace(host="198.51.100.4")
    gateway.receive(Peer(seed=2).init_request(), mapped, 0)
    assert list(gateway.sas.values())[1].peer_behind_nat


def test_with_encap_the_source_hash_fits_nothing(gateway):
    notifies = init_notifies(gateway, Peer().init_request())
    (sa,) = gateway.sas.values()
    hashes = {notify.type: notify.data for notify in notifies}
    assert hashes[N.NAT_DETECTION_SOURCE_IP] != nat_hash(
        sa.spi_i, sa.spi_r, HERE.local_host, HERE.local_port
    )


def test_an_unknown_critical_payload_is_named(gateway):
    peer = Peer()
    peer.init_extra = [Payload(200, b"?", True)]
    (notify,) = init_notifies(gateway, peer.init_request())
    assert (notify.type, notify.data) == (N.UNSUPPORTED_CRITICAL_PAYLOAD, b"\xc8")
    peer.init_extra = [Payload(200, b"?")]
    connect(gateway, peer)
    assert peer.child is not None


def test_a_later_major_version_is_told_ours(gateway):
    request = bytearray(Peer().init_request())
    request[17] = 0x30
    (notify,) = init_notifies(gateway, bytes(request))
    assert notify.type == N.INVALID_MAJOR_VERSION
    request[19] |= Flag.RESPONSE
    assert gateway.receive(bytes(request), HERE, 0) == []


# IKE_AUTH


def test_a_resent_request_gets_the_same_octets(gateway):
    peer = Peer()
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
    request = natt(peer.auth_request())
    first = gateway.receive(request, HERE_NATT, 0)
    again = gateway.receive(request, HERE_NATT, 900)
    assert first == again
    assert len(gateway.children) == 1
    # Encrypted anew it is not that request.
    assert gateway.receive(natt(peer.auth_request()), HERE_NATT, 900) == []
    assert gateway.drops == {"OLD_MESSAGE_ID": 1}


@pytest.mark.parametrize(
    ("secrets", "identity", "accepted"),
    [
        ({"any": "secret"}, "whoever@example.org", True),
        ({"*": "secret"}, "keyid:0x0102", True),
        ({"sensor-1.example.org": "secret"}, "sensor-1.example.org", True),
        ({"sensor-1.example.org": "secret"}, "sensor-2.example.org", False),
        ({"sensor-1.example.org": "other", "any": "secret"}, "sensor-1.example.org", False),
        ({"keyid:0x01": "0x736563726574"}, "keyid:0x01", True),
        ({"10.1.2.3": "secret"}, "ipv4:10.1.2.3", True),
        ({"any": "wrong"}, "sensor-1.example.org", False),
    ],
)
def test_the_secret_of_the_identity_decides(make_gateway, events, secrets, identity, accepted):
    gateway = make_gateway(secrets)
    bodies, notifies = connect(gateway, Peer(id=identity))
    if accepted:
        assert dict(events)["ike_sa"]["id"] == identity
        assert P.SA in bodies
    else:
        assert notifies == [N.AUTHENTICATION_FAILED] and set(bodies) == {P.NOTIFY}
        assert dict(events)["error"]["notify"] == "AUTHENTICATION_FAILED"
        assert gateway.children == {} and gateway.established_sas() == []
        gateway.timer(30_000)
        assert gateway.sas == {}


def test_a_failed_ike_auth_is_answered_again_but_not_tried_again(make_gateway):
    gateway = make_gateway({"any": "wrong"})
    peer = Peer()
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
    request = natt(peer.auth_request())
    first = gateway.receive(request, HERE_NATT, 0)
    assert gateway.receive(request, HERE_NATT, 1) == first
    peer.message_id = 2
    assert gateway.receive(natt(peer.auth_request()), HERE_NATT, 2) == []
    assert gateway.drops == {"DEAD_SA": 1}


@pytest.mark.parametrize(
    ("settings", "esp", "notify"),
    [
        ({"esp": ("aes256ccm16",)}, "aes128ccm8", N.NO_PROPOSAL_CHOSEN),
        ({"local_ts": ("fd00::/8",)}, "aes128ccm8", N.TS_UNACCEPTABLE),
        ({"pool": None}, "aes128ccm8", N.INTERNAL_ADDRESS_FAILURE),
    ],
)
def test_a_child_that_fails_leaves_the_ike_sa(make_gateway, settings, esp, notify):
    gateway = make_gateway(**settings)
    peer = Peer(esp=(esp,))
    bodies, notifies = connect(gateway, peer)
    assert notifies == [notify]
    assert P.AUTH in bodies and P.SA not in bodies and P.CP not in bodies
    assert len(gateway.established_sas()) == 1 and gateway.children == {}
    # The sensor then deletes it.
    delete = Payload(P.DELETE, wire.encode_delete(Protocol.IKE, []))
    answer = only(
        gateway.receive(natt(peer.protect(Exchange.INFORMATIONAL, [delete])), HERE_NATT, 5)
    )
    header, payloads = peer.open(answer)
    assert payloads == [] and header.flags == Flag.RESPONSE
    assert gateway.established_sas() == []


def test_cp_can_be_required(make_gateway):
    gateway = make_gateway(require_cp=True)
    assert connect(gateway, Peer(inner="10.8.0.9"))[1] == [N.FAILED_CP_REQUIRED]
    assert connect(gateway, Peer(seed=2))[1] == []


def test_a_static_inner_address_is_taken_and_the_rest_narrowed(make_gateway):
    gateway = make_gateway(local_ts=("10.3.0.0/16",), remote_ts=("10.8.0.0/24",))
    peer = Peer(inner="10.8.0.9")
    bodies, _ = connect(gateway, peer)
    assert str(peer.address) == "10.8.0.9" and P.CP not in bodies
    assert wire.parse_selectors(bodies[P.TSR]) == [wire.selector_of(ip_network("10.3.0.0/16"))]
    assert connect(gateway, Peer(inner="10.8.1.9", seed=2))[1] == [N.TS_UNACCEPTABLE]


def test_ipv6_addresses_come_from_their_own_pool(make_gateway):
    gateway = make_gateway(pool=None, pool6="fd09::/64")
    peer = Peer()
    peer.inner = "fd00::1"  # so that no CP for IPv4 is sent
    request = [(CfgAttr.INTERNAL_IP6_ADDRESS, b"")]
    peer.auth_extra = [Payload(P.CP, wire.encode_cfg(Cfg.REQUEST, request))]
    peer.ts_i = peer.ts_r = [wire.selector_of(ip_network("::/0"))]
    bodies, _ = connect(gateway, peer)
    assert wire.parse_cfg(bodies[P.CP])[1] == [(8, peer.address.packed + b"\x80")]
    ((echo, _),) = gateway.receive(peer.udp(b"six", to="fd03::10"), HERE_NATT, 0)
    assert peer.open_udp(echo)[3] == b"six"


def test_addresses_are_given_back_and_kept_for_their_owner(make_gateway):
    gateway = make_gateway(pool="10.9.0.0/29")
    seen = {}
    for number in range(6):
        peer = Peer(id="s%d" % number, seed=number)
        connect(gateway, peer)
        seen["s%d" % number] = peer.address
    assert len(set(seen.values())) == 6
    assert connect(gateway, Peer(id="s9", seed=9))[1] == [N.INTERNAL_ADDRESS_FAILURE]
    for number in (3, 4):
        peer = Peer(id="s%d" % number, seed=100 + number)
        connect(gateway, peer)  # INITIAL_CONTACT replaces the old one
        assert peer.address == seen["s%d" % number]
    assert len(gateway.children) == 6


def test_without_initial_contact_an_older_sa_stays(gateway):
    connect(gateway, Peer())
    peer = Peer(seed=2)
    peer.auth_notifies = []
    connect(gateway, peer)
    assert len(gateway.children) == 2
    connect(gateway, Peer(seed=3))
    assert len(gateway.children) == 1


def test_an_unknown_critical_payload_in_ike_auth_is_named(gateway):
    peer = Peer()
    peer.auth_extra = [Payload(201, b"", True)]
    bodies, notifies = connect(gateway, peer)
    assert notifies == [N.UNSUPPORTED_CRITICAL_PAYLOAD]
    assert bodies[P.NOTIFY].endswith(b"\xc9")


def test_bad_syntax_inside_sk_is_told_inside_sk(gateway):
    for spoil in (b"\0\0", b"\0\0\0\3", b"\xff" * 40):
        peer = Peer(seed=len(spoil))
        peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
        request = peer.protect_octets(Exchange.IKE_AUTH, P.IDI, spoil)
        _, notifies = peer.take_auth(only(gateway.receive(natt(request), HERE_NATT, 0)))
        assert notifies == [N.INVALID_SYNTAX]


def test_ike_auth_without_auth_wants_eap_and_gets_none(gateway):
    peer = Peer()
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
    payloads = [p for p in peer.auth_payloads() if p.type != P.AUTH]
    request = peer.protect(Exchange.IKE_AUTH, payloads)
    assert peer.take_auth(only(gateway.receive(natt(request), HERE_NATT, 0)))[1] == [
        N.AUTHENTICATION_FAILED
    ]


# Message IDs, INFORMATIONAL, CREATE_CHILD_SA


def ask(gateway, peer, exchange, payloads, now=1):
    answer = only(gateway.receive(natt(peer.protect(exchange, payloads)), HERE_NATT, now))
    peer.message_id += 1
    return peer.open(answer)


def test_liveness_is_answered_and_message_ids_go_up_by_one(gateway):
    peer = Peer()
    connect(gateway, peer)
    for message_id in range(2, 6):
        header, payloads = ask(gateway, peer, Exchange.INFORMATIONAL, [])
        assert (header.message_id, payloads) == (message_id, [])
    for message_id, reason in ((3, "OLD_MESSAGE_ID"), (7, "FUTURE_MESSAGE_ID")):
        request = peer.protect(Exchange.INFORMATIONAL, [], message_id)
        assert gateway.receive(natt(request), HERE_NATT, 9) == []
        assert gateway.drops.pop(reason) == 1


def test_a_deleted_child_is_answered_with_its_pair(gateway):
    peer = Peer()
    connect(gateway, peer)
    (spi_in,) = gateway.children
    body = wire.encode_delete(Protocol.ESP, [peer.spi_esp])
    _, (answer,) = ask(gateway, peer, Exchange.INFORMATIONAL, [Payload(P.DELETE, body)])
    assert wire.parse_delete(answer.body) == (Protocol.ESP, [spi_in])
    assert gateway.children == {}
    assert gateway.receive(peer.udp(b"late"), HERE_NATT, 2) == []
    assert gateway.drops == {"UNKNOWN_SPI": 1}


def test_a_delete_is_answered_again_after_the_sa_is_gone(gateway, events):
    peer = Peer()
    connect(gateway, peer)
    body = wire.encode_delete(Protocol.IKE, [])
    request = natt(peer.protect(Exchange.INFORMATIONAL, [Payload(P.DELETE, body)]))
    first = gateway.receive(request, HERE_NATT, 0)
    assert dict(events)["delete"]["reason"] == "deleted by the peer"
    assert gateway.receive(request, HERE_NATT, 100) == first
    gateway.timer(30_001)
    assert gateway.sas == {}
    assert gateway.receive(request, HERE_NATT, 30_002) == []


def test_rekeying_is_refused(gateway):
    peer = Peer()
    connect(gateway, peer)
    _, (answer,) = ask(gateway, peer, Exchange.CREATE_CHILD_SA, [Payload(P.NONCE, bytes(32))])
    assert wire.parse_notify(answer.body).type == N.NO_ADDITIONAL_SAS
    assert ask(gateway, peer, Exchange.INFORMATIONAL, [])[1] == []


def test_the_gateway_deletes_with_resends_until_it_is_answered(gateway, events):
    peer = Peer()
    connect(gateway, peer)
    (sa,) = gateway.sas.values()
    sent = [only(gateway.delete(sa, 1000))]
    for when in (2000, 4000, 8000):
        assert gateway.next_timer() == when
        sent.append(only(gateway.timer(when)))
    assert len(set(sent)) == 1
    header, (payload,) = peer.open(sent[0])
    assert (header.exchange, header.flags, header.message_id) == (Exchange.INFORMATIONAL, 0, 0)
    assert wire.parse_delete(payload.body) == (Protocol.IKE, [])
    answer = peer.protect(Exchange.INFORMATIONAL, [], 0, flags=Flag.INITIATOR | Flag.RESPONSE)
    assert gateway.receive(natt(answer), HERE_NATT, 8100) == []
    assert dict(events)["delete"]["reason"] == "deleted by us"
    assert gateway.established_sas() == []


def test_a_sensor_that_answers_nothing_is_dead_after_the_last_resend(gateway, events):
    connect(gateway, Peer())
    (sa,) = gateway.sas.values()
    gateway.liveness(sa, 0)
    times = []
    while gateway.established_sas():
        times.append(gateway.next_timer())
        gateway.timer(times[-1])
    assert times == [1000, 3000, 7000, 15000, 31000]
    assert dict(events)["delete"]["reason"] == "no answer to INFORMATIONAL"


def test_liveness_of_the_gateway_ends_with_the_answer(gateway):
    peer = Peer()
    connect(gateway, peer)
    (sa,) = gateway.sas.values()
    alive = []
    peer.open(only(gateway.liveness(sa, 0, lambda *_: alive.append(1))))
    answer = peer.protect(Exchange.INFORMATIONAL, [], 0, flags=Flag.INITIATOR | Flag.RESPONSE)
    gateway.receive(natt(answer), HERE_NATT, 5)
    assert alive == [1] and gateway.next_timer() is None
    gateway.receive(natt(answer), HERE_NATT, 6)
    assert gateway.drops == {"UNEXPECTED_RESPONSE": 1}


# Many, and malformed


def test_many_sensors_at_once(gateway):
    peers = [Peer(id="s%d" % n, seed=n) for n in range(60)]
    answers = [gateway.receive(peer.init_request(), HERE, 0) for peer in peers[:30]]
    for peer, answer in zip(peers, answers):
        peer.take_init(only(answer))
    for peer in peers[:30]:
        peer.take_auth(only(gateway.receive(natt(peer.auth_request()), HERE_NATT, 0)))
    for peer in peers[30:]:
        connect(gateway, peer)
    for turn in range(2):
        for peer in peers:
            ((echo, _),) = gateway.receive(peer.udp(b"%d" % turn), HERE_NATT, 1)
            assert peer.open_udp(echo)[3] == b"%d" % turn
    assert len({peer.address for peer in peers}) == 60


def test_mutated_messages_are_dropped_or_answered_and_never_raise(make_gateway):
    """100,000 bent real messages; an established SA beside them keeps working."""
    gateway = make_gateway(cookie_threshold=10**9, max_half_open=50)
    good = Peer(id="good", seed=1000)
    connect(gateway, good)
    good_sa = gateway.established_sas()[0]
    picks = random.Random(11)
    peer = Peer()
    peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
    corpus = [
        (peer.init_request(), HERE),
        (natt(peer.auth_request()), HERE_NATT),
        (natt(good.protect(Exchange.INFORMATIONAL, [])), HERE_NATT),
        (good.udp(b"reading"), HERE_NATT),
    ]
    for turn in range(100_000):
        data, endpoint = picks.choice(corpus)
        bad = bytearray(data)
        for _ in range(picks.randint(1, 4)):
            how = picks.random()
            if how < 0.7 and bad:
                bad[picks.randrange(len(bad))] = picks.randrange(256)
            elif how < 0.8 and bad:
                del bad[picks.randrange(len(bad)) :]
            elif how < 0.9:
                bad += picks.randbytes(picks.randint(1, 30))
            elif bad:
                at = picks.randrange(len(bad))
                bad[at:at] = picks.randbytes(picks.randint(1, 4))
        gateway.receive(bytes(bad), endpoint, turn)
        if turn % 1000 == 0:
            gateway.timer(turn)
    assert gateway.drops.total() > 50_000
    assert good_sa.state == "established"
    ((echo, _),) = gateway.receive(good.udp(b"still"), HERE_NATT, 100_000)
    assert good.open_udp(echo)[3] == b"still"


def test_bent_payloads_under_a_right_icv_never_raise(gateway):
    """What an authenticated but broken peer may send inside SK."""
    picks = random.Random(12)
    for turn in range(1500):
        peer = Peer(seed=turn)
        peer.take_init(only(gateway.receive(peer.init_request(), HERE, 0)))
        first, inner = wire.encode_payloads(peer.auth_payloads())
        bad = bytearray(inner)
        for _ in range(picks.randint(1, 6)):
            bad[picks.randrange(len(bad))] = picks.choice((0, 1, 4, 255, picks.randrange(256)))
        request = peer.protect_octets(Exchange.IKE_AUTH, first, bytes(bad))
        out = gateway.receive(natt(request), HERE_NATT, 0)
        assert len(out) == 1
        peer.open(only(out))
        (sa,) = gateway.sas.values()
        gateway._forget(sa)
