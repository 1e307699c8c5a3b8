"""IKE_SA_INIT: what we send, which answers count, and what a forger can and cannot do."""

import struct

from host_tests.checklist import item
from tools.dev.peers.node import LOCAL, REMOTE, Node, Rand, profile
from tools.dev.peers.pair import authenticating, changed, dropped, established, starting, with_body
from tools.dev.peers.responder import (
    COOKIE, FRAGMENTATION, IKE_AUTH, IKE_SA_INIT, INFORMATIONAL, KE, MARKER, NAT_DESTINATION,
    NAT_SOURCE, NONCE, SA, I, N, R, Responder, V, message, nat_hash, notify, proposal,
)  # fmt: skip

NO_PROPOSAL_CHOSEN, INVALID_KE = 14, 17
CCM_16 = [(1, 16, 128), (2, 5, 0), (4, 31, 0)]

# X25519 values of small order (RFC 7748 §6): each shared secret with them is all zero.
LOW_ORDER = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


# What we send


@item("MIN-01", "MIN-05", "MIN-06", "MIN-07", "MIN-17")
def test_the_request_is_as_the_rfc_draws_it():
    node, gateway, request = starting()
    assert request[:8] == node.ike.spi_i and request[:8] != bytes(8)
    assert request[8:16] == bytes(8)
    assert request[17:24] == bytes((0x20, IKE_SA_INIT, I)) + bytes(4)
    payloads = gateway.read_init(request)
    assert gateway.order[:3] == [SA, KE, NONCE]
    assert not any(critical for _, critical, _ in payloads)
    assert len(gateway.init_got[NONCE]) == 32
    assert gateway.init_got[KE][:4] == b"\0\x1f\0\0" and len(gateway.init_got[KE]) == 36
    first = proposal(1, 1, b"", CCM_16)
    second = proposal(2, 1, b"", [(1, 14, 128)] + CCM_16[1:])
    assert gateway.init_got[SA] == changed(first, 0, 2) + second


@item("MIN-24")
def test_both_nat_detection_hashes_are_sent():
    node, gateway, request = starting(encap=False)
    gateway.read_init(request)
    hashes = {kind: data for kind, data in gateway.init_notifies if len(data) == 20}
    assert hashes[NAT_SOURCE] == nat_hash(node.ike.spi_i, bytes(8), *LOCAL)
    assert hashes[NAT_DESTINATION] == nat_hash(node.ike.spi_i, bytes(8), *REMOTE)
    # "encap" asks for UDP encapsulation by a hash that fits nothing.
    node, gateway, request = starting(encap=True)
    gateway.read_init(request)
    hashes = {kind: data for kind, data in gateway.init_notifies if len(data) == 20}
    assert hashes[NAT_SOURCE] != nat_hash(node.ike.spi_i, bytes(8), *LOCAL)
    assert hashes[NAT_DESTINATION] == nat_hash(node.ike.spi_i, bytes(8), *REMOTE)


def test_two_attempts_share_nothing_random():
    first, one, request = starting(seed=b"one")
    one.read_init(request)
    second, two, request = starting(seed=b"two")
    two.read_init(request)
    assert first.ike.spi_i != second.ike.spi_i
    assert one.init_got[KE] != two.init_got[KE]
    assert one.init_got[NONCE] != two.init_got[NONCE]


def test_spis_are_never_0_nor_like_a_marker():
    class Poor:
        """Gives zeros at first, as an entropy source might."""

        def __init__(self):
            self.calls = 0
            self.good = Rand(b"poor")

        def __call__(self, n):
            self.calls += 1
            return bytes(n) if self.calls < 4 else self.good(n)

    node = Node(profile(), Poor())
    assert node.ike.spi_i[:4] != bytes(4)
    for value in (b"\0\0\0\1\2\3\4\5", b"\0\0\0\0\0\0\0\1"):
        values = [value]

        def rand(n, values=values):
            return values.pop() if values and n == 8 else Rand(b"later")(n)

        assert Node(profile(), rand).ike.spi_i != value


def test_a_profile_that_starts_on_the_natt_port_wears_the_marker_at_once():
    node, gateway, request = starting(port=4500)
    assert request[:4] == MARKER and request[4:12] == node.ike.spi_i
    (request,) = node.receive(gateway.init(request))
    assert request[:4] == MARKER
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"


# Answers that count


