"""Additional key exchanges and ML-KEM: what is offered, agreed upon and refused. INT-11 to INT-15.

Against the development gateway, whose ML-KEM is OpenSSL's and kyber-py's, and the scripted one.
"""

import random

import pytest

from tools.dev.peers.third_party import SENSOR, Link
from tools.dev.peers.stage import replaced
from host_tests.checklist import item
from tools.dev.peers.node import REMOTE, profile
from tools.dev.peers.responder import KE, SA, notify, proposal
from tools.dev.peers import kem
from tools.dev.peers.hybrid import (
    CCM,
    NAMES,
    WITH_PPK,
    Hybrid,
    exchanging,
    failure,
    finish,
    give,
    hybrid,
    sensor,
)
from minipsec import refusals, explain
from minipsec.config import profile as store

CBC = "aes128-sha256-prfsha256-x25519"
WHOLE = 9000


def up(changes, settings=None):
    """A link on which the handshake took place, and a reading went both ways."""
    link = Link(changes, settings)
    link.start()
    link.settle()
    while link.node.state != "UP":
        assert link.pass_time(), (link.node.state, link.node.events)
        link.settle()
    link.send(b"21.5")
    link.settle()
    assert link.readings == link.node.got == [b"21.5"]
    return link


def agreed(link):
    """Transform types and ids, in rising order of type."""
    (event,) = link.node.all("agreed")
    return {kind: ident for kind, (ident, _) in sorted(event[1].items())}


# Against the development gateway.


@item("INT-11", "INT-12", "INT-13", "INT-14")
@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("size", [200, 576, WHOLE])
def test_an_ml_kem_behind_x25519(method, size):
    link = up({"pq": "require", "pq_method": NAMES[method], "fragment_size": size})
    assert agreed(link)[6] == method
    (pair,) = kem.made
    assert pair.wiped


@item("INT-12", "INT-13")
@pytest.mark.parametrize(
    "suite", [CCM, CBC, "aes256ccm8-prfsha256-ecp256", "aes128ccm12-prfsha256-x25519"]
)
def test_every_cipher_and_first_exchange_goes_with_it(suite):
    link = up({"ike": [suite], "pq": "require", "frag_ack": "off"})
    assert agreed(link)[6] == 36


@item("INT-12")
@pytest.mark.parametrize(
    "more",
    [
        "-ke1_mlkem512-ke2_mlkem768",
        "-ke1_mlkem1024-ke7_mlkem512",
        "-ke2_ecp256-ke3_mlkem768-ke5_mlkem512",
    ],
)
def test_several_exchanges_in_rising_order_of_their_types(more):
    suite = CCM + more
    link = up({"ike": [suite], "fragment_size": 300}, {"ike": (suite,), "fragment_size": 300})
    wanted = {int(word[2]) + 5: word[4:] for word in more.split("-")[1:]}
    found = {kind: name for kind, name in agreed(link).items() if kind > 5}
    assert list(found) == list(wanted)
    (sa,) = link.gateway.established_sas()
    assert sa.choice.name == suite and sa.intermediates == len(wanted)


@item("INT-11", "INT-12")
@pytest.mark.parametrize(("takes", "additional"), [("mlkem768", 1), ("none", 0)])
def test_an_exchange_that_may_be_left_out(takes, additional):
    """NONE beside the method: the gateway decides, and none takes place for NONE."""
    link = up({"ike": [CCM + "-ke1_mlkem768-ke1_none"]}, {"ike": (CCM + "-ke1_" + takes,)})
    (sa,) = link.gateway.established_sas()
    assert sa.intermediates == additional
    assert bool(link.node.all("up")[0][2].get(6, (0, 0))[0]) == bool(additional)


@item("INT-11")
def test_a_type_left_out_of_the_middle_leaves_the_others():
    suite = CCM + "-ke1_mlkem512-ke1_none-ke2_mlkem768"
    link = up({"ike": [suite]}, {"ike": (CCM + "-ke1_none-ke2_mlkem768",)})
    (sa,) = link.gateway.established_sas()
    assert sa.intermediates == 1 and agreed(link)[7] == 36


@item("INT-11")
@pytest.mark.parametrize("settings", [{"intermediate": False}, {"ike": (CCM,)}])
def test_prefer_falls_back_on_the_plain_proposal_behind_it(settings):
    link = up({"pq": "prefer"}, settings)
    assert 6 not in agreed(link)
    (sa,) = link.gateway.established_sas()
    assert sa.intermediates == 0


@item("INT-11")
def test_prefer_takes_ml_kem_where_the_gateway_has_it():
    assert agreed(up({"pq": "prefer"}))[6] == 36


