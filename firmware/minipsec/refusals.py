"""The other error classes: what went wrong, by whose fault, and what to look at.

Loaded when the first error is made that is not in `errors`.  It stands apart from the texts of
`explain`, which are three times as large: a hint in the middle of a handshake needs a name alone.
"""

from .errors import LinkDown, MinipsecError, OutOfMemory, ProfileError, UsageError  # noqa: F401


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

    check = (
        "proposals there: ke1_mlkem768, and a strongSwan that has it: swanctl --list-algs | grep"
        " ML_KEM; or pq: prefer here"
    )


OTHER = "another connection there may have answered first: swanctl --log tells"
# notify type: (its name, what to compare: profile keys against settings in swanctl.conf)
_REFUSALS = {
    7: ("INVALID_SYNTAX", "the versions at both ends: the gateway could not read us"),
    14: (
        "NO_PROPOSAL_CHOSEN",
        "ike against proposals, and pq where they insist on ML-KEM; esp against esp_proposals",
    ),
    17: ("INVALID_KE_PAYLOAD", "the key exchange in ike against proposals"),
    24: (
        "AUTHENTICATION_FAILED",
        "id, gateway_id, the secret and the PPK against remote.id, local.id and secrets;"
        " remote.auth: one round, of psk; " + OTHER,
    ),
    34: ("SINGLE_PAIR_REQUIRED", "remote_ts: name one server"),
    35: ("NO_ADDITIONAL_SAS", "the gateway's limits on SAs"),
    36: (
        "INTERNAL_ADDRESS_FAILURE",
        "pools: is one named and not used up? or set inner_address; " + OTHER,
    ),
    37: ("FAILED_CP_REQUIRED", "remove inner_address: the gateway gives out the addresses"),
    38: (
        "TS_UNACCEPTABLE",
        "remote_ts, server, inner_address against local_ts and remote_ts; mode at both ends",
    ),
    43: ("TEMPORARY_FAILURE", "nothing: the gateway is busy, try again"),
}
USE_PPK = 16435  # no error notify; stands for its absence
_made = {}


def notify_name(kind):
    """Return the RFC's name of an error notify type, or NOTIFY_n."""
    if kind == USE_PPK:
        return "no USE_PPK"
    return _REFUSALS[kind][0] if kind in _REFUSALS else "NOTIFY_%d" % kind


def refusal(kind):
    """Return the class for an error notify type: AuthenticationFailed for 24, and so on."""
    if kind not in _REFUSALS:
        return UnknownRefusal  # one class for all of them: a class takes memory for good
    if kind not in _made:
        notify, check = _REFUSALS[kind]
        _made[kind] = type(_class_name(notify), (PeerError,), {"notify": notify, "check": check})
    return _made[kind]


def _class_name(notify):
    return "".join([word[0] + word[1:].lower() for word in notify.split("_")])


def named(name):
    """Return the error class of that name, or None."""
    for kind in _REFUSALS:
        if _class_name(_REFUSALS[kind][0]) == name:
            return refusal(kind)
    found = globals().get(name)
    return found if isinstance(found, type) else None
