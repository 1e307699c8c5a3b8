"""`python -m tools`, and `minipsec` as pip installs it."""

import os
import signal


def _leave(*_):
    os.write(2, b"error: interrupted\n")
    os._exit(130)


def main():
    """The command line; a Ctrl-C while its modules are loaded is one line, as it is later on.

    It ends the process there and then: an exception could be caught by what is being imported.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)
        from .cli import main

        signal.signal(signal.SIGINT, before)
        main()
    except KeyboardInterrupt:  # before the command line could say it itself
        _leave()


if __name__ == "__main__":
    main()
