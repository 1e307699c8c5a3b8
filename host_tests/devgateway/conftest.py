"""A gateway without sockets, and what it told."""

import pytest

from host_tests.devgateway.peer import seeded
from tools.devgateway import Config, Gateway, Secrets


@pytest.fixture
def events():
    """(name, fields) of everything that the gateway told."""
    return []


@pytest.fixture
def make_gateway(events):
    def make(secrets=None, **settings):
        config = Config(Secrets(secrets or {"any": "secret"}), **settings)
        return Gateway(config, seeded(99), lambda name, fields: events.append((name, fields)))

    return make


@pytest.fixture
def gateway(make_gateway):
    return make_gateway()
