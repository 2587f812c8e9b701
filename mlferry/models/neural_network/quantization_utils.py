"""`mlferry.models.quantization` under its coremltools address."""

from __future__ import annotations

import sys

from mlferry.models import compare
from mlferry.models.compare import Comparable
from mlferry.models.quantization import (
    AdvancedQuantizedLayerSelector,
    QuantizedLayerSelector,
    quantize_weights,
)
from mlferry.models.samples import SampleData

__all__ = [
    "AdvancedQuantizedLayerSelector",
    "QuantizedLayerSelector",
    "compare_models",
    "quantize_weights",
]


def compare_models(
    full_precision_model: Comparable, quantized_model: Comparable, sample_data: SampleData
) -> compare.Report:
    """Print how far two models agree, as coremltools does.

    `mlferry.compare_models` returns the report without printing it.
    """
    report = compare.compare_models(full_precision_model, quantized_model, sample_data)
    sys.stdout.write(f"{report}\n")
    return report
