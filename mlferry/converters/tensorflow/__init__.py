"""TensorFlow models to Core ML."""

from mlferry.converters.tensorflow.api import convert

__all__ = ["convert"]
