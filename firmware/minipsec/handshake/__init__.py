"""From IKE_SA_INIT to IKE_AUTH.  Loaded for a handshake and forgotten when the tunnel is up."""
