"""The profile and its secrets: read, checked, in the shape that the rest of minipsec takes.

Every key has one row in `_KEYS`; what a row refuses ends as one `ProfileError` that names the
key, what was expected and what was there.
"""

import json
import os

from ..errors import ProfileError
from .words import (
    CBC,
    address,
    cut,
    identity,
    ipv4,
    is_text,
    proposals,
    secret,
    transform,
    word_of,
)

_ML_KEM_1024 = 37
_KEM_SIZES = {35: 800, 36: 1184, 37: 1568}  # octets of a public key of ML-KEM (FIPS 203 §8)
_KEM_LEAST = 176  # octets of a datagram, so that a key fits the fragments that a message may have
_DATAGRAM = 1504  # octets to receive in one piece: those of an Ethernet frame, and a bit
_DATAGRAM_1024 = 2048  # with ML-KEM-1024, whose answer is larger where IKE does not split it
_CBC_LEAST = 136  # octets of an IPv6 datagram, so that a fragment with AES-CBC holds a block

# key|default as JSON|check|what is expected
# A check is the name of a function below, without its underscore; or a JSON list: of words or
# truth values, one of which it must be, or of the least and the largest number, 2^29 when left out,
# and of another one that is good as well.  The last two say themselves what is expected.
_KEYS = """\
gateway|null|text|host or address
gateways|null|hosts|a list of hosts or addresses
gateway_id|required|peer|an identity like "sensor.example.org", "a@b" or "keyid:7", or "any"
id|required|identity|an identity like "sensor.example.org", "a@b" or "keyid:7"
secrets|"secrets.json"|text|a file name
server|null|address|an IPv4 or IPv6 address
server_port|5000|[1, 65535]
inner_port|5000|[1, 65535]
inner_address|null|address|an IPv4 or IPv6 address
remote_ts|null|network|a network like 10.3.0.0/16
port|500|[1, 65535]
natt_port|4500|[1, 65535]
encap|true|[true, false]
ike|["aes128ccm16-prfsha256-x25519", "aes128ccm8-prfsha256-x25519"]\
|ike|proposals like ["aes128ccm16-prfsha256-x25519"]
pq|"off"|["off", "prefer", "require"]
pq_method|"mlkem768"|["mlkem512", "mlkem768", "mlkem1024"]
ppk_id|null|text|an identifier
ppk_required|true|[true, false]
esp|["aes128ccm8"]|esp|proposals like ["aes128ccm8"]
mode|"tunnel"|["tunnel", "transport"]
spi|null|spis|2 to 8 different numbers from 256 to 2147483647
esp_pad_to|0|[0, 255]
fragment_size|null|[128, 9000]
fragment_gap_ms|2|[0, 1000]
frag_ack|"02"|["02", "03", "04", "off"]
frag_ack_policy|"eager"|["eager", "conservative"]
frag_ack_types|[50201, 50202, 50203]|types|three notify types from 40960 to 65535
retransmit_ms|1000|[50, 60000]
retransmit_tries|5|[1, 10]
retries|-1|[-1, 1000000]
retry_max_ms|300000|[1000]
lifetime_ms|86400000|[1000]
max_packets|16777216|[1]
liveness_ms|20000|[0]
keepalive_ms|20000|[0]
sn_tick_ms|100|[1, 3600000]
replay_window|64|[0, 128]
sleep|"off"|["off", "clock", "mark"]
silent_wakes|6|[1, 255]
network|"up"|["up", "wifi", "ethernet"]
ssid|null|name|a name of 1 to 32 octets
country|null|country|two capital letters like "DE"
security|"auto"|["auto", "wpa_wpa2", "wpa2_wpa3", "wpa3"]
power_saving|"on"|["on", "off"]
static_ip|null|static|[address, mask, gateway, DNS server], IPv4
watchdog_ms|0|[5000, 536870912, 0]
interval_ms|1000|[0]
batch|1|[1, 64]
readings|0|[0]
log|"text"|["text", "json", "errors", "off"]
keylog|null|text|a file name"""
# watchdog_ms: below 5000 the slowest key exchange on the slowest board would end in a reset.

