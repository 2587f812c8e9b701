"""Converters of the ops, one file for each family."""

from mlferry.converters.onnx.ml.ops import (  # noqa: F401 (they register their functions)
    encoders,
    linear,
    moving,
    numbers,
    support_vectors,
    trees,
)
