"""Cookies over any round trip: AUTH covers the request that was answered (RFC 7296 §2.6, §2.15)."""

from hashlib import sha256

from host_tests.checklist import item
from tools.dev.peers.node import Node, Rand, profile
from tools.dev.peers.pair import starting
from tools.dev.peers.responder import COOKIE, IKE_SA_INIT, MARKER, KE, N, Responder, notify

INVALID_KE = 17
LIFETIME_MS = 10000
GROUPS = ["aes128ccm16-prfsha256-ecp256", "aes128ccm16-prfsha256-x25519"]


class Gateway:
    """Many half-open SAs: each request of other octets is one of its own, as in strongSwan.

    `wants(now)` tells whether it asks for cookies then. A cookie is another one each second and
    good for ten. `group` is the one that it wants.
    """

    def __init__(self, wants, group=None):
        self.wants = wants
        self.group = group
        self.sas = {}  # octets of a request: (Responder, its answer)
        self.refused = 0
        self.up = self.failed = 0

    def receive(self, datagram, now):
        octets = datagram[4:] if datagram[:4] == MARKER else datagram
        if octets[18] != IKE_SA_INIT:
            for gateway, _ in self.sas.values():
                if gateway.spi_r == octets[8:16]:
                    gateway.read_auth(datagram)
                    if gateway.authentic:
                        self.up += 1
                        return gateway.auth(datagram)
                    self.failed += 1
            return None
        if octets in self.sas:
            return self.sas[octets][1]
        gateway = Responder()
        gateway.read_init(datagram)
        if self.wants(now) and not self.good(gateway, now):
            self.refused += 1
            return gateway.refuse_init(datagram, notify(COOKIE, cookie(gateway.spi_i, now)))
        if self.group and gateway.init_got[KE][:2] != self.group:
            return gateway.refuse_init(datagram, notify(INVALID_KE, self.group))
        if self.group:
            gateway.ike = 2, 16
        gateway.spi_r = sha256(octets).digest()[:8]
        answer = gateway.init(datagram)
        self.sas[octets] = gateway, answer
        return answer

    def good(self, gateway, now):
        found = [data for kind, data in gateway.init_notifies if kind == COOKIE]
        if gateway.order[0] != N or not found:
            return False
        made = int.from_bytes(found[0][:4], "big")
        return found[0] == cookie(gateway.spi_i, made) and now - made < LIFETIME_MS


def cookie(spi_i, now):
    made = now // 1000 * 1000
    return made.to_bytes(4, "big") + sha256(spi_i + b"%d" % made).digest()[:20]


def session(gateway, rtt, lost=(), twice=(), jitter=None, forge=None, **changes):
    """Return the sensor at its end: up, or down, or with nothing on its way.

    `lost` are numbers of datagrams, in the order in which either side sends them; `twice` those
    that come again 300 ms later. `jitter(number)` is what a datagram is late by. `forge(request,
    now)` returns what a stranger answers at once.
    """
    node = Node(profile(**changes), Rand(b"cookies"))
    under_way = []
    number = sent = 0

    def send(datagrams, now, there):
        nonlocal number, sent
        for datagram in datagrams:
            at = now + rtt // 2 + (jitter(number) if jitter else 0)
            if number not in lost:
                under_way.append((at, number, datagram, there))
            if number in twice:
                under_way.append((at + 300, number, datagram, there))
            number += 1
            if there:
                sent += 1
                for answer in forge(datagram, now) if forge else ():
                    under_way.append((now, number, answer, False))

    send(node.start(0), 0, True)
    now = 0
    while node.state not in ("UP", "DOWN"):
        due = node.ike.next_timer()
        if under_way:
            under_way.sort(key=lambda entry: entry[:2])
        if under_way and (due is None or under_way[0][0] <= due):
            now, _, datagram, there = under_way.pop(0)
            if there:
                answer = gateway.receive(datagram, now)
                send([answer] if answer else [], now, False)
            else:
                send(node.receive(datagram, now), now, True)
        else:
            assert due is not None and due >= now
            now = due
            send(node.timer(now), now, True)
    node.now, node.sent = now, sent
    return node


def always(now):
    return True


TRIPS = (0, 2, 100, 500, 900, 998, 1000, 1100, 1400, 2000, 2600, 3000, 3400, 4200, 5000)


