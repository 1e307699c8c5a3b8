"""Retransmission on a virtual clock: when, what, and when no more (RFC 7296 §2.1, §2.4)."""

from host_tests.checklist import item
from tools.dev.peers.pair import authenticating, dropped, established, starting
from tools.dev.peers.responder import IKE_AUTH, IKE_SA_INIT, INFORMATIONAL, R, Responder, notify
from minipsec.ike import established as calls


def resends(node, start=0, limit=10_000_000):
    """Let time run from timer to timer; return ([ms of each resend], [datagrams])."""
    times, datagrams = [], []
    while (due := node.ike.next_timer()) is not None:
        assert start <= due <= limit
        assert node.timer(due - 1) == [], "early"
        out = node.timer(due)
        if out:
            times.append(due)
            datagrams += out
    return times, datagrams


SCHEDULE = [1000, 3000, 7000, 15000]


@item("MIN-12", "MIN-13")
def test_the_first_request_goes_out_at_0_1_3_7_and_15_seconds_and_no_more():
    node, gateway, request = starting()
    times, datagrams = resends(node)
    assert times == SCHEDULE
    assert datagrams == [request] * 4
    assert node.state == "DOWN"
    assert node.all("failed") == [("failed", "timeout", IKE_SA_INIT)]


@item("MIN-12")
def test_the_end_comes_at_31_seconds():
    node, gateway, request = starting()
    for now in (1000, 3000, 7000, 15_000):
        node.timer(now)
    node.timer(30_999)
    assert node.state == "IKE_SA_INIT" and node.ike.next_timer() == 31_000
    node.timer(31_000)
    assert node.state == "DOWN"


@item("MIN-12", "MIN-13")
def test_ike_auth_is_resent_octet_for_octet_on_the_same_schedule():
    node, gateway, request = authenticating(now=5000)
    times, datagrams = resends(node, 5000)
    assert times == [5000 + ms for ms in SCHEDULE]
    assert datagrams == [request] * 4
    assert node.all("failed") == [("failed", "timeout", IKE_AUTH)]


@item("MIN-12", "MIN-13")
def test_a_liveness_check_and_a_delete_are_resent_likewise():
    for name in (calls.check, calls.delete):
        node, gateway = established()
        (request,) = node.call(name, 100_000)
        times, datagrams = resends(node, 100_000)
        assert times == [100_000 + ms for ms in SCHEDULE]
        assert datagrams == [request] * 4
        assert node.state == "DOWN"
        assert node.all("failed") == [("failed", "timeout", INFORMATIONAL)]


@item("MIN-12")
def test_the_profile_sets_pace_and_number():
    for ms, tries, times in (
        (50, 1, []),
        (50, 2, [50]),
        (200, 3, [200, 600]),
        (60_000, 4, [60_000, 180_000, 420_000]),
    ):
        node, gateway, request = starting(retransmit_ms=ms, retransmit_tries=tries)
        assert resends(node)[0] == times
        assert node.state == "DOWN"
    node, gateway, request = starting(retransmit_ms=50, retransmit_tries=10)
    assert len(resends(node)[0]) == 9


def test_a_late_wake_up_resends_once_and_not_for_all_that_was_missed():
    node, gateway, request = starting()
    assert node.timer(10_000) == [request]
    assert node.timer(10_000) == []
    assert node.ike.next_timer() > 10_000


@item("MIN-12", "MIN-16")
def test_an_answer_after_each_resend_still_counts():
    for count in range(5):
        node, gateway, request = starting()
        now = 0
        for now in SCHEDULE[:count]:
            node.timer(now)
        (request,) = node.receive(gateway.init(request), now + 500)
        assert node.ike.next_timer() == now + 1500
        assert node.receive(gateway.auth(request), now + 600) == []
        assert node.state == "UP" and node.ike.next_timer() is None


@item("MIN-16")
def test_what_is_dropped_neither_stops_nor_restarts_the_timer():
    node, gateway, request = starting()
    good = gateway.init(request)
    for now in range(0, 1000, 50):
        for octets in (good[:-1], b"", request, gateway.refuse_init(request, notify(14))):
            node.receive(octets, now)
        assert node.ike.next_timer() == 1000
    assert node.timer(1000) == [request]


@item("MIN-16")
def test_a_peers_request_does_not_touch_our_timer():
    node, gateway, request = authenticating()
    node.receive(gateway.request(INFORMATIONAL, []), 500)
    assert node.ike.next_timer() == 1000
    assert node.timer(1000) == [request]


@item("MIN-13", "MIN-21")
def test_after_a_cookie_the_new_request_is_the_one_that_is_resent():
    node, gateway, request = starting()
    (second,) = node.receive(gateway.refuse_init(request, notify(16390, b"cookie")), 100)
    times, datagrams = resends(node)
    assert datagrams and set(datagrams) == {second}
    assert node.all("failed") == [("failed", "timeout", IKE_SA_INIT)]


def test_the_clock_may_start_anywhere_and_need_not_be_even():
    for start in (0, 1, 1 << 40, 123_456_789):
        node, gateway, request = starting(now=start)
        assert node.ike.next_timer() == start + 1000


def test_after_the_end_nothing_moves():
    node, gateway, request = starting()
    resends(node)
    dropped(node, gateway.init(request), "UNEXPECTED")
    node.timer(1 << 40)
    assert node.ike.poll_out() is None and node.ike.next_event() is None
    assert node.state == "DOWN" and len(node.all("failed")) == 1


@item("MIN-23", "MIN-38")
def test_a_refusal_that_nobody_authenticated_still_ends_only_by_time():
    node, gateway, request = starting()
    for now in (10, 1010, 3010):
        node.timer(now)
        node.receive(gateway.refuse_init(request, notify(14)), now)
    assert node.state == "IKE_SA_INIT"
    resends(node)
    assert node.all("hint") == [("hint", 14)] * 3
    assert node.all("failed") == [("failed", "timeout", IKE_SA_INIT)]


def test_up_there_is_no_timer_at_all():
    node, gateway = established(Responder())
    assert node.ike.next_timer() is None
    assert node.timer(1 << 40) == []
    (check,) = node.call(calls.check, 1 << 40)
    node.receive(gateway.send(INFORMATIONAL, R, 2, []), (1 << 40) + 5)
    assert node.ike.next_timer() is None
