"""Fewer bits for the weights of a model: `quantize_weights` and what picks the weights."""

from mlferry.models.quantization.api import quantize_weights
from mlferry.models.quantization.selectors import (
    AdvancedQuantizedLayerSelector,
    QuantizedLayerSelector,
    at_least,
    but,
    by_kind,
    by_name,
    everything,
    matrices,
)

__all__ = [
    "AdvancedQuantizedLayerSelector",
    "QuantizedLayerSelector",
    "at_least",
    "but",
    "by_kind",
    "by_name",
    "everything",
    "matrices",
    "quantize_weights",
]
