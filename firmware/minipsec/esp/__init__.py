"""A Child SA: its packets, sequence numbers and replay window.

Loaded at UP, and stays as long as the tunnel."""
