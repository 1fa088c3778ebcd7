"""A page of this machine's own: run directories to look through, and their models to talk to."""