@item("INT-11")
@pytest.mark.parametrize("settings", [{"intermediate": False}, {"ike": (CCM,)}])
def test_require_ends_in_an_error_that_names_what_was_refused(settings):
    link = Link({"pq": "require"}, settings)
    link.start()
    link.settle()
    assert link.node.all("hint") == [("hint", 14)]
    while link.node.state != "DOWN":
        assert link.node.state == "IKE_SA_INIT"
        assert link.pass_time()
        link.settle()
    error = explain.failure(failure(link.node), 14, {"pq": "require"})
    assert type(error) is refusals.PostQuantumRefused and isinstance(error, refusals.PeerError)
    assert error.notify == "NO_PROPOSAL_CHOSEN" and "post-quantum key exchange" in str(error)
    assert "ke1_mlkem768" in error.check and "pq: prefer" in error.check


@item("INT-15")
@pytest.mark.parametrize(("method", "size"), [(35, 1280), (36, 1500), (37, 2000)])
def test_an_ml_kem_alone_in_ike_sa_init_where_it_fits_one_datagram(method, size):
    suite = f"aes128ccm16-prfsha256-{NAMES[method]}"
    link = up({"ike": [suite], "fragment_size": size}, {"ike": (suite,), "cookie": True})
    assert agreed(link)[4] == method
    assert all(len(datagram) <= size - 28 for who, datagram in link.recorded if who == SENSOR)
    (pair,) = kem.made
    assert pair.wiped


@item("INT-15")
def test_ml_kem_first_and_x25519_behind_it():
    suite = "aes128ccm16-prfsha256-mlkem512-ke1_x25519"
    link = up({"ike": [suite], "fragment_size": 1280, "pq": "require"}, {"ike": (suite,)})
    assert agreed(link) == {1: 16, 2: 5, 4: 35, 6: 31}


@item("INT-15")
def test_a_gateway_may_ask_for_ml_kem_in_ike_sa_init_instead_of_x25519():
    """INVALID_KE_PAYLOAD, and a key pair that is made for nothing is wiped."""
    suite = "aes128ccm16-prfsha256-mlkem768-mlkem512-x25519"
    settings = {"ike": ("aes128ccm16-prfsha256-mlkem512",)}
    link = up({"ike": [suite], "fragment_size": 1500, "frag_ack": "off"}, settings)
    assert agreed(link)[4] == 35
    assert [pair.ident for pair in kem.made] == [36, 35]
    assert all(pair.wiped for pair in kem.made)


# Where it does not fit.


@item("INT-15")
@pytest.mark.parametrize("changes", [{}, {"frag_ack": "off"}, WITH_PPK, {"pq": "prefer"}])
@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("six", [False, True])
def test_the_least_fragment_size_is_the_datagram_with_the_longest_cookie(changes, method, six):
    suite = f"aes128ccm16-prfsha256-{NAMES[method]}"
    values = {"gateway": "fd77::1" if six else "10.77.0.1", **changes}
    if six:
        values["server"] = "fd03::10"
    secrets = values.pop("secrets", None)
    with pytest.raises(store.ProfileError) as refused:
        profile(secrets, ike=[suite], fragment_size=200, **values)
    least = int(str(refused.value).split("expected ")[1].split()[0])
    with pytest.raises(store.ProfileError):
        profile(secrets, ike=[suite], fragment_size=least - 1, **values)
    node = sensor(
        secrets=secrets, **{"frag_ack": "02", **values}, ike=[suite], fragment_size=least
    )
    remote = (bytes(16), 500) if six else REMOTE
    local = (bytes(16), 500) if six else None
    (request,) = node.start(0, local, remote)
    cookie = notify(16390, bytes(64))
    (again,) = node.receive(Hybrid().refuse_init(request, cookie))
    assert len(again) == least - (48 if six else 28)


@item("B8", "INT-15")
@pytest.mark.parametrize(
    ("method", "size"), [(35, None), (35, 576), (35, 1000), (36, None), (36, 1280), (37, 1500)]
)
def test_a_profile_whose_ike_sa_init_would_not_fit_is_refused_in_one_line(method, size):
    suite = f"aes128ccm16-prfsha256-{NAMES[method]}"
    says = (
        "^profile: fragment_size: expected 1[0-9]{3} or more with ML-KEM as the first key exchange"
    )
    with pytest.raises(store.ProfileError, match=says):
        profile(ike=[CCM, suite], fragment_size=size)


@item("INT-15")
def test_behind_another_exchange_ml_kem_fits_everywhere():
    for size in (176, 200, None):
        up({"pq": "require", "pq_method": "mlkem1024", "fragment_size": size}, {"ack_gap_ms": 20})
    with pytest.raises(store.ProfileError, match="expected 176 or more"):
        profile(pq="require", fragment_size=175)


# What a profile may say.


