"""An SA that is up, on both interpreters: requests of the gateway, once each; requests of ours.

test_requests.py sends the same requests, and worse ones, in every state.
"""

from host_tests.checklist import item
from host_tests.ike.requests import (
    CHILDREN, INFORMATIONALS, MALFORMED, NO_MORE, SYNTAX, critical,
)  # fmt: skip
from tools.dev.peers.messages import DELETE_IKE, UNKNOWN
from tools.dev.peers.pair import authenticating, changed, dropped, established
from tools.dev.peers.responder import (
    CREATE_CHILD_SA, IKE_AUTH, IKE_SA_INIT, INFORMATIONAL, KE, MARKER, NONCE, SA, SK, TSI, TSR, D,
    I, N, R, V, message, notify, payload_chain,
)  # fmt: skip
from minipsec.ike import established as calls


def answer_to(node, gateway, request, exchange=INFORMATIONAL, mid=0):
    """The payloads with which the sensor answers."""
    (answer,) = node.receive(request)
    assert node.ike.reply
    got = gateway.read(answer)
    assert got[:3] == (exchange, I | R, mid)
    return got[3]


def delete_child(*spis):
    return D, b"\3\4" + len(spis).to_bytes(2, "big") + b"".join(spis)


# Answers


@item("MIN-07", "MIN-33")
def test_a_liveness_check_is_answered_with_nothing():
    node, gateway = established()
    for mid in range(5):
        assert answer_to(node, gateway, gateway.request(INFORMATIONAL, []), mid=mid) == []
    assert node.state == "UP"


def bent(exchange, bends):
    """(sensor, gateway, the payloads with which an SA that is up answers such a request)."""
    node, gateway = established()
    first, plain = bends.get("chain") or payload_chain(bends.get("payloads", ()))
    got = answer_to(node, gateway, gateway.seal(exchange, 0, 0, first, plain), exchange)
    gateway.mid = 1
    return node, gateway, [(kind, body) for kind, _, body in got]


@item("MIN-09", "MIN-10", "MIN-11", "MIN-33", "MIN-35")
def test_each_informational_request_has_its_answer():
    for name, (bends, answer, *ends) in INFORMATIONALS.items():
        node, gateway, payloads = bent(INFORMATIONAL, bends)
        assert payloads == answer, name
        assert node.state == ("DOWN" if ends else "UP"), name
        assert node.ike.drops == ({"CRITICAL_PAYLOAD": 1} if answer else {}), name


@item("MIN-34", "MIN-37")
def test_each_new_sa_and_rekey_is_refused():
    for name, bends in CHILDREN.items():
        node, _, payloads = bent(CREATE_CHILD_SA, bends)
        assert payloads == NO_MORE and node.state == "UP", name


@item("MIN-11")
def test_an_unknown_critical_payload_is_named_and_nothing_else_is_done():
    for exchange in (INFORMATIONAL, CREATE_CHILD_SA):
        payloads = [DELETE_IKE, (UNKNOWN, b"what", True), notify(40000)]
        node, _, answer = bent(exchange, {"payloads": payloads})
        assert answer == critical(UNKNOWN) and node.state == "UP"
        assert node.ike.drops == {"CRITICAL_PAYLOAD": 1}


@item("MIN-08", "MIN-36")
def test_a_malformed_chain_under_a_right_icv_gets_invalid_syntax_and_the_next_request_its_answer():
    for name, chain in MALFORMED.items():
        node, gateway, payloads = bent(INFORMATIONAL, {"chain": chain})
        assert payloads == SYNTAX, name
        assert node.state == "UP" and sum(node.ike.drops.values()) == 1, name
        assert answer_to(node, gateway, gateway.request(INFORMATIONAL, []), mid=1) == []


@item("MIN-41")
def test_padding_of_any_size_that_fits_is_taken():
    node, gateway = established()
    for mid, pad in enumerate((0, 1, 16, 255)):
        request = gateway.request(INFORMATIONAL, [], pad=pad)
        assert answer_to(node, gateway, request, mid=mid) == []
    # A Pad Length beyond what is there: nothing in it can be right.
    gateway._iv += 1
    text = b"\0\0\xff"
    request = bytearray(gateway.seal(INFORMATIONAL, 0, 4, 0, text[:-1]))
    assert node.receive(bytes(request)) != []


# Once each


