"""Joining, splitting, repeating and filling arrays."""
