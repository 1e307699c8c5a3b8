"""What every command needs: how to speak, files, identities, what is built from firmware/."""
