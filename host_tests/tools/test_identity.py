"""Identities: which are taken, what they are at strongSwan, and how charon's words are told apart."""

import ipaddress

import pytest

from host_tests.config import words
from tools.gateway.live import last_heard
from tools.common.identity import Identity

from .conftest import NEW

WILD = ["*@example.org", "a*@example.org", "*.example.org", "fqdn:*", "email:*@x", "%any", "*",
        "0.0.0.0", "ipv4:0.0.0.0", "%any6", "::", "0::0"]  # fmt: skip
NOT_LITERAL = ["a#b@x", "a=b", "C=DE", "a/b", "10.0.0.0/8", "@", "@@a", "@#6", "{2}:a", "x:y",
               "keyid:#00f", "keyid:a:b", "keyid:0X00", "keyid:0xf", "keyid:", "keyid:a b", "ipv6:10.0.0.1",
               'a"b', "a}b", "a\nb", "a,b", "10.0.0.1-10.0.0.9", "fqdn:#2a", "email:#2a406578", "email:a", "dns:a b",
               "asn1dn:#30", "keyid:0x", "keyid:a*", "ä.example.org", "keyid:ä", "a{b", "-a", ""]  # fmt: skip


@pytest.mark.item("C3")
@pytest.mark.parametrize("text", WILD)
def test_an_identity_that_is_more_than_one_device_is_refused_wherever_it_enters(
    tool, inventory, tmp_path, text
):
    said = tool(*NEW, text, code=2)
    assert "--id: expected an identity" in said.err
    (tmp_path / "f.csv").write_text(f"id,gateway,server\n{text},gw.example.org,10.3.0.10\n")
    assert (
        'row 2, column "id": expected' in tool("fleet", "import", tmp_path / "f.csv", code=2).err
    )
    said = tool(*NEW, "a.example.org", "--gateway-id", text, code=2)
    assert "--gateway-id: expected" in said.err
    assert not inventory.exists()


@pytest.mark.item("C3")
@pytest.mark.parametrize("text", ["any", "ANY", "fqdn:any"])
def test_the_word_that_means_anybody_is_no_device(tool, text):
    assert '"any" means anybody' in tool(*NEW, text, code=2).err


@pytest.mark.item("C2")
@pytest.mark.parametrize("text", NOT_LITERAL)
def test_what_strongswan_reads_in_a_way_of_its_own_is_refused(text):
    with pytest.raises(ValueError, match="expected|identity"):
        Identity(text)


@pytest.mark.parametrize(
    "text, hint",
    [
        ("keyid:a:b", "keyid:0x613a62"),
        ("*@example.org", "several or for anybody"),
    ],
)
def test_a_refusal_says_what_to_write_instead(tool, text, hint):
    assert hint in tool(*NEW, text, code=2).err


@pytest.mark.parametrize("text, found", words.IDENTITIES.items())
def test_the_tools_read_an_identity_as_the_firmware_and_strongswan_do(text, found):
    kind, octets = found
    identity = Identity(text)
    names = {"ipv4": 1, "fqdn": 2, "email": 3, "ipv6": 5, "keyid": 11}
    address = identity.kind.startswith("ip")
    assert (names[identity.kind], identity.octets) == (
        kind,
        str(ipaddress.ip_address(octets)).encode() if address else octets,
    )
    assert Identity(identity.text).key == identity.key


@pytest.mark.parametrize("text", words.NO_IDENTITIES)
def test_the_tools_refuse_what_the_firmware_refuses(text):
    with pytest.raises(ValueError, match="expected|identity"):
        Identity(text)


@pytest.mark.item("C1")
@pytest.mark.parametrize(
    "text, shown",
    [
        ("keyid:0x00ff", "00:ff"),
        ("keyid:sensor7", "sensor7"),
        ("keyid:0x73656e736f7237", "sensor7"),
        ("keyid:" + "a" * 20, ":".join(["61"] * 20)),
        ("fqdn:10.1.2.5", "10.1.2.5"),
        ("10.1.2.4", "10.1.2.4"),
        ("sensor.example.org", "Sensor.example.org"),
        ("a@example.org", "a@example.org"),
    ],
)
def test_what_charon_shows_is_compared_by_octets(text, shown):
    assert Identity(text).is_shown_as(shown)
    assert not Identity("keyid:0x00fe").is_shown_as(shown)


def test_capitals_of_a_keyid_count():
    assert not Identity("keyid:sensor7").is_shown_as("Sensor7")


@pytest.mark.item("J3")
def test_last_heard_is_when_a_packet_came_in_and_not_that_there_is_an_sa():
    def sa(**child):
        return {"established": "60", "child-sas": {"readings-1": child}}

    assert last_heard([]) is None
    quiet = last_heard([sa(**{"packets-in": "0", "packets-out": "3", "use-out": "1"})])
    assert quiet.ago is None and quiet.silent(1000) and not quiet.silent(60000)
    heard = last_heard(
        [sa(**{"packets-in": "2", "use-in": "50"}), sa(**{"packets-in": "1", "use-in": "4"})]
    )
    assert heard.ago == 4 and not heard.silent(1000)
    assert last_heard([sa(**{"packets-in": "2", "use-in": "50"})]).silent(10000)
