"""Every request that a gateway can send, well formed or not, in every state.

Under the right ICV each gets the answer that the checklists ask for; all else is dropped and
counted, and nothing changes.
"""

from hashlib import sha256

import pytest

from tools.dev.peers.stage import (
    AUTHENTICATED,
    DELETE_IKE,
    IN_STATE,
    UNDER_KEYS,
    UNKNOWN,
    assert_dropped,
    drops,
    picture,
    spoilt,
    up,
)
from host_tests.checklist import item
from host_tests.ike.requests import (
    CHILD,
    CHILDREN,
    EMPTY,
    FRESH,
    INFORMATIONALS,
    MALFORMED,
    NO_MORE,
    PUBLIC,
    REKEYED_IKE,
    SYNTAX,
    critical,
)
from tools.dev.peers.responder import (
    CREATE_CHILD_SA,
    IKE_AUTH,
    IKE_SA_INIT,
    INFORMATIONAL,
    KE,
    NONCE,
    SA,
    SERVER,
    SK,
    SKF,
    TSI,
    TSR,
    D,
    I,
    N,
    R,
    V,
    message,
    notify,
    proposal,
    selector,
)


def answered(state, exchange, bends):
    """Bring a sensor into the state and ask; return it with its answer's payloads."""
    node, gateway = IN_STATE[state]()
    request = gateway.bend(exchange, **bends)
    before = len(node.events)
    (answer,) = node.receive(request)
    found, flags, mid, payloads = gateway.read(answer)
    assert (found, flags, mid) == (exchange, I | R, 0)
    assert node.ike.reply
    # The very same request again: the very same answer, and nothing else.
    if node.state != "DOWN":
        still = picture(node.ike)
        assert node.receive(request) == [answer]
        assert picture(node.ike) == still
    return node, [(kind, body) for kind, _, body in payloads], node.events[before:]


@item("MIN-10", "MIN-11", "MIN-33", "MIN-35")
@pytest.mark.parametrize("name", INFORMATIONALS)
@pytest.mark.parametrize("state", UNDER_KEYS)
def test_an_informational_request_gets_its_answer(state, name):
    bends, answer, *ends = INFORMATIONALS[name]
    node, payloads, events = answered(state, INFORMATIONAL, bends)
    assert payloads == answer
    # Before AUTH nobody has the right to end anything.
    if ends and state in AUTHENTICATED:
        assert events == [("deleted",), ("state", "DOWN")]
        assert node.ike.next_timer() is None
    else:
        assert node.state == state and not events


@item("MIN-34", "MIN-37")
@pytest.mark.parametrize("name", CHILDREN)
@pytest.mark.parametrize("state", UNDER_KEYS)
def test_every_create_child_sa_request_is_refused(state, name):
    node, payloads, events = answered(state, CREATE_CHILD_SA, CHILDREN[name])
    assert payloads == NO_MORE
    assert node.state == state
    # The owner of an SA that is up may hear of it, and replace the SA in time.
    assert events in ([], [("rekey",)] if state in AUTHENTICATED else [])


@item("MIN-11")
@pytest.mark.parametrize("state", UNDER_KEYS)
def test_a_critical_payload_has_create_child_sa_refused_for_its_sake(state):
    bends = {"payloads": [CHILD, (UNKNOWN, b"", True), (UNKNOWN + 1, b"", True)]}
    node, payloads, events = answered(state, CREATE_CHILD_SA, bends)
    assert payloads == critical(UNKNOWN)
    assert node.state == state and not events


@item("MIN-08", "MIN-36")
@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("exchange", [INFORMATIONAL, CREATE_CHILD_SA])
@pytest.mark.parametrize("state", UNDER_KEYS)
def test_a_malformed_request_gets_invalid_syntax_under_protection(state, exchange, name):
    node, payloads, events = answered(state, exchange, {"chain": MALFORMED[name]})
    assert payloads == SYNTAX
    assert node.state == state and not events
    assert drops(node) == 1


@item("MIN-05", "MIN-06", "MIN-09")
@pytest.mark.parametrize(
    "bends",
    [
        {"version": 0x21},
        {"version": 0x2F},
        {"flags": 0x10},
        {"flags": 0xC7},
        {"reserved": 0x7F},
        {"reserved": 0xFF},
        {"payloads": [(V, b"", True)]},
        {"outer": [(V, b"in the clear")]},
        {"outer": [notify(24), (UNKNOWN, b"")]},
        {"outer": [DELETE_IKE]},
    ],
    ids=repr,
)
@pytest.mark.parametrize("state", UNDER_KEYS)
def test_what_is_to_be_ignored_is_ignored(state, bends):
    node, payloads, events = answered(state, INFORMATIONAL, bends)
    assert payloads == EMPTY
    assert node.state == state and not events


# Headers and protection that are wrong: dropped in each state.

WRONG = {
    "another SPIi": {"spi_i": b"stranger"},
    "another SPIr": {"spi_r": b"stranger"},
    "no SPIr": {"spi_r": bytes(8)},
    "version 1": {"version": 0x10},
    "version 3": {"version": 0x30},
    "a Length too small": {"length": -1},
    "a Length too large": {"length": 1},
    "a response": {"flags": R},
    "our own flag": {"flags": I},
    "a Message ID from the future": {"mid": 1},
    "a Message ID from long ago": {"mid": 0xFFFFFFFF},
    "padding longer than the text": {"pad_length": 9},
    "padding of 255 octets that are not there": {"payloads": [DELETE_IKE], "pad_length": 255},
    "a nested SKF without negotiation": {"kind": SKF, "chain": (0, b"\0\1\0\1")},
}


