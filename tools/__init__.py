"""Tools that a person runs on a PC: `python -m tools --help`."""
