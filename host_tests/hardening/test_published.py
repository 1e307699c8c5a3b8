"""Published flaws of IKE and ESP implementations, tried on ours.

Each test names the flaw it repeats. firmware/docs/flaws.md says
what went wrong there and why it can or cannot happen here.
"""

import json
import re
import struct
import tracemalloc

import pytest

from tools.dev.peers.stage import (
    DELETE_IKE,
    IN_STATE,
    UNDER_KEYS,
    Gateway,
    assert_dropped,
    halfway,
    picture,
    replaced,
    spoilt,
    started,
    up,
    waiting,
    without,
)
from tools.dev.peers.node import LOCAL, REMOTE, SECRETS, remember_exchanges
from tools.dev.peers.messages import header
from tools.dev.peers.responder import (
    AUTH,
    CREATE_CHILD_SA,
    GATEWAY_ID,
    IDR,
    IKE_AUTH,
    IKE_SA_INIT,
    INFORMATIONAL,
    KE,
    NONCE,
    SA,
    TSI,
    TSR,
    D,
    I,
    N,
    R,
    message,
    notify,
)
from minipsec.app import log
from minipsec.config import profile
from minipsec.esp import inner
from minipsec.ike.sa import spi

SKF = 53
EAP = 48
REKEY_SA = 16393


@pytest.fixture(scope="module", autouse=True)
def quick_exchanges():
    restore = remember_exchanges()
    yield
    restore()


def reading(node, payload=b"down", source=None, edit=None):
    """An inner IPv4 packet for the sensor, as its server would send it."""
    child = node.child
    template = inner.header(source or child["server"], child["inner"], 5000, 5000)
    packet = bytearray(len(template) + len(payload))
    inner.complete(packet, 0, template, payload)
    if edit:
        edit(packet)
        packet[10:12] = b"\0\0"
        packet[10:12] = struct.pack(">H", 0xFFFF - inner.checksum(packet[:20]))
    return bytes(packet)


# IKE_SA_INIT, which nobody has authenticated.


@pytest.mark.parametrize("size", [32, 256, 2500])
def test_cve_2008_4551_a_key_exchange_of_nothing_but_zeros(size):
    node, gateway = started()
    answer = gateway.init(node.out[-1], replaced(KE, lambda body: body[:4] + bytes(size)))
    assert assert_dropped(node, answer) == "BAD_KE"


def test_cve_2015_3240_a_public_value_of_zero():
    for group, size in (("x25519", 32), ("ecp256", 64), ("modp2048", 256)):
        node, gateway = started(ike=["aes128ccm16-prfsha256-" + group])
        ident = {"x25519": 31, "ecp256": 19, "modp2048": 14}[group]
        gateway.read_init(node.out[-1])
        payloads = [
            (SA, gateway.init_got[SA]),
            (KE, struct.pack(">HH", ident, 0) + bytes(size)),
            (NONCE, bytes(range(32))),
        ]
        answer = message(gateway.spi_i, gateway.spi_r, IKE_SA_INIT, R, 0, payloads)
        assert assert_dropped(node, answer) == "BAD_KE"


@pytest.mark.parametrize("group", [1025, 0, 14, 65535])
def test_cve_2014_9221_a_key_exchange_for_a_group_that_nobody_offered(group):
    node, gateway = started()
    ident = struct.pack(">H", group)
    assert assert_dropped(
        node, gateway.init(node.out[-1], replaced(KE, lambda body: ident + body[2:]))
    )
    assert_dropped(node, gateway.refuse_init(node.out[-1], notify(17, ident)))


@pytest.mark.parametrize("size", [33, 64, 256, 384, 2000])
def test_cve_2023_41913_a_public_value_longer_than_its_group_has(size):
    node, gateway = started()
    answer = gateway.init(node.out[-1], replaced(KE, lambda body: body[:4] + b"\x55" * size))
    assert assert_dropped(node, answer) == "BAD_KE"


@pytest.mark.parametrize("kind", [SA, KE, NONCE])
def test_cve_2013_6467_an_answer_that_lacks_a_payload(kind):
    node, gateway = started()
    assert assert_dropped(node, gateway.init(node.out[-1], without(kind))) == "BAD_INIT"


