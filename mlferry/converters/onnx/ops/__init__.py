"""ONNX ops to Core ML: one function each, or one row of a table."""

from mlferry.converters.onnx.ops import (
    arrays,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    reduction,
    reshaping,
)
from mlferry.converters.onnx.ops.registry import FRONTEND, OPS

__all__ = ["FRONTEND", "OPS"]

_FAMILIES = (
    arrays,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    reduction,
    reshaping,
)