# draft-minimal-esp §3
_FIXED_SPI = (
    "spi: fixed values let an onlooker count the sensors and tell their application or model "
    "(privacy), and each packet forged with one costs an ICV check, that is battery (DoS)"
)


def keys():
    """Return [(key, default or "required", check, what is expected)] in the README's order."""
    found = []
    for row in _KEYS.split("\n"):
        key, default, check, *expected = row.split("|")
        if default != "required":
            default = json.loads(default)
        if expected:
            check = globals()["_" + check]
            expected = expected[0]
        else:
            good = json.loads(check)
            check, expected = (_number if isinstance(good[-1], int) else _choice)(good)
        found.append((key, default, check, expected))
    return found


# A check returns the value in the shape that the stack takes, or None to refuse it.


def _number(good):
    low, high, *more = good if good[1:] else good + [1 << 29]
    if low is True:
        return _choice(good)

    def check(value):
        if type(value) is int and (low <= value <= high or value in more):
            return value

    return check, "a whole number from %d to %d" % (low, high) + (", or 0" if more else "")


def _choice(good):
    def check(value):
        return value if value in good and type(value) is type(good[0]) else None

    return check, " or ".join([json.dumps(v) for v in good])


def _address(value):
    return address(value) if is_text(value) else None


def _text(value):
    return value if is_text(value) else None


def _name(value):
    return value if isinstance(value, str) and 0 < len(value.encode()) <= 32 else None


def _list(value, least, most, good):
    """Return a list of `least` to `most` things that are good, or None."""
    if isinstance(value, list) and least <= len(value) <= most and all([good(v) for v in value]):
        return value


def _hosts(value):
    return _list(value, 1, 8, is_text)


def _country(value):
    if type(value) is str and len(value) == 2 and value.isalpha() and value.isupper():
        return value


def _static(value):
    return _list(value, 4, 4, lambda v: is_text(v) and len(ipv4(v) or b"") == 4)


def _numbers(value, least, most, low, high):
    value = _list(value, least, most, lambda v: type(v) is int and low <= v <= high)
    return value if value and len(set(value)) == len(value) else None


def _spis(value):
    return _numbers(value, 2, 8, 256, (1 << 31) - 1)


def _types(value):
    return _numbers(value, 3, 3, 40960, 65535)


def _network(value):
    """Return (first address, last address) of a network like 10.3.0.0/16."""
    if not is_text(value):
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
    return identity(value) if is_text(value) else None


def _peer(value):
    return value if value == "any" else _identity(value)


def _ike(value):
    return _proposals(value, True)


def _esp(value):
    return _proposals(value, False)


def _proposals(value, ike):
    if isinstance(value, str):
        value = value.split(",")  # as they stand in swanctl.conf
    return proposals(value, ike) if _list(value, 1, 8, lambda v: isinstance(v, str)) else None


def _fail(what, *texts):
    raise ProfileError(": ".join((what,) + texts))


def _refuse(key, expected, value):
    if isinstance(value, str) and value and key in ("id", "gateway_id"):
        from .nearest import of_identity

        why = of_identity(value)
        if why:
            _fail("profile", key, cut(json.dumps(value)), why)
    if key in ("ike", "esp"):
        value = value.split(",") if isinstance(value, str) else value
        if _list(value, 1, 8, lambda v: isinstance(v, str)):
            from .nearest import of_proposals

            _fail("profile", key, of_proposals(value, key == "ike"))
    if key == "secrets":
        _fail("profile", key, "expected " + expected)  # it may be the secrets themselves
    _fail("profile", key, "expected %s, got %s" % (expected, cut(json.dumps(value))))


def _missing(key, expected):
    _fail("profile", key, "missing, expected " + expected)


