"""Peers and drivers of the core that say and hear whatever a script wants."""
