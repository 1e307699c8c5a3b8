"""Make before break: a new SA in time, and no reading lost, doubled or late on the way."""

import asyncio

from host_tests.checklist import item
from tools.dev.peers.responder import INFORMATIONAL
from tools.dev.sim.virtual import GATEWAY, LATENCY_MS, Log, Net, Time, profile, run
from minipsec.tunnel import Tunnel

DAY_MS = 86400000
INITIAL_CONTACT = 16384
HANDSHAKE_MS = 4 * LATENCY_MS
QUIET_MS = 1000  # without ESP, until an SA that is replaced is deleted


def world(**changes):
    net = Net()
    log = Log()
    return net, net.gateway(), log, Tunnel(profile(**changes), log)


async def report(tunnel, count, every_ms):
    """Send numbered readings; return the ms that each send took."""
    took = []
    for n in range(count):
        began = Time.now
        await tunnel.send(b"%d" % n)
        took.append(Time.now - began)
        await asyncio.sleep_ms(every_ms)
    await asyncio.sleep_ms(10 * LATENCY_MS)
    return took


async def collect(tunnel, replies):
    while True:
        replies.append(await tunnel.receive())


def assert_each_once(gateway, count, replies=None):
    expected = [b"%d" % n for n in range(count)]
    assert [text for _, text in gateway.readings] == expected
    if replies is not None:
        assert replies == expected


def test_many_replacements_by_time_lose_double_and_delay_nothing():
    _, gateway, log, tunnel = world(lifetime_ms=1000)
    replies = []

    async def main():
        await tunnel.connect()
        collector = asyncio.create_task(collect(tunnel, replies))
        took = await report(tunnel, 2500, 10)
        collector.cancel()
        return took

    took = run(main())
    assert_each_once(gateway, 2500, replies)
    assert tunnel.counters["replaced"] >= 25
    assert log.all("error") == []
    # Sends wait for IKE_AUTH alone, which is half of the handshake.
    assert 0 < max(took) <= HANDSHAKE_MS // 2
    assert len([ms for ms in took if ms]) <= 2 * tunnel.counters["replaced"]
    # Each old SA was deleted, and only when its successor was there and nothing more came by it.
    deletes = gateway.times("DELETE")
    assert len(deletes) + len(gateway.established()) == tunnel.counters["replaced"] + 1
    for auth, delete in zip(gateway.times("AUTH")[1:], deletes):
        assert QUIET_MS <= delete - auth <= QUIET_MS + 4 * LATENCY_MS


def test_many_replacements_by_packets_lose_double_and_delay_nothing():
    _, gateway, log, tunnel = world(max_packets=30)
    replies = []

    async def main():
        await tunnel.connect()
        collector = asyncio.create_task(collect(tunnel, replies))
        await report(tunnel, 1000, 40)
        collector.cancel()

    run(main())
    assert_each_once(gateway, 1000, replies)
    assert tunnel.counters["replaced"] >= 25
    # A few more go out while the new handshake runs.
    assert max([sa.packets for sa in gateway.history]) <= 30 + 3
    assert log.all("error") == []


def test_sends_of_several_tasks_keep_their_order_over_a_replacement():
    _, gateway, _, tunnel = world()
    sent = []

    async def one(n):
        await tunnel.send(b"%d" % n)
        sent.append(n)

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        tunnel.on_stale(tunnel._link)
        for n in range(16):
            await asyncio.sleep_ms(3)
            asyncio.create_task(one(n))
        await asyncio.sleep_ms(1000)

    run(main())
    assert sent == list(range(16))
    assert_each_once(gateway, 16)


def test_the_lifetime_ends_at_a_random_moment_of_its_last_tenth():
    """A fleet that started together must not renew together."""
    ages = []
    for seed in range(10):
        net = Net(b"seed %d" % seed)
        gateway = net.gateway()
        tunnel = Tunnel(profile(lifetime_ms=DAY_MS, liveness_ms=0))

        async def main():
            await tunnel.connect()
            born = Time.now
            await asyncio.sleep_ms(DAY_MS + 1000)
            ages.append(gateway.times("INIT")[1] - born)

        run(main())
    assert DAY_MS * 9 // 10 <= min(ages) < max(ages) <= DAY_MS + LATENCY_MS
    assert max(ages) - min(ages) > DAY_MS // 50


