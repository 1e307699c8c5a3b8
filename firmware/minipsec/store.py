"""The profile and its secrets: read, checked, in the shape that the rest of minipsec takes.

Every value has one row in `_KEYS`; what a row refuses ends as one `ProfileError` that names the
key, what was expected and what was there.
"""

import json
import os

# Words of a proposal as strongSwan writes them -> (transform type, id, key length).
# Ids: RFC 7296 §3.3.2, RFC 5282 (CCM), RFC 8750 (implicit IV, a word of ours), RFC 5903 (P-256),
# RFC 8031 (Curve25519).
_TRANSFORMS = {
    "aes128ccm8": (1, 14, 128),
    "aes128ccm12": (1, 15, 128),
    "aes128ccm16": (1, 16, 128),
    "aes128ccm8iiv": (1, 29, 128),
    "aes256ccm8": (1, 14, 256),
    "aes256ccm8iiv": (1, 29, 256),
    "aes256ccm12": (1, 15, 256),
    "aes256ccm16": (1, 16, 256),
    "aes128": (1, 12, 128),
    "aes256": (1, 12, 256),
    "prfsha256": (2, 5, 0),
    "sha256": (3, 12, 0),
    "x25519": (4, 31, 0),
    "mlkem512": (4, 35, 0),
    "mlkem768": (4, 36, 0),
    "mlkem1024": (4, 37, 0),
    "ecp256": (4, 19, 0),
    "modp2048": (4, 14, 0),
    "noesn": (5, 0, 0),
    "esn": (5, 1, 0),
}
_CBC = 12
_KEM_SIZES = {35: 800, 36: 1184, 37: 1568}  # octets of a public key of ML-KEM (FIPS 203 §8)
_KEM_LEAST = 176  # octets of a datagram, so that a key fits the fragments that a message may have

_ID_KINDS = {"ipv4": 1, "fqdn": 2, "email": 3, "keyid": 11}  # RFC 7296 §3.5


class ProfileError(ValueError):
    """The profile or the secrets file is unusable; the message says what to change."""


# A check returns the value in the shape that the stack takes, or None to refuse it.


def _ipv4(text):
    try:
        return bytes([int(part) for part in text.split(".") if part.isdigit()])
    except ValueError:
        return None


def _address(value):
    """Return the octets of an IPv4 or IPv6 address (RFC 4291 §2.2)."""
    if not _is_text(value):
        return None
    if ":" not in value:
        return _ipv4(value) if value.count(".") == 3 and len(_ipv4(value) or b"") == 4 else None
    head, double, tail = value.partition("::")
    try:
        groups = [[int(g, 16) for g in half.split(":")] if half else [] for half in (head, tail)]
        gap = 8 - len(groups[0]) - len(groups[1])
        if gap < 0 or bool(double) != (gap > 0) or "::" in tail:
            return None
        words = groups[0] + [0] * gap + groups[1]
        return b"".join([bytes((word >> 8, word & 255)) for word in words])
    except ValueError:
        return None


