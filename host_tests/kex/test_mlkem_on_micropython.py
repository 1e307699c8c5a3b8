"""The two files of this folder that run on the unix port, where viper is."""

import ast
import pathlib

import pytest

HERE = pathlib.Path(__file__).resolve().parent
RUNNER = HERE.parents[1] / "tools/dev/run_tests.py"


@pytest.mark.parametrize(
    "name",
    ["mlkem_arithmetic", pytest.param("mlkem_secrets", marks=pytest.mark.item("INT-22"))],
)
def test_passes_on_the_unix_port(name, root, micropython):
    done = micropython(RUNNER, f"host_tests.kex.{name}", path=[root], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = {line[5:] for line in done.stdout.splitlines() if line.startswith("pass ")}
    tree = ast.parse((HERE / f"{name}.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert passed == {function for function in functions if function.startswith("test_")}
