"""Profile and secrets: each key's good values, and for each bad one the line that a person reads."""

from tools.dev.peers.node import PROFILE, profile
from minipsec.config import profile as store

ID = 'an identity like "sensor.example.org", "a@b" or "keyid:7"'
HOSTS = "a host or address, or a list of them"
ADDRESS = "an IPv4 or IPv6 address"
IKE = 'proposals like ["aes128ccm16-prfsha256-x25519"]'
ESP = 'proposals like ["aes128ccm8"]'

CCM_16 = [(1, 16, 128), (2, 5, 0), (4, 31, 0)]
LONG = "x" * 256
TEXTS = ("", " ", "two words", "tab\t", "line\n", LONG, 17, True, None, [], ["a"], {}, 1.5)
NUMBERS = ("", "1", "1000", None, True, False, [], [1], {}, 1.5, 1e3)


def whole(low, high):
    return "a whole number from %d to %d" % (low, high)


# key: (what is expected, {good value: what it becomes} or [good value that stays], bad values)
ROWS = {
    "gateway": (
        HOSTS,
        [(name, [name]) for name in ("gw.example.org", "10.77.0.1", "fd77::1", "x" * 255)]
        + [["a"], ["10.77.0.1", "b.example.org"], ["a"] * 8],
        TEXTS[:9] + TEXTS[12:] + (["a"] * 9, [""], ["a", 1], [None]),
    ),
    "gateway_id": (
        ID + ', or "any"',
        [
            ("any", "any"),
            ("gw.example.org", (2, b"gw.example.org")),
            ("fqdn:any", (2, b"any")),
            ("10.77.0.1", (1, b"\x0aM\0\1")),
        ],
        TEXTS + ("keyid:", "email:"),
    ),
    "id": (
        ID,
        [
            ("sensor-1.example.org", (2, b"sensor-1.example.org")),
            ("cellar", (2, b"cellar")),
            ("a@b.example", (3, b"a@b.example")),
            ("keyid:7", (11, b"7")),
            ("keyid:0x00ff", (11, b"\0\xff")),
            ("fqdn:a@b", (2, b"a@b")),
            ("email:a", (3, b"a")),
            ("ipv4:10.9.0.5", (1, b"\x0a\x09\0\5")),
            ("1.2.3", (2, b"1.2.3")),
        ],
        TEXTS + ("ipv4:10.9.0", "ipv4:a", "ipv4:fd00::1", "ipv6:10.0.0.1"),
    ),
    "secrets": ("a file name", ["secrets.json", "/etc/minipsec/psk"], TEXTS),
    "server": (
        ADDRESS,
        [
            ("10.3.0.10", bytes((10, 3, 0, 10))),
            ("255.255.255.255", b"\xff" * 4),
            ("fd03::10", bytes.fromhex("fd03") + bytes(13) + b"\x10"),
            ("::1", bytes(15) + b"\1"),
            ("1:2:3:4:5:6:7:8", bytes((0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8))),
            ("FD00::ABCD", b"\xfd" + bytes(13) + b"\xab\xcd"),
        ],
        TEXTS[:-6]
        + TEXTS[-5:]
        + (
            "10.3.0",
            "10.3.0.256",
            "10.3.0.-1",
            "10.3.0.1.2",
            "10.3..1",
            "a.b.c.d",
            "10.3.0.10/32",
            "server.example.org",
            "fd00:::1",
            "1:2:3",
            "1::2::3",
            "12345::",
            "1:2:3:4:5:6:7:8:9",
            ":1:2:3:4:5:6:7",
            "fd00::g",
            "10.3.0.10:5000",
        ),
    ),  # fmt: skip
    "server_port": (whole(1, 65535), [1, 5000, 65535], NUMBERS + (0, -1, 65536)),
    "inner_port": (whole(1, 65535), [1, 5000, 65535], NUMBERS + (0, -1, 65536)),
    "inner_address": (ADDRESS, [("10.9.0.5", b"\x0a\x09\0\5")], TEXTS + ("10.9.0.0/24", "pool")),
    "remote_ts": (
        "a network like 10.3.0.0/16",
        [
            ("10.3.0.0/16", (b"\x0a\3\0\0", b"\x0a\3\xff\xff")),
            ("10.3.7.7/16", (b"\x0a\3\0\0", b"\x0a\3\xff\xff")),
            ("10.3.0.10", (b"\x0a\3\0\x0a", b"\x0a\3\0\x0a")),
            ("10.3.0.10/32", (b"\x0a\3\0\x0a", b"\x0a\3\0\x0a")),
            ("0.0.0.0/0", (bytes(4), b"\xff" * 4)),
            ("10.3.0.0/31", (b"\x0a\3\0\0", b"\x0a\3\0\1")),
        ],
        TEXTS + ("10.3.0.0/33", "10.3.0.0/-1", "10.3.0.0/", "10.3/16", "10.3.0.0/a", "/0", "any"),
    ),
    "port": (whole(1, 65535), [1, 500, 65535], NUMBERS + (0, 65536)),
    "natt_port": (whole(1, 65535), [1, 4500, 65535], NUMBERS + (0, 65536)),
    "encap": ("true or false", [True, False], ("", "true", "no", 0, 1, 2, None, [], {}, 1.0)),
    "ike": (
        IKE,
        [
            (
                ["aes128ccm16-prfsha256-x25519"],
                [("aes128ccm16-prfsha256-x25519", CCM_16)],
            ),
            (
                ["x25519-aes128ccm8-prfsha256"],
                [("x25519-aes128ccm8-prfsha256", [(4, 31, 0), (1, 14, 128), (2, 5, 0)])],
            ),
            (
                ["aes256-sha256-prfsha256-modp2048"],
                [
                    (
                        "aes256-sha256-prfsha256-modp2048",
                        [(1, 12, 256), (3, 12, 0), (2, 5, 0), (4, 14, 0)],
                    )
                ],
            ),
        ],
        (
            [],
            ["aes128ccm16-prfsha256-x25519"] * 9,
            [1],
            [None],
            [[]],
            {},
            None,
            1,
        ),
    ),  # fmt: skip
    "esp": (
        ESP,
        [
            (["aes128ccm8"], [("aes128ccm8", [(1, 14, 128), (5, 0, 0)])]),
            (["aes128ccm16-noesn"], [("aes128ccm16-noesn", [(1, 16, 128), (5, 0, 0)])]),
            (["aes256ccm12"], [("aes256ccm12", [(1, 15, 256), (5, 0, 0)])]),
        ],
        (
            [],
            ["aes128ccm8"] * 9,
            [1],
            None,
            1,
        ),
    ),  # fmt: skip
    "mode": ('"tunnel" or "transport"', ["tunnel", "transport"], ("", "TUNNEL", 1, None, [])),
    "spi": (
        "2 to 8 different numbers from 256 to 2147483647",
        [[256, 257], list(range(300, 308)), [256, 2147483647]],
        ([], [256], [256, 256], [255, 256], list(range(300, 309)), [1, 2], ["a", "b"], 256, "x")
        + ([256, 2147483648], [256, True], [256, None], [[256], [257]], [{}, 256], None, {}),
    ),
    "esp_pad_to": (whole(0, 255), [0, 64, 255], NUMBERS + (-1, 256)),
    "fragment_size": (whole(128, 9000), [128, 576, 9000], NUMBERS + (0, 127, 9001)),
    "fragment_gap_ms": (whole(0, 1000), [0, 2, 1000], NUMBERS + (-1, 1001)),
    "frag_ack": (
        '"02" or "03" or "off"',
        ["02", "03", "off"],
        ("", "3", "05", 2, True, None, []),
    ),
    "pq": ('"off" or "prefer" or "require"', ["off", "prefer", "require"], ("", "on", True, None)),
    "pq_method": (
        '"mlkem512" or "mlkem768" or "mlkem1024"',
        ["mlkem512", "mlkem768", "mlkem1024"],
        ("", "kyber768", "mlkem", 768, None),
    ),
    "ppk_id": ("an identifier", ["ppk-1", "x" * 255], TEXTS),
    "ppk_required": ("true or false", [True, False], ("", "yes", 0, 1, None)),
    "retransmit_ms": (whole(50, 60000), [50, 1000, 60000], NUMBERS + (0, 49, 60001)),
    "retransmit_tries": (whole(1, 10), [1, 5, 10], NUMBERS + (0, 11)),
    "retries": (whole(-1, 1000000), [-1, 0, 1000000], NUMBERS + (-2, 1000001)),
    "retry_max_ms": (whole(1000, 1 << 29), [1000, 1 << 29], NUMBERS + (999, (1 << 29) + 1)),
    "lifetime_ms": (whole(1000, 1 << 29), [1000, 1 << 29], NUMBERS + (999, (1 << 29) + 1)),
    "liveness_ms": (whole(0, 1 << 29), [0, 60000], NUMBERS + (-1, (1 << 29) + 1)),
    "keepalive_ms": (whole(0, 1 << 29), [0, 20000], NUMBERS + (-1, (1 << 29) + 1)),
    "sn_tick_ms": (whole(1, 3600000), [1, 100, 3600000], NUMBERS + (0, 3600001)),
    "replay_window": (whole(0, 128), [0, 64, 128], NUMBERS + (-1, 129)),
    "sleep": ('"off" or "clock" or "mark"', ["off", "clock", "mark"], ("", True, None, 1)),
    "silent_wakes": (whole(1, 255), [1, 6, 255], NUMBERS + (0, 256)),
    "network": ('"up" or "wifi" or "ethernet"', ["up", "ethernet"], ("", "lan", True, None, [])),
    "ssid": (
        "a name of 1 to 32 octets",
        ["two words", "x" * 32, "\xe4" * 16],
        ("", "x" * 33, "\xe4" * 17, 7, None, True, [], ["a"], {}),
    ),
    "country": (
        'two capital letters like "DE"',
        ["DE", "US"],
        ("", "de", "DEU", "D1", 7, True, []),
    ),
    "security": (
        '"auto" or "wpa_wpa2" or "wpa2_wpa3" or "wpa3"',
        ["auto", "wpa3"],
        ("", "WPA3", None, True, 3),
    ),
    "power_saving": ('"on" or "off"', ["on", "off"], ("", None, True, 0)),
    "static_ip": (
        "[address, mask, gateway, DNS server], IPv4",
        [["192.168.1.5", "255.255.255.0", "192.168.1.1", "192.168.1.1"]],
        ("192.168.1.5", ["192.168.1.5"], [], None, {}, 1, ["10.0.0.1"] * 5, ["fd00::1"] * 4)
        + (["10.0.0.256"] * 4, [1, 2, 3, 4]),
    ),
    "watchdog_ms": (
        whole(5000, 1 << 29) + ", or 0",
        [0, 5000, 8000, 1 << 29],
        NUMBERS + (1, 4999, -1, (1 << 29) + 1),
    ),
    "batch": (whole(1, 64), [1, 64], NUMBERS + (0, 65)),
    "interval_ms": (whole(0, 1 << 29), [0, 1000], NUMBERS + (-1, (1 << 29) + 1)),
    "log": (
        '"text" or "json" or "errors" or "off"',
        ["text", "json", "errors", "off"],
        ("", "xml", True, None, 0),
    ),
    "keylog": ("a file name", ["keys.csv", "/tmp/keys"], TEXTS),
    "experimental": ("an object with keys of its own", [], TEXTS[:11] + TEXTS[12:]),
}
EXPERIMENTAL = {
    "frag_ack_policy": (
        '"eager" or "conservative"',
        ["eager", "conservative"],
        ("", "bold", 1, None, []),
    ),
    "max_packets": (whole(1, 1 << 29), [1, 1 << 29], NUMBERS + (0, (1 << 29) + 1)),
    "readings": (whole(0, 1 << 29), [0, 10], NUMBERS + (-1, (1 << 29) + 1)),
}


