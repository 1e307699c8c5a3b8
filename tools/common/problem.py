"""What ends a command: one clear message, and an exit code."""

_LONGEST = 80  # characters of what was typed or read that an error repeats


def shortened(text):
    """What was typed or read, as an error repeats it."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}.. ({len(text)} characters)"


class Problem(Exception):
    """A command could not do its work; the text says why, `fix` what to do then."""

    code = 1

    def __init__(self, text, fix=None):
        super().__init__(text)
        self.fix = fix


class BadInput(Problem):
    """What was typed or read makes no sense; nothing was changed."""

    code = 2


class Interrupted(Problem):
    """Ctrl-C; the text says what was left behind."""

    code = 130