@item("MIN-14")
def test_the_same_request_again_gets_the_same_octets_and_is_not_acted_on_again():
    node, gateway = established()
    request = gateway.request(INFORMATIONAL, [])
    (first,) = node.receive(request)
    for _ in range(5):
        assert node.receive(request) == [first] and node.ike.reply
    request = gateway.request(CREATE_CHILD_SA, [])
    (second,) = node.receive(request)
    assert node.receive(request) == [second] and second != first
    assert node.ike.drops == {}


@item("MIN-14")
def test_an_answer_is_never_resent_by_itself():
    node, gateway = established()
    node.receive(gateway.request(INFORMATIONAL, []))
    assert node.ike.next_timer() is None
    assert node.timer(1_000_000) == []


def test_an_older_request_or_one_encrypted_anew_is_dropped():
    node, gateway = established()
    first = gateway.request(INFORMATIONAL, [])
    node.receive(first)
    dropped(node, gateway.request(INFORMATIONAL, [], mid=0), "OLD_MESSAGE_ID")
    node.receive(gateway.request(INFORMATIONAL, []))
    dropped(node, first, "OLD_MESSAGE_ID")


def test_a_request_ahead_of_its_turn_is_dropped():
    node, gateway = established()
    for mid in (1, 2, 0xFFFFFFFF):
        dropped(node, gateway.request(INFORMATIONAL, [DELETE_IKE], mid=mid), "OLD_MESSAGE_ID")
    assert answer_to(node, gateway, gateway.request(INFORMATIONAL, [])) == []


def test_every_ciphertext_of_ours_has_an_iv_of_its_own():
    node, gateway = established()
    seen = {gateway.last_iv}
    for mid in range(10):
        answer_to(node, gateway, gateway.request(INFORMATIONAL, []), mid=mid)
        seen.add(gateway.last_iv)
        (request,) = node.call(calls.check)
        gateway.read(request)
        seen.add(gateway.last_iv)
        node.receive(gateway.send(INFORMATIONAL, R, 2 + mid, []))
    assert len(seen) == 21


# DELETE


@item("MIN-33", "MIN-35")
def test_a_delete_of_the_ike_sa_is_answered_and_ends_it():
    node, gateway = established()
    request = gateway.request(INFORMATIONAL, [DELETE_IKE])
    assert answer_to(node, gateway, request) == []
    assert node.state == "DOWN" and node.all("deleted") == [("deleted",)]
    assert node.ike.next_timer() is None
    dropped(node, request, "UNEXPECTED")


@item("MIN-35")
def test_a_delete_of_our_child_ends_the_sa():
    node, gateway = established()
    request = gateway.request(INFORMATIONAL, [delete_child(b"\0\0\1\0", gateway.spi_esp)])
    answer_to(node, gateway, request)
    assert node.state == "DOWN" and node.all("deleted") == [("deleted",)]


@item("MIN-35")
def test_a_delete_of_another_child_ends_nothing():
    node, gateway = established()
    # The SPIs in a Delete are the sender's inbound ones, so ours does not name our Child SA.
    for mid, payload in enumerate(
        (delete_child(b"\1\2\3\4"), delete_child(gateway.spi_sensor), delete_child())
    ):
        answer_to(node, gateway, gateway.request(INFORMATIONAL, [payload]), mid=mid)
        assert node.state == "UP"


@item("MIN-36")
def test_a_delete_that_is_not_authentic_ends_nothing():
    node, gateway = established()
    genuine = gateway.request(INFORMATIONAL, [DELETE_IKE])
    clear = MARKER + message(gateway.spi_i, gateway.spi_r, INFORMATIONAL, 0, 0, [DELETE_IKE])
    dropped(node, clear, "NOT_PROTECTED")
    for at in range(32, len(genuine)):
        wrong = changed(genuine, at, genuine[at] ^ 0x10)
        count = sum(node.ike.drops.values())
        assert node.receive(wrong) == [] and node.state == "UP"
        assert sum(node.ike.drops.values()) == count + 1
    node.receive(genuine)
    assert node.state == "DOWN"


# Before AUTH


@item("MIN-27", "MIN-33")
def test_before_auth_a_request_is_answered_and_not_believed():
    node, gateway, request = authenticating()
    out = node.receive(gateway.request(INFORMATIONAL, [DELETE_IKE]))
    exchange, flags, mid, payloads = gateway.read(out[0])
    assert (exchange, flags, mid, payloads) == (INFORMATIONAL, I | R, 0, [])
    assert node.state == "IKE_AUTH"
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"