def complaint(values):
    """Return the line that a profile is refused with, None when it is taken."""
    try:
        store.check_profile(values)
    except store.ProfileError as e:
        (text,) = e.args
        assert "\n" not in text and text
        return text
    return None


def as_json(value):
    import json

    return json.dumps(value)


def with_key(key, value):
    values = dict(PROFILE)
    values[key] = value
    return values


def test_every_key_has_a_row_here():
    assert set(ROWS) == {row[0] for row in store.rows()}, "a new key needs a row above"
    assert set(EXPERIMENTAL) == {row[0] for row in store.experimental()}


def test_good_values_of_every_key_are_taken_and_come_out_right():
    for key, (expected, good, bad) in ROWS.items():
        for value in good:
            value, result = value if isinstance(value, tuple) else (value, value)
            values = with_key(key, value)
            if key == "server" and ":" in value:
                values.pop("remote_ts", None)
            assert store.check_profile(values)[key] == result, (key, value)


def test_bad_values_of_every_key_are_refused_with_the_line_that_helps():
    for key, (expected, good, bad) in ROWS.items():
        assert len(bad) >= 3, key
        for value in bad:
            said = complaint(with_key(key, value))
            got = as_json(value)
            if len(got) > 64:
                got = got[:64] + ".."
            got = "" if key == "secrets" else ", got " + got
            assert said == "profile: %s: expected %s%s" % (key, expected, got)


