"""What a tunnel does seldom; loaded for one call and forgotten, see tunnel.Tunnel.on_rare."""

from micropython import const

from . import forget, tasks
from .errors import UsageError, describe
from .tunnel import jittered
from .tasks import spare

_LONG = const(1 << 28)  # ms: no timer is set for longer
_MIN_LIFE_MS = const(5000)  # a shorter AUTH_LIFETIME of the gateway counts as this


def lifetime(owner, link, seconds):
    """The gateway will end the SA after `seconds` (RFC 4478): replace it before."""
    if link is owner._link:
        ms = max(_MIN_LIFE_MS, min(seconds * 1000, _LONG))
        # Leave time for a handshake with resends.
        owner._end = min(owner._end, owner.clock.now() + jittered(ms * 8 // 10, ms // 10))
        if link.snapshot:
            link.snapshot.life = owner._end - link.born
        owner._tell()


def doubt(owner, link):
    """The gateway does not answer a check: readings wait, and a new SA is tried beside."""
    end = owner._end
    owner.on_stale(link)
    if owner._end < end:  # only the first time
        owner.log("warning", {"text": "the gateway does not answer: readings wait"})


def mute(owner, link):
    """Warn once: the gateway answers, but nothing ever came back through the tunnel."""
    if not owner.mute:
        owner.mute = True
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
    if link.hint != kind:
        from .refusals import notify_name

        link.hint = kind
        owner.log("hint", {"notify": notify_name(kind)})


def keys(owner, link, *event):
    """Write keys to the profile's `keylog`."""
    from .config.keylog import write_keylog

    write_keylog(owner.profile["keylog"], event)


def no_address(owner, link):
    """Refuse mode: transport where the board cannot tell the addresses."""
    error = UsageError("transport mode with %s: the board's own address is not known" % link.host)
    error.check = "mode: tunnel, or the gateway's IPv4 address"
    raise error


def fell(keeper, _, error):
    """The task that keeps the tunnel up has failed: close all links and start it anew.

    Starting is the last step: where memory ends before it, `tasks` calls this again.
    """
    for link in keeper._links():
        spare(link.close)
    keeper._link = keeper._next = None
    keeper._old = []
    keeper._failed = keeper._typed(error)
    keeper.log("error", describe(keeper._failed))
    keeper._tell()
    keeper._start(keeper._pause())
