"""Clocks that leap and links that lose: long times and bad networks in seconds."""
