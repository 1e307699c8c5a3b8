"""The state table is the documentation, so it must be the truth: every pair of state and event.

An event is an exchange type, request or response, and how it is protected. A pair in the table may
end in the states that stand there and no other; what is not in the table is counted and dropped.
"""

import struct

import pytest

from tools.dev.peers.stage import (
    DELETE_IKE,
    AUTHENTICATED,
    IN_STATE,
    PPK_ID,
    PPK_IN_AUTH,
    PPK_IN_INTERMEDIATE,
    UNDER_KEYS,
    WITH_PPK,
    assert_dropped,
    behind,
    checking,
    drops,
    picture,
    replaced,
    spoilt,
    without,
)
from host_tests.checklist import item
from tools.dev.peers.node import X25519
from tools.dev.peers.responder import (
    AUTH,
    COOKIE,
    CREATE_CHILD_SA,
    FRAGMENTATION,
    IKE_AUTH,
    IKE_SA_INIT,
    INFORMATIONAL,
    KE,
    NONCE,
    SA,
    D,
    R,
    message,
    notify,
    proposal,
)
from minipsec.handshake import intermediate
from minipsec.handshake.sa_init import Handshake
from minipsec.ike import established
from minipsec.kex import methods
from minipsec.ike.sa import STATES
from tools.dev.docs import table

SKF = 53
IKE_INTERMEDIATE, PPK_IDENTITY = 43, 16436
ADDKE, ML_KEM, AGREED = 6, 36, [(1, 16, 128), (2, 5, 0), (4, X25519, 0)]
TABLE = table()
# 43 and 44 are IKE_INTERMEDIATE and IKE_FOLLOWUP_KE, 38 was never assigned, 240 is private use.
EXCHANGES = (IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL, 43, 44, 38, 0, 240, 255)
PROTECTIONS = ("protected", "in the clear", "wrong ICV", "a fragment")


def row_of(state, exchange, response):
    return TABLE.get((STATES.index(state), exchange, response))


def ends_of(row):
    return {STATES[end] for end in row[1]}


def mid_of(node, exchange, response):
    if exchange == IKE_SA_INIT:
        return 0
    return node.ike.mid if response else node.ike.peer_mid


def event(node, gateway, exchange, response, protection):
    """A datagram for this state, as right as its protection allows."""
    flags, mid = (R if response else 0), mid_of(node, exchange, response)
    if protection == "in the clear":
        body = message(gateway.spi_i, gateway.spi_r, exchange, flags, mid, [notify(16384)])
        return gateway._marked(body)
    if protection == "a fragment":
        return gateway.bend(exchange, flags, mid, kind=SKF, place=b"\0\1\0\1")
    datagram = gateway.bend(exchange, flags, mid)
    return spoilt(datagram) if protection == "wrong ICV" else datagram


def pairs():
    for state in (*IN_STATE, "checking"):
        for exchange in EXCHANGES:
            for response in (False, True):
                yield state, exchange, response


def expected(node, exchange, response, protection):
    """Is this event one that the sensor reads?"""
    row = row_of(node.state, exchange, response)
    if row is None or protection not in ("protected", "in the clear"):
        return None
    if (exchange == IKE_SA_INIT) != (protection == "in the clear"):
        return None
    if response and (node.ike.request is None or node.ike.request.exchange != exchange):
        return None
    return row


@item("MIN-16", "MIN-36")
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_every_pair_of_state_and_event_is_in_the_table_or_changes_nothing(protection):
    for state, exchange, response in pairs():
        node, gateway = (checking if state == "checking" else IN_STATE[state])()
        datagram = event(node, gateway, exchange, response, protection)
        row = expected(node, exchange, response, protection)
        if row is None:
            assert_dropped(node, datagram)
        else:
            node.receive(datagram)
            assert node.state in ends_of(row), (state, exchange, response)


def test_a_protected_message_with_another_message_id_changes_nothing():
    for state, exchange, response in pairs():
        for step in (-1, 1, 2, 1 << 31):
            node, gateway = (checking if state == "checking" else IN_STATE[state])()
            mid = (mid_of(node, exchange, response) + step) & 0xFFFFFFFF
            assert_dropped(node, gateway.bend(exchange, R if response else 0, mid))


def test_a_message_that_the_sensor_could_have_sent_itself_changes_nothing():
    """Whatever has the I flag comes from the original initiator: that is us."""
    for state, exchange, response in pairs():
        node, gateway = (checking if state == "checking" else IN_STATE[state])()
        flags = 0x08 | (R if response else 0)
        datagram = gateway.bend(exchange, flags, mid_of(node, exchange, response))
        assert assert_dropped(node, datagram) == "REFLECTED"


# Each pair of the table with contents of all kinds, well formed and not.

DELETE_CHILD = (D, struct.pack(">BBH", 3, 4, 1) + b"\xc0\xff\xee\x01")
REQUESTS = (
    {"payloads": []},
    {"payloads": [DELETE_IKE]},
    {"payloads": [DELETE_CHILD]},
    {"payloads": [notify(16396)]},
    {"payloads": [notify(24)]},
    {"payloads": [(SA, b"")]},
    {"payloads": [(200, b"", True), DELETE_IKE]},
    {"chain": (41, b"\0\0\0\3")},
    {"chain": (41, b"")},
)


def edits():
    """Answers to IKE_SA_INIT and to IKE_AUTH: edits that lead to every end there is."""
    yield None
    for kind in (SA, NONCE, AUTH):
        yield without(kind)
        yield replaced(kind, lambda body: body[:-1])
    yield behind(notify(14))
    yield lambda payloads: [notify(24)]
    yield lambda payloads: []


