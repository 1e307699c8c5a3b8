import pytest

from tools.dev.peers.node import remember_exchanges


@pytest.fixture(autouse=True, scope="package")
def _exchanges():
    """X25519 in pure Python, once for each value; every test uses the same few."""
    restore = remember_exchanges()
    yield
    restore()
