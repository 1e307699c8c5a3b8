"""What strongSwan has to know of an inventory, once: as vici messages take it and files have it.

One connection serves every device that asks for an inner address; a device with an address of its
own has a connection of its own, so that it can take nobody else's. Every name begins with what is
ours alone, `Scope`. A secret's name tells whose it is and, by a part of its hash, which key: so two
lists of names show what has changed, and what `swanctl --load-all` reads from files and what
`gateway apply` loads is the same to strongSwan.
"""

import collections
import hashlib
import ipaddress
import re
from dataclasses import dataclass, field

from ..devgateway.config import secret_octets
from ..fleet.device import FIELDS
from ..fleet.keys import row as row_of
from ..common.files import make_directory, read_text, write_private
from ..common.identity import Identity
from ..common.problem import BadInput, Problem
from .replay import replay_window

NAME = "minipsec"
_POOL, _POOL_6 = "10.9.0.0/24", "fd09::/112"
_IKE, _ESP = row_of("ike").default, row_of("esp").default
_WORD = re.compile(r"[a-z0-9_]+(-[a-z0-9_]+)*")  # a proposal
METHODS = row_of("pq_method").more
_PLAIN = {("ike", word) for word in _IKE} | {("esp", word) for word in _ESP}
_CHECKED = ("gateway_id", "server", "reach", "inner_address", "pq", "pq_method", "sn_tick_ms")
# Before inventories had an id, a name went without a scope.
_SECRET = re.compile(
    NAME.join(("(?:ike|ppk)-", "-(?:([0-9a-f]{8})-([0-9a-f]{4})-)?([0-9a-f]{16})-([0-9a-f]{8})"))
)


@dataclass(frozen=True)
class Scope:
    """What is ours at a charon: of one inventory, for one gateway."""

    inventory: str  # 8 hexadecimal digits
    gateway: str

    @property
    def name(self):
        """The shared connection's name, and how all other names begin."""
        return f"{NAME}-{self.inventory}-{_digest(self.gateway)[:4]}"

    def has(self, name):
        """Is a connection or pool of this name ours?"""
        return name == self.name or name.startswith(self.name + "-")

    def pool(self, version):
        return f"{self.name}-v{version}"

    def connection(self, identity):
        """The connection of a device with an inner address of its own."""
        return _named(self.name, identity)


@dataclass(frozen=True)
class SecretName:
    """What the name of a secret tells."""

    inventory: str | None  # None: an older minipsec loaded it
    gateway: str | None
    who: str
    key: str

    @classmethod
    def read(cls, name):
        """The parts of a name, None for one that is not ours."""
        found = _SECRET.fullmatch(name)
        return found and cls(*found.groups())

    def within(self, scope):
        return (self.inventory, self.gateway) == (scope.inventory, _digest(scope.gateway)[:4])


@dataclass(frozen=True)
class Secret:
    """A shared key as strongSwan holds it."""

    name: str
    kind: str  # "IKE" or "ppk"
    owner: str
    identity: Identity
    octets: bytes = field(repr=False)


@dataclass
class Plan:
    """All that a gateway has to know."""

    scope: Scope
    connections: dict = field(default_factory=dict)
    networks: dict = field(default_factory=dict)  # {version: inner addresses to give out}
    asked: dict = field(default_factory=dict)  # the same, as somebody chose them
    secrets: dict = field(default_factory=dict)  # {name: Secret}
    revoked: list = field(default_factory=list)  # identities that must have no SA
    devices: list = field(default_factory=list)  # identities that are served
    left_out: list = field(default_factory=list)  # (identity, why): nothing of theirs is touched
    barred: list = field(default_factory=list)  # (identity, why): what charon has of theirs goes
    without: list = field(default_factory=list)  # (identity, proposals that were left out)
    rotating: list = field(default_factory=list)  # identities whose key is being changed

    @property
    def pools(self):
        """The pools of a charon that has no other."""
        return {
            self.scope.pool(version): {"addrs": addresses(*ends(network))}
            for version, network in self.networks.items()
        }


