"""Joining, splitting and repeating arrays, and constants."""
