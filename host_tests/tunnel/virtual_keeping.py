"""A tunnel that is up: liveness, NAT keepalives, a NAT that moved, and nothing that need not be."""

import asyncio

from host_tests.checklist import item
from tools.dev.peers.responder import CREATE_CHILD_SA, INFORMATIONAL
from tools.dev.sim.virtual import LATENCY_MS, Log, Net, Time, profile, run
from minipsec.tunnel import Tunnel

HOUR_MS = 3600000
KEY_EXCHANGE = 34
REKEY_SA = (41, b"\x03\x04\x40\x09\xc0\x00\x00\x01")


def world(**changes):
    net = Net()
    log = Log()
    return net, net.gateway(), log, Tunnel(profile(**changes), log)


def since(gateway, began, what):
    return [at - began for at in gateway.times(what) if at >= began]


# Liveness: only when something was sent and nothing came


def test_an_hour_without_a_reading_costs_no_datagram():
    _, gateway, _, tunnel = world()

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(100)
        seen = len(gateway.seen)
        leaps = Time.leaps
        await asyncio.sleep_ms(HOUR_MS)
        assert len(gateway.seen) == seen
        assert Time.leaps - leaps <= 63  # one timer a minute

    run(main())


def test_readings_that_are_answered_need_no_check():
    _, gateway, _, tunnel = world()

    async def main():
        await tunnel.connect()
        for n in range(100):
            await tunnel.send(b"reading")
            assert await tunnel.receive(1000)
            await asyncio.sleep_ms(45000)

    run(main())
    assert gateway.count("ALIVE") == 0


def test_the_check_comes_liveness_ms_after_the_first_reading_without_an_answer():
    _, gateway, log, tunnel = world(liveness_ms=60000)
    gateway.echo = False

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(12345)
        began = Time.now
        for _ in range(30):
            await tunnel.send(b"reading")
            await asyncio.sleep_ms(5000)
        return began

    began = run(main())
    checks = since(gateway, began, "ALIVE")
    assert checks[0] == 60000 + LATENCY_MS
    # The next wait begins with the first reading after the answer.
    assert 120000 <= checks[1] <= 130000
    assert len(checks) == 2
    assert log.all("error") == []
    assert tunnel.counters["replaced"] == 0


@item("D5")
def test_a_gateway_that_forgot_us_is_replaced_when_the_check_was_resent():
    """It lives, but does not know our SPIs: no reading after that goes into the void."""
    _, gateway, log, tunnel = world(liveness_ms=20000)

    async def main():
        await tunnel.connect()
        await tunnel.send(b"one")
        await tunnel.receive(1000)
        gateway.forget()  # as after a reboot: it does not know our SPIs
        began = Time.now
        await tunnel.send(b"two")
        await asyncio.sleep_ms(21001)
        await tunnel.send(b"three")  # waits for the new SA
        took = Time.now - began
        assert await tunnel.receive(1000) == b"three"
        await asyncio.sleep_ms(60000)
        return began, took

    began, took = run(main())
    assert took == 20000 + 1000 + 4 * LATENCY_MS
    checks = [at for at in since(gateway, began, "STRANGE") if at > LATENCY_MS]
    assert checks == [20000 + LATENCY_MS + ms for ms in (0, 1000, 3000, 7000, 15000)]
    assert log.all("error") == [] and len(log.all("warning")) == 1
    assert (tunnel.counters["sent"], tunnel.counters["unconfirmed"]) == (3, 1)


@item("D5")
def test_a_gateway_that_is_gone_is_noticed_in_the_documented_time():
    _, gateway, log, tunnel = world(liveness_ms=20000)

    async def main():
        await tunnel.connect()
        gateway.up = False
        began = Time.now
        await tunnel.send(b"one")
        await tunnel.down.wait()
        return Time.now - began

    assert run(main()) == 20000 + 31000
    assert [line["error"] for line in log.all("error")] == ["LinkDown"]
    assert tunnel.counters["unconfirmed"] == 1


@item("D5")
def test_a_server_that_used_to_answer_and_stops_has_the_gateway_asked_at_once():
    """One reading a second, 200 of them, a gateway that is gone: who answers, who does not."""
    for echo in (True, False):
        _, gateway, log, tunnel = world()
        gateway.echo = echo

        async def main():
            await tunnel.connect()
            for n in range(200):
                if n == 40:
                    gateway.up = False
                try:
                    await asyncio.wait_for_ms(tunnel.send(b"%d" % n), 1000)
                except asyncio.TimeoutError:
                    break
                await asyncio.sleep_ms(1000)
            await tunnel.down.wait()
            await tunnel.close()

        run(main())
        lost = tunnel.counters["sent"] - len(gateway.readings)
        assert lost <= (5 if echo else 23), lost
        # What was sent since the last sign of life: nobody knows more where no server answers.
        assert lost <= tunnel.counters["unconfirmed"] <= lost + (0 if echo else 20)


