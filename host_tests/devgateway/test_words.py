"""Identities and secrets mean the same to the gateway as to the firmware: one table for both."""

import pytest

from host_tests.config import words
from tools.devgateway.config import ConfigError, load_secrets, secret_octets
from tools.devgateway.wire import identity_from_text

pytestmark = pytest.mark.item("E2")


@pytest.mark.parametrize("text", words.IDENTITIES)
def test_identities_are_read_as_strongswan_reads_them(text):
    assert tuple(identity_from_text(text)) == words.IDENTITIES[text]


@pytest.mark.parametrize("text", words.NO_IDENTITIES)
def test_what_names_no_single_device_is_refused(text):
    with pytest.raises(ValueError, match="."):
        identity_from_text(text)


def test_secrets_are_read_as_strongswan_reads_them():
    for text, octets in words.SECRETS.items():
        assert secret_octets(text) == octets, text


@pytest.mark.parametrize("text", words.NO_SECRETS)
def test_a_refused_secret_is_not_repeated(text):
    with pytest.raises(ConfigError) as refused:
        secret_octets(text)
    assert len(text) < 7 or text[1:-1] not in str(refused.value)


@pytest.mark.item("E3")
def test_a_byte_order_mark_in_a_file_of_secrets_is_no_part_of_it(tmp_path):
    path = tmp_path / "secrets.json"
    path.write_bytes(b'\xef\xbb\xbf{"psk": "0x00ff"}')
    assert load_secrets(path).find(identity_from_text("anyone")) == b"\0\xff"
