"""Products with matrices, and embeddings."""
