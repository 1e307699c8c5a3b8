"""Post-quantum with strongSwan 5.9: PPKs, which it has, and ML-KEM, which it has not."""

import re

import pytest

from host_tests.checklist import item
from host_tests.interop.test_charon import CCM16, assert_all_went_through
from tools.dev.lab import PSK, SENSOR_ID, Lab

# Whoever is refused by an answer need not wait, and a busy PC may take a while.
QUICK = {"retransmit_ms": 100, "retransmit_tries": 6}
PPK = "0x" + "5a" * 32
OTHER = "0x" + "a5" * 32


@pytest.fixture
def lab():
    with Lab() as lab:
        yield lab


def charon(lab, ppk=PPK, name="ppk-1", required=None, fixed=True):
    """strongSwan as its owner sets it up for PPKs; `required` None: without any.

    `fixed`: the connection names its one PPK. Otherwise it takes whichever of its PPKs a sensor
    names, as a gateway for many sensors wants it.
    """
    edits = []
    if required is not None:
        secret = f"secrets {{\n  ppk-1 {{\n    id = {name}\n    secret = {ppk}\n  }}\n}}\n"
        choice = f"    ppk_required = {'yes' if required else 'no'}\n"
        if fixed:
            choice += f"    ppk_id = {name}\n"
        edits = [
            ("    version = 2\n", "    version = 2\n" + choice),
            ("include sensors", secret + "include sensors"),
        ]
    return lab.charon(edits=edits)


def sensor(lab, required, ppk=PPK, **options):
    profile = {"ppk_id": "ppk-1", "ppk_required": required, **QUICK, "retries": 0}
    return lab.sensor(profile, secrets={"psk": PSK, "ppk": ppk}, **options)


@item("INT-17", "INT-18", "INT-19", "INT-20")
@pytest.mark.parametrize("ours", [True, False], ids=["we must", "we may"])
@pytest.mark.parametrize("theirs", [True, False], ids=["it must", "it may"])
def test_readings_go_through_a_tunnel_with_a_ppk(lab, ours, theirs):
    came_up = charon(lab, required=theirs).watch()
    echo = lab.echo()
    node = sensor(lab, ours, readings=3)
    (sa,) = came_up(1)
    assert sa["ppk"] == "yes" and sa["remote-id"] == SENSOR_ID
    assert_all_went_through(node, echo, 3, "10.9.0.1")
    assert node.first("agreed")["ppk"] is True


@item("INT-17", "INT-20")
def test_an_optional_ppk_is_done_without_where_strongswan_has_none(lab):
    charon(lab)
    node = sensor(lab, False, readings=1)
    assert node.wait() == 0, node.output
    assert node.first("agreed")["ppk"] is False


@item("INT-17", "INT-19")
def test_strongswan_finds_the_ppk_by_the_name_that_the_sensor_gives(lab):
    came_up = charon(lab, required=True, fixed=False).watch()
    node = sensor(lab, True, readings=1)
    assert came_up(1)[0]["ppk"] == "yes"
    assert node.wait() == 0


@item("INT-17", "INT-19")
def test_the_lines_that_the_page_prints_for_a_ppk_are_all_that_it_needs(lab, root):
    page = (root / "tools/docs/post-quantum.md").read_text()
    printed = re.search(r"^    ppk-cellar-1 \{\n(?:    .*\n)+", page, re.M)[0]
    (setting,) = re.findall(r"one line `(ppk_required = yes)` in the connection", page)
    assert '`"ppk_id": "cellar-1"`' in page
    secret = f"secrets {{\n{printed.replace('0x<the same digits>', PPK)}}}\n"
    edits = [
        ("    version = 2\n", f"    version = 2\n    {setting}\n"),
        ("include sensors", secret + "include sensors"),
    ]
    came_up = lab.charon(edits=edits).watch()
    node = lab.sensor(
        {"ppk_id": "cellar-1", **QUICK}, secrets={"psk": PSK, "ppk": PPK}, readings=1
    )
    assert came_up(1)[0]["ppk"] == "yes"
    assert node.wait() == 0, node.output


@item("INT-20")
def test_an_optional_ppk_is_done_without_where_strongswan_has_another(lab):
    """It finds no PPK of that name and goes by NO_PPK_AUTH."""
    charon(lab, name="ppk-2", required=False, fixed=False)
    node = sensor(lab, False, readings=1)
    assert node.wait() == 0, node.output
    assert node.first("agreed")["ppk"] is False


@item("INT-20")
def test_a_connection_that_names_another_ppk_refuses_even_an_optional_one(lab):
    gateway = charon(lab, name="ppk-2", required=False)
    node = sensor(lab, False, readings=1)
    assert node.wait() == 1
    gateway.wait_log("received PPK_ID 'ppk-1', but require 'ppk-2'")


@item("INT-17")
def test_a_required_ppk_where_strongswan_has_none(lab):
    charon(lab)
    node = sensor(lab, True, readings=1)
    assert node.wait() == 1
    (line,) = node.all("error")
    assert line["error"] == "PostQuantumRefused" and "USE_PPK" in line["text"]


@item("INT-20")
@pytest.mark.parametrize("name", ["ppk-1", "ppk-2"], ids=["of that name", "of another name"])
def test_a_required_ppk_where_strongswan_has_another(lab, name):
    charon(lab, ppk=OTHER, name=name, required=True)
    node = sensor(lab, True, readings=1)
    assert node.wait() == 1
    (line,) = node.all("error")
    assert line["error"] == "AuthenticationFailed" and "the PPK" in line["check"]
    assert not node.all("up")


def test_a_sensor_without_a_ppk_where_strongswan_insists_on_one(lab):
    charon(lab, required=True)
    node = lab.sensor({**QUICK, "retries": 0}, readings=1)
    assert node.wait() == 1
    (line,) = node.all("error")
    assert line["error"] == "AuthenticationFailed"


# ML-KEM, of which this strongSwan knows nothing.


@item("INT-11")
def test_prefer_falls_back_on_x25519(lab):
    charon(lab)
    echo = lab.echo()
    node = lab.sensor({"pq": "prefer"}, readings=3)
    assert_all_went_through(node, echo, 3, "10.9.0.1")
    assert node.first("agreed")["ike"] == CCM16
    (warning,) = node.all("warning")
    assert "pq: require" in warning["text"]


@item("INT-11", "INT-17")
def test_prefer_and_a_ppk_are_post_quantum_all_the_same(lab):
    charon(lab, required=True)
    values = {"pq": "prefer", "ppk_id": "ppk-1"}
    node = lab.sensor(values, secrets={"psk": PSK, "ppk": PPK}, readings=1)
    assert node.wait() == 0, node.output
    agreed = node.first("agreed")
    assert agreed["ike"] == CCM16 and agreed["ppk"] is True
    assert not node.all("warning")


@item("INT-11")
def test_require_is_a_typed_error_and_nothing_else(lab):
    gateway = charon(lab)
    node = lab.sensor({"pq": "require", **QUICK, "retries": 0}, readings=1)
    assert node.wait() == 1
    (line,) = node.all("error")
    assert (line["error"], line["notify"]) == ("PostQuantumRefused", "NO_PROPOSAL_CHOSEN")
    assert (
        "ke1_mlkem768" in line["check"] and "--list-algs" in line["check"] and not node.all("up")
    )
    assert gateway.wait_sas(0) == []
