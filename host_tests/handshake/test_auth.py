"""IKE_AUTH: who we say we are, who must answer, and what an answer may give us."""

from host_tests.checklist import item
from tools.dev.peers.node import SECRETS, Node, Rand, profile
from tools.dev.peers.pair import (
    authenticating, changed, dropped, established, starting, with_body,
)  # fmt: skip
from tools.dev.peers.responder import (
    ASSIGNED, AUTH, CP, IDI, IDR, IKE_AUTH, INFORMATIONAL, KE, NONCE, PSK, SA, SERVER, TSI, TSR,
    D, I, N, R, Responder, V, notify, proposal, selector,
)  # fmt: skip
from minipsec.crypto.kdf import prf

INITIAL_CONTACT = 16384
AUTHENTICATION_FAILED = 24
OTHER = bytes((10, 9, 9, 9))
ESP = [(1, 14, 128), (5, 0, 0)]


def failed(node, kind, detail):
    assert node.state == "DOWN", node.events
    assert [event[:3] for event in node.all("failed")] == [("failed", kind, detail)]
    assert not node.all("up")
    assert node.ike.next_timer() is None


def last_word(gateway, out):
    """The payloads of the one INFORMATIONAL request that goes out at the end."""
    (datagram,) = out
    exchange, flags, mid, payloads = gateway.read(datagram)
    assert (exchange, flags, mid) == (INFORMATIONAL, I, 2)
    return payloads


def refuses(gateway, out):
    """We tell a peer that did not prove itself (RFC 7296 §2.21.2)."""
    ((kind, _, body),) = last_word(gateway, out)
    assert kind == N and body[2:] == b"\0\x18"


def deletes(gateway, out):
    """We delete an SA of no use."""
    ((kind, _, body),) = last_word(gateway, out)
    assert (kind, body) == (D, b"\1\0\0\0")


def answered(edit=None, gateway=None, **changes):
    """(sensor, responder, what the sensor sent after an edited IKE_AUTH answer)."""
    node, gateway, request = authenticating(gateway, **changes)
    return node, gateway, node.receive(gateway.auth(request, edit))


# What we send


@item("MIN-01", "MIN-25", "MIN-28")
def test_the_request_is_as_the_rfc_draws_it():
    node, gateway, request = authenticating()
    payloads = gateway.read_auth(request)
    assert gateway.authentic
    assert [k for k in gateway.auth_order if k != N] == [IDI, IDR, AUTH, CP, SA, TSI, TSR]
    assert not any(critical for _, critical, _ in payloads)
    assert (INITIAL_CONTACT, b"") in gateway.auth_notifies
    assert gateway.got[IDI] == b"\2\0\0\0sensor-1.example.org"
    assert gateway.got[IDR] == b"\2\0\0\0gw.example.org"
    assert gateway.got[AUTH][:4] == b"\2\0\0\0" and len(gateway.got[AUTH]) == 36
    assert gateway.got[CP] == b"\1\0\0\0\0\1\0\0"
    assert gateway.got[SA] == proposal(1, 3, gateway.spi_sensor, ESP)
    assert int.from_bytes(gateway.spi_sensor, "big") > 255
    anything = selector(bytes(4), b"\xff" * 4)
    assert gateway.got[TSI] == anything and gateway.got[TSR] == anything


@item("MIN-28")
def test_initial_contact_is_left_out_while_another_sa_of_ours_lives():
    node, gateway = Node(profile(), Rand(b"pair")), Responder()
    (request,) = node.start(initial_contact=False)
    (request,) = node.receive(gateway.init(request))
    gateway.read_auth(request)
    assert (INITIAL_CONTACT, b"") not in gateway.auth_notifies


def test_a_fixed_inner_address_asks_for_no_configuration():
    node, gateway, request = authenticating(inner_address="10.9.1.7", remote_ts="10.3.0.0/16")
    gateway.read_auth(request)
    mine = bytes((10, 9, 1, 7))
    assert CP not in gateway.got
    assert gateway.got[TSI] == selector(mine, mine)
    assert gateway.got[TSR] == selector(bytes((10, 3, 0, 0)), bytes((10, 3, 255, 255)))
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"
    assert node.child["inner"] == mine


