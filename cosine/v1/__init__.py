"""Generated from protos/cosine/v1 by scripts/generate_protos.py; do not edit."""
