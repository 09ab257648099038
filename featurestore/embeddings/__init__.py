"""Embeddings: in batches out of Parquet, and as one memory-mapped matrix."""