def test_experiments_stand_in_a_table_of_their_own():
    for key, (expected, good, bad) in EXPERIMENTAL.items():
        for value in good:
            assert store.check_profile(with_key("experimental", {key: value}))[key] == value
        for value in bad:
            assert complaint(with_key("experimental", {key: value})) == (
                "profile: experimental: %s: expected %s, got %s" % (key, expected, as_json(value))
            )
    for key in ("port", "bold", ""):
        said = complaint(with_key("experimental", {key: 1}))
        assert said == "profile: experimental: %s: unknown key" % key
    assert "experimental" not in store.check_profile(with_key("experimental", {}))


def test_keys_of_older_versions_are_read_under_the_name_that_they_have_now():
    values = dict(PROFILE, gateways=["a", "b.example.org"])
    assert store.check_profile(values)["gateway"] == ["a", "b.example.org"]
    del values["gateway"]
    for key, value, now in (
        ("port", 501, {"port": 501}),
        ("frag_ack", "04", {"frag_ack": "03"}),
        ("frag_ack_policy", "conservative", {"experimental": {"frag_ack_policy": "conservative"}}),
        ("max_packets", 10, {"experimental": {"max_packets": 10}}),
        ("frag_ack_types", [50201, 50202, 50203], {}),
        ("readings", 10, {"experimental": {"readings": 10}}),
    ):
        old = dict(values, **{key: value})
        now = dict(PROFILE, gateway=["a", "b.example.org"], **now)
        assert store.check_profile(old) == store.check_profile(now), key
        assert renewed(old) == now, key
        assert renewed(now) == now
    # What stands in the table already goes before.
    both = {"max_packets": 10, "experimental": {"max_packets": 20}}
    assert renewed(both) == {"experimental": {"max_packets": 20}}


