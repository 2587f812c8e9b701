"""`mlferry.models.quantization` at the place where coremltools has it."""

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
    """Write how far two models agree to the standard output, as coremltools does.

    `mlferry.compare_models` gives the report without writing it.
    """
    report = compare.compare_models(full_precision_model, quantized_model, sample_data)
    sys.stdout.write(f"{report}\n")
    return report
