"""What the gateway is told: settings, secrets and traffic selectors."""

import base64
import contextlib
import csv
import json
import re
from dataclasses import dataclass, field
from ipaddress import ip_network

from .numbers import Protocol
from .proposals import DEFAULT_ESP, DEFAULT_IKE, parse_suite
from .wire import Identity, identity_from_text, selector_of

FRAG_ACK_POLICIES = ("off", "conservative", "eager")
ANY = "any"  # the identity under which a secret for every peer stands


class ConfigError(ValueError):
    """A setting that cannot be used; the text is for the person who wrote it."""


def secret_octets(text, key="secrets"):
    """Octets of a secret: `0x` and hex digits, `0s` and base64, or the text itself."""
    lead, rest = (text[:2].lower(), text[2:]) if isinstance(text, str) else ("", "")
    if lead == "0x" and re.fullmatch("([0-9a-fA-F]{2})+", rest):
        return bytes.fromhex(rest)
    if lead == "0s":
        rest = rest.replace("-", "+").replace("_", "/")
        with contextlib.suppress(ValueError):
            octets = base64.b64decode(rest, validate=True)
            if octets and base64.b64encode(octets).decode() == rest:
                return octets
    if lead and lead not in ("0x", "0s") and text.isprintable() and text.strip() == text:
        if text[0] != text[-1] or text[0] not in "\"'":
            return text.encode()
    raise ConfigError(
        "%s: expected text without quotes or blanks around it, 0x and pairs of hex digits,"
        " or 0s and base64" % key
    )


class Secrets:
    """Pre-shared keys by identity; `ANY` serves every identity without one of its own."""

    def __init__(self, table):
        self._table = {}
        for name, secret in table.items():
            try:
                key = ANY if name in (ANY, "*") else identity_from_text(name)
            except ValueError as error:
                raise ConfigError("secrets: %s" % error) from None
            self._table[key] = secret if isinstance(secret, bytes) else secret_octets(secret)

    def find(self, identity: Identity):
        """The secret, or None."""
        return self._table.get(identity, self._table.get(ANY))


def _load_table(path, key, columns):
    """{name: secret} of a JSON or CSV file."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError("%s: %s: %s" % (key, path, error.strerror)) from None
    except UnicodeDecodeError:
        raise ConfigError("%s: %s: not UTF-8 text" % (key, path)) from None
    if text.lstrip().startswith("{"):
        try:
            table = json.loads(text)
        except ValueError as error:
            raise ConfigError("%s: %s: %s" % (key, path, error)) from None
    else:
        table = {}
        for row in csv.reader(line for line in text.splitlines() if line and line[0] != "#"):
            if len(row) != 2:
                raise ConfigError("%s: %s: expected %s" % (key, path, columns))
            table[row[0].strip()] = row[1].strip()
    if not table:
        raise ConfigError("%s: %s: no secret" % (key, path))
    return table


def load_ppks(path):
    """{PPK identifier octets: PPK octets} from JSON `{id: ppk}` or CSV `id,ppk`."""
    table = _load_table(path, "ppks", "id,ppk")
    return {name.encode(): secret_octets(secret, "ppks") for name, secret in table.items()}


def load_secrets(path):
    """Secrets from a file: JSON `{"psk": ".."}` or `{identity: psk}`, or CSV `identity,psk`."""
    table = _load_table(path, "secrets", "identity,psk")
    if set(table) == {"psk"}:
        table = {ANY: table["psk"]}
    return Secrets(table)


def _suites(names, protocol):
    try:
        return [parse_suite(name, protocol) for name in names]
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _networks(texts, key):
    try:
        return [ip_network(text, strict=False) for text in texts]
    except ValueError as error:
        raise ConfigError("%s: %s" % (key, error)) from None


@dataclass
class Config:
    """Settings of one gateway. Times in milliseconds, sizes in octets.

    The bounds in the last group limit what unauthenticated peers can cost.
    """

    secrets: Secrets
    id: str = "gw.example.org"
    pool: str | None = "10.9.0.0/24"
    pool6: str | None = None
    local_ts: tuple = ("0.0.0.0/0", "::/0")
    remote_ts: tuple = ("0.0.0.0/0", "::/0")
    ike: tuple = DEFAULT_IKE
    esp: tuple = DEFAULT_ESP
    cookie: bool = False  # always ask; else only while many SAs are half open
    require_cp: bool = False
    encap: bool = True  # claim a NAT so that every peer encapsulates ESP in UDP
    raw_esp: bool = False  # take ESP straight on IP, too
    echo: bool = True
    replay_window: int = 64
    transport: bool = True  # ESP transport mode for those who ask
    keylog: str | None = None

    fragmentation: bool = True
    fragment_size: int = 0  # whole IP datagram; 0 = 576 for IPv4, 1280 for IPv6
    fragment_gap_ms: int = 0  # between the datagrams of one message
    frag_ack: str = "conservative"  # or "eager" or "off"
    frag_ack_draft: str = "02"  # "03" clears the R bit of our FRAGMENT_ACK_RES; "04" is the same
    ack_gap_ms: int = 200  # silence after which an incomplete message is reported on
    any_fragment_resends: bool = False  # any fragment of an old request asks for its answer
    intermediate: bool = True
    ppks: dict = field(default_factory=dict, repr=False)  # identifier octets -> PPK octets
    ppk_required: bool = False

    retransmit_ms: int = 1000
    retransmit_tries: int = 5
    half_open_ms: int = 30_000
    linger_ms: int = 30_000  # a dead SA still answers resent requests that long

    max_half_open: int = 256
    cookie_threshold: int = 32
    max_sas: int = 4096

    identity: Identity = field(init=False)
    ike_suites: list = field(init=False)
    esp_suites: list = field(init=False)
    local_selectors: list = field(init=False)
    remote_selectors: list = field(init=False)

    def __post_init__(self):
        try:
            self.identity = identity_from_text(self.id)
        except ValueError as error:
            raise ConfigError("id: %s" % error) from None
        self.ike_suites = _suites(self.ike, Protocol.IKE)
        self.esp_suites = _suites(self.esp, Protocol.ESP)
        local = _networks(self.local_ts, "local-ts")
        remote = _networks(self.remote_ts, "remote-ts")
        self.local_selectors = [selector_of(network) for network in local]
        self.remote_selectors = [selector_of(network) for network in remote]
        for key in ("pool", "pool6"):
            if getattr(self, key) is not None:
                (network,) = _networks([getattr(self, key)], key)
                if network.version != (4 if key == "pool" else 6):
                    raise ConfigError("%s: wrong address family" % key)
        if not 0 <= self.replay_window <= 4096:
            raise ConfigError("replay-window: expected 0..4096")
        if self.frag_ack not in FRAG_ACK_POLICIES:
            raise ConfigError("frag-ack: expected %s" % ", ".join(FRAG_ACK_POLICIES))
        if self.frag_ack_draft not in ("02", "03", "04"):
            raise ConfigError("frag-ack-draft: expected 02, 03 or 04")
        if self.ack_gap_ms < 1 or self.fragment_gap_ms < 0:
            raise ConfigError("ack-gap, fragment-gap: expected milliseconds")
        if self.raw_esp and self.encap:
            raise ConfigError("raw-esp: needs no-encap, or every sensor encapsulates")
        if self.ppk_required and not self.ppks:
            raise ConfigError("ppk-required: no PPK given")
        if self.fragment_size and not 128 <= self.fragment_size <= 65535:
            raise ConfigError("fragment-size: expected 128..65535")
