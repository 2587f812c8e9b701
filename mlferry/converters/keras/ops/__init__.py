"""Converters of Keras layers and activations, one function each.

A converter takes the `Lowering`, the node and its inputs, and returns the results. The registry's
`layouts` lists the layouts of inputs that it can handle, the preferred one first.
"""

from mlferry.converters.keras.ops import (  # noqa: F401 (they register their functions)
    activations,
    arithmetic,
    attention,
    convolution,
    core,
    fourier,
    images,
    linear,
    local,
    manipulation,
    merging,
    normalization,
    ordering,
    pooling,
    preprocessing,
    recurrent,
    reductions,
    reshaping,
    resizing,
    signals,
    tensorflow_ops,
    updates,
    volumes,
    windows,
)
from mlferry.converters.keras.ops.registry import FRONTEND, OPS

__all__ = ["FRONTEND", "OPS"]
