"""Ciphers, key derivation, the random generator.  Each is loaded when it is chosen, and stays."""
