"""A strict reader of swanctl.conf, our own: what a value is when quotes and escapes are heeded.

Only what a careful file has is read; all else is an error, also what strongSwan would forgive.
"""

import re

_TOKEN = re.compile(r'\s*(?:(#[^\n]*)|"((?:[^"\\\n]|\\["\\])*)"|([A-Za-z0-9_.-]+)|([{}=]))')


def _tokens(text):
    at, found = 0, []
    while text[at:].strip():
        token = _TOKEN.match(text, at)
        assert token, text[at : at + 60]
        at = token.end()
        comment, value, word, sign = token.groups()
        if value is not None:
            found.append(("value", re.sub(r"\\(.)", r"\1", value)))
        elif word:
            found.append(("word", word))
        elif sign:
            found.append(("sign", sign))
        else:
            assert comment
    return found


def read(text):
    """The sections of a file as dicts, without `include` lines; each value must stand in quotes."""
    text = re.sub(r"(?m)^include \S+$", "", text)
    tokens = _tokens(text)

    def section(at):
        found = {}
        while at < len(tokens) and tokens[at] != ("sign", "}"):
            kind, name = tokens[at]
            assert kind == "word" and name not in found, (kind, name)
            if tokens[at + 1] == ("sign", "{"):
                found[name], at = section(at + 2)
                assert tokens[at] == ("sign", "}")
                at += 1
            else:
                assert tokens[at + 1] == ("sign", "=") and tokens[at + 2][0] == "value"
                found[name] = tokens[at + 2][1]
                at += 3
        return found, at

    found, at = section(0)
    assert at == len(tokens)
    return found
