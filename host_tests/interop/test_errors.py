"""What strongSwan refuses, and what of it the sensor refuses: each error says what to mend, and where."""

import base64
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tools.dev.lab import GATEWAY_ID, PSK, SENSOR_ID, Lab

LOCAL_TS = "local_ts = 10.3.0.0/16"
IMPATIENT = {"retransmit_ms": 200, "retransmit_tries": 3, "retries": 0}


@pytest.fixture
def lab():
    with Lab() as lab:
        yield lab


def error(sensor):
    """The one error with which a sensor ended."""
    assert sensor.wait(30) == 1, sensor.output
    (line,) = sensor.all("error")
    assert not sensor.all("up") and "Traceback" not in sensor.output
    return line


@pytest.mark.item("F1")
def test_a_gateway_with_a_certificate(lab):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, GATEWAY_ID)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(GATEWAY_ID)]), False)
        .sign(key, hashes.SHA256())
    )
    charon = lab.charon()
    path = charon.directory / "gw.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    conf = charon.directory / "swanctl.conf"
    local = conf.read_text().replace(
        "local {\n      auth = psk", f"local {{\n      auth = pubkey\n      certs = {path}", 1
    )
    assert "pubkey" in local
    conf.write_text(local)
    charon.load()
    octets = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    with charon.vici() as session:  # after load, which forgets keys that are in no file
        session.load_key({"type": "ecdsa", "data": octets})
    line = error(lab.sensor(IMPATIENT, readings=1))
    assert line["error"] == "PeerMisbehaved", charon.log()[-3000:]
    assert "ECDSA" in line["text"] and "not by the secret" in line["text"]
    assert "local there: auth = psk" in line["check"]


@pytest.mark.item("F2")
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("", "10.77.0.1, ours is 10.3.0.10"),  # left out: the gateway itself
        ("local_ts = 10.3.0.0/16[tcp]", "10.3.0.0/16 tcp, ours is 10.3.0.10 UDP port 5000"),
        ("local_ts = 10.3.0.0/16[udp/53]", "10.3.0.0/16 udp port 53"),
        ("local_ts = 10.4.0.0/16", "10.4.0.0/16"),
    ],
)
def test_selectors_that_leave_the_server_out(lab, setting, words):
    lab.gateway_ns.address("lo", "10.4.0.1/32")  # kernel-libipsec wants one for each policy
    lab.charon(edits=[(LOCAL_TS, setting)])
    line = error(lab.sensor(IMPATIENT, readings=1))
    assert line["error"] == "PeerMisbehaved" and words in line["text"], line
    assert "server, server_port and remote_ts here against local_ts there" in line["check"]


@pytest.mark.item("F2")
def test_readmes_own_profile_against_a_gateway_with_many_networks(lab):
    lab.gateway_ns.address("lo", *(f"10.{n}.0.1/32" for n in range(20, 50)))
    many = ", ".join([f"10.{n}.0.0/16" for n in range(20, 50)] + ["10.3.0.0/16"])
    lab.charon(edits=[(LOCAL_TS, f"local_ts = {many}")])
    echo = lab.echo()
    sensor = lab.sensor(readings=1)
    assert sensor.wait(30) == 0, sensor.output
    assert len(echo.received(1)) == 1


@pytest.mark.item("F2")
def test_transport_mode_at_the_gateway_alone(lab):
    lab.charon(edits=[(LOCAL_TS, LOCAL_TS + "\n        mode = transport")])
    sensor = lab.sensor(IMPATIENT, readings=1)
    if sensor.wait(30) == 0:
        return  # this strongSwan falls back to tunnel mode
    (line,) = sensor.all("error")
    assert "mode" in line["check"], line


@pytest.mark.item("F3")
def test_a_gateway_of_another_name(lab):
    """strongSwan finds no connection for the IDr that the sensor asks for."""
    lab.charon()
    line = error(lab.sensor({**IMPATIENT, "gateway_id": "@other.example.org"}, readings=1))
    assert line["error"] == "AuthenticationFailed", line
    assert "gateway_id" in line["check"] and "another connection" in line["check"]


@pytest.mark.item("F4")
def test_esp_that_the_gateway_does_not_take(lab):
    lab.charon(edits=[("esp_proposals = aes128ccm8", "esp_proposals = aes256gcm16")])
    line = error(lab.sensor(IMPATIENT, readings=1))
    assert line["error"] == "NoProposalChosen" and "agreed on IKE" in line["text"], line
    assert line["check"].endswith("esp_proposals = aes128ccm8")


