"""Session keys of a debug session: out of charon's log, or out of a key log of ours.

charon writes them at log level 4 of `ike` and `chd`; our devices and the development gateway into
the file that the profile key or the flag `keylog` names. Such files open what was recorded: they
are for devices with keys that do not matter.
"""

import csv
import re

from ..common.problem import Problem

_DUMP = re.compile(
    r"(Sk_[ea][ir] secret|encryption (?:initiator|responder) key) => (\d+) bytes", re.IGNORECASE
)
_LINE = re.compile(r"\s(\d+): ((?:[0-9A-F]{2} ){1,16})")


class Keys:
    """What is known: pairs of IKE keys, and ESP keys, each with its salt; none has a name."""

    def __init__(self):
        self.ike = []  # (SK_ei, SK_er)
        self.rows = []  # whole rows of Wireshark's table
        self.esp = []

    def read_charon(self, path):
        """Take all keys out of charon's log."""
        dumps = _dumps(_text(path))
        if not dumps:
            raise Problem(
                f"{path} has no keys",
                "in strongswan.conf, filelog section: ike = 4, chd = 4; restart it; only to debug",
            )
        initiator = None
        for name, octets in dumps:
            name = name.lower()
            if name == "sk_ei secret":
                initiator = octets
            elif name == "sk_er secret" and initiator:
                self.ike.append((initiator, octets))
            elif name.startswith("encryption"):
                self.esp.append(octets)

    def read_keylog(self, path):
        """Take the rows of a file in the form of Wireshark's ikev2_decryption_table."""
        for row in csv.reader(_text(path).splitlines()):
            if len(row) == 8 and all(re.fullmatch("[0-9a-f]{16}", spi) for spi in row[:2]):
                self.rows.append(row)
        if not self.rows:
            raise Problem(
                f"{path} is no key log", "its lines begin with two SPIs of 16 hex digits"
            )


def _text(path):
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None


def _dumps(text):
    """[(name, octets)] of the hex dumps in a log; lines of other threads may stand between."""
    found = []
    open_dumps = {}  # thread: (name, size, octets)
    for line in text.splitlines():
        thread = re.search(r"\b(\d\d)\[", line)
        thread = thread[1] if thread else ""
        start = _DUMP.search(line)
        if start:
            open_dumps[thread] = (start[1], int(start[2]), bytearray())
            continue
        more = _LINE.search(line)
        if more and thread in open_dumps:
            name, size, octets = open_dumps[thread]
            octets += bytes.fromhex(more[2])
            if len(octets) >= size:
                found.append((name, bytes(octets[:size])))
                del open_dumps[thread]
    return found
