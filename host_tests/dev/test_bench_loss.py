"""The handshakes of `make bench-loss`, a few of them: what is measured, and what must hold.

The real firmware core and the real gateway; X25519 alone and with ML-KEM behind it.
"""

import csv
import pathlib
import re

import pytest

from tools.dev.sim import key_exchanges, link
from tools.dev.bench import handshake_loss as bench
from tools.dev.bench import loss

item = pytest.mark.item
SEEDS = range(2)


def runs(*cell, seeds=SEEDS):
    with key_exchanges.remembered():
        return [bench.one(cell, seed) for seed in seeds]


def line(*cell, seeds=SEEDS):
    return bench.row(cell, len(seeds), runs(*cell, seeds=seeds))


def measured(name):
    """The rows of a kept result, numbers as numbers."""
    with open(loss.RESULTS / name, newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_has_every_column_that_was_asked_for():
    row = line("mlkem768", 576, "eager", "independent", 10)
    assert tuple(row) == bench.COLUMNS
    assert row["seeds"] == 2 and row["mean_rtt"] == pytest.approx(row["mean_ms"] / 100, abs=0.01)
    assert row["octets_out"] > 2078 and row["octets_in"] > 1906


@item("ACK-01", "AMB-14")
@pytest.mark.parametrize("mtu", bench.MTUS)
@pytest.mark.parametrize("method", bench.METHODS)
def test_without_loss_no_mode_sends_a_datagram_more(method, mtu):
    plain, conservative, eager = (
        line(method, mtu, mode, "independent", 0) for mode in bench.MODES
    )
    for key in ("datagrams_out", "datagrams_in"):
        assert plain[key] == conservative[key] == eager[key]
    assert plain["success"] == eager["success"] == 1 and eager["acks"] == 0
    # A Notify and a Vendor ID each way in IKE_SA_INIT are all that the offer costs.
    assert eager["octets_out"] - plain["octets_out"] == 8 + 20
    assert eager["octets_in"] - plain["octets_in"] == 8 + 20


@item("AMB-12", "AMB-13")
@pytest.mark.parametrize(
    ("method", "mtu", "room"),
    [("mlkem768", 256, 4), ("mlkem1024", 256, 4), ("mlkem768", 576, 2), ("mlkem1024", 576, 2)],
)
def test_where_the_socket_takes_too_few_of_a_burst_only_acknowledgment_comes_up(method, mtu, room):
    """A Pico W's socket queues 4 datagrams; a reading's reply may already take some of them."""
    cell = method, mtu, "eager", f"tail-drop-{room}", 0
    assert all(run[0] for run in runs(*cell))
    assert all(run[0] for run in runs(method, mtu, "conservative", *cell[3:]))
    assert not any(run[0] for run in runs(method, mtu, "rfc7383", *cell[3:], seeds=range(1)))


def test_at_mtu_576_no_ml_kem_is_too_much_for_an_empty_socket_of_four():
    for method in bench.ML_KEM:
        assert all(run[0] for run in runs(method, 576, "rfc7383", "tail-drop-4", 0))


@item("INT-11", "INT-14")
@pytest.mark.parametrize("method", [*bench.METHODS, bench.ALONE])
def test_a_handshake_with_nothing_kept_ends_with_the_same_keys_and_the_same_octets(
    method, micropython
):
    """The sensor's ML-KEM is firmware's, on MicroPython; the gateway's is another one."""
    messages = bench.proof(method, 1280 if method == bench.ALONE else 576)
    exchanges_seen = [exchange for _, exchange, _ in messages[::2]]
    wanted = ["IKE_SA_INIT", "IKE_AUTH"]
    if method in bench.ML_KEM:
        wanted.insert(1, "IKE_INTERMEDIATE")
        assert sum(map(len, (sizes for _, _, sizes in messages[2:4]))) == {
            "mlkem512": 4, "mlkem768": 6, "mlkem1024": 8,
        }[method]  # fmt: skip
    assert exchanges_seen == wanted


def test_proof_notices_keys_that_differ(monkeypatch, micropython):
    real = bench.handshake_of

    def spoilt(cell, seed):
        run = real(cell, seed)
        run.sensor.events[-1][1]["key_in"] = bytes(19)
        return run

    monkeypatch.setattr(bench, "handshake_of", spoilt)
    with pytest.raises(RuntimeError, match="different keys"):
        bench.proof("x25519")


def test_key_exchange_values_are_kept_and_nothing_else_is():
    cell = "mlkem768", 576, "eager", "independent", 0
    with key_exchanges.remembered():
        first, second = (bench.handshake_of(cell, seed) for seed in SEEDS)
        again = bench.handshake_of(cell, 0)
    assert [data for _, _, data in first.sent] == [data for _, _, data in again.sent]
    keys = [run.sensor.events[-1][1]["key_out"] for run in (first, second)]
    assert keys[0] != keys[1]


# Without RFC 7383.


def test_without_rfc_7383_messages_go_in_ip_fragments_which_not_every_board_joins():
    """An ESP32's stack, as MicroPython builds it, does not."""
    whole = line("mlkem1024", 1280, "ip-fragments", "independent", 0)
    assert whole["success"] == 1 and whole["datagrams_out"] == whole["datagrams_in"] == 4
    for method, mtu, comes_up in (
        ("mlkem1024", 1280, False), ("mlkem1024", 1500, False), ("mlkem768", 1280, True),
        ("mlkem768", 576, False), ("mlkem512", 1280, True), ("mlkem512", 576, False),
    ):  # fmt: skip
        (run,) = runs(method, mtu, "no-reassembly", "independent", 0, seeds=range(1))
        assert run[0] == comes_up, (method, mtu)


def test_a_link_counts_ip_fragments_and_loses_a_datagram_with_any_of_them():
    import random

    way = link.Link(random.Random(1), mtu=576)
    # 556 octets behind the IP header, 552 of them in all fragments but the last.
    for octets, packets in ((548, 1), (549, 2), (552 + 552 - 8, 2), (552 + 552 - 7, 3)):
        before = way.sent, way.octets
        assert len(way.carry(bytes(octets), 0)) == 1
        assert way.sent - before[0] == packets
        assert way.octets - before[1] == octets + 20 * (packets - 1)
    way = link.Link(random.Random(1), lost=link.pattern(".x"), mtu=576)
    assert way.carry(bytes(1000), 0) == [] and way.dropped == 1
    assert link.Link(random.Random(1), mtu=576, reassembly=False).carry(bytes(1000), 0) == []


# The kept results.


def test_the_kept_results_are_complete_and_say_what_the_page_says():
    rows = measured("handshake-loss.csv")
    cells = [tuple(map(str, cell)) for cell in bench.cells()]
    assert [tuple(row.values())[:5] for row in rows] == cells
    assert tuple(rows[0]) == bench.COLUMNS and {int(row["seeds"]) for row in rows} == {200}
    page = (loss.RESULTS / "handshake-loss.md").read_text()
    assert "| no |" not in page and "MISSED" not in page
    numbers = [
        {
            key: value if key in ("method", "mode", "pattern") or value == "" else float(value)
            for key, value in row.items()
        }
        for row in rows
    ]
    assert bench.facts_table(bench.facts(numbers)) in page


@pytest.mark.parametrize("mtu", bench.MTUS)
@pytest.mark.parametrize("method", bench.METHODS)
def test_the_kept_sizes_are_those_of_today(method, mtu):
    """A notify more or less is no reason to measure anew."""
    (kept,) = [
        row
        for row in measured("handshake-loss.csv")
        if tuple(row.values())[:5] == (method, str(mtu), "eager", "independent", "0")
    ]
    now = line(method, mtu, "eager", "independent", 0, seeds=range(1))
    for way in ("out", "in"):
        assert float(kept[f"datagrams_{way}"]) == now[f"datagrams_{way}"]
        assert float(kept[f"octets_{way}"]) == pytest.approx(now[f"octets_{way}"], rel=0.08)


def test_the_page_that_is_read_shows_the_picture():
    place = pathlib.Path(bench.__file__).parent
    assert re.search(r"!\[.*\]\(results/handshake-loss.png\)", (place / "README.md").read_text())
    assert (loss.RESULTS / "handshake-loss.png").read_bytes()[:4] == b"\x89PNG"


def test_a_quick_pass_writes_table_and_page_and_plots_every_cell(tmp_path, monkeypatch):
    """matplotlib itself is there only once a benchmark has run."""
    plotted = []
    monkeypatch.setattr(bench, "plot", lambda rows, path: plotted.append((len(rows), path.name)))
    with key_exchanges.remembered():

        def measure(work, seeds, say, some, row):
            done = {}
            for cell, _ in work:
                # The largest cells only; the others get their figures.
                key = ("mlkem768", 576, "eager", "independent", 0)
                if key not in done:
                    done[key] = some((key, range(1), {}))
            return [row(cell, 1, done[key]) for cell, _ in work]

        monkeypatch.setattr(bench, "proofs", lambda: {})
        found = bench.make(1, tmp_path, measure)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"handshake-loss.csv", "handshake-loss.md"}
    assert plotted == [(len(list(bench.cells())), "handshake-loss.png")]
    assert found and all(len(fact) == 3 for fact in found)
