"""The sensor as a whole on the unix port, with its own ML-KEM, against the development gateway.

The gateway's ML-KEM is OpenSSL's, or kyber-py's for 512.
"""

import json
import time

import pytest

from host_tests.checklist import item
from tools.dev.peers.node import PROFILE
from tools.dev.lab import Sensor
from tools.dev.peers.hybrid import CCM, NAMES
from tools.devgateway import RunningGateway

pytestmark = pytest.mark.long

PSK = "a pre-shared key"
PPK = "0x" + "ab" * 32
PPKS = {b"ppk-1": bytes.fromhex("ab" * 32)}
WITH_PPK = {"ppk_id": "ppk-1"}
FAST = {"retransmit_ms": 200, "retransmit_tries": 5, "retries": 0, "interval_ms": 20}


@pytest.fixture
def gateway():
    """`gateway(setting=..)` starts one; it ends with the test."""
    running = []

    def start(**settings):
        running.append(RunningGateway({"any": PSK}, **settings))
        return running[-1].__enter__()

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def sensor():
    """`sensor(gateway, key=..)` runs one to its end: (exit code, the Sensor)."""
    running = []

    def run(gateway, readings=2, **changes):
        values = {"gateway": "127.0.0.1", "port": gateway.port, "natt_port": gateway.natt_port}
        secrets = {"psk": PSK, **({"ppk": PPK} if "ppk_id" in changes else {})}
        values = {**values, **FAST, **changes}
        running.append(Sensor(values, secrets, readings, heap="300k"))
        return running[-1].wait(30), running[-1]

    yield run
    for one in running:
        one.stop()


def assert_works(code, sensor, gateway, ike):
    assert code == 0, sensor.output
    assert sensor.first("agreed")["ike"] == ike
    sent = [line["data"] for line in sensor.all("sent")]
    assert [gateway.reading()["text"] for _ in sent] == sent
    assert [line["data"] for line in sensor.all("reply")] == sent
    assert gateway.wait_for("ike_sa")["proposal"] == ike


@item("INT-08", "INT-12", "INT-14")
@pytest.mark.parametrize("method", NAMES.values())
@pytest.mark.parametrize("size", [300, 576])
def test_ml_kem_in_fragments_that_are_acknowledged(gateway, sensor, method, size):
    one = gateway(fragment_size=size)
    code, node = sensor(one, pq="require", pq_method=method, fragment_size=size)
    assert_works(code, node, one, f"{CCM}-ke1_{method}")
    stats = one.stats()
    assert stats["fragments_in"] > 1 and stats["fragments_out"] > 1


@item("B8", "INT-03")
@pytest.mark.parametrize("method", NAMES.values())
def test_a_gateway_that_does_not_fragment_gets_it_in_one_datagram(gateway, sensor, method):
    """IP then cuts it where it must, as ML-KEM-1024 on Ethernet."""
    one = gateway(fragmentation=False)
    code, node = sensor(one, pq="require", pq_method=method)
    assert_works(code, node, one, f"{CCM}-ke1_{method}")
    assert one.stats()["datagrams_in"] >= 4 and "fragments_in" not in one.stats()


@item("B8", "INT-14", "INT-15")
@pytest.mark.parametrize(("method", "size"), [("512", 1280), ("768", 1500), ("1024", 1872)])
def test_an_ml_kem_alone_in_ike_sa_init(gateway, sensor, method, size):
    suite = "aes128ccm16-prfsha256-mlkem" + method
    one = gateway(ike=(suite,))
    code, node = sensor(one, ike=[suite], fragment_size=size, pq="require")
    assert_works(code, node, one, suite)


@item("INT-12", "INT-13")
def test_two_ml_kems_one_after_the_other(gateway, sensor):
    suite = f"{CCM}-ke1_mlkem512-ke2_mlkem768"
    one = gateway(ike=(suite,))
    code, node = sensor(one, ike=[suite])
    assert_works(code, node, one, suite)


@item("INT-17", "INT-18", "INT-21")
@pytest.mark.parametrize("pq", ["off", "require"])
def test_a_ppk_beside_or_without_ml_kem(gateway, sensor, pq):
    one = gateway(ppks=PPKS, ppk_required=True)
    code, node = sensor(one, pq=pq, **WITH_PPK)
    assert_works(code, node, one, CCM + ("-ke1_mlkem768" if pq == "require" else ""))
    assert node.first("agreed")["ppk"] is True


@item("INT-17", "INT-19", "INT-20")
@pytest.mark.parametrize("required", [False, True])
def test_a_ppk_in_ike_auth(gateway, sensor, required):
    one = gateway(ppks=PPKS, intermediate=False)
    code, node = sensor(one, **WITH_PPK, ppk_required=required)
    assert_works(code, node, one, CCM)
    assert node.first("agreed")["ppk"] is True


@item("INT-20")
def test_the_log_says_when_an_optional_ppk_was_not_used(gateway, sensor):
    code, node = sensor(gateway(), **WITH_PPK, ppk_required=False)
    assert code == 0 and node.first("agreed")["ppk"] is False


# Refusals.


def assert_refused(code, sensor, text):
    assert code == 1, sensor.output
    (line,) = sensor.all("error")
    assert line["error"] == "PostQuantumRefused" and "post-quantum" in text or "PPK" in text
    assert text in line["text"] and line["check"]
    assert not sensor.all("up") and "Traceback" not in sensor.output
    return line


@item("INT-11")
@pytest.mark.parametrize("settings", [{"intermediate": False}, {"ike": (CCM,)}])
def test_require_refuses_a_gateway_without_it(gateway, sensor, settings):
    code, node = sensor(gateway(**settings), pq="require")
    line = assert_refused(code, node, "refused each post-quantum key exchange")
    assert line["notify"] == "NO_PROPOSAL_CHOSEN" and "pq: prefer" in line["check"]


