"""A Hugging Face model folder: which files it has, what stands in them, which weights are tied. No transformers here."""