@item("MIN-01", "MIN-18", "MIN-20")
def test_each_offered_proposal_may_be_chosen():
    for ike, icv in (((1, 16), 16), ((2, 14), 8)):
        node, gateway = established(Responder(ike=ike))
        assert node.all("agreed") == [("agreed", {1: (ike[1], 128), 2: (5, 0), 4: (31, 0)})]
        assert node.ike.floated


@item("MIN-24")
def test_we_float_to_4500_only_when_the_gateway_knows_nat_traversal():
    node, gateway, request = authenticating()
    assert request[:4] == MARKER and node.ike.floated
    gateway = Responder()
    gateway.natt = False
    node, gateway, request = authenticating(gateway)
    assert request[:4] != MARKER and not node.ike.floated


@item("MIN-24")
def test_a_nat_before_us_is_noticed():
    gateway = Responder()

    def honest(payloads):
        hash = nat_hash(gateway.spi_i, gateway.spi_r, *LOCAL)
        return payloads[:3] + [notify(NAT_SOURCE, bytes(20)), notify(NAT_DESTINATION, hash)]

    node, gateway, request = starting(gateway)
    assert node.ike.handshake.nat is None
    node.receive(gateway.init(request, honest))
    assert node.ike.handshake.nat is False
    node, _, request = starting()
    node.receive(Responder().init(request))
    assert node.ike.handshake.nat is True


@item("MIN-10", "MIN-24")
def test_what_we_do_not_know_is_ignored():
    def more(payloads):
        return (
            [(V, b"some vendor"), (200, b"unknown")]
            + payloads
            + [notify(40000, b"status"), notify(16404), (V, b"another"), (38, b"\4")]
        )

    node, gateway, request = starting()
    (request,) = node.receive(gateway.init(request, more))
    assert node.state == "IKE_AUTH"
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"


@item("MIN-09")
def test_the_critical_bit_on_what_we_know_is_ignored_and_on_what_we_do_not_refused():
    node, gateway, request = starting()
    dropped(
        node,
        gateway.init(request, lambda payloads: payloads + [(200, b"", True)]),
        "CRITICAL_PAYLOAD",
    )
    node.receive(gateway.init(request, lambda payloads: [p + (True,) for p in payloads]))
    assert node.state == "IKE_AUTH"


@item("MIN-05", "MIN-06")
def test_minor_versions_and_reserved_flags_are_ignored():
    for at, value in ((17, 0x21), (17, 0x2F), (19, R | 0x10), (19, R | 0x47)):
        node, gateway, request = starting()
        answer = changed(gateway.init(request), at, value)
        gateway.response_octets = answer
        (request,) = node.receive(answer)
        assert node.receive(gateway.auth(request)) == [] and node.state == "UP", (at, value)


@item("MIN-17")
def test_nonces_of_16_to_256_octets_count():
    for size in (16, 17, 255, 256):
        gateway = Responder()
        gateway.nonce = bytes(size)
        node, gateway = established(gateway)
    for size in (0, 15, 257, 300):
        gateway = Responder()
        gateway.nonce = bytes(size)
        node, gateway, request = starting(gateway)
        dropped(node, gateway.init(request), "BAD_INIT")


@item("MIN-04")
def test_an_answer_of_3000_octets_is_read_and_a_larger_one_dropped():
    node, gateway, request = starting()
    size = len(gateway.init(request))
    answer = gateway.init(request, lambda payloads: payloads + [(V, bytes(3000 - size - 4))])
    assert len(answer) == 3000
    dropped(node, answer[:-4] + bytes(8), "BAD_LENGTH")
    node.receive(answer)
    assert node.state == "IKE_AUTH"
    node, gateway, request = starting()
    answer = gateway.init(request, lambda payloads: payloads + [(V, bytes(3001 - size - 4))])
    dropped(node, answer, "BAD_LENGTH")


# Answers that do not count


