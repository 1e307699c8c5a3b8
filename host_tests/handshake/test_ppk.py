"""Post-quantum preshared keys, in IKE_AUTH (RFC 8784) and in IKE_INTERMEDIATE (RFC 9867).

INT-17 to INT-21, against the scripted gateway and the development gateway.
"""

import pytest

from tools.dev.peers.third_party import Link
from tools.dev.peers import primitives
from host_tests.checklist import item
from tools.dev.peers.node import SECRETS
from tools.dev.peers.responder import IKE_AUTH, INFORMATIONAL, KE, N, R, notify
from tools.dev.peers.hybrid import (
    keys_of,
    CCM,
    NO_PPK_AUTH,
    PPK,
    PPK_ID,
    PPK_IDENTITY,
    PPK_IDENTITY_KEY,
    SUPPORTED,
    USE_PPK,
    USE_PPK_INT,
    WITH_PPK,
    Hybrid,
    exchanging,
    failure,
    finish,
    give,
    hybrid,
    run,
    sensor,
)
from minipsec import refusals, explain
from minipsec.config import profile
from tools.devgateway import ike

OPTIONAL = {**WITH_PPK, "ppk_required": False}
PPKS = {b"ppk-1": PPK}
OTHER = {**WITH_PPK, "secrets": {**SECRETS, "ppk": "another one"}}


def in_auth(**settings):
    return Hybrid((), ppk="auth", **settings)


def refusal(node, gateway, sent):
    """The sensor ended its attempt because of the PPK, and told the gateway."""
    kind, why, detail = failure(node)
    assert (kind, why) == ("failed", "ppk")
    (farewell,) = sent
    exchange, _, _, payloads = gateway.read(farewell)
    assert exchange == INFORMATIONAL
    assert [(k, bytes(body)) for k, _, body in payloads] == [notify(24)]
    error = explain.failure((kind, why, detail))
    assert type(error) is refusals.PostQuantumRefused and detail in str(error)
    assert "ppk_id" in error.check and "ppk_required" in error.check
    return error


# In IKE_AUTH.


@item("INT-17")
def test_both_ways_are_offered_and_the_gateway_picks_one():
    node = sensor(**WITH_PPK)
    gateway = Hybrid()
    gateway.read_init(node.start()[0])
    for kind in (USE_PPK, USE_PPK_INT, SUPPORTED):
        assert (kind, b"") in gateway.init_notifies
    node = sensor()
    gateway.read_init(node.start()[0])
    assert not {USE_PPK, USE_PPK_INT} & {kind for kind, _ in gateway.init_notifies}


@item("INT-17")
def test_a_required_ppk_that_the_gateway_does_not_offer_to_use_ends_the_attempt():
    """Nobody authenticated that answer: it is a hint, and a genuine one may follow."""
    gateway = Hybrid(())
    node = sensor(**WITH_PPK)
    request = node.start()[0]
    assert node.receive(gateway.init(request)) == []
    assert node.state == "IKE_SA_INIT" and node.all("hint") == [("hint", USE_PPK)]
    assert node.ike.drops == {"NO_PPK": 1}
    while node.state != "DOWN":
        node.timer(node.ike.next_timer())
    error = explain.failure(failure(node), USE_PPK)
    assert type(error) is refusals.PostQuantumRefused and "USE_PPK" in str(error)
    assert refusals.notify_name(USE_PPK) == "no USE_PPK"


@item("INT-17")
def test_a_forged_answer_without_it_does_not_stop_the_genuine_one():
    node = sensor(**WITH_PPK)
    request = node.start()[0]
    assert node.receive(Hybrid(()).init(request)) == []
    gateway = in_auth()
    finish(node, gateway, node.receive(gateway.init(request)))


