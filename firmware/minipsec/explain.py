"""Make the error for an attempt that failed: what came, in words, and what to check at each end.

Loaded when an attempt has failed, then forgotten.
"""

from .refusals import (
    OTHER,
    USE_PPK,
    LinkDown,
    PeerMisbehaved,
    PostQuantumRefused,
    SaEnded,
    notify_name,
    refusal,
)
from .errors import address_text

_TS_CHECK = (
    "server, server_port and remote_ts here against local_ts there, without which a gateway offers"
    " itself alone; mode at both ends"
)
# The reason why an authenticated answer was refused: (how to say it, None to say the reason as it
# is; what to check, None for the check of the class).
_WORDS = {
    "BAD_SA": ("its SA payload is not one choice out of our proposals", None),
    "BAD_TS": ("its traffic selectors are malformed, or more than 64", _TS_CHECK),
    "BAD_CP": ("its CFG_REPLY is malformed", None),
    "TOO_LARGE": ("its answer in fragments is larger than 8192 octets", None),
    "no Child SA": (
        "it sent no Child SA with its AUTH: it wants a second authentication, or has no child",
        "remote there: one round of auth = psk; children; " + OTHER,
    ),
    "no AUTH payload": (None, "local there: auth = psk; " + OTHER),
    "no inner address in CFG_REPLY": (None, "pools there: is one named? or set inner_address"),
    "transport mode was refused": (
        "it set up tunnel mode where we asked for transport mode",
        "mode here against mode of the child there",
    ),
}
# How a gateway proves itself if not by a secret (RFC 7296 §3.8, IANA's list).
_SIGNS = {1: "an RSA signature", 9: "ECDSA", 10: "ECDSA", 11: "ECDSA", 14: "a digital signature"}
_SIGNS_CHECK = (
    "local there: auth = psk, with a secret for both ends; a certificate or key of the gateway is"
    " of no use to a sensor; " + OTHER
)
_ID_KINDS = {1: "ipv4", 2: "fqdn", 3: "email", 5: "ipv6", 9: "asn1dn", 11: "keyid"}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
_PPK_CHECK = "ppk_id and the PPK against those of the gateway; or ppk_required: false here"
_NO_KEM = (
    "swanctl --list-algs | grep ML_KEM on the gateway: strongSwan needs its plugin ml, or 6.0.2"
    " with OpenSSL 3.5, for it; or pq: off here"
)
_ML_KEM = (35, 36, 37)
_NO_PROPOSAL_CHOSEN = 14
_NOT_THERE = (7, _NO_PROPOSAL_CHOSEN, 17)  # INVALID_SYNTAX, .., INVALID_KE_PAYLOAD

# Exchange types (RFC 7296 §3.1) that got no answer: (name, what to check).
_UNANSWERED = {
    35: ("IKE_AUTH", "fragment_size at both ends: larger datagrams get lost on the way"),
    43: ("IKE_INTERMEDIATE", "fragment_size at both ends: larger datagrams get lost on the way"),
}
_AND_4500 = "; natt_port: a firewall that drops UDP 4500; the gateway's log"
# Why answers were dropped, the most telling first.
_DROPPED = {
    "BAD_LENGTH": "fragment_size there: a datagram was cut, or is larger than what a sensor takes",
    "BAD_ICV": "the versions at both ends: keys differ, or somebody forges answers",
    "BAD_SA": "ike against proposals: the gateway chose what was not offered",
    "BAD_KE": "the key exchange in ike against proposals",
    "NO_PPK": _PPK_CHECK,
    "TOO_MANY_ROUNDS": "the gateway's log: it asks for a cookie or another key exchange each time",
    "UNKNOWN_SPI": "whether another device has this address, or a NAT mixes them up",
}


def _refused(kind, text, check=None):
    name = notify_name(kind)
    return _made(refusal(kind), text + name, check, name)


def _quantum(text, kind, check=None):
    return _made(PostQuantumRefused, text, check, kind and notify_name(kind))


def _made(error, text, check=None, notify=None):
    """Return an error of this class; without `check` it has that of its class."""
    return error(text, notify, check or error.check)


def _no_ppk(text):
    return _quantum("the gateway refused the PPK that we insist on: " + text, None, _PPK_CHECK)


