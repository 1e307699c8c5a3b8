"""Files that hold secrets: closed to others from their first moment on, whole or not there."""

import contextlib
import json
import os
import pathlib

from .problem import Problem


def make_directory(path):
    """Make a directory that only its owner may enter."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Problem(f"cannot make the directory {path}: {error.strerror}") from None


@contextlib.contextmanager
def private_file(path, sync=True, binary=False):
    """Open a new file of mode 0600 that replaces `path` when the block ends well.

    Without `sync` a power cut soon after may still take it away.
    """
    path = pathlib.Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            kind = ("wb", None) if binary else ("w", "utf-8")
            with os.fdopen(descriptor, kind[0], encoding=kind[1]) as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(descriptor)
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from None


def write_private(path, text, sync=True):
    """Write a file of mode 0600, in place of an older one."""
    with private_file(path, sync) as file:
        file.write(text)


def write_json(path, value, sync=True):
    """Write an object as JSON into a file of mode 0600."""
    write_private(path, json.dumps(value, indent=2) + "\n", sync)


def read_text(path):
    """Read a text file; `Problem` names the file that cannot be read."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Problem(f"{path} is not UTF-8 text") from None


def read_json(path):
    """Read a JSON object; `Problem` names the file that cannot be read."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Problem(f"{path} is not a JSON object")
    return value


def check_closed(path):
    """Refuse a secrets file, or a directory, that others may read."""
    if os.stat(path).st_mode & 0o077:
        mode = 700 if os.path.isdir(path) else 600
        raise Problem(f"{path} is open to others", f"chmod {mode} {path}")
