"""Linear heads side by side in one pass over the embeddings: torch and NumPy alone."""
