"""What a device is told about: one table for flags, questions, CSV columns and JSON keys.

Most of it is made from the rows of the firmware, see keys.py.
"""

import contextlib
import ipaddress
import re
import secrets
from dataclasses import dataclass, field

from ..devgateway.config import secret_octets
from ..common.firmware import board_facts, board_name, known_boards
from ..common.identity import EXPECTED, Identity, NoIdentity
from ..common.problem import BadInput, shortened
from .keys import REQUIRED, checks, proposals, rows

_UNITS = {"ms": 1, "s": 1000, "min": 60000, "h": 3600000}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_MAX_INTERVAL_MS = 1 << 29  # what a profile takes: six days
_LOOKUP_MS = 20000  # more than it takes until a name is known or given up


def _identity(text):
    return str(Identity(text))


def _device_id(text):
    found = _identity(text)
    if found == "any":
        raise NoIdentity('; "any" means anybody')
    return found


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


def _yes_no(text):
    return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[
        text.lower()
    ]


def _board(text):
    name = board_name(text)
    if name not in known_boards():
        raise ValueError
    return name


def _wifi_key(text):
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return text  # the key itself, as WPA makes it out of a passphrase and the network's name
    if not 8 <= len(text) <= 63 or not text.isprintable():
        raise ValueError
    return text


def _secret(text):
    """A key that someone made elsewhere: octets, or text long enough not to be guessed."""
    coded = text[:2].lower() in ("0x", "0s")
    if len(secret_octets(text)) < (16 if coded else 20):
        raise ValueError
    return text


def _words(text):
    return text.replace(",", " ").split()


def _integer(text):
    return int(text) if re.fullmatch(r"-?\d{1,10}", text) else None


def _hosts(text):
    found = [_host(word.strip()) for word in text.split(",")]
    return found if found[1:] else found[0]


@dataclass(frozen=True)
class Field:
    """One thing to know of a device: a flag, a column, perhaps a question. `row` is its profile key's."""

    name: str
    parse: object
    expected: str
    default: object = None
    question: str = ""
    help: str = ""
    metavar: str = "WORD"
    often: bool = False
    secret: bool = False
    row: object = None

    @property
    def key(self):
        """Its profile key, None where it has none."""
        return self.row and self.row.key

    def read(self, text):
        """Return the checked value of a text, as it stands in a profile; ValueError otherwise."""
        try:
            value = self.parse(str(text).strip())
        except NoIdentity:
            raise  # it knows more
        except (ValueError, KeyError):
            raise ValueError(self.expected) from None
        if self.row and value not in self.beside and not self.row.takes(value):
            raise ValueError(self.expected)
        return value

    @property
    def beside(self):
        """What a flag takes besides what the firmware does."""
        return ("on",) if self.name == "sleep" else ()


# What text is in a profile, by the check of its row (all else is text there, too), and what stands
# for it in a help.
_READ = {
    checks.number: (_integer, "NUMBER"),
    checks.boolean: (_yes_no, "yes|no"),
    checks.spis: (lambda text: [_integer(word) for word in _words(text)], "N,N,.."),
    checks.static_ip: (_words, "A,M,G,D"),
    checks.country: (str.upper, "CC"),
    checks.address: (_address, "ADDRESS"),
    checks.network: (_network, "NETWORK"),
    checks.identity: (_identity, "IDENTITY"),
    checks.host: (_hosts, "HOST"),
    checks.name: (str, "NAME"),
    checks.text: (str, "FILE"),
    proposals: (_words, "WORDS,.."),
}
_WIDEST = 20  # columns of a help for the words that a flag takes
# Keys without a flag: three are written for each device, and `gateway config` knows tunnels alone.
_NO_FLAG = ("secrets", "ppk_id", "experimental", "mode")
_BOARDS = ", ".join(known_boards())
# What flags have that no row has, or say in other words: questions, their order, what the PC checks
# before. `key` is the profile key where that has another name; None where there is none.
_TOLD = {
    "gateway": {
        "expected": "a host name or address",
        "default": REQUIRED,
        "question": "The gateway's address",
    },
    "gateway_id": {
        "parse": _gateway_id,
        "expected": EXPECTED,
        "question": "The gateway's identity",
        "help": "The gateway's identity; its name when left out.",
    },
    "id": {
        "parse": _device_id,
        "expected": EXPECTED,
        "default": REQUIRED,
        "question": "The device's identity",
        "help": "Who the device is: sensor-1.example.org.",
    },
    "server": {"default": REQUIRED, "question": "Address that readings go to"},
    "server_port": {"default": 5000, "question": "Its UDP port"},
    "reach": {
        "key": "remote_ts",
        "help": "What the device may reach; the server alone.",
        "often": True,
    },
    "inner_address": {
        "question": "The device's address in the tunnel (empty: the gateway gives one)",
        "help": "Its address in the tunnel; the gateway gives one.",
    },
    "interval": {
        "key": "interval_ms",
        "parse": _duration,
        "expected": "a time like 500ms, 10s, 5min or 1h, 6 days at most",
        "default": 10000,
        "question": "Time between readings",
        "help": "Between readings: 500ms, 10s, 5min.",
        "metavar": "TIME",
    },
    "board": {
        "key": None,
        "parse": _board,
        "expected": f"one of {_BOARDS}, or nothing for another board",
        "question": f"The board: {_BOARDS} (empty: another one)",
        "help": "Its board, RPI_PICO_W for one: network and watchdog follow from it.",
        "metavar": "BOARD",
    },
    "network": {
        "question": "How it comes online: wifi, ethernet, or up when something else sees to it",
        "help": "How it comes online; its board tells.",
    },
    "ssid": {
        "question": "Its Wi-Fi network",
        "help": "Its Wi-Fi network; the key is asked for, or MINIPSEC_WIFI_KEY.",
    },
    "wifi_key": {
        "key": None,
        "parse": _wifi_key,
        "expected": "8 to 63 characters or 64 hex digits",
        "question": "The Wi-Fi key",
        "secret": True,
    },
    "country": {},
    "security": {},
    "power_saving": {},
    "sleep": {
        "expected": "off, on, clock or mark",
        "question": "Deep sleep between readings, as batteries need it (off, on)",
        "help": "Deep sleep between readings; on: as its board can.",
        "metavar": "off|on|clock|mark",
    },
    "static_ip": {
        "expected": "address, mask, gateway and DNS server, like"
        " 10.0.0.5,255.255.255.0,10.0.0.1,10.0.0.1",
        "help": "Its own address, mask, gateway and DNS server, in place of DHCP.",
    },
    "pq": {"default": "off", "often": True},
    "ppk": {
        "key": None,
        "parse": _yes_no,
        "expected": "yes or no",
        "default": False,
        "help": "A post-quantum preshared key as well (RFC 8784).",
        "often": True,
    },
    "psk": {
        "key": None,
        "parse": _secret,
        "expected": "0x and at least 32 hex digits, 0s and base64 of as many, or 20 characters",
        "secret": True,
    },
    "log": {"often": True},
    "watchdog_ms": {
        "parse": lambda text: 0 if text == "off" else _integer(text),
        "expected": "off, or milliseconds, 5000 at least",
        "help": "Reset it when it hangs so long; its board tells.",
        "metavar": "MS|off",
    },
    "spi": {"help": "Fixed inbound SPIs in place of random ones, and what they cost."},
}


