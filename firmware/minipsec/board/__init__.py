"""What differs from board to board: sockets, clocks, network, entropy.

Loaded at boot; the rare parts are loaded when they are needed."""
