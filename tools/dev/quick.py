"""A pytest plugin: each X25519 value is computed once a run; for runs that are traced or repeated."""


def pytest_configure(config):
    from tools.dev.peers.node import remember_exchanges

    remember_exchanges()