def check_profile(values):
    """Return a whole profile out of a dict as it stands in the file, defaults filled in."""
    if not isinstance(values, dict):
        _fail("profile", "expected one JSON object with keys like gateway and id")
    rows = keys()
    known = [row[0] for row in rows]
    for key in values:
        if key not in known:
            _fail("profile", cut(json.dumps(key)[1:-1]), "unknown key")
    profile = {}
    words = {}
    for key, default, check, expected in rows:
        words[key] = expected
        value = values.get(key, default)
        if key not in values:
            if value == "required":
                _missing(key, expected)
        if value is not None or key in values:
            good = check(value)
            if good is None:
                _refuse(key, expected, value)
            value = good
        profile[key] = value
    if not profile["gateways"]:
        if not profile["gateway"]:
            _missing("gateway", words["gateway"])
        profile["gateways"] = [profile["gateway"]]
    server = profile["server"]
    if profile["mode"] == "tunnel" and not server:
        _missing("server", words["server"])
    if profile["network"] == "wifi" and not profile["ssid"]:
        _missing("ssid", words["ssid"])
    if profile["pq"] != "off":
        profile["ike"] = _hybrid(profile)
    _check_size(profile)
    profile["warning"] = _FIXED_SPI if profile["spi"] else None
    # The words for what may be agreed on, so that this module can be forgotten.
    words = profile["words"] = {}
    for _, transforms in profile["ike"] + profile["esp"]:
        for one in transforms:
            if word_of(*one):
                words[one] = word_of(*one)
    for key in ("inner_address", "remote_ts"):
        address = profile[key]
        # A network is its first and its last address.
        if address and server and len(address if key[0] == "i" else address[0]) != len(server):
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
                    name = cut(name) + " can be agreed upon without ML-KEM, and pq is require"
                    _fail("profile", "ike", name)
            else:
                name, transforms = name + "-" + word, transforms + [transform(word)]
        found.append((name, transforms))
    if profile["pq"] == "prefer":
        found += [proposal for proposal in plain if proposal not in found]
    return found


def _check_size(profile):
    """Refuse an ML-KEM where a message would not fit: IKE_SA_INIT has one datagram.

    Say how large a datagram may come (the key `datagram`).  And refuse AES-CBC over IPv6 where a fragment would not hold one block of it.
    """
    largest = 0
    least = 128
    why = "this ML-KEM"
    proposals = additional = 0
    profile["datagram"] = _DATAGRAM
    six = [":" in host for host in profile["gateways"]]
    for _, transforms in profile["ike"]:
        proposals += 8
        for kind, ident, bits in transforms:
            proposals += 12 if bits else 8
            if kind == 1 and ident == CBC and any(six) and least < _CBC_LEAST:
                least = _CBC_LEAST
                why = "AES-CBC over IPv6"
            if ident in _KEM_SIZES and kind > 3 and kind != 5:
                least = _KEM_LEAST
                why = "this ML-KEM"
                if ident == _ML_KEM_1024:
                    profile["datagram"] = _DATAGRAM_1024
                if kind == 4:
                    largest = max(largest, _KEM_SIZES[ident])
            additional = max(additional, kind)
    six = all(six)
    if largest:
        why = "ML-KEM as the first key exchange; behind another one (x25519-ke1_..) any will do"
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
        _refuse("fragment_size", "%d or more with %s" % (least, why), size)


def _load(path, what):
    try:
        with open(path, "rb") as f:
            text = f.read()
    except OSError:
        _fail(what, "cannot read " + path)
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        _fail(what, path + " is UTF-16: save it as UTF-8")
    try:
        # Some editors write a mark in front of UTF-8.
        return json.loads(str(text[3:] if text[:3] == b"\xef\xbb\xbf" else text, "utf-8"))
    except ValueError:
        _fail(what, path + " is not JSON")