def ends(network):
    """The first and the last address that a network has for devices, as numbers."""
    first = int(network.network_address) + 1
    return first, first + network.num_addresses - 3


def addresses(first, last):
    """A range of addresses, whose pool charon tells by its first one and its size."""
    return f"{ipaddress.ip_address(first)}-{ipaddress.ip_address(last)}"


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def who(identity):
    """An identity as names of secrets have it."""
    return _digest(identity.key)[:16]


def _named(prefix, identity):
    """A connection's name: strongSwan's files allow neither dots nor colons in it."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", identity.text)[:60]
    return f"{prefix}-{plain}-{_digest(identity.key)[:6]}"


def older_connection(identity):
    """What the connection of a device was called before inventories had an id."""
    return _named(NAME, identity)


def mark(text):
    """A key as names of secrets tell it."""
    return hashlib.sha256(b"minipsec key name" + secret_octets(text)).hexdigest()[:8]


def key_state(names, identity, keys):
    """Of an identity's keys, by the names of secrets that charon has: is the right one there?"""
    marks = {found.key for found in map(SecretName.read, names) if found.who == who(identity)}
    if keys and mark(keys["psk"]) in marks:
        return "known"
    return "another key" if marks else "unknown"


def secrets_of(scope, row, keys):
    """The secrets of one device: [Secret]."""
    identity = Identity.of(row)
    owners = {"IKE": ("psk", identity.strongswan), "ppk": ("ppk", "ppk-" + identity.text)}
    return [
        Secret(
            f"{kind.lower()}-{scope.name}-{who(identity)}-{mark(keys[name])}",
            kind,
            owner,
            identity,
            secret_octets(keys[name]),
        )
        for kind, (name, owner) in owners.items()
        if name in keys
    ]


def scope_of(inventory, gateway):
    return Scope(inventory.id, gateway)


def special(wanted):
    """Does a plan offer more than another's connection surely has?"""
    return any(
        ("ike", word) not in _PLAIN
        for connection in wanted.connections.values()
        for word in connection["proposals"]
    ) or any(
        ("esp", word) not in _PLAIN
        for connection in wanted.connections.values()
        for word in connection["children"]["readings"]["esp_proposals"]
    )


def choose_gateway(inventory, name):
    """The gateway that was named, or the only one of the inventory."""
    known = inventory.gateways()
    if name not in known and name in inventory.former_gateways():
        return name
    if name is None and len(known) == 1:
        return next(iter(known))
    if not known:
        raise Problem("the inventory has no device yet", "python -m tools new makes one")
    if name not in known:
        what = "there are several gateways" if name is None else f"no device has gateway {name}"
        raise BadInput(f"{what}: --gateway {' or '.join(known)}")
    return name


def as_gateway(inventory, charon=None):
    """Return a function: why must charon not have an identity's key? None where it may.

    charon takes a secret when its owner is at either end. With the key of a device that has the
    gateway's identity, any name would come up.
    """
    gateways = inventory.gateway_identities()
    local = charon.local_ids() if charon else {}

    def why(identity):
        whose = None
        if identity.key in gateways:
            whose = f"the gateway of {gateways[identity.key]}"
        for shown in local if not whose else ():
            if identity.is_shown_as(shown):
                whose = f"local.id of charon's connection {local[shown]}"
        return whose and f"it is {whose}, too, so its key would be any device's: revoke it"

    return why