@item("MIN-39")
def test_identities_of_every_kind_go_out_as_their_type():
    for text, body in (
        ("sensor-1.example.org", b"\2\0\0\0sensor-1.example.org"),
        ("fqdn:cellar", b"\2\0\0\0cellar"),
        ("a@b.example", b"\3\0\0\0a@b.example"),
        ("email:a@b", b"\3\0\0\0a@b"),
        ("keyid:seven", b"\x0b\0\0\0seven"),
        ("keyid:0x00ff", b"\x0b\0\0\0\0\xff"),
        ("10.9.0.5", b"\1\0\0\0\x0a\x09\0\5"),
        ("ipv4:10.9.0.5", b"\1\0\0\0\x0a\x09\0\5"),
    ):
        node, gateway, request = authenticating(id=text)
        gateway.read_auth(request)
        assert gateway.got[IDI] == body and gateway.authentic, text
        assert node.receive(gateway.auth(request)) == [] and node.state == "UP", text


@item("MIN-27")
def test_any_gateway_is_not_named_in_the_request():
    node, gateway, request = authenticating(gateway_id="any")
    gateway.read_auth(request)
    assert IDR not in gateway.got
    gateway.ident = (11, b"whoever")
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"


@item("MIN-26")
def test_a_provisioned_pad_serves_like_the_secret_itself():
    for psk in (b"correct horse", bytes(range(70)), PSK):
        gateway = Responder(psk)
        pad = prf(psk, b"Key Pad for IKEv2")
        for secrets in ({"psk": "0x" + psk.hex()}, {"psk_pad": "0x" + pad.hex()}):
            established(Responder(psk), secrets=secrets)
        node, gateway, request = authenticating(gateway, secrets={"psk": "another"})
        gateway.read_auth(request)
        assert not gateway.authentic


def test_a_sensor_behind_all_proposals_offers_each_under_the_same_spi():
    node, gateway, request = authenticating(esp=["aes128ccm16", "aes128ccm8"])
    gateway.read_auth(request)
    spi = gateway.spi_sensor
    first = changed(proposal(1, 3, spi, [(1, 16, 128), (5, 0, 0)]), 0, 2)
    assert gateway.got[SA] == first + proposal(2, 3, spi, ESP)
    for choice in ((1, 16), (2, 14)):
        gateway = Responder(esp=choice)
        node, gateway = established(gateway, esp=["aes128ccm16", "aes128ccm8"])
        assert node.child["picked"][1] == (choice[1], 128)
        assert gateway.read_esp(node.send(b"reading"))[1] == 1


# Who answers


@item("MIN-27")
def test_an_answer_by_someone_without_the_secret_is_refused():
    def other_secret(payloads):
        return with_body(payloads, AUTH, b"\2\0\0\0" + bytes(32))

    node, gateway, out = answered(other_secret)
    failed(node, "peer", "AUTH does not verify")
    refuses(gateway, out)


@item("MIN-27")
def test_every_bit_of_the_responders_auth_counts():
    for at in range(36):
        for bit in (1, 0x80):
            # The three octets after the method are RESERVED.
            expected = "UP" if at in (1, 2, 3) else "DOWN"
            node, gateway, out = answered(
                lambda p: [(k, changed(b, at, b[at] ^ bit)) if k == AUTH else (k, b) for k, b in p]
            )
            assert node.state == expected, at


@item("MIN-27")
def test_a_responders_auth_of_a_wrong_length_or_method_is_refused():
    for change in (
        lambda body: body[:-1],
        lambda body: body + b"\0",
        lambda body: body[:4],
        lambda body: b"",
        lambda body: b"\1" + body[1:],
        lambda body: b"\x0d" + body[1:],
    ):
        node, gateway, out = answered(
            lambda p: [(k, change(b)) if k == AUTH else (k, b) for k, b in p]
        )
        failed(node, "peer", "AUTH does not verify")


@item("MIN-27")
def test_our_own_auth_reflected_is_refused():
    node, gateway, request = authenticating(gateway_id="any")
    gateway.read_auth(request)
    mine = gateway.got[AUTH], gateway.got[IDI]
    answer = gateway.auth(request, lambda p: with_body(with_body(p, AUTH, mine[0]), IDR, mine[1]))
    node.receive(answer)
    failed(node, "peer", "AUTH does not verify")


