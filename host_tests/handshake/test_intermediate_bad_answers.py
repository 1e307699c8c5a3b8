"""What a gateway may say wrong in IKE_INTERMEDIATE, and what becomes of the sensor's secrets.

A message whose ICV is wrong, or that has no place, is dropped and counted, and changes nothing.
One with the right ICV comes from the one peer that has these keys, and it has but one answer to
give: what is wrong in it ends the attempt at once, as a typed error. Malformed payloads are
dropped like those of every other response.
"""

import random
import struct

import pytest

from tools.dev.peers.stage import IN_STATE, assert_dropped, behind, spoilt
from host_tests.checklist import item
from tools.dev.peers.responder import (
    IKE_AUTH,
    INFORMATIONAL,
    KE,
    NONCE,
    D,
    R,
    notify,
    payload_chain,
)
from tools.dev.peers import kem
from tools.dev.peers.hybrid import (
    IKE_INTERMEDIATE,
    WITH_PPK,
    Hybrid,
    exchanging,
    failure,
    finish,
    give,
    run,
    sensor,
)
from minipsec import refusals, explain


def assert_freed(node):
    """No key of the attempt is left, private keys are overwritten."""
    ike = node.ike
    assert node.state == "DOWN" and ike.next_timer() is None
    assert ike.tx is ike.handshake is ike.request is ike.answered is None
    assert ike.incoming == {}
    assert all(pair.wiped for pair in kem.made)


def told(gateway, sent, mid=2):
    """The one INFORMATIONAL in which the sensor says that it is over."""
    (datagram,) = sent
    exchange, flags, number, payloads = gateway.read(datagram)
    assert (exchange, flags, number) == (INFORMATIONAL, 0x08, mid)
    return [(kind, bytes(body)) for kind, _, body in payloads] == [notify(24)]


def answered(payloads=None, gateway=None, edit=None, **changes):
    """A sensor that got this answer, its gateway, and what it then sent, under the old keys."""
    node, gateway, sent = exchanging(gateway, **changes)
    made = gateway.good_answer(gateway.read_intermediate(sent))
    gateway.new_keys = None
    if payloads is None:
        payloads = edit(made)
    return node, gateway, give(node, gateway.answer(payloads))


def ke(method, size, octet=0):
    return KE, struct.pack(">HH", method, 0) + bytes([octet]) * size


# Key exchange payloads.

WRONG = {
    "empty": (KE, b""),
    "one octet": (KE, b"\0"),
    "no method's number": (KE, b"\0\x24\0"),
    "no ciphertext": ke(36, 0),
    "one octet short": ke(36, 1087),
    "one octet long": ke(36, 1089),
    "the size of 512": ke(36, 768),
    "the size of 1024": ke(36, 1568),
    "an encapsulation key": ke(36, 1184),
    "512": ke(35, 768),
    "1024": ke(37, 1568),
    "X25519": ke(31, 32, 9),
    "of no method": ke(0, 1088),
    "of another, with the right size": ke(37, 1088),
}


@item("INT-12", "INT-14", "INT-22")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_key_exchange_payload_ends_the_attempt_at_once(name):
    node, gateway, sent = answered([WRONG[name]])
    kind, who, why = failure(node)
    assert (kind, who) == ("failed", "peer") and why.startswith("KEr")
    assert type(explain.failure((kind, who, why))) is refusals.PeerMisbehaved
    assert told(gateway, sent)
    assert_freed(node)


@item("INT-12", "INT-22")
@pytest.mark.parametrize("payloads", [[], [notify(16384)], [(NONCE, bytes(32))]])
def test_an_answer_without_the_key_exchange_ends_the_attempt_at_once(payloads):
    node, gateway, sent = answered(payloads)
    assert failure(node)[1] == "peer" and told(gateway, sent)
    assert_freed(node)


@item("INT-12")
def test_a_key_exchange_that_was_not_agreed_upon_ends_the_attempt_at_once():
    node, gateway, sent = answered([ke(36, 1088)], Hybrid((), ppk="int"))
    assert failure(node)[1:] == ("peer", "KEr without a key exchange") and told(gateway, sent)
    assert_freed(node)


@item("INT-14")
@pytest.mark.parametrize("octet", [0x00, 0xFF])
def test_a_ciphertext_of_any_octets_is_decapsulated_and_fails_at_auth(octet):
    """FIPS 203 has no ciphertext out of range: what nobody made gives a secret nobody else has."""
    node, gateway, sent = exchanging()
    gateway.good_answer(gateway.read_intermediate(sent))
    sent = give(node, gateway.answer([ke(36, 1088, octet)]))
    assert node.state == "IKE_AUTH" and kem.made[0].wiped
    with pytest.raises(AssertionError, match="ICV"):
        gateway.auth(*sent)