def plan(inventory, gateway=None, pool=None, pool6=None, charon=None, apart=False):
    """Return the `Plan` for a gateway, for files or as a `Charon` can have it.

    With `apart` each device has a connection of its own, which another one's for anybody is not in
    the way of.

    A device whose files are damaged is left out, and named: it spoils nothing for the others.
    So is one that has a gateway's identity, and charon must not keep its key.
    """
    takes = charon.takes if charon else lambda *_: True
    barred = as_gateway(inventory, charon)
    gateway = choose_gateway(inventory, gateway)
    known = inventory.gateways().get(gateway, {"pool": None, "pool6": None})
    found = Plan(scope_of(inventory, gateway))
    pools = {
        4: _network(pool or known["pool"] or _POOL, 4),
        6: _network(pool6 or known["pool6"] or _POOL_6, 6),
    }
    found.asked = {v: pools[v] for v, text in ((4, pool), (6, pool6)) if text}
    devices, inner = [], {}
    for row in inventory.rows(gateway=gateway):
        identity = Identity.of(row)
        if row["state"] == "revoked":
            found.revoked.append(identity)
            continue
        if why := barred(identity):
            found.barred.append((identity, why))
            continue
        try:
            profile, keys = _device(inventory, row, identity, inner)
            offers = {"ike": _ike(profile), "esp": profile.get("esp", _ESP)}
            offers = _without(offers, takes, found, identity)
            secrets = secrets_of(found.scope, row, keys)
        except (Problem, ValueError) as problem:
            current = inventory.get(row["key"])  # somebody else may have been at work on it
            if current and current["state"] == "revoked":
                found.revoked.append(identity)
            elif current:
                found.left_out.append((identity, str(problem)))
            continue
        devices.append((identity, {**profile, **offers}))
        if inventory.secrets_path(row, coming=True).exists():
            found.rotating.append(identity)
        for entry in secrets:
            found.secrets[entry.name] = entry
    _one_name(found, devices)
    found.devices = [identity for identity, _ in devices]
    found.connections = _connections(found.scope, devices, apart)
    asking = [ipaddress.ip_address(p["server"]).version for _, p in devices if _asks(p)]
    for version in sorted(set(asking)):
        found.networks[version] = pools[version]
        _check_pool(pools[version], asking.count(version), devices)
    return found


def _asks(profile):
    """Does a device ask the gateway for an inner address?"""
    return "inner_address" not in profile


def _device(inventory, row, identity, inner):
    """The checked profile and the keys of a device; `inner` has the addresses that are taken."""
    if identity.wild:
        raise Problem("strongSwan takes its identity for several devices: revoke it")
    profile, keys = inventory.profile(row), inventory.secrets(row)
    for name in _CHECKED:
        key = FIELDS[name].key or name
        if key in profile:
            try:
                profile[key] = FIELDS[name].read(profile[key])
            except ValueError as problem:
                raise Problem(
                    f"{inventory.profile_path(row)}: {key}: expected {problem},"
                    f" got {profile[key]!r}"
                ) from None
    if isinstance(profile.get("gateway"), list):
        profile["gateway"] = profile["gateway"][0] if profile["gateway"] else None
    for key in (
        "gateway_id",
        "server",
        *(["gateway"] if profile.get("gateway_id") == "any" else []),
    ):
        if not isinstance(profile.get(key), str):
            raise Problem(f"{inventory.profile_path(row)}: {key}: missing")
    for key in ("ike", "esp"):
        if key in profile:
            profile[key] = _proposals(profile[key], f"{inventory.profile_path(row)}: {key}")
    if keys is None:
        raise Problem(
            f"{inventory.secrets_path(row)} is missing:"
            " restore it from a copy, or revoke the device"
        )
    other = inner.setdefault(profile.get("inner_address", identity), identity)
    if other is not identity:
        raise Problem(f"{other} has the inner address {profile['inner_address']}, too")
    return profile, keys


def _proposals(words, where):
    """A profile's proposals as strongSwan writes them; capitals and blanks mean nothing.

    One string with commas is a list to the firmware, and so it is here.
    """
    if isinstance(words, str):
        words = words.split(",")
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        words = ["".join(word.lower().split()) for word in words]
        if all(map(_WORD.fullmatch, words)):
            return words
    raise Problem(f"{where}: expected a list of proposals")


def _without(offers, takes, found, identity):
    """Proposals without those that the gateway cannot have: {"ike": .., "esp": ..}."""
    left = {kind: [w for w in words if takes(kind, w)] for kind, words in offers.items()}
    missing = [w for kind, words in offers.items() for w in words if w not in left[kind]]
    if not all(left.values()):
        why = "" if "mlkem" not in missing[0] else ": ML-KEM needs strongSwan 6 and its plugin"
        raise Problem(f"charon takes none of what its profile offers, {missing[0]} for one{why}")
    if missing:
        found.without.append((identity, missing))
    return left