def test_cve_2009_1957_a_bad_first_answer_and_then_a_request():
    node, gateway = waiting()
    assert_dropped(node, gateway.init(node.out[-1], without(NONCE)))
    for payloads in ([], [(SA, b"")], [notify(REKEY_SA)]):
        assert_dropped(node, gateway.request(CREATE_CHILD_SA, payloads, mid=0))
        assert_dropped(node, gateway.request(INFORMATIONAL, payloads, mid=0))
    node.receive(gateway.init(node.out[0]))
    assert node.state == "IKE_AUTH"


def test_cve_2016_5361_one_spoofed_datagram_never_brings_more_than_one_back():
    """Nor is anything sent again unless a timer of ours, or the same request, asks for it."""
    for state in IN_STATE:
        node, gateway = IN_STATE[state]()
        due = node.ike.next_timer()
        for exchange in (34, 35, 36, 37, 43):
            for flags in (0, R, I, I | R):
                for marker in (b"", bytes(4)):
                    for spi_r in (bytes(8), node.ike.spi_r):
                        forged = message(node.ike.spi_i, spi_r, exchange, flags, 0, [])
                        assert node.receive(marker + forged) == []
        assert node.ike.next_timer() == due


def test_cve_2023_30570_old_versions_and_spis_of_nobody():
    for state in IN_STATE:
        node, gateway = IN_STATE[state]()
        spi_i, spi_r = node.ike.spi_i, node.ike.spi_r
        aggressive = header(spi_i, spi_r, 1, 4, 0, 0, 28, version=0x10)
        assert_dropped(node, aggressive)
        for strange in (bytes(8), b"\xff" * 8, spi_i, spi_r[:4] + bytes(4)):
            for exchange in (IKE_SA_INIT, IKE_AUTH, INFORMATIONAL):
                assert_dropped(node, message(spi_i, strange, exchange, R, 0, []))
                assert_dropped(node, message(b"\x01" + bytes(7), spi_r, exchange, R, 0, []))


@pytest.mark.parametrize("length", [0, 27, 29, 65535, 0x7FFFFFFF, 0xFFFFFFFF])
def test_cve_2004_0403_a_length_field_that_promises_much_costs_nothing(length):
    node, gateway = up()
    datagram = bytearray(gateway.request(INFORMATIONAL, []))
    datagram[28:32] = struct.pack(">I", length)
    tracemalloc.start()
    try:
        for place in range(20):
            assert_dropped(node, bytes(datagram))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        node.receive(bytes(datagram))
        assert tracemalloc.get_traced_memory()[1] - before < 4096
    finally:
        tracemalloc.stop()


def test_cve_2016_6415_no_answer_holds_octets_that_were_not_meant_for_it():
    """What the core sends before there are keys holds nothing but what it drew or was told.

    The flaw: a length from the peer's own payload decided how much memory was sent back.
    """
    node, gateway = started()
    (first,) = node.out
    cookie = bytes(range(64))
    (second,) = node.receive(gateway.refuse_init(first, notify(16390, cookie)))
    assert second[28:36] == struct.pack(">BBHBBH", SA, 0, 72, 0, 0, 16390)
    assert second[36:100] == cookie and second[100:] == first[28:]
    for size in (0, 65, 200):
        assert_dropped(node, gateway.refuse_init(first, notify(16390, bytes(size))))
    body = struct.pack(">BBH", 0, 200, 16390) + cookie  # an SPI Size beyond the payload
    assert_dropped(node, gateway.refuse_init(first, (N, body)))


# Who are you?


@pytest.mark.parametrize("kind", [TSI, TSR])
def test_cve_2009_1958_an_answer_without_one_of_its_selectors(kind):
    node, gateway = halfway()
    node.receive(gateway.auth(node.out[-1], without(kind)))
    assert node.state == "DOWN" and node.all("failed") == [("failed", "peer", "no Child SA")]


def test_cve_2014_2338_a_rekey_does_not_make_a_stranger_trusted():
    for kind in (CREATE_CHILD_SA, INFORMATIONAL):
        node, gateway = halfway()
        offer = [(SA, b"\0\0\0\x08\x01\x01\x00\x00"), (NONCE, bytes(32)), (KE, bytes(36))]
        (answer,) = node.receive(gateway.request(kind, offer))
        expected = [notify(35)] if kind == CREATE_CHILD_SA else []
        assert gateway.answers(answer) == expected
        assert node.state == "IKE_AUTH" and not node.all("up") and node.child is None


