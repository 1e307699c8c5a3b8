"""A virtual clock, and parties that exchange datagrams over links.

A party is anything with the calls of the firmware's core: `receive(datagram, now)`,
`timer(now)`, `next_timer()`, `poll_out()`. Time is in milliseconds and moves only from
one event to the next, so that a run depends on nothing but its seed.
"""

import heapq
import itertools
import math


class World:
    def __init__(self):
        self.now = 0.0
        self._events = []
        self._order = itertools.count()

    def at(self, time, call, *arguments):
        """Have `call(*arguments)` made at `time`."""
        heapq.heappush(self._events, (time, next(self._order), call, arguments))

    def run(self, until, done=lambda: False):
        """Let time pass until `done()` or the time `until`."""
        while self._events and not done():
            time = self._events[0][0]
            if time > until:
                break
            self.now = max(self.now, time)
            _, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)
        else:
            return
        self.now = until


class Port:
    """Drives one party: delivers to it, keeps its timer, sends what it has with a pause between.

    `tap(now, datagram)` sees each datagram that leaves, lost or not.
    """

    def __init__(self, world, party, gap_ms=0, tap=None):
        self.world = world
        self.party = party
        self.gap_ms = gap_ms
        self.tap = tap
        self.link = None
        self.to = None
        self._free = 0.0  # when the next datagram may leave
        self._pumping = False
        self._wake = None

    def connect(self, link, to):
        """Send by `link` to the `Port` `to` from now on."""
        self.link = link
        self.to = to

    def deliver(self, datagram):
        self.party.receive(datagram, int(self.world.now))
        self.pump()

    def pump(self):
        """Send what there is, `gap_ms` apart, and set the timer."""
        if not self._pumping:
            self._pumping = True
            self.world.at(max(self._free, self.world.now), self._send)
        self._arm()

    def _send(self):
        self._pumping = False
        world = self.world
        while (datagram := self.party.poll_out()) is not None:
            if self.tap:
                self.tap(world.now, datagram)
            for arrival, octets in self.link.carry(datagram, world.now):
                world.at(arrival, self.to.deliver, octets)
            if self.gap_ms:
                self._free = world.now + self.gap_ms
                self._pumping = True
                world.at(self._free, self._send)
                return

    def _arm(self):
        due = self.party.next_timer()
        if due is not None and (self._wake is None or due < self._wake):
            self._wake = due
            self.world.at(max(due, self.world.now), self._timer, due)

    def _timer(self, due):
        if self._wake != due:
            return  # another one was set since
        self._wake = None
        when = self.party.next_timer()
        if when is not None and when <= self.world.now:
            self.party.timer(math.ceil(self.world.now))
            self.pump()
        else:
            self._arm()
