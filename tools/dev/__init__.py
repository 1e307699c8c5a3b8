"""What developers run, mostly by `make`; nothing of it is installed."""
