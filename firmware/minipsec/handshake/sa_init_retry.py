"""An answer to IKE_SA_INIT that refuses: COOKIE, INVALID_KE_PAYLOAD (RFC 7296 §2.6, §1.2).

Loaded when such an answer came.
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
_MAX_EARLY = const(3)  # times that a later cookie may advance the timer
_MAX_HINTS = const(16)  # kinds of errors that are told between two sendings
_MAX_GROUPS = const(3)  # INVALID_KE_PAYLOAD answers from one timer to the next


class Retry:
    """Cookies and groups that refusing answers have asked for.

    No answer says which request it is for, and AUTH covers only one request.  So two requests with
    different cookies are never on their way at once.  The first cookie goes back at once if our
    only request is answered by it.  A later one waits for the timer and for answers that may still
    come, and the latest counts: a request with an old cookie may still be accepted (RFC 7296 §2.6).
    """

    cookie = b""  # the one that our requests carry
    _held = None  # a cookie for the next sending
    _early = 0  # how often a cookie advanced the timer
    _rounds = 0  # INVALID_KE_PAYLOAD answers since the timer's last sending
    _hints = 0, ()  # (how often we had sent, the kinds of errors told of since)

    def refused(self, handshake, notifies, now):
        """React to an answer that refuses; return True if IKE_SA_INIT is to be sent again at once.

        The answer is not authenticated.  Raises Drop when there is nothing to react to.
        """
        for kind, data in notifies:
            if kind == _COOKIE and 1 <= len(data) <= _MAX_COOKIE:
                return self._on_cookie(handshake, bytes(data), now)
            if kind == _INVALID_KE_PAYLOAD and len(data) == 2:
                return self._on_group(handshake, data[0] << 8 | data[1], now)
            if kind < _STATUS:
                # Anyone may have sent it: keep it for the final error only.
                self.hint(handshake.sa, kind)
                raise Drop("UNAUTHENTICATED_ERROR")
        raise Drop("BAD_INIT")

    def hint(self, sa, kind):
        """Report an unauthenticated error: each kind once between two sendings."""
        tries, kinds = self._hints
        if tries != sa.unanswered():
            kinds = ()
        if kind not in kinds and len(kinds) < _MAX_HINTS:
            self._hints = sa.unanswered(), kinds + (kind,)
            sa.event("hint", kind)

    def resending(self):
        """The timer sends again; return True if that sending has to carry a held cookie."""
        self._rounds = 0
        return self._carry()

    def _on_cookie(self, handshake, cookie, now):
        if cookie == self.cookie or cookie == self._held:
            raise Drop("OLD_COOKIE")  # we have it already; the answer came twice
        request = handshake.sa.request
        if not self.cookie and request.tries == 1:
            self.cookie = cookie
            return True
        if not self._held:
            # If this answers our first sending, the last one is answered by then.
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
