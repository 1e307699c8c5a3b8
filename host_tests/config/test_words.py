"""The firmware reads strongSwan's words as strongSwan does, or says which one it cannot take."""

from host_tests.config import words
from host_tests.checklist import item
from tools.dev.peers.node import PROFILE
from minipsec.config import profile


def refusal(**changes):
    try:
        profile.check_profile(dict(PROFILE, **changes))
    except profile.ProfileError as e:
        return e.args[0]
    return None


@item("E1")
def test_proposals_are_understood():
    for key, table in (("ike", words.IKE), ("esp", words.ESP)):
        for name, transforms in table.items():
            (found,) = profile.check_profile(dict(PROFILE, **{key: [name]}))[key]
            assert sorted(found[1]) == sorted(transforms), name


@item("E1")
def test_a_line_of_proposals_as_in_swanctl_conf_is_a_list_of_them():
    line = "aes128-sha256-x25519, aes128ccm16-prfsha256-x25519"
    found = profile.check_profile(dict(PROFILE, ike=line))["ike"]
    assert [name for name, _ in found] == line.split(", ")


@item("E1")
def test_a_refused_proposal_names_the_word_at_fault_and_the_nearest_good_one():
    for key, table in (("ike", words.NOT_IKE), ("esp", words.NOT_ESP)):
        for name, (fault, better) in table.items():
            line = refusal(**{key: [name]})
            assert line and line.startswith('profile: %s: "%s": ' % (key, name)), (name, line)
            said = line.partition('": ')[2]
            assert fault in said and better in said, (name, line)


@item("E1")
def test_the_word_that_is_proposed_instead_is_taken():
    from minipsec.config.refused import nearest
    from minipsec.config.proposals import transform

    for table, ike in ((words.NOT_IKE, True), (words.NOT_ESP, False)):
        for fault, better in table.values():
            if " " not in fault and fault not in (
                "AES-CBC",
                "implicit",
                "noesn",
                "aes128",
                "aes256",
            ):
                assert nearest(fault, ike) == better and transform(better), fault
    for odd in ("", "-", "ke1_", "ke9_x", "\u00e4", "x" * 200, "ccm", "aes", "ke1_ke1_x"):
        assert transform(nearest(odd)), odd


@item("E1")
def test_what_was_agreed_on_is_said_in_the_usual_words():
    found = profile.check_profile(
        dict(PROFILE, ike=["AES-sha2_256-curve25519"], esp=["aes128ccm64"])
    )
    assert sorted(found["words"].values()) == [
        "aes128",
        "aes128ccm8",
        "prfsha256",
        "sha256",
        "x25519",
    ]


@item("E2", "C3")
def test_identities_are_read_as_strongswan_reads_them():
    for text, found in words.IDENTITIES.items():
        assert profile.check_profile(dict(PROFILE, id=text))["id"] == found, text
        assert profile.check_profile(dict(PROFILE, gateway_id=text))["gateway_id"] == found, text


@item("E2", "C3")
def test_an_identity_that_is_none_of_ours_is_refused_with_the_reason():
    for text, why in words.NO_IDENTITIES.items():
        for key in ("id", "gateway_id"):
            line = refusal(**{key: text})
            assert line and line.startswith("profile: %s: " % key) and why in line, (text, line)


@item("E2")
def test_secrets_are_read_as_strongswan_reads_them():
    for text, octets in words.SECRETS.items():
        assert profile.check_secrets({"psk": text}) == {"psk": octets}, text
        assert profile.check_secrets({"psk": "x", "ppk": text})["ppk"] == octets, text


@item("E2")
def test_a_refused_secret_is_named_and_not_repeated():
    for text in words.NO_SECRETS:
        try:
            profile.check_secrets({"psk": text})
        except profile.ProfileError as e:
            assert e.args[0].startswith("secrets: psk: expected ") and "base64" in e.args[0]
            assert len(text) < 7 or text[1:-1] not in e.args[0]
        else:
            raise AssertionError(text)
