"""A man in the middle who rewrites IKE_SA_INIT gets nothing weaker out of it.

IKE_SA_INIT is in the clear, so he may take out of it or put into it what he likes. Both messages
are signed by AUTH as their sender wrote them: a tunnel whose ends saw different ones does not
come up. The sensor here and the development gateway both take less if they have to, so that
nothing but AUTH stands in his way.
"""

import pytest

from tools.dev.peers.third_party import GATEWAY, SENSOR, Link
from host_tests.checklist import item
from tools.dev.peers.responder import (
    IKE_SA_INIT,
    MARKER,
    SA,
    N,
    V,
    message,
    notify,
    proposal,
    split,
)
from tools.dev.peers.hybrid import (
    CCM,
    FRAGMENTATION,
    SUPPORTED,
    USE_PPK,
    USE_PPK_INT,
)
from minipsec import refusals, explain
from minipsec.handshake import sa_init as ike

FRAG_ACK = 50201
PLAIN = [(1, 16, 128), (2, 5, 0), (4, 31, 0)]
REQUEST, RESPONSE = GATEWAY, SENSOR  # whom the message is for
# Whatever may be agreed upon is agreed upon, if nobody interferes.
ALL = {"pq": "prefer", "ppk_id": "ppk-1", "ppk_required": False, "fragment_size": 576}


class Bent(Link):
    """A link on which IKE_SA_INIT messages for `victim` are rewritten by `edit`.

    `edit` is given the payloads as [(type, body)] and returns others; `times`: how many are.
    """

    def __init__(self, victim, edit, changes=None, settings=None, times=None):
        super().__init__(changes or ALL, settings)
        self._victim, self._edit, self._times = victim, edit, times
        self.bent = 0

    def give(self, to, datagram, source=None):
        if to == self._victim and datagram[:4] != MARKER and datagram[18] == IKE_SA_INIT:
            if self._times is None or self.bent < self._times:
                datagram = self._bend(datagram)
        return super().give(to, datagram, source)

    def _bend(self, datagram):
        payloads = [(kind, body) for kind, _, body in split(datagram[16], datagram[28:])]
        edited = self._edit(payloads)
        self.bent += edited != payloads
        return message(datagram[:8], datagram[8:16], 34, datagram[19], 0, edited)

    def run(self):
        """Until the sensor is up or has given up; what the gateway had to say follows."""
        self.start()
        self.settle()
        while self.node.state not in ("UP", "DOWN"):
            assert self.pass_time()
            self.settle()
        return self


def assert_noticed(link):
    """No tunnel, no reading, and an error."""
    assert link.bent and link.node.state == "DOWN"
    assert not link.node.all("up") and link.readings == [] and link.node.child is None
    (event,) = link.node.all("failed")
    hints = link.node.all("hint")
    return explain.failure(event, hints[-1][1] if hints else None, {"pq": "require"})


def taken(*kinds):
    """An edit that takes notifies away."""
    wanted = [kind.to_bytes(2, "big") for kind in kinds]

    def edit(payloads):
        return [p for p in payloads if p[0] != N or p[1][2:4] not in wanted]

    return edit


def put(*payloads):
    return lambda old: [*old, *payloads]


def with_sa(change):
    return lambda payloads: [(k, change(body) if k == SA else body) for k, body in payloads]


def proposals(body):
    """The octets of each proposal of an SA payload."""
    found = []
    while body:
        size = int.from_bytes(body[2:4], "big")
        found.append(body[:size])
        body = body[size:]
    return found


def only_plain(body):
    """Of two proposals, hybrid and plain, the plain one, as a first one that stands alone."""
    last = bytearray(proposals(body)[-1])
    last[4] = 1
    return bytes(last)


def test_the_link_comes_up_when_nothing_is_changed_and_agrees_to_everything():
    for victim in (REQUEST, RESPONSE):
        link = Bent(victim, lambda payloads: payloads).run()
        assert link.node.state == "UP" and not link.bent
        node, ike = link.node, link.node.ike
        assert node.picked[6] == (36, 0) and node.with_ppk and ike.fragmentation and ike.acks
        (sa,) = link.gateway.established_sas()
        assert sa.ppk_used and sa.frag_ack and sa.intermediates == 1


# What the gateway is told.


