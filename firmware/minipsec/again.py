"""An answer to IKE_SA_INIT that refuses: COOKIE, INVALID_KE_PAYLOAD (RFC 7296 §2.6, §1.2).

Loaded when one came.
"""

from micropython import const

from .dh import wipe
from .wire import Drop

_INVALID_KE_PAYLOAD = const(17)
_STATUS = const(16384)  # notify types from here on are no errors
_COOKIE = const(16390)
_MAX_ROUNDS = const(3)  # COOKIE and INVALID_KE_PAYLOAD answers in one retransmission interval


def refused(sa, notifies, now):
    """React to an answer that refuses; nobody has authenticated it."""
    for kind, data in notifies:
        cookie = kind == _COOKIE and 1 <= len(data) <= 64
        if cookie and data == sa._cookie:
            raise Drop("OLD_COOKIE")  # sent back already; the answer came twice
        group = None
        if kind == _INVALID_KE_PAYLOAD and len(data) == 2:
            group = data[0] << 8 | data[1]
            groups = [t[1] for _, _, transforms in sa._offer for t in transforms if t[0] == 4]
            if group not in groups or group == sa._ke_id:
                raise Drop("BAD_KE")
        if cookie or group:
            sa._rounds += 1
            if sa._rounds > _MAX_ROUNDS:
                raise Drop("TOO_MANY_ROUNDS")
            if cookie:
                sa._cookie = bytes(data)
            else:
                sa._ke_id = group
                wipe(sa._ke)
                sa._ke = None
            tries, interval = sa._tries, sa._interval
            sa.send_init(now)
            sa._tries, sa._interval = tries, interval
            return
        if kind < _STATUS:
            # Anyone may have sent it: remembered for the final error, nothing more.
            sa.event("hint", kind)
            raise Drop("UNAUTHENTICATED_ERROR")
    raise Drop("BAD_INIT")