@item("MIN-27")
def test_an_authentic_gateway_of_another_name_is_refused():
    for ident in (
        (2, b"other.example.org"),
        (2, b"gw.example.or"),
        (2, b"gw.example.org2"),
        (3, b"gw.example.org"),
        (11, b"gw.example.org"),
        (2, b""),
    ):
        gateway = Responder()
        gateway.ident = ident
        node, gateway, out = answered(gateway=gateway)
        failed(node, "peer", "IDr is not gateway_id")
        refuses(gateway, out)


@item("MIN-27")
def test_an_answer_without_auth_or_identity_is_refused():
    for kind in (AUTH, IDR):
        node, gateway, out = answered(lambda p, k=kind: with_body(p, k, None))
        failed(node, "peer", "no AUTH payload")
        refuses(gateway, out)
    node, gateway, out = answered(lambda p: [])
    failed(node, "peer", "no AUTH payload")


@item("MIN-27")
def test_auth_covers_the_whole_first_answer_as_it_came():
    node, gateway, request = authenticating()
    gateway.response_octets = changed(gateway.response_octets, 40, 0xAA)
    node.receive(gateway.auth(request))
    failed(node, "peer", "AUTH does not verify")


# What it says instead


@item("MIN-31", "MIN-38")
def test_each_refusal_of_the_gateway_surfaces_by_its_number():
    for kind in (7, 14, 24, 34, 35, 36, 37, 38, 43, 44, 8192, 16383):
        node, gateway, out = answered(lambda p, k=kind: [notify(k)])
        failed(node, "notify", kind)
        assert out == []


@item("MIN-30", "MIN-31", "MIN-38")
def test_a_refused_child_ends_an_authentic_sa_with_a_delete():
    for kind in (14, 36, 37, 38, 43, 12345):
        node, gateway, out = answered(lambda p, k=kind: p[:2] + [notify(k)])
        failed(node, "notify", kind)
        deletes(gateway, out)
    # Even beside a Child SA an error is an error.
    node, gateway, out = answered(lambda p: p + [notify(9999)])
    failed(node, "notify", 9999)


@item("MIN-30")
def test_an_answer_without_child_and_without_reason_ends_with_a_delete():
    for kind in (SA, TSI, TSR):
        node, gateway, out = answered(lambda p, k=kind: with_body(p, k, None))
        failed(node, "peer", "no Child SA")
        deletes(gateway, out)


@item("MIN-10", "MIN-31")
def test_what_we_do_not_know_is_ignored():
    node, gateway, out = answered(
        lambda p: [(V, b"vendor"), (201, b"?")] + p + [notify(16396, bytes(8)), notify(60000)]
    )
    assert node.state == "UP" and out == []


@item("MIN-09", "MIN-11")
def test_a_critical_payload_that_we_do_not_know_makes_no_answer():
    node, gateway, request = authenticating()
    dropped(node, gateway.auth(request, lambda p: p + [(201, b"", True)]), "CRITICAL_PAYLOAD")
    node.receive(gateway.auth(request, lambda p: [payload + (True,) for payload in p]))
    assert node.state == "UP"


# The Child SA


@item("MIN-18", "MIN-32")
def test_a_child_that_is_no_choice_out_of_our_offer_is_refused():
    spi = b"spi4"
    for what, body in (
        ("number", proposal(2, 3, spi, ESP)),
        ("protocol", proposal(1, 2, spi, ESP)),
        ("ICV", proposal(1, 3, spi, [(1, 16, 128), (5, 0, 0)])),
        ("key length", proposal(1, 3, spi, [(1, 14, 256), (5, 0, 0)])),
        ("ESN", proposal(1, 3, spi, [(1, 14, 128), (5, 1, 0)])),
        ("integrity", proposal(1, 3, spi, ESP + [(3, 12, 0)])),
        ("DH", proposal(1, 3, spi, ESP + [(4, 31, 0)])),
        ("no cipher", proposal(1, 3, spi, [(5, 0, 0)])),
        ("SPI of 8", proposal(1, 3, bytes(8), ESP)),
        ("no SPI", proposal(1, 3, b"", ESP)),
        ("two", changed(proposal(1, 3, spi, ESP), 0, 2) + proposal(2, 3, spi, ESP)),
        ("octets of no meaning", b"\xff" * 20),
        ("nothing", b""),
    ):
        node, gateway, out = answered(lambda p, b=body: with_body(p, SA, b))
        assert node.state == "DOWN" and node.all("failed") == [("failed", "peer", "BAD_SA")], what
        deletes(gateway, out)