def test_a_new_sa_is_made_before_the_sequence_numbers_end():
    _, gateway, log, tunnel = world()

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        tunnel._link.sender.numbers.birth -= 0xFFFFFF00 * 100  # 13 years ago
        await tunnel.send(b"near the end")
        await asyncio.sleep_ms(1000)
        await tunnel.send(b"far from it")
        await asyncio.sleep_ms(100)

    run(main())
    assert tunnel.counters["replaced"] == 1
    assert [line["sn"] for line in log.all("sent")][1] < 100
    assert len(gateway.readings) == 2


def test_an_sa_that_may_send_no_more_is_given_up_and_a_new_one_carries_the_reading():
    _, gateway, log, tunnel = world()

    async def main():
        await tunnel.connect()
        tunnel._link.sender.numbers.end()
        await tunnel.send(b"carried")
        assert await tunnel.receive(1000) == b"carried"

    run(main())
    (line,) = log.all("error")
    assert line["error"] == "SaEnded" and line["notify"] is None
    assert [text for _, text in gateway.readings] == [b"carried"]


def test_a_replacement_says_nothing_of_initial_contact():
    """It would have the gateway drop the SA that still carries."""
    _, gateway, _, tunnel = world()

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        tunnel.on_stale(tunnel._link)
        await asyncio.sleep_ms(1000)

    run(main())
    first, second = gateway.history
    assert INITIAL_CONTACT in [kind for kind, _ in first.responder.auth_notifies]
    assert INITIAL_CONTACT not in [kind for kind, _ in second.responder.auth_notifies]


def test_what_comes_down_on_the_old_sa_meanwhile_arrives():
    net, gateway, _, tunnel = world()
    downs = []

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        (old,) = gateway.established()
        gateway.on_auth = lambda sa: gateway.down(old, b"behind the new IKE_AUTH")
        tunnel.on_stale(tunnel._link)
        downs.append(await tunnel.receive(1000))

    run(main())
    assert downs == [b"behind the new IKE_AUTH"]


def test_a_gateway_that_keeps_one_sa_an_identity_may_delete_the_old_one_first():
    """strongSwan's `unique = replace` sends DELETE before it answers the new IKE_AUTH."""
    _, gateway, log, tunnel = world(lifetime_ms=2000)
    replies = []

    def replace(new):
        for sa in gateway.established():
            if sa is not new:
                gateway.delete(sa)

    gateway.on_auth = replace
    downs = []

    async def watch():
        while True:
            await tunnel.down.wait()
            downs.append(Time.now)
            await tunnel.up.wait()

    async def main():
        await tunnel.connect()
        collector = asyncio.create_task(collect(tunnel, replies))
        watcher = asyncio.create_task(watch())
        await report(tunnel, 1000, 10)
        collector.cancel()
        watcher.cancel()

    run(main())
    assert_each_once(gateway, 1000)
    assert tunnel.counters["replaced"] >= 4
    assert log.all("error") == [] and downs == []


@item("H4")
def test_a_gateway_that_is_busy_loses_no_reading_and_no_reply_of_the_sa_that_it_replaces():
    """It decrypts and replies late, and ends the old SA as soon as its DELETE is answered."""
    for slow in (50, 300, 900):
        for unique in (True, False):
            _, gateway, log, tunnel = world(lifetime_ms=4000)
            gateway.unique = unique
            gateway.slow = slow
            replies = []

            async def main():
                await tunnel.connect()
                collector = asyncio.create_task(collect(tunnel, replies))
                await report(tunnel, 1000, 20)
                await asyncio.sleep_ms(2 * slow)
                collector.cancel()

            run(main())
            replies.sort(key=int)  # those by the old SA and by the new one overtake each other
            assert_each_once(gateway, 1000, replies)
            assert tunnel.counters["replaced"] >= 4
            assert gateway.count("STRANGE") == 0 and log.all("error") == []
            assert len(gateway.established()) <= 2


@item("H4")
def test_an_sa_that_is_replaced_ends_though_packets_go_on_coming_by_it():
    _, gateway, _, tunnel = world()
    ended = []

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        (old,) = gateway.established()
        tunnel.on_stale(tunnel._link)
        began = Time.now
        while old in gateway.established():
            gateway.down(old, b"for the old one")
            await asyncio.sleep_ms(500)
        ended.append(Time.now - began)

    run(main())
    assert ended[0] <= 4 * QUIET_MS + 1000


