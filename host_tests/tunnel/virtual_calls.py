"""The API called in ways that it is not made for: an error at once, never a wait without an end."""

import asyncio
import json
from array import array

import minipsec
from host_tests.checklist import item
from tools.dev.peers.node import PROFILE
from host_tests.app.test_log import printed
from host_tests.tunnel.virtual_connecting import refused
from tools.dev.sim.virtual import Log, Net, Time, profile, run
from minipsec import ProfileError, UsageError
from minipsec.app import log as report
from minipsec.tunnel import Tunnel


@item("K2")
def test_what_are_no_octets_is_refused_at_once_by_its_type():
    Net().gateway()
    tunnel = Tunnel(profile())

    async def main():
        for payload, name in (("text", "str"), (17, "int"), (None, "NoneType"), ([1], "list")):
            for connected in (False, True):
                if connected and not tunnel.up.is_set():
                    await tunnel.connect()
                began = Time.now
                try:
                    await tunnel.send(payload)
                except TypeError as e:
                    assert str(e) == "send takes bytes, not " + name and Time.now == began
                else:
                    raise AssertionError(payload)
        for payload in (b"a", bytearray(b"b"), memoryview(b"c")):
            await tunnel.send(payload)
        assert tunnel.counters["sent"] == 3 and tunnel.counters["lost"] == 0
        await tunnel.close()

    run(main())


WIDE = array("I", [7] * 300)  # 1200 octets


@item("K2")
def test_any_octets_are_sent_and_logged_as_what_they_were_at_the_call():
    gateway = Net().gateway()
    log = Log()
    tunnel = Tunnel(profile(), log)
    owned = bytearray(b"at the call")
    given = (b"a", bytearray(b"b"), memoryview(b"cd")[1:], memoryview(WIDE))

    async def main():
        await tunnel.connect()
        for payload in given:
            await tunnel.send(payload)
        await tunnel.close()
        connecting = asyncio.create_task(tunnel.connect())
        await asyncio.sleep_ms(0)
        sending = asyncio.create_task(tunnel.send(owned))
        await asyncio.sleep_ms(0)
        owned[:] = b"and later.."
        await connecting
        await sending
        await tunnel.close()

    run(main())
    octets = [bytes(payload) for payload in given] + [b"at the call"]
    assert [reading for _, reading in gateway.readings] == octets
    sent = log.all("sent")
    assert [fields["data"] for fields in sent] == octets
    for fields in sent:
        (line,) = printed(report.reporter("json"), "sent", fields)
        assert json.loads(line)["n"] == fields["n"]


@item("K2")
def test_the_octets_of_a_payload_are_bounded_and_not_its_items():
    Net().gateway()
    tunnel = Tunnel(profile())
    wide = array("I", [7] * 301)

    async def main():
        await tunnel.connect()
        for payload in (bytes(1201), bytearray(1201), memoryview(bytes(1201)), memoryview(wide)):
            try:
                await tunnel.send(payload)
            except UsageError as e:
                assert "1200 octets" in str(e)
            else:
                raise AssertionError(payload)
        assert tunnel.counters["sent"] == 0
        await tunnel.close()

    run(main())


def test_a_close_that_is_cancelled_leaves_no_socket_behind():
    """At any moment: in an attempt, while a successor comes up, while the gateway answers."""
    for began_ms in (0, 5, 15, 25, 35, 60, 1000, 1005, 1015, 1025, 1035):
        for ms in (0, 1, 5, 15, 30):
            net = Net()
            gateway = net.gateway()
            tunnel = Tunnel(profile(lifetime_ms=1000))

            async def main():
                asyncio.create_task(refused_quietly(tunnel.connect))
                await asyncio.sleep_ms(began_ms)
                closing = asyncio.create_task(tunnel.close())
                await asyncio.sleep_ms(ms)
                closing.cancel()
                try:
                    await closing
                except asyncio.CancelledError:
                    pass
                assert net.sockets == [], (began_ms, ms)
                assert not tunnel.up.is_set() and tunnel.down.is_set()
                await asyncio.sleep_ms(1000)
                assert net.sockets == [], (began_ms, ms)

            run(main())
            if began_ms >= 60:  # it was up: the gateway is told so all the same
                assert gateway.count("DELETE"), (began_ms, ms)


