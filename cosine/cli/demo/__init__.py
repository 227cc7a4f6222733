"""`python -m cosine.cli.demo`: boots a whole mesh, streams prompts through it, compares it with plain decoding."""