@item("MIN-18")
def test_an_answer_that_is_no_choice_out_of_our_offer_is_dropped():
    ccm_8 = [(1, 14, 128)] + CCM_16[1:]
    for what, body in (
        ("number 0", proposal(0, 1, b"", CCM_16)),
        ("number 3", proposal(3, 1, b"", CCM_16)),
        ("the wrong number", proposal(2, 1, b"", CCM_16)),
        ("the wrong number", proposal(1, 1, b"", ccm_8)),
        ("ESP", proposal(1, 3, b"", CCM_16)),
        ("no key length", proposal(1, 1, b"", [(1, 16, 0)] + CCM_16[1:])),
        ("key length 256", proposal(1, 1, b"", [(1, 16, 256)] + CCM_16[1:])),
        ("no PRF", proposal(1, 1, b"", [CCM_16[0], CCM_16[2]])),
        ("no DH", proposal(1, 1, b"", CCM_16[:2])),
        ("DH none", proposal(1, 1, b"", CCM_16[:2] + [(4, 0, 0)])),
        ("integrity", proposal(1, 1, b"", CCM_16 + [(3, 12, 0)])),
        ("two ciphers", proposal(1, 1, b"", CCM_16 + [(1, 14, 128)])),
        ("another PRF", proposal(1, 1, b"", [CCM_16[0], (2, 2, 0), CCM_16[2]])),
        ("GCM", proposal(1, 1, b"", [(1, 20, 128)] + CCM_16[1:])),
        ("both", changed(proposal(1, 1, b"", CCM_16), 0, 2) + proposal(2, 1, b"", ccm_8)),
        ("nothing", b""),
    ):
        node, gateway, request = starting()
        dropped(node, gateway.init(request, lambda p, b=body: with_body(p, SA, b)), "BAD_SA")
        node.receive(gateway.init(request))
        assert node.state == "IKE_AUTH", what


@item("MIN-19")
def test_another_group_than_ours_or_a_wrong_length_is_dropped():
    node, gateway, request = starting()
    public = gateway._pair.public
    for body in (
        b"\0\x1f\0\0" + public[:-1],
        b"\0\x1f\0\0" + public + b"\0",
        b"\0\x1f\0\0",
        b"\0\x13\0\0" + public,
        b"\0\x13\0\0" + public * 2,
        b"\0\x0e\0\0" + bytes(256),
        b"\0\0\0\0" + public,
    ):
        dropped(node, gateway.init(request, lambda p, b=body: with_body(p, KE, b)), "BAD_KE")
    for body in (b"", b"\0\x1f\0"):
        dropped(node, gateway.init(request, lambda p, b=body: with_body(p, KE, b)), "BAD_INIT")
    node.receive(gateway.init(request))
    assert node.state == "IKE_AUTH"


@item("MIN-19")
def test_a_value_that_leads_to_zero_is_dropped():
    node, gateway, request = starting()
    for text in LOW_ORDER:
        for top in (0, 0x80):
            value = bytearray(bytes.fromhex(text))
            value[31] |= top
            body = b"\0\x1f\0\0" + bytes(value)
            dropped(node, gateway.init(request, lambda p, b=body: with_body(p, KE, b)), "BAD_KE")


def test_an_answer_without_one_of_its_three_payloads_is_dropped():
    for kind in (SA, KE, NONCE):
        node, gateway, request = starting()
        answer = gateway.init(request, lambda p, k=kind: with_body(p, k, None))
        dropped(node, answer, "BAD_INIT")
        twice = gateway.init(request, lambda p, k=kind: p + [x for x in p if x[0] == k])
        dropped(node, twice, "BAD_PAYLOAD")


@item("MIN-03", "MIN-07", "MIN-16")
def test_an_answer_with_a_wrong_header_is_dropped():
    node, gateway, request = starting()
    good = gateway.init(request)
    for reason, octets in (
        ("UNKNOWN_SPI", MARKER + changed(good, 0, good[0] ^ 1)),
        ("UNEXPECTED_ESP", changed(good, 0, good[0] ^ 1)),
        ("BAD_INIT", changed(good, 8, *bytes(8))),
        ("BAD_VERSION", changed(good, 17, 0x10)),
        ("BAD_VERSION", changed(good, 17, 0x30)),
        ("UNEXPECTED", changed(good, 18, IKE_AUTH)),
        ("UNEXPECTED", changed(good, 18, INFORMATIONAL)),
        ("UNEXPECTED", changed(good, 18, 0)),
        ("UNEXPECTED", changed(good, 19, 0)),
        ("REFLECTED", changed(good, 19, R | I)),
        ("REFLECTED", changed(good, 19, I)),
        ("OLD_MESSAGE_ID", changed(good, 23, 1)),
        ("BAD_LENGTH", changed(good, 27, good[27] ^ 1)),
        ("REFLECTED", request),
    ):
        dropped(node, octets, reason)
    node.receive(good)
    assert node.state == "IKE_AUTH"


