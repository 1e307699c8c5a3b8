"""Every firmware module stays within the octets that it was given."""

import pytest

from tools import size


@pytest.fixture(scope="module")
def rows():
    return size.measure()


def test_every_module_has_a_budget_and_keeps_it(rows):
    assert size.violations(rows, size.budgets()) == []


def test_a_module_without_a_budget_and_one_over_it_are_named(rows):
    limits = size.budgets()
    limits["mpy"].pop("wire")
    limits["ram"]["ccm"] = 10
    found = size.violations(rows, limits)
    assert any("wire: no mpy budget" in line for line in found)
    assert any("ccm: ram" in line and "over its budget 10" in line for line in found)
