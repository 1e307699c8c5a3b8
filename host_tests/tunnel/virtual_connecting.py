"""connect() and coming back: gateways in turn, pauses, silence, names, a network that goes."""

import asyncio

from host_tests.checklist import item
from tools.dev.sim.virtual import GATEWAY, LATENCY_MS, Log, Net, Time, profile, run
from minipsec import refusals as errors
from minipsec.board import port
from minipsec.tunnel import Tunnel

SECOND = "10.77.0.9"
GIVES_UP_MS = 31000  # retransmit_ms * (2 ** retransmit_tries - 1)


def refused(kind, call, *arguments):
    """Return the error of this class that the call must raise."""

    async def main():
        try:
            await call(*arguments)
        except kind as e:
            return e

    error = run(main())
    assert error, kind
    return error


async def until(condition, ms=3600000):
    """Wait until something holds; return the time that it took."""
    began = Time.now
    while not condition():
        assert Time.now - began < ms, "not within %d ms" % ms
        await asyncio.sleep_ms(50)
    return Time.now - began


def pauses(log, gateway, since=0):
    """Return ms from each end of an attempt to the next IKE_SA_INIT."""
    downs = [at for at in log.times("error") if at >= since]
    inits = sorted(set(gateway.times("INIT")))
    return [
        min([at - LATENCY_MS for at in inits if at > down]) - down
        for down in downs
        if inits and inits[-1] > down
    ]


# connect()


def test_connect_tries_the_one_gateway_once_and_raises_link_down_in_the_documented_time():
    net = Net()
    tunnel = Tunnel(profile())
    began = Time.now
    refused(errors.LinkDown, tunnel.connect)
    assert Time.now - began == GIVES_UP_MS
    assert net.lost == 5
    assert tunnel.counters["attempts"] == tunnel.counters["failed"] == 1
    assert net.sockets == []
    assert not tunnel.up.is_set() and tunnel.down.is_set()


def test_connect_goes_on_to_the_next_gateway_when_the_first_is_silent():
    net = Net()
    second = net.gateway(SECOND)
    log = Log()
    tunnel = Tunnel(profile(gateway=[GATEWAY, SECOND]), log)
    began = Time.now
    run(tunnel.connect())
    assert Time.now - began == GIVES_UP_MS + 4 * LATENCY_MS
    assert second.established()
    assert log.all("up")[0]["gateway"] == SECOND
    assert tunnel.counters["attempts"] == 2
    assert tunnel.up.is_set() and not tunnel.down.is_set()


def test_connect_goes_on_at_once_when_the_first_refuses_or_has_no_name():
    net = Net()
    net.gateway().refuses = 24
    net.gateway(SECOND)
    net.hosts["nowhere"] = None
    log = Log()
    began = Time.now
    run(Tunnel(profile(gateway=["nowhere", GATEWAY, SECOND]), log).connect())
    assert Time.now - began == 8 * LATENCY_MS
    assert [line["error"] for line in log.all("error")] == ["LinkDown", "AuthenticationFailed"]


def test_connect_raises_the_last_gateways_error():
    net = Net()
    net.gateway().refuses = 38
    net.gateway(SECOND).refuses = 24
    tunnel = Tunnel(profile(gateway=[GATEWAY, SECOND]))
    error = refused(errors.PeerError, tunnel.connect)
    assert error.notify == "AUTHENTICATION_FAILED"
    assert tunnel.error is error
    assert net.sockets == []


def test_a_connect_that_is_given_up_leaves_no_socket_behind():
    net = Net()
    tunnel = Tunnel(profile())
    refused(asyncio.TimeoutError, asyncio.wait_for_ms, tunnel.connect(), 2500)
    assert net.sockets == []
    assert net.lost == 2


def test_a_name_is_asked_for_once_and_both_ports_are_at_one_address():
    """A name may have several addresses and give another one each time."""
    net = Net()
    gateway = net.gateway()
    net.gateway(SECOND)
    asked = []

    def resolve(host, number):
        asked.append(number)
        return (GATEWAY, SECOND)[len(asked) % 2 == 0], number

    port.resolve = resolve
    run(Tunnel(profile(gateway="gw.example.org")).connect())
    assert asked == [500]
    assert gateway.count("AUTH") == 1


# Coming back


