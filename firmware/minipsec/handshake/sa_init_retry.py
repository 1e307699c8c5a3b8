"""An answer to IKE_SA_INIT that refuses: COOKIE, INVALID_KE_PAYLOAD (RFC 7296 §2.6, §1.2).

Loaded when one came.
"""

from micropython import const

from ..ike.wire import Drop

# RFC 7296 §3.10.1, §3.3.2
_INVALID_KE_PAYLOAD = const(17)
_STATUS = const(16384)  # notify types from here on are no errors
_COOKIE = const(16390)
_MAX_COOKIE = const(64)
_T_KE = const(4)

# Ours.
_MAX_EARLY = const(3)  # sendings before the timer's time for a cookie that was not the first
_MAX_HINTS = const(16)  # kinds of errors that are told of until we send again
_MAX_GROUPS = const(3)  # INVALID_KE_PAYLOAD answers from one timer to the next


class Retry:
    """What answers that refused have led to.

    No answer says which request it is for, and AUTH covers one: so never are two requests that
    differ in their cookies on their way at once.  The first cookie goes back at once where all
    that was sent is answered by it.  Each other one waits for the timer and for the answers that
    may still come, and the latest counts: RFC 7296 §2.6 has a request accepted with an old one.
    """

    cookie = b""  # that our requests carry
    _held = None  # a cookie that the next sending is to carry
    _early = 0  # sendings that a cookie brought about before their time
    _rounds = 0  # INVALID_KE_PAYLOAD answers since the timer's last sending
    _hints = 0, ()  # how often we had sent when errors were told of, and which

    def refused(self, handshake, notifies, now):
        """React to an answer that refuses; True when IKE_SA_INIT is to go out anew, at once.

        Nobody has authenticated it.  Raises Drop when there is nothing to react to.
        """
        for kind, data in notifies:
            if kind == _COOKIE and 1 <= len(data) <= _MAX_COOKIE:
                return self._on_cookie(handshake, bytes(data), now)
            if kind == _INVALID_KE_PAYLOAD and len(data) == 2:
                return self._on_group(handshake, data[0] << 8 | data[1], now)
            if kind < _STATUS:
                # Anyone may have sent it: remembered for the final error, nothing more.
                self.hint(handshake.sa, kind)
                raise Drop("UNAUTHENTICATED_ERROR")
        raise Drop("BAD_INIT")

    def hint(self, sa, kind):
        """Tell of an error that nobody authenticated: each kind once until we send again."""
        tries, kinds = self._hints
        if tries != sa.unanswered():
            kinds = ()
        if kind not in kinds and len(kinds) < _MAX_HINTS:
            self._hints = sa.unanswered(), kinds + (kind,)
            sa.event("hint", kind)

    def resending(self):
        """The timer sends again; True when that is to carry the cookie that was held for it."""
        self._rounds = 0
        return self._carry()

    def _on_cookie(self, handshake, cookie, now):
        if cookie == self.cookie or cookie == self._held:
            raise Drop("OLD_COOKIE")  # taken already; the answer came twice
        request = handshake.sa.request
        if not self.cookie and request.tries == 1:
            self.cookie = cookie
            return True
        if not self._held:
            # By then the last sending is answered, if this answers the first one.
            trip = now - handshake.since
            due = request.due - request.interval + trip
            due += trip + handshake.sa.profile["retransmit_ms"] >> 3
            if self._early < _MAX_EARLY:
                self._early += 1
            else:
                due = max(request.due, due)
            request.put_off(due)
        self._held = cookie
        return False

    def _on_group(self, handshake, group, now):
        groups = [
            ident
            for _, _, transforms in handshake.offer
            for kind, ident, _ in transforms
            if kind == _T_KE
        ]
        if group not in groups or group == handshake.ke_id:
            raise Drop("BAD_KE")
        if self._rounds >= _MAX_GROUPS:
            raise Drop("TOO_MANY_ROUNDS")
        self._rounds += 1
        self._carry()
        handshake.take_group(group, now)
        return True

    def _carry(self):
        if not self._held:
            return False
        self.cookie, self._held = self._held, None
        return True
