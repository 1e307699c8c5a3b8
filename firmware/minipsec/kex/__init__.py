"""Key exchange methods.  Loaded for a handshake and forgotten when the tunnel is up."""
