"""The inventory: which devices there are, in what state, and where their keys lie.

    INVENTORY/                      0700; --inventory, MINIPSEC_INVENTORY or ~/minipsec-inventory
      inventory.db                  SQLite: a row a device, what happened to it, the gateways
      devices/IDENTITY/
        profile.json                as the device reads it
        secrets.json                its keys, 0600; gone when the device is revoked
        secrets.next.json           keys that `rotate` is about to put in their place

No key is ever in the database, so that one may copy it, or look into it, without a second thought.
A change is a transaction: a row appears when the files that belong to it are there.
"""

import contextlib
import datetime
import fcntl
import os
import pathlib
import shutil
import sqlite3
import time

from ..common.files import check_closed, make_directory, read_json, write_json
from ..common.identity import Identity
from ..common.problem import BadInput, Problem, shortened
from .device import gateway_identities
from .keys import renewed

STATES = ("new", "provisioned", "active", "revoked")
_FEW = 20  # devices whose files are brought to disk one by one, not all at once
_WAIT = 3.0  # seconds for another process to finish its change
_WAIT_GATEWAY = 5.0  # and to tell a gateway one thing
CHARON = "charon"  # a place that was told of a device; all others are directories

# Script n brings a database from version n to n + 1; none is ever changed once released.
MIGRATIONS = (
    """
    CREATE TABLE devices (
        key TEXT PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL DEFAULT 'new'
            CHECK (state IN ('new', 'provisioned', 'active', 'revoked')),
        gateway TEXT NOT NULL,
        inner_address TEXT,
        board TEXT,
        created TEXT NOT NULL
    );
    CREATE UNIQUE INDEX one_inner_address ON devices (gateway, inner_address)
        WHERE inner_address IS NOT NULL AND state != 'revoked';
    """,
    """
    ALTER TABLE devices ADD COLUMN chip TEXT;
    ALTER TABLE devices ADD COLUMN firmware TEXT;
    CREATE TABLE events (at TEXT NOT NULL, id TEXT NOT NULL, what TEXT NOT NULL);
    CREATE INDEX events_of_a_device ON events (id, at);
    CREATE TABLE gateways (gateway TEXT PRIMARY KEY, pool TEXT, pool6 TEXT);
    """,
    # Devices of an older inventory may be known to a charon.
    """
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    INSERT INTO facts VALUES ('id', lower(hex(randomblob(4))));
    CREATE TABLE told (place TEXT, gateway TEXT, key TEXT, PRIMARY KEY (place, gateway, key));
    INSERT INTO told SELECT 'charon', gateway, key FROM devices;
    """,
)


def default_path():
    """Where the inventory lies when nobody says otherwise."""
    return pathlib.Path(
        os.environ.get("MINIPSEC_INVENTORY") or pathlib.Path.home() / "minipsec-inventory"
    )


