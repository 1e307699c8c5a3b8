"""What a tunnel does seldom; loaded for one call and forgotten, see tunnel.Tunnel.on_rare."""

from micropython import const

from . import forget, tasks
from .errors import UsageError
from .tunnel import jittered

_LONG = const(1 << 28)  # ms: no timer is set for longer
_MIN_LIFE_MS = const(5000)  # a shorter AUTH_LIFETIME of the gateway counts as this


def lifetime(owner, link, seconds):
    """The gateway will end the SA after `seconds` (RFC 4478): replace it before."""
    ms = max(_MIN_LIFE_MS, min(seconds * 1000, _LONG))
    # Leave time for a handshake with resends.
    end = owner.clock.now() + jittered(ms * 8 // 10, ms // 10)
    owner.on_stale(link, end)
    if link.snapshot:
        link.snapshot.shorten(end - link.born)


def doubt(owner, link):
    """The gateway does not answer a check: readings wait, and a new SA is tried beside."""
    if owner.on_stale(link):  # only the first time
        owner.log("warning", {"text": "the gateway does not answer: readings wait"})


def mute(owner, link):
    """The gateway answers, but nothing ever came back through the tunnel."""
    text = (
        "readings go out and nothing ever came back, though the gateway answers: all is well if"
        " the server never answers; if it does, look at its log, at its route back to"
        " inner_address, and whether the gateway's ESP works: another cipher in esp, encap"
    )
    owner.log("warning", {"text": text})


def stats(owner, links):
    """Return the counters for Tunnel.stats."""
    drops = dict(owner.drops)
    for link in links:
        for reason, n in link.ike.drops.items() if link.ike else ():
            drops[reason] = drops.get(reason, 0) + n
    return dict(owner.counters, drops=drops, skipped=tasks.skipped)


def failed(owner, link, *detail):
    """The IKE SA has ended: say why, close the link."""
    error = None
    if not link.retired:
        from .explain import failure

        event = ("failed",) + detail if detail else ("deleted",)
        error = failure(event, link.hint, owner.profile, link.ike and link.ike.drops)
        forget("explain")
    if detail[:1] == ("timeout",):
        link.unconfirmed()
    link.close()
    if error:
        owner.on_down(link, error)


deleted = ended = failed


def hint(owner, link, kind):
    """An unauthenticated error notify came; the handshake goes on."""
    from .refusals import notify_name

    owner.log("hint", {"notify": notify_name(kind)})


def keys(owner, link, *event):
    """Write keys to the profile's `keylog`."""
    from .config.keylog import write_keylog

    write_keylog(owner.profile["keylog"], event)


def no_address(owner, link):
    """Refuse mode: transport where the board cannot tell the addresses."""
    text = "transport mode with %s: the board's own address is not known" % link.host
    raise UsageError(text, None, "mode: tunnel, or the gateway's IPv4 address")
