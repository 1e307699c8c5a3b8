"""The keys of a profile as a person meets them.

A key is told once, by its row in firmware/minipsec/config/profile.py: its name, default, check and
group.  What only a person wants to know stands here.  Flags, questions, columns, the page of the
profile and errors are made from both; a row without a line here has them, too.
"""

import importlib
import importlib.util
import sys
import types
from dataclasses import dataclass

from ..common import mpy
from ..common.problem import Problem

# What each key means.  A flag's help is what stands before the first semicolon.
MEANINGS = {
    "gateway": "where the gateway is; a name is looked up anew for each attempt. Of a list, each in turn",
    "gateway_id": "who the gateway must prove to be; `any` takes whoever knows the secret",
    "id": "who the sensor is; the gateway finds the secret by it",
    "secrets": "the file with the secret, beside the profile; mode 0600 on a PC",
    "server": "where readings go, behind the gateway; needed, except in transport mode",
    "server_port": "the server's UDP port",
    "inner_port": "the sensor's UDP port inside the tunnel",
    "inner_address": "the sensor's address inside the tunnel; left out, the gateway assigns one",
    "remote_ts": "what to ask to reach; left out, everything, and the gateway narrows it",
    "port": "the gateway's IKE port",
    "natt_port": "the gateway's port for NAT traversal; if equal to `port`, used from the start",
    "encap": "have ESP in UDP also where no NAT is in between",
    "ike": "proposals for IKE, best first, in strongSwan's words",
    "pq": "ML-KEM beside the first key exchange: ask for it, insist on it, or don't",
    "pq_method": "which ML-KEM",
    "ppk_id": "use the post-quantum secret of this name; the secrets file has it as `ppk`",
    "ppk_required": "no tunnel without that secret",
    "esp": "proposals for ESP, best first",
    "mode": "tunnel, or transport where the server is the gateway",
    "spi": "fixed inbound SPIs in place of random ones; two at least, for replacing an SA",
    "esp_pad_to": "pad each packet so far that readings of different sizes look alike",
    "fragment_size": "largest IP datagram for IKE; left out, 576 octets, or 1280 with IPv6",
    "fragment_gap_ms": "pause between two fragments; the gateway's own is learned from what it sends",
    "frag_ack": "fragment acknowledgment, by which version of its draft, or not at all",
    "retransmit_ms": "first wait for an answer; each further one is twice as long. Where fragments are "
    "acknowledged, three round trips (200 ms at least) if that is shorter, and then three times as long",
    "retransmit_tries": "how often a request is sent while nothing of an answer comes; the sensor gives up "
    "after retransmit_ms * (2 ** retransmit_tries - 1) in any case",
    "retries": "attempts after a lost tunnel; -1 for no end",
    "retry_max_ms": "longest pause between two attempts",
    "lifetime_ms": "the tunnel is replaced before it is so old",
    "liveness_ms": "ask whether the gateway lives when a reading was unanswered so long; 0 never",
    "keepalive_ms": "keep a NAT's mapping by a packet of one octet so often; 0 never",
    "sn_tick_ms": "a clock step of the ESP sequence number",
    "replay_window": "how many sequence numbers back a packet of the gateway may be",
    "sleep": "keep the tunnel over deep sleep: by a clock that goes on, or by marks in flash",
    "silent_wakes": "wake-ups in a row without an answer, after which the gateway is asked by a new"
    " tunnel; one is enough where answers used to come",
    "network": "bring up Wi-Fi or a W5500; `up`: something else does",
    "ssid": "the Wi-Fi network; the secrets file has its key as `wifi_key`",
    "country": "where the Wi-Fi is, which decides on its channels; left out, the firmware's own",
    "security": "what the Wi-Fi must speak, on a Pico W; an ESP32 finds out by itself",
    "power_saving": "Wi-Fi's own, between handshakes: as the board has it, or never",
    "static_ip": "the board's own address; left out, DHCP gives one",
    "watchdog_ms": "a board that hangs so long is reset; 0 is off, an RP2040 takes at most 8388",
    "batch": "readings that travel in one datagram, a line each",
    "interval_ms": "pause between two readings",
    "log": "lines for a person, for a program, of errors only, or none",
    "keylog": "a file for the keys, to decrypt a capture with; for debugging only",
    "experimental": "keys for those who measure",
    "frag_ack_policy": "report missing fragments at once or only after a resend",
    "max_packets": "the tunnel is replaced before so many packets went through it",
    "readings": "how many, then the sensor ends; 0 for no end",
}


def _firmware():
    """The firmware's own modules that know a profile; under a name of theirs, as `minipsec` may be ours."""
    name = "firmware_of_minipsec"
    lacks = "micropython" not in sys.modules
    if lacks:
        sys.modules["micropython"] = types.SimpleNamespace(const=lambda value: value)
    try:
        package = importlib.util.spec_from_file_location(
            name, mpy.PACKAGE / "__init__.py", submodule_search_locations=[str(mpy.PACKAGE)]
        )
        sys.modules[name] = importlib.util.module_from_spec(package)
        package.loader.exec_module(sys.modules[name])
        names = ("profile", "checks", "proposals", "refused", "old")
        return [importlib.import_module(f"{name}.config.{module}") for module in names]
    finally:
        if lacks:
            del sys.modules["micropython"]


profile, checks, _proposals, refused, _old = _firmware()
proposals = _proposals.proposals  # a check, too
REQUIRED = profile.REQUIRED


@dataclass(frozen=True)
class Row:
    """A row of the firmware's, and the group that it stands in."""

    key: str
    default: object
    check: object
    more: tuple
    group: str
    experimental: bool

    @property
    def expected(self):
        """What the firmware says when it refuses a value."""
        return refused.expected(self.key, self.check, self.more)

    @property
    def meaning(self):
        return MEANINGS.get(self.key, "")

    def takes(self, value):
        """Does the firmware take this value?"""
        return self.check(value, *self.more) is not None


def rows():
    """Every row, the keys of the table `experimental` last."""
    return [
        Row(key, default, check, tuple(more), group.__doc__, group is profile.experimental)
        for group in (*profile.GROUPS, profile.experimental)
        for key, default, check, *more in group()
    ]


def row(key):
    """The row of one key."""
    return next(each for each in rows() if each.key == key)


def renewed(values, where):
    """A profile of an older version under the keys of today, as the firmware reads it."""
    try:
        return _old.renewed(values)
    except ValueError as problem:
        raise Problem(f"{where}: {str(problem).removeprefix('profile: ')}") from None
