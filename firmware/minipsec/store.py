"""The profile and its secrets: read, checked, in the shape that the rest of minipsec takes.

Every value has one row in `_KEYS`; what a row refuses ends as one `ProfileError` that names the
key, what was expected and what was there.
"""

import json
import os

# Tokens of a proposal as strongSwan writes them -> (transform type, id, key length).
# Ids: RFC 7296 §3.3.2, RFC 5282 (CCM), RFC 8031 (Curve25519).
_TRANSFORMS = {
    "aes128ccm8": (1, 14, 128),
    "aes128ccm12": (1, 15, 128),
    "aes128ccm16": (1, 16, 128),
    "prfsha256": (2, 5, 0),
    "x25519": (4, 31, 0),
    "noesn": (5, 0, 0),
}
_IKE = ["aes128ccm16-prfsha256-x25519", "aes128ccm8-prfsha256-x25519"]
_ESP = ["aes128ccm8"]

_ID_KINDS = {"ipv4": 1, "fqdn": 2, "email": 3, "keyid": 11}  # RFC 7296 §3.5


class ProfileError(ValueError):
    """The profile or the secrets file is unusable; the message says what to change."""


def _ipv4(text):
    parts = text.split(".")
    try:
        octets = bytes([int(part) for part in parts])
    except ValueError:
        return None
    return octets if len(octets) == 4 else None