@item("MIN-34")
def test_before_auth_a_new_sa_is_refused():
    node, gateway, request = authenticating()
    ((kind, _, body),) = answer_to(
        node, gateway, gateway.request(CREATE_CHILD_SA, []), CREATE_CHILD_SA
    )
    assert (kind, body[2:]) == (N, b"\0\x23") and node.state == "IKE_AUTH"


def test_message_ids_go_on_counting_over_auth():
    node, gateway, request = authenticating()
    node.receive(gateway.request(INFORMATIONAL, []))
    node.receive(gateway.auth(request))
    assert answer_to(node, gateway, gateway.request(INFORMATIONAL, []), mid=1) == []


@item("MIN-37")
def test_no_other_exchange_is_served():
    node, gateway = established()
    for exchange in (0, 33, IKE_SA_INIT, IKE_AUTH, 38, 43, 240, 255):
        dropped(node, gateway.request(exchange, [], mid=0), "UNEXPECTED")
    node, gateway, request = authenticating()
    for exchange in (IKE_SA_INIT, IKE_AUTH, 43):
        dropped(node, gateway.request(exchange, [], mid=0), "UNEXPECTED")


@item("MIN-07")
def test_our_own_messages_reflected_are_dropped():
    node, gateway = established()
    (check,) = node.call(calls.check)
    for datagram in node.out:
        dropped(node, datagram, "REFLECTED")
    dropped(node, changed(check, 23, R), "BAD_ICV")
    dropped(node, changed(check, 23, 0), "OLD_MESSAGE_ID")
    for _ in range(2):
        node.receive(gateway.request(INFORMATIONAL, []))
    dropped(node, changed(check, 23, 0), "BAD_ICV")


# Our own requests


@item("MIN-16")
def test_a_liveness_check_of_ours_is_answered_by_nothing_else():
    node, gateway = established()
    (check,) = node.call(calls.check)
    assert gateway.read(check) == (INFORMATIONAL, I, 2, [])
    assert node.call(calls.check) == [], "one request at a time"
    dropped(node, gateway.send(INFORMATIONAL, R, 1, []), "OLD_MESSAGE_ID")
    dropped(node, gateway.send(INFORMATIONAL, R, 3, []), "OLD_MESSAGE_ID")
    dropped(node, gateway.send(CREATE_CHILD_SA, R, 2, []), "UNEXPECTED")
    answer = gateway.send(INFORMATIONAL, R, 2, [])
    assert node.receive(answer) == [] and len(node.all("answered")) == 1
    dropped(node, answer, "OLD_MESSAGE_ID")
    assert node.ike.next_timer() is None


@item("MIN-01", "MIN-40")
def test_our_delete_is_the_smallest_there_is_and_its_answer_ends_the_sa():
    node, gateway = established()
    (delete,) = node.call(calls.delete)
    exchange, flags, mid, payloads = gateway.read(delete)
    assert (exchange, flags, mid) == (INFORMATIONAL, I, 2)
    assert [(kind, body) for kind, _, body in payloads] == [DELETE_IKE]
    assert node.state == "DELETING"
    node.receive(gateway.send(INFORMATIONAL, R, 2, []))
    assert node.state == "DOWN" and not node.all("failed") and node.ike.next_timer() is None


def test_while_we_delete_the_gateway_is_still_answered():
    node, gateway = established()
    node.call(calls.delete)
    assert answer_to(node, gateway, gateway.request(INFORMATIONAL, [])) == []
    ((kind, _, body),) = answer_to(
        node, gateway, gateway.request(CREATE_CHILD_SA, []), CREATE_CHILD_SA, 1
    )
    assert body[2:] == b"\0\x23"
    assert answer_to(node, gateway, gateway.request(INFORMATIONAL, [DELETE_IKE]), mid=2) == []
    assert node.state == "DOWN"


def test_nothing_can_be_asked_of_an_sa_that_is_not_up():
    node, gateway, request = authenticating()
    assert node.call(calls.check) == [] and node.call(calls.delete) == []
    node, gateway = established()
    node.call(calls.delete)
    assert node.call(calls.check) == [] and node.call(calls.delete) == []
    node.receive(gateway.send(INFORMATIONAL, R, 2, []))
    assert node.call(calls.check) == [] and node.call(calls.delete) == []