def _check_closed(path, what):
    try:
        mode = os.stat(path)[0]
    except OSError:
        _fail(what, "cannot read " + path)
    # A board's file system has no permission bits: they read as 0 there.
    if mode & 0o077:
        # A directory without its x is closed to its owner, too.
        _fail(what, path + " is open to others: chmod %d it" % (700 if mode & 0x4000 else 600))


_SECRET = "text without quotes or blanks around it, 0x and pairs of hex digits, or 0s and base64"
_SECRETS = {
    "psk": _SECRET,
    "psk_pad": "0x and 64 digits",
    "ppk": _SECRET,
    "wifi_key": "text",
    "seed": "0x and 64 digits",
}


def check_secrets(values):
    """Return the octets of a secrets file's object, whose keys may be:

    psk or psk_pad, one of them; ppk; wifi_key, a str; seed, 32 octets for the random generator.
    """
    found = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        octets = None
        if isinstance(value, str):
            octets = value if key == "wifi_key" else secret(value)
        if key in ("psk_pad", "seed") and not (octets and len(value) == 66 and len(octets) == 32):
            octets = None
        if key not in _SECRETS:
            _fail("secrets", "a key is unknown; known are " + ", ".join(sorted(_SECRETS)))
        if not octets:
            # What was there is not repeated: it may be the secret.
            _fail("secrets", key, "expected " + _SECRETS[key])
        found[key] = octets
    if ("psk" in found) == ("psk_pad" in found):
        _fail('secrets: expected {"psk": "text or 0xhex"} or {"psk_pad": "0x" + 64 digits}')
    return found


def make_profile(values):
    """Return a profile out of a dict of its keys and those of the secrets file together."""
    secrets = {}
    keys = {}
    for key, value in values.items():
        (secrets if key in _SECRETS else keys)[key] = value
    profile = check_profile(keys)
    profile["directory"] = ""
    return _with_secrets(profile, check_secrets(secrets))


def _with_secrets(profile, secrets):
    profile.update(secrets)
    if bool(profile["ppk_id"]) != ("ppk" in profile):
        _fail('secrets: "ppk" and the profile key ppk_id go together')
    return profile


def load_profile(path="profile.json"):
    """Read a profile and the secrets file that it names, which lies beside it.

    Raises ProfileError, also where others can read the secrets file.
    """
    profile = check_profile(_load(path, "profile"))
    directory, slash, _ = path.rpartition("/")
    # Where snapshots are files, they lie beside the profile, and hold keys.
    directory = profile["directory"] = directory + slash
    secrets = profile["secrets"]
    if secrets[0] != "/":
        secrets = directory + secrets
    _check_closed(secrets, "secrets")
    if profile["sleep"] != "off":
        _check_closed(directory or ".", "profile: sleep")
    if profile["keylog"]:
        _check_closed(profile["keylog"], "profile: keylog")
    return _with_secrets(profile, check_secrets(_load(secrets, "secrets")))


def write_keylog(path, keys):
    """Append one line to a key log for Wireshark (ikev2_decryption_table); debugging only.

    The file must be there already and closed to others, since a board cannot set a mode:
    ProfileError otherwise.
    """
    _check_closed(path, "profile: keylog")
    spi_i, spi_r, picked, sk_ei, sk_er, sk_ai, sk_ar = keys
    ident, bits = picked[1]
    integ = "NONE [RFC4306]"
    if ident == CBC:
        encr = "AES-CBC-%d [RFC3602]" % bits
        integ = "HMAC_SHA2_256_128 [RFC4868]"
    else:
        encr = "AES-CCM-%d with %d octet ICV [RFC5282]" % (bits, 4 * ident - 48)
    with open(path, "a") as f:
        for value in (spi_i, spi_r, sk_ei, sk_er):
            f.write(value.hex() + ",")
        f.write('"%s",%s,%s,"%s"\n' % (encr, sk_ai.hex(), sk_ar.hex(), integ))
