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
        "mlferry.models": ("datatypes",),
        "mlferry.models.neural_network.builder": ("NeuralNetworkBuilder",),
        "mlferry.models.neural_network.update_optimizer_utils": ("AdamParams", "SgdParams"),
    },
)
