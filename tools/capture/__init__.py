"""Record IKE and ESP from an interface, and read them with the keys of a debug session."""