def _octets(text):
    if text.startswith("0x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            return None
    return text.encode()


def _is_text(value):
    return isinstance(value, str) and 0 < len(value) < 256 and not set(value) & set(" \t\r\n")


def _text(value):
    return value if _is_text(value) else None


def _hosts(value):
    good = isinstance(value, list) and 0 < len(value) <= 8 and all(_is_text(v) for v in value)
    return value if good else None


def _name(value):
    return value if isinstance(value, str) and 0 < len(value.encode()) <= 32 else None


def _static(value):
    good = _hosts(value) and len(value) == 4 and all(len(_ipv4(v) or b"") == 4 for v in value)
    return value if good else None


def _network(value):
    """Return (first address, last address) of a network like 10.3.0.0/16."""
    if not _is_text(value):
        return None
    address, slash, bits = value.partition("/")
    address = _address(address)
    if address is None:
        return None
    size = 8 * len(address)
    bits = size if not slash else int(bits) if bits.isdigit() else -1
    if not 0 <= bits <= size:
        return None
    mask = (1 << size - bits) - 1
    first = int.from_bytes(address, "big") & ~mask
    return first.to_bytes(size // 8, "big"), (first | mask).to_bytes(size // 8, "big")


def _identity(value):
    """Return (ID type, octets) of an identity as strongSwan writes it (RFC 7296 §3.5)."""
    if not _is_text(value):
        return None
    kind, colon, rest = value.partition(":")
    if not colon:
        kind, rest = "email" if "@" in value else "ipv4" if _address(value) else "fqdn", value
    if kind not in _ID_KINDS:
        return None
    octets = _octets(rest) if kind == "keyid" else rest.encode()
    if kind == "ipv4":
        octets = _address(rest) if ":" not in rest else None
    return (_ID_KINDS[kind], octets) if octets else None


def _peer_identity(value):
    return value if value == "any" else _identity(value)


def _transform(word):
    """Return (transform type, id, key length) of a word of a proposal, or None.

    ke1_.. to ke7_.. are transform types 6 to 12, additional key exchanges (RFC 9370 §2.2.1).
    """
    if word[:2] == "ke" and word[2:3] in tuple("1234567") and word[3:4] == "_":
        kind, ident, _ = _TRANSFORMS.get(word[4:], (0, 0, 0))
        return (5 + int(word[2]), ident, 0) if kind == 4 or word[4:] == "none" else None
    return _TRANSFORMS.get(word)


def _proposals(ike):
    def check(value):
        """Return [(name, [transform])] of a list of proposals."""
        if not isinstance(value, list) or not 0 < len(value) <= 8:
            return None
        found = []
        for name in value:
            transforms = []
            for word in name.split("-") if isinstance(name, str) else ():
                transform = _transform(word)
                if not transform:
                    return None
                transforms.append(transform)
            if not ike and not any([kind == 5 for kind, _, _ in transforms]):
                transforms.append(_TRANSFORMS["noesn"])
            cbc = [kind == 1 and ident == _CBC for kind, ident, _ in transforms]
            needed = {1, 2, 3, 4} if any(cbc) and ike else {1, 2, 4} if ike else {1, 5}
            # CBC needs an integrity transform and CCM has none, so they cannot share a proposal.
            ciphers = [kind == 1 for kind, _, _ in transforms]
            if set([kind for kind, _, _ in transforms if kind < 6 or not ike]) != needed or (
                any(cbc) and (not ike or sum(cbc) != sum(ciphers))
            ):
                return None
            found.append((name, transforms))
        return found

    return check


def _number(low, high, more=()):
    def check(value):
        good = isinstance(value, int) and not isinstance(value, bool)
        return value if good and (low <= value <= high or value in more) else None

    return check, "a whole number from %d to %d" % (low, high) + (", or 0" if more else "")


def _choice(*values):
    def check(value):
        return value if value in values and type(value) is type(values[0]) else None

    return check, " or ".join([json.dumps(v) for v in values])


def _numbers(least, most, low, high):
    def check(value):
        if not isinstance(value, list) or not least <= len(value) <= most:
            return None
        good = all(isinstance(v, int) and low <= v <= high for v in value)
        return value if good and len(set(value)) == len(value) else None

    return check


_REQUIRED = "required"
_PORT = _number(1, 65535)
_MS = _number(0, 1 << 29)
_INNER = (_address, "an IPv4 or IPv6 address")
_ID = 'an identity like "sensor.example.org", "a@b" or "keyid:7"'

# key: (default, check, what is expected)
_KEYS = {
    "gateway": (None, _text, "host or address"),
    "gateways": (None, _hosts, "a list of hosts or addresses"),
    "gateway_id": (_REQUIRED, _peer_identity, _ID + ', or "any"'),
    "id": (_REQUIRED, _identity, _ID),
    "secrets": ("secrets.json", _text, "a file name"),
    "server": (None,) + _INNER,
    "server_port": (5000,) + _PORT,
    "inner_port": (5000,) + _PORT,
    "inner_address": (None,) + _INNER,
    "remote_ts": (None, _network, "a network like 10.3.0.0/16"),
    "port": (500,) + _PORT,
    "natt_port": (4500,) + _PORT,
    "encap": (True,) + _choice(True, False),
    "ike": (
        ["aes128ccm16-prfsha256-x25519", "aes128ccm8-prfsha256-x25519"],
        _proposals(True),
        'proposals like ["aes128ccm16-prfsha256-x25519"]',
    ),
    "pq": ("off",) + _choice("off", "prefer", "require"),
    "pq_method": ("mlkem768",) + _choice("mlkem512", "mlkem768", "mlkem1024"),
    "ppk_id": (None, _text, "an identifier"),
    "ppk_required": (True,) + _choice(True, False),
    "esp": (["aes128ccm8"], _proposals(False), 'proposals like ["aes128ccm8"]'),
    "mode": ("tunnel",) + _choice("tunnel", "transport"),
    "spi": (
        None,
        _numbers(2, 8, 256, (1 << 31) - 1),
        "2 to 8 different numbers from 256 to 2147483647",
    ),
    "esp_pad_to": (0,) + _number(0, 255),
    "fragment_size": (None,) + _number(128, 9000),
    "fragment_gap_ms": (2,) + _number(0, 1000),
    "frag_ack": ("02",) + _choice("02", "04", "off"),
    "frag_ack_policy": ("eager",) + _choice("eager", "conservative"),
    "frag_ack_types": (
        [50201, 50202, 50203],
        _numbers(3, 3, 40960, 65535),
        "three notify types from 40960 to 65535",
    ),
    "retransmit_ms": (1000,) + _number(50, 60000),
    "retransmit_tries": (5,) + _number(1, 10),
    "retries": (-1,) + _number(-1, 1000000),
    "retry_max_ms": (300000,) + _number(1000, 1 << 29),
    "lifetime_ms": (86400000,) + _number(1000, 1 << 29),
    "max_packets": (1 << 24,) + _number(1, 1 << 29),
    "liveness_ms": (60000,) + _MS,
    "keepalive_ms": (20000,) + _MS,
    "sn_tick_ms": (100,) + _number(1, 3600000),
    "replay_window": (64,) + _number(0, 128),
    "sleep": ("off",) + _choice("off", "clock", "mark"),
    "network": ("up",) + _choice("up", "wifi", "ethernet"),
    "ssid": (None, _name, "a name of 1 to 32 octets"),
    "static_ip": (None, _static, "[address, mask, gateway, DNS server], IPv4"),
    # Below 5000 the slowest key exchange on the slowest board would end in a reset.
    "watchdog_ms": (0,) + _number(5000, 1 << 29, (0,)),
    "interval_ms": (1000,) + _MS,
    "batch": (1,) + _number(1, 64),
    "readings": (0,) + _MS,
    "log": ("text",) + _choice("text", "json", "errors", "off"),
    "keylog": (None, _text, "a file name"),
}


# draft-minimal-esp §3
_FIXED_SPI = (
    "spi: fixed values let an onlooker count the sensors and tell their application or model "
    "(privacy), and each packet forged with one costs an ICV check, that is battery (DoS)"
)


def _refuse(key, expected, value):
    raise ProfileError("profile: %s: expected %s, got %s" % (key, expected, json.dumps(value)))


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
                _refuse(key, expected, value)
            value = good
        profile[key] = value
    if not profile["gateways"]:
        if not profile["gateway"]:
            raise ProfileError("profile: gateway: missing, expected host or address")
        profile["gateways"] = [profile["gateway"]]
    if profile["mode"] == "tunnel" and not profile["server"]:
        raise ProfileError("profile: server: missing, expected " + _INNER[1])
    if profile["network"] == "wifi" and not profile["ssid"]:
        raise ProfileError("profile: ssid: missing, expected " + _KEYS["ssid"][2])
    if profile["pq"] != "off":
        profile["ike"] = _hybrid(profile)
    _check_size(profile)
    profile["warning"] = _FIXED_SPI if profile["spi"] else None
    # The words for what may be agreed on, so that this module can be forgotten.
    words = profile["words"] = {}
    for name, _ in profile["ike"] + profile["esp"]:
        for word in name.split("-"):
            if _transform(word)[1]:
                words[_transform(word)] = word
    n = len(profile["server"] or b"")
    for key, address in (
        ("inner_address", profile["inner_address"]),
        ("remote_ts", (profile["remote_ts"] or (None,))[0]),
    ):
        if address and n and len(address) != n:
            _refuse(key, "the IP version of server", values[key])
    return profile


def _is_quantum_safe(transforms):
    """Is an ML-KEM part of whatever is chosen out of these transforms?"""
    kinds = {}
    for kind, ident, _ in transforms:
        if kind == 4 or kind > 5:
            kinds[kind] = kinds.get(kind, True) and ident in _KEM_SIZES
    return any(kinds.values())


def _hybrid(profile):
    """Return the IKE proposals with an ML-KEM behind each one's own key exchange (RFC 9370)."""
    word = "ke1_" + profile["pq_method"]
    plain = profile["ike"]
    found = []
    for name, transforms in plain:
        if not _is_quantum_safe(transforms):
            if any([kind > 5 for kind, _, _ in transforms]):
                if profile["pq"] == "require":
                    raise ProfileError(
                        "profile: ike: %s can be agreed upon without ML-KEM, and pq is require"
                        % name
                    )
            else:
                name, transforms = name + "-" + word, transforms + [_transform(word)]
        found.append((name, transforms))
    if profile["pq"] == "prefer":
        found += [proposal for proposal in plain if proposal not in found]
    return found


def _check_size(profile):
    """Refuse an ML-KEM where a message would not fit: IKE_SA_INIT has one datagram."""
    largest = 0
    least = 128
    proposals = additional = 0
    for _, transforms in profile["ike"]:
        proposals += 8
        for kind, ident, bits in transforms:
            proposals += 12 if bits else 8
            if ident in _KEM_SIZES and kind > 3 and kind != 5:
                least = _KEM_LEAST
                if kind == 4:
                    largest = max(largest, _KEM_SIZES[ident])
            additional = max(additional, kind)
    six = all([":" in host for host in profile["gateways"]])
    if largest:
        # Headers; SA, KE, Nonce, two NAT_DETECTION, fragmentation; a COOKIE of 64 octets.
        least = (48 if six else 28) + 28 + 4 + proposals + 8 + largest + 36 + 56 + 8 + 72
        if profile["frag_ack"] != "off":
            least += 28
        if profile["ppk_id"]:
            least += 16
        if profile["ppk_id"] or additional > 5:
            least += 8
    size = profile["fragment_size"]
    if (size or (1280 if six else 576)) < least:
        _refuse("fragment_size", "%d or more with this ML-KEM" % least, size)


def _load(path, what):
    try:
        with open(path) as f:
            return json.load(f)
    except OSError:
        raise ProfileError("%s: cannot read %s" % (what, path))
    except ValueError:
        raise ProfileError("%s: %s is not JSON" % (what, path))


def _check_closed(path, what):
    try:
        mode = os.stat(path)[0]
    except OSError:
        raise ProfileError("%s: cannot read %s" % (what, path))
    # A board's file system has no permission bits: they read as 0 there.
    if mode & 0o077:
        raise ProfileError("%s: %s is open to others: chmod 600 it" % (what, path))


def check_secrets(values):
    """Return the octets of a secrets file's object, whose keys may be:

    psk or psk_pad, one of them; ppk; wifi_key, a str; seed, 32 octets for the random generator.
    """
    found = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        octets = None
        if isinstance(value, str):
            octets = value if key == "wifi_key" else _octets(value)
        if key in ("psk_pad", "seed") and not (octets and len(value) == 66 and len(octets) == 32):
            octets = None
        if octets and key in ("psk", "psk_pad", "ppk", "wifi_key", "seed"):
            found[key] = octets
        elif key in ("wifi_key", "seed"):
            raise ProfileError("secrets: %s: expected text, a seed as 0x + 64 digits" % key)
    if ("psk" in found) == ("psk_pad" in found) or len(found) < len(values):
        # What was there is not repeated: it may be the secret.
        raise ProfileError(
            'secrets: expected {"psk": "text or 0xhex"} or {"psk_pad": "0x" + 64 digits}'
        )
    return found


def load_profile(path="profile.json"):
    """Read a profile and the secrets file that it names, which lies beside it.

    Raises ProfileError, also where others can read the secrets file.
    """
    profile = check_profile(_load(path, "profile"))
    secrets = profile["secrets"]
    if "/" in path and not secrets.startswith("/"):
        secrets = path.rsplit("/", 1)[0] + "/" + secrets
    _check_closed(secrets, "secrets")
    # Where snapshots are files, they lie beside the profile, and hold keys.
    profile["directory"] = path.rsplit("/", 1)[0] + "/" if "/" in path else ""
    if profile["sleep"] != "off":
        _check_closed(profile["directory"] or ".", "profile: sleep")
    if profile["keylog"]:
        _check_closed(profile["keylog"], "profile: keylog")
    profile.update(check_secrets(_load(secrets, "secrets")))
    if bool(profile["ppk_id"]) != ("ppk" in profile):
        raise ProfileError('secrets: "ppk" and the profile key ppk_id go together')
    return profile


def write_keylog(path, keys):
    """Append one line to a key log for Wireshark (ikev2_decryption_table); debugging only.

    The file must be there already and closed to others, since a board cannot set a mode:
    ProfileError otherwise.
    """
    _check_closed(path, "profile: keylog")
    spi_i, spi_r, picked, sk_ei, sk_er, sk_ai, sk_ar = keys
    ident, bits = picked[1]
    integ = "NONE [RFC4306]"
    if ident == _CBC:
        encr = "AES-CBC-%d [RFC3602]" % bits
        integ = "HMAC_SHA2_256_128 [RFC4868]"
    else:
        encr = "AES-CCM-%d with %d octet ICV [RFC5282]" % (bits, 4 * ident - 48)
    with open(path, "a") as f:
        for value in (spi_i, spi_r, sk_ei, sk_er):
            f.write(value.hex() + ",")
        f.write('"%s",%s,%s,"%s"\n' % (encr, sk_ai.hex(), sk_ar.hex(), integ))