REQUESTS = {
    "the hybrid proposal": with_sa(only_plain),
    "the transform": with_sa(lambda _: proposal(1, 1, b"", PLAIN)),
    "the method for a weaker one": with_sa(lambda _: proposal(1, 1, b"", [*PLAIN, (6, 35, 0)])),
    "INTERMEDIATE_EXCHANGE_SUPPORTED": taken(SUPPORTED),
    "USE_PPK_INT": taken(USE_PPK_INT),
    "both of USE_PPK": taken(USE_PPK, USE_PPK_INT),
    "all at once": lambda payloads: with_sa(only_plain)(
        taken(SUPPORTED, USE_PPK, USE_PPK_INT)(payloads)
    ),
    "IKEV2_FRAGMENTATION_SUPPORTED": taken(FRAGMENTATION),
    "FRAGMENT_ACK_SUPPORTED": taken(FRAG_ACK),
    "our Vendor ID": lambda payloads: [p for p in payloads if p[0] != V],
}


@item("INT-11", "INT-17")
@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_stripped_from_the_request_is_noticed(name):
    assert_noticed(Bent(REQUEST, REQUESTS[name]).run())


@item("INT-11", "INT-17")
@pytest.mark.parametrize("name", ["the hybrid proposal", "USE_PPK_INT", "all at once"])
def test_nor_does_it_help_to_strip_both_messages(name):
    """The answer, too, is changed back into what the sensor expects."""

    class Both(Bent):
        def give(self, to, datagram, source=None):
            if to == RESPONSE and datagram[:4] != MARKER and datagram[18] == IKE_SA_INIT:
                payloads = [(k, body) for k, _, body in split(datagram[16], datagram[28:])]
                edited = put(notify(SUPPORTED))(with_sa(self.whole)(payloads))
                datagram = message(datagram[:8], datagram[8:16], 34, datagram[19], 0, edited)
            return super().give(to, datagram, source)

        @staticmethod
        def whole(body):
            if name == "USE_PPK_INT":
                return body
            return proposal(2, 1, b"", PLAIN)

    assert_noticed(Both(REQUEST, REQUESTS[name]).run())


# What the sensor is told.


RESPONSES = {
    "the plain proposal is chosen": with_sa(lambda _: proposal(2, 1, b"", PLAIN)),
    "the transform": with_sa(lambda _: proposal(1, 1, b"", PLAIN)),
    "the transform is NONE": with_sa(lambda _: proposal(1, 1, b"", [*PLAIN, (6, 0, 0)])),
    "the method for a weaker one": with_sa(lambda _: proposal(1, 1, b"", [*PLAIN, (6, 35, 0)])),
    "INTERMEDIATE_EXCHANGE_SUPPORTED": taken(SUPPORTED),
    "USE_PPK_INT": taken(USE_PPK_INT),
    "USE_PPK_INT for USE_PPK": lambda payloads: put(notify(USE_PPK))(taken(USE_PPK_INT)(payloads)),
    "all at once": lambda payloads: with_sa(lambda _: proposal(2, 1, b"", PLAIN))(
        taken(SUPPORTED, USE_PPK_INT)(payloads)
    ),
    "IKEV2_FRAGMENTATION_SUPPORTED": taken(FRAGMENTATION),
    "FRAGMENT_ACK_SUPPORTED": taken(FRAG_ACK),
    "our Vendor ID": lambda payloads: [p for p in payloads if p[0] != V],
    "nothing, but a status notify is put in": put(notify(16384)),
}


@item("INT-11", "INT-17")
@pytest.mark.parametrize("name", RESPONSES)
def test_what_is_stripped_from_the_answer_is_noticed(name):
    assert_noticed(Bent(RESPONSE, RESPONSES[name]).run())


@item("INT-11", "INT-17")
@pytest.mark.parametrize("name", ["FRAGMENT_ACK_SUPPORTED", "USE_PPK"])
def test_what_is_put_into_the_answer_is_noticed(name):
    """The gateway has neither PPKs nor acknowledgments."""
    more = [notify(FRAG_ACK), (V, ike.VENDOR_ID)] if name[0] == "F" else [notify(USE_PPK)]
    settings = {"frag_ack": "off", "ppks": {}}
    assert_noticed(Bent(RESPONSE, put(*more), ALL, settings).run())


# Where the profile insists, nothing weaker is even begun.


