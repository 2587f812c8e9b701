"""Parts of arrays."""