@item("INT-12")
def test_a_low_order_x25519_point_is_refused_as_an_additional_exchange_too():
    suite = "aes128ccm16-prfsha256-mlkem512-ke1_x25519"
    gateway = Hybrid((31,))
    gateway._pair = Kem(35)
    node = sensor(ike=[suite], fragment_size=1280)
    sent = node.receive(gateway.init(node.start()[0], to_kem))
    gateway.read_intermediate(sent)
    (farewell,) = give(node, gateway.answer([ke(31, 32)]))
    assert failure(node)[1] == "peer" and told(gateway, [farewell])
    assert_freed(node)


class Kem:
    """The gateway's half of ML-KEM in IKE_SA_INIT, in the place of its X25519."""

    def __init__(self, method):
        self.method = method
        self.public = b""

    def shared(self, peer):
        self.public, shared = kem.encapsulate(self.method, peer)
        return shared


def to_kem(payloads):
    """The answer's KE and proposal, when ML-KEM-512 stands in IKE_SA_INIT."""
    from tools.dev.peers.responder import SA, proposal

    transforms = [(1, 16, 128), (2, 5, 0), (4, 35, 0), (6, 31, 0)]
    (public,) = [body[4:] for kind, body in payloads if kind == KE]
    made = {SA: proposal(1, 1, b"", transforms), KE: struct.pack(">HH", 35, 0) + public}
    return [(kind, made.get(kind, body)) for kind, body in payloads]


@item("INT-14", "INT-15", "INT-22")
@pytest.mark.parametrize("size", [0, 767, 769, 800, 1088])
def test_a_wrong_ciphertext_in_ike_sa_init_is_dropped_as_nobody_authenticated_it(size):
    """The key pair stays for the right answer, which then takes it."""
    node = sensor(ike=["aes128ccm16-prfsha256-mlkem512-ke1_x25519"], fragment_size=1280)
    request = node.start()[0]
    gateway = Hybrid((31,))
    gateway._pair = Kem(35)
    right = gateway.init(request, to_kem)
    other = Hybrid((31,))
    other._pair = Kem(35)
    wrong = other.init(
        request, lambda payloads: [p if p[0] != KE else ke(35, size) for p in to_kem(payloads)]
    )
    assert node.receive(wrong) == [] and node.ike.drops == {"BAD_KE": 1}
    assert node.state == "IKE_SA_INIT" and not kem.made[0].wiped
    assert node.receive(right) and node.state == "IKE_INTERMEDIATE"
    assert kem.made[0].wiped


# Notifies and other payloads.


@item("INT-10", "INT-22", "F6")
@pytest.mark.parametrize("kind", [1, 7, 14, 17, 24, 43, 9999, 16383])
@pytest.mark.parametrize("beside", [False, True])
def test_an_error_notify_ends_this_attempt_as_its_error(kind, beside):
    node, gateway, sent = answered(
        edit=lambda payloads: [*payloads, notify(kind)] if beside else [notify(kind)]
    )
    assert failure(node)[:3] == ("failed", "notify", kind) and sent == []
    error = explain.failure(failure(node))
    assert isinstance(error, refusals.PeerError)
    # A gateway that agrees on ML-KEM without having it is told from one that cannot just now.
    assert (type(error) is refusals.PostQuantumRefused) == (kind in (7, 14, 17))
    assert_freed(node)


@item("INT-10")
def test_an_error_after_the_first_exchange_of_two_ends_it_too():
    node, gateway, sent = exchanging(Hybrid((36, 35)))
    sent = give(node, gateway.intermediate(sent))
    assert kem.made[0].wiped and not kem.made[1].wiped
    gateway.read_intermediate(sent)
    assert give(node, gateway.answer([notify(14)])) == []
    assert failure(node) == ("failed", "notify", 14, 35)
    assert_freed(node)


def test_status_notifies_vendor_ids_and_unknown_payloads_are_skipped():
    def edit(payloads):
        return [notify(16384), notify(40000, b"x"), *payloads, (43, b"vendor"), (200, b"?")]

    node, gateway, sent = exchanging()
    finish(node, gateway, give(node, gateway.intermediate(sent, edit)))


