"""IKE_INTERMEDIATE and what AUTH covers of it: INT-01 to INT-09 and INT-13.

The gateway here is scripted and computes IntAuth in a way of its own: each AUTH that either end
accepts is a comparison.
"""

import struct

import pytest

from tools.dev.peers.stage import behind
from host_tests.checklist import item
from tools.dev.peers.responder import KE, MARKER, notify, split
from tools.dev.peers.hybrid import (
    keys_of,
    CCM,
    FRAGMENTATION,
    IKE_INTERMEDIATE,
    NAMES,
    SUPPORTED,
    WITH_PPK,
    Hybrid,
    exchanging,
    failure,
    finish,
    give,
    hybrid,
    run,
    sensor,
)

WHOLE = 9000  # octets of a datagram that hold every message


def header(datagram):
    """(exchange, flags, message id) of a datagram."""
    octets = datagram[4:] if datagram[:4] == MARKER else datagram
    return octets[18], octets[19], int.from_bytes(octets[20:24], "big")


@item("INT-01")
def test_both_announce_it_then_exchange_43_takes_the_message_ids_from_1_on():
    node, gateway, sent = exchanging(Hybrid((35, 36)), fragment_size=WHOLE)
    assert (SUPPORTED, b"") in gateway.init_notifies
    assert [header(d) for d in sent] == [(IKE_INTERMEDIATE, 0x08, 1)]
    sent = give(node, gateway.intermediate(sent))
    assert [header(d) for d in sent] == [(IKE_INTERMEDIATE, 0x08, 2)]
    sent = give(node, gateway.intermediate(sent))
    assert [header(d) for d in sent] == [(35, 0x08, 3)]
    finish(node, gateway, sent)


@item("INT-01")
def test_it_is_announced_only_where_there_is_something_to_do_in_it():
    for changes, offered in (
        ({}, False),
        ({"ike": [hybrid(36)]}, True),
        ({"ike": [CCM, CCM + "-ke3_mlkem512"]}, True),
        ({"pq": "prefer"}, True),
        (WITH_PPK, True),
    ):
        node = sensor(**changes)
        gateway = Hybrid()
        gateway.read_init(node.start()[0])
        assert ((SUPPORTED, b"") in gateway.init_notifies) == offered, changes


@item("INT-01", "INT-11")
def test_additional_exchanges_that_the_gateway_agrees_to_without_announcing_it_are_no_answer():
    gateway = Hybrid()
    gateway.announces.remove(SUPPORTED)
    node = sensor(ike=[hybrid(36)])
    assert node.receive(gateway.init(node.start()[0])) == []
    assert node.state == "IKE_SA_INIT" and node.ike.drops == {"BAD_INIT": 1}


@item("INT-02")
def test_the_exchanges_come_one_after_another_and_are_no_more_than_agreed():
    node, gateway, sent = exchanging(Hybrid((35, 36, 37)), fragment_size=WHOLE)
    for n in range(3):
        assert node.state == "IKE_INTERMEDIATE"
        assert node.timer(999) == [] and len(sent) == 1
        answer = gateway.intermediate(sent)
        sent = give(node, answer)
        # The same answer once more starts nothing.
        assert give(node, answer) == [] and len(gateway.seen) == n + 1
    finish(node, gateway, sent)
    assert [[kind for kind, _ in payloads] for payloads in gateway.seen] == [[KE]] * 3


@item("INT-03")
@pytest.mark.parametrize("size", [200, 576, WHOLE])
def test_the_key_travels_in_sk_or_skf_under_the_keys_in_force_when_the_exchange_began(size):
    node, gateway, sent = exchanging(fragment_size=size)
    assert (len(sent) > 1) == (size < WHOLE)
    for datagram in sent:
        assert len(datagram) <= size - 28
        (sealed,) = split(datagram[20], datagram[32:])  # nothing in the clear
        assert sealed[0] == (53 if size < WHOLE else 46)
    before = gateway._in
    answer = gateway.intermediate(sent)
    assert gateway._in is not before
    finish(node, gateway, give(node, answer))