def lost_by_delete(**changes):
    """Return (gateway, log, tunnel) of a tunnel that was deleted and has come back."""
    net = Net()
    gateway = net.gateway()
    log = Log()
    tunnel = Tunnel(profile(**changes), log)

    async def main():
        await tunnel.connect()
        await asyncio.sleep_ms(5000)
        gateway.delete(gateway.established()[0])
        await tunnel.down.wait()
        await tunnel.up.wait()

    run(main())
    return gateway, log, tunnel


def test_a_deleted_tunnel_comes_back_within_seconds_and_says_why_it_went():
    gateway, log, tunnel = lost_by_delete()
    (line,) = log.all("error")
    assert line["error"] == "SaEnded" and line["notify"] == "DELETE" and line["check"]
    first, second = log.all("up")
    assert first["spi_i"] != second["spi_i"] and first["spi_in"] != second["spi_in"]
    (pause,) = pauses(log, gateway)
    assert 1000 <= pause <= 8000
    assert tunnel.error is None
    assert tunnel.counters["attempts"] == 2 and tunnel.counters["failed"] == 0
    # An SA without a predecessor: the gateway may forget what it still has of us.
    assert [(16384, b"")] == [n for n in gateway.history[1].responder.auth_notifies]


def test_with_no_retries_the_first_loss_is_the_end():
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile(retries=0))

    async def main():
        await tunnel.connect()
        gateway.delete(gateway.established()[0])
        await tunnel.down.wait()
        await tunnel.send(b"one more")

    error = refused(errors.SaEnded, main)
    assert error is tunnel.error
    assert gateway.count("INIT") == 1


def test_retries_count_attempts_in_a_row():
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile(retries=3))

    async def main():
        await tunnel.connect()
        for _ in range(2):  # each time up again starts the count anew
            gateway.up = False
            await tunnel.send(b"reading")
            await tunnel.down.wait()
            attempts = tunnel.counters["attempts"]
            await until(lambda: tunnel.counters["attempts"] == attempts + 2)
            gateway.up = True
            await tunnel.up.wait()
        gateway.up = False
        await tunnel.send(b"reading")
        await tunnel.receive()

    before = tunnel.counters["attempts"]
    error = refused(errors.LinkDown, main)
    assert error is tunnel.error
    # The one that began beside the tunnel, when its gateway was silent, counts as the first.
    assert tunnel.counters["attempts"] == before + 1 + 3 + 3 + 3
    assert net.sockets == []


def test_pauses_double_up_to_their_bound_and_are_random():
    net = Net()
    gateway = net.gateway()
    log = Log()
    tunnel = Tunnel(profile(retry_max_ms=60000, retransmit_tries=1), log)

    async def main():
        await tunnel.connect()
        gateway.refuses = 43
        gateway.delete(gateway.established()[0])
        await until(lambda: gateway.count("INIT") == 40)

    run(main())
    found = pauses(log, gateway)
    for n, pause in enumerate(found):
        top = min(8000 << n, 60000)
        assert top // 8 <= pause <= top, (n, pause)
    late = found[6:]
    assert len(late) > 20 and len(set(late)) == len(late)
    assert min(late) < 22000 and max(late) > 45000


def test_after_an_hour_of_silence_it_is_back_within_the_longest_pause():
    """The gateway forgot everything meanwhile."""
    net = Net()
    gateway = net.gateway()
    log = Log()
    tunnel = Tunnel(profile(), log)
    took = []

    async def report():
        n = 0
        while True:
            n += 1
            await tunnel.send(b"reading %d" % n)
            await asyncio.sleep_ms(10000)

    async def main():
        await tunnel.connect()
        reporter = asyncio.create_task(report())
        await asyncio.sleep_ms(60000)
        gateway.up = False
        gateway.forget()
        await tunnel.down.wait()
        took.append(Time.now)
        await asyncio.sleep_ms(3600000)
        attempts = tunnel.counters["attempts"]
        gateway.up = True
        took.append(await until(lambda: tunnel.up.is_set()))
        await until(lambda: tunnel.counters["received"] == 8)  # what the inbox holds
        reporter.cancel()
        return attempts

    attempts = run(main())
    assert took[1] <= 300000 + GIVES_UP_MS
    # Two a minute at first, then one in 37 to 300 s and the 31 s that it takes.
    assert 10 <= attempts <= 50
    # The reading that waited is the next one: nothing was sent into the void meanwhile.
    texts = [text for _, text in gateway.readings]
    assert len(texts) == len(set(texts))
    errors_seen = set([line["error"] for line in log.all("error")])
    assert errors_seen == {"LinkDown"}


