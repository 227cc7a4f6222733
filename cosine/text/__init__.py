"""Text: to token ids and back, and the files and command lines that people write. Without torch or transformers."""
