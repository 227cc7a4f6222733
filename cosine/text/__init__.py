"""Text: to token ids and back, and the files that people write. Without torch or transformers."""
