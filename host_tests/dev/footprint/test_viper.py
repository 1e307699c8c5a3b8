"""Viper functions as JavaScript: what is not understood is refused, never guessed."""

import pytest

from tools.common import mpy
from tools.dev.footprint import viper


def function(body):
    return f"import micropython\n@micropython.viper\ndef f(p: ptr8, n: int):\n    {body}\n"


def test_every_viper_function_of_the_firmware_is_understood():
    found = {}
    for name, path in mpy.sources().items():
        if "@micropython.viper" in path.read_text():
            found[name] = viper.split(path.read_text(), name)[1]
    assert {"crypto/octets_viper", "kex/keccak", "kex/mlkem"} <= set(found)
    assert all(found.values())


def test_signed_and_unsigned_shifts_differ():
    _, loops = viper.split(function("p[0] = n >> 3"), "m")
    assert "n>>3" in loops["m_f"]
    _, loops = viper.split(function("p[0] = uint(n) >> 3"), "m")
    assert "n>>>3" in loops["m_f"]


@pytest.mark.parametrize(
    "body", ["n = n // 3", "for i in range(n): p[i] = 0", "p[0] = n ** 2", "n[0] = 1", "g(n)"]
)
def test_what_is_not_known_is_refused(body):
    with pytest.raises(viper.Unknown):
        viper.split(function(body), "m")


def test_a_module_without_viper_is_left_as_it_is():
    assert viper.split("a = 1  # one\n", "m") == ("a = 1  # one\n", {})
