"""The public tunnel: up, kept up, replaced before it ends, brought back when it was lost.

What an application calls; `keeper` sees to the rest.
"""

import asyncio
from micropython import const


from .errors import UsageError, describe  # noqa: F401  for applications
from .keeper import Keeper, within
from .owner import LONG
from .tasks import alive, spare

_LOOK_MS = const(10000)  # between two looks at an attempt that nothing is heard of
_MAX_PAYLOAD = const(1200)  # esp.MAX_PAYLOAD, which is loaded late
_MAX_WAITING = const(16)  # sends that wait for the tunnel; one more is refused and counted


class Tunnel(Keeper):
    """An IKE SA and a Child SA with a gateway of the profile.

    `log` is called as log(event, {field: value}) and may print or ignore it.  `up` and `down` are
    Events.  Once up, a tunnel that is lost comes back by itself.
    """

    @staticmethod
    def resume(profile, log=None):
        """Return a tunnel that goes on where `suspend` left it, without any exchange, or None.

        To be called inside asyncio, as is the first `Tunnel`.
        """
        tunnel = Tunnel(profile, log)
        if tunnel.memory:
            from .sleep import wake

            spare(wake, tunnel)  # what cannot be taken up is made anew
        return tunnel if tunnel._awake or tunnel._link else None

    async def suspend(self):
        """Put the SA away for a sleep and let go of everything, without a word to the gateway.

        True when `resume` can take it up; otherwise the tunnel is closed as by `close`.
        """
        kept = False
        if self.memory:
            from .sleep import put_away

            kept = spare(put_away, self) or False
        await self.close()
        return kept

    async def __aenter__(self):
        await self.connect()
        return self

    async def __aexit__(self, *exc):
        await self.close()

    async def connect(self):
        """Bring the tunnel up, with each gateway of the profile in turn.

        Raises the MinipsecError of the last gateway, after at most
        retransmit_ms * (2 ** retransmit_tries - 1) for each of them.
        """
        if self._begun:
            raise UsageError("the tunnel is connected already, or about to be")
        self.error = None
        self._begun = True
        try:
            if self._awake:
                await self._online()
                from .sleep import take_up

                spare(take_up, self)
            if self.profile.get("warning") and not self._link:
                self.log("warning", {"text": self.profile["warning"]})
            for _ in self.profile["gateways"]:
                if self._link:
                    break
                online = await self._online()
                if self._begun:
                    self._attempt(online)
                while self._next:
                    await self._look(self._changed, _LOOK_MS)
            if not self._begun:  # closed meanwhile
                raise self.error
            if not self._link:
                raise self._failed
            self._start()
        except Exception as e:
            self.error = self._typed(e)
            raise self.error
        finally:
            if not self._keeper:
                await self.close()

    async def send(self, payload):
        """Send one reading as one ESP datagram; it is on the wire on return.

        Waits while there is no tunnel, while it is being replaced and while there is no network.
        Raises UsageError for a payload too large or when too many sends wait already, and the
        error that ended the tunnel; TypeError for what are no octets.
        """
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise TypeError("send takes bytes, not " + type(payload).__name__)
        # Its length in octets, whatever its items are; and the caller's buffer may change meanwhile.
        payload = bytes(payload)
        self._check_begun()
        if len(payload) > _MAX_PAYLOAD:
            raise UsageError("a payload has at most %d octets" % _MAX_PAYLOAD)
        while True:
            # Not from the moment on when the next SA's IKE_AUTH is out: the gateway may already have
            # replaced the SA that would carry it.  Nor while it is in doubt that the gateway lives.
            link = self._link
            if link and (self._handing_over() or link.doubtful()):
                link = None
            octets = link.safely(link.send, payload) if link else 0
            if octets:
                break
            if octets is None:
                await asyncio.sleep_ms(2)
                continue
            if self.error:
                raise self.error
            if self._waiting >= _MAX_WAITING:
                self.counters["lost"] += 1
                raise UsageError("%d sends wait for the tunnel already" % _MAX_WAITING)
            self._waiting += 1
            try:
                await within(self._changed, self.profile["retransmit_ms"] if link else None)
            finally:
                self._waiting -= 1
        self.counters["sent"] += 1
        sn = link.sender.numbers.last
        self.log("sent", {"n": self.counters["sent"], "sn": sn, "octets": octets, "data": payload})

    async def receive(self, timeout_ms=None):
        """Return the next downlink message, or None after `timeout_ms` milliseconds.

        Raises the error that ended the tunnel.
        """
        self._check_begun()
        until = None if timeout_ms is None else self.clock.now() + timeout_ms
        left = timeout_ms
        while not self._inbox:
            if self.error:
                raise self.error
            if until is not None:
                left = until - self.clock.now()
                if left <= 0:
                    return None
                left = min(left, LONG)
            await within(self._changed, left)
        return self._inbox.pop(0)

    def _check_begun(self):
        if not (self._begun or self._link or self.error):
            raise UsageError("the tunnel is not connected: call connect(), or use `async with`")

    async def close(self):
        """Delete the SA at the gateway, wait shortly for its answer, let go of everything.

        Whoever still waits for the tunnel gets a UsageError.
        """
        if self._keeper:
            self._keeper.cancel()
            self._keeper = None
        self._begun = False
        alive(id(self), None)
        if not self.error:
            self.error = UsageError("the tunnel is closed")
        self._tell()
        until = self.clock.now() + self.profile["retransmit_ms"]
        # Each step is taken also where the caller is cancelled in a wait.
        try:
            try:
                # While IKE_AUTH is out the gateway may have an SA that we cannot delete yet.
                await self._while(self._handing_over, until)
            finally:
                self._delete()
            await self._while(lambda: self._old, until)
        finally:
            for link in self._old[:]:
                spare(link.close)

    def _delete(self):
        if self._next:
            spare(self._next.close)
        link = self._link
        self._link = self._next = None
        self._tell()
        if link:
            self._old.append(link)
        for link in self._old[:]:
            link.safely(link.delete)

    async def _while(self, condition, until):
        while condition() and until > self.clock.now():
            await within(self._changed, until - self.clock.now())