def test_the_answer_may_come_twice_and_its_copy_changes_nothing():
    node, gateway, request = starting()
    answer = gateway.init(request)
    (request,) = node.receive(answer)
    dropped(node, answer, "UNEXPECTED")
    assert node.receive(gateway.auth(request)) == []
    dropped(node, answer, "UNEXPECTED")


def test_nothing_is_taken_before_the_start_or_after_the_end():
    node = Node(profile(), Rand(b"idle"))
    head = node.ike.spi_i + bytes(8)
    for octets in (b"", head + b"\0\x20\x22\x20" + bytes(4) + b"\0\0\0\x1c"):
        node.ike.receive(octets, 0)
    assert node.ike.drops == {"BAD_LENGTH": 1, "UNEXPECTED": 1}
    assert node.ike.poll_out() is None and node.ike.next_timer() is None
    node.timer(100_000)
    assert node.state == "IDLE"


# COOKIE


@item("MIN-21", "MIN-26")
def test_a_cookie_comes_back_first_and_all_else_is_unchanged():
    for cookie in (b"x", bytes(range(64))):
        node, gateway, first = starting()
        (second,) = node.receive(gateway.refuse_init(first, notify(COOKIE, cookie)))
        gateway.read_init(second)
        assert gateway.order[0] == N and gateway.init_notifies[0] == (COOKIE, cookie)
        assert second[36 + len(cookie) :] == first[28:]
        assert second[8:16] == bytes(8) and second[20:24] == bytes(4)
        # AUTH covers the request as it was sent last.
        (request,) = node.receive(gateway.init(second))
        assert node.receive(gateway.auth(request)) == [] and node.state == "UP"


@item("MIN-21")
def test_a_cookie_of_a_wrong_size_is_dropped():
    node, gateway, request = starting()
    for size in (0, 65, 200):
        answer = gateway.refuse_init(request, notify(COOKIE, bytes(size)))
        dropped(node, answer, "BAD_INIT")


@item("MIN-21")
def test_a_new_cookie_replaces_the_old_one_when_the_timer_says_so():
    node, gateway, request = starting()
    (second,) = node.receive(gateway.refuse_init(request, notify(COOKIE, b"old")))
    for cookie in (b"newer", b"new one"):
        assert node.receive(gateway.refuse_init(second, notify(COOKIE, cookie))) == []
    (third,) = node.timer(node.ike.next_timer())
    gateway.read_init(third)
    assert [data for kind, data in gateway.init_notifies if kind == COOKIE] == [b"new one"]


@item("MIN-21")
def test_rounds_are_bounded():
    node, gateway, request = starting()
    sent = 0
    for n in range(20):
        out = node.receive(gateway.refuse_init(request, notify(COOKIE, b"cookie %d" % n)))
        sent += len(out)
    assert sent == 1
    assert node.state == "IKE_SA_INIT" and node.ike.next_timer() == 125


@item("MIN-21")
def test_cookies_for_ever_end_within_the_time_limit():
    node, gateway, request = starting()
    sent = 1
    for now in range(0, 31_001, 10):
        if node.ike.next_timer() is not None and now >= node.ike.next_timer():
            sent += len(node.timer(now))
        if node.state == "IKE_SA_INIT":
            answer = gateway.refuse_init(request, notify(COOKIE, b"%d" % now))
            sent += len(node.receive(answer, now))
    assert node.state == "DOWN" and node.all("failed") == [("failed", "timeout", IKE_SA_INIT)]
    assert sent <= 64


@item("MIN-21")
def test_a_forged_cookie_does_not_keep_the_genuine_answer_out():
    node, gateway, request = starting()
    genuine = gateway.init(request)
    forged = Responder().refuse_init(request, notify(COOKIE, b"forged"))
    (second,) = node.receive(forged)
    (request,) = node.receive(genuine)
    assert node.state == "IKE_AUTH"
    # A gateway that wants no cookie answers the second request, too.
    node, gateway, request = starting()
    (second,) = node.receive(Responder().refuse_init(request, notify(COOKIE, b"forged")))
    (request,) = node.receive(gateway.init(second))
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"


# Unauthenticated errors


@item("MIN-23", "MIN-38")
def test_an_unauthenticated_error_is_a_hint_and_nothing_more():
    for kind in (NO_PROPOSAL_CHOSEN, 7, 24, 1, 12345):
        node, gateway, request = starting()
        dropped(node, gateway.refuse_init(request, notify(kind)), "UNAUTHENTICATED_ERROR")
        assert node.all("hint") == [("hint", kind)]
        (request,) = node.receive(gateway.init(request))
        assert node.receive(gateway.auth(request)) == [] and node.state == "UP", kind


