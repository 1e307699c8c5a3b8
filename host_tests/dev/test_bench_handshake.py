"""`make bench` and `make bench-compare`: a pass of one round, and what a comparison notices."""

import json
import shutil

import pytest

from tools.dev.bench import handshake, handshake_compare, handshake_report

KEPT = handshake.RESULTS / "handshake.json"


@pytest.mark.skipif(not shutil.which("openssl"), reason="the DTLS server is openssl's")
def test_one_round_gives_every_table_and_every_figure(tmp_path):
    bench = handshake.Bench(tmp_path, 1)
    result = {
        **handshake.handshakes(bench),
        "packets": handshake.packets(bench, (8, 1200), 20),
        "fragments": handshake.fragments(bench, (1280, 200)),
        "many": handshake.many(bench, (1, 3), 1),
        "without_charon": "not here",
        "rounds": 1,
        "machine": "any",
        **handshake.versions(),
    }
    result = json.loads(json.dumps(result))
    ours, dtls = result["handshake"]["X25519"], result["handshake"][handshake.DTLS]
    # Two exchanges, and what no clock has a part in.
    assert ours["datagrams"] == 4
    assert 770 < ours["octets"] < dtls["octets"]
    assert ours["cpu_ms"]["median"] > result["exchange"]["X25519"]["median"] / 2 > 0
    # Nothing that a reading leaves behind grows with it.
    for way in ("seal", "tunnel.send"):
        small, large = result["packets"][way]["garbage"].values()
        assert small == large
    few, most = result["fragments"]
    assert few["datagrams"] < most["datagrams"]
    assert [row["tunnels"] for row in result["many"]] == [1, 3]
    text = handshake_report.markdown(result)
    assert "Skipped: not here." in text
    found = handshake_compare.figures(result)
    assert handshake_compare.held_against(found, found)[1] == []


def test_the_kept_results_are_complete_and_not_worse_than_themselves(capsys):
    arguments = ["--compare", "--baseline", str(KEPT), "--new", str(KEPT)]
    assert handshake.main(arguments) == 0
    assert "none is worse" in capsys.readouterr().out
    result = json.loads(KEPT.read_text())
    assert result["targets"] == json.loads(json.dumps(handshake_report.targets(result)))
    assert KEPT.with_suffix(".md").read_text() == handshake_report.markdown(result)
    readme = (handshake.RESULTS.parent / "README.md").read_text()
    assert handshake_report.handshakes(result) in readme


def doctored(tmp_path, change):
    result = json.loads(KEPT.read_text())
    change(result)
    path = tmp_path / "new.json"
    path.write_text(json.dumps(result))
    return ["--compare", "--baseline", str(KEPT), "--new", str(path)]


def slower_handshake(result):
    result["handshake"]["X25519"]["ratio"] *= 1.5


def one_more_datagram(result):
    result["handshake"]["X25519"]["datagrams"] += 1


def more_octets(result):
    result["handshake"]["P-256"]["octets"] += 40


def garbage_that_grows(result):
    result["packets"]["seal"]["garbage"]["1200"] += 1200


def slower_sending(result):
    result["packets"]["tunnel.send"]["ratio"]["512"] *= 2


def costly_fragments(result):
    result["fragments"][-1]["ratio"] *= 1.5


def tunnels_that_slow_each_other(result):
    result["many"][-1]["ratio"] *= 1.5


@pytest.mark.parametrize(
    "change",
    [
        slower_handshake,
        one_more_datagram,
        more_octets,
        garbage_that_grows,
        slower_sending,
        costly_fragments,
        tunnels_that_slow_each_other,
    ],
)
def test_a_worse_figure_is_named_and_fails(tmp_path, capsys, change):
    assert handshake.main(doctored(tmp_path, change)) == 1
    said = capsys.readouterr().out.splitlines()
    assert sum("WORSE" in line for line in said) == 1
    assert said[-1].startswith("bench-compare: 1 of ")


def test_a_machine_of_half_the_speed_is_not_worse(tmp_path, capsys):
    def half(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in ("median", "least", "most"):
                    value[key] = inner * 2
                else:
                    half(inner)
        elif isinstance(value, list):
            for inner in value:
                half(inner)

    assert handshake.main(doctored(tmp_path, half)) == 0
    capsys.readouterr()


def test_a_figure_that_only_one_of_them_has_is_told_and_is_not_worse(tmp_path, capsys):
    def without(result):
        del result["handshake"]["P-256"]

    assert handshake.main(doctored(tmp_path, without)) == 0
    assert capsys.readouterr().out.count("not measured") == 3
    new, kept = doctored(tmp_path, without)[-1], str(KEPT)
    assert handshake.main(["--compare", "--baseline", new, "--new", kept]) == 0
    assert capsys.readouterr().out.count("  new ") == 3


def test_the_anchors_may_change(tmp_path, capsys):
    def without(result):
        for name in [name for name in result["handshake"] if name.startswith("charon")]:
            del result["handshake"][name]
        result["handshake"][handshake.DTLS_PSK]["ratio"] *= 9

    assert handshake.main(doctored(tmp_path, without)) == 0
    assert "none is worse" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "null", '{"handshake": 1}', '{"handshake": {"DTLS ECDHE-ECDSA": {}}}']
    + ["\x00\xff"],
)
def test_a_broken_baseline_is_told_in_one_line(tmp_path, capsys, text):
    path = tmp_path / "broken.json"
    path.write_bytes(text.encode("latin-1"))
    assert handshake.main(["--compare", "--baseline", str(path), "--new", str(KEPT)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"bench-compare: {path} holds no results")


def test_results_with_a_figure_that_is_no_number_are_told_in_one_line(tmp_path, capsys):
    def broken(result):
        result["handshake"]["X25519"]["ratio"] = "fast"

    assert handshake.main(doctored(tmp_path, broken)) == 2
    assert "'fast'" in capsys.readouterr().err


def test_no_baseline_is_told_in_one_line_before_anything_is_measured(tmp_path, capsys):
    assert handshake.main(["--compare", "--baseline", str(tmp_path / "none.json")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "make bench" in said
