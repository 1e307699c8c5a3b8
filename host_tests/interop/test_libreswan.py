"""An IKE SA with libreswan 4.10's pluto.

Its IKE has no AES-CCM, so it is AES-CBC with HMAC-SHA2-256-128 there; ESP would be AES-CCM. These
machines' kernels have no ESP, which pluto notices after both sides are authenticated: it answers
IKE_AUTH with its own AUTH payload and TS_UNACCEPTABLE in place of the Child SA.
"""

import re

import pytest

from host_tests.interop.pluto import Pluto, unpack
from tools.dev.lab import PSK, SENSOR_ID, Lab, LabError, run

GROUPS = {"x25519": "dh31", "ecp256": "dh19", "modp2048": "dh14"}
CBC = "aes128-sha256-prfsha256-x25519"
IMPATIENT = {"retransmit_ms": 200, "retransmit_tries": 3}
AUTHENTICATED = f"authenticated peer using authby=secret and ID_FQDN '@{SENSOR_ID}'"
# TS_UNACCEPTABLE by libreswan 4, TEMPORARY_FAILURE by 5
KERNEL_LACKS_ESP = ("TsUnacceptable", "TemporaryFailure")


@pytest.fixture(scope="module")
def libreswan():
    home, why_not = unpack()
    if not home:
        pytest.skip(why_not)


@pytest.fixture
def lab(libreswan):
    with Lab() as lab:
        yield lab


def refused(sensor):
    """The one typed error with which the run ended."""
    assert sensor.wait(15) == 1, sensor.output
    (line,) = sensor.all("error")
    assert line["text"] and line["check"]
    assert sensor.all("up") == []
    assert sensor.stderr == ""
    return line


@pytest.mark.parametrize(("cipher", "group"), [("aes128", g) for g in GROUPS] + [("aes256", "x25519")])  # fmt: skip
def test_both_sides_authenticate_and_the_childs_failure_is_typed(lab, cipher, group):
    pluto = lab.own(Pluto(lab.gateway_ns, PSK, f"{cipher}-sha2_256;{GROUPS[group]}"))
    proposal = f"{cipher}-sha256-prfsha256-{group}"
    sensor = lab.sensor({"ike": [proposal]}, readings=1)
    line = refused(sensor)
    assert line["error"] in KERNEL_LACKS_ESP
    log = pluto.log()
    assert AUTHENTICATED in log
    assert "responder established IKE SA" in log
    assert re.search("ESP.*AES_CCM_(A|8)_128", log)  # by libreswan 4 and by 5
    assert "netlink response for Add SA" in log  # the kernel's no, and nothing of ours
    # A DELETE is sent only to a gateway whose AUTH was verified: INIT, AUTH, DELETE.
    assert sensor.first("stats")["datagrams_out"] == 3
    assert sensor.first("stats")["drops"] == {}


@pytest.mark.item("MIN-22")
@pytest.mark.parametrize(("first", "second"), [("x25519", "ecp256"), ("ecp256", "modp2048")])
def test_a_first_guess_at_the_key_exchange_may_be_wrong(lab, first, second):
    pluto = lab.own(Pluto(lab.gateway_ns, PSK, f"aes128-sha2_256;{GROUPS[second]}"))
    ike = ["aes128-sha256-prfsha256-" + group for group in (first, second)]
    sensor = lab.sensor({"ike": ike}, readings=1)
    assert refused(sensor)["error"] in KERNEL_LACKS_ESP
    assert AUTHENTICATED in pluto.log()
    assert sensor.first("stats")["datagrams_out"] == 4


def test_a_sensor_that_offers_ccm_first_gets_cbc(lab):
    """One profile for both kinds of gateways."""
    pluto = lab.own(Pluto(lab.gateway_ns, PSK))
    sensor = lab.sensor({"ike": ["aes128ccm16-prfsha256-x25519", CBC]}, readings=1)
    assert refused(sensor)["error"] in KERNEL_LACKS_ESP
    assert AUTHENTICATED in pluto.log()


def test_ccm_alone_is_no_common_ike_proposal(lab):
    lab.own(Pluto(lab.gateway_ns, PSK))
    line = refused(lab.sensor(IMPATIENT, readings=1))
    assert (line["error"], line["notify"]) == ("NoProposalChosen", "NO_PROPOSAL_CHOSEN")
    assert "ike" in line["check"]


def test_no_common_esp_proposal_is_named(lab):
    lab.own(Pluto(lab.gateway_ns, PSK, esp="aes_gcm256"))
    line = refused(lab.sensor({"ike": [CBC]}, readings=1))
    assert (line["error"], line["notify"]) == ("NoProposalChosen", "NO_PROPOSAL_CHOSEN")


@pytest.mark.item("I2")
def test_a_start_that_fails_says_why_at_once(lab):
    """pluto itself outlives a helper that gave it no connection, in silence."""
    with pytest.raises(LabError, match="failed to add connection: ESP encryption algorithm"):
        Pluto(lab.gateway_ns, PSK, esp="nonsense")


@pytest.mark.item("I2")
def test_helpers_run_with_the_unpacked_libraries(lab):
    """pluto starts them with an empty environment."""
    pluto = lab.own(Pluto(lab.gateway_ns, PSK))
    command = ["env", "-i", "/usr/bin/ldd", "/usr/libexec/unpacked/addconn"]
    loaded = run("chroot", f"/proc/{pluto.pid}/root", *command)
    found = dict(re.findall(r"(\S+) => (\S+)", loaded))
    unpacked = {file.name for file in (unpack()[0] / "usr/lib").glob("*-linux-gnu*/*.so*")}
    assert "libc.so.6" in found and "not found" not in loaded
    assert all(found[name].startswith("/usr/libexec/library/") for name in unpacked & found.keys())


def test_a_wrong_psk_is_refused(lab):
    pluto = lab.own(Pluto(lab.gateway_ns, PSK))
    secrets = {"psk": "0x" + "00" * 31 + "01"}
    line = refused(lab.sensor({"ike": [CBC]}, secrets, readings=1))
    assert (line["error"], line["notify"]) == ("AuthenticationFailed", "AUTHENTICATION_FAILED")
    assert AUTHENTICATED not in pluto.log()


def test_a_gateway_with_another_identity_is_refused(lab):
    lab.own(Pluto(lab.gateway_ns, PSK))
    profile = {"ike": [CBC], "gateway_id": "other.example.org"}
    line = refused(lab.sensor(profile, readings=1))
    assert line["error"] in ("AuthenticationFailed", "PeerMisbehaved")
