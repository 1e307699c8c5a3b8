"""What a device is told about: one table for flags, questions, CSV columns and JSON keys."""

import ipaddress
import re
import secrets
from dataclasses import dataclass, field

from ..devgateway.config import secret_octets
from ..common.firmware import board_facts, board_name, known_boards
from ..common.identity import EXPECTED, Identity, NoIdentity
from ..common.problem import BadInput, shortened

_UNITS = {"ms": 1, "s": 1000, "min": 60000, "h": 3600000}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_MAX_INTERVAL_MS = 1 << 29  # what a profile takes: six days
_LOOKUP_MS = 20000  # more than it takes until a name is known or given up


def _identity(text):
    return str(Identity(text))


def _gateway_id(text):
    return text if text == "any" else _identity(text)


def _host(text):
    try:
        return _address(text)
    except ValueError:
        if _HOST.fullmatch(text) and not re.fullmatch(r"[\d.]+", text):
            return text.lower()
        raise


def _address(text):
    if "%" in text:
        raise ValueError  # an interface of this PC, which means nothing on a board
    return str(ipaddress.ip_address(text))


def _network(text):
    if "%" in text:
        raise ValueError
    return str(ipaddress.ip_network(text, strict=False))


def _duration(text):
    found = re.fullmatch(r"(\d+) ?(ms|s|min|h)", text)
    milliseconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= milliseconds <= _MAX_INTERVAL_MS:
        raise ValueError
    return milliseconds


def duration_text(milliseconds):
    """Milliseconds as `--interval` takes them."""
    for unit in ("h", "min", "s"):
        if milliseconds % _UNITS[unit] == 0:
            return f"{milliseconds // _UNITS[unit]}{unit}"
    return f"{milliseconds}ms"


def _whole(low, high):
    def check(text):
        number = int(text) if re.fullmatch(r"\d{1,10}", text) else -1
        if not low <= number <= high:
            raise ValueError
        return number

    return check


def _one_of(*words):
    def check(text):
        if text not in words:
            raise ValueError
        return text

    return check


def _yes_no(text):
    return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[
        text.lower()
    ]


def _board(text):
    name = board_name(text)
    if name not in known_boards():
        raise ValueError
    return name


def _watchdog(text):
    return 0 if text in ("0", "off") else _whole(5000, _MAX_INTERVAL_MS)(text)


def _ssid(text):
    if not 1 <= len(text.encode()) <= 32:
        raise ValueError
    return text


def _country(text):
    if not re.fullmatch("[A-Za-z]{2}", text):
        raise ValueError
    return text.upper()


def _wifi_key(text):
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return text  # the key itself, as WPA makes it out of a passphrase and the network's name
    if not 8 <= len(text) <= 63 or not text.isprintable():
        raise ValueError
    return text


def _four(text):
    addresses = [str(ipaddress.IPv4Address(word)) for word in text.replace(",", " ").split()]
    if len(addresses) != 4:
        raise ValueError
    return addresses


def _spis(text):
    numbers = [_whole(256, (1 << 31) - 1)(word) for word in text.replace(",", " ").split()]
    if not 2 <= len(set(numbers)) == len(numbers) <= 8:
        raise ValueError
    return numbers


def _secret(text):
    """A key that someone made elsewhere: octets, or text long enough not to be guessed."""
    coded = text[:2].lower() in ("0x", "0s")
    if len(secret_octets(text)) < (16 if coded else 20):
        raise ValueError
    return text


@dataclass(frozen=True)
class Field:
    """One thing to know of a device. `key` is its profile key, where that has another name."""

    name: str
    check: object
    expected: str
    default: object = None
    question: str = ""
    key: str = ""
    secret: bool = False

    def read(self, text):
        """Return the checked value of a text; ValueError otherwise."""
        try:
            return self.check(str(text).strip())
        except NoIdentity:
            raise  # it knows more
        except (ValueError, KeyError):
            raise ValueError(self.expected) from None


REQUIRED = object()