@item("INT-03", "INT-13")
def test_an_answer_under_keys_that_are_not_in_force_yet_is_dropped():
    node, gateway, sent = exchanging(fragment_size=WHOLE)
    (right,) = gateway.intermediate(sent)
    state, gateway.auth_mid = gateway.int_auth_r, 1
    (early,) = gateway.answer([(KE, bytes(1092))])
    gateway.int_auth_r = state
    assert node.receive(early) == [] and node.ike.drops == {"BAD_ICV": 1}
    finish(node, gateway, node.receive(right))


@item("INT-04")
def test_it_goes_to_the_natt_port_behind_a_marker_that_is_not_covered():
    node, gateway, sent = exchanging(fragment_size=576)
    assert node.ike.floated and node.profile["natt_port"] == 4500
    assert all(datagram[:4] == MARKER for datagram in sent)
    finish(node, gateway, give(node, gateway.intermediate(sent)))


@item("INT-04")
def test_a_gateway_without_nat_detection_keeps_it_on_the_first_port():
    gateway = Hybrid()
    gateway.natt = False
    node, gateway, sent = exchanging(gateway, fragment_size=576)
    assert not node.ike.floated
    assert all(datagram[:8] == node.ike.spi_i for datagram in sent)
    assert give(node, gateway.intermediate(sent))
    assert node.state == "IKE_AUTH"


@item("INT-05", "INT-13")
@pytest.mark.parametrize("methods", [(35,), (36,), (37,), (36, 35), (37, 36, 35)])
@pytest.mark.parametrize("fragments", [0, 4])
def test_int_auth_is_chained_with_the_keys_of_each_exchange(methods, fragments):
    """Were one generation's SK_p or one link of the chain another one, AUTH would not verify."""
    gateway = Hybrid(methods, fragments=fragments)
    node, gateway = run(gateway, fragment_size=400 if fragments else WHOLE)
    assert len(gateway.seen) == len(methods)


@item("INT-05")
@pytest.mark.parametrize("wrong", ["int_auth_i", "int_auth_r", "auth_mid", "seen"])
def test_a_gateway_that_saw_other_octets_is_refused(wrong):
    """Whatever part of IntAuth differs, or when it is left out."""
    node, gateway, sent = exchanging()
    sent = give(node, gateway.intermediate(sent))
    gateway.read_auth(*sent)
    assert gateway.authentic
    kept = gateway.auth_mid
    if wrong == "seen":
        gateway.seen = []
    elif wrong == "auth_mid":
        gateway.auth_mid += 1
    else:
        setattr(gateway, wrong, bytes(32))
    payloads = gateway.auth_payloads()
    (refusal,) = node.receive(gateway.send(35, 0x20, kept, payloads))
    assert failure(node) == ("failed", "peer", "AUTH does not verify")
    assert gateway.read(refusal)[0] == 37


@item("INT-06")
@pytest.mark.parametrize("fragments", [0, 3])
@pytest.mark.parametrize("reserved", [0x00, 0x01, 0x80, 0xFF])
def test_the_first_part_has_reserved_of_the_first_fragment(fragments, reserved):
    node, gateway, sent = exchanging(Hybrid(fragments=fragments))
    finish(node, gateway, give(node, gateway.intermediate(sent, reserved=reserved)))


@item("INT-06")
@pytest.mark.parametrize("fragments", [0, 3])
@pytest.mark.parametrize("count", [1, 2])
def test_the_first_part_has_what_stands_in_the_clear_in_front_of_sk(fragments, count):
    """The type in front of SKF is then not in the header, and says SK all the same."""
    outer = [notify(40000, b"in the clear"), (43, b"vendor")][:count]
    node, gateway, sent = exchanging(Hybrid(fragments=fragments))
    finish(node, gateway, give(node, gateway.intermediate(sent, outer=outer)))


@item("INT-06", "INT-08")
@pytest.mark.parametrize("order", ["reversed", "doubled"])
def test_the_order_of_fragments_changes_nothing(order):
    node, gateway, sent = exchanging(Hybrid(fragments=5))
    answer = gateway.intermediate(sent, reserved=0x41)
    answer = answer[::-1] if order == "reversed" else [d for d in answer for _ in range(2)]
    finish(node, gateway, give(node, answer))


@item("INT-07")
@pytest.mark.parametrize("pad", [0, 1, 100, 255])
def test_the_second_part_is_the_payloads_without_padding(pad):
    node, gateway, sent = exchanging()
    answer = gateway.good_answer(gateway.read_intermediate(sent))
    keys = gateway._out, gateway.sk_pr
    gateway.answer(answer)
    after = gateway._out
    gateway._out, gateway.auth_mid = keys[0], 1
    padded = gateway.send(IKE_INTERMEDIATE, 0x20, 1, answer, pad=pad)
    gateway._out, gateway.auth_mid = after, 2
    finish(node, gateway, node.receive(padded))