def test_cve_2015_4171_nothing_of_value_is_sent_to_a_gateway_that_proved_nothing():
    """What goes out before the gateway's AUTH: our identity, and a MAC under the whole secret."""
    node, gateway = halfway()
    gateway.read_auth(node.out[-1])
    sent = b"".join(gateway.got.values())
    psk = bytes.fromhex(SECRETS["psk"][2:])
    assert psk not in sent and gateway.pad not in sent
    # A wrong AUTH, an AUTH for another name, and none at all: no reading ever leaves.
    for edit in (
        replaced(AUTH, lambda body: body[:-1] + bytes((body[-1] ^ 1,))),
        replaced(IDR, lambda body: body[:4] + b"evil.example.org"),
        without(AUTH),
    ):
        node, gateway = halfway()
        node.receive(gateway.auth(node.out[-1], edit))
        assert node.state == "DOWN" and node.sender is None


@pytest.mark.parametrize("body", [b"\x03\x01\x00\x04", b"\x01\x01\x00\x05\x01", b""])
def test_cve_2021_45079_success_said_early_is_no_proof(body):
    for payloads in ([(EAP, body)], [(EAP, body), (IDR, b"\2\0\0\0" + GATEWAY_ID[1])]):
        node, gateway = halfway()
        gateway.read_auth(node.out[-1])
        node.receive(gateway.send(IKE_AUTH, R, 1, payloads))
        assert node.state == "DOWN"
        assert node.all("failed") == [("failed", "peer", "no AUTH payload")]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 0xFFFF])
def test_cve_2026_25075_lengths_inside_of_an_eap_payload_are_nobodys_business(size):
    """EAP is not spoken: its octets are never parsed, in a response or in a request."""
    body = struct.pack(">BBHB", 1, 1, size, 21) + b"\x80" + struct.pack(">I", size) * 4
    node, gateway = halfway()
    node.receive(gateway.auth(node.out[-1], lambda payloads: [*payloads, (EAP, body)]))
    assert node.state == "UP"
    (answer,) = node.receive(gateway.request(INFORMATIONAL, [(EAP, body)]))
    assert gateway.answers(answer) == [] and node.state == "UP"


def test_cve_2020_16088_a_key_that_fits_someone_else_is_not_the_gateways():
    """AUTH and identity belong together: each right alone, but not the other's, is refused."""

    class Other(Gateway):
        def __init__(self):
            super().__init__()
            self.ident = (2, b"other.example.org")

    node, gateway = halfway(Other())
    node.receive(gateway.auth(node.out[-1]))
    assert [e[:3] for e in node.all("failed")] == [("failed", "peer", "IDr is not gateway_id")]
    swapped = replaced(IDR, lambda body: body[:4] + GATEWAY_ID[1])
    node, gateway = halfway(Other())
    node.receive(gateway.auth(node.out[-1], swapped))
    assert node.all("failed") == [("failed", "peer", "AUTH does not verify")]
    node, gateway = halfway(Gateway(psk=bytes(32)))
    gateway.read_auth(node.out[-1])
    gateway.child_keys()
    node.receive(gateway.send(IKE_AUTH, R, 1, gateway.auth_payloads()))
    assert node.all("failed") == [("failed", "peer", "AUTH does not verify")]


def test_cve_2024_2357_a_sensor_without_a_secret_says_so_before_it_starts(tmp_path):
    for secrets in ({}, {"ppk": "0x" + "11" * 32}, {"psk": ""}):
        with pytest.raises(profile.ProfileError, match="^secrets: (psk: )?expected"):
            profile.check_secrets(secrets)
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"gateway": "192.0.2.1", "gateway_id": "any", "id": "a.b",
                                "server": "10.3.0.10"}))  # fmt: skip
    with pytest.raises(profile.ProfileError, match="^secrets: cannot read"):
        profile.load_profile(str(path))


def test_cve_2018_5389_a_gateway_that_only_pretends_can_test_guesses_of_the_secret():
    """This one does happen here, as in all of IKEv2: RFC 7296 §2.15 asks for PSKs of full entropy.

    An active attacker answers IKE_SA_INIT, reads IKE_AUTH and tries secrets against its AUTH.
    Nobody on the path who only listens can: that takes the key exchange.
    """
    node, gateway = started(secrets={"psk": "sunshine"})
    node.receive(gateway.init(node.out[-1]))
    gateway.read_auth(node.out[-1])
    assert not gateway.authentic
    gateway.psk = b"sunshine"
    gateway.read_auth(node.out[-1])
    assert gateway.authentic
    gateway.psk = b"sunshine!"
    gateway.read_auth(node.out[-1])
    assert not gateway.authentic


