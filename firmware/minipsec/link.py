"""One IKE SA on the network: a socket, the core, its timer, ESP both ways.

A `Link` moves datagrams between socket and core and tells its owner, a Tunnel, what happened:
`on_up(link)`, `on_stale(link)`, `on_down(link, error)`, `on_closed(link)`, `on_payload(payload,
octets)`.  It decides nothing; that is the Tunnel's part.
"""

import asyncio

from . import forget, port
from .traffic import Traffic, forget_handshake


class Link(Traffic):
    """The driver of one IKE SA with the gateway `host`.

    With `awake`, a snapshot.Snapshot, it goes on with the Child SA alone, at once.
    """

    def __init__(self, owner, host, awake=None):
        self.owner = owner
        self.host = host
        self.child = self.ike = None  # the Child SA once it is up
        self.sender = self.receiver = self.snapshot = None
        self.born = self.sent = owner.clock.now()
        self.waiting = None  # since when something that we sent is without an answer
        self.heard = False  # did ESP ever come?
        self._spent = self._retired = False
        self._hint = self._timer = self._pacer = self._drainer = None
        self._esp = self._esp_reader = None  # a socket for ESP straight on IP
        self._timer_due = 0
        p = owner.profile
        self._gateway = port.resolve(host, p["port"])
        # The same address: a name may have several.
        self._natt = port.with_port(self._gateway, p["natt_port"])
        # After a sleep the same port as before: a NAT and the gateway know us by it.
        number = awake.child["port"] if awake else 0
        self._udp = port.UDP(self._gateway, number, p["datagram"])
        if awake and self._udp.port != number:
            # Whoever has it may be another wake-up with this SA: it alone goes on.
            self._udp.close()
            raise OSError
        self._reader = asyncio.create_task(self._read(self._udp))
        try:
            self._begin(p, awake)
        except MemoryError:
            self._let_go()
            raise

    def _begin(self, p, awake):
        owner = self.owner
        if not p["encap"]:
            try:
                from .rawip import ESP

                self._esp = ESP(self._gateway)
                self._esp_reader = asyncio.create_task(self._read(self._esp))
            except (OSError, AttributeError):
                pass  # no such sockets here: UDP encapsulation it is
        if awake:
            from .child import resume

            forget("child")
            self.ike = self.snapshot = awake
            resume(self, awake)
            owner.on_up(self)
            return
        from . import dh
        from .ike import Initiator

        dh.step = port.feed
        self.ike = ike = Initiator(p, port.rand)
        ike.encap = not self._esp
        # Only an SA without a predecessor may have the gateway forget the others.
        ike.initial_contact = owner.alone()
        ike.taken = owner.spis()
        ike.start(self.born, self._udp.local, port.packed(self._gateway))
        self._pump()

    def send(self, payload):
        """Send one ESP packet; return its octets on the wire, or 0 if it is not there.

        That is so without a network, while the gateway ends the SA, and when the SA must send no more
        and has closed itself.
        None when it is a millisecond or two too early, see sequence.Sequence.
        """
        owner = self.owner
        now = owner.clock.now()
        if self._drainer:
            return 0
        packet = self.sender.seal(payload, now)
        if packet is None:
            self._handle(("failed", "spent", None))
            return 0
        if not packet:
            return None
        self.busy = now
        if self.waiting is None:
            self.waiting = now
        if not self._spent and self.sender.spent(owner.profile["max_packets"]):
            self._spent = True
            owner.on_stale(self)
        return len(packet) if self._transmit(packet, self._natt, self._esp) else 0

    def check(self):
        """Ask the gateway whether it is alive; without an IKE SA, only a new one can tell."""
        if self.ike.asleep:
            self.owner.on_stale(self)
            return
        from .established import check

        check(self.ike, self.owner.clock.now())
        self._pump()

    def retire(self):
        """Delete the SA as `delete` does, once it is quiet: its successor is up."""
        self._retired = True
        if not self._drains():
            self.delete()

    def delete(self):
        """Delete the SA at the gateway; `on_closed` follows when it answered or never will."""
        from .established import delete

        self._retired = True
        self._rest()
        if self.ike.asleep:
            self.close()
            return
        # While a liveness check is out, its answer comes first.
        delete(self.ike, self.owner.clock.now())
        self._pump()

    def close(self):
        """Let go of everything, at once and without a word."""
        while self._pacer and self._send_next():
            pass  # a last word does not wait its turn
        self._let_go()
        self.owner.on_closed(self)

    def _handle(self, event):
        kind = event[0]
        owner = self.owner
        if kind == "state":
            owner.log("state", {"state": event[1], "t": owner.clock.now() - self.born})
            if event[1] == "DOWN":
                self.sender = self.receiver = None
        elif kind == "up":
            self._up(event[1])
        elif kind == "answered":
            # ESP used to come, and what we sent last is unanswered though the gateway is there:
            # it still sends to where a NAT had us before.
            deaf = self.heard and self.waiting is not None
            self.waiting = None
            if self._retired:
                self.retire()
            elif deaf:
                owner.on_stale(self)
        elif kind == "rekey":
            owner.on_stale(self)
        elif kind == "hint":
            if self._hint != event[1]:
                from .errors import notify_name

                self._hint = event[1]
                owner.log("hint", {"notify": notify_name(event[1])})
        elif kind == "keys":
            from .store import write_keylog

            write_keylog(owner.profile["keylog"], event[1:])
        elif kind in ("failed", "deleted", "ended"):
            drops = dict(self.ike.drops)
            self.close()
            self._failed(event, drops)

    def _failed(self, event, drops):
        if not self._retired:
            from .explain import failure

            error = failure(event, self._hint, self.owner.profile, drops)
            forget("explain")
            self.owner.on_down(self, error)

    def _up(self, child):
        from .established import adopt

        # Most of the heap is in use here, and what is free in pieces.
        self._udp.spare = None
        # The handshake's part of the code makes room for ESP's.
        self.ike = ike = adopt(self.ike)
        forget_handshake()
        if ike.nat is not False or ike.peer_nat:
            self._drop_esp()
        from .child import up

        forget("child")
        up(self, child)
        self._udp.spare = bytearray(port.MAX_DATAGRAM)
        self._hint = None
        self.owner.on_up(self)
