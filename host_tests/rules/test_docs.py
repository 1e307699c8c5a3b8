"""The pages say what the sources say: made by `make docs`, and checked here."""

import json
import re
import subprocess
import sys

import pytest

from tools.dev.peers.stage import IN_STATE, checking
from minipsec.config import profile as store
from minipsec.ike import established
from tools.common import mpy
from tools.dev import docs, house
from tools.fleet import keys as profile_keys

FENCE = re.compile(r"```(\w*)\n(.*?)```", re.S)


PAGES = docs.pages()


def test_the_committed_files_are_what_the_sources_make_now():
    assert docs.outdated() == [], "run: make docs"


def test_the_same_sources_make_the_same_octets_in_another_process(root):
    program = "import sys, hashlib; from tools.dev import docs; " + (
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


# The picture of the rooms.


def test_every_room_and_module_and_no_back_arrow_is_in_the_picture(root):
    imports = {name: docs._imports(path) for name, path in mpy.modules().items()}
    inside, arrows = house.rooms(imports)
    picture = docs.rooms()
    for path in (root / "firmware/minipsec").rglob("*.py"):
        room, *module = path.relative_to(root / "firmware/minipsec").with_suffix("").parts
        assert f">{room}<" in picture
        assert not module or module == ["__init__"] or module[0] in inside[room]
        assert not module or module == ["__init__"] or module[0] in picture
    down, up = house.downwards(arrows)
    assert all(arrows[arrow] for arrow in up), "a circle of imports that are not late"
    level = house.floors(list(inside), down)
    assert all(level[start] > level[end] for start, end in down)


def test_what_arrows_imply_is_left_out_and_a_circle_is_told():
    imports = {
        "a": (["b/x", "c"], []), "b/x": (["c"], ["d"]), "b/__init__": ([], []),
        "c": ([], ["d"]), "d": ([], ["a"]),
    }  # fmt: skip
    inside, arrows = house.rooms(imports)
    assert inside == {"a": [], "b": ["x"], "c": [], "d": []}
    down, up = house.downwards(arrows)
    assert sorted(down) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert up == [("d", "a")]
    assert "d to a" in house.picture(imports, docs.Drawing)


# The pages.


def test_the_readme_is_one_screen_before_its_first_link_and_short():
    lines = PAGES["README.md"].splitlines()
    assert len(lines) <= 150
    linked = [n for n, line in enumerate(lines) if re.search(r"(?<!!)\[[^]]+\]\(", line)]
    assert linked[0] > 40
    first = "\n".join(lines[: linked[0]])
    for said in ("MicroPython", "make demo", "make test", "apt installs", "Without root"):
        assert said in first


def anchors(text):
    """The anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = [slug, *(f"{slug}-{n}" for n in range(1, 9))]
        found.add(next(one for one in again if one not in found))
    return found


@pytest.mark.parametrize("name", PAGES)
def test_each_link_leads_to_a_page_and_a_heading_that_are_there(root, name):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", PAGES[name]):
        if target.startswith(("https:", "http:")):
            continue
        path = ((root / name).parent / target).resolve() if target else root / name
        assert path.exists(), target
        if anchor:
            assert path.suffix == ".md", target
            assert anchor in anchors(path.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("name", [name for name in PAGES if name != "README.md"])
def test_each_page_is_found_from_the_readme_and_begins_with_what_it_answers(root, name):
    reached, left = set(), [root / "README.md"]
    while left:
        page = left.pop()
        if page not in reached:
            reached.add(page)
            for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
                path = (page.parent / target).resolve()
                path = path / "README.md" if path.is_dir() else path
                if path.suffix == ".md" and path.exists():
                    left.append(path)
    assert (root / name).resolve() in reached
    lines = PAGES[name].splitlines()
    assert lines[0].startswith("# ") and re.match(r"[A-Z`*\[]|    ", lines[2]), lines[:3]


# What they show of the sources.


def test_the_page_on_strongswan_has_each_line_that_an_owner_has_to_change(root):
    """The file itself stands in the repository once; interop runs with it."""
    page, conf = PAGES["tools/docs/strongswan.md"], root / "tools/gateway/swanctl.conf"
    assert "(../gateway/swanctl.conf)" in page
    marks = [line for line in conf.read_text().splitlines() if line.endswith(docs.MARK)]
    assert len(marks) == len(docs.marked()) > 4
    for section, line, said in docs.marked():
        assert f"| `{section}` | `{line}` | {said} |" in page and said
    for name, text in PAGES.items():
        assert "remote_ts = dynamic" not in text, name


def test_the_table_names_the_keys_of_a_profile_with_their_defaults():
    block = (
        PAGES["firmware/docs/profile.md"]
        .split("<!-- make docs: profile keys -->")[1]
        .split("<!-- end -->")[0]
    )
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ", block, re.M)
    keys = {row[0]: row[1] for row in (*store.rows(), *store.experimental())}
    assert [key for key, _ in rows] == list(keys)
    for key, shown in rows:
        default = keys[key]
        if default is store.REQUIRED:
            assert shown == "required"
        elif default is None:
            assert shown == ""
        else:
            assert json.loads(shown.strip("`")) == default


def test_every_key_is_told_what_it_means():
    assert {row.key for row in profile_keys.rows()} == set(profile_keys.MEANINGS)


def examples():
    """The profile and the secrets that firmware/docs/profile.md shows."""
    found = FENCE.findall(PAGES["firmware/docs/profile.md"])
    return [json.loads(body) for kind, body in found if kind == "json"]


def test_the_examples_are_a_profile_and_its_secrets():
    profile, secrets = examples()
    checked = store.check_profile(profile)
    assert checked["server"] == bytes((10, 3, 0, 10))
    assert list(store.check_secrets(secrets)) == ["psk"]


def test_the_example_fits_the_gateways_configuration(root):
    conf = (root / "tools/gateway/swanctl.conf").read_text()
    profile, _ = examples()
    assert f"id = {profile['gateway_id']}\n" in conf
    assert f'id = "{profile["id"]}"' in conf
    keys = {row[0]: row[1] for row in store.rows()}
    ike = keys["ike"]
    assert f"proposals = {', '.join(ike)}\n" in conf
    assert f"esp_proposals = {', '.join(keys['esp'])}\n" in conf


@pytest.mark.parametrize("name", PAGES)
def test_every_printed_program_is_one(name):
    for kind, body in FENCE.findall(PAGES[name]):
        if kind == "python":
            compile(body, name, "exec")


def test_the_log_table_names_the_events_that_the_firmware_logs(root):
    logged = set()
    for path in (root / "firmware").rglob("*.py"):
        logged |= set(re.findall(r"\blog\(\s*\"(\w+)\"", path.read_text()))
    page = PAGES["firmware/docs/errors.md"]
    table = page.split("| event | when | fields |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == logged


@pytest.mark.parametrize("name", PAGES)
def test_every_command_and_file_that_a_page_names_exists(root, name):
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z]+(?:-[a-z]+)*)", PAGES[name])) <= targets
    assert set(re.findall(r"^ {4}make ([a-z-]+)", PAGES[name], re.M)) <= targets
    for path in re.findall(r"`((?:boards|host_tests|tools|firmware)/[\w./]+)`", PAGES[name]):
        assert (root / path).exists(), path
    places = ("", "host_tests", "tools", "tools/dev", "firmware/minipsec")
    for path in re.findall(r"`(\w+/[\w/]+\.py)`", PAGES[name]):
        assert any((root / place / path).exists() for place in places), path
    if name.startswith("firmware/"):
        package = root / "firmware/minipsec"
        folders = "|".join(sorted(path.parent.name for path in package.glob("*/__init__.py")))
        for path in re.findall(rf"`((?:{folders})/\w*)`", PAGES[name]):
            assert (package / path).is_dir() or (package / f"{path}.py").exists(), path


@pytest.mark.parametrize(
    "folder", ["host_tests", "host_tests/hardening", "host_tests/rules", "tools", "boards"]
)
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