def _one_name(found, devices):
    """Leave out the few devices that expect another gateway than all others do."""
    names = collections.Counter(profile["gateway_id"] for _, profile in devices).most_common(2)
    if len(names) < 2:
        return
    if names[0][1] == names[1][1]:
        raise Problem(
            f"devices expect the gateway to be {' and '.join(sorted(n for n, _ in names))}:"
            " it can be one only",
            "correct gateway_id by `edit`",
        )
    for identity, profile in devices[:]:
        if profile["gateway_id"] != names[0][0]:
            devices.remove((identity, profile))
            found.secrets = {
                k: e for k, e in found.secrets.items() if e.identity.key != identity.key
            }
            why = f"it expects the gateway to be {profile['gateway_id']}, others {names[0][0]}"
            found.left_out.append((identity, why))


def _network(text, version):
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        network = None
    if network is None or network.version != version:
        flag = "--pool" if version == 4 else "--pool6"
        raise BadInput(f"{flag}: expected an IPv{version} network, got {text!r}")
    return network


def _check_pool(pool, count, devices):
    first, last = ends(pool)
    room = last + 1 - first
    if count > room:
        bits = pool.max_prefixlen - (count + 1).bit_length()
        wide = ipaddress.ip_network(f"{pool.network_address}/{bits}", strict=False)
        raise Problem(
            f"{count} devices ask for an inner address, and {pool} has {max(room, 0)}",
            f"say --pool {wide} once",
        )
    for identity, profile in devices:
        inner = profile.get("inner_address")
        if inner and ipaddress.ip_address(inner) in pool:
            raise Problem(
                f"{identity} has {inner}, which {pool} gives to other devices",
                "say --pool with another network once",
            )


def _connections(scope, devices, apart):
    """The connections as {name: vici message}."""
    if not devices:
        return {}
    asking = [profile for _, profile in devices if _asks(profile)]
    found = {}
    if asking and not apart:
        found[scope.name] = _connection(asking, "%any", ["dynamic"], _pools(scope, asking))
    for identity, profile in devices:
        name = scope.connection(identity)
        if not _asks(profile):
            address = ipaddress.ip_address(profile["inner_address"])
            own = [f"{address}/{address.max_prefixlen}"]
            found[name] = _connection([profile], identity.strongswan, own)
        elif apart:
            pools = _pools(scope, [profile])
            found[name] = _connection([profile], identity.strongswan, ["dynamic"], pools)
    return found


def _pools(scope, profiles):
    versions = {ipaddress.ip_address(p["server"]).version for p in profiles}
    return {"pools": [scope.pool(version) for version in sorted(versions)]}


def _connection(profiles, remote, remote_ts, pools=()):
    first = profiles[0]
    return {
        "version": "2",
        "proposals": _union(lambda p: p["ike"], profiles),
        # ESP in UDP, NAT or not: a sensor's stack speaks UDP and nothing else.
        "encap": "yes",
        # A sensor that slept, was reset or moved comes back with a new IKE SA.
        "unique": "replace",
        # Off: a sensor in deep sleep cannot answer, and refuses to be rekeyed (RFC 7815).
        "dpd_delay": "0s",
        "rekey_time": "0s",
        "reauth_time": "0s",
        "local": {"auth": "psk", "id": _local_id(first)},
        "remote": {"auth": "psk", "id": remote},
        "children": {
            "readings": {
                "local_ts": _reach(profiles),
                "remote_ts": remote_ts,
                "esp_proposals": _union(lambda p: p["esp"], profiles),
                "rekey_time": "0s",
                "replay_window": str(max(replay_window(p) for p in profiles)),
            }
        },
        **dict(pools),
    }


def _local_id(profile):
    if profile["gateway_id"] == "any":
        return profile["gateway"]
    return Identity(profile["gateway_id"]).strongswan


