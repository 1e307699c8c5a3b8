"""No stretch of code stands in two places: one that is mended is all of them."""

import array
import ast
import io
import tokenize

import pytest

# Tokens that two places may have in common, in a row: some six lines of code.
WINDOW = {"firmware": 50, "tools": 50}
_NOT_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


def code(text):
    """Return [(token, line)] of functions and classes without comments, docstrings and tables."""
    left_out = set()
    tree = ast.parse(text)
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            left_out.update(range(node.lineno, node.end_lineno + 1))
    for node in ast.walk(tree):
        first = getattr(node, "body", None)
        docstring = first[0] if isinstance(first, list) and first else None
        if isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant):
            left_out.update(range(docstring.lineno, docstring.end_lineno + 1))
        if isinstance(node, (ast.Dict, ast.List, ast.Tuple, ast.Set)):
            left_out.update(range(node.lineno + 1, node.end_lineno + 1))
    return [
        (token.string, token.start[0])
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _NOT_CODE and token.start[0] not in left_out
    ]


def twice(sources, window):
    """Return where the same `window` tokens stand a second time: ["a.py:3 and b.py:9", ..]."""
    number, seen, found = {}, {}, []
    for name, text in sources:
        tokens = code(text)
        octets = array.array("I", [number.setdefault(word, len(number)) for word, _ in tokens])
        octets, step, until = octets.tobytes(), octets.itemsize, 0
        for at in range(len(tokens) - window + 1):
            place = name, at, tokens[at][1]
            first = seen.setdefault(octets[at * step : (at + window) * step], place)
            overlaps = first[0] == name and at - first[1] < window
            if not overlaps and at >= until:
                found.append("{}:{} and {}:{}".format(*first[::2], *place[::2]))
                until = at + window
    return found


@pytest.mark.parametrize("folder", WINDOW)
def test_no_code_stands_in_two_places(root, folder):
    sources = [
        (str(path.relative_to(root)), path.read_text())
        for path in sorted((root / folder).rglob("*.py"))
        if root / "tools/dev/footprint/board" not in path.parents  # which has no path to ours
    ]
    assert twice(sources, WINDOW[folder]) == []


def test_a_copy_is_found_wherever_it_stands():
    work = "def a(x):\n    y = x + 1\n    return [y, y * 2]  # why\n"
    assert twice([("a.py", work), ("b.py", "Z = 1\n" + work.replace("# why", ""))], 12) == [
        "a.py:1 and b.py:2"
    ]
    assert twice([("a.py", work + "B = 2\n" + work)], 12) == ["a.py:1 and a.py:5"]
    assert twice([("a.py", work), ("b.py", work.replace("x", "z"))], 12) == []
