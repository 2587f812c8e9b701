"""Fewer bits for the weights of a model: `quantize_weights`, the search for bits, selectors."""

from mlferry.models.quantization.api import quantize_weights
from mlferry.models.quantization.search import search_quantization
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
    "search_quantization",
]