@item("MIN-32")
def test_each_direction_has_its_own_key():
    node, gateway = established()
    spi, sn, inside = gateway.read_esp(node.send(b"t=21.5"))
    assert (spi, sn) == (gateway.spi_esp, 1) and inside.endswith(b"t=21.5")
    assert inside[12:20] == ASSIGNED + SERVER
    back = changed(inside, 12, *(SERVER + ASSIGNED))
    assert node.receive(gateway.esp(back)) == []
    assert node.got == [b"t=21.5"]
    node.receive(gateway.esp(inside))
    assert node.drops == {"INNER_ADDRESS": 1}


@item("MIN-29")
def test_selectors_may_be_narrowed():
    one = bytes((10, 3, 0, 10))
    for ts_r in (
        selector(bytes((10, 3, 0, 0)), bytes((10, 3, 255, 255))),
        selector(one, one),
        selector(one, one, 17),
        selector(one, one, 17, (5000, 5000)),
        b"\2" + selector(OTHER, OTHER)[1:] + selector(one, one)[4:],
    ):
        gateway = Responder()
        gateway.ts_r = ts_r
        established(gateway)
    for ports in ((0, 65535), (5000, 5000), (1024, 6000)):
        gateway = Responder()
        gateway.ts_i = selector(ASSIGNED, ASSIGNED, 17, ports)
        established(gateway)


@item("MIN-29")
def test_selectors_are_never_widened():
    wide = selector(bytes((10, 2, 0, 0)), bytes((10, 3, 255, 255)))
    above = selector(bytes((10, 3, 0, 0)), bytes((10, 4, 0, 0)))
    backwards = selector(bytes((10, 3, 255, 255)), bytes((10, 3, 0, 0)))
    for ts_r in (wide, above, backwards, selector(bytes(4), b"\xff" * 4)):
        gateway = Responder()
        gateway.ts_r = ts_r
        node, gateway, out = answered(gateway=gateway, remote_ts="10.3.0.0/16")
        failed(node, "peer", "traffic selectors wider than asked for")
        deletes(gateway, out)
    gateway = Responder()
    gateway.ts_i = selector(bytes((10, 9, 1, 7)), bytes((10, 9, 1, 8)))
    node, gateway, out = answered(gateway=gateway, inner_address="10.9.1.7")
    failed(node, "peer", "traffic selectors wider than asked for")


@item("MIN-29")
def test_selectors_that_leave_us_or_the_server_out_are_refused():
    for change, complaint in (
        ({"ts_r": selector(OTHER, OTHER)}, "TSr without server"),
        ({"ts_r": selector(SERVER, SERVER, 6)}, "TSr without server"),
        ({"ts_r": selector(SERVER, SERVER, 17, (5001, 6000))}, "TSr without server"),
        ({"ts_r": bytes(4)}, "TSr without server"),
        ({"ts_i": selector(OTHER, OTHER)}, "TSi without our inner address"),
        ({"ts_i": selector(ASSIGNED, ASSIGNED, 17, (1, 2))}, "TSi without our inner address"),
        ({"ts_i": bytes(4)}, "TSi without our inner address"),
        ({"ts_i": b"\xff" * 20}, "BAD_TS"),
        ({"ts_r": b""}, "BAD_TS"),
    ):
        gateway = Responder()
        for name, value in change.items():
            setattr(gateway, name, value)
        node, gateway, request = authenticating(gateway)
        gateway.read_auth(request)
        answer = gateway.auth(
            request,
            lambda p: with_body(
                with_body(p, TSI, change.get("ts_i", selector(ASSIGNED, ASSIGNED))),
                TSR,
                change.get("ts_r", selector(SERVER, SERVER)),
            ),
        )
        out = node.receive(answer)
        failed(node, "peer", complaint)
        deletes(gateway, out)


def test_an_ipv6_selector_for_an_ipv4_offer_is_refused():
    six = b"\1\0\0\0\x08\0\0\x28\0\0\xff\xff" + bytes(16) + b"\xff" * 16
    gateway = Responder()
    gateway.ts_r = six
    node, gateway, out = answered(gateway=gateway)
    failed(node, "peer", "traffic selectors wider than asked for")