def test_a_gateway_that_deletes_each_new_sa_at_once_is_not_stormed():
    """So do two sensors with one identity, each of which throws the other out."""
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile())

    async def main():
        await tunnel.connect()
        began = Time.now
        while Time.now - began < 3600000:
            await tunnel.up.wait()
            await asyncio.sleep_ms(100)
            gateway.delete(gateway.established()[0])
            await tunnel.down.wait()

    run(main())
    assert gateway.count("INIT") < 45


def test_a_tunnel_that_lived_long_comes_back_with_a_short_pause_again():
    net = Net()
    gateway = net.gateway()
    log = Log()
    tunnel = Tunnel(profile(), log)

    async def main():
        await tunnel.connect()
        for _ in range(7):
            gateway.delete(gateway.established()[0])
            await tunnel.down.wait()
            await tunnel.up.wait()
        await asyncio.sleep_ms(1800000)
        gateway.delete(gateway.established()[0])
        await tunnel.down.wait()
        await tunnel.up.wait()

    run(main())
    found = pauses(log, gateway)
    assert max(found) > 16000
    assert found[-1] <= 8000


def test_silence_moves_on_to_the_next_gateway_and_a_delete_does_not():
    net = Net()
    first, second = net.gateway(), net.gateway(SECOND)
    log = Log()
    tunnel = Tunnel(profile(gateway=[GATEWAY, SECOND]), log)

    async def main():
        await tunnel.connect()
        first.delete(first.established()[0])
        await tunnel.down.wait()
        await tunnel.up.wait()
        first.up = False
        await tunnel.send(b"into the void")
        await tunnel.down.wait()
        await tunnel.up.wait()

    run(main())
    assert [line["gateway"] for line in log.all("up")] == [GATEWAY, GATEWAY, SECOND]
    assert second.count("INIT") == 1


def test_a_name_that_is_now_elsewhere_is_found_there():
    net = Net()
    net.hosts["gw.example.org"] = GATEWAY
    gateway, moved = net.gateway(), net.gateway(SECOND)
    log = Log()
    tunnel = Tunnel(profile(gateway="gw.example.org"), log)

    async def main():
        await tunnel.connect()
        net.hosts["gw.example.org"] = SECOND
        gateway.up = False
        await tunnel.send(b"into the void")
        await until(lambda: tunnel.counters["replaced"])
        await tunnel.send(b"found")
        assert await tunnel.receive(1000) == b"found"

    run(main())
    assert len(moved.established()) == 1


def test_without_a_network_a_send_waits_and_goes_out_once_when_it_is_back():
    """Wi-Fi gone for less than it takes to miss the gateway: the SA goes on."""
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile())

    async def main():
        await tunnel.connect()
        net.up = False
        sending = asyncio.create_task(tunnel.send(b"patient"))
        await asyncio.sleep_ms(20000)
        assert not sending.done()
        net.up = True
        took = await until(sending.done)
        assert took <= 1000
        assert await tunnel.receive(1000) == b"patient"

    run(main())
    assert [text for _, text in gateway.readings] == [b"patient"]
    assert tunnel.counters["attempts"] == 1
    assert tunnel.stats()["drops"]["SEND_FAILED"] >= 20


def test_without_a_network_for_long_it_is_down_and_comes_back_by_itself():
    net = Net()
    gateway = net.gateway()
    log = Log()
    tunnel = Tunnel(profile(), log)

    async def main():
        await tunnel.connect()
        net.up = False
        sending = asyncio.create_task(tunnel.send(b"patient"))
        await tunnel.down.wait()
        await asyncio.sleep_ms(600000)
        net.up = True
        await until(sending.done, 331000)
        await asyncio.sleep_ms(LATENCY_MS)

    run(main())
    assert [text for _, text in gateway.readings] == [b"patient"]
    assert len(gateway.history) == 2
    assert set([line["error"] for line in log.all("error")]) == {"LinkDown"}


def test_too_many_sends_at_once_are_refused_and_counted_as_lost():
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile())
    refusals = []

    async def one(n):
        try:
            await tunnel.send(b"%d" % n)
        except errors.UsageError as e:
            refusals.append(e)

    async def main():
        await tunnel.connect()
        gateway.delete(gateway.established()[0])
        await tunnel.down.wait()
        for n in range(20):
            asyncio.create_task(one(n))
        await tunnel.up.wait()
        await asyncio.sleep_ms(100)

    run(main())
    assert len(refusals) == tunnel.counters["lost"] == 4
    assert [text for _, text in gateway.readings] == [b"%d" % n for n in range(16)]


