"""What can go wrong, by whose fault it is, and what to look at then.

Loaded when the first error is made.  Each class carries `notify`, the name of the notify that the
gateway sent or None, and `check`, a sentence for the person who has to mend it.
"""


class MinipsecError(Exception):
    """Every error that a tunnel ends with."""

    notify = None
    check = "the gateway's log and the drop counters in stats()"


class UsageError(MinipsecError):
    """The caller asked for what cannot be done."""

    check = "the call's arguments"


class LinkDown(MinipsecError):
    """No answer came in time, or the host name was not found."""

    check = "gateway, port and natt_port in the profile; a firewall that drops UDP 500 or 4500"


class SaEnded(MinipsecError):
    """The gateway deleted the SA, or its sequence numbers are used up: make a new tunnel."""

    notify = "DELETE"
    check = "the gateway's log for who ended the connection; then connect again"


class PeerMisbehaved(MinipsecError):
    """The gateway's answer is not what the protocol or the profile allows."""

    check = "that gateway, gateway_id and the secret name the same gateway; its log"


class PeerError(MinipsecError):
    """The gateway refused, by an error notify."""

    check = "the gateway's log for the reason"


class AuthenticationFailed(PeerError):
    """AUTHENTICATION_FAILED (24)."""

    notify = "AUTHENTICATION_FAILED"
    check = "id and secret against the gateway's remote.id and its secrets section"


class NoProposalChosen(PeerError):
    """NO_PROPOSAL_CHOSEN (14)."""

    notify = "NO_PROPOSAL_CHOSEN"
    check = "ike and esp against the gateway's proposals and esp_proposals"


class InvalidKe(PeerError):
    """INVALID_KE_PAYLOAD (17)."""

    notify = "INVALID_KE_PAYLOAD"
    check = "the key exchange in ike against the gateway's proposals"


class TsUnacceptable(PeerError):
    """TS_UNACCEPTABLE (38)."""

    notify = "TS_UNACCEPTABLE"
    check = "remote_ts, server and inner_address against the gateway's local_ts and remote_ts"


class InternalAddressFailure(PeerError):
    """INTERNAL_ADDRESS_FAILURE (36)."""

    notify = "INTERNAL_ADDRESS_FAILURE"
    check = "that the gateway has a pool with a free address, or set inner_address"


class FailedCpRequired(PeerError):
    """FAILED_CP_REQUIRED (37)."""

    notify = "FAILED_CP_REQUIRED"
    check = "remove inner_address: the gateway gives the addresses out itself"


class InvalidSyntax(PeerError):
    """INVALID_SYNTAX (7)."""

    notify = "INVALID_SYNTAX"
    check = "both versions; the gateway could not read our message"


class TemporaryFailure(PeerError):
    """TEMPORARY_FAILURE (43)."""

    notify = "TEMPORARY_FAILURE"
    check = "nothing: try again in a while"


_BY_TYPE = {
    7: InvalidSyntax,
    14: NoProposalChosen,
    17: InvalidKe,
    24: AuthenticationFailed,
    36: InternalAddressFailure,
    37: FailedCpRequired,
    38: TsUnacceptable,
    43: TemporaryFailure,
}


def notify_name(kind):
    """Return the RFC's name of an error notify type, or NOTIFY_n."""
    found = _BY_TYPE.get(kind)
    return found.notify if found else "NOTIFY_%d" % kind


def failure(kind, detail, hint=None):
    """Return the error for an Initiator's ("failed", kind, detail) event.

    `hint` is an unauthenticated error notify's type that came before a timeout.
    """
    if kind == "timeout" and hint is None:
        return LinkDown("no answer from the gateway")
    if kind == "peer":
        return PeerMisbehaved(detail)
    number = hint if kind == "timeout" else detail
    said = "gateway said " if kind == "notify" else "no answer but an unauthenticated "
    error = _BY_TYPE.get(number, PeerError)(said + notify_name(number))
    error.notify = notify_name(number)
    return error
