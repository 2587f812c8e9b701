"""Tools for neural networks at the places where coremltools has them."""

from mlferry.models import datatypes
from mlferry.models.neural_network import (
    builder,
    flexible_shape_utils,
    printer,
    quantization_utils,
    update_optimizer_utils,
)
from mlferry.models.neural_network.builder import NeuralNetworkBuilder
from mlferry.models.neural_network.update_optimizer_utils import AdamParams, SgdParams

__all__ = [
    "AdamParams",
    "NeuralNetworkBuilder",
    "SgdParams",
    "builder",
    "datatypes",
    "flexible_shape_utils",
    "printer",
    "quantization_utils",
    "update_optimizer_utils",
]
