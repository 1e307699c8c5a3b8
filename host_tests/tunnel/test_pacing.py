"""Fragments leave one after another, `fragment_gap_ms` apart (FRG-15)."""

import pytest

from tools.dev.lab import Sensor
from tools.devgateway import RunningGateway

GAP_MS = 40


def handshake_ms(gap):
    """Milliseconds until a post-quantum tunnel was up, and datagrams that it took from us."""
    with RunningGateway({"any": "secret"}, fragment_size=1280, fragment_gap_ms=0) as gateway:
        profile = {"gateway": "127.0.0.1", "port": gateway.port, "natt_port": gateway.natt_port}
        profile.update(
            pq="require",
            fragment_size=200,
            fragment_gap_ms=gap,
            frag_ack="off",
            retransmit_ms=20000,
        )
        sensor = Sensor(profile, {"psk": "secret"}, 1, heap="2m")
        try:
            assert sensor.wait(60) == 0, sensor.output
            up = sensor.first("up")
            return up["ms"], up["datagrams_out"]
        finally:
            sensor.stop()


@pytest.mark.item("FRG-15")
def test_a_burst_is_spread_by_the_profiles_gap():
    paced, datagrams = handshake_ms(GAP_MS)
    # IKE_SA_INIT, the last fragment of IKE_INTERMEDIATE and that of IKE_AUTH wait for no gap.
    assert datagrams > 10
    assert paced >= (datagrams - 3) * GAP_MS
    at_once, same = handshake_ms(0)
    assert same == datagrams
    assert at_once < paced
