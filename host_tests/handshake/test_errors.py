"""What a gateway refuses by has an error of its own, with a line that says what to compare."""

import ipaddress
import pathlib
import re
import struct

import pytest

from tools.dev.peers import stage
from tools.dev.peers.udp import Wire, named, run_sensor
from host_tests.checklist import item
from tools.dev.peers.node import PROFILE
from tools.dev.peers.responder import IKE_AUTH, IKE_SA_INIT, INFORMATIONAL, MARKER, D, I, notify
from minipsec import refusals as errors, explain
from minipsec.config import profile as store

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
ESP = "the gateway agreed on IKE and refused ESP"
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
    assert_is(explain.failure(event), kind, ESP if kind == 14 else "the gateway refused")


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
    assert_is(explain.failure(event), kind, ESP if kind == 14 else "the gateway refused")


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
    assert_is(explain.failure(event, kind), kind, "no answer but an unauthenticated")


@pytest.mark.parametrize("reason", ["BAD_SA", "BAD_TS", "BAD_CP", "TOO_LARGE"])
def test_what_an_answer_lacks_is_said_in_words(reason):
    error = explain.failure(("failed", "peer", reason))
    assert type(error) is errors.PeerMisbehaved
    assert reason not in str(error) and len(str(error).split()) > 3


def test_silence_without_a_hint_is_link_down():
    error = explain.failure(("failed", "timeout", IKE_SA_INIT))
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
        error = explain.failure(("failed", "timeout", IKE_SA_INIT), kind)
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
    known = {row[0] for row in store.rows()} | SETTINGS
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
    check = errors.refusal(kind).check
    assert line["check"] == (
        check if kind != 14 else "esp against esp_proposals there, like esp_proposals = aes128ccm8"
    )
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


# What the field took for something else: each error names what is the matter, and where to mend it.


def ended(edit=None, init=None, **changes):
    """The error with which a sensor ends whose gateway's IKE_AUTH answer is edited."""
    node, gateway = stage.halfway(edit=init, **changes)
    node.receive(gateway.auth(node.out[-1], edit))
    (event,) = node.all("failed")
    return explain.failure(event, None, node.ike.profile, node.ike.drops)


def selectors(*found):
    """The body of a TS payload: [(protocol, first port, last port, first address, last address)]."""
    body = bytes((len(found), 0, 0, 0))
    for protocol, low, high, first, last in found:
        head = struct.pack(">BBHHH", 7, protocol, 16, low, high)
        body += head + ipaddress.ip_address(first).packed + ipaddress.ip_address(last).packed
    return body


@item("F1")
@pytest.mark.parametrize(("method", "word"), [(1, "RSA"), (9, "ECDSA"), (14, "digital signature")])
def test_a_gateway_that_signs_is_told_from_a_wrong_secret(method, word):
    error = ended(stage.replaced(39, lambda body: bytes((method,)) + body[1:]))
    assert type(error) is errors.PeerMisbehaved
    assert word in str(error) and f"method {method}" in str(error)
    assert "local there: auth = psk" in error.check
    wrong = ended(stage.replaced(39, lambda body: body[:4] + bytes(32)))
    assert str(wrong) == "AUTH does not verify" and "secret" in wrong.check


@item("F2")
@pytest.mark.parametrize(
    ("found", "words"),
    [
        # local_ts left out: the gateway itself; another network; TCP; another port; many of them.
        ([(0, 0, 65535, "10.77.0.1", "10.77.0.1")], "are 10.77.0.1, ours is 10.3.0.10 UDP port 5000"),
        ([(0, 0, 65535, "10.4.0.0", "10.4.255.255")], "are 10.4.0.0/16, ours is 10.3.0.10"),
        ([(6, 0, 65535, "10.3.0.0", "10.3.0.255")], "are 10.3.0.0/24 tcp, ours"),
        ([(17, 53, 53, "10.3.0.0", "10.3.0.255")], "are 10.3.0.0/24 udp port 53, ours"),
        ([(17, 1, 99, "10.3.0.3", "10.3.0.20")], "are 10.3.0.3-10.3.0.20 udp ports 1-99, ours"),
        ([(0, 0, 65535, f"10.{n}.0.0", f"10.{n}.0.9") for n in range(20, 29)], "and 5 more, ours"),
        ([], "none that we know, ours"),
    ],
)  # fmt: skip
def test_selectors_without_the_server_are_told(found, words):
    error = ended(stage.replaced(45, lambda body: selectors(*found)))
    assert type(error) is errors.PeerMisbehaved
    assert words in str(error), str(error)
    for word in ("server", "server_port", "local_ts", "mode"):
        assert word in error.check


