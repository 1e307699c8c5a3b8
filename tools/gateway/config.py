"""What strongSwan has to know of an inventory, once: as vici messages take it and files have it.

One connection serves every device that asks for an inner address; a device with an address of its
own has a connection of its own, so that it can take nobody else's. A secret's name tells whose it
is and, by a part of its hash, which key: so two lists of names show what has changed, and what
`swanctl --load-all` reads from files and what `gateway apply` loads is the same to strongSwan.
"""

import hashlib
import ipaddress
import re
from dataclasses import dataclass, field

from ..provision.files import make_directory, write_private
from ..provision.identity import Identity
from ..provision.problem import BadInput, Problem
from .replay import replay_window

NAME = "minipsec"
_POOL, _POOL_6 = "10.9.0.0/24", "fd09::/112"
_IKE = ["aes128ccm16-prfsha256-x25519", "aes128ccm8-prfsha256-x25519"]
_ESP = ["aes128ccm8"]


@dataclass(frozen=True)
class Secret:
    """A shared key as strongSwan holds it."""

    name: str
    kind: str  # "IKE" or "ppk"
    owner: str
    octets: bytes = field(repr=False)


@dataclass
class Plan:
    """All that a gateway has to know."""

    gateway: str
    connections: dict
    pools: dict
    secrets: dict  # {name: Secret}
    revoked: list  # identities that must have no SA


def octets_of(text):
    """A key as a secrets file has it, as octets."""
    return bytes.fromhex(text[2:]) if text.startswith("0x") else text.encode()


def secrets_prefix(identity):
    """How the names of all secrets of an identity begin, after "ike-" or "ppk-"."""
    return f"{NAME}-{hashlib.sha256(identity.key.encode()).hexdigest()[:16]}-"


def secret(identity, kind, owner, text):
    octets = octets_of(text)
    mark = hashlib.sha256(b"minipsec key name" + octets).hexdigest()[:8]
    word = "ike" if kind == "IKE" else "ppk"
    return Secret(f"{word}-{secrets_prefix(identity)}{mark}", kind, owner, octets)


def secrets_of(row, keys):
    """The secrets of one device: [Secret]."""
    identity = Identity.of(row)
    found = [secret(identity, "IKE", identity.strongswan, keys["psk"])]
    if "ppk" in keys:
        found.append(secret(identity, "ppk", "ppk-" + identity.text, keys["ppk"]))
    return found


def choose_gateway(inventory, name):
    """The gateway that was named, or the only one of the inventory."""
    known = inventory.gateways()
    if name is None and len(known) == 1:
        return next(iter(known))
    if not known:
        raise Problem("the inventory has no device yet", "python -m tools new makes one")
    if name not in known:
        what = "there are several gateways" if name is None else f"no device has gateway {name}"
        raise BadInput(f"{what}: --gateway {' or '.join(known)}")
    return name


def plan(inventory, gateway=None, pool=None, pool6=None):
    """Return the `Plan` for a gateway; `pool`, when given, is remembered."""
    gateway = choose_gateway(inventory, gateway)
    known = inventory.gateways()[gateway]
    pools = {
        4: ipaddress.ip_network(_network(pool or known["pool"] or _POOL, 4)),
        6: ipaddress.ip_network(_network(pool6 or known["pool6"] or _POOL_6, 6)),
    }
    devices = []
    revoked = []
    for row in inventory.rows(gateway=gateway):
        if row["state"] == "revoked":
            revoked.append(Identity.of(row))
        else:
            devices.append((row, inventory.profile(row), inventory.secrets(row)))
    for row, _, keys in devices:
        if keys is None:
            raise Problem(
                f"{inventory.secrets_path(row)} is missing",
                "restore it from a copy, or revoke the device",
            )
    found = Plan(gateway, _connections(devices, pools), {}, {}, revoked)
    asking = {4: 0, 6: 0}
    for _, profile, _ in devices:
        if "inner_address" not in profile:
            asking[ipaddress.ip_address(profile["server"]).version] += 1
    for version, count in asking.items():
        if count:
            found.pools[_pool_name(version)] = {"addrs": str(pools[version])}
            _check_pool(pools[version], count, devices)
    for row, _, keys in devices:
        for entry in secrets_of(row, keys):
            found.secrets[entry.name] = entry
    if pool or pool6:
        inventory.remember_gateway(gateway, str(pools[4]), str(pools[6]))
    return found


