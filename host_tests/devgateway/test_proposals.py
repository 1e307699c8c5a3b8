"""Suites by name, and the choice out of an offer."""

import pytest

from host_tests.config import words
from tools.devgateway.numbers import Encr, Group, Integ, Protocol, T
from tools.devgateway.proposals import offer, parse_suite, select
from tools.devgateway.wire import Proposal, Transform


def ike(*names):
    return [parse_suite(name, Protocol.IKE) for name in names]


def offers(*names, protocol=Protocol.IKE, spi=b""):
    return [offer(parse_suite(name, protocol), n + 1, spi) for n, name in enumerate(names)]


@pytest.mark.parametrize(
    "name",
    [
        "aes128ccm8-prfsha256-x25519",
        "aes256ccm12-prfsha384-ecp256",
        "aes128ccm16-prfsha512-modp2048",
        "aes128-sha256-prfsha256-x25519",
        "aes128ccm16-prfsha256-x25519-ke1_mlkem768-ke3_mlkem512",
    ],
)
def test_the_name_of_what_was_agreed_is_the_suite(name):
    assert select(ike(name), offers(name), Protocol.IKE).name == name


def test_esp_names_tell_esn_and_implicit_iv():
    for name in ("aes128ccm8", "aes256ccm16-esn", "aes128ccm8iiv", "aes128-sha256"):
        suites = [parse_suite(name, Protocol.ESP)]
        offered = offers(name, protocol=Protocol.ESP, spi=b"abcd")
        assert select(suites, offered, Protocol.ESP).name == name


def test_strongswans_bit_names_mean_the_same():
    assert ike("aes128ccm64-prfsha256-curve25519")[0].transforms == (
        ike("aes128ccm8-prfsha256-x25519")[0].transforms
    )


def test_our_order_decides():
    ours = ike("aes256ccm16-prfsha256-x25519", "aes128ccm8-prfsha256-x25519")
    theirs = offers("aes128ccm8-prfsha256-x25519", "aes256ccm16-prfsha256-x25519")
    choice = select(ours, theirs, Protocol.IKE)
    assert choice.number == 2
    assert choice.name == "aes256ccm16-prfsha256-x25519"


def test_key_length_must_match():
    assert (
        select(
            ike("aes256ccm8-prfsha256-x25519"),
            offers("aes128ccm8-prfsha256-x25519"),
            Protocol.IKE,
        )
        is None
    )


def _with(proposal, *transforms):
    return proposal._replace(transforms=proposal.transforms + transforms)


def test_an_unknown_transform_type_refuses_its_proposal_only():
    (plain,) = offers("aes128ccm8-prfsha256-x25519")
    odd = _with(plain, Transform(99, 1))
    suites = ike("aes128ccm8-prfsha256-x25519")
    assert select(suites, [odd], Protocol.IKE) is None
    assert select(suites, [odd, plain._replace(number=2)], Protocol.IKE).number == 2


def test_an_unknown_attribute_refuses_its_transform_only():
    (plain,) = offers("aes128ccm8-prfsha256-x25519")
    suites = ike("aes128ccm8-prfsha256-x25519")
    odd = Transform(T.ENCR, Encr.AES_CCM_8, 128, True)
    rest = tuple(t for t in plain.transforms if t.type != T.ENCR)
    assert select(suites, [plain._replace(transforms=(odd, *rest))], Protocol.IKE) is None
    assert select(suites, [_with(plain, odd)], Protocol.IKE) is not None


def test_integrity_none_beside_an_aead_is_taken():
    (plain,) = offers("aes128ccm8-prfsha256-x25519")
    suites = ike("aes128ccm8-prfsha256-x25519")
    choice = select(suites, [_with(plain, Transform(T.INTEG, Integ.NONE))], Protocol.IKE)
    assert choice.transform(T.INTEG) is not None
    hmac = Transform(T.INTEG, Integ.HMAC_SHA2_256_128)
    assert select(suites, [_with(plain, hmac)], Protocol.IKE) is None


def test_an_additional_key_exchange_is_answered_only_where_both_know_it():
    plain = "aes128ccm8-prfsha256-x25519"
    hybrid = plain + "-ke1_mlkem768"
    assert select(ike(plain), offers(hybrid), Protocol.IKE) is None
    assert select(ike(plain), offers(hybrid, plain), Protocol.IKE).number == 2
    assert select(ike(plain), offers(hybrid + "-ke1_none"), Protocol.IKE).name == plain
    assert select(ike(hybrid), offers(plain), Protocol.IKE) is None
    choice = select(ike(hybrid + "-ke1_none"), offers(plain), Protocol.IKE)
    assert choice.additional_groups() == []
    choice = select(ike(hybrid), offers(hybrid), Protocol.IKE)
    assert choice.additional_groups() == [Group.ML_KEM_768]


def test_an_esp_offer_without_esn_transform_or_with_a_group_is_refused():
    suites = [parse_suite("aes128ccm8", Protocol.ESP)]
    encr = Transform(T.ENCR, Encr.AES_CCM_8, 128)
    esn = Transform(T.ESN, 0)
    group = Transform(T.KE, Group.CURVE25519)
    for transforms, fits in (
        ((encr, esn), True),
        ((encr,), False),
        ((encr, esn, group), False),
        ((encr, esn, Transform(T.KE, Group.NONE)), True),
    ):
        proposal = Proposal(1, Protocol.ESP, b"abcd", transforms)
        assert (select(suites, [proposal], Protocol.ESP) is not None) == fits


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("aes128ccm8", Protocol.IKE),
        ("aes128ccm8-x25519", Protocol.IKE),
        ("aes128ccm8-prfsha256", Protocol.IKE),
        ("aes128-x25519", Protocol.IKE),
        ("aes128-aes128ccm8-sha256-x25519", Protocol.IKE),
        ("aes128ccm8iiv-prfsha256-x25519", Protocol.IKE),
        ("x25519", Protocol.ESP),
        ("3des", Protocol.ESP),
        ("", Protocol.ESP),
    ],
)
def test_a_bad_name_is_refused(name, protocol):
    with pytest.raises(ValueError):
        parse_suite(name, protocol)


def _transforms(name, protocol):
    found = parse_suite(name, protocol).transforms.values()
    return sorted(tuple(transform[:3]) for options in found for transform in options)


@pytest.mark.item("E1")
@pytest.mark.parametrize(
    ("protocol", "table"), [(Protocol.IKE, words.IKE), (Protocol.ESP, words.ESP)]
)
def test_the_words_mean_what_they_mean_to_the_firmware(protocol, table):
    for name, transforms in table.items():
        assert _transforms(name, protocol) == sorted(transforms), name


@pytest.mark.item("E1")
def test_what_no_sensor_can_have_is_refused_by_its_word():
    ours = {"aes128ccm16-prfsha384-x25519"}
    for name, (fault, _) in words.NOT_IKE.items():
        if name not in ours:
            with pytest.raises(ValueError, match="."):
                parse_suite(name, Protocol.IKE)
        if name.startswith(f"{fault}-"):
            with pytest.raises(ValueError, match=fault):
                parse_suite(name, Protocol.IKE)