def renewed(values):
    from minipsec.config.old import renewed

    return renewed(values, store.rows(), store.experimental())


def test_a_key_of_older_versions_that_is_gone_is_refused_with_what_to_do():
    assert complaint(with_key("frag_ack_types", [1, 2, 3])) == (
        "profile: frag_ack_types: no longer a key: take it out; both ends have [50201, 50202, 50203]"
    )
    # An old key is checked as the new one is.
    assert complaint(with_key("gateways", 17)) == ("profile: gateway: expected %s, got 17" % HOSTS)
    assert complaint(with_key("max_packets", 0)).startswith(
        "profile: experimental: max_packets: expected a whole"
    )


def test_a_long_value_is_cut_where_a_line_repeats_it():
    long = "x" * 5000
    for key in ROWS:
        for value in (long, [long], {long: long}, [long] * 9, long + "*", "@" + long, "=" + long):
            if key in ("ppk_id", "keylog", "ssid", "secrets", "gateway", "experimental"):
                value = [value]
            said = complaint(with_key(key, value))
            assert said and "xxxx" in said or key == "secrets", (key, said)
            assert said.count("x") < 150, (key, said)
    assert complaint(with_key(long, 1)).count("x") < 70
    # Well written and of no use together.
    said = complaint(with_key("ike", ["-".join(["aes128ccm16"] * 500)]))
    assert len(said) < 200 and "it lacks" in said, said


