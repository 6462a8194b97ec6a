"""A Hugging Face model folder: its files, what stands in them, which weights are tied. No transformers here."""
