"""strongSwan as initiator against the development gateway: a second opinion on the responder."""

import json
import sys

import pytest

from tools.dev.lab import (
    GATEWAY_4,
    GATEWAY_6,
    GATEWAY_ID,
    PSK,
    ROOT,
    SENSOR_ID,
    SERVER_4,
    Charon,
    Lab,
    run,
    wait_until,
)

CONFIG = """
connections {
  sensor {
    version = 2
    remote_addrs = %(gateway)s
    proposals = %(ike)s
    fragmentation = yes
    %(vips)s
    %(more)s
    local {
      auth = psk
      id = %(id)s
    }
    remote {
      auth = psk
      id = gw.example.org
    }
    children {
      readings {
        %(local_ts)s
        remote_ts = %(remote_ts)s
        esp_proposals = %(esp)s
      }
    }
  }
}
include sensors.secrets.conf
secrets {
  ppk-one {
    id = ppk-1
    secret = 0x%(ppk)s
  }
}
"""

PPK = bytes(range(32)).hex()

SPEAK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
for n in range(3):
    s.sendto(b"reading %%d" %% n, ("%s", 5000))
    print(s.recv(2000).decode())
""" % (SERVER_4,)


class DevGateway:
    """`python -m tools devgateway --json` in the gateway's namespace."""

    def __init__(self, lab, *options, psk=PSK):
        secrets = lab.directory / "devgateway.json"
        secrets.write_text(json.dumps({"psk": psk}))
        command = [sys.executable, "-m", "tools", "devgateway", "--json", "--id", GATEWAY_ID]
        command += ["--secrets", secrets, *options]
        self._process = lab.gateway_ns.start(*command, cwd=ROOT, split=True)
        self.wait_for("ready")

    def all(self, event):
        lines = [json.loads(line) for line in list(self._process.lines)]
        return [line for line in lines if line["event"] == event]

    def wait_for(self, event, count=1, timeout=10):
        self._process.wait_line(
            lambda _: len(self.all(event)) >= count, what=event, timeout=timeout
        )
        return self.all(event)[count - 1]

    def stop(self):
        return self._process.stop()


def initiator(lab, ike="aes128ccm16-prfsha256-x25519", esp="aes128ccm8", inner=None, **options):
    keys = {
        "gateway": GATEWAY_4,
        "ike": ike,
        "esp": esp,
        "id": SENSOR_ID,
        "more": "",
        "ppk": PPK,
        "remote_ts": "10.3.0.0/16",
        "vips": "" if inner else "vips = 0.0.0.0",
        "local_ts": "local_ts = %s/32" % inner if inner else "",
    }
    settings = options.pop("settings", None)
    secrets = options.pop("secrets", None)
    keys.update(options)
    config = CONFIG % keys
    return lab.own(
        Charon(lab.sensor_ns, lab.directory, config=config, settings=settings, secrets=secrets)
    )


@pytest.mark.parametrize(
    ("ike", "esp"),
    [
        ("aes128ccm16-prfsha256-x25519", "aes128ccm8"),
        ("aes128ccm8-prfsha256-ecp256", "aes256ccm16"),
        ("aes256ccm12-prfsha384-modp2048", "aes128ccm12"),
        ("aes256-sha256-x25519", "aes128-sha256"),
    ],
)
def test_charon_sends_readings_and_gets_them_back(ike, esp):
    with Lab() as lab:
        gateway = DevGateway(lab, "--ike", ike, "--esp", esp)
        sensor = initiator(lab, ike, esp)
        sensor.initiate("readings")
        said = lab.sensor_ns.run(sys.executable, "-c", SPEAK)
        assert said.split() == ["reading", "0", "reading", "1", "reading", "2"]
        assert [line["text"] for line in gateway.all("reading")] == [
            "reading %d" % n for n in range(3)
        ]
        assert gateway.wait_for("ike_sa")["id"] == SENSOR_ID
        assert gateway.wait_for("child_sa")["inner"] == "10.9.0.1"
        # charon deletes: answered, and told.
        sensor.terminate()
        assert gateway.wait_for("delete")["reason"] == "deleted by the peer"
        wait_until(lambda: not sensor.list_sas(), 5, "charon's delete to be answered")
        gateway.stop()
        assert gateway.wait_for("stats")["drops"] == {}


def test_charon_with_a_static_inner_address_through_cookies_and_another_group():
    with Lab() as lab:
        lab.sensor_ns.address("lo", "10.8.0.9/32")
        suite = "aes128ccm8-prfsha256-ecp256"
        gateway = DevGateway(lab, "--cookie", "--ike", suite, "--no-encap")
        sensor = initiator(lab, "aes128ccm8-prfsha256-x25519-ecp256", inner="10.8.0.9")
        sensor.initiate("readings")
        assert gateway.wait_for("child_sa")["inner"] == "10.8.0.9"
        assert "COOKIE" in sensor.log()
        assert "INVAL_KE" in sensor.log()