def test_secrets_in_place_of_their_file_are_not_repeated():
    for value in ({"psk": "topsecret"}, ["topsecret"], "topsecret " * 40):
        said = complaint(with_key("secrets", value))
        assert said == "profile: secrets: expected a file name"


def test_the_line_of_the_design():
    assert complaint(with_key("gateway", 17)) == "profile: gateway: expected %s, got 17" % HOSTS


def test_what_is_missing_is_named_with_what_belongs_there():
    for key, expected in (
        ("gateway", HOSTS),
        ("gateway_id", ID + ', or "any"'),
        ("id", ID),
        ("server", ADDRESS),
    ):
        values = dict(PROFILE)
        del values[key]
        assert complaint(values) == "profile: %s: missing, expected %s" % (key, expected)


def test_a_key_that_nobody_knows_is_refused():
    for key in ("psk", "Gateway", "gateway ", "", "gatway", "__class__"):
        assert complaint(with_key(key, 1)) == "profile: %s: unknown key" % key


def test_what_is_no_object_is_refused():
    for values in (None, [], "text", 1, True):
        assert complaint(values) == (
            "profile: expected one JSON object with keys like gateway and id"
        )


def test_defaults_are_filled_in():
    checked = store.check_profile(dict(PROFILE))
    for key, value in (
        ("port", 500), ("natt_port", 4500), ("server_port", 5000), ("inner_port", 5000),
        ("inner_address", None), ("retransmit_ms", 1000), ("retransmit_tries", 5),
        ("sn_tick_ms", 100), ("replay_window", 64), ("interval_ms", 1000), ("log", "text"), ("keylog", None), ("secrets", "secrets.json"),
    ):  # fmt: skip
        assert checked[key] == value, key
    assert [name for name, _ in checked["ike"]] == [
        "aes128ccm16-prfsha256-x25519",
        "aes128ccm8-prfsha256-x25519",
    ]
    assert [name for name, _ in checked["esp"]] == ["aes128ccm8"]


def test_checking_leaves_the_given_values_alone():
    values = dict(PROFILE)
    store.check_profile(values)
    assert values == PROFILE


def test_addresses_of_two_ip_versions_do_not_mix():
    assert complaint(with_key("server", "fd03::10")) is None
    values = with_key("server", "fd03::10")
    values["remote_ts"] = "10.3.0.0/16"
    said = complaint(values)
    assert said == 'profile: remote_ts: expected the IP version of server, got "10.3.0.0/16"'
    values = with_key("inner_address", "fd09::5")
    assert complaint(values) == (
        'profile: inner_address: expected the IP version of server, got "fd09::5"'
    )


def test_a_fragment_with_aes_cbc_over_ipv6_must_hold_a_block():
    values = dict(PROFILE, gateway="fd77::1", ike=["aes128-sha256-prfsha256-x25519"])
    for size in (None, 136, 1280):
        assert complaint(dict(values, fragment_size=size) if size else values) is None
    for size in (128, 135):
        assert complaint(dict(values, fragment_size=size)) == (
            "profile: fragment_size: expected 136 or more with AES-CBC over IPv6, got %d" % size
        )
    # Neither IPv4 nor AES-CCM asks for so much.
    for changes in ({"gateway": "10.77.0.1"}, {"ike": ["aes128ccm16-prfsha256-x25519"]}):
        assert complaint(dict(values, fragment_size=128, **changes)) is None


