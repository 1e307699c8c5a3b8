"""An IKE SA: messages, fragments, exchanges.  Stays as long as the IKE SA."""