@item("INT-11")
def test_the_profile_keys_make_the_proposals():
    def names(**changes):
        return [name for name, _ in profile(**changes)["ike"]]

    assert names(ike=[CCM, CBC], pq="require", pq_method="mlkem512") == [
        CCM + "-ke1_mlkem512",
        CBC + "-ke1_mlkem512",
    ]
    assert names(ike=[CCM], pq="prefer") == [CCM + "-ke1_mlkem768", CCM]
    # What holds an ML-KEM already stays as it is.
    assert names(ike=[hybrid(37)], pq="require") == [hybrid(37)]
    alone = "aes128ccm16-prfsha256-mlkem512"
    assert names(ike=[alone], pq="require", fragment_size=1280) == [alone]
    # As an alternative it is none.
    either = "aes128ccm16-prfsha256-x25519-mlkem512"
    assert names(ike=[either], pq="require", fragment_size=1280) == [either + "-ke1_mlkem768"]


@item("INT-11")
@pytest.mark.parametrize("more", ["-ke1_mlkem768-ke1_none", "-ke1_none", "-ke2_ecp256"])
def test_require_refuses_a_proposal_that_may_be_agreed_upon_without_ml_kem(more):
    with pytest.raises(store.ProfileError, match="without ML-KEM"):
        profile(ike=[hybrid(36), CCM + more], pq="require")
    profile(ike=[hybrid(36), CCM + more], pq="prefer")


@pytest.mark.parametrize(
    "word",
    ["ke0_mlkem768", "ke8_mlkem768", "ke1_", "ke1_aes128", "ke1_sha256", "ke_mlkem768"],
)
def test_a_word_that_names_no_additional_exchange_is_refused(word):
    with pytest.raises(store.ProfileError):
        profile(ike=[f"{CCM}-{word}"])


def test_the_words_for_what_may_be_agreed_upon_are_kept():
    words = profile(ike=[CCM + "-ke1_none-ke1_mlkem512-ke7_mlkem768"])["words"]
    assert words[6, 35, 0] == "ke1_mlkem512" and words[12, 36, 0] == "ke7_mlkem768"
    assert (6, 0, 0) not in words
    assert profile(pq="prefer")["words"][6, 36, 0] == "ke1_mlkem768"


# What an answer may say.


@item("INT-12")
@pytest.mark.parametrize(
    "more",
    [
        [(6, 35, 0)],  # not offered
        [(6, 36, 0), (6, 36, 0)],
        [(6, 36, 0), (7, 35, 0)],
        [(7, 36, 0)],
        [],  # offered without NONE
        [(6, 0, 0)],
        [(6, 36, 128)],
    ],
)
def test_what_was_not_offered_is_not_agreed_to(more):
    node = sensor(ike=[hybrid(36)])
    chosen = proposal(1, 1, b"", [(1, 16, 128), (2, 5, 0), (4, 31, 0), *more])
    gateway = Hybrid()
    assert node.receive(gateway.init(node.start()[0], replaced(SA, lambda _: chosen))) == []
    assert node.state == "IKE_SA_INIT" and node.ike.drops == {"BAD_SA": 1}


@item("INT-12")
@pytest.mark.parametrize("methods", [(36, 36), (35, 36, 35), (31,)])
def test_no_method_may_be_agreed_upon_twice(methods):
    names = {**NAMES, 31: "x25519"}
    suite = "-".join([CCM, *(f"ke{n}_{names[m]}" for n, m in enumerate(methods, 1))])
    node = sensor(ike=[suite])
    gateway = Hybrid(methods)
    assert node.receive(gateway.init(node.start()[0])) == []
    assert node.state == "IKE_SA_INIT" and node.ike.drops == {"BAD_INIT": 1}


@item("INT-14")
@pytest.mark.parametrize("method", NAMES)
def test_the_sizes_of_both_sides(method):
    node, gateway, sent = exchanging(Hybrid((method,)), fragment_size=WHOLE)
    answer = gateway.intermediate(sent)
    ((kind, body),) = gateway.seen[0]
    assert kind == KE and body[:4] == bytes((0, method, 0, 0))
    assert len(body) == 4 + kem.PUBLIC[method]
    assert len(answer[0]) == 4 + 32 + 8 + 4 + 4 + kem.CIPHERTEXT[method] + 1 + 16
    finish(node, gateway, give(node, answer))


@item("INT-14")
@pytest.mark.parametrize("method", NAMES)
def test_a_ciphertext_for_another_key_ends_where_auth_is_checked(method):
    """Implicit rejection: the sensor's keys are then its own alone."""
    other = kem.method(method)(random.Random(1).randbytes)

    def edit(payloads):
        ciphertext, _ = kem.encapsulate(method, other.public)
        return [(KE, payloads[0][1][:4] + ciphertext)]

    node, gateway, sent = exchanging(Hybrid((method,)))
    sent = give(node, gateway.intermediate(sent, edit))
    assert node.state == "IKE_AUTH"
    with pytest.raises(AssertionError, match="ICV"):
        gateway.auth(*sent)
    assert node.receive(gateway.send(35, 0x20, 2, [])) == []
    assert node.ike.drops == {"BAD_ICV": 1} and kem.made[-1].wiped