@item("D5")
def test_a_server_that_stops_answering_costs_one_early_question():
    _, gateway, log, tunnel = world(liveness_ms=60000)

    async def main():
        await tunnel.connect()
        await tunnel.send(b"answered")
        await tunnel.receive(1000)
        gateway.echo = False
        for _ in range(50):
            await tunnel.send(b"reading")
            await asyncio.sleep_ms(1000)

    run(main())
    assert gateway.count("ALIVE") == 1
    assert tunnel.counters["unconfirmed"] == tunnel.counters["replaced"] == 0
    assert log.all("warning") == []


@item("F9")
def test_readings_that_nothing_ever_comes_back_for_are_a_warning():
    _, gateway, log, tunnel = world(liveness_ms=5000)
    gateway.echo = False

    async def main():
        await tunnel.connect()
        for _ in range(30):
            await tunnel.send(b"reading")
            await asyncio.sleep_ms(1000)

    run(main())
    (line,) = log.all("warning")
    assert "nothing ever came back" in line["text"] and "encap" in line["text"]


def test_one_lost_answer_to_a_check_is_no_loss():
    net, gateway, log, tunnel = world(liveness_ms=5000)
    gateway.echo = False
    dropped = []

    def drop(datagram, to_gateway):
        if not to_gateway and not dropped and len(gateway.times("ALIVE")) == 1:
            dropped.append(datagram)
            return True

    async def main():
        await tunnel.connect()
        net.drop = drop
        await tunnel.send(b"reading")
        await asyncio.sleep_ms(60000)

    run(main())
    assert len(dropped) == 1
    assert tunnel.up.is_set() and log.all("error") == []


def test_a_replayed_request_of_the_gateways_is_no_sign_of_life():
    """Whoever recorded it could otherwise keep a dead tunnel up."""
    _, gateway, _, tunnel = world(liveness_ms=5000)

    async def main():
        await tunnel.connect()
        (sa,) = gateway.established()
        request = sa.responder.request(INFORMATIONAL, [])
        gateway.send(sa, request)
        await asyncio.sleep_ms(100)
        assert len(sa.answers) == 1
        gateway.forget()
        await tunnel.send(b"into the void")
        began = Time.now
        while not tunnel.counters["replaced"]:
            gateway.send(sa, request)
            await asyncio.sleep_ms(1000)
        return Time.now - began

    assert run(main()) <= 5000 + 1000 + 1000


def test_liveness_ms_0_switches_checks_off():
    _, gateway, _, tunnel = world(liveness_ms=0)

    async def main():
        await tunnel.connect()
        gateway.forget()
        await tunnel.send(b"reading")
        await asyncio.sleep_ms(HOUR_MS)

    run(main())
    assert tunnel.up.is_set()
    assert gateway.count("STRANGE") == 1


# NAT keepalives


def test_keepalives_go_out_behind_a_nat_while_nothing_else_does():
    _, gateway, _, tunnel = world(keepalive_ms=20000)
    gateway.behind_nat = True

    async def main():
        await tunnel.connect()
        began = Time.now
        await asyncio.sleep_ms(61000)
        # IKE_AUTH went out one round trip before it was up.
        assert since(gateway, began, "KEEPALIVE") == [20000 * n - LATENCY_MS for n in (1, 2, 3)]
        began = Time.now
        for _ in range(10):
            await tunnel.send(b"reading")
            await asyncio.sleep_ms(19000)
        assert since(gateway, began, "KEEPALIVE") == []

    run(main())


def test_without_a_nat_there_are_none():
    _, gateway, log, tunnel = world(keepalive_ms=1000)

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(60000)

    run(main())
    assert log.all("up")[0]["nat"] is False
    assert gateway.count("KEEPALIVE") == 0


def test_where_nobody_knows_about_a_nat_they_go_out():
    """A board that does not know its own address cannot tell."""
    net, gateway, log, tunnel = world(keepalive_ms=1000)

    async def main():
        from minipsec.board import port

        make = port.UDP

        def blind(*arguments):
            socket = make(*arguments)
            socket.local = None
            return socket

        port.UDP = blind
        await tunnel.connect()
        await asyncio.sleep_ms(60000)

    run(main())
    assert log.all("up")[0]["nat"] is None
    assert 58 <= gateway.count("KEEPALIVE") <= 60


def test_keepalive_ms_0_switches_them_off():
    _, gateway, _, tunnel = world(keepalive_ms=0)
    gateway.behind_nat = True

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(60000)

    run(main())
    assert gateway.count("KEEPALIVE") == 0


# A NAT that moved