@item("MIN-03", "MIN-16")
@pytest.mark.parametrize("name", WRONG)
def test_a_request_with_a_wrong_header_is_dropped(name):
    for state in IN_STATE:
        node, gateway = IN_STATE[state]()
        bends = {"mid": node.ike.peer_mid, "payloads": [DELETE_IKE], **WRONG[name]}
        if "chain" in bends:
            del bends["payloads"]
        assert_dropped(node, gateway.bend(INFORMATIONAL, **bends))


@item("MIN-36")
def test_a_request_without_its_icv_is_dropped_wherever_it_is_cut_or_bent():
    for state in IN_STATE:
        node, gateway = IN_STATE[state]()
        datagram = gateway.bend(mid=node.ike.peer_mid, payloads=[DELETE_IKE])
        assert_dropped(node, spoilt(datagram))
        for size in range(len(datagram)):
            assert_dropped(node, datagram[:size])
        for at in range(32, len(datagram)):  # the octets before are ignored ones, or have tests
            for bit in (1, 0x80):
                bent = bytearray(datagram)
                bent[at] ^= bit
                assert_dropped(node, bytes(bent))


@item("MIN-36")
def test_requests_in_the_clear_are_dropped_in_every_state():
    bodies = ([], [DELETE_IKE], [notify(24)], [notify(7)], [(UNKNOWN, b"", True)], [CHILD, FRESH])
    for state in IN_STATE:
        for exchange in (IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL):
            for flags in (0, R):
                for payloads in bodies:
                    node, gateway = IN_STATE[state]()
                    mid = node.ike.mid if flags else node.ike.peer_mid
                    octets = message(gateway.spi_i, node.ike.spi_r, exchange, flags, mid, payloads)
                    assert_dropped(node, gateway._marked(octets))


@item("MIN-37")
def test_nobody_makes_the_sensor_a_responder():
    for state in IN_STATE:
        for spi_i in (b"stranger", None):
            node, gateway = IN_STATE[state]()
            payloads = [REKEYED_IKE, PUBLIC, FRESH]
            octets = message(spi_i or node.ike.spi_i, bytes(8), IKE_SA_INIT, I, 0, payloads)
            for datagram in (octets, octets[:19] + b"\0" + octets[20:]):
                assert_dropped(node, datagram)
                assert_dropped(node, bytes(4) + datagram)


@pytest.mark.parametrize("state", UNDER_KEYS)
def test_requests_follow_one_another_by_their_message_ids(state):
    node, gateway = IN_STATE[state]()
    answers = set()
    for _ in range(20):
        (answer,) = node.receive(gateway.request(INFORMATIONAL, []))
        answers.add(answer)
    assert len(answers) == 20 and not drops(node)
    assert node.state == state


@item("MIN-14", "MIN-15")
def test_an_old_request_is_not_answered_and_its_answer_is_not_sent_by_a_timer():
    node, gateway = up()
    requests = [gateway.request(INFORMATIONAL, []) for _ in range(3)]
    answers = [node.receive(request)[0] for request in requests]
    assert node.ike.next_timer() is None
    assert node.timer(1 << 30) == []
    assert node.receive(requests[2]) == [answers[2]]
    for request in requests[:2]:
        assert assert_dropped(node, request) == "OLD_MESSAGE_ID"
    # Another request under a Message ID that was answered is not the same request.
    other = gateway.request(INFORMATIONAL, [DELETE_IKE], mid=2)
    assert assert_dropped(node, other) == "OLD_MESSAGE_ID"


def test_a_flood_of_anything_at_all_changes_nothing():
    """Octets without meaning, behind headers that have one."""
    for state in IN_STATE:
        node, gateway = IN_STATE[state]()
        head = gateway.bend(mid=node.ike.peer_mid)[:32]
        before, count = picture(node), 0
        for n in range(400):
            noise = sha256(b"%d" % n).digest() * (1 + n % 90)
            for datagram in (noise, head[: n % 33] + noise, bytes(4) + noise):
                assert node.receive(datagram) == []
                count += 1
        assert picture(node) == before
        assert drops(node) == count


def test_readings_pass_before_and_after_every_bad_request():
    node, gateway = up()
    inside = esp_echo(node, gateway, b"before")
    for exchange in (INFORMATIONAL, CREATE_CHILD_SA):
        for chain in MALFORMED.values():
            node.receive(gateway.bend(exchange, chain=chain))
    for bends in WRONG.values():
        node.receive(gateway.bend(INFORMATIONAL, **{"mid": gateway.mid, **bends}))
    assert inside == b"before" and esp_echo(node, gateway, b"after") == b"after"
    assert node.got == [b"before", b"after"]


def esp_echo(node, gateway, payload):
    """Send a reading, have the gateway send it back; return what it held."""
    spi, _, packet = gateway.read_esp(node.send(payload))
    assert spi == gateway.spi_esp
    back = bytearray(packet)
    back[12:16], back[16:20] = packet[16:20], packet[12:16]
    assert bytes(back[12:16]) == SERVER
    node.receive(gateway.esp(bytes(back)))
    return packet[28:]