def too_large(gateway, exchange, mid):
    """A response in fragments, beyond what a sensor takes."""
    return [
        gateway.bend(exchange, R, mid, chain=(0, bytes(2900)), kind=SKF, place=bytes((0, n, 0, 9)))
        for n in range(1, 4)
    ]


def contents(node, gateway, exchange, response):
    """Yield what a gateway may say at that point, each a list of datagrams."""
    if not response:
        for bends in REQUESTS:
            yield [gateway.bend(exchange, 0, node.ike.peer_mid, **bends)]
    elif exchange == IKE_SA_INIT:
        yield [gateway.refuse_init(node.out[0], notify(COOKIE, b"again"))]
        for more in ((), PPK_IN_AUTH, PPK_IN_INTERMEDIATE):
            yield [gateway.init(node.out[0], behind(*more))]
        for edit in edits():
            yield [gateway.init(node.out[0], edit)]
    elif exchange == IKE_AUTH:
        for edit in edits():
            yield [gateway.auth(node.out[1], edit)]
    elif exchange == IKE_INTERMEDIATE:
        public = (KE, struct.pack(">HH", ML_KEM, 0) + gateway._pair.public)
        for payloads in ([notify(PPK_IDENTITY, PPK_ID)], [public], [notify(14)], [notify(16390)]):
            yield [gateway.bend(exchange, R, node.ike.mid, payloads)]
    else:
        for bends in REQUESTS:
            yield [gateway.bend(exchange, R, node.ike.mid, **bends)]
        yield too_large(gateway, exchange, node.ike.mid)


def fresh(state, exchange, response):
    """Sensors in that state, of different profiles, each with its gateway."""
    if state == "IKE_SA_INIT":
        yield IN_STATE[state](**WITH_PPK)
    elif exchange == IKE_INTERMEDIATE:
        yield IN_STATE[state]()
        # With two key exchanges, by X25519, whose part ML-KEM would take.
        more = [(ADDKE, ML_KEM, 0), (ADDKE + 1, ML_KEM - 1, 0)]
        chosen = replaced(SA, lambda _: proposal(1, 1, b"", [*AGREED, *more]))
        agree = behind(*PPK_IN_INTERMEDIATE)
        yield IN_STATE[state](edit=lambda payloads: agree(chosen(payloads)), more=more)
    elif state == "UP" and response:
        yield checking(edit=behind(notify(FRAGMENTATION)))
    else:
        yield IN_STATE[state]()


@pytest.mark.parametrize("key", list(TABLE), ids=lambda key: f"{STATES[key[0]]}-{key[1]}-{key[2]}")
def test_a_pair_of_the_table_ends_in_each_state_that_it_names_and_in_no_other(key, monkeypatch):
    state, exchange, response = STATES[key[0]], key[1], key[2]
    assert state in IN_STATE, f"tools/dev/peers/stage.py cannot bring a sensor to {state}"
    monkeypatch.setattr(intermediate, "method", lambda ident: methods.METHODS[X25519])
    reached = set()
    for profile in range(len(list(fresh(state, exchange, response)))):
        n = 0
        while True:
            node, gateway = list(fresh(state, exchange, response))[profile]
            said = list(contents(node, gateway, exchange, response))
            if n == len(said):
                break
            before, counted = picture(node), drops(node)
            for datagram in said[n]:
                node.receive(datagram)
            if picture(node) == before:
                assert drops(node) > counted, n
            else:
                assert node.state in ends_of(TABLE[key]), n
                reached.add(node.state)
            n += 1
    assert reached == ends_of(TABLE[key])


def test_every_handler_of_the_table_is_there_in_the_handshake_or_after_it():
    for (state, _, _), (name, _) in TABLE.items():
        where = established if STATES[state] in AUTHENTICATED else Handshake
        assert callable(getattr(where, name)), (STATES[state], name)


def test_every_end_in_the_table_is_a_state_with_a_name():
    assert all(0 <= end < len(STATES) for _, ends in TABLE.values() for end in ends)


# The events that are no message: ours, and the passing of time.


def give_up(node):
    now = 0
    while node.ike.next_timer() is not None and node.state != "DOWN":
        now = node.ike.next_timer()
        node.timer(now)
    return now


@item("MIN-12")
@pytest.mark.parametrize("state", ["IKE_SA_INIT", *UNDER_KEYS])
def test_silence_ends_each_exchange_in_down(state):
    node, _ = checking() if state == "UP" else IN_STATE[state]()
    assert give_up(node) == 31000
    assert node.state == "DOWN"
    assert node.all("failed")[0][1] == "timeout"
    assert node.ike.next_timer() is None


@pytest.mark.parametrize("state", ["IDLE", "UP", "DOWN"])
def test_a_sensor_that_waits_for_nothing_has_no_timer(state):
    node, _ = IN_STATE[state]()
    assert node.ike.next_timer() is None
    before = picture(node)
    assert node.timer(1 << 40) == []
    assert picture(node) == before


@pytest.mark.parametrize("state", [state for state in IN_STATE if state != "UP"])
def test_a_check_or_a_delete_starts_only_while_the_tunnel_is_up(state):
    node, _ = IN_STATE[state]()
    before = picture(node)
    assert node.call(established.check) == []
    assert node.call(established.delete) == []
    assert picture(node) == before


def test_one_request_at_a_time():
    node, _ = checking()
    before = picture(node)
    assert node.call(established.delete) == []
    assert node.call(established.check) == []
    assert picture(node) == before


def test_no_state_but_those_with_keys_reads_protected_messages():
    reading = {STATES[state] for state, exchange, _ in TABLE if exchange != IKE_SA_INIT}
    assert reading == set(UNDER_KEYS)