@item("INT-07")
def test_the_second_part_may_be_empty():
    """An answer without a payload: the gateway does not know the PPK."""
    gateway = Hybrid((), ppk="int")
    gateway.ppks = {}
    node, gateway, sent = exchanging(gateway, ppk_required=False)
    (answer,) = gateway.intermediate(sent)
    assert gateway.seen and len(answer) == 4 + 28 + 4 + 8 + 1 + 16
    finish(node, gateway, node.receive(answer))


@item("INT-08")
def test_int_auth_is_the_same_however_the_message_was_cut():
    found = set()
    for size in (176, 200, 576, 1280, WHOLE):
        node, gateway, sent = exchanging(fragment_size=size, seed=b"the same")
        gateway.read_intermediate(sent)
        found.add(gateway.int_auth_i)
        assert node.ike.handshake._before.int_auth_i == gateway.int_auth_i
    assert len(found) == 1


@item("INT-08")
@pytest.mark.parametrize("fragments", [0, 2, 7, 30])
def test_the_answers_int_auth_is_the_same_however_it_was_cut(fragments):
    node, gateway, sent = exchanging(Hybrid(fragments=fragments))
    before = node.ike.handshake._before
    finish_with = give(node, gateway.intermediate(sent))
    assert before.int_auth_r == gateway.int_auth_r
    finish(node, gateway, finish_with)


@item("INT-09")
def test_nothing_is_signed_besides_where_no_exchange_took_place():
    """Also where both sides announced that they could, and fragment."""
    for changes in ({}, {"ike": [hybrid(36), CCM]}, {**WITH_PPK, "ppk_required": False}):
        gateway = Hybrid(())
        gateway.ike = (2, 16) if "ike" in changes else (1, 16)
        node = sensor(**changes)
        (sent,) = node.receive(gateway.init(node.start()[0], behind(notify(FRAGMENTATION))))
        assert node.state == "IKE_AUTH" and gateway.int_auth() == b""
        assert node.ike.handshake._auth._int_auth == b""
        finish(node, gateway, [sent])


@item("INT-09")
def test_a_gateway_that_signs_it_where_none_took_place_is_refused():
    """As libreswan once did: IntAuth of no exchange is 0 octets, but its Message ID was signed."""
    gateway = Hybrid(())
    node = sensor()
    sent = node.receive(gateway.init(node.start()[0]))
    gateway.read_auth(*sent)
    gateway.int_auth = lambda: struct.pack(">I", 1)
    node.receive(gateway.send(35, 0x20, 1, gateway.auth_payloads()))
    assert failure(node) == ("failed", "peer", "AUTH does not verify")


@item("INT-13")
def test_all_seven_keys_are_new_after_each_exchange():
    node, gateway, sent = exchanging(Hybrid((35, 36)), fragment_size=WHOLE)
    generations = []
    for _ in range(2):
        generations.append((gateway.sk_d, gateway.sk_pi, gateway.sk_pr))
        assert generations[-1] == keys_of(node)
        sent = give(node, gateway.intermediate(sent))
    generations.append((gateway.sk_d, gateway.sk_pi, gateway.sk_pr))
    assert generations[-1] == keys_of(node)
    assert len({key for keys in generations for key in keys}) == 9
    finish(node, gateway, sent)


@item("INT-13")
def test_each_generation_of_keys_has_a_line_in_the_key_log(tmp_path):
    node, gateway, sent = exchanging(Hybrid((35, 36)), fragment_size=WHOLE, keylog="keys")
    while node.state == "IKE_INTERMEDIATE":
        sent = give(node, gateway.intermediate(sent))
    lines = node.all("keys")
    assert len(lines) == 3 and len({line[4] for line in lines}) == 3
    assert {(line[1], line[2]) for line in lines} == {(gateway.spi_i, gateway.spi_r)}


def test_the_names_of_the_methods_are_those_of_the_profile():
    assert [hybrid(m) for m in NAMES] == [f"{CCM}-ke1_{name}" for name in NAMES.values()]