def _fields():
    """{name: Field}, of `_TOLD` in its order and then of all other rows."""
    found = {}
    known = {row.key: row for row in rows() if row.key not in _NO_FLAG and not row.experimental}
    for name, told in _TOLD.items():
        key = told.get("key", name)
        row = known.pop(key) if key else None
        told = {word: value for word, value in told.items() if word != "key"}
        found[name] = Field(name, **_of_row(row) | {"often": "question" in told} | told)
    return found | {key: Field(key, **_of_row(row)) for key, row in known.items()}


def _of_row(row):
    """What a field is by its row."""
    if not row:
        return {}
    parse, metavar = _READ.get(row.check, (str, "WORD"))
    expected = row.expected
    if row.check is checks.choice:
        expected = f"{', '.join(row.more[:-1])} or {row.more[-1]}"
        words = "|".join(row.more)
        metavar = words if len(words) <= _WIDEST else metavar
    elif row.check is checks.boolean:
        expected = "yes or no"
    elif row.check is checks.number and row.key.endswith("_ms"):
        metavar = "MS"
    words = row.meaning.partition(";")[0].replace("`", "").partition(". ")[0] or row.expected
    default = row.default if isinstance(row.default, (int, str)) else None
    if isinstance(default, bool):
        default = "yes" if default else "no"
    told = words[0].upper() + words[1:]
    if row.check is checks.choice and metavar == "WORD":
        told += f": {expected}"
    told += f"; {default}." if default is not None else "."
    return {"row": row, "parse": parse, "expected": expected, "metavar": metavar, "help": told}


FIELDS = _fields()
FROM_BOARD = ("sleep", "watchdog_ms")  # these follow from it
# Values that may as well be left out of a profile.
_LEFT_OUT = {"pq": "off", "sleep": "off", "watchdog_ms": 0}
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
        profile = {"secrets": "secrets.json"}
        for name, entry in FIELDS.items():
            value = self.values.get(name)
            if entry.key and value is not None and value != _LEFT_OUT.get(name, ...):
                profile[entry.key] = value
        profile["gateway"] = self.values["gateways"] or self.values["gateway"]
        if self.values["ppk"]:
            profile["ppk_id"] = "ppk-" + self.values["id"]
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
    # The first of several stands for all of them in the inventory.
    hosts = values["gateway"] if isinstance(values["gateway"], list) else None
    values["gateways"] = hosts
    values["gateway"] = hosts[0] if hosts else values["gateway"]
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


def gateway_identities(profile):
    """Who the gateway of a profile may be: [Identity]; where it may be anybody, by its hosts."""
    names, found = profile.get("gateway_id"), []
    if names == "any":
        names = profile.get("gateway")
    for name in names if isinstance(names, list) else [names]:
        with contextlib.suppress(AttributeError, NoIdentity):  # other checks refuse what is none
            found.append(Identity(name.strip()))
    return found


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
