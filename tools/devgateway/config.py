"""What the gateway is told: settings, secrets and traffic selectors."""

import csv
import json
from dataclasses import dataclass, field
from ipaddress import ip_network

from .numbers import Protocol
from .proposals import DEFAULT_ESP, DEFAULT_IKE, parse_suite
from .wire import Identity, identity_from_text, selector_of

ANY = "any"  # the identity under which a secret for every peer stands


class ConfigError(ValueError):
    """A setting that cannot be used; the text is for the person who wrote it."""


def secret_octets(text):
    """Octets of a secret: `0x` and hex digits, or the text itself."""
    if not isinstance(text, str) or not text:
        raise ConfigError("secrets: expected text or 0xHEX, got %r" % (text,))
    if text.startswith("0x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            raise ConfigError("secrets: bad hex digits after 0x") from None
    return text.encode()


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

    def __len__(self):
        return len(self._table)


def load_secrets(path):
    """Secrets from a file: JSON `{"psk": ".."}` or `{identity: psk}`, or CSV `identity,psk`."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError("secrets: %s: %s" % (path, error.strerror)) from None
    if text.lstrip().startswith("{"):
        try:
            table = json.loads(text)
        except ValueError as error:
            raise ConfigError("secrets: %s: %s" % (path, error)) from None
        if set(table) == {"psk"}:
            table = {ANY: table["psk"]}
    else:
        table = {}
        for row in csv.reader(line for line in text.splitlines() if line and line[0] != "#"):
            if len(row) != 2:
                raise ConfigError("secrets: %s: expected identity,psk" % path)
            table[row[0].strip()] = row[1].strip()
    if not table:
        raise ConfigError("secrets: %s: no secret" % path)
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
    echo: bool = True
    replay_window: int = 64
    fragment_size: int = 0  # whole IP datagram; 0 = 576 for IPv4, 1280 for IPv6
    keylog: str | None = None

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
        if self.fragment_size and not 128 <= self.fragment_size <= 65535:
            raise ConfigError("fragment-size: expected 128..65535")