def test_a_gateway_that_sends_to_where_the_nat_had_us_before_gets_a_new_sa():
    """strongSwan's user-space ESP: IKE follows the new port, what ESP comes down does not."""
    net, gateway, log, tunnel = world(liveness_ms=10000)
    gateway.moves = False
    answered = []

    async def main():
        await tunnel.connect()
        await tunnel.send(b"one")
        assert await tunnel.receive(1000)
        (sa,) = gateway.established()
        net.remap()
        real = gateway._ike

        def follow(octets, datagram, source, number):
            known = gateway.sas.get(octets[:8])
            old = known and known.where
            if known:
                known.where = source, number
            answers = real(octets, datagram, source, number)
            if known is sa:
                known.where = old
            return answers

        gateway._ike = follow
        began = Time.now
        n = 0
        while not answered and Time.now - began < 60000:
            n += 1
            await tunnel.send(b"after %d" % n)
            if await tunnel.receive(1000):
                answered.append(Time.now - began)
        return n

    run(main())
    assert answered and answered[0] <= 10000 + 2000
    assert tunnel.counters["replaced"] == 1
    assert log.all("error") == []
    texts = [text for _, text in gateway.readings]
    assert len(texts) == len(set(texts)) == tunnel.counters["sent"]


def test_a_server_that_never_answers_is_no_reason_for_a_new_sa():
    _, gateway, _, tunnel = world(liveness_ms=5000)
    gateway.echo = False

    async def main():
        await tunnel.connect()
        for _ in range(100):
            await tunnel.send(b"reading")
            await asyncio.sleep_ms(1000)

    run(main())
    assert tunnel.counters["attempts"] == 1
    assert gateway.count("ALIVE") >= 15


def test_a_server_that_fell_silent_costs_one_new_sa_and_no_more():
    """From here it looks like a NAT that moved; on the new SA it never spoke."""
    _, gateway, _, tunnel = world(liveness_ms=5000)

    async def main():
        await tunnel.connect()
        await tunnel.send(b"reading")
        await tunnel.receive(1000)
        gateway.echo = False
        for _ in range(200):
            await tunnel.send(b"reading")
            await asyncio.sleep_ms(1000)

    run(main())
    assert tunnel.counters["replaced"] == 1


# What the gateway asks for


@item("MIN-34")
def test_a_gateway_that_wants_new_keys_is_refused_and_gets_a_new_sa():
    for payloads in ([(33, b""), (KEY_EXCHANGE, b""), (40, bytes(32))], [REKEY_SA, (44, b"")]):
        _, gateway, log, tunnel = world()

        async def main():
            await tunnel.connect()
            (sa,) = gateway.established()
            await asyncio.sleep_ms(2000)
            gateway.ask(sa, CREATE_CHILD_SA, payloads)
            began = Time.now
            await asyncio.sleep_ms(1000)
            return sa, began

        sa, began = run(main())
        ((kind, _, body),) = sa.answers[0]
        assert kind == 41 and body == b"\0\0\0\x23"
        assert since(gateway, began, "INIT") == [2 * LATENCY_MS]
        assert tunnel.counters["replaced"] == 1
        assert log.all("error") == []
        assert len(gateway.established()) == 1


def test_a_gateway_that_wants_another_child_is_only_refused():
    _, gateway, _, tunnel = world()

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(2000)
        gateway.ask(gateway.established()[0], CREATE_CHILD_SA, [(33, b""), (40, b""), (44, b"")])
        await asyncio.sleep_ms(10000)

    run(main())
    assert tunnel.counters["attempts"] == 1


def test_a_gateway_that_never_stops_asking_gets_one_new_sa_a_second():
    _, gateway, _, tunnel = world()

    async def main():
        await tunnel.connect()
        began = Time.now
        while Time.now - began < 10000:
            for sa in gateway.established():
                gateway.ask(sa, CREATE_CHILD_SA, [REKEY_SA, (44, b"")])
            await asyncio.sleep_ms(50)

    run(main())
    assert 8 <= tunnel.counters["replaced"] <= 10


@item("MIN-33")
def test_dpd_of_the_gateways_is_answered_for_hours():
    _, gateway, _, tunnel = world()

    async def main():
        await tunnel.connect()
        (sa,) = gateway.established()
        for n in range(500):
            gateway.ask(sa, INFORMATIONAL, [])
            await asyncio.sleep_ms(5000)
            assert len(sa.answers) == n + 1

    run(main())
    assert tunnel.counters["attempts"] == 1


def test_a_request_is_answered_to_where_it_came_from():
    net, gateway, _, tunnel = world()
    targets = []

    async def main():
        await tunnel.connect()
        (sa,) = gateway.established()
        carry = net.carry
        net.carry = lambda source, target, datagram: targets.append(target)
        request = sa.responder.request(INFORMATIONAL, [])
        (socket,) = net.sockets
        socket.inbox.append((request, ("10.77.0.1", 40500)))
        socket.came.set()
        await asyncio.sleep_ms(10)
        net.carry = carry

    run(main())
    assert targets == [("10.77.0.1", 40500)]