@pytest.mark.item("F5")
def test_ike_that_the_gateway_does_not_take(lab):
    old = "proposals = aes128ccm16-prfsha256-x25519, aes128ccm8-prfsha256-x25519"
    lab.charon(edits=[(old, "proposals = aes256-sha384-ecp384")])
    line = error(lab.sensor(IMPATIENT, readings=1))
    assert line["error"] == "NoProposalChosen", line
    assert "ike against proposals there" in line["check"] and "pq here" in line["check"]
    assert "aes128ccm16-prfsha256-x25519" in line["check"]


@pytest.mark.item("F10")
def test_a_path_that_loses_larger_datagrams(lab):
    lab.charon()
    dropped = lab.gateway_ns.drop("udp dport 4500 udp length > 150")
    line = error(lab.sensor(IMPATIENT, readings=1))
    assert dropped() > 0
    assert line["error"] == "LinkDown" and "then not IKE_AUTH" in line["text"], line
    assert "fragment_size at both ends" in line["check"]


@pytest.mark.item("F11")
def test_a_second_round_of_authentication(lab):
    lab.charon(
        edits=[
            ("    remote {\n      auth = psk", "    remote-1 {\n      auth = psk"),
            ("    children {\n      readings {\n        # What", SECOND),
        ]
    )
    line = error(lab.sensor(IMPATIENT, readings=1))
    assert "one round" in line["check"], line


SECOND = """    remote-2 {
      auth = psk
      id = %any
    }
    children {
      readings {
        # What"""


@pytest.mark.item("F11")
def test_another_connection_answers_first(lab):
    first = """connections {
  first {
    version = 2
    proposals = aes128ccm16-prfsha256-x25519
    local {
      auth = psk
      id = gw.example.org
    }
    remote {
      auth = psk
      id = %any
    }
    children {
      other {
        local_ts = 10.3.0.0/16
        esp_proposals = aes128ccm8
      }
    }
  }
"""
    lab.charon(edits=[("connections {\n", first)])
    line = error(lab.sensor(IMPATIENT, readings=1))
    assert line["error"] == "InternalAddressFailure", line
    assert "another connection there may have answered first" in line["check"]


# Words that mean the same at both ends.


@pytest.mark.item("E2")
@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("@sensor-1.example.org", SENSOR_ID),
        ("fqdn:sensor-1.example.org", "@sensor-1.example.org"),
        ("@@sensor@example.org", "sensor@example.org"),
        ("rfc822:sensor@example.org", "@@sensor@example.org"),
        ("@#00ff10", "keyid:#00ff10"),
        ("keyid:0x00ff10", "@#00ff10"),
        ("10.77.0.2", "10.77.0.2"),
        ("fd77::2", "fd77::2"),
    ],
)
def test_identities_mean_to_strongswan_what_they_mean_to_a_sensor(lab, here, there):
    lab.charon(secrets={there: PSK})
    lab.echo()
    sensor = lab.sensor({"id": here, "gateway_id": "@" + GATEWAY_ID}, readings=1)
    assert sensor.wait(30) == 0, sensor.output


@pytest.mark.item("E2")
@pytest.mark.parametrize(
    "secret",
    [
        "0s" + base64.b64encode(bytes(range(1, 33))).decode(),
        "0S" + base64.b64encode(bytes(range(200, 233))).decode(),
        "0X00ffAB" + "11" * 16,
        "correct horse battery staple",
        "K\u00fcche mit Aussicht",
    ],
)
def test_secrets_mean_to_strongswan_what_they_mean_to_a_sensor(lab, secret):
    lab.charon(secrets={SENSOR_ID: secret})
    lab.echo()
    sensor = lab.sensor(secrets={"psk": secret}, readings=1)
    assert sensor.wait(30) == 0, sensor.output


@pytest.mark.item("E1")
@pytest.mark.parametrize(
    "proposal",
    ["aes128-sha256-x25519", "aes256-sha256-modp2048", "aes-sha2_256-ecp256", "aes128ccm128-sha256-curve25519"],
)  # fmt: skip
def test_proposals_mean_to_strongswan_what_they_mean_to_a_sensor(lab, proposal):
    """The same text at both ends."""
    old = "proposals = aes128ccm16-prfsha256-x25519, aes128ccm8-prfsha256-x25519"
    lab.charon(edits=[(old, f"proposals = {proposal}")])
    lab.echo()
    sensor = lab.sensor({"ike": [proposal]}, readings=1)
    assert sensor.wait(60) == 0, sensor.output