@item("F2")
def test_selectors_without_our_address_and_wider_ones_are_told():
    error = ended(
        stage.replaced(44, lambda body: selectors((0, 0, 65535, "10.8.0.0", "10.8.0.255")))
    )
    assert "10.8.0.0/24" in str(error) and "inner_address" in error.check
    error = ended(
        stage.replaced(45, lambda body: selectors((0, 0, 65535, "10.0.0.0", "10.255.255.255"))),
        remote_ts="10.3.0.0/16",
    )
    assert "wider" in str(error) and "10.0.0.0/8" in str(error) and "local_ts" in error.check


@item("F2")
def test_more_than_eight_selectors_are_taken():
    """README's own profile asks for everything, and a gateway answers with each of its networks."""
    many = [(0, 0, 65535, f"10.{n}.0.0", f"10.{n}.255.255") for n in range(40, 3, -1)]
    many.append((0, 0, 65535, "10.3.0.0", "10.3.255.255"))
    node, gateway = stage.halfway()
    node.receive(gateway.auth(node.out[-1], stage.replaced(45, lambda body: selectors(*many))))
    assert node.state == "UP"


@item("F3")
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\2\0\0\0vpn.example.org", "fqdn:vpn.example.org"),
        (b"\3\0\0\0gw@example.org", "email:gw@example.org"),
        (b"\1\0\0\0\x0a\x4d\0\1", "ipv4:10.77.0.1"),
        (b"\x05\0\0\0\xfd\x77" + bytes(13) + b"\1", "ipv6:fd77:0:0:0:0:0:0:1"),
        (b"\x0b\0\0\0\0\xff", "keyid:#00ff"),
        (b"\x09\0\0\0\x30\x00", "asn1dn:#3000"),
        (b"\2\0\0\0a\n\x1b[2Jerror b", "fqdn:#610a1b5b324a6572726f722062"),
        (b"\x63\0\0\0x", "{99}:x"),
    ],
)
def test_another_idr_is_named_and_cannot_forge_a_line(body, words):
    node, gateway = stage.halfway()
    gateway.ident = body[0], body[4:]
    node.receive(gateway.auth(node.out[-1]))
    (event,) = node.all("failed")
    error = explain.failure(event, None, node.ike.profile, {})
    assert f"it says that it is {words}, which is not gateway_id" == str(error)
    assert "gateway_id here against local.id there" in error.check


@item("F4")
def test_esp_that_is_refused_in_ike_auth_is_about_esp_alone():
    error = ended(lambda payloads: [p for p in payloads if p[0] not in CHILD] + [notify(14)])
    assert type(error).__name__ == "NoProposalChosen"
    assert "agreed on IKE" in str(error)
    assert error.check == "esp against esp_proposals there, like esp_proposals = aes128ccm8"


@item("F5")
@pytest.mark.parametrize("pq", ["off", "prefer"])
def test_ike_that_is_refused_names_pq_and_the_line_to_add(pq):
    profile = store.check_profile({**PROFILE, "pq": pq})
    error = explain.failure(("failed", "timeout", IKE_SA_INIT), 14, profile, {})
    assert type(error).__name__ == "NoProposalChosen"
    assert "proposals = aes128ccm16-prfsha256-x25519" in error.check
    assert "pq" in error.check and "esp" not in error.check


@item("F6")
@pytest.mark.parametrize("kind", [7, 14, 17])
def test_ml_kem_that_was_agreed_on_and_is_not_there_is_post_quantum_refused(kind):
    error = explain.failure(("failed", "notify", kind, 36))
    assert type(error) is errors.PostQuantumRefused and error.notify == errors.notify_name(kind)
    for word in ("swanctl --list-algs | grep ML_KEM", "plugin ml", "6.0.2", "OpenSSL 3.5"):
        assert word in error.check
    # Another exchange in its place, or another reason, says nothing of ML-KEM.
    assert type(explain.failure(("failed", "notify", kind, 31))) is errors.refusal(kind)
    assert type(explain.failure(("failed", "notify", 43, 36))) is errors.refusal(43)
    assert "ESP" not in str(explain.failure(("failed", "notify", 14, 0)))


