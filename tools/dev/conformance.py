"""`make conformance`: which lines of the checklists hold, and by which tests.

Runs the tests that carry `@pytest.mark.item(..)` and prints one line for each id of
host_tests/rules/checklist.toml:

    pass      every test of the line that ran passed, and there is one
    fail      one of them failed or shows a known bug, or there is none though there must be
    left out  a line tagged `o`, with the reason
    not yet   a line without a test, of a family that is not required yet

Exits with 1 when a line says fail.  It is the sensor that conforms or does not: tests of the
development gateway, which is the other end, do not count.
"""

import argparse
import contextlib
import io
import json
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECKLIST = ROOT / "host_tests/rules/checklist.toml"
NOT_OURS = ROOT / "host_tests/devgateway"
TAGS = ("M", "S", "MAY", "o", "K")
PASS, FAIL, LEFT_OUT, NOT_YET = "pass", "fail", "left out", "not yet"


class ChecklistError(ValueError):
    """The data file contradicts itself; the text says where."""


def load(path=CHECKLIST):
    """Return {id: {"tag", "title", "required", "left_out"}} in the file's order."""
    data = tomllib.loads(path.read_text())
    required, left_out = data.pop("required"), data.pop("left_out")
    lines = {}
    for family, members in data.items():
        for number, (tag, title) in members.items():
            if tag not in TAGS:
                raise ChecklistError(f"{family}-{number}: tag {tag}")
            # MIN-01 is a requirement of a text, A1 a case of the field.
            name = f"{family}-{number}" if len(family) > 1 else family + number
            lines[name] = {
                "tag": tag,
                "title": title,
                "required": family in required,
                "left_out": left_out.get(name),
            }
    for family in required:
        if family not in data:
            raise ChecklistError(f"required: no family {family}")
    for name in left_out:
        if name not in lines or lines[name]["tag"] != "o":
            raise ChecklistError(f"left_out: {name} is not a line tagged o")
    return lines


class Outcomes:
    """A pytest plugin that keeps how each marked test ended: {id: {test: outcome}}."""

    def __init__(self):
        self.tests = {}
        self.problems = []
        self._ids = {}

    def pytest_collection_modifyitems(self, items):
        for item in items:
            for mark in item.iter_markers("item"):
                self._ids.setdefault(item.nodeid, []).extend(mark.args)

    def pytest_collectreport(self, report):
        if report.failed:
            self.problems.append(f"{report.nodeid}: cannot be collected\n{report.longrepr}")

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            outcome = report.outcome
            if hasattr(report, "wasxfail"):
                outcome = "known bug: " + report.wasxfail.removeprefix("reason: ")
            elif outcome == "failed":
                self.problems.append(f"{report.nodeid}\n{report.longreprtext}")
            for name in self._ids.get(report.nodeid, ()):
                self._keep(name, report.nodeid.rpartition("::")[2].partition("[")[0], outcome)

    def _keep(self, name, test, outcome):
        """Cases of one test count together: a bad outcome stays, one that ran beats a skip."""
        known = self.tests.setdefault(name, {}).get(test, "skipped")
        if known == "skipped" or (known == "passed" and outcome != "skipped"):
            self.tests[name][test] = outcome


def judge(lines, tests):
    """Return a list of {"id", "tag", "title", "status", "tests", "reason"}, one for each line."""
    rows = []
    for name in sorted(tests.keys() - lines):
        rows.append(_row(name, "?", "", FAIL, tests[name], "no such line in the checklist"))
    for name, line in lines.items():
        found = tests.get(name, {})
        bad = {t: o for t, o in found.items() if o not in ("passed", "skipped")}
        reason = line["left_out"]
        if bad:
            status = FAIL
            reason = "; ".join(f"{test}: {outcome}" for test, outcome in bad.items())
        elif "passed" in found.values():
            status = PASS
        elif reason:
            status = LEFT_OUT
        elif line["required"]:
            status = FAIL
            reason = "its tests were skipped" if found else "no test carries this id"
        else:
            status = NOT_YET
        rows.append(_row(name, line["tag"], line["title"], status, found, reason))
    return rows


def _row(name, tag, title, status, tests, reason):
    return {
        "id": name,
        "tag": tag,
        "title": title,
        "status": status,
        "tests": [test for test, outcome in tests.items() if outcome == "passed"],
        "reason": reason,
    }


def as_text(row):
    """Return the line for a person: id, status, the tests or the reason."""
    words = ", ".join(row["tests"])
    if row["status"] != PASS:
        words = row["reason"] or row["title"]
    elif row["reason"]:
        words += f" (left out: {row['reason']})"
    return f"{row['id']}  {row['status']:8}  {words}"


def run(arguments=("-m", "item")):
    """Run the marked tests in this process; return the `Outcomes`."""
    import pytest

    outcomes = Outcomes()
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    options.append(f"--ignore={NOT_OURS}")
    with contextlib.redirect_stdout(io.StringIO()):
        code = pytest.main([*options, *arguments], plugins=[outcomes])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not outcomes.problems:
        outcomes.problems.append(f"pytest ended with {code!r}")
    return outcomes


def main(argv=None):
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=pathlib.Path, help="write the lines to this file, too")
    options = parser.parse_args(argv)
    lines = load()
    outcomes = run()
    rows = judge(lines, outcomes.tests)
    for row in rows:
        print(as_text(row))
    counts = {status: 0 for status in (PASS, LEFT_OUT, NOT_YET, FAIL)}
    for row in rows:
        counts[row["status"]] += 1
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    for problem in outcomes.problems:
        print(f"\n{problem}", file=sys.stderr)
    return 1 if counts[FAIL] or outcomes.problems else 0


if __name__ == "__main__":
    sys.exit(main())