def test_charon_hears_the_gateways_delete_and_liveness_checks():
    with Lab(nat=True) as lab:
        gateway = DevGateway(lab)
        sensor = initiator(lab)
        sensor.initiate("readings")
        assert gateway.wait_for("ike_sa")["nat"] is True
        gateway.stop()  # says DELETE
        assert gateway.wait_for("delete")["reason"] == "shutdown"
        wait_until(lambda: not sensor.list_sas(), 5, "charon to forget the IKE SA")


@pytest.mark.parametrize(
    ("options", "secret", "notify"),
    [
        ((), "other", "AUTHENTICATION_FAILED"),
        (("--ike", "aes256ccm16-prfsha256-x25519"), PSK, "NO_PROPOSAL_CHOSEN"),
        (("--esp", "aes256ccm16"), PSK, "NO_PROPOSAL_CHOSEN"),
        (("--local-ts", "10.4.0.0/16"), PSK, "TS_UNACCEPTABLE"),
        (("--pool", ""), PSK, "INTERNAL_ADDRESS_FAILURE"),
    ],
)
def test_charon_understands_each_refusal(options, secret, notify):
    with Lab() as lab:
        gateway = DevGateway(lab, *options)
        sensor = initiator(lab, secrets={SENSOR_ID: secret})
        with pytest.raises(Exception):
            sensor.initiate("readings")
        assert gateway.wait_for("error")["notify"] == notify
        short = {
            "AUTHENTICATION_FAILED": "AUTH_FAILED",
            "NO_PROPOSAL_CHOSEN": "NO_PROP",
            "TS_UNACCEPTABLE": "TS_UNACCEPT",
            "INTERNAL_ADDRESS_FAILURE": "INT_ADDR_FAIL",
        }
        assert short[notify] in sensor.log()


def test_charon_over_ipv6():
    with Lab() as lab:
        gateway = DevGateway(lab, "--bind", "::")
        initiator(lab, gateway=GATEWAY_6).initiate("readings")
        said = lab.sensor_ns.run(sys.executable, "-c", SPEAK)
        assert said.count("reading") == 3
        assert len(gateway.all("reading")) == 3


def test_charon_and_the_gateway_fragment_to_each_other():
    with Lab() as lab:
        gateway = DevGateway(lab, "--fragment-size", "160")
        sensor = initiator(lab, settings={"fragment_size": 256})
        sensor.initiate("readings")
        assert "split IKE message" in sensor.log() or "(2/2)" in sensor.log()
        assert lab.sensor_ns.run(sys.executable, "-c", SPEAK).count("reading") == 3
        gateway.stop()
        stats = gateway.wait_for("stats")
        assert stats["fragments_in"] >= 2 and stats["fragments_out"] >= 2
        assert stats["drops"] == {}


def test_charon_gets_a_lost_answer_by_resending_fragments():
    with Lab() as lab:
        gateway = DevGateway(lab, "--fragment-size", "160", "--frag-ack", "eager")
        sensor = initiator(lab, settings={"fragment_size": 256, "retransmit_timeout": "0.3"})
        # The first answer to IKE_AUTH loses a fragment; the second is whole.
        dropped = lab.gateway_ns.drop(
            "udp sport 4500 meta length 150-170 limit rate 1/hour burst 1 packets", "output"
        )
        sensor.initiate("readings")
        assert dropped() == 1
        gateway.stop()
        stats = gateway.wait_for("stats")
        assert stats["answers_resent"] >= 1 and "acks_sent" not in stats


@pytest.mark.parametrize("required", [False, True], ids=["optional", "required"])
def test_charon_mixes_in_a_ppk(required):
    with Lab() as lab:
        ppks = lab.directory / "ppks"
        ppks.write_text("ppk-1,0x%s\n" % PPK)
        options = ["--ppk-required"] if required else []
        gateway = DevGateway(lab, "--ppks", ppks, *options)
        more = "ppk_id = ppk-1\n    ppk_required = %s" % ("yes" if required else "no")
        initiator(lab, more=more).initiate("readings")
        assert gateway.wait_for("ike_sa")["ppk"] is True
        assert lab.sensor_ns.run(sys.executable, "-c", SPEAK).count("reading") == 3