@item("MIN-22")
def test_invalid_ke_for_a_group_that_was_not_offered_is_dropped():
    node, gateway, request = starting()
    for group in (0, 14, 19, 31, 35, 0xFFFF):
        answer = gateway.refuse_init(request, notify(INVALID_KE, struct.pack(">H", group)))
        dropped(node, answer, "BAD_KE")


@item("MIN-22")
def test_invalid_ke_of_a_wrong_size_is_only_an_error():
    node, gateway, request = starting()
    for data in (b"", b"\0", b"\0\x1f\0"):
        answer = gateway.refuse_init(request, notify(INVALID_KE, data))
        dropped(node, answer, "UNAUTHENTICATED_ERROR")


@item("MIN-22")
def test_an_offered_group_is_taken_up_with_the_whole_offer_and_the_cookie():
    ike = ["aes128ccm16-prfsha256-ecp256", "aes128ccm16-prfsha256-x25519"]
    node, gateway, first = starting(ike=ike)
    gateway.read_init(first)
    assert gateway.init_got[KE][:2] == b"\0\x13" and len(gateway.init_got[KE]) == 68
    offer = gateway.init_got[SA]
    nonce = gateway.init_got[NONCE]
    (second,) = node.receive(gateway.refuse_init(first, notify(COOKIE, b"cookie")))
    (third,) = node.receive(gateway.refuse_init(second, notify(INVALID_KE, b"\0\x1f")))
    gateway.read_init(third)
    assert gateway.init_got[SA] == offer and gateway.init_got[NONCE] == nonce
    assert gateway.order[0] == N and gateway.init_notifies[0] == (COOKIE, b"cookie")
    assert gateway.init_got[KE][:2] == b"\0\x1f" and len(gateway.init_got[KE]) == 36
    gateway.ike = (2, 16)
    (request,) = node.receive(gateway.init(third))
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"


@item("MIN-19", "MIN-22")
def test_an_answer_for_the_group_that_was_given_up_is_dropped():
    ike = ["aes128ccm16-prfsha256-x25519", "aes128ccm16-prfsha256-ecp256"]
    node, gateway, first = starting(ike=ike)
    old = gateway.init(first)
    node.receive(gateway.refuse_init(first, notify(INVALID_KE, b"\0\x13")))
    dropped(node, old, "BAD_KE")


@item("MIN-22")
def test_groups_are_not_swapped_for_ever():
    ike = ["aes128ccm16-prfsha256-x25519", "aes128ccm16-prfsha256-ecp256"]
    node, gateway, request = starting(ike=ike)
    sent = 0
    for n in range(10):
        group = b"\0\x13" if n & 1 == 0 else b"\0\x1f"
        sent += len(node.receive(gateway.refuse_init(request, notify(INVALID_KE, group))))
    assert sent <= 3 and node.state == "IKE_SA_INIT"


def test_an_answer_of_notifies_without_meaning_is_dropped():
    node, gateway, request = starting()
    dropped(node, gateway.refuse_init(request), "BAD_INIT")
    dropped(node, gateway.refuse_init(request, notify(40000), notify(16384)), "BAD_INIT")
    dropped(node, gateway.refuse_init(request, (N, b"\0\0\0")), "BAD_PAYLOAD")
    dropped(node, gateway.refuse_init(request, (V, b"only a vendor")), "BAD_INIT")


def test_fragmentation_is_agreed_by_both_or_not_at_all():
    node, gateway, request = authenticating(fragment_size=200)
    assert node.state == "IKE_AUTH" and not node.ike.fragmentation and len(request) > 200
    gateway = Responder()
    gateway.notifies = [(FRAGMENTATION, b"")]
    node, gateway, request = starting(gateway, fragment_size=200)
    out = node.receive(gateway.init(request))
    assert len(out) > 1 and all(len(datagram) <= 172 for datagram in out)


def test_protected_octets_in_place_of_an_answer_are_dropped():
    node, gateway, request = starting()
    gateway.init(request)
    sealed = gateway.send(IKE_SA_INIT, R, 0, [(NONCE, bytes(32))])
    dropped(node, sealed, "BAD_INIT")
    octets = message(gateway.spi_i, gateway.spi_r, IKE_SA_INIT, R, 0, [])
    dropped(node, octets, "BAD_INIT")
