"""Tools for neural networks at the places where coremltools has them."""

from mlferry.models.neural_network import flexible_shape_utils, quantization_utils

__all__ = ["flexible_shape_utils", "quantization_utils"]
