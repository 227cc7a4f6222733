"""The drafter: a small model that guesses ahead for whoever asks. Knows nothing of the mesh."""
