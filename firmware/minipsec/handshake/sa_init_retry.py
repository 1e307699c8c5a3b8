"""An answer to IKE_SA_INIT that refuses: COOKIE, INVALID_KE_PAYLOAD (RFC 7296 §2.6, §1.2).

Loaded when one came.
"""

from micropython import const

from ..kex.methods import wipe
from ..ike.wire import Drop

_INVALID_KE_PAYLOAD = const(17)
_STATUS = const(16384)  # notify types from here on are no errors
_COOKIE = const(16390)
_MAX_EARLY = const(3)  # sendings before the timer's time for a cookie that was not the first
_MAX_HINTS = const(16)  # kinds of errors that are told of until we send again
_MAX_GROUPS = const(3)  # INVALID_KE_PAYLOAD answers from one timer to the next


def refused(sa, notifies, now):
    """React to an answer that refuses; nobody has authenticated it.

    No answer says which request it is for, and AUTH covers one: so never are two requests that
    differ in their cookies on their way at once.  The first cookie goes back at once where all
    that was sent is answered by it.  Each other one waits for the timer and for the answers that
    may still come, and the latest counts: RFC 7296 §2.6 has a request accepted with an old one.
    """
    for kind, data in notifies:
        if kind == _COOKIE and 1 <= len(data) <= 64:
            if data == sa._cookie or data == sa._held:
                raise Drop("OLD_COOKIE")  # taken already; the answer came twice
            cookie = bytes(data)
            if sa._cookie or sa._tries > 1:
                if not sa._held:
                    # By then the last sending is answered, if this answers the first one.
                    trip = now - sa._since
                    due = sa._due - sa._interval + trip
                    due += trip + sa.profile["retransmit_ms"] >> 3
                    if sa._early < _MAX_EARLY:
                        sa._early += 1
                        sa._due = due
                    sa._due = min(max(sa._due, due), sa._deadline)
                sa._held = cookie
                return
            sa._cookie = cookie
            _send(sa, now)
            return
        if kind == _INVALID_KE_PAYLOAD and len(data) == 2:
            group = data[0] << 8 | data[1]
            groups = [t[1] for _, _, transforms in sa._offer for t in transforms if t[0] == 4]
            if group not in groups or group == sa._ke_id:
                raise Drop("BAD_KE")
            if sa._rounds >= _MAX_GROUPS:
                raise Drop("TOO_MANY_ROUNDS")
            sa._rounds += 1
            # An answer names its group: it is never taken for one to another request.
            sa._ke_id = group
            sa._since = now
            _carry(sa)
            wipe(sa._ke)
            sa._ke = None
            _send(sa, now)
            return
        if kind < _STATUS:
            # Anyone may have sent it: remembered for the final error, nothing more.
            hint(sa, kind)
            raise Drop("UNAUTHENTICATED_ERROR")
    raise Drop("BAD_INIT")


def release(sa, now):
    """Have the resend that is due carry the cookie that was held for it."""
    _carry(sa)
    sa._since = now
    sa._request = sa.init_request()


def hint(sa, kind):
    """Tell of an error notify that nobody authenticated: each kind once until we send again."""
    tries, kinds = sa._hints
    if tries != sa._tries:
        kinds = ()
    if kind not in kinds and len(kinds) < _MAX_HINTS:
        sa._hints = sa._tries, kinds + (kind,)
        sa.event("hint", kind)


def _carry(sa):
    if sa._held:
        sa._cookie, sa._held = sa._held, None


def _send(sa, now):
    tries, interval = sa._tries, sa._interval
    sa.send_init(now)
    sa._tries, sa._interval = tries, interval
