"""Tables as spreadsheets write them: taken, or refused in one line that names row and column."""

import json
import re

import pytest

from host_tests.config import words
from tools.gateway.config import secret_octets
from tools.fleet.inventory import Inventory
from tools.fleet.device import device
from tools.common.identity import Identity, NoIdentity
from tools.common.problem import BadInput
from tools.fleet.table import read_devices

HEAD = "id,gateway,server,interval"
ROW = "hall-1.example.org,gw.example.org,10.3.0.10,1min"


def lines(*rows, end="\r\n"):
    return "".join(row + end for row in rows)


def found(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "fleet.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_devices(path)


TAKEN = {
    "a mark": ("\ufeff" + lines(HEAD, ROW), "utf-8"),
    "UTF-16": ("\ufeff" + lines(HEAD, ROW), "utf-16-le"),
    "UTF-16, the other way round": ("\ufeff" + lines(HEAD, ROW), "utf-16-be"),
    "UTF-16 without a mark": (lines(HEAD, ROW), "utf-16-le"),
    "UTF-16 without a mark, the other way round": (lines(HEAD, ROW), "utf-16-be"),
    "CR alone": (lines(HEAD, ROW, end="\r"), "utf-8"),
    "LF alone, none at the end": (f"{HEAD}\n{ROW}", "utf-8"),
    "semicolons": (lines(HEAD, ROW).replace(",", ";"), "utf-8"),
    "tabs": (lines(HEAD, ROW).replace(",", "\t"), "utf-8"),
    "sep=": ("sep=;\r\n" + lines(HEAD, ROW).replace(",", ";"), "utf-8"),
    "sep= in quotes, with a mark": ('\ufeff"sep=|"\n' + lines(HEAD, ROW).replace(",", "|"), "utf-8"),
    "sep= as a row": ("sep=,,,,\n" + lines(HEAD, ROW), "utf-8"),
    "quotes": (lines(HEAD, ",".join(f'"{cell}"' for cell in ROW.split(","))), "utf-8"),
    "a quoted head": (lines(",".join(f'"{cell}"' for cell in HEAD.split(",")), ROW), "utf-8"),
    "capitals": (lines(HEAD.title(), ROW), "utf-8"),
    "blanks": (lines(HEAD.replace(",", " , "), ROW.replace(",", " ,\t")), "utf-8"),
    "blanks that do not break": (lines(HEAD, ROW.replace(",", "\u00a0,\u200b")), "utf-8"),
    "empty columns": (lines(HEAD + ",,,", ROW + ",,,"), "utf-8"),
    "an empty column in the middle": (
        lines(HEAD.replace(",s", ",,s"), ROW.replace(",10.", ",,10.")), "utf-8",
    ),
    "longer rows": (lines(HEAD, ROW + ",, "), "utf-8"),
    "shorter rows": (lines(HEAD + ",ssid,wifi_key", ROW), "utf-8"),
    "blank first rows": (lines("", ",,,", "  ", HEAD, "", ROW, ",,,", ""), "utf-8"),
    "comments": (lines("# our sensors, all; of them", HEAD, "# hall", ROW, '"# end"'), "utf-8"),
}  # fmt: skip


@pytest.mark.item("E3")
@pytest.mark.parametrize("name", TAKEN)
def test_what_a_spreadsheet_writes_is_taken(tmp_path, name):
    text, encoding = TAKEN[name]
    (one,) = found(tmp_path, text, encoding)
    assert (one.id, one.gateway, one.server) == tuple(ROW.split(",")[:3])
    assert one.values["interval"] == 60000


@pytest.mark.item("E3")
def test_names_of_columns_may_have_blanks_and_dashes(tmp_path):
    text = lines("ID,Gateway,Gateway ID,Server,Server-Port,Wi_Fi".replace(",Wi_Fi", ""), "")
    text += "hall-1.example.org,gw.example.org,@vpn.example.org,10.3.0.10,5001\n"
    (one,) = found(tmp_path, text)
    assert (one.gateway_id, one.server_port) == ("vpn.example.org", 5001)


@pytest.mark.item("E3")
def test_a_value_that_begins_with_a_hash_is_no_comment_where_it_is_the_first(tmp_path):
    text = lines("ssid," + HEAD, "#hall," + ROW)
    (one,) = found(tmp_path, text)
    assert one.ssid == "#hall"


@pytest.mark.item("E3")
@pytest.mark.parametrize(
    ("text", "where"),
    [
        (lines(HEAD + ",ssid", ROW + ",K\u00fcche").encode("latin-1"), 'row 2, column "ssid"'),
        (lines(HEAD + ",K\u00fcche", ROW).encode("latin-1"), "row 1, column 5"),
        (lines(HEAD, ROW + ",stray"), "row 2, column 5"),
        (lines("", HEAD + ",,", ROW, ROW.replace("1", "2", 1) + ",,x"), "row 4, column 6"),
        (lines(HEAD + ",colour", ROW), 'row 1, column "colour"'),
        (lines(HEAD + ",ID", ROW), 'row 1, column "id"'),
        (lines("sep=;", (HEAD + ",colour").replace(",", ";")), 'row 2, column "colour"'),
        (lines(HEAD, ROW.replace("1min", "1")), 'row 2, column "interval"'),
        (lines(HEAD, ROW.replace("10.3.0.10", "10.3.0.10/32")), 'row 2, column "server"'),
        (lines(HEAD, ROW.replace("10.3.0.10", "10,3")), "row 2, column 5"),
        (lines(HEAD, ROW.replace("hall", "ha\u200bll")), 'row 2, column "id"'),
        (lines(HEAD, ROW.replace("hall", "ha\0ll")), 'row 2, column "id"'),
        (lines(HEAD, '"' + ROW), "row 2, column 1"),
        (b"PK\x03\x04\x14\0\6\0", "row 1, column 1"),
        ("\ufeffid".encode("utf-16-le") + b"\0", "row 1, column 1"),
        (lines(HEAD, "=1+2" + ROW), 'row 2, column "id"'),
    ],
)
def test_what_cannot_be_taken_is_named_by_row_and_column(tmp_path, text, where):
    with pytest.raises(BadInput) as refused:
        found(tmp_path, text)
    (line,) = str(refused.value).split("\n")
    assert where in line and "fleet.csv: " in line


@pytest.mark.item("E3")
@pytest.mark.parametrize("text", ["", "\ufeff", "\r\n\r\n", ",,,\n", "# nothing\n", "sep=;\n"])
def test_an_empty_table_is_said_to_be_empty(tmp_path, text):
    with pytest.raises(BadInput, match=r"fleet\.csv: empty; the first row names the columns"):
        found(tmp_path, text)


@pytest.mark.item("E3")
def test_a_json_table_may_have_a_mark_and_be_utf_16(tmp_path):
    path = tmp_path / "fleet.json"
    row = dict(zip(HEAD.split(","), ROW.split(","), strict=True))
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(json.dumps([row]).encode(encoding))
        (one,) = read_devices(path)
        assert one.server == "10.3.0.10"


def given(**changes):
    return dict(zip(HEAD.split(","), ROW.split(","), strict=True), **changes)


@pytest.mark.item("E4")
@pytest.mark.parametrize("key", ["0123456789abcdef" * 4, "A" * 64])
def test_a_wpa_key_of_64_hex_digits_is_taken(tmp_path, key):
    """On the board, too, which hands it to its driver as it is."""
    one = device(given(network="wifi", ssid="hall", wifi_key=key))
    assert one.new_secrets()["wifi_key"] == key
    inventory = Inventory(tmp_path / "inventory")
    inventory.add([one])
    (row,) = inventory.rows()
    assert inventory.secrets(row)["wifi_key"] == key


@pytest.mark.item("E4")
@pytest.mark.parametrize("key", ["g" * 64, "0" * 65, "seven77", "0123456789abcdef" * 4 + " 1"])
def test_other_long_and_short_keys_are_not(key):
    with pytest.raises(BadInput, match="8 to 63 characters or 64 hex digits") as refused:
        device(given(network="wifi", ssid="hall", wifi_key=key))
    assert key not in str(refused.value)


# The same words as firmware and development gateway read.


@pytest.mark.item("E2")
@pytest.mark.parametrize("text", words.IDENTITIES)
def test_identities_mean_what_they_mean_to_the_firmware(text):
    kind, octets = words.IDENTITIES[text]
    identity = Identity(text)
    again = Identity(identity.text)
    assert (identity.kind, identity.octets) == (again.kind, again.octets)
    names = {1: "ipv4", 2: "fqdn", 3: "email", 5: "ipv6", 11: "keyid"}
    assert identity.kind == names[kind]
    if kind in (2, 3, 11):
        assert identity.octets == octets


@pytest.mark.item("E2", "C3")
@pytest.mark.parametrize("text", words.NO_IDENTITIES)
def test_what_the_firmware_refuses_is_refused_here(text):
    with pytest.raises(NoIdentity):
        Identity(text)


@pytest.mark.item("E2")
def test_secrets_mean_what_they_mean_to_the_firmware():
    for text, octets in words.SECRETS.items():
        assert secret_octets(text) == octets
        if len(octets) >= 20:
            assert device(given(psk=text)).new_secrets()["psk"] == text


@pytest.mark.item("E2")
@pytest.mark.parametrize(
    # Cells lose their blanks.
    "text",
    [text for text in words.NO_SECRETS if text.strip() != "blank"],
)
def test_a_secret_that_the_firmware_refuses_is_refused_here(text):
    if text:
        with pytest.raises(BadInput) as refused:
            device(given(psk=text * 9 if text[0] not in "0\"'" else text))
        assert len(text) < 7 or text not in str(refused.value)


def test_the_table_that_the_page_prints_is_taken(tool, root, tmp_path):
    page = (root / "tools/docs/fleet.md").read_text()
    table = re.search(r"^    id,gateway,.*\n(?:    .*\n)+", page, re.M)[0]
    (tmp_path / "hall.csv").write_text(re.sub("^    ", "", table, flags=re.M))
    tool("fleet", "import", tmp_path / "hall.csv")
    shown = tool("list").out
    assert "hall-1.example.org" in shown and "hall-2.example.org" in shown