# An SA that stands.


@pytest.mark.parametrize("state", UNDER_KEYS)
def test_cve_2009_0790_liveness_checks_of_nobody(state):
    node, gateway = IN_STATE[state]()
    spi_i, spi_r = node.ike.spi_i, node.ike.spi_r
    for flags in (0, R, I, I | R):
        for mid in (0, 1, 2, 0xFFFFFFFF):
            assert_dropped(node, message(spi_i, spi_r, INFORMATIONAL, flags, mid, []))
            assert_dropped(node, spoilt(gateway.bend(INFORMATIONAL, flags & ~I, mid)))


@pytest.mark.parametrize("state", UNDER_KEYS)
def test_cve_2019_10155_no_informational_message_counts_without_its_icv(state):
    node, gateway = IN_STATE[state]()
    for payloads in ([], [DELETE_IKE], [notify(24)]):
        genuine = gateway.request(INFORMATIONAL, payloads, mid=0)
        for at in range(len(genuine) - 16 - 9, len(genuine)):
            bent = bytearray(genuine)
            bent[at] ^= 0x40
            assert assert_dropped(node, bytes(bent)) == "BAD_ICV"


def test_cve_2023_38710_a_rekey_of_a_protocol_that_is_none():
    for protocol in (0, 1, 2, 3, 4, 255):
        node, gateway = up()
        body = struct.pack(">BBH", protocol, 4, REKEY_SA) + b"\xc0\xff\xee\x01"
        (answer,) = node.receive(gateway.request(CREATE_CHILD_SA, [(N, body), (SA, b"")]))
        assert gateway.answers(answer) == [notify(35)]
        assert node.state == "UP"


def test_cve_2023_38712_what_comes_behind_a_delete_or_after_it():
    node, gateway = up()
    esp = (D, struct.pack(">BBH", 3, 4, 1) + gateway.spi_esp)
    many = [DELETE_IKE, DELETE_IKE, esp, notify(24), (D, b""), (D, b"\1\0\xff\xff")]
    request = gateway.request(INFORMATIONAL, many)
    (answer,) = node.receive(request)
    assert gateway.answers(answer) == []
    assert node.state == "DOWN" and node.all("deleted") == [("deleted",)]
    for late in (
        request,
        gateway.request(INFORMATIONAL, many),
        gateway.request(INFORMATIONAL, []),
    ):
        assert_dropped(node, late)


def test_cve_2023_28771_what_a_stranger_says_is_never_text_of_ours(capsys):
    """A notify's data is a stranger's: it is neither logged nor handed to anything."""
    command = b"`reboot`;$(reboot)\n{\"event\": \"up\"}"
    node, gateway = started(retransmit_tries=1)
    node.receive(gateway.refuse_init(node.out[-1], notify(14, command), notify(24, command)))
    while node.ike.next_timer() is not None:
        node.timer(node.ike.next_timer())
    told = repr(node.events)
    assert "reboot" not in told
    # What a peer with keys may have printed is one JSON string: no line of its own.
    log.reporter("json")("reply", {"octets": len(command), "data": command})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["data"] == command.decode()


# Lengths.


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 17, 40, 65535])
def test_cve_2023_23009_a_selector_of_a_wrong_length(size):
    for kind in (TSI, TSR):
        node, gateway = halfway()
        body = struct.pack(">B3xBBHHH", 1, 7, 0, size, 0, 65535) + bytes(4) + b"\xff" * 4
        node.receive(gateway.auth(node.out[-1], replaced(kind, lambda _: body)))
        assert node.state == "DOWN" and not node.all("up")
        (failed,) = node.all("failed")
        assert failed[1] == "peer"


def fragment(gateway, number, total, piece, exchange=IKE_AUTH, flags=R, mid=1, first=0):
    place = struct.pack(">HH", number, total)
    chain = (first, piece)
    return gateway.bend(exchange, flags, mid, chain=chain, kind=SKF, place=place)


def fragments_agreed():
    node, gateway = started(fragment_size=128)
    gateway.notifies = [(16430, b"")]
    node.receive(gateway.init(node.out[-1]))
    assert node.state == "IKE_AUTH" and node.ike.fragmentation
    return node, gateway


