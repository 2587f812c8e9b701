"""Tools for neural networks under their coremltools addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlferry import lazy

if TYPE_CHECKING:
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

__getattr__, __dir__ = lazy.names(
    __name__,
    {
        "AdamParams": "mlferry.models.neural_network.update_optimizer_utils:AdamParams",
        "NeuralNetworkBuilder": "mlferry.models.neural_network.builder:NeuralNetworkBuilder",
        "SgdParams": "mlferry.models.neural_network.update_optimizer_utils:SgdParams",
        "builder": "mlferry.models.neural_network.builder",
        "datatypes": "mlferry.models.datatypes",
        "flexible_shape_utils": "mlferry.models.neural_network.flexible_shape_utils",
        "printer": "mlferry.models.neural_network.printer",
        "quantization_utils": "mlferry.models.neural_network.quantization_utils",
        "update_optimizer_utils": "mlferry.models.neural_network.update_optimizer_utils",
    },
)
