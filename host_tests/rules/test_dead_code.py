"""Nothing in firmware/ that nobody uses: on a board each name costs flash and RAM."""

import ast
import re

import pytest


def mentions(text, name):
    """How often a name stands in a source; also without its _ where tables name functions so."""
    bare = '"_" + ' in text and len(re.findall(rf"\b{name[1:]}\b", text))
    return len(re.findall(rf"\b{name}\b", text)) + bare


@pytest.fixture(scope="module")
def words(root):
    """{word: in how many places it stands} over everything that could use a name of firmware/."""
    found = {}
    for folder in ("firmware", "host_tests", "tools", "boards"):
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text()
            for word in re.findall(r"\w+", text):
                found[word] = found.get(word, 0) + 1
                if '"_" + ' in text:
                    found["_" + word] = found.get("_" + word, 0) + 1
            for event in re.findall(r'\bevent\(\s*"(\w+)"', text):  # which link has a method for
                found["_on_" + event] = found.get("_on_" + event, 0) + 1
    return found


def sources(root):
    return sorted((root / "firmware").rglob("*.py"))


def test_every_function_and_class_is_used_somewhere(root, words):
    unused = []
    for path in sources(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                dunder = node.name.startswith("__") and node.name.endswith("__")
                if not dunder and words[node.name] < 2:
                    unused.append(f"{path.name}: {node.name}")
    assert not unused


def test_every_private_name_of_a_module_is_used_in_it(root):
    unused = []
    for path in sources(root):
        text = path.read_text()
        for node in ast.parse(text).body:
            names = []
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in names:
                if name.startswith("_") and not name.startswith("__"):
                    if mentions(text, name) < 2:
                        unused.append(f"{path.name}: {name}")
    assert not unused


def test_every_import_is_used(root, words):
    unused = []
    for path in sources(root):
        text = path.read_text()
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                handed_on = "F401" in lines[node.end_lineno - 1]
                for alias in node.names:
                    name = (alias.asname or alias.name).partition(".")[0]
                    used = words[name] > 2 if handed_on else mentions(text, name) > 1
                    if not used:
                        unused.append(f"{path.name}: {name}")
    assert not unused


def test_every_attribute_of_a_class_is_used(root):
    text = "\n".join(path.read_text() for path in sources(root))
    unused = []
    for path in sources(root):
        for made in ast.walk(ast.parse(path.read_text())):
            for node in made.body if isinstance(made, ast.ClassDef) else ():
                for target in node.targets if isinstance(node, ast.Assign) else ():
                    if len(re.findall(rf"\b{target.id}\b", text)) < 2:
                        unused.append(f"{path.name}: {made.name}.{target.id}")
    assert not unused