@item("H4")
def test_one_that_was_quiet_ends_at_once_when_it_is_replaced():
    _, gateway, _, tunnel = world()

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        tunnel.on_stale(tunnel._link)
        await asyncio.sleep_ms(HANDSHAKE_MS + 4 * LATENCY_MS)

    run(main())
    assert gateway.times("DELETE") == [gateway.times("AUTH")[1] + 2 * LATENCY_MS]


@item("H4")
def test_closing_does_not_wait_for_an_sa_to_be_quiet():
    net, gateway, _, tunnel = world()
    took = []

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        await tunnel.send(b"reading")
        tunnel.on_stale(tunnel._link)
        while tunnel.counters["replaced"] < 1:
            await asyncio.sleep_ms(5)
        began = Time.now
        await tunnel.close()
        took.append(Time.now - began)

    run(main())
    assert took[0] <= 2 * LATENCY_MS
    assert gateway.count("DELETE") == 2 and gateway.established() == [] and net.sockets == []


def test_when_the_old_sa_is_deleted_and_the_new_one_fails_the_tunnel_is_down():
    _, gateway, log, tunnel = world()

    def fail(new):
        for sa in gateway.established():
            gateway.delete(sa)
        gateway.refuses = 43
        gateway.on_auth = None

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        gateway.on_auth = fail
        tunnel.on_stale(tunnel._link)
        await tunnel.down.wait()
        gateway.refuses = None
        await tunnel.up.wait()

    run(main())
    assert [line["notify"] for line in log.all("error")] == ["TEMPORARY_FAILURE"]


def test_a_replacement_that_fails_leaves_the_old_sa_and_is_tried_again_later():
    _, gateway, log, tunnel = world(retry_max_ms=60000)

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        gateway.refuses = 43
        tunnel.on_stale(tunnel._link)
        began = Time.now
        while Time.now - began < 600000:
            await tunnel.send(b"reading")
            assert await tunnel.receive(100)
            await asyncio.sleep_ms(1000)
        assert tunnel.up.is_set()
        gateway.refuses = None
        await asyncio.sleep_ms(91000)

    run(main())
    # Every 30 to 90 s, not at once again.
    assert 6 <= tunnel.counters["failed"] <= 21
    assert tunnel.counters["replaced"] == 1
    assert len(log.all("up")) == 2


def test_a_replacement_by_packets_that_fails_is_not_tried_with_every_packet():
    _, gateway, _, tunnel = world(max_packets=10)

    async def main():
        await tunnel.connect()
        gateway.refuses = 43
        for n in range(500):
            await tunnel.send(b"%d" % n)
            await asyncio.sleep_ms(100)

    run(main())
    assert tunnel.counters["failed"] == 1
    assert_each_once(gateway, 500)


def test_a_gateway_that_falls_silent_during_a_replacement_is_noticed_and_survived():
    _, gateway, log, tunnel = world(liveness_ms=5000)

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        gateway.up = False
        gateway.forget()
        tunnel.on_stale(tunnel._link)
        sending = asyncio.create_task(tunnel.send(b"into the void"))
        await tunnel.down.wait()
        gateway.up = True
        await tunnel.up.wait()
        assert sending.done()
        await tunnel.send(b"back")
        await asyncio.sleep_ms(100)

    run(main())
    assert [text for _, text in gateway.readings] == [b"back"]
    assert set([line["error"] for line in log.all("error")]) == {"LinkDown"}


def test_the_old_sa_is_deleted_though_a_liveness_check_is_out_on_it():
    net, gateway, _, tunnel = world(liveness_ms=3000)
    gateway.echo = False

    async def main():
        await tunnel.connect()
        await tunnel.send(b"reading")
        # The check goes out, and its answer takes longer than the whole replacement.
        await asyncio.sleep_ms(2995)
        net.drop = lambda datagram, to_gateway: not to_gateway and not gateway.times("AUTH")[1:]
        tunnel.on_stale(tunnel._link)
        await asyncio.sleep_ms(1)
        net.drop = None
        await asyncio.sleep_ms(5000)

    run(main())
    assert tunnel.counters["replaced"] == 1
    assert gateway.count("ALIVE") == 1
    assert gateway.count("DELETE") == 1
    assert len(net.sockets) == 1