def test_cve_2009_1574_a_fragment_without_a_payload():
    node, gateway = fragments_agreed()
    for number in (1, 2):
        assert_dropped(node, fragment(gateway, number, 2, b""))
    spi_i, spi_r = node.ike.spi_i, node.ike.spi_r
    for size in range(12):
        assert_dropped(node, message(spi_i, spi_r, IKE_AUTH, R, 1, [(SKF, bytes(size))]))


@pytest.mark.parametrize("number", [0, 3, 65535])
def test_cve_2016_1287_fragment_numbers_and_lengths_that_do_not_add_up(number):
    """There the sum of lengths, each with a header taken off, made a buffer that was too small."""
    node, gateway = fragments_agreed()
    assert assert_dropped(node, fragment(gateway, number, 2, bytes(8))) == "BAD_FRAGMENT"
    for length in (1, 2, 3, 0, 7, 11):
        place = bytes((0, 1, 0, 2))
        body = struct.pack(">BBH", 0, 0, length) + place + bytes(40)
        head = header(node.ike.spi_i, node.ike.spi_r, SKF, 35, R, 1, 28 + len(body))
        assert_dropped(node, head + body)
    # Whatever their sizes are, the message is as long as its pieces together.
    pieces = [b"\x11", b"\x22" * 200, b"\x33" * 2]
    for at, piece in enumerate(pieces):
        node.receive(fragment(gateway, at + 1, 4, piece))
    queue = node.ike.incoming[True]
    assert queue.octets == 203 and queue.missing() == [4]


def test_cve_2016_10396_fragments_in_the_worst_order_cost_as_much_as_in_the_best():
    """Work is counted in decryptions and in octets kept: one and its own for each fragment."""

    def run(order):
        node, gateway = fragments_agreed()
        calls = []
        real = node.ike.rx.open
        node.ike.rx.open = lambda *args: calls.append(1) or real(*args)
        for number in order:
            node.receive(fragment(gateway, number, 64, bytes(100)))
        return len(calls), node.ike.incoming[True].octets

    forward = list(range(1, 64))
    assert run(forward) == run(forward[::-1]) == (63, 6300)
    # All of them over and over: no further decryption.
    assert run(forward * 3) == (63, 6300)


def test_cve_2022_34721_datagrams_of_every_size_on_both_ports():
    """Where a marker, a header or an ICV is cut off, nothing is read behind the end."""
    for state in ("IKE_SA_INIT", "IKE_AUTH", "UP"):
        node, gateway = IN_STATE[state]()
        before = picture(node.ike)
        for marker in (b"", bytes(4)):
            head = marker + header(node.ike.spi_i, node.ike.spi_r, SKF, 35, R, 1, 3000)
            for size in [*range(len(head)), 64, 1000, 2999, 3000, 3004, 3005, 9000, 65507]:
                assert node.receive((head + bytes(65507))[:size]) == []
        assert picture(node.ike) == before


# ESP.


def test_cve_2005_0039_ciphertext_that_was_changed_is_never_looked_into():
    node, gateway = up()
    genuine = gateway.esp(reading(node))
    before = len(node.got)
    for at in range(16, len(genuine)):
        for bit in (0x01, 0x80):
            bent = bytearray(genuine)
            bent[at] ^= bit
            node.receive(bytes(bent))
    assert node.drops == {"BAD_ICV": 2 * (len(genuine) - 16)}
    assert len(node.got) == before and node.receiver.window.top == 0
    # Neither is there anything that would send an answer, such as an ICMP error.
    assert node.ike.poll_out() is None


def test_cve_2006_0905_the_window_moves_with_what_came():
    node, gateway = up()
    packets = [gateway.esp(reading(node, b"%d" % n)) for n in range(100)]
    for packet in packets:
        node.receive(packet)
    assert len(node.got) == 100
    for packet in packets:
        node.receive(packet)
    assert len(node.got) == 100 and node.drops == {"REPLAY": 100}
    assert node.receiver.window.top == 100


def test_cve_2022_27666_the_largest_payload_fits_and_one_octet_more_is_refused():
    """There a buffer was allocated for less than the message and its trailer need."""
    node, gateway = up()
    for pad_to in (0, 255):
        node.sender._pad_to = pad_to
        for size in (0, 1, 1199, 1200):
            packet = node.send(b"\x5a" * size, 10**6 + size)
            _, _, inside = gateway.read_esp(packet)
            assert inside[28:] == b"\x5a" * size
        with pytest.raises(ValueError):
            node.send(bytes(1201), 2 * 10**6)


