"""Parts of the transformers engine: slots, steps, attention, packing, picking and loading of Hugging Face models."""