def test_secrets_are_text_or_hex():
    for given, result in (
        ({"psk": "correct horse"}, {"psk": b"correct horse"}),
        ({"psk": "0x00ff"}, {"psk": b"\0\xff"}),
        ({"psk": "x"}, {"psk": b"x"}),
        ({"psk_pad": "0x" + "ab" * 32}, {"psk_pad": b"\xab" * 32}),
        ({"psk": "x", "ppk": "0x01"}, {"psk": b"x", "ppk": b"\1"}),
        ({"psk": "x", "wifi_key": "0xpen door"}, {"psk": b"x", "wifi_key": "0xpen door"}),
        ({"psk": "x", "seed": "0x" + "cd" * 32}, {"psk": b"x", "seed": b"\xcd" * 32}),
    ):
        assert store.check_secrets(given) == result


def test_bad_secrets_are_refused_without_repeating_them():
    start = "secrets: "
    for given, line in (
        ({}, 'expected {"psk"'),
        ([], 'expected {"psk"'),
        (None, 'expected {"psk"'),
        ("topsecret", 'expected {"psk"'),
        ({"psk": ""}, "psk: expected "),
        ({"psk": 12345678}, "psk: expected "),
        ({"psk": None}, "psk: expected "),
        ({"psk_pad": "ab" * 32}, "psk_pad: expected 0x and 64 digits"),
        ({"psk_pad": "0x" + "ab" * 31}, "psk_pad: expected 0x and 64 digits"),
        ({"psk_pad": "0x" + "ab" * 33}, "psk_pad: expected 0x and 64 digits"),
        ({"psk_pad": "topsecret" * 4}, "psk_pad: expected 0x and 64 digits"),
        ({"psk": "topsecret", "psk_pad": "0x" + "ab" * 32}, 'expected {"psk"'),
        ({"psk": "topsecret", "comment": "x"}, "a key is unknown; known are "),
        ({"topsecret": "x"}, "a key is unknown; known are "),
        ({"psk": "topsecret", "ppk": ""}, "ppk: expected "),
        ({"ppk": "topsecret"}, 'expected {"psk"'),
        ({"psk": "topsecret", "wifi_key": ""}, "wifi_key: expected text"),
        ({"psk": "topsecret", "wifi_key": 12345678}, "wifi_key: expected text"),
        ({"psk": "topsecret", "seed": "cd" * 32}, "seed: expected 0x and 64 digits"),
        ({"psk": "topsecret", "seed": "cd" * 33}, "seed: expected 0x and 64 digits"),
        ({"psk": "topsecret", "seed": "0x" + "cd" * 31}, "seed: expected 0x and 64 digits"),
        ({"psk": "topsecret", "seed": "0x" + "xy" * 32}, "seed: expected 0x and 64 digits"),
        ({"psk": "topsecret", "seed": None}, "seed: expected 0x and 64 digits"),
    ):
        try:
            store.check_secrets(given)
        except store.ProfileError as e:
            assert e.args[0].startswith(start + line), (given, e.args)
            assert "topsecret" not in e.args[0] and "12345678" not in e.args[0]
        else:
            raise AssertionError(given)


def test_wifi_needs_the_name_of_a_network():
    assert complaint(with_key("network", "wifi")) == (
        "profile: ssid: missing, expected a name of 1 to 32 octets"
    )
    values = with_key("network", "wifi")
    values["ssid"] = "cellar"
    assert complaint(values) is None


def test_a_profile_is_refused_by_one_kind_of_error_whatever_it_holds():
    values = [
        None,
        True,
        0,
        -1,
        1 << 70,
        1.5,
        "",
        "x",
        "0x",
        ":",
        "/",
        [],
        [[]],
        [{}],
        {},
        {"a": 1},
    ]
    for key in ROWS:
        for value in values:
            complaint(with_key(key, value))
            complaint(with_key(key, [value, value]))


def test_the_checked_profile_is_what_the_core_takes():
    checked = profile(id="keyid:7")
    assert checked["id"] == (11, b"7") and checked["psk"] == bytes(range(7, 39))
