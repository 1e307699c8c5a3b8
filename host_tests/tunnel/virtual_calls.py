"""The API called in ways that it is not made for: an error at once, never a wait without an end."""

import asyncio

import minipsec
from host_tests.core.checklist import item
from host_tests.core.node import PROFILE
from host_tests.tunnel.virtual_connecting import refused
from host_tests.tunnel.world import Log, Net, Time, profile, run
from minipsec import ProfileError, UsageError
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
    for key, value in (("gateways", [17]), ("gateways", None), ("ike", 7), ("retransmit_ms", "a")):
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
