"""What a gateway refuses by has an error of its own, with a line that says what to compare."""

import pathlib
import re

import pytest

from host_tests.conformance import stage
from host_tests.conformance.udp import Wire, named, run_sensor
from host_tests.core.checklist import item
from host_tests.core.responder import IKE_AUTH, IKE_SA_INIT, INFORMATIONAL, MARKER, D, I, notify
from minipsec import errors, store

ROOT = pathlib.Path(__file__).resolve().parents[2]

# notify type: (class, name), RFC 7296 §3.10.1; the last two have no name here.
REFUSALS = {
    7: ("InvalidSyntax", "INVALID_SYNTAX"),
    14: ("NoProposalChosen", "NO_PROPOSAL_CHOSEN"),
    24: ("AuthenticationFailed", "AUTHENTICATION_FAILED"),
    36: ("InternalAddressFailure", "INTERNAL_ADDRESS_FAILURE"),
    37: ("FailedCpRequired", "FAILED_CP_REQUIRED"),
    38: ("TsUnacceptable", "TS_UNACCEPTABLE"),
    43: ("TemporaryFailure", "TEMPORARY_FAILURE"),
    20: ("UnknownRefusal", "NOTIFY_20"),
    16383: ("UnknownRefusal", "NOTIFY_16383"),
}
CHILD = (33, 44, 45, 47)  # SA, TSi, TSr, CP
refusals = pytest.mark.parametrize("kind", REFUSALS)


def assert_is(error, kind, text):
    assert isinstance(error, errors.PeerError)
    assert (type(error).__name__, error.notify) == REFUSALS[kind]
    assert str(error).startswith(text) and REFUSALS[kind][1] in str(error)
    assert error.check


@item("MIN-31", "MIN-38")
@refusals
def test_a_refusal_instead_of_auth_ends_as_its_error(kind):
    node, gateway = stage.halfway()
    gateway.read_auth(node.out[-1])
    assert node.receive(gateway.send(IKE_AUTH, 0x20, 1, [notify(kind)])) == []
    assert node.state == "DOWN"
    (event,) = node.all("failed")
    assert_is(errors.failure(event), kind, "the gateway refused")


@item("MIN-30", "MIN-31", "MIN-38")
@refusals
def test_a_refused_child_sa_deletes_the_ike_sa_and_ends_as_its_error(kind):
    node, gateway = stage.halfway()

    def edit(payloads):
        return stage.without(*CHILD)(payloads) + [notify(kind)]

    (farewell,) = node.receive(gateway.auth(node.out[-1], edit))
    exchange, flags, mid, payloads = gateway.read(farewell)
    assert (exchange, flags, mid) == (INFORMATIONAL, I, 2)
    assert [(kind, body) for kind, _, body in payloads] == [(D, b"\1\0\0\0")]
    assert node.state == "DOWN" and not node.all("up")
    (event,) = node.all("failed")
    assert_is(errors.failure(event), kind, "the gateway refused")


@item("MIN-23", "MIN-38")
@pytest.mark.parametrize("kind", [*REFUSALS, 1, 4, 5, 9, 11, 17, 34, 35, 39, 44])
def test_a_forged_refusal_does_not_stop_a_handshake_that_can_succeed(kind):
    """Before, between and after the resends, as often as it likes."""
    for data in (b"", b"\0\x0e", b"x" * 60):
        node, gateway = stage.started()
        request = node.out[-1]
        for now in (0, 1, 999, 1000, 3000):
            if now >= 1000:
                assert node.timer(now) == [request]
            for spi_r in (bytes(8), b"anything"):
                forged = gateway.refuse_init(request, notify(kind, data), spi_r=spi_r)
                due = node.ike.next_timer()
                assert node.receive(forged, now) == []
                assert node.ike.next_timer() == due
                assert (node.state, node.ike.spi_r) == ("IKE_SA_INIT", bytes(8))
        node.receive(gateway.init(request), 3500)
        assert node.state == "IKE_AUTH"
        node.receive(gateway.auth(node.out[-1]), 3600)
        assert node.state == "UP" and not node.all("failed")


@item("MIN-23", "MIN-38")
@refusals
def test_a_refusal_that_nobody_authenticated_names_the_timeout(kind):
    node, gateway = stage.started()
    node.receive(gateway.refuse_init(node.out[-1], notify(kind)), 10)
    assert node.all("hint") == [("hint", kind)]
    while node.ike.next_timer() is not None:
        assert not node.all("failed")
        now = node.ike.next_timer()
        node.timer(now)
    assert now == 31000
    (event,) = node.all("failed")
    assert event == ("failed", "timeout", IKE_SA_INIT)
    assert_is(errors.failure(event, kind), kind, "no answer but an unauthenticated")


