"""The profile: a row for each key; read, checked and put into the shape that the stack uses.

A row is (key, default, check, what the check gets besides the value).  A group of rows is a
generator, so each row exists only while its key is checked.  A tuple of tuples would lie whole in
the heap, because the functions in it keep it from being a constant.  The tools' flags, the tables
on the pages and the texts of errors are made from these rows and from the groups' first lines.
"""

from micropython import const

from ..errors import ProfileError
from .checks import (
    address,
    boolean,
    choice,
    country,
    static_ip,
    host,
    identity,
    name,
    number,
    spis,
    network,
    keys,
    text,
)
from .proposals import proposals, word_of
from .secrets import KEYS, check_closed, check_secrets, read, refuse

REQUIRED = ...
_DATAGRAM = const(1504)  # octets to receive in one piece: an Ethernet frame and a little more


def gateway():
    """The gateway, and who both ends are"""
    yield "gateway", REQUIRED, host
    yield "gateway_id", REQUIRED, identity, "any"
    yield "id", REQUIRED, identity
    yield "secrets", "secrets.json", text
    yield "port", 500, number, 1, 65535
    yield "natt_port", 4500, number, 1, 65535
    yield "encap", True, boolean


def inner():
    """What goes through the tunnel"""
    yield "server", None, address
    yield "server_port", 5000, number, 1, 65535
    yield "inner_port", 5000, number, 1, 65535
    yield "inner_address", None, address
    yield "remote_ts", None, network
    yield "mode", "tunnel", choice, "tunnel", "transport"


def ike():
    """IKE"""
    default = ["aes128ccm16-prfsha256-x25519", "aes128ccm8-prfsha256-x25519"]
    yield "ike", default, proposals, True
    yield "pq", "off", choice, "off", "prefer", "require"
    yield "pq_method", "mlkem768", choice, "mlkem512", "mlkem768", "mlkem1024"
    yield "ppk_id", None, text
    yield "ppk_required", True, boolean
    yield "fragment_size", None, number, 128, 9000
    yield "fragment_gap_ms", 2, number, 0, 1000
    yield "frag_ack", "02", choice, "02", "03", "off"
    yield "keylog", None, text


def esp():
    """ESP"""
    yield "esp", ["aes128ccm8"], proposals, False
    yield "spi", None, spis
    yield "esp_pad_to", 0, number, 0, 255
    yield "sn_tick_ms", 100, number, 1, 3600000
    yield "replay_window", 64, number, 0, 128


def times():
    """When to send again, when to replace the tunnel"""
    yield "retransmit_ms", 1000, number, 50, 60000
    yield "retransmit_tries", 5, number, 1, 10
    yield "retries", -1, number, -1, 1000000
    yield "retry_max_ms", 300000, number, 1000
    yield "lifetime_ms", 86400000, number, 1000
    yield "liveness_ms", 20000, number, 0
    yield "keepalive_ms", 20000, number, 0


def board():
    """The board: its network, its sleep (not IPsec)"""
    yield "network", "up", choice, "up", "wifi", "ethernet"
    yield "ssid", None, name
    yield "country", None, country
    yield "security", "auto", choice, "auto", "wpa_wpa2", "wpa2_wpa3", "wpa3"
    yield "power_saving", "on", choice, "on", "off"
    yield "static_ip", None, static_ip
    yield "sleep", "off", choice, "off", "clock", "mark"
    yield "silent_wakes", 6, number, 1, 255
    # Below 5000 the slowest key exchange on the slowest board would end in a reset.
    yield "watchdog_ms", 0, number, 5000, 1 << 29, 0


def readings():
    """The readings (not IPsec)"""
    yield "interval_ms", 1000, number, 0
    yield "batch", 1, number, 1, 64
    yield "log", "text", choice, "text", "json", "errors", "off"
    yield "experimental", {}, keys


