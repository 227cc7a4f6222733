"""The `cosine` command, and the supervisor that runs a whole mesh on one machine."""
