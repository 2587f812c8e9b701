"""ONNX ops to Core ML: a function for each, or a row of a table."""

from mlferry.converters.onnx.ops import (  # noqa: F401 (they register their functions)
    arrays,
    attention,
    control,
    convolution,
    detection,
    elementwise,
    grouped_attention,
    indexing,
    integers,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    reshaping,
    resizing,
    sampling,
    sequences,
    spectral,
)
from mlferry.converters.onnx.ops.registry import FRONTEND, OPS

__all__ = ["FRONTEND", "OPS"]
