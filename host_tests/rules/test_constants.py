"""`_NAME = const(..)` costs a board nothing, so modules repeat it; it must not drift."""

import ast
import collections
import pathlib

FIRMWARE = pathlib.Path(__file__).resolve().parents[2] / "firmware"


def _evaluate(node, names):
    code = compile(ast.Expression(node), "const", "eval")
    return eval(code, {"__builtins__": {}}, names)


def constants(path):
    """Return {name: value} of the module-level `_NAME = const(expression)` lines."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        call = node.value
        if getattr(call.func, "id", "") == "const":
            found[node.targets[0].id] = _evaluate(call.args[0], found)
    return found


def test_a_constant_has_the_same_value_in_every_module():
    seen = collections.defaultdict(dict)
    for path in sorted(FIRMWARE.rglob("*.py")):
        for name, value in constants(path).items():
            seen[name][path.name] = value
    drifted = {name: places for name, places in seen.items() if len(set(places.values())) > 1}
    assert not drifted


def test_the_reader_of_constants_sees_expressions(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text("_A = const(2)\n_B = const(_A << 3)\nC = 4\n")
    assert constants(path) == {"_A": 2, "_B": 16}
