import pytest

from tools.dev.peers import node
from minipsec.kex import methods


@pytest.fixture(autouse=True)
def _computed(monkeypatch):
    """Here each value is computed, also where others have them remembered."""
    monkeypatch.setattr(methods, "method", node.computed)
