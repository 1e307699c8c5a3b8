"""The READMEs say what the sources say: made by `make docs`, and checked here."""

import json
import re
import subprocess
import sys

import pytest

from host_tests.conformance.stage import IN_STATE, checking
from minipsec.config import profile as store
from minipsec.ike import established
from tools import docs

FENCE = re.compile(r"```(\w*)\n(.*?)```", re.S)


@pytest.fixture(scope="module")
def readme():
    return (docs.ROOT / "README.md").read_text()


def test_the_committed_files_are_what_the_sources_make_now():
    assert docs.outdated() == [], "run: make docs"


def test_the_same_sources_make_the_same_octets_in_another_process(root):
    program = "import sys, hashlib; from tools import docs; " + (
        "print({n: hashlib.sha256(t.encode()).hexdigest() for n, t in docs.made().items()})"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={"PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] and "states.svg" in runs[0]


# The state diagram.


def test_every_transition_of_the_tables_is_in_the_diagram():
    diagram = docs.state_diagram()
    states, edges = docs._grouped()
    for state in states:
        assert f">{state}</text>" in diagram.replace("<tspan", ">").replace("</tspan>", "")
    drawn = sum(len(labels) for labels in edges.values())
    words = re.findall(
        r"(?:response|request|start\(\)|delete\(\)|no answer|SNs used up)<", diagram
    )
    assert len(words) == drawn
    told = sum(len(ends) for _, _, ends, _ in docs.transitions())
    assert drawn == told


def moves(state, label):
    """Do what a label of `docs.OURS` says; return the state that it leads to."""
    make = checking if (state, label) == ("UP", "no answer") else IN_STATE[state]
    node, _ = make()
    if label == "start()":
        node.start()
    elif label == "delete()":
        node.call(established.delete)
    elif label == "SNs used up":
        node.ike.fail("spent", None)
    else:
        assert label == "no answer"
        while node.ike.next_timer() is not None:
            node.timer(node.ike.next_timer())
    return node.state


@pytest.mark.parametrize(("state", "label", "end"), docs.OURS)
def test_what_moves_the_state_without_a_message_does(state, label, end):
    assert moves(state, label) == end


def test_silence_is_drawn_for_each_state_that_waits():
    waiting = {state for state in IN_STATE if IN_STATE[state]()[0].ike.next_timer() is not None}
    assert {s for s, label, _ in docs.OURS if label == "no answer"} == waiting | {"UP"}


# README.md.


def test_the_readme_has_the_gateways_configuration_as_it_is(readme, root):
    conf = (root / "tools/gateway/swanctl.conf").read_text()
    assert conf.strip() in [body.strip() for _, body in FENCE.findall(readme)]


def test_the_table_names_the_keys_of_a_profile_with_their_defaults(readme):
    block = readme.split("<!-- make docs: profile keys -->")[1].split("<!-- end -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ", block, re.M)
    keys = {key: default for key, default, _, _ in store.keys()}
    assert [key for key, _ in rows] == list(keys)
    for key, shown in rows:
        default = keys[key]
        if default == "required":
            assert shown == "required"
        elif default is None:
            assert shown == ""
        else:
            assert json.loads(shown.strip("`")) == default


def test_the_examples_are_a_profile_and_its_secrets(readme):
    profile, secrets = (json.loads(body) for kind, body in FENCE.findall(readme) if kind == "json")
    checked = store.check_profile(profile)
    assert checked["server"] == bytes((10, 3, 0, 10))
    assert list(store.check_secrets(secrets)) == ["psk"]


def test_the_example_fits_the_gateways_configuration(readme, root):
    conf = (root / "tools/gateway/swanctl.conf").read_text()
    profile = json.loads(next(body for kind, body in FENCE.findall(readme) if kind == "json"))
    assert f"id = {profile['gateway_id']}\n" in conf
    assert f'id = "{profile["id"]}"' in conf
    keys = {key: default for key, default, _, _ in store.keys()}
    ike = keys["ike"]
    assert f"proposals = {', '.join(ike)}\n" in conf
    assert f"esp_proposals = {', '.join(keys['esp'])}\n" in conf


def test_the_example_program_is_one():
    body = next(
        b for kind, b in FENCE.findall((docs.ROOT / "README.md").read_text()) if kind == "python"
    )
    lines = ["async def main():", *("    " + line for line in body.splitlines())]
    compile("\n".join(lines), "README.md", "exec")


def test_the_log_table_names_the_events_that_the_firmware_logs(readme, root):
    logged = set()
    for path in (root / "firmware").rglob("*.py"):
        logged |= set(re.findall(r"\blog\(\s*\"(\w+)\"", path.read_text()))
    table = readme.split("| event | when | fields |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == logged


def test_every_command_and_file_that_a_readme_names_exists(root):
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.M))
    for name in docs.BLOCKS:
        text = (root / name).read_text()
        assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
        folder = (root / name).parent
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (folder / link).exists(), link
        for path in re.findall(r"`((?:host_tests|tools|firmware)/[\w./]+)`", text):
            assert (root / path).exists(), path


@pytest.mark.parametrize("folder", ["host_tests", "host_tests/hardening", "tools", "boards"])
def test_a_folders_readme_names_what_is_in_it(root, folder):
    text = (root / folder / "README.md").read_text()
    for path in sorted((root / folder).iterdir()):
        name, kind = path.name, path.suffix
        if path.is_dir() and list(path.glob("*.*")):
            assert re.search(rf"\b{name}\b", text), f"{folder}/README.md: {name}/"
        elif folder.startswith("host_tests") and kind in (".py", ".toml", ".json"):
            assert name in text, f"{folder}/README.md: {name}"


def test_a_readme_without_a_place_is_named():
    with pytest.raises(docs.DocsError, match="README.md.*errors"):
        docs.filled("text", {"errors": docs.errors}, "README.md")