@pytest.mark.parametrize("reason", ["BAD_SA", "BAD_TS", "BAD_CP", "TOO_LARGE"])
def test_what_an_answer_lacks_is_said_in_words(reason):
    error = errors.failure(("failed", "peer", reason))
    assert type(error) is errors.PeerMisbehaved
    assert reason not in str(error) and len(str(error).split()) > 3


def test_silence_without_a_hint_is_link_down():
    error = errors.failure(("failed", "timeout", IKE_SA_INIT))
    assert type(error) is errors.LinkDown and error.notify is None and "firewall" in error.check


@item("MIN-38")
def test_every_refusal_is_a_class_that_an_application_can_catch():
    kinds = list(errors._REFUSALS)
    classes = [errors.refusal(kind) for kind in kinds]
    assert len(set(classes)) == len(kinds)
    assert all(issubclass(c, errors.PeerError) and c is not errors.PeerError for c in classes)
    assert [errors.refusal(kind) for kind in kinds] == classes
    checks = [c.check for c in classes]
    assert len(set(checks)) == len(checks)


def test_errors_of_unknown_types_share_a_class():
    """A forger has 16,000 of them, and on a board a class takes memory for good."""
    before = len(errors._made)
    for kind in range(8192, 8292):
        error = errors.failure(("failed", "timeout", IKE_SA_INIT), kind)
        assert type(error) is errors.UnknownRefusal and error.notify == f"NOTIFY_{kind}"
    assert len(errors._made) == before


# The settings of swanctl.conf that a line may send its reader to.
SETTINGS = {"proposals", "esp_proposals", "local_ts", "remote_ts", "pools", "id", "secrets"}


def test_every_line_sends_its_reader_to_keys_and_settings_that_exist():
    """What looks like a key or a setting is one."""
    conf = (ROOT / "tools/gateway/swanctl.conf").read_text()
    for setting in SETTINGS:
        assert re.search(rf"\b{setting}\b", conf), setting
    assert re.search(r"\bremote {", conf) and re.search(r"\blocal {", conf)
    known = {row[0] for row in store.keys()} | SETTINGS
    for kind, (name, check) in errors._REFUSALS.items():
        for word in re.findall(r"[a-z]+_[a-z_]+", check):
            assert word in known, (name, word)
        if kind not in (7, 35, 43):  # where no setting helps
            assert known & set(re.findall(r"\w+", check)), name


# The same from the outside: one error line, exit code 1.


@pytest.fixture
def sensor(micropython_path, root, tmp_path):
    def run(wire, **changes):
        return run_sensor(micropython_path, root, tmp_path, wire, **changes)

    return run


@item("MIN-38")
@refusals
def test_the_sensor_prints_the_refusal_with_what_to_check_and_ends_with_1(sensor, kind):
    gateway = stage.Gateway()

    def script(wire, name, datagram, source):
        if name == "ike":
            wire.send(name, gateway.init(datagram), source)
        elif datagram[:4] == MARKER and datagram[22] == IKE_AUTH:
            gateway.read_auth(datagram)
            wire.send(name, gateway.send(IKE_AUTH, 0x20, 1, [notify(kind)]), source)

    with Wire(script) as wire:
        code, lines, stderr = sensor(wire)
    assert code == 1 and "Traceback" not in stderr
    (line,) = named(lines, "error")
    assert (line["error"], line["notify"]) == REFUSALS[kind]
    assert line["check"] == errors.refusal(kind).check
    assert not named(lines, "up") and lines[-1]["event"] == "stats"


@item("MIN-23")
def test_a_forger_who_is_faster_than_the_gateway_does_not_stop_the_sensor(sensor):
    """Ten forged refusals in front of each genuine answer; the error that they name is a hint."""
    gateway = stage.Gateway()

    def script(wire, name, datagram, source):
        if name == "ike":
            for kind in REFUSALS:
                wire.send(name, gateway.refuse_init(datagram, notify(kind)), source)
            wire.send(name, gateway.init(datagram), source)
        elif datagram[22] == IKE_AUTH:
            wire.send(name, gateway.auth(datagram), source)

    with Wire(script) as wire:
        code, lines, stderr = sensor(wire)
    assert code == 0, stderr
    assert named(lines, "up") and len(named(lines, "sent")) == 1
    assert {line["notify"] for line in named(lines, "hint")} == {n for _, n in REFUSALS.values()}
    assert not named(lines, "error")