def test_an_assigned_address_is_needed_when_one_was_asked_for():
    for body in (
        None,
        b"\2\0\0\0",
        b"\2\0\0\0\0\1\0\0",
        b"\2\0\0\0\0\1\0\3\x0a\x09\0",
        b"\2\0\0\0\0\3\0\4" + ASSIGNED,
        b"\1\0\0\0\0\1\0\4" + ASSIGNED,
        b"\4\0\0\0\0\1\0\4" + ASSIGNED,
    ):
        node, gateway, out = answered(lambda p, b=body: with_body(p, CP, b))
        failed(node, "peer", "no inner address in CFG_REPLY")
        deletes(gateway, out)
    for body in (b"", b"\2\0\0", b"\2\0\0\0\0\1\0\x40" + ASSIGNED):
        node, gateway, out = answered(lambda p, b=body: with_body(p, CP, b))
        failed(node, "peer", "BAD_CP")


def test_other_attributes_beside_the_address_are_ignored():
    body = b"\2\0\0\0\0\2\0\4\xff\xff\xff\0\0\1\0\4" + ASSIGNED + b"\0\3\0\4\1\1\1\1"
    node, gateway, out = answered(lambda p: with_body(p, CP, body))
    assert node.state == "UP" and node.child["inner"] == ASSIGNED


# Wrong messages


@item("MIN-16")
def test_an_answer_with_a_wrong_header_is_dropped():
    node, gateway, request = authenticating()
    good = gateway.auth(request)
    for reason, octets in (
        ("UNKNOWN_SPI", changed(good, 4, good[4] ^ 1)),
        ("UNKNOWN_SPI", changed(good, 12, good[12] ^ 1)),
        ("BAD_VERSION", changed(good, 21, 0x30)),
        ("BAD_ICV", changed(good, 21, 0x21)),
        ("UNEXPECTED", changed(good, 22, 34)),
        ("OLD_MESSAGE_ID", changed(good, 27, 0)),
        ("OLD_MESSAGE_ID", changed(good, 27, 2)),
        ("BAD_ICV", changed(good, 23, R | 0x10)),
        ("REFLECTED", request),
        ("BAD_LENGTH", good[:-1]),
        ("BAD_LENGTH", good + b"\0"),
        ("BAD_PAYLOAD", changed(good, 20, 43)),
        ("NOT_PROTECTED", changed(good, 20, 43)[:32] + b"\0" + good[33:]),
    ):
        dropped(node, octets, reason)
    assert node.receive(good) == [] and node.state == "UP"


def test_an_answer_in_the_clear_is_dropped():
    from tools.dev.peers.responder import MARKER, message

    node, gateway, request = authenticating()
    for payloads in ([notify(AUTHENTICATION_FAILED)], [notify(14)], [(NONCE, bytes(32))], []):
        clear = MARKER + message(gateway.spi_i, gateway.spi_r, IKE_AUTH, R, 1, payloads)
        dropped(node, clear, "NOT_PROTECTED")
    assert not node.all("hint")
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"


@item("MIN-41")
def test_padding_of_any_size_that_fits_is_taken():
    for pad in (0, 1, 15, 100, 255):
        node, gateway, request = authenticating()
        gateway.read_auth(request)
        gateway.child_keys()
        assert node.receive(gateway.send(IKE_AUTH, R, 1, gateway.auth_payloads(), pad)) == []
        assert node.state == "UP", pad


def test_malformed_payloads_under_a_right_icv_are_dropped():
    node, gateway, request = authenticating()
    gateway.auth(request)
    for first, plain in (
        (IDR, b""),
        (IDR, b"\0\0\0\3"),
        (IDR, b"\0\0\xff\xff"),
        (N, b"\0\0\0\7\0\0\0"),
        (0, b"\0"),
        (AUTH, b"\x27\0\0\4" + b"\0\0\0\4"),
    ):
        answer = gateway.seal(IKE_AUTH, R, 1, first, plain)
        before = sum(node.ike.drops.values())
        assert node.receive(answer) == []
        assert node.state == "IKE_AUTH" and sum(node.ike.drops.values()) == before + 1, plain
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"