MALFORMED = {
    "the payload twice": lambda payloads: payload_chain(payloads * 2),
    "an unknown critical payload": lambda payloads: payload_chain([*payloads, (200, b"", True)]),
    "a length beyond the end": lambda payloads: (KE, b"\0\0\xff\xff" + bytes(40)),
    "a length below 4": lambda payloads: (KE, b"\0\0\0\3" + bytes(40)),
    "octets behind the last payload": lambda payloads: (KE, payload_chain(payloads)[1] + b"\0"),
    "a chain that names one more": lambda payloads: (KE, b"\x29" + payload_chain(payloads)[1][1:]),
    "SK inside SK": lambda payloads: (46, payload_chain(payloads)[1]),
    "a notify of three octets": lambda payloads: payload_chain([*payloads, (41, b"\0\0\0")]),
    "nothing, where a payload is named": lambda payloads: (KE, b""),
}


@item("INT-10")
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_answer_is_dropped_and_the_attempt_times_out(name):
    node, gateway, sent = exchanging()
    payloads = gateway.good_answer(gateway.read_intermediate(sent))
    gateway.new_keys = None
    (bad,) = gateway.answer([], chain=MALFORMED[name](payloads))
    due = node.ike.next_timer()
    assert node.receive(bad) == [] and sum(node.ike.drops.values()) == 1
    assert node.state == "IKE_INTERMEDIATE" and node.ike.next_timer() == due
    while node.state != "DOWN":
        node.timer(node.ike.next_timer())
    assert failure(node) == ("failed", "timeout", IKE_INTERMEDIATE)
    assert_freed(node)


# In its place, or not.


@item("INT-02", "INT-10")
@pytest.mark.parametrize(
    ("exchange", "flags", "mid"),
    [
        (IKE_INTERMEDIATE, R, 0),
        (IKE_INTERMEDIATE, R, 2),  # of the exchange after this one
        (IKE_INTERMEDIATE, R, 0xFFFFFFFF),
        (IKE_INTERMEDIATE, 0, 0),  # a request of the gateway's
        (IKE_INTERMEDIATE, 0, 1),
        (IKE_AUTH, R, 1),  # instead of it
        (IKE_AUTH, R, 2),
        (IKE_AUTH, 0, 0),
        (44, R, 1),  # IKE_FOLLOWUP_KE
    ],
)
def test_a_message_that_has_no_place_in_it_is_dropped_and_changes_nothing(exchange, flags, mid):
    node, gateway, sent = exchanging(Hybrid((36, 35)))
    payloads = gateway.good_answer(gateway.read_intermediate(sent))
    datagram = gateway.bend(exchange, flags, mid, payloads)
    assert assert_dropped(node, datagram) in ("UNEXPECTED", "OLD_MESSAGE_ID")
    sent = give(node, gateway.answer(payloads))
    finish(node, gateway, give(node, gateway.intermediate(sent)))


@item("INT-03", "INT-10")
@pytest.mark.parametrize("fragments", [0, 3])
def test_a_wrong_icv_is_dropped_and_the_right_answer_still_counts(fragments):
    node, gateway, sent = exchanging(Hybrid(fragments=fragments))
    answer = gateway.intermediate(sent)
    for datagram in answer:
        assert assert_dropped(node, spoilt(datagram)) == "BAD_ICV"
        bare = datagram[:20] + bytes(4) + datagram[24:]  # another Message ID
        assert_dropped(node, bare)
    finish(node, gateway, give(node, answer))


@item("INT-02")
@pytest.mark.parametrize("state", ["IKE_SA_INIT", "IKE_AUTH", "UP", "DELETING", "DOWN"])
@pytest.mark.parametrize("flags", [0, R])
def test_where_none_was_agreed_upon_or_all_is_done_it_is_dropped(state, flags):
    node, gateway = IN_STATE[state]()
    for mid in (0, node.ike.mid, node.ike.mid - 1):
        for payloads in ([], [ke(36, 1088)], [notify(14)]):
            datagram = gateway.bend(IKE_INTERMEDIATE, flags, max(mid, 0), payloads)
            assert assert_dropped(node, datagram) is not None or state == "DOWN"


@item("INT-02", "INT-10")
def test_the_last_answer_again_after_ike_auth_went_out_or_all_is_up_is_dropped():
    node, gateway, sent = exchanging()
    (answer,) = gateway.intermediate(sent)
    sent = node.receive(answer)
    assert_dropped(node, answer)
    finish(node, gateway, sent)
    assert_dropped(node, answer)