@item("INT-11", "B7")
@pytest.mark.parametrize("settings", [{"intermediate": False}, {"ike": (CCM,)}])
def test_prefer_does_without_and_warns(gateway, sensor, settings):
    one = gateway(**settings)
    code, node = sensor(one, pq="prefer")
    assert_works(code, node, one, CCM)
    (warning,) = node.all("warning")
    assert "no ML-KEM in this tunnel" in warning["text"] and "pq: require" in warning["text"]
    assert "another connection" in warning["text"]


@item("B7")
@pytest.mark.parametrize("changes", [{"pq": "prefer"}, {"pq": "require"}, {"pq": "off"}])
def test_nothing_is_warned_of_where_ml_kem_is_in_or_was_never_wanted(gateway, sensor, changes):
    code, node = sensor(gateway(), **changes)
    assert code == 0 and not node.all("warning"), node.output


@item("INT-17")
def test_a_required_ppk_that_the_gateway_does_not_use(gateway, sensor):
    code, node = sensor(gateway(), **WITH_PPK)
    line = assert_refused(code, node, "without USE_PPK")
    assert line["notify"] is None and "ppk_required" in line["check"]
    assert [hint["notify"] for hint in node.all("hint")] == ["no USE_PPK"]


@item("INT-20", "INT-21")
@pytest.mark.parametrize("intermediate", [False, True])
def test_a_required_ppk_that_the_gateway_has_not(gateway, sensor, intermediate):
    one = gateway(ppks={b"else": b"another"}, intermediate=intermediate)
    code, node = sensor(one, **WITH_PPK)
    if intermediate:
        assert_refused(code, node, "no such PPK")
    else:
        # The gateway notices first: there is no AUTH that it could verify.
        (line,) = node.all("error")
        assert code == 1 and line["error"] == "AuthenticationFailed" and "PPK" in line["check"]


@item("INT-15")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ike": ["aes128ccm16-prfsha256-mlkem512"]}, "profile: fragment_size: expected 1"),
        ({"pq": "require", "ike": [CCM + "-ke1_none"]}, "without ML-KEM, and pq is require"),
        ({"pq": "always"}, 'profile: pq: expected "off" or "prefer" or "require"'),
        ({"pq_method": "kyber768"}, "profile: pq_method: expected"),
        (WITH_PPK, 'secrets: "ppk" and the profile key ppk_id go together'),
    ],
)
def test_a_profile_that_cannot_be_is_one_line(gateway, changes, says):
    one = gateway()
    values = {"gateway": "127.0.0.1", "port": one.port, "natt_port": one.natt_port, **changes}
    node = Sensor(values, {"psk": PSK}, 1, heap="300k")
    assert node.wait(20) == 2
    (line,) = node.stderr.splitlines()
    assert says in line and node.stdout == ""


# Memory.


def write(directory, gateway, **changes):
    values = {**PROFILE, **FAST, "gateway": "127.0.0.1", **changes}
    values.update(port=gateway.port, natt_port=gateway.natt_port)
    (directory / "profile.json").write_text(json.dumps(values))
    secrets = {"psk": PSK, **({"ppk": PPK} if "ppk_id" in changes else {})}
    (directory / "secrets.json").write_text(json.dumps(secrets))
    (directory / "secrets.json").chmod(0o600)
    return directory / "profile.json"


@pytest.fixture
def forget(micropython, root, tmp_path, gateway):
    def run(*words, **changes):
        one = gateway(ppks=PPKS, fragment_size=changes.get("fragment_size", 0))
        profile = write(tmp_path, one, **changes)
        program = root / "host_tests/handshake/forgotten.py"
        done = micropython(program, profile, *words)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@item("INT-22")
@pytest.mark.parametrize("method", NAMES.values())
def test_once_up_its_modules_are_gone_and_its_private_keys_overwritten(forget, method):
    for after in forget("watch", pq="require", pq_method=method, **WITH_PPK):
        assert after["loaded"] == []
        assert after["keys"] and not any(after["keys"])
    assert len(after["keys"]) == 2


@item("INT-22")
def test_its_memory_is_free_again_after_each_handshake(forget):
    """What stays is work space of AES-CCM, as large now as a fragment of 576 octets.

    Both come in fragments: `fragack` is loaded with the first one and stays.
    """
    plain = [after["heap"] for after in forget(fragment_size=160)]
    hybrid = [after["heap"] for after in forget(pq="require", **WITH_PPK)]
    assert hybrid[0] - plain[0] < 3584, (plain, hybrid)
    assert hybrid[1] - hybrid[0] < plain[1] - plain[0] + 1024, (plain, hybrid)


@item("INT-22")
def test_where_machine_code_is_never_freed_its_modules_stay(forget):
    """As on an ESP32: loading them anew each time would take their memory each time."""
    for after in forget("esp32", pq="require", **WITH_PPK):
        assert after["loaded"] == ["kex.mlkem", "kex.keccak"]


# On a bad link.


@item("INT-08")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_comes_up_though_every_fifth_datagram_is_lost(gateway, sensor, seed):
    began = time.monotonic()
    one = gateway(loss=20, seed=seed, fragment_size=576, frag_ack="eager", ack_gap_ms=50)
    code, node = sensor(
        one, readings=1, pq="require", retransmit_ms=500, retransmit_tries=6, liveness_ms=0
    )
    assert code == 0, node.output
    assert node.first("agreed")["ike"] == f"{CCM}-ke1_mlkem768"
    assert time.monotonic() - began < 30