def now():
    """The time as the database has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _key(text):
    """The key of an identity, None for what is none."""
    try:
        return Identity(text).key
    except ValueError:
        return None


def _is_busy(error):
    return "locked" in str(error) or "busy" in str(error)


class Inventory:
    """An open inventory, to be used in a `with` block; made when it is not there yet."""

    def __init__(self, path=None, create=True):
        self.path = pathlib.Path(path or default_path())
        self.database = self.path / "inventory.db"
        self.devices = self.path / "devices"
        if not create and not self.database.exists():
            raise Problem(f"there is no inventory in {self.path}", "python -m tools new makes one")
        make_directory(self.path)
        make_directory(self.devices)
        self._unwritable = None  # why it can only be read
        with self._errors():
            self._db = self._open()
            try:
                self._migrate()
            except BaseException:
                self._db.close()
                raise

    def _open(self):
        """Connect to the database; where nothing can be written, so that it can be read at least."""
        try:
            # SQLite gives the mode of this file to its journal, too.
            os.close(os.open(self.database, os.O_RDWR | os.O_CREAT, 0o600))
            return self._connect(self.database, "PRAGMA journal_mode = WAL")
        except OSError as error:
            self._unwritable = error.strerror
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise
            self._unwritable = str(error)
        if not os.access(self.database, os.R_OK):
            raise Problem(f"cannot open {self.database}: {self._unwritable}", self._room)
        journal = self.database.with_name(self.database.name + "-wal")
        # Without a journal nobody writes beside us, and none is made.
        written = journal.exists() and journal.stat().st_size
        how = "mode=ro" if written else "mode=ro&immutable=1"
        return self._connect(f"{self.database.absolute().as_uri()}?{how}", uri=True)

    @staticmethod
    def _connect(where, *statements, **options):
        db = sqlite3.connect(where, timeout=_WAIT, isolation_level=None, **options)
        db.row_factory = sqlite3.Row
        try:
            # The journal is opened by the first question.
            for statement in (*statements, "PRAGMA user_version"):
                db.execute(statement)
        except BaseException:
            db.close()
            raise
        return db

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._db.close()

    @property
    def _room(self):
        """What to do where SQLite cannot write; it does not tell a full disk from a broken one."""
        return f"has its disk room (df {self.path}), and may you write there?"

    @contextlib.contextmanager
    def _errors(self):
        try:
            yield
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise Problem(
                    f"the inventory {self.path} is in use by another process",
                    "run this again when that one is done; nothing was changed",
                ) from None
            why = self._unwritable or error
            raise Problem(f"the inventory {self.database}: {why}", self._room) from None
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            raise Problem(
                f"{self.database} is no inventory: {error}", "restore it from a copy"
            ) from None

    def _version(self):
        return self._db.execute("PRAGMA user_version").fetchone()[0]

    def _migrate(self):
        if self._version() == len(MIGRATIONS):
            return
        if self._version() > len(MIGRATIONS):
            raise Problem(
                f"{self.database} was written by a newer minipsec"
                f" (version {self._version()}, this one knows {len(MIGRATIONS)})",
                "use that one",
            )
        with self.changing():
            # Asked again: another process may have done it while we waited.
            if not self._version() and any(self.devices.glob("[!.]*")):
                raise Problem(
                    f"{self.database} is empty, and {self.devices} is not",
                    "restore it from a copy",
                )
            for number in range(self._version(), len(MIGRATIONS)):
                for statement in MIGRATIONS[number].split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number + 1}")

    @contextlib.contextmanager
    def changing(self):
        """A transaction: all that happens in the block, or none of it."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # SQLite has ended it itself where the disk is full
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # Rows.

    def rows(self, *states, gateway=None):
        """Every device, by identity; of some states or one gateway only when they are named."""
        with self._errors():
            rows = self._db.execute("SELECT * FROM devices ORDER BY id").fetchall()
        return [
            row
            for row in rows
            if (not states or row["state"] in states) and gateway in (None, row["gateway"])
        ]

    def find(self, name):
        """The device of an identity, or of the first part of one where that is enough."""
        name = name.encode(errors="replace").decode()  # octets that are no text name nobody
        with self._errors():
            row = self._db.execute(
                "SELECT * FROM devices WHERE id = ? OR key = ?", (name, _key(name))
            ).fetchone()
            if row:
                return row
            found = [
                row
                for row in self.rows()
                if any(row["id"].startswith(name.lower() + sign) for sign in ".@")
            ]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(row["id"] for row in found[:3])
            raise BadInput(f"{name} may be any of {len(found)} devices: {names}, ..")
        raise BadInput(
            f"{shortened(name)} is not in the inventory", "python -m tools list shows what is"
        )

    def get(self, key):
        """The row of a key (Identity.key), or None."""
        with self._errors():
            return self._db.execute("SELECT * FROM devices WHERE key = ?", (key,)).fetchone()

    def add(self, devices):
        """Add devices with fresh keys: all of them or, when one cannot be, none."""
        written = []
        few = len(devices) < _FEW
        try:
            with self.changing() as db:
                self._check_shown(devices)
                self._check_gateways(devices)
                for device in devices:
                    self._insert(db, device)
                    written.append(self._write(device, few))
                if not few:
                    os.sync()
        except BaseException:
            for directory in written:
                shutil.rmtree(directory, ignore_errors=True)
            raise

    def _insert(self, db, device):
        v = device.values
        identity = device.identity
        row = (identity.key, identity.text, v["gateway"], v["inner_address"], v["board"], now())
        try:
            db.execute(
                "INSERT INTO devices (key, id, gateway, inner_address, board, created)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
        except sqlite3.IntegrityError:
            if self.get(identity.key):
                raise BadInput(f"{identity} is in the inventory already") from None
            raise BadInput(
                f"{identity}: another device of {v['gateway']} has {v['inner_address']}"
            ) from None
        self._note(db, identity.text, "made")

    def _check_shown(self, devices):
        """Refuse an identity that charon would show in the words of another one."""
        shown = {}
        for row in self.rows():
            shown.setdefault(Identity.of(row).shown.lower(), Identity.of(row))
        for identity in (device.identity for device in devices):
            other = shown.setdefault(identity.shown.lower(), identity)
            alike = other.is_shown_as(identity.shown) or identity.is_shown_as(other.shown)
            if alike and other.key != identity.key:
                raise BadInput(
                    f"{identity} and {other}: strongSwan shows both as {identity.shown}",
                    "choose another identity for one of them",
                )

    def _check_gateways(self, devices):
        """Refuse a device that has a gateway's identity, and a gateway that has a device's.

        charon takes a secret when its owner is at either end: such a device's key would be good
        for every name at that gateway.
        """
        gateways = self.gateway_identities(but=[device.identity.key for device in devices])
        theirs = {device.id: gateway_identities(device.profile()) for device in devices}
        for name, found in theirs.items():
            for identity in found:
                gateways.setdefault(identity.key, name)
                row = self.get(identity.key)
                if row and row["state"] != "revoked":
                    raise BadInput(
                        f"{name}: its gateway cannot be {identity}, which is a device",
                        "correct gateway_id, or revoke that device",
                    )
        for device in devices:
            if device.identity.key in gateways:
                raise BadInput(
                    f"{device.identity} is the gateway of {gateways[device.identity.key]}:"
                    " strongSwan would take its key for any device's",
                    "choose another identity for the device",
                )

    def gateway_identities(self, but=()):
        """Whom devices that are not revoked take for their gateway: {key: the id of one of them}."""
        found = {}
        for row in self.rows():
            if row["state"] != "revoked" and row["key"] not in but:
                with contextlib.suppress(Problem):  # `gateway config` names a damaged profile
                    for identity in gateway_identities(self.profile(row)):
                        found.setdefault(identity.key, row["id"])
        return found

    def _write(self, device, sync=True):
        directory = self.devices / device.identity.file_name
        if directory.exists():
            # A command ended before it had a row; who knows what is in there: keep it.
            os.rename(directory, self.devices / f".{directory.name}.{now()}.left")
        make_directory(directory)
        write_json(directory / "profile.json", device.profile(), sync)
        write_json(directory / "secrets.json", device.new_secrets(), sync)
        return directory

    def set_state(self, row, state, **columns):
        """Move a device on to a state; revoked is the end of it."""
        with self.changing() as db:
            current = self.get(row["key"])["state"]
            if current == "revoked" != state:
                raise Problem(f"{row['id']} is revoked")
            names = "".join(f", {name} = ?" for name in columns)
            db.execute(
                f"UPDATE devices SET state = ?{names} WHERE key = ?",
                (state, *columns.values(), row["key"]),
            )
            if current != state:
                self._note(db, row["id"], state)

    def change(self, row, device, profile):
        """Give a device other settings; return the profile keys, or names of columns, that differ."""
        old = self.profile(row)
        changed = sorted(k for k in {*old, *profile} if old.get(k) != profile.get(k))
        columns = {name: device.values[name] for name in ("gateway", "inner_address", "board")}
        changed += [k for k, v in columns.items() if k not in changed and v != row[k]]
        keys = self.secrets(row)
        if device.given["wifi_key"] and keys and keys.get("wifi_key") != device.given["wifi_key"]:
            keys["wifi_key"] = device.given["wifi_key"]
            changed.append("wifi_key")
        if changed:
            with self.changing() as db:
                self._check_gateways([device])
                try:
                    db.execute(
                        "UPDATE devices SET gateway = ?, inner_address = ?, board = ? WHERE key = ?",
                        (*columns.values(), row["key"]),
                    )
                except sqlite3.IntegrityError:
                    raise BadInput(
                        f"another device of {columns['gateway']} has {columns['inner_address']}"
                    ) from None
                self._note(db, row["id"], f"edited: {', '.join(changed)}")
                if "wifi_key" in changed:
                    write_json(self.secrets_path(row), keys)
                write_json(self.profile_path(row), profile)
        return changed

    def remove(self, row):
        """Take a device out, and its files."""
        with self.changing() as db:
            db.execute("DELETE FROM devices WHERE key = ?", (row["key"],))
            db.execute("DELETE FROM told WHERE key = ?", (row["key"],))
            self._note(db, row["id"], "removed")
            shutil.rmtree(self.directory(row))

    def note(self, row, what):
        """Add a line to a device's history; it never holds a secret."""
        with self.changing() as db:
            self._note(db, row["id"], what)

    @staticmethod
    def _note(db, identity, what):
        db.execute("INSERT INTO events VALUES (?, ?, ?)", (now(), identity, what))

    def history(self, row):
        """What happened to a device: [(time, what)]."""
        with self._errors():
            return [
                tuple(line)
                for line in self._db.execute(
                    "SELECT at, what FROM events WHERE id = ? ORDER BY rowid", (row["id"],)
                )
            ]

    def gateways(self):
        """{gateway: {"pool": .., "pool6": ..}} of every gateway that a device has."""
        with self._errors():
            known = {
                line["gateway"]: {"pool": line["pool"], "pool6": line["pool6"]}
                for line in self._db.execute("SELECT * FROM gateways")
            }
        names = {row["gateway"] for row in self.rows()}
        return {name: known.get(name, {"pool": None, "pool6": None}) for name in sorted(names)}

    def revoked_for(self, row):
        """For how many seconds a device has been revoked, None when it is not."""
        times = [at for at, what in self.history(row) if what == "revoked"]
        if not times:
            return None
        return (
            datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(times[-1])
        ).total_seconds()

    @property
    def id(self):
        """Eight hexadecimal digits that no other inventory has."""
        with self._errors():
            return self._db.execute("SELECT value FROM facts WHERE name = 'id'").fetchone()[0]

    def tell(self, place, gateway, keys, only=False):
        """Remember that a place, a directory or charon, knows devices; or `only` these."""
        with self.changing() as db:
            if only:
                db.execute("DELETE FROM told WHERE place = ? AND gateway = ?", (place, gateway))
            db.executemany(
                "INSERT OR IGNORE INTO told VALUES (?, ?, ?)",
                [(place, gateway, key) for key in keys],
            )

    def told(self, row):
        """The places that were told of a device: [(place, gateway)]."""
        with self._errors():
            return [
                tuple(line)
                for line in self._db.execute(
                    "SELECT place, gateway FROM told WHERE key = ? ORDER BY place", (row["key"],)
                )
            ]

    def untell(self, place, gateway):
        """Forget a place that knows nobody any more."""
        with self.changing() as db:
            db.execute("DELETE FROM told WHERE place = ? AND gateway = ?", (place, gateway))

    def places(self, gateway):
        """The directories that hold a gateway's files, as far as is known."""
        with self._errors():
            found = self._db.execute(
                "SELECT DISTINCT place FROM told WHERE gateway = ? AND place != ?",
                (gateway, CHARON),
            )
            return [line["place"] for line in found]

    def former_gateways(self):
        """Gateways that were told of devices, also where no device has them any more."""
        with self._errors():
            return {line["gateway"] for line in self._db.execute("SELECT gateway FROM told")}

    def remember_gateway(self, gateway, pool, pool6):
        """Keep which inner addresses a gateway gives out."""
        with self.changing() as db:
            db.execute("INSERT OR REPLACE INTO gateways VALUES (?, ?, ?)", (gateway, pool, pool6))

    # Files.

    def directory(self, row):
        return self.devices / Identity.of(row).file_name

    def profile_path(self, row):
        return self.directory(row) / "profile.json"

    def secrets_path(self, row, coming=False):
        return self.directory(row) / ("secrets.next.json" if coming else "secrets.json")

    def profile(self, row):
        """The profile of a device as an object."""
        profile = read_json(self.profile_path(row))
        if profile.get("id") != row["id"] and _key(profile.get("id")) != row["key"]:
            raise Problem(f"{self.profile_path(row)}: its id is not {row['id']}")
        return renewed(profile, self.profile_path(row))

    def secrets(self, row, coming=False):
        """The keys of a device as an object; None when there are none (any more)."""
        path = self.secrets_path(row, coming)
        if not path.exists():
            return None
        check_closed(path)
        found = read_json(path)
        if not isinstance(found.get("psk"), str):
            raise Problem(f"{path} holds no psk")
        return found

    @contextlib.contextmanager
    def working_on(self, row):
        """Keep other processes from working on the same device."""
        with _locked(self.directory(row), 0) as free:
            if not free:
                raise Problem(
                    f"another process works on {row['id']}", "run this again when it is done"
                )
            yield

    @contextlib.contextmanager
    def telling(self):
        """One thing is told to a gateway at a time: True, or False when another process hangs."""
        with _locked(self.devices, _WAIT_GATEWAY) as free:
            yield free


@contextlib.contextmanager
def _locked(path, seconds):
    """Hold the lock of a directory; False when another process holds it for so long."""
    make_directory(path)  # a device whose files are lost can be revoked all the same
    descriptor = os.open(path, os.O_RDONLY)
    end = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
            except BlockingIOError:
                free = False
            if free or time.monotonic() >= end:
                break
            time.sleep(0.01)
        yield free
    finally:
        os.close(descriptor)