@item("B2", "MIN-21")
def test_up_with_cookies_over_any_round_trip():
    for rtt in TRIPS:
        gateway = Gateway(always)
        node = session(gateway, rtt)
        assert node.state == "UP" and gateway.failed == 0, rtt
        # Where no resend is on its way the cookie goes back at once.
        if rtt < 1000:
            assert node.now == 3 * (rtt // 2 * 2) and node.sent == 3, (rtt, node.now)


@item("B2")
def test_up_with_cookies_and_another_group():
    for rtt in TRIPS:
        gateway = Gateway(always, group=b"\0\x1f")
        node = session(gateway, rtt, ike=GROUPS)
        assert node.state == "UP" and gateway.failed == 0, rtt


@item("B2")
def test_up_where_the_gateway_begins_or_ends_to_want_cookies_meanwhile():
    for rtt in TRIPS:
        for change in range(0, 8000, 500):
            for wants in (lambda now, at=change: now < at, lambda now, at=change: now >= at):
                gateway = Gateway(wants)
                node = session(gateway, rtt)
                assert node.state == "UP" and gateway.failed == 0, (rtt, change)


@item("B2")
def test_up_with_cookies_whichever_datagrams_are_lost_or_come_twice():
    for rtt in (0, 100, 900, 1400, 2600):
        for one in range(7):
            # Twice lost at such a round trip, the cookie is too old by then and time runs out.
            for two in range(one, 7 if rtt < 1000 else one + 1):
                gateway = Gateway(always)
                node = session(gateway, rtt, lost=(one, two))
                assert node.state == "UP" and gateway.failed == 0, (rtt, one, two)
                gateway = Gateway(always)
                node = session(gateway, rtt, twice=(one, two))
                assert node.state == "UP" and gateway.failed == 0, (rtt, one, two)


@item("B2")
def test_up_with_cookies_that_overtake_one_another():
    for rtt in (100, 900, 1400, 2600, 4200):
        for seed in range(12):
            gateway = Gateway(always)

            def late(number, seed=seed, rtt=rtt):
                return sha256(b"%d %d" % (seed, number)).digest()[0] * rtt // 2048

            node = session(gateway, rtt, jitter=late)
            assert node.state == "UP" and gateway.failed == 0, (rtt, seed)


@item("B2", "MIN-26")
def test_a_strangers_cookies_do_not_stop_it_where_the_gateway_wants_its_own():
    for rtt in (2, 100, 900, 1400, 2600):
        gateway = Gateway(always)
        forged = [0]

        def forge(request, now, forged=forged):
            octets = request[4:] if request[:4] == MARKER else request
            if octets[18] != IKE_SA_INIT or forged[0] == 3:
                return []
            forged[0] += 1
            cookies = [notify(COOKIE, b"forged %d" % (10 * forged[0] + n)) for n in range(5)]
            return [Responder().refuse_init(request, cookie) for cookie in cookies]

        node = session(gateway, rtt, forge=forge)
        assert node.state == "UP" and gateway.failed == 0, rtt


@item("B2", "MIN-21")
def test_a_flood_of_cookies_has_bounds_of_work_and_time():
    """One answer at once, and no more sendings than a gateway that is silent is worth."""
    node, gateway, request = starting()
    sent = 1
    for now in range(0, 31_001, 5):
        due = node.ike.next_timer()
        if due is not None and now >= due:
            sent += len(node.timer(now))
        if node.state == "IKE_SA_INIT":
            answer = gateway.refuse_init(request, notify(COOKIE, b"%d" % now))
            sent += len(node.receive(answer, now))
    assert node.state == "DOWN" and node.all("failed") == [("failed", "timeout", IKE_SA_INIT)]
    assert sent <= 9, sent  # five of the timer, one at once, three before their time
    assert node.events[-1][0] == "failed" and len(node.events) < 10


@item("B2")
def test_a_cookie_that_came_already_is_counted_and_nothing_more():
    node, gateway, request = starting()
    (second,) = node.receive(gateway.refuse_init(request, notify(COOKIE, b"one")))
    for _ in range(2):
        assert node.receive(gateway.refuse_init(request, notify(COOKIE, b"one"))) == []
    assert node.receive(gateway.refuse_init(request, notify(COOKIE, b"two"))) == []
    assert node.receive(gateway.refuse_init(request, notify(COOKIE, b"two"))) == []
    assert node.ike.drops == {"OLD_COOKIE": 3}
    # The answer to what was sent is not for the cookie that waits.
    (request,) = node.receive(gateway.init(second))
    assert node.receive(gateway.auth(request)) == [] and node.state == "UP"