@item("INT-17")
def test_an_optional_ppk_that_the_gateway_does_not_offer_to_use_is_left_out():
    gateway = Hybrid(())
    node = sensor(**OPTIONAL)
    sent = node.receive(gateway.init(node.start()[0]))
    finish(node, gateway, sent)
    assert not {PPK_IDENTITY, NO_PPK_AUTH} & {kind for kind, _ in gateway.auth_notifies}
    assert node.with_ppk is False


@item("INT-18", "INT-19", "INT-20")
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("methods", [(), (36,), (35, 36)])
def test_it_is_mixed_into_three_keys_after_the_last_exchange(required, methods):
    gateway = Hybrid(methods, ppk="auth")
    node, gateway, sent = exchanging(gateway, ppk_required=required)
    while node.state == "IKE_INTERMEDIATE":
        sent = give(node, gateway.intermediate(sent))
    before = gateway.sk_d, gateway.sk_pi, gateway.sk_pr
    ciphers = node.ike.tx, node.ike.rx
    mixed = [primitives.prf_plus(PPK, key, 32) for key in before]
    assert list(keys_of(node)) == mixed
    finish(node, gateway, sent)
    assert gateway.mixed and node.with_ppk
    assert (node.ike.tx, node.ike.rx) == ciphers


@item("INT-18")
def test_the_child_sas_keys_come_from_the_mixed_sk_d():
    node, gateway = run(in_auth())
    keymat = primitives.prf_plus(gateway.sk_d, gateway.n_i + gateway.nonce, 38)
    assert node.child["key_out"] == keymat[:19] and node.child["key_in"] == keymat[19:]


@item("INT-19")
@pytest.mark.parametrize("required", [True, False])
def test_the_identity_goes_with_ike_auth_and_a_second_auth_where_it_is_optional(required):
    node, gateway, sent = exchanging(in_auth(), ppk_required=required)
    sk_pi = gateway.sk_pi
    gateway.read_auth(*sent)
    assert gateway.authentic
    kinds = [kind for kind, _ in gateway.auth_notifies]
    assert kinds.count(PPK_IDENTITY) == 1 and kinds.count(NO_PPK_AUTH) == (not required)
    found = dict(gateway.auth_notifies)
    assert found[PPK_IDENTITY] == PPK_ID
    if not required:
        ident = gateway.got[35]
        signed = gateway.request_octets + gateway.nonce + primitives.prf(sk_pi, ident)
        assert found[NO_PPK_AUTH] == primitives.prf(gateway.pad, signed)


@item("INT-20")
def test_an_answer_without_the_notify_is_verified_without_the_ppk():
    gateway = in_auth()
    gateway.ppks = {}
    node, gateway = run(gateway, ppk_required=False)
    assert not gateway.mixed and node.with_ppk is False
    keymat = primitives.prf_plus(gateway.sk_d, gateway.n_i + gateway.nonce, 38)
    assert node.child["key_out"] == keymat[:19]


@item("INT-20")
def test_an_answer_without_the_notify_ends_the_attempt_where_the_ppk_is_required():
    """The gateway has it, even proves it, and does not say so."""
    node, gateway, sent = exchanging(in_auth())

    def silent(payloads):
        return [payload for payload in payloads if payload != notify(PPK_IDENTITY)]

    refusal(node, gateway, node.receive(gateway.auth(*sent, edit=silent)))


@item("INT-20")
def test_what_stands_in_the_answers_notify_is_ignored():
    node, gateway, sent = exchanging(in_auth())

    def filled(payloads):
        return [
            notify(PPK_IDENTITY, b"\x01x") if p == notify(PPK_IDENTITY) else p for p in payloads
        ]

    assert node.receive(gateway.auth(*sent, edit=filled)) == []
    assert node.state == "UP"


