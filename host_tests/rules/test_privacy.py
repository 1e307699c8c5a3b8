"""What an object has is its own: nobody else reads its `_private` names, nobody sets its attributes.

Counted in the sources of the firmware.
"""

import ast

import pytest

from tools.common import mpy

# Accesses x._y where x is not self, by module; a module without a line has none.
READS = {"board/port": 1}  # asyncio's queue, which has no other door


def uses(tree):
    """Return (private names of others that are used, attributes of others that are set), as text."""
    reads, sets = [], []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        if ast.unparse(node.value) in ("self", "cls", "super()"):
            continue
        private = node.attr[0] == "_" and not node.attr.startswith("__")
        if not isinstance(node.ctx, ast.Load):
            sets.append(ast.unparse(node))
        elif private:
            reads.append(ast.unparse(node))
    return reads, sets


def count(path):
    return uses(ast.parse(path.read_text(), path.name))


MODULES = mpy.modules()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_what_an_object_has_is_its_own(name):
    reads, sets = count(MODULES[name])
    assert len(reads) == READS.get(name, 0), reads
    assert sets == []


def test_the_table_names_modules_that_there_are():
    assert set(READS) <= set(MODULES)


def test_the_count_sees_what_it_is_there_for():
    text = "self._a = x._b\nx.c = self._d.e\ndel y.f\nz.g += 1\nw.__name__\nself.h._i[0] = 1\n"
    assert uses(ast.parse(text)) == (["x._b", "self.h._i"], ["x.c", "y.f", "z.g"])