def test_charon_without_a_common_ppk():
    with Lab() as lab:
        ppks = lab.directory / "ppks"
        ppks.write_text('{"another": "0x%s"}' % PPK)
        gateway = DevGateway(lab, "--ppks", ppks)
        sensor = initiator(lab, more="ppk_id = ppk-1")
        sensor.initiate("readings")
        assert gateway.wait_for("ike_sa")["ppk"] is False
        assert lab.sensor_ns.run(sys.executable, "-c", SPEAK).count("reading") == 3
        gateway.stop()
        sensor.stop()
        gateway = DevGateway(lab, "--ppks", ppks, "--ppk-required")
        sensor = initiator(lab, more="ppk_id = ppk-1")
        with pytest.raises(Exception):
            sensor.initiate("readings")
        assert gateway.wait_for("error")["notify"] == "AUTHENTICATION_FAILED"


def test_charon_with_ipv6_inside():
    with Lab() as lab:
        options = ("--pool6", "fd09::/64", "--pool", "")
        gateway = DevGateway(lab, *options)
        initiator(lab, vips="vips = ::", remote_ts="fd03::/64").initiate("readings")
        assert gateway.wait_for("child_sa")["inner"] == "fd09::1"
        speak = SPEAK.replace("AF_INET", "AF_INET6").replace(SERVER_4, "fd03::10")
        assert lab.sensor_ns.run(sys.executable, "-c", speak).count("reading") == 3
        assert gateway.wait_for("reading")["inner"] == "fd09::1"


@pytest.mark.parametrize("suite", ["aes128ccm16", "aes256ccm8", "aes128-sha256"])
def test_tshark_reads_ike_with_the_key_log(tmp_path, suite):
    """Fragments included."""
    from scapy.layers.inet import IP, UDP
    from scapy.utils import wrpcap

    from host_tests.devgateway.peer import HERE, HERE_NATT, Peer, natt
    from tools.devgateway import Config, Gateway, Secrets
    from tools.devgateway.numbers import N
    from tools.devgateway.wire import Notify

    log = tmp_path / "keys"
    gateway = Gateway(
        Config(Secrets({"any": "secret"}), keylog=str(log), fragment_size=200), on_event=None
    )
    peer = Peer(ike=(suite + "-prfsha256-x25519",))
    peer.init_notifies = [Notify(N.IKEV2_FRAGMENTATION_SUPPORTED)]
    packets = []

    def exchange(data, end):
        up = IP(src=end.host, dst=end.local_host)
        packets.append(up / UDP(sport=end.port, dport=end.local_port) / data)
        down = IP(src=end.local_host, dst=end.host)
        out = [answer for answer, _ in gateway.receive(data, end, 0)]
        packets.extend(down / UDP(sport=end.local_port, dport=end.port) / answer for answer in out)
        return out

    peer.take_init(exchange(peer.init_request(), HERE)[0])
    peer.take_auth(*(data[4:] for data in exchange(natt(peer.auth_request()), HERE_NATT)))
    assert len(packets) > 4
    wrpcap(str(tmp_path / "wire.pcap"), packets)
    # tshark reads the table from the profile of its home directory.
    home = tmp_path / "wireshark"
    home.mkdir()
    (home / "ikev2_decryption_table").write_text(log.read_text())
    shown = run(
        "env", "WIRESHARK_CONFIG_DIR=%s" % home, "tshark", "-r", tmp_path / "wire.pcap",
        "-d", "udp.port==40500,isakmp", "-V",
    )  # fmt: skip
    assert "Identification Data:sensor-1.example.org" in shown
    assert "Identification Data:gw.example.org" in shown
    assert shown.count("[correct]") >= 2 and "[incorrect" not in shown


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1"])
def test_esp_straight_on_ip_over_real_sockets(bind):
    """No strongSwan in it, but raw sockets, and so root."""
    import socket

    from host_tests.devgateway.peer import Peer
    from tools.devgateway import RunningGateway

    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with (
        RunningGateway({"any": "secret"}, host=bind, raw_esp=True, encap=False) as gateway,
        socket.socket(family, socket.SOCK_DGRAM) as ike,
        socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ESP) as esp,
    ):
        ike.settimeout(5)
        esp.settimeout(5)
        peer = Peer()
        for request, take in (
            (peer.init_request, peer.take_init),
            (peer.auth_request, peer.take_auth),
        ):
            ike.sendto(request(), (bind, gateway.port))
            take(ike.recv(3000))
        sent = peer.udp(b"21.5")
        esp.sendto(sent, (bind, 0))
        assert gateway.reading()["text"] == "21.5"
        header = 0 if ":" in bind else 20
        received = sent
        while received[:4] == sent[:4]:  # what we sent comes by on the loopback, too
            received = esp.recv(3000)[header:]
        assert peer.open_udp(received)[3] == b"21.5"