@item("INT-20")
@pytest.mark.parametrize("claimed", [True, False])
def test_a_notify_that_does_not_fit_the_keys_fails_auth(claimed):
    """A man in the middle or a broken gateway says the PPK was used when it was not, or not."""
    gateway = in_auth()
    if claimed:
        gateway.ppks = {}
    node, gateway, sent = exchanging(gateway, ppk_required=False)
    gateway.read_auth(*sent)
    payloads = gateway.auth_payloads()
    if claimed:
        payloads.append(notify(PPK_IDENTITY))
    else:
        payloads.remove(notify(PPK_IDENTITY))
    node.receive(gateway.send(IKE_AUTH, R, 1, payloads))
    assert failure(node) == ("failed", "peer", "AUTH does not verify")


@item("INT-20")
def test_a_wrong_ppk_is_an_authentication_failure_that_points_at_it():
    """Both have one under that name: only AUTH can tell."""
    node, gateway, sent = exchanging(in_auth(), secrets=OTHER["secrets"])
    gateway.read_auth(*sent)
    assert not gateway.authentic
    node.receive(gateway.send(IKE_AUTH, R, 1, [notify(24)]))
    error = explain.failure(failure(node))
    assert type(error).__name__ == "AuthenticationFailed" and "the PPK" in error.check


# In IKE_INTERMEDIATE.


@item("INT-21", "INT-02")
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("methods", [(), (36,), (35, 36)])
def test_it_goes_with_the_last_ike_intermediate_behind_its_key_exchange(required, methods):
    node, gateway = run(Hybrid(methods, ppk="int"), ppk_required=required)
    wanted = [[KE] for _ in methods] or [[]]
    wanted[-1] = wanted[-1] + [N]
    assert [[kind for kind, _ in payloads] for payloads in gateway.seen] == wanted
    (body,) = [body for kind, body in gateway.seen[-1] if kind == N]
    spis = gateway.spi_i + gateway.spi_r
    proof = primitives.prf(PPK, gateway.n_i + gateway.nonce + spis)[:8]
    assert body == notify(PPK_IDENTITY_KEY, PPK_ID + proof)[1]
    # Not together with RFC 8784.
    assert not {PPK_IDENTITY, NO_PPK_AUTH} & {kind for kind, _ in gateway.auth_notifies}
    assert node.with_ppk


@item("INT-21")
def test_all_seven_keys_are_new_with_it():
    node, gateway, sent = exchanging(Hybrid((), ppk="int"))
    old = gateway.sk_d, gateway.sk_pi, gateway.sk_pr
    ciphers = node.ike.tx, node.ike.rx
    sent = give(node, gateway.intermediate(sent))
    assert not {node.ike.tx, node.ike.rx} & set(ciphers)
    new = keys_of(node)
    assert not set(old) & set(new) and new == (gateway.sk_d, gateway.sk_pi, gateway.sk_pr)
    finish(node, gateway, sent)


@item("INT-21")
@pytest.mark.parametrize("unknown", ["name", "value"])
def test_a_ppk_that_the_gateway_has_not_is_done_without_only_where_it_is_optional(unknown):
    for required in (False, True):
        gateway = Hybrid((36,), ppk="int")
        gateway.ppks = {PPK_ID: b"another"} if unknown == "value" else {b"\x02else": PPK}
        node, gateway, sent = exchanging(gateway, ppk_required=required)
        sent = give(node, gateway.intermediate(sent))
        if required:
            refusal(node, gateway, sent)
        else:
            finish(node, gateway, sent)
            assert node.with_ppk is False


@item("INT-21")
@pytest.mark.parametrize("ident", [b"", b"\x02", b"\x02else", b"\x01ppk-1", PPK_ID + b"\0"])
def test_an_identity_that_was_not_offered_ends_the_attempt(ident):
    node, gateway, sent = exchanging(Hybrid((36,), ppk="int"), ppk_required=False)

    def edit(payloads):
        return [*payloads[:-1], notify(PPK_IDENTITY, ident)]

    sent = give(node, gateway.intermediate(sent, edit))
    assert failure(node) == ("failed", "peer", "PPK_IDENTITY is not what we offered")
    assert len(sent) == 1


