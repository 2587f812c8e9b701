"""Evaluate a Core ML network with NumPy. Knows nothing of converters."""