def test_an_old_sa_whose_gateway_never_answers_the_delete_goes_away():
    net, gateway, log, tunnel = world()
    first = []

    async def main():
        await tunnel.connect()
        first.extend(gateway.established())
        await asyncio.sleep_ms(2000)

        def drop(datagram, to_gateway):
            return to_gateway and first[0].responder.spi_i in datagram[:16]

        net.drop = drop
        tunnel.on_stale(tunnel._link)
        await asyncio.sleep_ms(1000)
        assert len(net.sockets) == 2
        await asyncio.sleep_ms(31000)
        assert len(net.sockets) == 1

    run(main())
    assert log.all("error") == []
    assert tunnel.up.is_set()


def test_a_replacement_goes_to_the_gateway_that_carries():
    _, gateway, log, tunnel = world(gateway=["10.77.0.9", GATEWAY], lifetime_ms=5000)

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(30000)

    run(main())
    assert tunnel.counters["replaced"] >= 5
    assert set([line["gateway"] for line in log.all("up")]) == {GATEWAY}


def test_a_tunnel_closed_in_the_middle_of_a_replacement_leaves_no_sa_behind():
    for ms in range(0, HANDSHAKE_MS + 30, 5):
        net, gateway, log, tunnel = world()

        async def main():
            await tunnel.connect()
            await asyncio.sleep_ms(2000)
            tunnel.on_stale(tunnel._link)
            await asyncio.sleep_ms(ms)
            began = Time.now
            await tunnel.close()
            assert Time.now - began <= 1000
            await asyncio.sleep_ms(100)

        run(main())
        assert gateway.established() == [], ms
        assert net.sockets == [] and log.all("error") == []


def test_a_connect_given_up_in_the_middle_leaves_no_sa_behind():
    for ms, closes in [(ms, n) for ms in range(1, HANDSHAKE_MS + 10, 5) for n in (0, 1)]:
        net, gateway, _, tunnel = world()

        async def main():
            try:
                await asyncio.wait_for_ms(tunnel.connect(), ms)
            except asyncio.TimeoutError:
                pass
            if closes or tunnel.up.is_set():  # a connect that is given up closes it by itself
                await tunnel.close()
            await asyncio.sleep_ms(100)

        run(main())
        assert gateway.established() == [], (ms, closes)
        assert net.sockets == []


# RFC 4478


def lifetime(seconds):
    return (41, b"\0\0\x40\x13" + seconds.to_bytes(4, "big"))


@item("D6")
def test_an_sa_whose_gateway_tells_its_lifetime_is_replaced_before_that_and_loses_nothing():
    _, gateway, log, tunnel = world()
    gateway.says = [lifetime(60)]

    async def main():
        await tunnel.connect()
        for n in range(600):
            await tunnel.send(b"%d" % n)
            assert await tunnel.receive(1000) == b"%d" % n
            await asyncio.sleep_ms(500)
            for sa in gateway.established():
                # What a gateway does whose word is not heeded.
                assert Time.now - born.setdefault(sa, Time.now) < 60000

    born = {}
    run(main())
    assert 5 <= tunnel.counters["replaced"] <= 7
    assert log.all("error") == [] and tunnel.counters["unconfirmed"] == 0


@item("D6")
def test_a_lifetime_of_a_moment_is_bounded_work():
    for seconds in (0, 1):
        _, gateway, _, tunnel = world()
        gateway.says = [lifetime(seconds)]

        async def main():
            await tunnel.connect()
            await asyncio.sleep_ms(60000)
            await tunnel.close()

        run(main())
        assert 10 <= gateway.count("INIT") <= 16


@item("D6")
def test_a_lifetime_may_come_later_and_a_malformed_one_is_none():
    _, gateway, _, tunnel = world()

    async def main():
        await tunnel.connect()
        (sa,) = gateway.established()
        for body in (b"\0\0\x40\x13", b"\0\0\x40\x13\0\0\1", b"\0\4\x40\x13\0\0\0\1\0\0\0\1"):
            gateway.ask(sa, INFORMATIONAL, [(41, body)])
            await asyncio.sleep_ms(60000)
        assert tunnel.counters["replaced"] == 0
        gateway.ask(sa, INFORMATIONAL, [lifetime(100)])
        await asyncio.sleep_ms(95000)
        assert tunnel.counters["replaced"] == 1

    run(main())
