"""A running charon, through vici: nothing is written to its files."""

import contextlib
import ipaddress
import re
import socket
import time
from dataclasses import dataclass, field

from ..common.options import warn
from ..common.problem import BadInput, Problem
from .config import (
    METHODS,
    NAME,
    SecretName,
    addresses,
    ends,
    older_connection,
    special,
    who,
)

_TIMEOUT = 60
_INTERVALS = 3  # readings that may be lost before a device counts as silent
_GRACE = 5  # seconds on top, for a handshake
_LOOKS = 2  # so often must nothing be left of a device that was cut off,
_PAUSE = 0.2  # so many seconds apart: an IKE_AUTH may have been under way
_SECOND = 2  # seconds by which ages may differ, since each is cut to a whole one
_PATIENCE = 5  # seconds until it is given up


def plain(value):
    """What vici gives (octets in ordered dicts) as strings, dicts and lists."""
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _is_here(host):
    """Does what is sent to a host stay on this machine?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Heard:
    """When a device was last heard: what an SA that charon keeps does not say."""

    ago: int | None  # seconds since a packet came by one of its SAs, None for never
    up: int  # seconds that the oldest of its SAs has been up

    def silent(self, interval_ms):
        """Has nothing come for so long that a reading should have come?"""
        quiet = self.up if self.ago is None else self.ago
        return quiet > _INTERVALS * interval_ms / 1000 + _GRACE


def last_heard(sas):
    """`Heard` of a device's SAs as charon lists them; None where there is no SA."""
    if not sas:
        return None
    children = [child for sa in sas for child in sa.get("child-sas", {}).values()]
    ago = [int(child["use-in"]) for child in children if int(child.get("packets-in", 0))]
    return Heard(min(ago, default=None), max(int(sa.get("established", 0)) for sa in sas))