def test_who_waits_when_the_tunnel_is_closed_is_told():
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile())
    ends = []

    async def one(call, *arguments):
        try:
            await call(*arguments)
        except errors.UsageError as e:
            ends.append(str(e))

    async def main():
        await tunnel.connect()
        asyncio.create_task(one(tunnel.receive))
        gateway.delete(gateway.established()[0])
        await tunnel.down.wait()
        asyncio.create_task(one(tunnel.send, b"late"))
        await asyncio.sleep_ms(10)
        await tunnel.close()
        await asyncio.sleep_ms(10)
        await one(tunnel.send, b"later")

    run(main())
    assert ends == ["the tunnel is closed"] * 3
    assert net.sockets == []


def test_close_deletes_the_sa_and_waits_shortly_for_the_answer():
    net = Net()
    gateway = net.gateway()

    async def main():
        for silent in (False, True):
            tunnel = Tunnel(profile())
            await tunnel.connect()
            gateway.up = not silent
            began = Time.now
            await tunnel.close()
            assert Time.now - began == (1000 if silent else 2 * LATENCY_MS)
            assert net.sockets == []

    run(main())
    assert gateway.count("DELETE") == 1


def test_a_closed_tunnel_can_be_connected_again():
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile())

    async def main():
        await tunnel.connect()
        await tunnel.close()
        async with tunnel:
            await tunnel.send(b"again")
            assert await tunnel.receive(1000) == b"again"

    run(main())
    assert gateway.count("INIT") == gateway.count("DELETE") == 2


def test_a_payload_too_large_is_the_callers_mistake():
    net = Net()
    net.gateway()
    tunnel = Tunnel(profile())

    async def main():
        await tunnel.connect()
        await tunnel.send(bytes(1200))
        assert len(await tunnel.receive(1000)) == 1200
        await tunnel.send(bytes(1201))

    error = refused(errors.UsageError, main)
    assert "1200" in str(error)
    assert tunnel.error is None


def test_a_burst_of_downlink_is_no_loss_to_an_application_that_waits_for_it():
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile())
    got = []

    async def take():
        while True:
            got.append(await tunnel.receive())

    async def main():
        await tunnel.connect()
        taker = asyncio.create_task(take())
        for n in range(40):
            gateway.down(gateway.established()[0], b"%d" % n)
        await asyncio.sleep_ms(100)
        taker.cancel()

    run(main())
    assert got == [b"%d" % n for n in range(40)]
    assert tunnel.stats()["drops"] == {}


def test_more_downlink_than_is_taken_is_counted():
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile())

    async def main():
        await tunnel.connect()
        for n in range(12):
            gateway.down(gateway.established()[0], b"%d" % n)
        await asyncio.sleep_ms(100)
        assert await tunnel.receive(0) == b"0"

    run(main())
    assert tunnel.counters["received"] == 8
    assert tunnel.stats()["drops"] == {"INBOX_FULL": 4}


def fail(*_):
    raise MemoryError


def test_without_the_memory_for_a_buffer_a_datagram_waits_in_the_socket():
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile())

    async def main():
        await tunnel.connect()
        (socket,) = net.sockets
        receive, socket.receive = socket.receive, fail
        gateway.down(gateway.established()[0], b"patient")
        await asyncio.sleep_ms(200)
        socket.receive = receive
        assert await tunnel.receive(1000) == b"patient"

    run(main())
    assert tunnel.stats()["drops"] == {"NO_MEMORY": 4}


def test_too_little_memory_ends_a_link_as_a_typed_error_and_it_comes_back():
    net = Net()
    gateway = net.gateway()
    log = Log()
    tunnel = Tunnel(profile(), log)

    async def main():
        await tunnel.connect()
        tunnel._link.receiver.open = fail
        gateway.down(gateway.established()[0], b"too much")
        await tunnel.down.wait()
        await tunnel.up.wait()
        await tunnel.send(b"back")
        assert await tunnel.receive(1000) == b"back"

    run(main())
    assert [line["error"] for line in log.all("error")] == ["OutOfMemory"]
    assert len(net.sockets) == 1