def _octets(text):
    if text.startswith("0x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            return None
    return text.encode()


def _is_text(value):
    return isinstance(value, str) and 0 < len(value) < 256 and not set(value) & set(" \t\r\n")


def _host(value):
    return value if _is_text(value) else None


def _address(value):
    return _ipv4(value) if _is_text(value) else None


def _subnet(value):
    if not _is_text(value):
        return None
    address, _, bits = value.partition("/")
    address = _ipv4(address)
    try:
        bits = int(bits or "32")
    except ValueError:
        return None
    if address is None or not 0 <= bits <= 32:
        return None
    mask = (1 << 32 - bits) - 1
    first = int.from_bytes(address, "big") & ~mask
    return first.to_bytes(4, "big"), (first | mask).to_bytes(4, "big")


def _identity(value):
    """Return (ID type, octets) of an identity as strongSwan writes it (RFC 7296 §3.5)."""
    if not _is_text(value):
        return None
    kind, colon, rest = value.partition(":")
    if not colon:
        kind, rest = "email" if "@" in value else "ipv4" if _ipv4(value) else "fqdn", value
    if kind not in _ID_KINDS or not rest:
        return None
    octets = _ipv4(rest) if kind == "ipv4" else _octets(rest) if kind == "keyid" else rest.encode()
    return octets and (_ID_KINDS[kind], octets)


def _peer_identity(value):
    return "any" if value == "any" else _identity(value)


def _proposals(needed):
    def check(value):
        """Return [(name, [transform])] of a list of proposals."""
        if not isinstance(value, list) or not 0 < len(value) <= 8:
            return None
        found = []
        for name in value:
            transforms = []
            for token in name.split("-") if isinstance(name, str) else ():
                if token not in _TRANSFORMS:
                    return None
                transforms.append(_TRANSFORMS[token])
            kinds = set([kind for kind, _, _ in transforms])
            if 5 in needed and 5 not in kinds:
                transforms.append(_TRANSFORMS["noesn"])
                kinds.add(5)
            if kinds != set(needed):
                return None
            found.append((name, transforms))
        return found

    return check


def _number(low, high):
    def check(value):
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return value if good else None

    return check


def _choice(*values):
    return lambda value: value if value in values else None


def _types(value):
    if not isinstance(value, list) or len(set(value)) != 3:
        return None
    return value if all(isinstance(v, int) and 40960 <= v <= 65535 for v in value) else None


def _flag(value):
    return value if isinstance(value, bool) else None


_REQUIRED = "required"
_PORT = (_number(1, 65535), "a port from 1 to 65535")
_PATH = (_host, "a file name")
_INNER = (_address, "an IPv4 address")

# key: (default, check, what is expected).  A check returns None for what it refuses.
_KEYS = {
    "gateway": (_REQUIRED, _host, "host or address"),
    "gateway_id": (_REQUIRED, _peer_identity, 'an identity like "gw.example.org", or "any"'),
    "id": (_REQUIRED, _identity, 'an identity like "sensor.example.org", "a@b" or "keyid:7"'),
    "secrets": ("secrets.json",) + _PATH,
    "server": (_REQUIRED,) + _INNER,
    "server_port": (5000,) + _PORT,
    "inner_port": (5000,) + _PORT,
    "inner_address": (None,) + _INNER,
    "remote_ts": ("0.0.0.0/0", _subnet, "a network like 10.3.0.0/16"),
    "port": (500,) + _PORT,
    "natt_port": (4500,) + _PORT,
    "encap": (True, _flag, "true or false"),
    "ike": (_IKE, _proposals((1, 2, 4)), 'proposals like ["aes128ccm16-prfsha256-x25519"]'),
    "esp": (_ESP, _proposals((1, 5)), 'proposals like ["aes128ccm8"]'),
    "fragment_size": (576, _number(128, 9000), "octets from 128 to 9000"),
    "fragment_gap_ms": (2, _number(0, 1000), "milliseconds from 0 to 1000"),
    "frag_ack": ("02", _choice("02", "04", "off"), '"02", "04" or "off"'),
    "frag_ack_policy": ("eager", _choice("eager", "conservative"), '"eager" or "conservative"'),
    "frag_ack_types": ([50201, 50202, 50203], _types, "three notify types from 40960 to 65535"),
    "retransmit_ms": (1000, _number(50, 60000), "milliseconds from 50 to 60000"),
    "retransmit_tries": (5, _number(1, 10), "a count from 1 to 10"),
    "sn_tick_ms": (100, _number(1, 3600000), "milliseconds from 1 to 3600000"),
    "replay_window": (64, _number(0, 128), "a size from 0 to 128"),
    "interval_ms": (1000, _number(0, 86400000), "milliseconds from 0 to 86400000"),
    "readings": (0, _number(0, 1 << 29), "a count, 0 for no end"),
    "log": ("text", _choice("text", "json", "off"), '"text", "json" or "off"'),
    "keylog": (None,) + _PATH,
}


def check_profile(values):
    """Return a whole profile out of a dict as it stands in the file, defaults filled in."""
    if not isinstance(values, dict):
        raise ProfileError("profile: expected one JSON object with keys like gateway and id")
    for key in values:
        if key not in _KEYS:
            raise ProfileError("profile: %s: unknown key" % key)
    profile = {}
    for key, (default, check, expected) in _KEYS.items():
        value = values.get(key, default)
        if value is _REQUIRED and key not in values:
            raise ProfileError("profile: %s: missing, expected %s" % (key, expected))
        if value is not None or key in values:
            good = check(value)
            if good is None:
                raise ProfileError(
                    "profile: %s: expected %s, got %s" % (key, expected, json.dumps(value))
                )
            value = good
        profile[key] = value
    return profile


def _load(path, what):
    try:
        with open(path) as f:
            return json.load(f)
    except OSError:
        raise ProfileError("%s: cannot read %s" % (what, path))
    except ValueError:
        raise ProfileError("%s: %s is not JSON" % (what, path))


def check_secrets(values):
    """Return {"psk": octets} or {"psk_pad": 32 octets} out of a secrets file's object."""
    if isinstance(values, dict) and len(values) == 1:
        for key, value in values.items():
            octets = _octets(value) if isinstance(value, str) else None
            if key == "psk" and octets:
                return {"psk": octets}
            if key == "psk_pad" and octets and len(octets) == 32 and value.startswith("0x"):
                return {"psk_pad": octets}
    # What was there is not repeated: it may be the secret.
    raise ProfileError(
        'secrets: expected {"psk": "text or 0xhex"} or {"psk_pad": "0x" + 64 digits}'
    )


def load_profile(path="profile.json"):
    """Read a profile and the secrets file that it names, which lies beside it.

    Raises ProfileError, also where others can read the secrets file.
    """
    profile = check_profile(_load(path, "profile"))
    secrets = profile["secrets"]
    if "/" in path and not secrets.startswith("/"):
        secrets = path.rsplit("/", 1)[0] + "/" + secrets
    try:
        mode = os.stat(secrets)[0]
    except OSError:
        raise ProfileError("secrets: cannot read %s" % secrets)
    # A board's file system has no permission bits: they read as 0 there.
    if mode & 0o077:
        raise ProfileError("secrets: %s is open to others: chmod 600 it" % secrets)
    profile.update(check_secrets(_load(secrets, "secrets")))
    return profile


def proposal_name(picked):
    """Return {transform type: (id, bits)} in strongSwan's words, like "aes128ccm8-..."."""
    names = []
    for kind in sorted(picked):
        for token, (k, ident, bits) in _TRANSFORMS.items():
            if (kind, ident, bits) == (k,) + picked[kind] and ident:
                names.append(token)
    return "-".join(names)


def write_keylog(path, keys):
    """Append one line to a key log for Wireshark (ikev2_decryption_table); debugging only.

    The file must be there already and closed to others, since a board cannot set a mode:
    ProfileError otherwise.
    """
    try:
        mode = os.stat(path)[0]
    except OSError:
        raise ProfileError("profile: keylog: create %s with mode 600 first" % path)
    if mode & 0o077:
        raise ProfileError("profile: keylog: %s is open to others: chmod 600 it" % path)
    spi_i, spi_r, sk_ei, sk_er, bits, icv = keys
    name = "AES-CCM-%d with %d octet ICV [RFC5282]" % (bits, icv)
    with open(path, "a") as f:
        f.write(
            '%s,%s,%s,%s,"%s",,,"NONE [RFC4306]"\n'
            % (spi_i.hex(), spi_r.hex(), sk_ei.hex(), sk_er.hex(), name)
        )
