"""A running charon, through vici: nothing is written to its files."""

import contextlib
import socket
from dataclasses import dataclass

from ..provision.problem import BadInput, Problem
from .config import NAME, connection_name, secrets_prefix

_TIMEOUT = 60
_INTERVALS = 3  # readings that may be lost before a device counts as silent
_GRACE = 5  # seconds on top, for a handshake


def plain(value):
    """What vici gives (octets in ordered dicts) as strings, dicts and lists."""
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


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
    def _asking(self, what):
        """Turn charon's refusals and a broken connection into a `Problem` that names the cause."""
        from vici.exception import CommandException, SessionException

        try:
            yield
        except CommandException as error:
            said = str(error).removeprefix("Command failed: ")
            raise Problem(f"charon refuses {what}: {said}", _fix(what, said)) from None
        except (OSError, SessionException) as error:
            raise Problem(
                f"charon went away while it was told {what} ({error})",
                "run this again when it is back: what is loaded already stays",
            ) from None

    def secrets(self):
        """The names of all shared secrets that are ours."""
        with self._asking("to list its secrets"):
            names = plain(self.vici.get_shared()).get("keys", [])
        return {name for name in names if name.startswith((f"ike-{NAME}-", f"ppk-{NAME}-"))}

    def connections(self):
        """The names of all connections that are ours."""
        with self._asking("to list its connections"):
            names = plain(self.vici.get_conns()).get("conns", [])
        return {name for name in names if name == NAME or name.startswith(NAME + "-")}

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
        return [sa for sa in self.sas() if identity.is_shown_as(sa.get("remote-id", ""))]

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

    def forget_connection(self, identity):
        """Forget the connection that a device with an inner address of its own has."""
        name = connection_name(identity)
        if name in self.connections():
            with self._asking(f"to forget the connection {name}"):
                self.vici.unload_conn({"name": name})

    def secrets_of(self, identity):
        """The names of the secrets that charon has of one identity."""
        prefix = secrets_prefix(identity)
        return {name for name in self.secrets() if name[4:].startswith(prefix)}

    def terminate(self, identity):
        """End every IKE SA of an `Identity`; return how many."""
        sas = self.sas_of(identity)
        for sa in sas:
            with self._asking(f"to end the SA of {identity}"):
                # The device is told, and its answer is not waited for.
                for _ in self.vici.terminate({"ike-id": sa["uniqueid"], "force": "yes"}):
                    pass
        return len(sas)

    def apply(self, found, progress=lambda *_: None):
        """Make charon know a `Plan`, and nothing else of ours; return counts of what changed.

        Where it refuses a connection, connections that it did not have before are taken back, and
        no secret has been touched.
        """
        counts = {"connections": 0, "secrets": 0, "forgotten": 0, "kept": 0, "ended": 0}
        had_connections, had_secrets, pools = self.connections(), self.secrets(), self.pools()
        loaded = []
        try:
            for name, pool in found.pools.items():
                if not _same_pool(pools.get(name), pool["addrs"]):
                    with self._asking(f"the pool {name} ({pool['addrs']})"):
                        self.vici.load_pool({name: pool})
            for name, connection in found.connections.items():
                with self._asking(f"the connection {name}"):
                    self.vici.load_conn({name: connection})
                loaded.append(name)
                progress("connections", 1)
        except Problem:
            for name in loaded:
                if name not in had_connections:
                    with contextlib.suppress(Exception):
                        self.vici.unload_conn({"name": name})
            raise
        counts["connections"] = len(loaded)
        for name, entry in found.secrets.items():
            if name in had_secrets:
                counts["kept"] += 1
            else:
                self.load_secret(entry)
                counts["secrets"] += 1
            progress("secrets", 1)
        for name in had_secrets - set(found.secrets):
            self.unload_secret(name)
            counts["forgotten"] += 1
        for name in had_connections - set(found.connections):
            with self._asking(f"to forget the connection {name}"):
                self.vici.unload_conn({"name": name})
            counts["forgotten"] += 1
        shown = {sa.get("remote-id", "").lower() for sa in self.sas()}
        for identity in found.revoked:
            if identity.shown.lower() in shown:
                counts["ended"] += self.terminate(identity)
        return counts


def _same_pool(known, addresses):
    """Does charon give out these addresses already? It tells the first one and how many."""
    import ipaddress

    network = ipaddress.ip_network(addresses)
    return (
        known is not None
        and known.get("base") == str(network.network_address)
        and int(known.get("size", 0)) == min(network.num_addresses - 2, (1 << 31) - 1)
    )


def _fix(what, said):
    if "proposal" in said or "ke1_" in said:
        return (
            "a key exchange that it lacks: ML-KEM needs strongSwan 6; or pq = off in the profiles"
        )
    if "pool" in what:
        return "its addresses are in use: terminate the SAs, or keep the pool"
    return "its log says more; nothing of this is left half-done, run it again when it is mended"
