"""What can go wrong, by whose fault it is, and what to look at then.

Loaded when the first error is made that is not in `faults`.
"""

from .faults import LinkDown, MinipsecError, OutOfMemory, UsageError  # noqa: F401


class NoEntropy(MinipsecError):
    """The board has nothing to make keys from that nobody can guess."""

    check = "seed in the secrets; that the file system has room; that the radio is on"


class SaEnded(MinipsecError):
    """The gateway deleted the SA, or its sequence numbers are used up: a new one is needed."""

    check = "the gateway's log for who ended the connection"


class PeerMisbehaved(MinipsecError):
    """The gateway's answer is not what the protocol or the profile allows."""

    check = "that gateway, gateway_id and the secret belong together; the gateway's log"


class PeerError(MinipsecError):
    """The gateway refused, by an error notify: each has a class of its own below this one."""


class UnknownRefusal(PeerError):
    """The gateway refused by a notify type that has no name here: `notify` is NOTIFY_n."""

    check = "the gateway's log for what it refused; its versions against ours"


class PostQuantumRefused(PeerError):
    """The gateway takes no part in the post-quantum protection that the profile insists on."""

    check = "proposals: ML-KEM there needs strongSwan 6.0 and ke1_mlkem768; or pq: prefer here"


# What an authenticated answer had that could not be taken: the reason for which it is dropped.
_WORDS = {
    "BAD_SA": "its SA payload is not one choice out of our proposals",
    "BAD_TS": "its traffic selectors are malformed",
    "BAD_CP": "its CFG_REPLY is malformed",
    "TOO_LARGE": "its answer in fragments is larger than 8192 octets",
}
_PPK_CHECK = "ppk_id and the PPK against those of the gateway; or ppk_required: false here"
_NO_PROPOSAL_CHOSEN = 14
_USE_PPK = 16435  # as a hint: it was missing

# notify type: (its name, what to compare: profile keys against settings in swanctl.conf)
_REFUSALS = {
    7: ("INVALID_SYNTAX", "the versions at both ends: the gateway could not read us"),
    14: ("NO_PROPOSAL_CHOSEN", "ike and esp against proposals and esp_proposals"),
    17: ("INVALID_KE_PAYLOAD", "the key exchange in ike against proposals"),
    24: (
        "AUTHENTICATION_FAILED",
        "id, gateway_id, the secret and the PPK against remote.id, local.id and secrets",
    ),
    34: ("SINGLE_PAIR_REQUIRED", "remote_ts: name one server"),
    35: ("NO_ADDITIONAL_SAS", "the gateway's limits on SAs"),
    36: ("INTERNAL_ADDRESS_FAILURE", "pools: is one named and not used up? or set inner_address"),
    37: ("FAILED_CP_REQUIRED", "remove inner_address: the gateway gives out the addresses"),
    38: ("TS_UNACCEPTABLE", "remote_ts, server, inner_address against local_ts and remote_ts"),
    43: ("TEMPORARY_FAILURE", "nothing: the gateway is busy, try again"),
}
_made = {}


def notify_name(kind):
    """Return the RFC's name of an error notify type, or NOTIFY_n."""
    if kind == _USE_PPK:
        return "no USE_PPK"
    return _REFUSALS[kind][0] if kind in _REFUSALS else "NOTIFY_%d" % kind


def refusal(kind):
    """Return the class for an error notify type: AuthenticationFailed for 24, and so on."""
    if kind not in _REFUSALS:
        return UnknownRefusal  # one for all of them, as a class takes memory for good
    if kind not in _made:
        notify, check = _REFUSALS[kind]
        name = "".join([word[0] + word[1:].lower() for word in notify.split("_")])
        _made[kind] = type(name, (PeerError,), {"notify": notify, "check": check})
    return _made[kind]


def _refused(kind, text):
    error = refusal(kind)(text + notify_name(kind))
    error.notify = notify_name(kind)
    return error


def _no_ppk(text):
    error = PostQuantumRefused("the gateway refused the PPK that we insist on: " + text)
    error.check = _PPK_CHECK
    return error


def failure(event, hint=None, pq="off"):
    """Return the error for the event with which an Initiator ended.

    `hint` is the type of an unauthenticated error notify that came before a timeout, `pq` the
    profile's key.
    """
    if event[0] == "deleted":
        error = SaEnded("the gateway deleted the SA")
        error.notify = "DELETE"
        return error
    _, kind, detail = event
    if kind == "spent":
        return SaEnded("this SA has no sequence number left")
    if kind == "peer":
        return PeerMisbehaved(_WORDS.get(detail, detail))
    if kind == "ppk":
        return _no_ppk(detail)
    if kind == "notify":
        return _refused(detail, "the gateway refused: ")
    if hint is None:
        return LinkDown("no answer from the gateway")
    if hint == _USE_PPK:
        return _no_ppk("no answer but an unauthenticated one without USE_PPK")
    if hint == _NO_PROPOSAL_CHOSEN and pq == "require":
        error = PostQuantumRefused(
            "the gateway refused each post-quantum key exchange:"
            " no answer but an unauthenticated NO_PROPOSAL_CHOSEN"
        )
        error.notify = notify_name(hint)
        return error
    return _refused(hint, "no answer but an unauthenticated ")