def test_an_answer_to_another_handshake_of_ours_is_dropped():
    node, gateway, request = authenticating(gateway=Responder())
    other, second, its_request = authenticating(gateway=Responder(), seed=b"other")
    dropped(node, second.auth(its_request), "UNKNOWN_SPI")
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"


# After it


def octets_of(value, depth=0):
    """Every octet string that can be reached from an object's attributes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        yield bytes(value)
    elif depth < 4:
        if isinstance(value, dict):
            value = list(value.values())
        elif not isinstance(value, (list, tuple)):
            value = list(getattr(value, "__dict__", {}).values())
        for inner in value:
            yield from octets_of(inner, depth + 1)


def secrets_in(node, *secrets):
    """Those of the secrets that the sensor still holds."""
    held = list(octets_of(node.ike))
    return [secret for secret in secrets if any(secret in octets for octets in held)]


@item("MIN-27")
def test_the_keys_of_the_handshake_are_let_go_of():
    node, gateway, request = authenticating()
    keys = gateway.sk_d, gateway.sk_pi, gateway.sk_pr
    assert secrets_in(node, *keys) == list(keys), "this test looks at the wrong place"
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"
    assert secrets_in(node, *keys, gateway.n_i, gateway.nonce) == []
    node, gateway, out = answered(lambda p: [notify(24)])
    keys = gateway.sk_d, gateway.sk_pi, gateway.sk_pr
    assert secrets_in(node, *keys, gateway.n_i, gateway.nonce) == []


def test_the_up_event_carries_all_that_esp_needs():
    node, gateway = established()
    child = node.child
    assert child["spi_in"] == gateway.spi_sensor and child["spi_out"] == gateway.spi_esp
    assert child["cipher"] == 14 and child["inner"] == ASSIGNED
    assert child["key_in"] != child["key_out"] and len(child["key_in"]) == 19


def test_keys_are_told_only_when_the_profile_names_a_key_log():
    node, gateway = established()
    assert not node.all("keys")
    node = Node(profile(SECRETS, keylog="keys.txt"), Rand(b"keys"))
    (request,) = node.start()
    node.receive(Responder().init(request))
    assert len(node.all("keys")) == 1


def test_a_chosen_ke_payload_in_ike_auth_is_ignored():
    node, gateway, out = answered(lambda p: p + [(KE, bytes(36))])
    assert node.state == "UP"


@item("B4")
def test_an_spi_of_0_to_255_is_refused_and_no_packet_leaves():
    """RFC 4303 §2.1: 0 never goes over a wire, 1 to 255 are reserved."""
    for value in (0, 1, 4, 254, 255):
        gateway = Responder()
        gateway.spi_esp = value.to_bytes(4, "big")
        node, gateway, out = answered(gateway=gateway)
        failed(node, "peer", "its SPI for ESP is one of 0 to 255, which are reserved")
        deletes(gateway, out)
        assert node.sender is None
    gateway.spi_esp = (256).to_bytes(4, "big")
    node, gateway = established(gateway)
    assert node.send(b"reading")[:4] == b"\0\0\1\0"


@item("B4")
def test_an_spi_of_another_length_than_4_is_refused():
    for size in (0, 1, 3, 5, 8):
        body = proposal(1, 3, b"\xc0" * size, [(1, 16, 128), (5, 0, 0)])
        node, gateway, out = answered(lambda payloads, body=body: with_body(payloads, SA, body))
        failed(node, "peer", "BAD_SA")
        deletes(gateway, out)


@item("B4")
def test_none_of_our_own_spis_is_reserved_whatever_the_random_octets():
    class Low:
        """Octets as of a source that gives small numbers first."""

        def __init__(self):
            self.asked = {4: [0, 1, 255], 8: [0, 1, 255]}
            self.good = Rand(b"low")

        def __call__(self, n):
            left = self.asked.get(n)
            return left.pop(0).to_bytes(n, "big") if left else self.good(n)

    rand = Low()
    node = Node(profile(), rand)
    gateway = Responder()
    (request,) = node.start()
    (request,) = node.receive(gateway.init(request))
    gateway.auth(request)
    assert not rand.asked[4] and not rand.asked[8]
    assert int.from_bytes(gateway.spi_sensor, "big") > 255
    assert gateway.spi_i[:3] != bytes(3)
