"""The profile and its secrets, read and checked.  Forgotten once they are read."""
