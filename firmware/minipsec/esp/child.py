"""Start a Child SA: make both ends of its ESP and log what was agreed.

Loaded when IKE_AUTH is done or a sleep is over, then forgotten.
"""

from micropython import const

from .sa import Receiver, Sender
from ..errors import address_text
from .sequence import ReplayWindow, Sequence

_ML_KEM_512 = const(35)
_ML_KEM_1024 = const(37)
_PLAIN = (
    "pq: no ML-KEM in this tunnel, what is recorded may be decrypted one day; another connection"
    " of the gateway may have answered first; pq: require refuses such tunnels"
)


def up(link, child, picked, nat, with_ppk, now):
    """Go on with what IKE_AUTH brought, a dict as auth._child returns it, with our port.

    `picked`, `nat` and `with_ppk` are those of the IKE SA's event "up".  Return the
    snapshot.Snapshot or None, the Sender, the Receiver.
    """
    owner = link.owner
    ike = link.ike
    p = owner.profile
    child["nat"] = nat is not False
    snapshot = None
    if owner.memory:
        from .snapshot import fresh

        snapshot = fresh(p, owner.memory, child, link.host, now, owner.memory.clock(0))
        numbers, window = snapshot.numbers, snapshot.window
    else:
        numbers = Sequence(now, p["sn_tick_ms"], esn=child["esn"])
        window = ReplayWindow(p["replay_window"])
    sender, receiver = _ends(p, child, numbers, window)
    fields = {"ike": _words(p, picked), "esp": _words(p, child.pop("picked"))}
    if p["ppk_id"]:
        fields["ppk"] = with_ppk
    owner.log("agreed", fields)
    if p["pq"] == "prefer" and not with_ppk:
        _warn(owner, picked)
    fields = _fields(link, child)
    fields["spi_i"] = ike.spi_i.hex()
    fields["spi_r"] = ike.spi_r.hex()
    fields["nat"] = nat
    fields["ms"] = now - link.born
    for key in ("octets_out", "octets_in", "datagrams_out", "datagrams_in"):
        fields[key] = owner.counters[key]
    owner.log("up", fields)
    return snapshot, sender, receiver


def _warn(owner, picked):
    """Warn if no key exchange that was agreed on (types 4 and 6 to 12) is an ML-KEM."""
    for kind in picked:
        if kind > 3 and kind != 5 and _ML_KEM_512 <= picked[kind][0] <= _ML_KEM_1024:
            return
    owner.log("warning", {"text": _PLAIN})


def resume(link):
    """Go on with the link's snapshot.Snapshot; return the Sender and the Receiver."""
    awake = link.snapshot
    p = link.owner.profile
    ends = _ends(p, awake.child, awake.numbers, awake.window, awake.packets)
    fields = _fields(link, awake.child)
    fields["age_ms"] = awake.age
    link.owner.log("resumed", fields)
    return ends


def _fields(link, child):
    return {
        "inner": address_text(child["inner"]),
        "gateway": link.host,
        "spi_in": child["spi_in"].hex(),
        "spi_out": child["spi_out"].hex(),
    }


def _ends(p, child, numbers, window, packets=0):
    """Return the two ends of the Child SA."""
    inner, server = child["inner"], child["server"]
    ends = (inner, server, p["inner_port"], p["server_port"])
    back = (server, inner, p["server_port"], p["inner_port"])
    sender = Sender(child, ends, numbers, p["esp_pad_to"], packets)
    return sender, Receiver(child, back, window)


def _words(profile, picked):
    """Return {transform type: (id, bits)} in strongSwan's words, like "aes128ccm8-..."."""
    found = []
    for kind in (1, 3, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12):
        word = profile["words"].get((kind,) + picked.get(kind, (0, 0)))
        if word:
            found.append(word)
    return "-".join(found)
