import sys

import pytest

import minipsec.kex
from tools.dev.peers.node import remember_exchanges
from tools.dev.peers import kem


@pytest.fixture(autouse=True, scope="package")
def _exchanges():
    """Each X25519 value once; ML-KEM by OpenSSL and kyber-py, as CPython runs no viper code."""
    restore = remember_exchanges()
    kept = sys.modules.get("minipsec.kex.mlkem"), vars(minipsec.kex).get("mlkem")
    sys.modules["minipsec.kex.mlkem"] = minipsec.kex.mlkem = kem
    yield
    restore()
    for place, key, value in zip(
        (sys.modules, vars(minipsec.kex)), ("minipsec.kex.mlkem", "mlkem"), kept, strict=True
    ):
        if value is None:
            del place[key]
        else:
            place[key] = value


@pytest.fixture(autouse=True)
def _key_pairs():
    kem.made.clear()