@item("INT-21")
def test_use_ppk_int_means_nothing_without_ike_intermediate():
    """A gateway that says so and USE_PPK, but has no IKE_INTERMEDIATE, uses RFC 8784."""
    gateway = in_auth()
    gateway.announces = [USE_PPK_INT, USE_PPK]
    node, gateway = run(gateway)
    assert node.with_ppk and gateway.mixed and not gateway.seen
    alone = Hybrid(())
    alone.announces = [USE_PPK_INT]
    node = sensor(**WITH_PPK)
    assert node.receive(alone.init(node.start()[0])) == []
    assert node.ike.drops == {"NO_PPK": 1}


# The development gateway.


@pytest.fixture
def without_9867(monkeypatch):
    """The development gateway as one that has not read RFC 9867."""
    real = ike.IkeSa.negotiate

    def negotiate(sa, kinds, vendor_ids):
        return real(sa, kinds - {USE_PPK_INT}, vendor_ids)

    monkeypatch.setattr(ike.IkeSa, "negotiate", negotiate)


@item("INT-17", "INT-18", "INT-19", "INT-20")
@pytest.mark.parametrize("changes", [WITH_PPK, OPTIONAL], ids=["required", "optional"])
@pytest.mark.parametrize("more", [{}, {"pq": "require"}])
def test_rfc_8784_with_the_development_gateway(changes, more, without_9867):
    link = up({**changes, **more}, {"ppks": PPKS, "ppk_required": True})
    assert link.node.state == "UP" and link.node.with_ppk
    (sa,) = link.gateway.established_sas()
    assert sa.ppk_used and sa.intermediates == len(more)


@item("INT-21")
@pytest.mark.parametrize("changes", [WITH_PPK, OPTIONAL], ids=["required", "optional"])
@pytest.mark.parametrize(
    "more", [{}, {"pq": "require"}, {"ike": [CCM + "-ke1_mlkem512-ke2_mlkem768"]}]
)
def test_rfc_9867_with_the_development_gateway(changes, more):
    settings = {"ppks": PPKS, "ppk_required": True}
    settings["ike"] = tuple(more.get("ike", [hybrid(36), CCM]))
    link = up({**changes, **more}, settings)
    assert link.node.state == "UP" and link.node.with_ppk
    (sa,) = link.gateway.established_sas()
    assert sa.ppk_used and sa.intermediates == (2 if "ike" in more else 1)


def check_mismatches(of_same_name):
    # The other has none of that name: only what is optional at both ends comes up.
    for changes, required, comes in (
        (OPTIONAL, False, True),
        (WITH_PPK, False, False),
        (OPTIONAL, True, False),
    ):
        link = up(changes, {"ppks": {b"else": PPK}, "ppk_required": required})
        assert (link.node.state == "UP") == comes
        assert link.node.with_ppk is False
    for changes, comes in ((OTHER, False), ({**OTHER, "ppk_required": False}, of_same_name)):
        link = up(changes, {"ppks": PPKS})
        assert (link.node.state == "UP") == comes
        assert link.node.with_ppk is False


@item("INT-20")
def test_mismatches_by_rfc_8784_with_the_development_gateway(without_9867):
    """Two PPKs of one name are noticed by AUTH alone, which they break."""
    check_mismatches(of_same_name=False)


@item("INT-21")
def test_mismatches_by_rfc_9867_with_the_development_gateway():
    """Two PPKs of one name are noticed in time to do without them."""
    check_mismatches(of_same_name=True)


def up(changes, settings):
    """The link after the handshake, whichever its end."""
    changes = dict(changes)
    secrets = profile.check_secrets(changes.pop("secrets"))
    link = Link(changes, settings)
    link.node.profile.update(secrets)
    link.start()
    link.settle()
    while link.node.state not in ("UP", "DOWN"):
        assert link.pass_time()
        link.settle()
    return link
