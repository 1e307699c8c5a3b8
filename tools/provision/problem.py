"""What ends a command: one clear message, and an exit code."""


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
