"""strongSwan's side of an inventory: as files (`config`) or in a running charon (`live`)."""