@item("F7")
def test_answers_that_came_and_were_dropped_are_counted_and_named():
    node, gateway = stage.started()
    answer = gateway.init(node.out[-1])
    for _ in range(3):
        node.receive(answer[:-1])
    node.receive(b"\0" * 40)
    while node.ike.next_timer() is not None:
        node.timer(node.ike.next_timer())
    (event,) = node.all("failed")
    error = explain.failure(event, None, node.ike.profile, node.ike.drops)
    assert type(error) is errors.LinkDown
    words = "4 datagrams came, dropped as BAD_LENGTH (3), BAD_VERSION (1)"
    assert words in str(error), str(error)
    assert "fragment_size" in error.check and "firewall" not in error.check
    one = explain.failure(event, None, None, {"BAD_KE": 1})
    assert "1 datagram came, dropped as BAD_KE (1)" in str(one)
    odd = explain.failure(event, None, None, {"SOMETHING": 1})
    assert "drop counters" in odd.check


@item("F10")
@pytest.mark.parametrize(("exchange", "name"), [(IKE_AUTH, "IKE_AUTH"), (43, "IKE_INTERMEDIATE")])
def test_silence_after_ike_sa_init_names_fragment_size_at_both_ends(exchange, name):
    error = explain.failure(("failed", "timeout", exchange), None, None, {})
    assert type(error) is errors.LinkDown
    assert str(error) == f"the gateway answered IKE_SA_INIT and then not {name}"
    for word in ("fragment_size at both ends", "4500", "log"):
        assert word in error.check


@item("F10")
def test_a_sensor_whose_ike_auth_is_unanswered_says_so():
    node, gateway = stage.halfway()
    while node.ike.next_timer() is not None:
        node.timer(node.ike.next_timer())
    (event,) = node.all("failed")
    assert "then not IKE_AUTH" in str(explain.failure(event, None, None, {}))


@item("F11")
def test_a_second_round_and_another_connection_are_named():
    error = ended(lambda payloads: [p for p in payloads if p[0] not in CHILD])
    assert "second authentication" in str(error)
    assert "remote there: one round" in error.check and "another connection" in error.check
    for kind in (24, 36):
        assert "another connection" in errors.refusal(kind).check
    assert "one round" in errors.refusal(24).check


# All of them have names for an application.


@item("K3")
def test_every_class_of_the_table_of_errors_can_be_imported():
    text = (ROOT / "firmware/docs/errors.md").read_text()
    table = text.partition("<!-- make docs: errors -->")[2].partition("<!-- end -->")[0]
    names = re.findall(r"^\| `([A-Z]\w+)`", table, re.M)
    assert len(names) > 15
    import minipsec

    for name in [*names, "MinipsecError", "PeerError", "ProfileError"]:
        found = getattr(minipsec, name)
        assert found.__name__ == name and issubclass(found, Exception)
    assert minipsec.AuthenticationFailed is errors.refusal(24)
    assert minipsec.LinkDown is errors.LinkDown
    for name in ("NoSuchError", "Initiator", "address_text"):
        with pytest.raises(AttributeError):
            getattr(minipsec, name)


@item("K3")
def test_they_can_be_imported_on_a_board_before_the_first_error(tmp_path, root, micropython):
    program = tmp_path / "program.py"
    program.write_text(
        "from minipsec import AuthenticationFailed, LinkDown, PeerError, SaEnded\n"
        "from minipsec.refusals import refusal\n"
        "try:\n    raise refusal(24)('no')\n"
        "except AuthenticationFailed as e:\n    print(isinstance(e, PeerError), e.notify)\n"
        "try:\n    from minipsec import NoSuchError\n"
        "except (AttributeError, ImportError):\n    print('none')\n"
    )
    done = micropython(program, path=[root / "firmware"])
    assert done.stdout.split() == ["True", "AUTHENTICATION_FAILED", "none"]