# The order is that of questions and of exported columns.
FIELDS = {
    entry.name: entry
    for entry in (
        Field("gateway", _host, "a host name or address", REQUIRED, "The gateway's address"),
        Field("gateway_id", _gateway_id, EXPECTED, None, "The gateway's identity"),
        Field("id", _identity, EXPECTED, REQUIRED, "The device's identity"),
        Field("server", _address, "an IP address", REQUIRED, "Address that readings go to"),
        Field("server_port", _whole(1, 65535), "a port from 1 to 65535", 5000, "Its UDP port"),
        Field("reach", _network, "a network like 10.3.0.0/16", None, key="remote_ts"),
        Field(
            "inner_address",
            _address,
            "an IP address",
            None,
            "The device's address in the tunnel (empty: the gateway gives one)",
        ),
        Field(
            "interval",
            _duration,
            "a time like 500ms, 10s, 5min or 1h, 6 days at most",
            10000,
            "Time between readings",
            key="interval_ms",
        ),
        Field(
            "board",
            _board,
            f"one of {', '.join(known_boards())}, or nothing for another board",
            None,
            f"The board: {', '.join(known_boards())} (empty: another one)",
        ),
        Field(
            "network",
            _one_of("up", "wifi", "ethernet"),
            "up, wifi or ethernet",
            None,
            "How it comes online: wifi, ethernet, or up when something else sees to it",
        ),
        Field("ssid", _ssid, "a name of 1 to 32 octets", None, "Its Wi-Fi network"),
        Field(
            "wifi_key",
            _wifi_key,
            "8 to 63 characters or 64 hex digits",
            None,
            "The Wi-Fi key",
            secret=True,
        ),
        Field("country", _country, "two letters, like DE"),
        Field(
            "security",
            _one_of("auto", "wpa_wpa2", "wpa2_wpa3", "wpa3"),
            "auto, wpa_wpa2, wpa2_wpa3 or wpa3",
        ),
        Field("power_saving", _one_of("on", "off"), "on or off"),
        Field(
            "sleep",
            _one_of("off", "on", "clock", "mark"),
            "off, on, clock or mark",
            None,
            "Deep sleep between readings, as batteries need it (off, on)",
        ),
        Field(
            "static_ip",
            _four,
            "address, mask, gateway and DNS server, like 10.0.0.5,255.255.255.0,10.0.0.1,10.0.0.1",
        ),
        Field("pq", _one_of("off", "prefer", "require"), "off, prefer or require", "off"),
        Field("ppk", _yes_no, "yes or no", False),
        Field(
            "psk",
            _secret,
            "0x and at least 32 hex digits, 0s and base64 of as many, or 20 characters",
            secret=True,
        ),
        # Further keys of the profile, left out of it unless they are given.
        Field("port", _whole(1, 65535), "a port from 1 to 65535"),
        Field("natt_port", _whole(1, 65535), "a port from 1 to 65535"),
        Field("sn_tick_ms", _whole(1, 3600000), "milliseconds from 1 to 3600000"),
        Field("spi", _spis, "2 to 8 different numbers from 256 to 2147483647, like 4097,4098"),
        Field("retransmit_ms", _whole(50, 60000), "milliseconds from 50 to 60000"),
        Field("retransmit_tries", _whole(1, 10), "a number from 1 to 10"),
        Field("batch", _whole(1, 64), "a number from 1 to 64"),
        Field("watchdog_ms", _watchdog, "off, or milliseconds, 5000 at least"),
        Field("log", _one_of("text", "json", "errors", "off"), "text, json, errors or off"),
    )
}
_EXTRA = (
    *(
        "network",
        "ssid",
        "country",
        "security",
        "power_saving",
        "static_ip",
        "port",
        "natt_port",
        "sn_tick_ms",
        "spi",
        "sleep",
    ),
    *("retransmit_ms", "retransmit_tries", "batch", "watchdog_ms", "log"),
)
FROM_BOARD = ("sleep", "watchdog_ms")  # 0 and "off" may be left out of a profile
SECRETS = tuple(name for name, entry in FIELDS.items() if entry.secret)


@dataclass
class Device:
    """A device's settings, checked; `values` has one entry a field, `given` the secret ones."""

    values: dict
    given: dict = field(repr=False)

    def __getattr__(self, name):
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def identity(self):
        return Identity(self.values["id"])

    def profile(self):
        """The profile.json that the firmware reads."""
        v = self.values
        profile = {
            "gateway": v["gateway"],
            "gateway_id": v["gateway_id"],
            "id": v["id"],
            "secrets": "secrets.json",
            "server": v["server"],
            "server_port": v["server_port"],
            "remote_ts": v["reach"],
            "interval_ms": v["interval"],
        }
        if v["inner_address"]:
            profile["inner_address"] = v["inner_address"]
        if v["pq"] != "off":
            profile["pq"] = v["pq"]
        if v["ppk"]:
            profile["ppk_id"] = "ppk-" + v["id"]
        for key in _EXTRA:
            if v[key] is not None and not (key in FROM_BOARD and v[key] in (0, "off")):
                profile[key] = v[key]
        return profile

    def new_secrets(self):
        """Fresh keys of 32 octets, or the one that came with the device."""
        found = {"psk": self.given["psk"] or new_key()}
        if self.values["ppk"]:
            found["ppk"] = new_key()
        if self.given["wifi_key"]:
            found["wifi_key"] = self.given["wifi_key"]
        # What a board without a good random generator mixes into its own.
        found["seed"] = new_key()
        return found