class Charon:
    """A session with charon, to be used in a `with` block."""

    def __init__(self, address):
        self.address = address
        self._socket = None
        self.vici = None
        self._takes = {}

    def __enter__(self):
        import vici

        try:
            self._socket = self._connect()
        except ValueError:
            raise BadInput(
                f"--vici: expected a path or tcp://HOST:PORT, got {self.address}"
            ) from None
        except PermissionError:
            raise Problem(
                f"charon's socket {self.address} is not open to you", "run this as root"
            ) from None
        except OSError as error:
            raise Problem(
                f"charon does not answer at {self.address} ({error.strerror or error})",
                "is it running here? systemctl start strongswan. On another host:"
                " ssh -N -L /tmp/charon.vici:/var/run/charon.vici HOST and --vici /tmp/charon.vici",
            ) from None
        self.vici = vici.Session(self._socket)
        return self

    def _connect(self):
        if self.address.startswith("tcp://"):
            host, _, port = self.address[6:].rpartition(":")
            if not _is_here(host.strip("[]")):
                warn(
                    f"--vici {self.address}: every key goes over the network readable; let"
                    " ssh -L bring the socket here"
                )
            return socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT)
        found = socket.socket(socket.AF_UNIX)
        try:
            found.settimeout(_TIMEOUT)
            found.connect(self.address.removeprefix("unix://"))
        except BaseException:
            found.close()
            raise
        return found

    def __exit__(self, *_):
        self._socket.close()

    @contextlib.contextmanager
    def _asking(self, what, refusal=False):
        """Turn charon's refusals and a broken connection into a `Problem` that names the cause.

        With `refusal` a refusal stays what it is, for it is an answer.
        """
        from vici.exception import CommandException, SessionException

        try:
            yield
        except CommandException as error:
            if refusal:
                raise
            said = str(error).removeprefix("Command failed: ")
            raise Problem(f"charon refuses {what}: {said}", _fix(what, said)) from None
        except (OSError, SessionException) as error:
            raise Problem(
                f"charon went away while it was told {what} ({error})",
                "run this again when it is back: what is loaded already stays",
            ) from None

    def secrets(self):
        """The names of all shared secrets that a minipsec loaded."""
        with self._asking("to list its secrets"):
            names = plain(self.vici.get_shared()).get("keys", [])
        return {name for name in names if SecretName.read(name)}

    def connections(self):
        """The names of all connections that look like a minipsec's."""
        with self._asking("to list its connections"):
            names = plain(self.vici.get_conns()).get("conns", [])
        return {name for name in names if name == NAME or name.startswith(NAME + "-")}

    def lacking(self):
        """The methods of ML-KEM that it has no code for, also where it takes their names."""
        with self._asking("to list its algorithms"):
            known = {name for kind in plain(self.vici.get_algorithms()).values() for name in kind}
        return [name for name in METHODS if name.replace("mlkem", "ML_KEM_") not in known]

    def takes(self, kind, word):
        """Does it have a proposal for "ike" or "esp"? Where no list says so, it is tried out."""
        from vici.exception import CommandException

        if (kind, word) not in self._takes:
            name = f"{NAME}-proposal"
            child = {"esp_proposals": [word]} if kind == "esp" else {}
            trial = {"version": "2", "remote": {"id": "keyid:#00"}, "children": {"x": child}}
            if kind == "ike":
                trial["proposals"] = [word]
            good = not set(re.split("[-_]", word)) & set(self.lacking())
            if good:
                try:
                    with self._asking(f"the proposal {word}", refusal=True):
                        self.vici.load_conn({name: trial})
                    self.forget_connection(name)
                except CommandException:
                    good = False
            self._takes[kind, word] = good
        return self._takes[kind, word]

    def rival(self, wanted):
        """Another's connection that takes anybody where a `Plan`'s own would, or None.

        charon prefers a connection for one identity to one for anybody, and of two such takes the
        older one. It does no harm where it lets devices reach all that ours does.
        """
        shared = wanted.connections.get(wanted.scope.name)
        if not shared:
            return None
        reach = [ipaddress.ip_network(text) for text in shared["children"]["readings"]["local_ts"]]
        for name, other in self._loaded():
            local, remote = (other.get(f"{side}-1", {}).get("id") for side in ("local", "remote"))
            if wanted.scope.has(name) or remote not in (None, "%any"):
                continue
            if local not in (None, "%any", shared["local"]["id"]):
                continue
            children = other.get("children", {}).values()
            theirs = [network for child in children for network in _networks(child)]
            covered = all(any(_within(mine, n) for n in theirs) for mine in reach)
            if not covered or special(wanted):
                return name
        return None

    def _loaded(self):
        """Every connection, whoever loaded it: [(name, what charon says of it)]."""
        with self._asking("to list its connections"):
            answers = [plain(conns) for conns in self.vici.list_conns()]
        return [item for answer in answers for item in answer.items()]

    def local_ids(self):
        """Who charon itself is: {local id, as it shows it: the name of a connection}."""
        return {
            side["id"]: name
            for name, connection in self._loaded()
            for key, side in connection.items()
            if key.startswith("local-") and "id" in side
        }

    def pools(self):
        """{name: {"base", "size", "online", ..}}."""
        with self._asking("to list its pools"):
            return plain(self.vici.get_pools())

    def sas(self):
        """Every IKE SA: [{"name", "remote-id", "state", "child-sas", ..}]."""
        with self._asking("to list its SAs"):
            answers = [plain(sas) for sas in self.vici.list_sas()]
        return [{"name": name, **sa} for sas in answers for name, sa in sas.items()]

    def sas_of(self, identity):
        """The IKE SAs of one `Identity`, by its octets."""
        return [sa for _, sa in self._sas_of_all([identity])]

    def load_secret(self, entry):
        with self._asking(f"the secret of {entry.owner}"):
            self.vici.load_shared(
                {
                    "id": entry.name,
                    "type": entry.kind,
                    "data": entry.octets,
                    "owners": [entry.owner],
                }
            )

    def unload_secret(self, name):
        with self._asking(f"to forget {name}"):
            self.vici.unload_shared({"id": name})

    def forget_connection(self, name):
        with self._asking(f"to forget the connection {name}"):
            self.vici.unload_conn({"name": name})

    def secrets_of(self, identity, inventory=None):
        """The names of the secrets that charon has of one identity, from one inventory or any."""
        return self._secrets_by_owner(inventory).get(who(identity), [])

    def terminate(self, identity):
        """End every IKE SA of an `Identity`; return how many."""
        return len(self._terminate([identity]))

    def _sas_of_all(self, identities):
        """[(identity, SA)] of the SAs that some identities have."""
        shown = {}
        for identity in identities:
            shown.setdefault(identity.shown.lower(), []).append(identity)
        return [
            (identity, sa)
            for sa in self.sas()
            for identity in shown.get(sa.get("remote-id", "").lower(), ())
            if identity.is_shown_as(sa["remote-id"])
        ]

    def _terminate(self, identities):
        """End every IKE SA of some identities; return whose each was, and for how many seconds."""
        found = self._sas_of_all(identities)
        for identity, sa in found:
            with self._asking(f"to end the SA of {identity}"):
                # The device is told, and its answer is not waited for.
                for _ in self.vici.terminate({"ike-id": sa["uniqueid"], "force": "yes"}):
                    pass
        return [(identity, int(sa.get("established", 0))) for identity, sa in found]

    def cut_off(self, identities, inventory):
        """Forget identities' keys, end their SAs, and look; return how many of each.

        `identities` tells for how many seconds each has been revoked, None for until now.
        `Problem` when an SA or a key is left: charon's word alone is not believed. So it is when
        an SA had no key of ours, unless it is older than the revocation that took the key away.
        """
        forgotten, ended, clean = {}, [], 0
        end = time.monotonic() + _PATIENCE
        while clean < _LOOKS:
            names = self._secrets_by_owner(inventory)
            here = self.connections()
            for identity in identities:
                for name in names.get(who(identity), ()):
                    self.forget_secret(name)
                    forgotten[name] = identity
                for name in here:
                    if _is_own(name, identity, inventory):
                        self.forget_connection(name)
            ended += self._terminate(identities)
            time.sleep(_PAUSE)
            names = self._secrets_by_owner(inventory)
            keys = [i for i in identities if who(i) in names]
            sas = self._sas_of_all(identities)
            clean = 0 if keys or sas else clean + 1
            if not clean and time.monotonic() > end:
                left = keys or [identity for identity, _ in sas]
                raise Problem(
                    f"charon still has {len(sas)} SAs and {len(keys)} keys of {left[0]}",
                    "run this again; `swanctl --list-sas` there shows them",
                )
        names = self._secrets_by_owner()
        for identity in identities:
            if who(identity) in names:
                raise Problem(
                    f"another inventory gave charon a key of {identity}"
                    f" ({names[who(identity)][0]})",
                    "revoke it in that inventory, too",
                )
            before = identities[identity]
            younger = [age for whose, age in ended if whose is identity]
            younger = [age for age in younger if before is None or age < before - _SECOND]
            if younger and identity not in forgotten.values():
                raise Problem(
                    f"charon let {identity} in by a secret that is not from here",
                    "take it out of the files in /etc/swanctl there, then swanctl --load-all",
                )
        return len(forgotten), len(ended)

    def _secrets_by_owner(self, inventory=None):
        """{who: [name]} of the secrets of one inventory, or of any."""
        found = {}
        for name in sorted(self.secrets()):
            said = SecretName.read(name)
            if not inventory or said.inventory in (inventory, None):
                found.setdefault(said.who, []).append(name)
        return found

    def forget_secret(self, name):
        """Forget a secret; another process may have been faster."""
        try:
            self.unload_secret(name)
        except Problem:
            if name in self.secrets():
                raise

    def changes(self, found):
        """What `apply` would change for a `Plan`: `Changes`."""
        secrets = {name: SecretName.read(name) for name in self.secrets()}
        ours = {name for name, said in secrets.items() if said.within(found.scope)}
        alone = {who(identity) for identity, _ in found.left_out}
        # `rotate` knows which key a board has; only where charon has none is it given the old one.
        rotating = {who(identity) for identity in found.rotating}
        rotating &= {secrets[name].who for name in ours}
        alone |= rotating
        barred = [identity for identity, _ in found.barred]
        served = {who(identity) for identity in (*found.devices, *found.revoked, *barred)}
        # What an older minipsec loaded for these devices goes when the new names are there.
        older = {
            name for name, said in secrets.items() if said.inventory is None and said.who in served
        }
        gone = {name for name in ours - set(found.secrets) if secrets[name].who not in alone}
        here = self.connections()
        kept = {found.scope.connection(identity) for identity, _ in found.left_out}
        adopted = {
            older_connection(identity) for identity in (*found.devices, *found.revoked, *barred)
        }
        stale = {name for name in here if found.scope.has(name)} - set(found.connections)
        return Changes(
            new=sorted(
                name
                for name, entry in found.secrets.items()
                if name not in ours and who(entry.identity) not in rotating
            ),
            known=sorted(set(found.secrets) & ours),
            forgotten=sorted(gone),
            older=sorted(older),
            connections=sorted(set(found.connections)),
            had=here,
            old_connections=sorted(stale - kept | here & adopted),
            unexpected=sorted(
                {secrets[name].who for name in gone if secrets[name].who not in served}
            ),
        )

    def apply(self, found, changes, guard, progress=lambda *_: None):
        """Make charon know a `Plan`; return counts of what changed.

        Only names of the plan's scope are touched. Where charon refuses a connection, those that
        it did not have before are taken back, and no secret has been touched. `guard(secret)` is a
        context that says whether a secret is good still, and keeps it so while it is loaded.
        """
        counts = {"connections": len(changes.connections), "secrets": 0}
        loaded, made = [], []
        try:
            for version, network in found.networks.items():
                names = self._make_room(found.scope.pool(version), network, made)
                self._use(found, version, names)
            for name, connection in found.connections.items():
                with self._asking(f"the connection {name}"):
                    self.vici.load_conn({name: connection})
                loaded.append(name)
                progress("connections", 1)
        except Problem:
            for name in loaded:
                if name not in changes.had:
                    with contextlib.suppress(Exception):
                        self.vici.unload_conn({"name": name})
            for name in made:
                with contextlib.suppress(Exception):
                    self.vici.unload_pool({"name": name})
            raise
        for name, entry in found.secrets.items():
            if name in changes.new:
                with guard(entry) as good:
                    if good:
                        self.load_secret(entry)
                        counts["secrets"] += 1
            progress("secrets", 1)
        # Those of revoked devices go with their SAs, by `cut_off`.
        revoked = set(map(who, found.revoked))
        for name in (*changes.forgotten, *changes.older):
            if SecretName.read(name).who not in revoked:
                self.forget_secret(name)
        for name in changes.old_connections:
            self.forget_connection(name)
        self._empty_pools(found)
        return counts

    @staticmethod
    def _use(found, version, names):
        """Have connections give out addresses of these pools."""
        pool = found.scope.pool(version)
        for connection in found.connections.values():
            if pool in connection.get("pools", ()):
                at = connection["pools"].index(pool)
                connection["pools"][at : at + 1] = names

    def _make_room(self, prefix, network, made):
        """Have pools for all addresses of a network; return the names of those to use.

        A pool that has leases cannot be changed, and no address may be given out by two pools.
        So pools that are there stay, whoever made them, and new ones have what is between.
        """
        first, last = ends(network)
        use, taken = [], []
        for name, pool in self.pools().items():
            base = ipaddress.ip_address(pool["base"])
            low, high = int(base), int(base) + int(pool["size"])
            ours = name == prefix or name.startswith(prefix + "-")
            high -= ours  # a network's pool begins behind its base
            if base.version != network.version or high < first or last < low:
                continue
            inside = first <= low + (not ours) and high - (not ours) <= last
            if ours and not inside and not int(pool["online"]):
                with self._asking(f"to forget the pool {name}"):
                    self.vici.unload_pool({"name": name})
                continue
            taken.append((low, high))
            if inside or not ours and low <= first and last <= high:
                use.append(name)
        for low, high in _between(first, last, taken):
            name = _free(prefix, self.pools())
            with self._asking(f"the pool {name} ({addresses(low, high)})"):
                self.vici.load_pool({name: {"addrs": addresses(low, high)}})
            made.append(name)
            use.append(name)
        if not use:
            raise Problem(
                f"charon refuses the pool {prefix}: its addresses are in use",
                "terminate the SAs, or keep the pool",
            )
        return use

    def _empty_pools(self, found):
        """Forget pools of ours that serve nobody any more; one with leases is for a later time."""
        used = {name for c in found.connections.values() for name in c.get("pools", ())}
        for name, pool in self.pools().items():
            if found.scope.has(name) and name not in used and not int(pool["online"]):
                with self._asking(f"to forget the pool {name}"):
                    self.vici.unload_pool({"name": name})


