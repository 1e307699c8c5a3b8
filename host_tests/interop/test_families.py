"""Addresses of both families, outside and inside, and each pair of key exchanges, with strongSwan."""

import itertools

import pytest

from tools.dev.lab import GATEWAY_4, GATEWAY_6, SERVER_4, SERVER_6, Lab

GROUPS = ("x25519", "ecp256", "modp2048")
BOTH_INSIDE = [
    ("local_ts = 10.3.0.0/16", "local_ts = 10.3.0.0/16, fd03::/64"),
    ("    pools = minipsec\n", "    pools = minipsec, minipsec6\n"),
    ("    addrs = 10.9.0.0/24\n  }", "    addrs = 10.9.0.0/24\n  }\n  minipsec6 {\n    addrs = fd09::/120\n  }"),
]  # fmt: skip


@pytest.fixture
def lab():
    with Lab() as lab:
        yield lab


def assert_all_went_through(sensor, echo, count):
    assert sensor.wait() == 0, sensor.output
    sent = [line["data"].encode() for line in sensor.all("sent")]
    assert len(sent) == count
    assert [line["data"] for line in echo.received(count)] == sent
    assert [line["data"].encode() for line in sensor.all("reply")] == sent
    assert sensor.first("stats")["drops"] == {}


@pytest.mark.parametrize("outside", [GATEWAY_4, GATEWAY_6], ids=["outside4", "outside6"])
@pytest.mark.parametrize("inside", [SERVER_4, SERVER_6], ids=["inside4", "inside6"])
def test_each_family_travels_in_each(lab, outside, inside):
    came_up = lab.charon(edits=BOTH_INSIDE).watch()
    echo = lab.echo(inside)
    sensor = lab.sensor({"gateway": outside, "server": inside}, readings=5)
    up = sensor.wait_for("up")
    (sa,) = came_up(1)
    assert_all_went_through(sensor, echo, 5)
    assert sa["local-host"] == outside
    assert up["inner"].startswith("fd09:" if inside == SERVER_6 else "10.9.0.")


@pytest.mark.parametrize("inner", ["10.9.1.5", "fd09:1::5"])
def test_a_static_inner_address_may_be_of_either_family(lab, inner):
    name = "cellar.static.example.org"
    lab.charon(
        secrets={name: "static"},
        edits=[
            BOTH_INSIDE[0],
            ("remote_ts = 10.9.1.0/24", "remote_ts = 10.9.1.0/24, fd09:1::/64"),
        ],
    )
    server = SERVER_6 if ":" in inner else SERVER_4
    echo = lab.echo(server)
    profile = {"id": name, "inner_address": inner, "server": server}
    sensor = lab.sensor(profile, {"psk": "static"}, readings=3)
    assert_all_went_through(sensor, echo, 3)


def test_a_nat_between_ipv6_networks_is_passed():
    with Lab(nat=True) as lab:
        lab.charon()
        echo = lab.echo()
        sensor = lab.sensor({"gateway": GATEWAY_6}, readings=3)
        assert_all_went_through(sensor, echo, 3)
        assert sensor.first("up")["nat"] is True


@pytest.mark.item("MIN-22")
@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(GROUPS, 2)))
def test_a_gateway_that_wants_another_key_exchange_gets_it(lab, first, second):
    """INVALID_KE_PAYLOAD: the first guess was wrong, which costs one round trip (MIN-22)."""
    ike = ["aes128ccm16-prfsha256-" + group for group in (first, second)]
    old = "proposals = aes128ccm16-prfsha256-x25519, aes128ccm8-prfsha256-x25519"
    charon = lab.charon(edits=[(old, "proposals = " + ike[1])])
    echo = lab.echo()
    sensor = lab.sensor({"ike": ike}, readings=3)
    assert_all_went_through(sensor, echo, 3)
    assert sensor.first("agreed")["ike"] == ike[1]
    assert sensor.first("up")["datagrams_out"] == 3
    assert "N(INVAL_KE)" in charon.log()


@pytest.mark.item("MIN-21", "MIN-22")
def test_another_key_exchange_behind_a_cookie_costs_two_round_trips(lab):
    ike = ["aes128ccm16-prfsha256-" + group for group in ("x25519", "ecp256")]
    old = "proposals = aes128ccm16-prfsha256-x25519, aes128ccm8-prfsha256-x25519"
    charon = lab.charon(
        edits=[(old, "proposals = " + ike[1])],
        settings={"cookie_threshold": 1, "cookie_threshold_ip": 1},
    )
    echo = lab.echo()
    half_open = lab.sensor({"ike": ike[1:], "natt_port": 9}, readings=1)
    charon.wait_log("generating IKE_SA_INIT response")
    half_open.stop()
    sensor = lab.sensor({"ike": ike}, readings=3)
    assert_all_went_through(sensor, echo, 3)
    log = charon.log()
    assert "N(COOKIE)" in log and "N(INVAL_KE)" in log
    # Ours: with x25519; the same behind the cookie; with ecp256 behind it; IKE_AUTH.
    assert sensor.first("up")["datagrams_out"] in (4, 5)


@pytest.mark.parametrize("group", GROUPS)
def test_cbc_and_hmac_protect_ike_where_ccm_is_missing(lab, group):
    ike = "aes128-sha256-prfsha256-" + group
    old = "proposals = aes128ccm16-prfsha256-x25519, aes128ccm8-prfsha256-x25519"
    came_up = lab.charon(edits=[(old, "proposals = " + ike)]).watch()
    echo = lab.echo()
    sensor = lab.sensor({"ike": [ike]}, readings=3)
    up = sensor.wait_for("up")
    assert came_up(1)[0]["encr-alg"] == "AES_CBC"
    assert_all_went_through(sensor, echo, 3)
    assert up["octets_out"] > 0