def read_board(text):
    """The board of a flag that stands alone."""
    try:
        return FIELDS["board"].read(text)
    except ValueError as problem:
        raise BadInput(f"--board: expected {problem}, got {text!r}") from None


def new_key():
    """32 octets of the system's generator, as profiles and strongSwan write them."""
    return "0x" + secrets.token_hex(32)


def device(given, where=lambda name: f"--{name.replace('_', '-')}"):
    """Check what was given ({field: text}; None and "" count as not given); return a Device.

    `where(field)` says in an error's message where the value stood.
    """
    values = {}
    for name, entry in FIELDS.items():
        text = given.get(name)
        if text is None or text == "":
            if entry.default is REQUIRED:
                raise BadInput(f"{where(name)}: missing, expected {entry.expected}")
            values[name] = entry.default
            continue
        try:
            values[name] = entry.read(text)
        except ValueError as problem:
            # What stands where a secret belongs is not repeated.
            got = "" if entry.secret else f", got {shortened(repr(text))}"
            raise BadInput(f"{where(name)}: expected {problem}{got}") from None
    given = {name: values.pop(name) for name in SECRETS}
    values["gateway_id"] = values["gateway_id"] or _identity_of_host(values["gateway"], where)
    server = ipaddress.ip_address(values["server"])
    values["reach"] = values["reach"] or f"{server}/{server.max_prefixlen}"
    _check_addresses(values, server, where)
    _as_the_board_is(values, where)
    if values["network"] == "wifi" and not values["ssid"]:
        raise BadInput(f"{where('ssid')}: missing, expected {FIELDS['ssid'].expected}")
    if values["ppk"] and len(values["id"]) > 120:
        raise BadInput(f"{where('id')}: too long for a device with a PPK")
    return Device(values, given)


def _identity_of_host(host, where):
    try:
        return _identity(host)
    except ValueError:
        raise BadInput(
            f"{where('gateway_id')}: missing, expected {EXPECTED}; the gateway"
            f" {shortened(host)} is none"
        ) from None


def _as_the_board_is(values, where):
    """Fill in what follows from the board: its network, how it sleeps, its watchdog."""
    facts = board_facts(values["board"])
    if values["network"] is None and facts:
        values["network"] = facts["network"]["kind"]
    if values["sleep"] == "on":
        if not facts:
            raise BadInput(f"{where('sleep')}: on needs the board; clock or mark without it")
        values["sleep"] = facts["sleep"]
    if values["sleep"] == "clock" and facts and not facts["clock"]["survives_deep_sleep"]:
        raise BadInput(
            f"{where('sleep')}: expected mark, since the clock of a {values['board']}"
            " starts anew after a deep sleep"
        )
    if values["watchdog_ms"] is None and facts:
        values["watchdog_ms"] = _watchdog_of(facts, values["gateway"])


def _watchdog_of(facts, gateway):
    """The watchdog that a board should have, 0 for none.

    Nothing feeds it while a name is looked up, which takes more than a short one's time when the
    DNS server is away: such a board would be reset again and again.
    """
    ms = facts["watchdog"]["profile_ms"]
    if (facts["watchdog"]["max_ms"] or ms) >= _LOOKUP_MS:
        return ms
    try:
        ipaddress.ip_address(gateway)
    except ValueError:
        return 0
    return ms


def _check_addresses(values, server, where):
    network = ipaddress.ip_network(values["reach"])
    if server not in network:
        raise BadInput(f"{where('reach')}: {network} does not hold the server {server}")
    inner = values["inner_address"]
    if inner and ipaddress.ip_address(inner).version != server.version:
        raise BadInput(f"{where('inner_address')}: expected IPv{server.version} as the server's")