STRICT = {"pq": "require", "ppk_id": "ppk-1", "frag_ack": "off", "fragment_size": 576}


@item("INT-11", "INT-17")
@pytest.mark.parametrize(
    "name",
    ["the plain proposal is chosen", "the transform", "the transform is NONE",
     "INTERMEDIATE_EXCHANGE_SUPPORTED", "all at once", "USE_PPK_INT"],
)  # fmt: skip
def test_an_answer_below_what_the_profile_insists_on_is_dropped(name):
    link = Bent(RESPONSE, RESPONSES[name], STRICT).run()
    error = assert_noticed(link)
    assert [event[1] for event in link.node.all("state")] == ["IKE_SA_INIT", "DOWN"]
    # Only a gateway that seems to use no PPKs has said anything that helps the sensor's owner.
    wanted = refusals.PostQuantumRefused if name == "USE_PPK_INT" else refusals.LinkDown
    assert type(error) is wanted


@item("INT-11", "INT-17")
@pytest.mark.parametrize("name", ["the plain proposal is chosen", "USE_PPK_INT"])
def test_a_genuine_answer_behind_the_bent_one_brings_the_tunnel_up(name):
    link = Bent(RESPONSE, RESPONSES[name], STRICT, times=1).run()
    assert link.bent == 1 and link.node.state == "UP" and link.node.with_ppk
    assert link.node.picked[6] == (36, 0)


@item("INT-11")
@pytest.mark.parametrize("pq", ["prefer", "require"])
def test_forged_refusals_do_not_make_the_sensor_take_less(pq):
    """NO_PROPOSAL_CHOSEN and INVALID_KE_PAYLOAD need no key: they are hints, as ever."""
    link = Bent(None, None, {"ike": [CCM], "pq": pq})
    link.start()
    ike = link.node.ike
    for kind, data in ((14, b""), (17, b"\0\x24"), (17, b"\0\x13"), (7, b"")):
        forged = message(ike.spi_i, bytes(8), 34, 0x20, 0, [notify(kind, data)])
        link.give(SENSOR, forged)
        assert link.node.state == "IKE_SA_INIT"
    link.settle()
    assert link.node.state == "UP" and link.node.picked[6] == (36, 0)


@item("INT-11")
def test_a_forged_wish_for_the_weaker_group_is_noticed_by_the_gateway_or_within_the_profile():
    """Both groups were offered: the gateway, which prefers ML-KEM, says so, and gets it."""
    suite = "aes128ccm16-prfsha256-mlkem512-x25519"
    settings = {"ike": ("aes128ccm16-prfsha256-mlkem512", CCM)}
    link = Bent(None, None, {"ike": [suite], "fragment_size": 1280}, settings)
    link.start()
    link.waiting.clear()
    forged = message(link.node.ike.spi_i, bytes(8), 34, 0x20, 0, [notify(17, b"\0\x1f")])
    link.give(SENSOR, forged)
    link.settle()
    assert link.node.state == "UP" and link.node.picked[4] == (35, 0)


# IKE_INTERMEDIATE itself.


@item("INT-05", "INT-09", "INT-12")
def test_a_bit_of_either_ike_sa_init_is_enough():
    """Wherever it is, in a message that both ends can still read."""
    picks = 0
    for victim in (REQUEST, RESPONSE):
        for at in range(0, 2000, 11):

            def flip(payloads, at=at):
                octets = [bytearray(body) for _, body in payloads]
                place = at
                for body in octets:
                    if place < len(body):
                        body[place] ^= 1
                        break
                    place -= len(body)
                return [(k, bytes(body)) for (k, _), body in zip(payloads, octets, strict=True)]

            link = Bent(victim, flip)
            link.start()
            link.settle()
            if link.bent:
                picks += 1
                assert link.node.state != "UP" and link.readings == []
    assert picks > 40


@item("INT-02", "INT-09")
def test_ike_intermediate_that_never_arrives_is_never_left_out():
    link = Bent(None, None)
    link.start()
    while link.node.state != "DOWN":
        while link.waiting:
            to, datagram = link.waiting.pop(0)
            octets = datagram[4:] if datagram[:4] == MARKER else datagram
            if octets[18] != 43:
                link.give(to, datagram)
        assert link.pass_time() or link.node.state == "DOWN"
    assert link.node.all("failed") == [("failed", "timeout", 43)] and not link.node.all("up")