def test_cve_2025_39965_an_spi_of_zero_is_nobodys():
    values = iter([bytes(4), b"\0\0\0\x01", b"\0\0\0\xff", b"\0\0\x01\0"])
    assert spi(lambda n: next(values), 4) == b"\0\0\x01\0"
    node, gateway = up()
    assert node.child["spi_in"] != bytes(4)
    packet = bytes(4) + gateway.esp(reading(node))[4:]
    node.receive(packet)
    assert not node.got


@pytest.mark.parametrize("first", [0x40, 0x41, 0x44, 0x45, 0x46, 0x4F, 0x00, 0x65])
@pytest.mark.parametrize("total", [0, 1, 19, 20, 27, 65535])
def test_cve_2026_31472_an_inner_length_of_nothing_ends_no_loop_late(first, total):
    node, gateway = up()

    def edit(packet):
        packet[0] = first
        packet[2:4] = struct.pack(">H", total)

    node.receive(gateway.esp(reading(node, edit=edit)))
    assert node.got == [] and sum(node.drops.values()) == 1
    (reason,) = node.drops
    assert reason.startswith("INNER_")
    node.receive(gateway.esp(reading(node)))
    assert node.got == [b"down"]


def test_cve_2019_14899_inner_packets_come_through_the_tunnel_or_not_at_all():
    """A neighbour sends to the inner address from outside, or tries addresses inside."""
    node, gateway = up()
    packet = reading(node)
    for outside in (packet, node.child["spi_in"] + packet, bytes(4) + packet):
        node.receive(outside)
    assert not node.got and node.ike.poll_out() is None
    for source in (bytes((10, 3, 0, 11)), bytes((127, 0, 0, 1)), node.child["inner"]):
        node.receive(gateway.esp(reading(node, source=source)))
    assert not node.got and node.drops["INNER_ADDRESS"] == 3


def test_cve_2020_1749_no_reading_ever_leaves_in_the_clear():
    """Before IKE_AUTH is done nothing could carry one; then it is not among the octets."""
    for state in ("IDLE", "IKE_SA_INIT", "IKE_INTERMEDIATE", "IKE_AUTH"):
        assert IN_STATE[state]()[0].sender is None
    for mode in ("tunnel", "transport"):
        node, gateway = halfway(mode=mode)
        gateway.read_auth(node.out[-1])
        ends = struct.pack(">B3xBBHHH", 1, 7, 0, 16, 0, 65535)
        edits = [*gateway.auth_payloads(), notify(16391)]
        for kind, address in ((TSI, LOCAL[0]), (TSR, REMOTE[0])):
            if mode == "transport":
                edits = replaced(kind, lambda _, a=address: ends + a + a)(edits)
        gateway.child_keys()
        node.receive(gateway.send(IKE_AUTH, R, 1, edits))
        assert node.state == "UP", node.events
        packet = node.send(b"temperature 21.5", 1000)
        assert b"temperature" not in packet and node.child["server"] not in packet


# The page.


def test_the_page_has_a_row_for_each_flaw_and_a_test_for_each_row(root):
    section = (root / "firmware/docs/flaws.md").read_text()
    rows = [line for line in section.splitlines() if line.startswith("| CVE-")]
    assert len(rows) >= 20
    here = {name for name in globals() if name.startswith("test_cve_")}
    for row in rows:
        number = re.match(r"\| CVE-(\d{4}-\d+) ", row).group(1).replace("-", "_")
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        mine = [name for name in here if name.startswith(f"test_cve_{number}_")]
        assert mine == named[:1], (number, named)
    assert len(rows) == len(here)


def test_every_test_that_the_page_names_exists(root):
    pages = ("flaws.md", "security.md", "sleep.md", "minimal-esp.md")
    sections = "".join([(root / "firmware/docs" / page).read_text() for page in pages])
    sources = [path.read_text() for path in (root / "host_tests").rglob("*.py")]
    defined = {name for source in sources for name in re.findall(r"\bdef (test_\w+)", source)}
    named = set(re.findall(r"`(test_\w+)`", sections))
    assert len(named) >= 30
    assert not named - defined
    for path in re.findall(r"`(host_tests/[\w./]+)`", sections):
        assert (root / path).exists(), path
