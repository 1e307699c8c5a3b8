"""The checklists and the tests that carry their ids belong together; what `make conformance` says."""

import ast
import json

import pytest

from tools.dev import conformance
from tools.dev.conformance import FAIL, LEFT_OUT, NOT_YET, PASS

SIZES = {"MIN": 41, "FRG": 27, "ACK": 17, "AMB": 22, "INT": 22}
SIZES |= {
    "A": 9,
    "B": 8,
    "C": 10,
    "D": 10,
    "E": 5,
    "F": 12,
    "G": 2,
    "H": 4,
    "I": 6,
    "J": 13,
    "K": 5,
}


def carried(root):
    """{id: [test file]} of every `item("MIN-01", ..)` in the tests of the sensor."""
    found = {}
    for path in sorted((root / "host_tests").rglob("*.py")):
        if conformance.NOT_OURS in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "item":
                for argument in node.args:
                    if isinstance(argument, ast.Constant):
                        found.setdefault(argument.value, []).append(path.name)
    return found


def test_the_checklists_are_whole():
    lines = conformance.load()
    wanted = []
    for family, size in SIZES.items():
        name = "{}-{:02}" if len(family) > 1 else "{}{}"
        wanted += [name.format(family, number) for number in range(1, size + 1)]
    assert list(lines) == wanted
    assert all(line["required"] for line in lines.values())
    titles = [line["title"] for line in lines.values()]
    assert all(titles) and len(set(titles)) == len(titles)


def test_every_id_on_a_test_is_a_line_of_the_checklists(root):
    assert sorted(carried(root).keys() - conformance.load().keys()) == []


def test_every_required_line_is_carried_by_a_test(root):
    """So that `make test` alone tells when a line loses its last test."""
    found = carried(root)
    lacking = [
        name
        for name, line in conformance.load().items()
        if line["required"] and not line["left_out"] and name not in found
    ]
    assert lacking == []


LINES = {
    "MIN-01": {"tag": "M", "title": "first", "required": True, "left_out": None},
    "MIN-02": {"tag": "o", "title": "second", "required": True, "left_out": "no need"},
    "INT-01": {"tag": "M", "title": "third", "required": False, "left_out": None},
}


def statuses(tests):
    return {row["id"]: row["status"] for row in conformance.judge(LINES, tests)}


def test_a_line_passes_by_a_test_that_ran_and_passed():
    assert statuses({"MIN-01": {"test_a": "passed", "test_b": "skipped"}})["MIN-01"] == PASS
    assert statuses({"MIN-01": {"test_b": "skipped"}})["MIN-01"] == FAIL
    assert statuses({})["MIN-01"] == FAIL


def test_one_failing_test_fails_its_line_even_where_none_is_asked_for():
    for bad in ("failed", "known bug: this one"):
        tests = {"test_a": "passed", "test_b": bad}
        assert statuses({name: tests for name in LINES}) == dict.fromkeys(LINES, FAIL)


def test_only_an_optional_line_is_left_out_and_only_a_coming_family_is_not_yet():
    assert statuses({}) == {"MIN-01": FAIL, "MIN-02": LEFT_OUT, "INT-01": NOT_YET}


def test_an_id_that_no_checklist_has_fails():
    rows = conformance.judge(LINES, {"MIN-99": {"test_a": "passed"}})
    assert rows[0]["id"] == "MIN-99" and rows[0]["status"] == FAIL


def test_a_line_reads_as_id_status_and_tests():
    rows = conformance.judge(LINES, {"MIN-01": {"test_a": "passed", "test_b": "passed"}})
    assert [conformance.as_text(row) for row in rows] == [
        "MIN-01  pass      test_a, test_b",
        "MIN-02  left out  no need",
        "INT-01  not yet   third",
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('required = []\n[left_out]\nMIN-01 = "why"\n[MIN]\n01 = ["M", "x"]', "MIN-01"),
        ('required = ["ABC"]\n[left_out]\n[MIN]\n01 = ["M", "x"]', "ABC"),
        ('required = []\n[left_out]\n[MIN]\n01 = ["?", "x"]', "MIN-01"),
    ],
)
def test_a_checklist_that_contradicts_itself_is_refused(tmp_path, text, named):
    path = tmp_path / "checklist.toml"
    path.write_text(text)
    with pytest.raises(conformance.ChecklistError, match=named):
        conformance.load(path)


SAMPLE = """
import pytest

@pytest.mark.item("MIN-01", "INT-01")
@pytest.mark.parametrize("n", [1, 2])
def test_holds(n):
    assert n

@pytest.mark.item("MIN-02")
def test_breaks():
    assert False

@pytest.mark.item("INT-01")
@pytest.mark.xfail(reason="not mended", strict=True)
def test_known():
    assert False

def test_without_an_id():
    assert False
"""


def test_outcomes_are_those_of_the_marked_tests(tmp_path, root):
    """In a process of its own: pytest inside pytest would share its plugins."""
    import subprocess
    import sys

    (tmp_path / "test_sample.py").write_text(SAMPLE)
    program = (
        "import json, sys; from tools.dev import conformance;"
        "found = conformance.run(['-c', 'pyproject.toml', '-m', 'item', sys.argv[1]]);"
        "print(json.dumps([found.tests, len(found.problems)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "test_sample.py"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    tests, problems = json.loads(done.stdout)
    assert tests == {
        "MIN-01": {"test_holds": "passed"},
        "MIN-02": {"test_breaks": "failed"},
        "INT-01": {"test_holds": "passed", "test_known": "known bug: not mended"},
    }
    assert problems == 1
