"""Sessions recorded with real gateways come out the same, octet for octet."""

from host_tests.checklist import item
from tools.dev.peers.node import SECRETS
from tools.dev.peers.replay import Replay, load, names

# name: the core's last word; those that are not here came up and were taken down.
ENDS = {
    "charon-cp-required": ("failed", "notify", 37),
    "charon-no-child": ("failed", "notify", 14),
    "charon-no-proposal": ("failed", "timeout", 34),
    "charon-wrong-id": ("failed", "notify", 24),
    "charon-wrong-psk": ("failed", "notify", 24),
    "devgateway-no-pool": ("failed", "notify", 36),
}
PEER_DELETED = ("charon-terminate", "devgateway-requests")


def test_every_session_comes_out_the_same_octet_for_octet():
    assert len(names()) >= 15
    for name in names():
        Replay(load(name), exact=True).to_end()


def test_every_session_ends_as_it_did():
    for name in names():
        node = Replay(load(name)).to_end().node
        assert node.state == "DOWN", name
        last = ENDS.get(name)
        if last:
            assert node.all("failed") == [last], (name, node.events)
            assert not node.all("up"), name
            continue
        states = [event[1] for event in node.all("state")]
        assert states[:3] == ["IKE_SA_INIT", "IKE_AUTH", "UP"], (name, states)
        assert len(node.all("up")) == 1
        assert node.all("deleted") == ([("deleted",)] if name in PEER_DELETED else []), name
        assert len(node.got) >= 2, name


def test_unauthenticated_refusals_were_hints():
    node = Replay(load("charon-no-proposal")).to_end().node
    assert node.all("hint") and set(node.all("hint")) == {("hint", 14)}
    assert node.ike.drops == {"UNAUTHENTICATED_ERROR": len(node.all("hint"))}


def with_and_without_cookie():
    for name in ("charon-cookie", "devgateway-cookie"):
        first, second = Replay(load(name)).to_end().sent()[:2]
        size = int.from_bytes(second[30:32], "big")
        yield first, second, size


@item("MIN-21", "MIN-26")
def test_real_cookies_were_sent_back_first_and_signed():
    for first, second, size in with_and_without_cookie():
        assert second[16] == 41 and second[34:36] == b"\x40\x06"
        assert second[:16] == first[:16] and len(second) == len(first) + size


@item("MIN-21")
def test_the_rest_of_a_request_with_a_cookie_is_unchanged():
    for first, second, size in with_and_without_cookie():
        assert second[28 + size :] == first[28:]


def test_fragments_went_both_ways():
    replay = Replay(load("charon-fragments")).to_end()
    assert sum(datagram[20] == 53 for datagram in replay.sent()) == 2
    got = [replay.datagram(index) for index in replay.inputs]
    assert sum(datagram[:4] == b"\0\0\0\0" and datagram[20] == 53 for datagram in got) >= 3


def test_what_a_session_brought_beside_readings_was_counted():
    node = Replay(load("devgateway-requests")).to_end().node
    assert node.drops == {"DUMMY": 1, "INNER_PROTOCOL": 1}
    assert node.got[-1] == b"downlink"


def test_no_secret_of_a_session_is_in_its_events():
    node = Replay(load("charon-virtual")).to_end().node
    assert not node.all("keys")
    assert SECRETS["psk"][2:] not in str(node.events)
