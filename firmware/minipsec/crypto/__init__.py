"""Ciphers, key derivation, random generator.  A module is loaded when it is chosen, and stays."""