@dataclass
class Changes:
    """What differs between charon and a plan, as names."""

    new: list
    known: list
    forgotten: list
    older: list  # by a minipsec whose inventories had no id
    connections: list
    old_connections: list
    unexpected: list = field(default_factory=list)  # whose keys go though nobody revoked them
    had: set = field(default_factory=set)


def _is_own(name, identity, inventory):
    """Is this the connection of one device of an inventory, whatever its gateway is called?"""
    older = older_connection(identity)
    return name == older or (
        name.startswith(f"{NAME}-{inventory}-") and name.endswith(older.removeprefix(NAME))
    )


def _networks(child):
    """The networks that a child's devices may reach."""
    for text in child.get("local-ts", ()):
        try:
            yield ipaddress.ip_network(text)
        except ValueError:  # dynamic, or with a protocol
            continue


def _within(mine, other):
    return mine.version == other.version and mine.subnet_of(other)


def _between(first, last, taken):
    """What is left of a range of numbers without others: [(low, high)]."""
    found = []
    for low, high in sorted(taken):
        if first < low:
            found.append((first, min(low - 1, last)))
        first = max(first, high + 1)
    if first <= last:
        found.append((first, last))
    return found


def _free(prefix, names):
    """A name for one more pool."""
    number = 1
    while (name := prefix if number == 1 else f"{prefix}-{number}") in names:
        number += 1
    return name


def _fix(what, said):
    if "proposal" in said or "ke1_" in said:
        return (
            "a key exchange that it lacks: ML-KEM needs strongSwan 6; or pq = off in the profiles"
        )
    return "its log says more; nothing of this is left half-done, run it again when it is mended"