def _network(text, version):
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        network = None
    if network is None or network.version != version:
        flag = "--pool" if version == 4 else "--pool6"
        raise BadInput(f"{flag}: expected an IPv{version} network, got {text!r}")
    return network


def _pool_name(version):
    return NAME if version == 4 else NAME + "6"


def _check_pool(pool, count, devices):
    room = pool.num_addresses - 2
    if count > room:
        bits = pool.max_prefixlen - (count + 1).bit_length()
        wide = ipaddress.ip_network(f"{pool.network_address}/{bits}", strict=False)
        raise Problem(
            f"{count} devices ask for an inner address, and {pool} has {room}",
            f"say --pool {wide} once",
        )
    for row, profile, _ in devices:
        inner = profile.get("inner_address")
        if inner and ipaddress.ip_address(inner) in pool:
            raise Problem(
                f"{row['id']} has {inner}, which {pool} gives to other devices",
                "say --pool with another network once",
            )


def _connections(devices, pools):
    """The connections as {name: vici message}."""
    if not devices:
        return {}
    identities = sorted({profile["gateway_id"] for _, profile, _ in devices})
    if len(identities) > 1:
        raise Problem(
            f"devices expect the gateway to be {' and '.join(identities)}: it can be one only",
            "correct gateway_id in their profiles",
        )
    asking = [profile for _, profile, _ in devices if "inner_address" not in profile]
    found = {}
    if asking:
        versions = sorted({ipaddress.ip_address(p["server"]).version for p in asking})
        found[NAME] = _connection(asking, "%any", ["dynamic"])
        found[NAME]["pools"] = [_pool_name(version) for version in versions]
    for row, profile, _ in devices:
        if "inner_address" in profile:
            identity = Identity.of(row)
            address = ipaddress.ip_address(profile["inner_address"])
            own = [f"{address}/{address.max_prefixlen}"]
            found[connection_name(identity)] = _connection([profile], identity.strongswan, own)
    return found


def connection_name(identity):
    """A connection's name: strongSwan's files allow neither dots nor colons in it."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", identity.text)[:60]
    return f"{NAME}-{plain}-{hashlib.sha256(identity.key.encode()).hexdigest()[:6]}"


def _connection(profiles, remote, remote_ts):
    first = profiles[0]
    return {
        "version": "2",
        "proposals": _union(_ike, profiles),
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
                "esp_proposals": _union(lambda p: p.get("esp", _ESP), profiles),
                "rekey_time": "0s",
                "replay_window": str(max(replay_window(p) for p in profiles)),
            }
        },
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
    method = profile.get("pq_method", "mlkem768")
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

_HEAD = """\
# Made by `python -m tools gateway config` out of an inventory: change that, not this.
# Both files go to {directory}; then: swanctl --load-all
# A value runs to the end of its line, so every setting has a line of its own.
"""


def as_text(entries, depth=0):
    """vici's messages in the language of swanctl.conf."""
    lines = []
    indent = "  " * depth
    for key, value in entries.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key} {{", as_text(value, depth + 1), f"{indent}}}"]
        elif isinstance(value, list):
            lines.append(f"{indent}{key} = {', '.join(value)}")
        else:
            lines.append(f"{indent}{key} = {value}")
    return "\n".join(lines)


def secrets_text(found):
    """The secrets in the language of swanctl.conf."""
    lines = ["secrets {"]
    for entry in found.secrets.values():
        lines += [
            f"  {entry.name} {{",
            f'    id = "{entry.owner}"',
            f"    secret = 0x{entry.octets.hex()}",
            "  }",
        ]
    return "\n".join([*lines, "}"]) + "\n"


def write_files(found, directory):
    """Write minipsec.conf and minipsec.secrets (0600 each); return their paths."""
    make_directory(directory)
    secrets_path = directory / "minipsec.secrets"
    path = directory / "minipsec.conf"
    write_private(secrets_path, secrets_text(found))
    text = as_text({"connections": found.connections, "pools": found.pools})
    head = _HEAD.format(directory="/etc/swanctl/conf.d")
    # Not *.conf, so that /etc/swanctl/swanctl.conf reads it once, through this line.
    write_private(path, f"{head}\n{text}\n\ninclude minipsec.secrets\n")
    return path, secrets_path