def failure(event, hint=None, profile=None, drops=None):
    """Return the error for the event with which an IKE SA ended.

    `hint` is the type of an unauthenticated error notify that came before a timeout, `profile` a
    checked one, `drops` {reason: number} of what that SA dropped.
    """
    if event[0] == "deleted":
        return _made(SaEnded, "the gateway deleted the SA", None, "DELETE")
    _, kind, detail, *found = event
    profile = profile or {}
    if kind == "spent":
        return SaEnded("this SA has no sequence number left")
    if kind == "peer":
        return _misbehaved(detail, found, profile)
    if kind == "ppk":
        return _no_ppk(detail)
    if kind == "notify":
        if found:  # in IKE_INTERMEDIATE, with this key exchange
            if found[0] in _ML_KEM and detail in _NOT_THERE:
                text = "the gateway agreed on ML-KEM and then refused it: "
                return _quantum(text + notify_name(detail), detail, _NO_KEM)
        elif detail == _NO_PROPOSAL_CHOSEN:  # in IKE_AUTH: IKE was agreed on, so it means ESP
            text = "the gateway agreed on IKE and refused ESP: "
            check = "esp against esp_proposals there"
            return _refused(detail, text, check + _line("esp_proposals", profile.get("esp")))
        return _refused(detail, "the gateway refused: ")
    if hint is None:
        return _unanswered(detail, drops)
    if hint == USE_PPK:
        return _no_ppk("no answer but an unauthenticated one without USE_PPK")
    check = None
    if hint == _NO_PROPOSAL_CHOSEN:
        if profile.get("pq") == "require":
            return _quantum(
                "the gateway refused each post-quantum key exchange:"
                " no answer but an unauthenticated NO_PROPOSAL_CHOSEN",
                hint,
            )
        check = "ike against proposals there" + _line("proposals", profile.get("ike"))
        check += "; pq here where they insist on ML-KEM, ke1_mlkem768"
    return _refused(hint, "no answer but an unauthenticated ", check)


def unreachable(host, error):
    """Return the error for an OSError in an attempt to reach a host."""
    check = None
    if not (":" in host or host.replace(".", "").isdigit()):
        check = (
            "the gateway's name, and the DNS server; boards ask for its IPv4 address alone:"
            " for IPv6 write the address itself"
        )
    return _made(LinkDown, "cannot reach %s: %r" % (host, error), check)


def no_network(profile, why):
    """Return the error for a board without a network, and why."""
    if profile["network"] == "wifi":
        text = "Wi-Fi %s" % profile["ssid"]
        check = "ssid, and wifi_key in the secrets; country and security; the access point"
    else:
        text = "Ethernet"
        check = "the cable; a DHCP server, or static_ip"
    return _made(LinkDown, "there is no network: %s: %s" % (text, why), check)


def _line(setting, proposals):
    """Return the line that a gateway's configuration may need."""
    return ", like %s = %s" % (setting, ", ".join([p[0] for p in proposals])) if proposals else ""


def _unanswered(exchange, drops):
    drops = drops or {}
    n = sum(drops.values())
    text = "no answer from the gateway"
    check = None
    if exchange in _UNANSWERED:
        name, check = _UNANSWERED[exchange]
        text = "the gateway answered IKE_SA_INIT and then not " + name
        check += _AND_4500
    if n:
        reasons = sorted(drops, key=lambda reason: -drops[reason])
        text += ": %d datagram%s came, dropped as %s" % (
            n,
            "" if n == 1 else "s",
            ", ".join(["%s (%d)" % (reason, drops[reason]) for reason in reasons]),
        )
        for reason in _DROPPED:
            if reason in drops:
                check = _DROPPED[reason]
                break
        else:
            check = check or "the drop counters; the versions at both ends"
    return _made(LinkDown, text, check)


def _misbehaved(detail, found, profile):
    text, check = _WORDS.get(detail, (None, None))
    if found and detail == "AUTH does not verify":
        text = "it proves itself by %s (AUTH method %d), not by the secret" % (
            _SIGNS.get(found[0], "something else"),
            found[0],
        )
        check = _SIGNS_CHECK
    elif found and detail[:3] == "IDr":
        text = "it says that it is %s, which is not gateway_id" % who(found[0][0], found[0][4:])
        check = "gateway_id here against local.id there; " + OTHER
    elif found:
        text = "%s: its traffic selectors are %s" % (detail, _selectors(found[0]))
        if found[1:]:
            text += ", ours is %s UDP port %d" % (address_text(found[1]), found[2])
        check = _TS_CHECK
        if detail[:3] == "TSi":
            check = "inner_address and inner_port here against remote_ts and pools there"
    return _made(PeerMisbehaved, text or detail, check)


def who(kind, octets):
    """Return a peer's identity, safe to print: as text if it is text, else # and hex digits."""
    octets = bytes(octets[:64])
    plain = octets and min(octets) > 32 and max(octets) < 127
    text = octets.decode() if plain else "#" + octets.hex()
    if kind in (1, 5) and len(octets) in (4, 16):
        text = address_text(octets)
    return "%s:%s" % (_ID_KINDS.get(kind, "{%d}" % kind), text)


def _selectors(found):
    words = []
    for protocol, low, high, first, last in found[:4]:
        word = _network(first, last)
        if protocol:
            word += " " + _PROTOCOLS.get(protocol, "protocol %d" % protocol)
        if (low, high) != (0, 65535):
            word += " port %d" % low if low == high else " ports %d-%d" % (low, high)
        words.append(word)
    if len(found) > 4:
        words.append("and %d more" % (len(found) - 4))
    return ", ".join(words) or "none that we know"


def _network(first, last):
    if first == last:
        return address_text(first)
    size = 8 * len(first)
    low = int.from_bytes(first, "big")
    width = int.from_bytes(last, "big") - low + 1
    bits = size
    while 1 << size - bits < width:
        bits -= 1
    if width == 1 << size - bits and not low % width:
        return "%s/%d" % (address_text(first), bits)
    return "%s-%s" % (address_text(first), address_text(last))
