"""TensorFlow ops to Core ML: one function each, or one row of a table."""

from mlferry.converters.tensorflow.ops import (  # noqa: F401 (they register their functions)
    arrays,
    colors,
    complex_numbers,
    control,
    convolution,
    detection,
    elementwise,
    indexing,
    linear,
    lists,
    normalization,
    pooling,
    quantization,
    random,
    recurrent,
    reduction,
    reshaping,
    resizing,
    segments,
)
from mlferry.converters.tensorflow.ops.registry import FRONTEND, OPS

__all__ = ["FRONTEND", "OPS"]