@item("INT-10", "INT-22")
def test_silence_ends_it_after_the_resends_which_are_the_same_octets():
    node, gateway, sent = exchanging()
    times = []
    while node.state != "DOWN":
        now = node.ike.next_timer()
        again = node.timer(now)
        if node.state != "DOWN":
            assert again == sent
        times.append(now)
    assert times == [1000, 3000, 7000, 15000, 31000]
    assert failure(node) == ("failed", "timeout", IKE_INTERMEDIATE)
    assert type(explain.failure(failure(node))) is refusals.LinkDown
    assert_freed(node)


@item("INT-10")
def test_a_gateways_request_in_it_is_answered_and_ends_nothing():
    """Who it is nobody has proved yet: not even DELETE counts."""
    node, gateway, sent = exchanging()
    answer = gateway.bend(INFORMATIONAL, 0, None, [(D, b"\1\0\0\0")])
    (empty,) = node.receive(answer)
    exchange, flags, mid, payloads = gateway.read(empty)
    assert (exchange, flags, mid, payloads) == (INFORMATIONAL, 0x28, 0, [])
    finish(node, gateway, give(node, gateway.intermediate(sent)))


@item("INT-10")
def test_an_answer_beyond_our_bounds_ends_the_attempt():
    node, gateway, sent = exchanging(Hybrid(fragments=9))
    big = [(43, bytes(9000))]
    give(node, gateway.answer(big))
    assert failure(node) == ("failed", "peer", "TOO_LARGE")
    assert_freed(node)


@item("INT-22")
def test_every_private_key_is_overwritten_as_soon_as_it_is_used():
    gateway = Hybrid((35, 36, 37))
    node, gateway, sent = exchanging(gateway)
    for n in range(3):
        assert [pair.wiped for pair in kem.made] == [True] * n + [False]
        assert node.ike.handshake._before._ke is kem.made[-1]
        sent = give(node, gateway.intermediate(sent))
    assert all(pair.wiped for pair in kem.made)
    finish(node, gateway, sent)
    assert node.ike.handshake is None


@item("INT-22")
def test_a_key_pair_whose_decapsulation_fails_for_want_of_memory_is_overwritten():
    node, gateway, sent = exchanging()
    pair = node.ike.handshake._before._ke

    def fail(ciphertext):
        raise MemoryError

    pair.shared = fail
    with pytest.raises(MemoryError):
        give(node, gateway.intermediate(sent))
    node.ike.end()
    assert_freed(node)


@item("INT-22")
def test_an_attempt_that_is_given_up_leaves_no_key():
    """The tunnel closes it, in each state."""
    node, gateway, sent = exchanging(**WITH_PPK, ppk_required=False)
    node.ike.end()
    assert_freed(node)
    node, gateway, sent = exchanging(Hybrid((36,), ppk="auth"), ppk_required=False)
    give(node, gateway.intermediate(sent))
    assert node.state == "IKE_AUTH" and node.ike.handshake._auth._plain
    node.ike.end()
    assert_freed(node)
    node = sensor(ike=["aes128ccm16-prfsha256-mlkem768"], fragment_size=1500)
    node.start()
    node.ike.end()
    assert kem.made[-1].wiped


@pytest.mark.parametrize("seed", range(8))
def test_bent_answers_under_the_right_icv_raise_nothing(seed):
    """Each ends in a drop, an error or, where only what is ignored was hit, in IKE_AUTH."""
    picks = random.Random(seed)
    ends = set()
    for turn in range(40):
        kem.made.clear()
        gateway = Hybrid((35,), ppk="int")
        node, gateway, sent = exchanging(gateway, seed=b"%d %d" % (seed, turn))
        first, plain = payload_chain(gateway.good_answer(gateway.read_intermediate(sent)))
        bad = bytearray(plain)
        for _ in range(picks.randint(1, 3)):
            at = picks.choice((picks.randrange(8), picks.randrange(len(bad)), len(bad) - 8))
            bad[at] = picks.choice((0, 1, 41, 255, picks.randrange(256)))
        if picks.random() < 0.2:
            bad = bad[: picks.randrange(len(bad))]
        gateway.new_keys = None
        give(node, gateway.answer([], chain=(first, bytes(bad))))
        ends.add(node.state)
        assert node.state != "IKE_INTERMEDIATE" or sum(node.ike.drops.values()) == 1
        if node.state == "DOWN":
            assert_freed(node)
    assert ends == {"IKE_INTERMEDIATE", "IKE_AUTH", "DOWN"}


def test_what_the_tests_call_right_comes_up():
    run()
    node, gateway, sent = exchanging()
    finish(node, gateway, give(node, gateway.intermediate(sent, behind(notify(16384)))))
