"""Evaluate a Core ML network with NumPy. This package knows nothing of converters."""

from mlferry import lazy

__getattr__, __dir__ = lazy.names(__name__)