def _ike(profile):
    """What a profile offers, in its order: as store.py of the firmware makes it."""
    plain = profile.get("ike", _IKE)
    if profile.get("pq", "off") == "off":
        return plain
    method = profile.get("pq_method", row_of("pq_method").default)
    hybrid = [name if "-ke1_" in name else f"{name}-ke1_{method}" for name in plain]
    return hybrid + (plain if profile["pq"] == "prefer" else [])


def _union(what, profiles):
    """Every value once, in the order in which they come first."""
    return list(dict.fromkeys(value for profile in profiles for value in what(profile)))


def _reach(profiles):
    networks = {ipaddress.ip_network(p.get("remote_ts", p["server"])) for p in profiles}
    return [
        str(network)
        for version in (4, 6)
        for network in ipaddress.collapse_addresses(n for n in networks if n.version == version)
    ]


# Files.

CONNECTIONS, SECRETS = "minipsec.conf", "minipsec.secrets"
_MADE = "# Made by `python -m tools gateway config`"
_HEAD = (
    _MADE
    + """ out of an inventory: change that, not this.
# Both files go to /etc/swanctl/conf.d; then: swanctl --load-all
"""
)
_FOR = "# For "
_ELSEWHERE = "choose another directory, or move it away"


def quoted(value):
    """A value in the language of swanctl.conf, where blanks, # and braces mean something."""
    if not value.isascii() or not value.isprintable():
        raise Problem(f"{value!r} cannot be written for strongSwan")
    value = value.replace("\\", r"\\").replace('"', r"\"")
    return f'"{value}"'


def as_text(entries, depth=0):
    """vici's messages in the language of swanctl.conf."""
    lines = []
    indent = "  " * depth
    for key, value in entries.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
            raise Problem(f"{key!r} cannot be a name for strongSwan")
        if isinstance(value, dict):
            lines += [f"{indent}{key} {{", *as_text(value, depth + 1), f"{indent}}}"]
            continue
        if isinstance(value, list):
            if any("," in word for word in value):
                raise Problem(f"{value!r} cannot be a list for strongSwan")
            value = ", ".join(value)
        lines.append(f"{indent}{key} = {quoted(value)}")
    return lines


def _secrets(found):
    return {
        entry.name: {"id": entry.owner, "secret": "0x" + entry.octets.hex()}
        for entry in found.secrets.values()
    }


def write_files(found, directory):
    """Write minipsec.conf and minipsec.secrets (0600 each); return their paths."""
    paths = directory / CONNECTIONS, directory / SECRETS
    mine = f"{_FOR}{found.scope.name}: {found.scope.gateway}"
    head = _HEAD + mine + "\n"
    for path in paths:
        if path.exists():
            _check_ours(path, mine)
    # All of it before any of it is written.
    connections = as_text({"connections": found.connections, "pools": found.pools})
    secrets = as_text({"secrets": _secrets(found)})
    make_directory(directory)
    write_private(paths[1], "\n".join([head, *secrets, ""]))
    # Not *.conf, so that /etc/swanctl/swanctl.conf reads it once, through this line.
    write_private(paths[0], "\n".join([head, *connections, "", f"include {SECRETS}", ""]))
    return paths


def _check_ours(path, mine):
    """Refuse to write over what another inventory, or a person, wrote."""
    lines = read_text(path).splitlines()
    made = lines[:1] == ["secrets {"] if path.name == SECRETS else False  # by an older minipsec
    if not made and not (lines and lines[0].startswith(_MADE)):
        raise BadInput(f"{path} was not made by `gateway config`", _ELSEWHERE)
    others = [line for line in lines[:4] if line.startswith(_FOR) and line != mine]
    if others:
        raise BadInput(f"{path} is {others[0].removeprefix(_FOR)}'s", _ELSEWHERE)


def holds(path, identity):
    """Does a secrets file have a key of an identity? None when the file is not there."""
    if not path.exists():
        return None
    return f"-{who(identity)}-" in read_text(path)