def test_a_hint_from_the_handshake_does_not_explain_a_later_silence():
    """Anyone can send an unauthenticated error."""
    net = Net()
    gateway = net.gateway()
    log = Log()
    tunnel = Tunnel(profile(), log)
    honest = gateway.receive

    def forged(datagram, source, number):
        answers = honest(datagram, source, number)
        gateway.receive = honest
        sa = gateway.history[-1]
        return [sa.responder.refuse_init(datagram, (41, b"\0\0\0\x0e"))] + answers

    gateway.receive = forged

    async def main():
        await tunnel.connect()
        gateway.up = False
        await tunnel.send(b"into the void")
        await tunnel.down.wait()

    run(main())
    assert [line["notify"] for line in log.all("hint")] == ["NO_PROPOSAL_CHOSEN"]
    assert [line["error"] for line in log.all("error")] == ["LinkDown"]


# Who closes it, and when.


@item("A8")
def test_a_tunnel_closed_while_it_connects_stays_closed():
    for after in (0, 10, 50, 2500):
        for silent in (False, True):
            net = Net()
            if not silent:
                net.gateway()
            log = Log()
            tunnel = Tunnel(profile(gateway=[GATEWAY, SECOND]), log)
            online = port.online

            async def slow(*_):
                await asyncio.sleep_ms(30)
                return True

            async def main():
                connecting = asyncio.create_task(tunnel.connect())
                await asyncio.sleep_ms(after)
                if not connecting.done():
                    await tunnel.close()
                    try:
                        await connecting
                    except errors.UsageError as e:
                        assert str(e) == "the tunnel is closed", e
                        return
                    assert False, after
                await tunnel.close()

            port.online = slow
            try:
                run(main())
            finally:
                port.online = online
            assert net.sockets == [] and not tunnel.up.is_set()
            assert tunnel.counters["faults"] == 0


@item("A8")
def test_close_lets_go_of_its_socket_whatever_sending_raises():
    for error in (ValueError("x"), RuntimeError(), MemoryError(), KeyError(1), EOFError()):
        for gap in (0, 20):
            net = Net()
            net.gateway()
            tunnel = Tunnel(profile(fragment_gap_ms=gap))

            async def main():
                await tunnel.connect()

                def refuse(*_):
                    raise error

                net.sockets[0].send = refuse
                await tunnel.close()

            run(main())
            assert net.sockets == [] and not tunnel.up.is_set()
            assert tunnel.stats()["faults"] == (0 if isinstance(error, MemoryError) else 1)


@item("A8")
def test_a_link_that_breaks_without_memory_for_a_module_comes_back():
    net = Net()
    gateway = net.gateway()
    tunnel = Tunnel(profile())

    async def main():
        await tunnel.connect()

        def refuse(*_):
            raise MemoryError

        tunnel.on_rare = refuse
        net.sockets[0].send = refuse
        sending = asyncio.create_task(tunnel.send(b"reading"))
        await until(lambda: gateway.readings, 60000)
        await sending

    run(main())
    assert gateway.count("INIT") == 2


@item("A8")
def test_a_tunnel_whose_task_ends_without_memory_comes_back_when_there_is_some():
    net = Net()
    gateway = net.gateway()
    said = []
    tunnel = Tunnel(profile(), lambda event, fields: said.append((event, fields.get("error"))))

    async def main():
        await tunnel.connect()
        real, keep, refused = tunnel.on_waiting, tunnel._look_after, []

        def refuse():
            if len(refused) < 3:
                refused.append(tunnel._keeper)
                raise MemoryError
            real()

        def fail(link):
            tunnel.on_waiting, tunnel._look_after = refuse, keep
            raise RuntimeError("of a driver")

        tunnel._look_after = fail
        tunnel._tell()
        await until(lambda: gateway.count("INIT") == 2, 60000)
        await tunnel.send(b"reading")
        await until(lambda: gateway.readings, 60000)
        assert len(refused) == 3 and tunnel._keeper not in refused
        await tunnel.close()

    run(main())
    assert ("error", "Failure") in said and gateway.count("INIT") == 2


@item("D10")
def test_receive_waits_as_long_as_it_is_told():
    net = Net()
    net.gateway()
    tunnel = Tunnel(profile(lifetime_ms=86400000))

    async def main():
        await tunnel.connect()
        began = Time.now
        assert await tunnel.receive(1 << 30) is None
        assert Time.now - began >= 1 << 30

    run(main())