async def refused_quietly(call):
    try:
        await call()
    except UsageError:
        pass


@item("K2")
def test_send_and_receive_before_connect_are_refused_at_once():
    net = Net()
    tunnel = Tunnel(profile())
    began = Time.now
    for call, given in ((tunnel.send, (b"a",)), (tunnel.receive, ()), (tunnel.receive, (5000,))):
        error = refused(UsageError, call, *given)
        assert "connect" in str(error)
    assert Time.now == began and net.lost == 0


@item("K2")
def test_calls_after_close_are_refused_at_once_and_connect_begins_anew():
    Net().gateway()
    tunnel = Tunnel(profile())

    async def main():
        for _ in range(2):
            await tunnel.connect()
            await tunnel.send(b"a")
            await tunnel.close()
            began = Time.now
            for call, given in ((tunnel.send, (b"a",)), (tunnel.receive, ())):
                try:
                    while True:  # what came meanwhile is still there
                        await call(*given)
                except UsageError as e:
                    assert "closed" in str(e)
            assert Time.now == began
            await tunnel.close()  # once more does nothing

    run(main())


@item("K2")
def test_a_tunnel_is_connected_once():
    Net().gateway()
    tunnel = Tunnel(profile())

    async def main():
        first = asyncio.create_task(tunnel.connect())
        await asyncio.sleep_ms(0)
        for _ in range(2):
            try:
                await tunnel.connect()
            except UsageError as e:
                assert "already" in str(e)
            else:
                raise AssertionError("twice")
            await first
        await tunnel.send(b"a")
        await tunnel.close()

    run(main())


@item("K2")
def test_a_send_while_connecting_waits_for_the_tunnel():
    Net().gateway()
    tunnel = Tunnel(profile())

    async def main():
        first = asyncio.create_task(tunnel.connect())
        await asyncio.sleep_ms(0)
        await tunnel.send(b"a")
        assert tunnel.up.is_set()
        await first
        await tunnel.close()

    run(main())


@item("K4")
def test_what_is_no_profile_is_refused_where_it_is_given():
    for wrong in (None, {}, dict(PROFILE), "profile.json", 17, []):
        try:
            Tunnel(wrong)
        except ProfileError as e:
            assert "load_profile() or profile(..)" in str(e)
        else:
            raise AssertionError(wrong)


@item("K4")
def test_a_profile_that_was_spoilt_after_its_check_ends_connect():
    for key, value in (("gateway", [17]), ("gateway", None), ("ike", 7), ("retransmit_ms", "a")):
        Net().gateway()
        spoilt = profile()
        spoilt[key] = value
        refused(Exception, Tunnel(spoilt).connect)


@item("K4")
def test_a_profile_is_made_in_code_and_carries_readings():
    made = minipsec.profile(psk="0x" + bytes(range(7, 39)).hex(), **PROFILE)
    assert made["psk"] == bytes(range(7, 39)) and made["id"] == (2, b"sensor-1.example.org")
    assert made["port"] == 500 and made["ike"]
    Net().gateway()
    log = Log()
    tunnel = Tunnel(made, log)

    async def main():
        async with tunnel:
            await tunnel.send(b"a")
            assert await tunnel.receive(timeout_ms=5000) is not None

    run(main())


@item("K4")
def test_a_profile_made_in_code_is_checked_as_a_file_is():
    for keys, words in (
        ({}, "gateway"),
        (dict(PROFILE), "psk"),
        (dict(PROFILE, psk="x", gatway="y"), "profile: gatway: unknown key"),
        (dict(PROFILE, psk=b"octets"), "secrets: psk: expected"),
        (dict(PROFILE, psk="topsecret", psk_pad="0x00"), "psk_pad"),
        (dict(PROFILE, psk="x", port="500"), "profile: port: expected a whole number"),
        (dict(PROFILE, psk="x", ppk_id="p"), "ppk"),
        (dict(PROFILE, psk="x", id="*"), "wildcard"),
        (dict(PROFILE, psk="x", ike=["aes128gcm16-x25519"]), "aes128ccm16"),
    ):
        try:
            minipsec.profile(**keys)
        except ProfileError as e:
            assert words in str(e) and "topsecret" not in str(e), (keys, e)
        else:
            raise AssertionError(keys)
