"""Products with matrices, and attention."""