def experimental():
    """Keys of the table `experimental`, for those who measure"""
    yield "frag_ack_policy", "eager", choice, "eager", "conservative"
    yield "max_packets", 1 << 24, number, 1
    yield "readings", 0, number, 0


GROUPS = (gateway, inner, ike, esp, times, board, readings)


def rows():
    """Yield the row of each key in order, without those of the table `experimental`."""
    for group in GROUPS:
        yield from group()


def _take(profile, given, rows, what):
    """Put the checked value of each row into the profile."""
    given = dict(given)
    for key, default, check, *more in rows:
        there = key in given
        value = given.pop(key, default)
        if there or value is not None:
            good = check(value, *more)
            if good is None:
                refuse("value", what, key, value, check, more)
            value = good
        profile[key] = value
    if given:
        raise ProfileError  # `old` knows these keys, or says which are unknown


def check_profile(values):
    """Return the whole profile, with defaults, for a dict as it stands in the file."""
    try:
        return _checked(values)
    except ProfileError:
        from .old import renewed

        now = renewed(values, rows(), experimental())
        if now == values:
            raise
        return _checked(now)


def _checked(values):
    profile = {}
    if not isinstance(values, dict):
        refuse("value", "profile", "", values, keys)
    _take(profile, values, rows(), "profile")
    _take(profile, profile.pop("experimental"), experimental(), "profile: experimental")
    server = profile["server"]
    if profile["mode"] == "tunnel" and not server:
        refuse("value", "profile", "server", REQUIRED, address)
    if profile["network"] == "wifi" and not profile["ssid"]:
        refuse("value", "profile", "ssid", REQUIRED, name)
    for key in ("inner_address", "remote_ts"):
        ours = profile[key]
        # A network is its first and its last address.
        if ours and server and len(ours[0] if type(ours) is tuple else ours) != len(server):
            refuse("value", "profile", key, values[key], "the IP version of server")
    _fill_in(profile)
    return profile


def _fill_in(profile):
    """Add what the stack derives from the keys, so that this module can be forgotten."""
    profile["datagram"] = _DATAGRAM
    if profile["pq"] != "off" or any(["mlkem" in p or "ccm" not in p for p, _ in profile["ike"]]):
        from .hybrid import fit

        fit(profile)
    profile["warning"] = None
    if profile["spi"]:
        from .refused import FIXED_SPI

        profile["warning"] = FIXED_SPI
    # {transform: its word} for the log, of all that may be agreed on.
    profile["words"] = words = {}
    for _, transforms in profile["ike"] + profile["esp"]:
        for one in transforms:
            word = word_of(*one)
            if word:
                words[one] = word


def make_profile(values):
    """Return a profile for a dict with its keys and those of the secrets file together."""
    secrets = {}
    keys = {}
    for key, value in values.items():
        (secrets if key in KEYS else keys)[key] = value
    profile = check_profile(keys)
    profile["directory"] = ""
    return _with_secrets(profile, secrets)


def _with_secrets(profile, secrets):
    profile.update(check_secrets(secrets))
    if bool(profile["ppk_id"]) != ("ppk" in profile):
        refuse("secret", "ppk_id", KEYS)
    return profile


def load_profile(path="profile.json"):
    """Read a profile and the secrets file that it names, which lies beside it.

    Raises ProfileError, also where others can read the secrets file.
    """
    profile = check_profile(read(path, "profile"))
    directory, slash, _ = path.rpartition("/")
    # Snapshots that are files lie beside the profile, and they hold keys.
    directory = profile["directory"] = directory + slash
    secrets = profile["secrets"]
    if secrets[0] != "/":
        secrets = directory + secrets
    check_closed(secrets, "secrets")
    if profile["sleep"] != "off":
        check_closed(directory or ".", "profile: sleep")
    if profile["keylog"]:
        check_closed(profile["keylog"], "profile: keylog")
    return _with_secrets(profile, read(secrets, "secrets"))
