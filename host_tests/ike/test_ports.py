"""Where messages go and where they may come from (RFC 7815 §2.1)."""

import time

from tools.dev.peers.stage import Gateway
from tools.dev.peers.udp import Wire, named, run_sensor
from host_tests.checklist import item
from tools.dev.peers.node import profile
from tools.dev.peers.responder import IKE_AUTH, INFORMATIONAL, MARKER, I, R

# A busy PC must not be taken for a lost datagram: each would be one more to be told apart.
PATIENT = {"retransmit_ms": 5000}


@item("MIN-02")
def test_messages_come_from_any_port_and_are_answered_where_they_came_from(
    micropython_path, root, tmp_path
):
    gateway = Gateway()
    answers = []
    readings = []

    def script(wire, name, datagram, source):
        if name == "ike":
            wire.send("other", gateway.init(datagram), source)
        elif datagram[:4] != MARKER:
            readings.append((name, gateway.read_esp(datagram)[2][28:]))
        elif datagram[22] == IKE_AUTH:
            wire.send("other", gateway.auth(datagram), source)
            for other in ("other", "another"):
                wire.send(other, gateway.request(INFORMATIONAL, []), source)
                time.sleep(0.05)
        else:
            _, flags, mid, payloads = gateway.read(datagram)
            if flags & R:
                answers.append((name, flags, mid, payloads))
            else:
                wire.send("another", gateway.send(INFORMATIONAL, R, mid, []), source)

    with Wire(script, ("ike", "natt", "other", "another")) as wire:
        code, lines, stderr = run_sensor(
            micropython_path, root, tmp_path, wire, readings=2, **PATIENT
        )
    assert code == 0, stderr
    assert answers == [("other", I | R, 0, []), ("another", I | R, 1, [])]
    # What the sensor has to say by itself goes to the profile's ports all the same.
    assert [name for name, _ in readings] == ["natt", "natt"]
    assert [line["data"].encode() for line in named(lines, "sent")] == [r for _, r in readings]
    assert named(lines, "stats")[0]["drops"] == {}


@item("MIN-02")
def test_ports_500_and_4500_unless_the_profile_says_otherwise():
    p = profile()
    assert (p["port"], p["natt_port"]) == (500, 4500)
